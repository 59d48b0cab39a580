#include <algorithm>
#include <cmath>

#include "core.h"
#include "half.h"

namespace subllm {

namespace {

// Sums run in 16 lanes that are folded at the end: an order that neither the compiler nor
// the vector width can change, and that the numpy reference repeats.
constexpr int kLanes = 16;
// Adding and subtracting 1.5 * 2^23 rounds to the nearest even integer.
constexpr float kRound = 12582912.0f;

constexpr float kInt8Divisors[] = {126.5f, 127.0f, 127.5f, 128.5f};

struct Grid {
  float low, high;
};

template <Grid G>
inline float code_of(float value, float inverse) {
  float x = value * inverse;
  x = x < G.low ? G.low : x;
  x = x > G.high ? G.high : x;
  return (x + kRound) - kRound;
}

inline float fold(float* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <Grid G>
float squared_error(const float* values, int padded, float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  float lanes[kLanes] = {};
  for (int i = 0; i < padded; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float error = values[i + l] - code_of<G>(values[i + l], inverse) * scale;
      lanes[l] += error * error;
    }
  return fold(lanes);
}

// The scale that fits the codes of `scale` best: sum(value * code) / sum(code^2).
template <Grid G>
float refined(const float* values, int padded, float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  float products[kLanes] = {}, squares[kLanes] = {};
  for (int i = 0; i < padded; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float code = code_of<G>(values[i + l], inverse);
      products[l] += values[i + l] * code;
      squares[l] += code * code;
    }
  const float square = fold(squares);
  return square != 0.0f ? fold(products) / square : scale;
}

// `edge` over a divisor is a candidate scale.
template <Grid G, size_t N>
uint16_t search(const float* values, int count, float edge, const float (&divisors)[N],
                int8_t* codes) {
  const int padded = static_cast<int>(ceil_div(count, kLanes)) * kLanes;
  uint16_t best = 0;
  float best_error = 0.0f;
  const auto consider = [&](float scale, bool first) {
    const uint16_t half = float_to_half(scale);
    const float error = squared_error<G>(values, padded, half_to_float(half));
    if (first || error < best_error) {
      best = half;
      best_error = error;
    }
  };
  for (size_t i = 0; i < N; ++i) consider(edge / divisors[i], i == 0);
  consider(refined<G>(values, padded, half_to_float(best)), false);
  if ((best & 0x7fffu) == 0) best = 0;
  const float scale = half_to_float(best);
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  for (int i = 0; i < padded; ++i)
    codes[i] = static_cast<int8_t>(static_cast<int32_t>(code_of<G>(values[i], inverse)));
  return best;
}

}  // namespace

uint16_t quantize_group(const float* values, int count, int8_t* codes) {
  float extreme = 0.0f;
  for (int i = 0; i < count; ++i) extreme = std::max(extreme, std::fabs(values[i]));
  if (extreme == 0.0f) {
    for (int i = 0; i < count; ++i) codes[i] = 0;
    return 0;
  }
  return search<Grid{-127.0f, 127.0f}>(values, count, extreme, kInt8Divisors, codes);
}

}  // namespace subllm
