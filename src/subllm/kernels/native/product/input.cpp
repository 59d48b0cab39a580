#include "product/input.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace subllm {

namespace {

constexpr int64_t kPieceValues = 4096;  // fewer are not worth another thread
constexpr int64_t kSubWords = kGroupSubs / 2;  // two sums a word

void to_bf16(const float* x, int64_t count, int64_t padded, uint16_t* out) {
  for (int64_t c = 0; c < count; ++c) out[c] = float_to_bf16(x[c]);
  std::memset(out + count, 0, static_cast<size_t>(padded - count) * sizeof(uint16_t));
}

void copy(const float* x, int64_t count, int64_t padded, float* out) {
  std::memcpy(out, x, static_cast<size_t>(count) * sizeof(float));
  std::memset(out + count, 0, static_cast<size_t>(padded - count) * sizeof(float));
}

// Words of `count` tokens, which lie `pitch` apart, into columns of `lanes` words: word i of
// token t goes to [i][t]. Zeros from `count` on.
template <typename Word>
void lay_side_by_side(const void* from, int64_t pitch, int64_t count, int64_t words, int64_t lanes,
                      Word* to) {
  const auto* source = static_cast<const Word*>(from);
  for (int64_t t = 0; t < lanes; ++t)
    for (int64_t i = 0; i < words; ++i) to[i * lanes + t] = t < count ? source[t * pitch + i] : Word{};
}

}  // namespace

void Input::prepare(Pool& pool, const float* x, int64_t tokens, int64_t cols, int64_t x_stride,
                    unsigned forms, const Kernels& with) {
  const int64_t groups = ceil_div(cols, kGroupCols), width = groups * kGroupCols;
  const int64_t lanes = std::max(with.lanes, 1);
  const int64_t left = tokens % lanes;
  const bool fill = left > 0 && left >= with.fill;
  const int64_t laned = with.lanes ? tokens - left + (fill ? lanes : 0) : 0;

  const bool int8 = forms & kInt8Input, bf16 = forms & kBf16Input, exact = forms & kExactInput;
  view_ = {};
  view_.tokens = tokens, view_.cols = cols, view_.groups = groups;
  view_.laned = laned;
  int8_t* codes = codes_.reserve(int8 ? tokens * width : 0);
  float* scales = scales_.reserve(int8 ? tokens * groups : 0);
  int16_t* subs = subs_.reserve(int8 ? tokens * groups * kGroupSubs : 0);
  uint32_t* code_lanes = code_lanes_.reserve(int8 ? laned * width / 4 : 0);
  float* scale_lanes = scale_lanes_.reserve(int8 ? laned * groups : 0);
  uint32_t* sub_lanes = sub_lanes_.reserve(int8 ? laned * groups * kSubWords : 0);
  uint16_t* values = bf16_.reserve(bf16 ? tokens * width : 0);
  uint32_t* bf16_lanes = bf16_lanes_.reserve(bf16 ? laned * width / 2 : 0);
  float* copies = exact_.reserve(exact ? tokens * width : 0);

  // The groups [begin, end) of the tokens of a block.
  const auto prepare_part = [&](int64_t block, int64_t begin, int64_t end) {
    const int64_t first = block * lanes, count = std::min(lanes, tokens - first);
    const int64_t at = begin * kGroupCols, padded = (end - begin) * kGroupCols;
    const int64_t present = std::min(cols - at, padded);
    for (int64_t t = first; t < first + count; ++t) {
      const float* row = x + t * x_stride + at;
      if (int8)
        with.quantize(row, present, codes + t * width + at, scales + t * groups + begin,
                      subs + (t * groups + begin) * kGroupSubs);
      if (bf16) to_bf16(row, present, padded, values + t * width + at);
      if (exact) copy(row, present, padded, copies + t * width + at);
    }
    const int8_t* own_codes = codes + first * width + at;
    const float* own_scales = scales + first * groups + begin;
    const int16_t* own_subs = subs + (first * groups + begin) * kGroupSubs;
    const uint16_t* own_values = values + first * width + at;
    if (first < laned) {
      if (int8) {
        lay_side_by_side(own_codes, width / 4, count, padded / 4, lanes,
                         code_lanes + first * width / 4 + at / 4 * lanes);
        lay_side_by_side(own_scales, groups, count, end - begin, lanes,
                         scale_lanes + first * groups + begin * lanes);
        lay_side_by_side(own_subs, groups * kSubWords, count, (end - begin) * kSubWords, lanes,
                         sub_lanes + (first * groups + begin * lanes) * kSubWords);
      }
      if (bf16)
        lay_side_by_side(own_values, width / 2, count, padded / 2, lanes,
                         bf16_lanes + first * width / 2 + at / 2 * lanes);
    }
  };
  const int64_t blocks = ceil_div(tokens, lanes);
  const int64_t grain = ceil_div(kPieceValues, std::min(tokens, lanes) * kGroupCols);
  pool.run(blocks * groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin / groups; block * groups < end; ++block)
      prepare_part(block, std::max<int64_t>(begin - block * groups, 0),
                   std::min(end - block * groups, groups));
  });
  forms_ = forms;
  view_.codes = codes, view_.scales = scales, view_.subs = subs, view_.bf16 = values;
  view_.code_lanes = code_lanes, view_.scale_lanes = scale_lanes, view_.sub_lanes = sub_lanes;
  view_.bf16_lanes = bf16_lanes;
}

}  // namespace subllm
