#include "input.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace subllm {

namespace {

void to_bf16(const float* x, int64_t cols, int64_t stride, uint16_t* out) {
  for (int64_t c = 0; c < cols; ++c) out[c] = float_to_bf16(x[c]);
  std::memset(out + cols, 0, static_cast<size_t>(stride - cols) * sizeof(uint16_t));
}

void copy(const float* x, int64_t cols, int64_t stride, float* out) {
  std::memcpy(out, x, static_cast<size_t>(cols) * sizeof(float));
  std::memset(out + cols, 0, static_cast<size_t>(stride - cols) * sizeof(float));
}

// from [count][width] in units of 4 bytes -> to [width][lanes], zeros from `count` on.
template <typename From, typename To>
void lay_side_by_side(const From* from, int64_t count, int64_t width, int64_t lanes, To* to) {
  static_assert(sizeof(To) == 4);
  const auto* source = reinterpret_cast<const char*>(from);
  for (int64_t i = 0; i < width; ++i)
    for (int64_t t = 0; t < lanes; ++t) {
      to[i * lanes + t] = 0;
      if (t < count) std::memcpy(&to[i * lanes + t], source + (t * width + i) * 4, 4);
    }
}

}  // namespace

void Input::prepare(Pool& pool, const float* x, int64_t tokens, int64_t cols, int64_t x_stride,
                    unsigned forms, const Kernels& with) {
  const int64_t groups = ceil_div(cols, kGroupCols), width = groups * kGroupCols;
  const int64_t lanes = std::max(with.lanes, 1);
  int64_t laned = with.lanes ? tokens / lanes * lanes : 0;
  if (with.lanes && tokens - laned >= with.fill) laned += lanes;

  const int64_t int8_tokens = forms & kInt8Input ? tokens : 0;
  const int64_t int8_laned = forms & kInt8Input ? laned : 0;
  int8_t* codes = codes_.reserve(int8_tokens * width);
  float* scales = scales_.reserve(int8_tokens * groups);
  int32_t* sums = sums_.reserve(int8_tokens * groups);
  uint32_t* code_lanes = code_lanes_.reserve(int8_laned * width / 4);
  float* scale_lanes = scale_lanes_.reserve(int8_laned * groups);
  int32_t* sum_lanes = sum_lanes_.reserve(int8_laned * groups);
  uint16_t* bf16 = bf16_.reserve(forms & kBf16Input ? tokens * width : 0);
  uint32_t* bf16_lanes = bf16_lanes_.reserve(forms & kBf16Input ? laned * width / 2 : 0);
  float* exact = exact_.reserve(forms & kExactInput ? tokens * width : 0);

  const auto prepare_block = [&](int64_t block) {
    const int64_t first = block * lanes, count = std::min(lanes, tokens - first);
    for (int64_t t = first; t < first + count; ++t) {
      const float* row = x + t * x_stride;
      if (forms & kInt8Input)
        with.quantize(row, cols, codes + t * width, scales + t * groups, sums + t * groups);
      if (forms & kBf16Input) to_bf16(row, cols, width, bf16 + t * width);
      if (forms & kExactInput) copy(row, cols, width, exact + t * width);
    }
    if (first >= laned) return;
    if (forms & kInt8Input) {
      lay_side_by_side(codes + first * width, count, width / 4, lanes,
                       code_lanes + first * width / 4);
      lay_side_by_side(scales + first * groups, count, groups, lanes, scale_lanes + first * groups);
      lay_side_by_side(sums + first * groups, count, groups, lanes, sum_lanes + first * groups);
    }
    if (forms & kBf16Input)
      lay_side_by_side(bf16 + first * width, count, width / 2, lanes,
                       bf16_lanes + first * width / 2);
  };
  pool.run(ceil_div(tokens, lanes), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) prepare_block(block);
  });
  forms_ = forms;
  view_ = {tokens, cols,       groups,      codes,     scales,    sums,
           bf16,   laned, code_lanes, scale_lanes, sum_lanes, bf16_lanes};
}

}  // namespace subllm
