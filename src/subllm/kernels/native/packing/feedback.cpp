// Rounding with feedback: what a column's rounding adds to the outputs is taken back by the
// columns after it, as GPTQ does.

#include <vector>

#include "core.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kRowGrain = 16;
// Adding and subtracting 1.5 * 2^23 rounds to the nearest even integer.
constexpr float kRound = 12582912.0f;

inline float nearest(float x, float low, float high) {
  x = x < low ? low : x;
  x = x > high ? high : x;
  return (x + kRound) - kRound;
}

}  // namespace

void round_with_feedback(float* weights, const FeedbackBlock& block, uint8_t* codes,
                         float* errors, int threads) {
  const int64_t cols = block.cols;
  parallel_for(block.rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* w = weights + row * cols;
      const float* steps = block.steps + row * block.subs;
      const float* minima = block.minima ? block.minima + row * block.subs : nullptr;
      const uint8_t* kept = block.kept ? block.kept + row * cols : nullptr;
      for (int64_t c = 0; c < cols; ++c) {
        const int64_t at = row * cols + c;
        const float step = steps[block.sub_of[c]];
        // A dropped weight stays 0: what earlier columns wanted from it goes on to later ones.
        const bool chosen = kept == nullptr || kept[c];
        float value = 0.0f, code = 8.0f;
        if (chosen && minima) {
          const float minimum = minima[block.sub_of[c]];
          code = step != 0.0f ? nearest((w[c] + minimum) / step, 0.0f, 15.0f) : 0.0f;
          value = step * code - minimum;
        } else if (chosen) {
          code = step != 0.0f ? nearest(w[c] / step, -8.0f, 7.0f) : 0.0f;
          value = step * code;
          code += 8.0f;
        }
        codes[at] = static_cast<uint8_t>(code);
        const float* upper = block.upper + c * cols;
        const float error = (w[c] - value) / upper[c];
        errors[at] = error;
        for (int64_t j = c + 1; j < cols; ++j) w[j] -= error * upper[j];
      }
    }
  });
}

}  // namespace subllm
