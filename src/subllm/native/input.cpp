#include "input.h"

#include <cstring>

#include "half.h"

namespace subllm {

namespace {

constexpr int64_t kTokenGrain = 8;

void to_bf16(const float* x, int64_t cols, int64_t stride, uint16_t* out) {
  for (int64_t c = 0; c < cols; ++c) out[c] = float_to_bf16(x[c]);
  std::memset(out + cols, 0, static_cast<size_t>(stride - cols) * sizeof(uint16_t));
}

void copy(const float* x, int64_t cols, int64_t stride, float* out) {
  std::memcpy(out, x, static_cast<size_t>(cols) * sizeof(float));
  std::memset(out + cols, 0, static_cast<size_t>(stride - cols) * sizeof(float));
}

}  // namespace

void Input::prepare(Pool& pool, const float* x, int64_t tokens, int64_t cols, int64_t x_stride,
                    unsigned forms, const Kernels& with) {
  const int64_t groups = ceil_div(cols, kGroupCols), width = groups * kGroupCols;
  int8_t* codes = forms & kInt8Input ? codes_.reserve(tokens * width) : nullptr;
  float* scales = forms & kInt8Input ? scales_.reserve(tokens * groups) : nullptr;
  int32_t* sums = forms & kInt8Input ? sums_.reserve(tokens * groups) : nullptr;
  uint16_t* bf16 = forms & kBf16Input ? bf16_.reserve(tokens * width) : nullptr;
  float* exact = forms & kExactInput ? exact_.reserve(tokens * width) : nullptr;
  pool.run(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x + t * x_stride;
      if (codes) with.quantize(row, cols, codes + t * width, scales + t * groups, sums + t * groups);
      if (bf16) to_bf16(row, cols, width, bf16 + t * width);
      if (exact) copy(row, cols, width, exact + t * width);
    }
  });
  forms_ = forms;
  view_ = {tokens, cols, groups, codes, scales, sums, bf16};
}

}  // namespace subllm
