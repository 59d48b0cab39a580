// The screen's product in plain C++.

#include "isa/screen.h"

#include <algorithm>

namespace subllm {

void screen_scalar(const ScreenView& view, const ScreenStates& states, int64_t begin, int64_t end,
                   float* out, int64_t out_stride) {
  const int64_t units = view.units();
  for (int64_t tile = begin; tile < end; ++tile) {
    const uint8_t* codes = view.codes + tile * units * kScreenUnit;
    const int64_t count = std::min(kScreenRows, view.rows - tile * kScreenRows);
    for (int64_t t = 0; t < states.tokens; ++t) {
      int32_t dots[kScreenRows] = {};
      for (int64_t unit = 0; unit < units; ++unit) {
        const int8_t* x = states.codes + t * states.stride + unit * kScreenCols;
        for (int64_t j = 0; j < kScreenUnit; ++j) {
          const int byte = codes[unit * kScreenUnit + j];
          for (int64_t k = 0; k < 4; ++k)
            dots[4 * k + j / kScreenCols] += (byte >> (2 * k) & 3) * x[j % kScreenCols];
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        const int64_t row = tile * kScreenRows + r;
        out[t * out_stride + row] = static_cast<float>(2 * dots[r] - 3 * states.sums[t]) *
                                    (view.steps[row] * states.scales[t]);
      }
    }
  }
}

}  // namespace subllm
