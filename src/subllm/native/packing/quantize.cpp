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

namespace {

constexpr int64_t kSubs = kSuperCols / kSubCols;

// Integer parts 0 .. 255 of what `wanted` asks for, and their common scale as binary16 bits.
uint16_t common_scale(const float (&wanted)[kSubs], uint8_t (&parts)[kSubs]) {
  float largest = 0.0f;
  for (const float value : wanted) largest = std::max(largest, value);
  const uint16_t half = float_to_half(largest / 255.0f);
  const float scale = half_to_float(half);
  for (int64_t j = 0; j < kSubs; ++j) {
    const float part = scale != 0.0f ? wanted[j] / scale : 0.0f;
    parts[j] = static_cast<uint8_t>((std::min(part, 255.0f) + kRound) - kRound);
  }
  return half;
}

}  // namespace

void quantize_super(const float* weights, const uint8_t* kept, int64_t cols, uint8_t* codes,
                    uint16_t* scales, uint8_t (*subscales)[kSubs]) {
  float steps[kSubs] = {}, minima[kSubs] = {};
  const auto each = [&](int64_t sub, auto visit) {
    for (int64_t c = sub * kSubCols; c < std::min((sub + 1) * kSubCols, cols); ++c)
      if (!kept || kept[c]) visit(c);
  };
  for (int64_t j = 0; j < kSubs; ++j) {
    float low = 0.0f, high = 0.0f;
    each(j, [&](int64_t c) {
      low = std::min(low, weights[c]);
      high = std::max(high, weights[c]);
    });
    minima[j] = -low;
    steps[j] = kept ? std::max(high / 7.0f, -low / 8.0f) : (high - low) / 15.0f;
  }
  scales[0] = common_scale(steps, subscales[0]);
  if (!kept) scales[1] = common_scale(minima, subscales[1]);
  const float scale = half_to_float(scales[0]), minimum = kept ? 0.0f : half_to_float(scales[1]);
  for (int64_t c = 0; c < cols; ++c) codes[c] = kept ? 8 : 0;
  for (int64_t j = 0; j < kSubs; ++j) {
    const float step = scale * static_cast<float>(subscales[0][j]);
    const float offset = kept ? step * 8.0f : minimum * static_cast<float>(subscales[1][j]);
    each(j, [&](int64_t c) {
      const float code = step != 0.0f ? (weights[c] + offset) / step : (kept ? 8.0f : 0.0f);
      codes[c] = static_cast<uint8_t>((std::clamp(code, 0.0f, 15.0f) + kRound) - kRound);
    });
  }
}

}  // namespace subllm
