// Codes, scales and minima of int4: weighted least squares over each 32 columns, then integer
// parts of one binary16 for 256 columns, then codes once more for what the parts can say.
// The search is that of ggml's k-quants: candidate codes from a few spans of the grid, each
// fitted in closed form.

#include <algorithm>
#include <cmath>

#include "core.h"
#include "half.h"

namespace subllm {

namespace {

constexpr int kSub = static_cast<int>(kSubCols);
constexpr int kSubs = static_cast<int>(kSuperCols / kSubCols);
// Sums run in 16 lanes that are folded at the end: an order that neither the compiler nor
// the vector width can change, and that the numpy reference repeats.
constexpr int kLanes = 16;
// Adding and subtracting 1.5 * 2^23 rounds to the nearest even integer.
constexpr float kRound = 12582912.0f;
constexpr uint16_t kLargestHalf = 0x7bff;

// Codes that the range of the weights is spread over, at first.
constexpr float kAffineSpans[] = {14.0f, 14.1f, 14.2f, 14.3f, 14.4f, 14.5f, 14.6f,
                                  14.7f, 14.8f, 14.9f, 15.0f, 15.1f, 15.2f, 15.3f,
                                  15.4f, 15.5f, 15.6f, 15.7f, 15.8f, 15.9f, 16.0f};
// The same for the largest magnitude of a grid from -8 to 7.
constexpr float kSymmetricSpans[] = {5.5f, 6.0f, 6.5f, 7.0f, 7.25f, 7.5f, 7.75f, 8.0f,
                                     8.25f, 8.5f, 8.75f, 9.0f, 9.5f, 10.0f, 11.0f};

inline float code_of(float x, float low, float high) {
  x = x < low ? low : x;
  x = x > high ? high : x;
  return (x + kRound) - kRound;
}

// Sum of term(i) over 32 columns.
template <typename Term>
inline float sum(Term term) {
  float lanes[kLanes];
  for (int l = 0; l < kLanes; ++l) lanes[l] = term(l) + term(kLanes + l);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

// Weights of 32 columns and what their squared errors count; both 0 where none is kept.
struct Group {
  alignas(64) float x[kSub] = {};
  alignas(64) float w[kSub] = {};
};

struct Affine {
  float step = 0.0f, minimum = 0.0f;  // x ~ step * code - minimum
};

Affine fit_affine(const Group& g) {
  float low = 0.0f, high = 0.0f;
  for (const float x : g.x) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  const float range = high - low;
  if (range == 0.0f) return {};
  const float weight = sum([&](int i) { return g.w[i]; });
  const float total = sum([&](int i) { return g.w[i] * g.x[i]; });
  alignas(64) float q[kSub];
  const auto encode = [&](float inverse) {
    for (int i = 0; i < kSub; ++i) q[i] = code_of((g.x[i] - low) * inverse, 0.0f, 15.0f);
  };
  const auto error = [&](const Affine& fit) {
    return sum([&](int i) {
      const float e = (fit.step * q[i] - fit.minimum) - g.x[i];
      return g.w[i] * (e * e);
    });
  };
  Affine best{range / 15.0f, -low};
  encode(15.0f / range);
  float least = error(best);
  for (const float span : kAffineSpans) {
    encode(span / range);
    const float sq = sum([&](int i) { return g.w[i] * q[i]; });
    const float sqq = sum([&](int i) { return g.w[i] * (q[i] * q[i]); });
    const float sqx = sum([&](int i) { return (g.w[i] * g.x[i]) * q[i]; });
    const float determinant = weight * sqq - sq * sq;
    if (!(determinant > 0.0f)) continue;
    Affine fit{(weight * sqx - total * sq) / determinant, (sq * sqx - sqq * total) / determinant};
    if (fit.minimum < 0.0f) fit = {sqx / sqq, 0.0f};
    if (!(fit.step > 0.0f)) continue;
    const float e = error(fit);
    if (e < least) {
      least = e;
      best = fit;
    }
  }
  return best;
}

// x ~ sign * step * code with codes -8 .. 7; adds the error to `total`.
float fit_symmetric(const Group& g, float sign, float& total) {
  float largest = 0.0f;
  for (const float x : g.x) largest = std::max(largest, std::fabs(x));
  if (largest == 0.0f) return 0.0f;
  alignas(64) float q[kSub];
  const auto encode = [&](float inverse) {
    for (int i = 0; i < kSub; ++i) q[i] = code_of(g.x[i] * inverse, -8.0f, 7.0f);
  };
  const auto error = [&](float step) {
    return sum([&](int i) {
      const float e = step * q[i] - g.x[i];
      return g.w[i] * (e * e);
    });
  };
  float best = largest / 7.0f;
  encode(sign * (7.0f / largest));
  float least = error(sign * best);
  for (const float span : kSymmetricSpans) {
    encode(sign * (span / largest));
    const float sqq = sum([&](int i) { return g.w[i] * (q[i] * q[i]); });
    const float sqx = sum([&](int i) { return (g.w[i] * g.x[i]) * q[i]; });
    const float step = sqx / sqq;
    if (!(sign * step > 0.0f)) continue;
    const float e = error(step);
    if (e < least) {
      least = e;
      best = sign * step;
    }
  }
  total += least;
  return best;
}

// Integer parts 0 .. 255 of what `wanted` asks for, and their common scale as binary16 bits:
// the one that makes the largest part 255, or the next that lets it be one.
uint16_t common_scale(const float (&wanted)[kSubs], uint8_t (&parts)[kSubs]) {
  float largest = 0.0f;
  for (const float value : wanted) largest = std::max(largest, value);
  uint16_t half = float_to_half(largest / 255.0f);
  if (half < kLargestHalf && half_to_float(half) * 255.5f < largest) ++half;
  const float scale = half_to_float(half);
  for (int j = 0; j < kSubs; ++j) {
    const float part = scale != 0.0f ? wanted[j] / scale : 0.0f;
    parts[j] = static_cast<uint8_t>(code_of(part, 0.0f, 255.0f));
  }
  return half;
}

void encode_dense(const float* weights, int64_t cols, const Group (&groups)[kSubs],
                  uint8_t* codes, uint16_t* scales, uint8_t (*subscales)[kSubs]) {
  float steps[kSubs], minima[kSubs];
  for (int j = 0; j < kSubs; ++j) {
    const Affine fit = fit_affine(groups[j]);
    steps[j] = fit.step;
    minima[j] = fit.minimum;
  }
  scales[0] = common_scale(steps, subscales[0]);
  scales[1] = common_scale(minima, subscales[1]);
  const float scale = half_to_float(scales[0]), minimum = half_to_float(scales[1]);
  for (int64_t c = 0; c < cols; ++c) {
    const int64_t j = c / kSubCols;
    const float step = scale * static_cast<float>(subscales[0][j]);
    const float offset = minimum * static_cast<float>(subscales[1][j]);
    const float code = step != 0.0f ? (weights[c] + offset) / step : 0.0f;
    codes[c] = static_cast<uint8_t>(code_of(code, 0.0f, 15.0f));
  }
}

void encode_kept(const float* weights, const uint8_t* kept, int64_t cols,
                 const Group (&groups)[kSubs], uint8_t* codes, uint16_t* scales,
                 uint8_t (*subscales)[kSubs]) {
  float plus[kSubs], minus[kSubs], plus_error = 0.0f, minus_error = 0.0f;
  for (int j = 0; j < kSubs; ++j) {
    plus[j] = fit_symmetric(groups[j], 1.0f, plus_error);
    minus[j] = fit_symmetric(groups[j], -1.0f, minus_error);
  }
  // The grid has one code more below zero: the sign of the scale says for which weights.
  const bool negative = minus_error < plus_error;
  scales[0] = common_scale(negative ? minus : plus, subscales[0]);
  if (negative && scales[0] != 0) scales[0] |= 0x8000u;
  const float scale = half_to_float(scales[0]);
  for (int64_t c = 0; c < cols; ++c) {
    const float step = scale * static_cast<float>(subscales[0][c / kSubCols]);
    const float code = kept[c] && step != 0.0f ? weights[c] / step : 0.0f;
    codes[c] = static_cast<uint8_t>(code_of(code, -8.0f, 7.0f) + 8.0f);
  }
}

}  // namespace

void quantize_super(const float* weights, const uint8_t* kept, const float* importance,
                    int64_t cols, uint8_t* codes, uint16_t* scales,
                    uint8_t (*subscales)[kSubs]) {
  Group groups[kSubs];
  for (int64_t c = 0; c < cols; ++c) {
    if (kept && !kept[c]) continue;
    groups[c / kSubCols].x[c % kSubCols] = weights[c];
    groups[c / kSubCols].w[c % kSubCols] = importance ? importance[c] : 1.0f;
  }
  if (kept)
    encode_kept(weights, kept, cols, groups, codes, scales, subscales);
  else
    encode_dense(weights, cols, groups, codes, scales, subscales);
}

}  // namespace subllm
