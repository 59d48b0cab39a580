// AVX-512 with VBMI, VBMI2, VNNI and BF16: the table, and the quantiser of activations.

#include "avx512/avx512.h"

namespace subllm {

namespace avx512 {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int16_t* subs) {
  for (int64_t g = 0; g * kGroupCols < cols; ++g, x += kGroupCols, codes += kGroupCols) {
    const int64_t count = least(kGroupCols, cols - g * kGroupCols);
    __m512 values[8];
    __m512i largest = _mm512_setzero_si512();  // bits of magnitudes: a NaN, above infinity, stays
    for (int i = 0; i < 8; ++i) {
      const int64_t left = count - 16 * i;
      const auto lanes =
          static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
      values[i] = _mm512_maskz_loadu_ps(lanes, x + 16 * i);
      largest = _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(values[i])));
    }
    const float most = __builtin_bit_cast(float, _mm512_reduce_max_epi32(largest));
    const bool zero = most < kSmallestInput;
    const __m512 inverse = _mm512_set1_ps(zero ? 0.0f : 127.0f / most);
    for (int j = 0; j < kGroupSubs; ++j) {
      __m512i sum = _mm512_setzero_si512();
      for (int i = 2 * j; i < 2 * j + 2; ++i) {
        const __m512i code = _mm512_cvtps_epi32(
            _mm512_min_ps(_mm512_mul_ps(values[i], inverse), _mm512_set1_ps(127.0f)));
        sum = _mm512_add_epi32(sum, code);
        _mm_store_si128(reinterpret_cast<__m128i*>(codes + 16 * i), _mm512_cvtepi32_epi8(code));
      }
      subs[g * kGroupSubs + j] = static_cast<int16_t>(_mm512_reduce_add_epi32(sum));
    }
    scales[g] = zero ? 0.0f : most / 127.0f;
  }
}

}  // namespace avx512

namespace {

void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  if (x.laned > 0) avx512::multiply_laned(view, x, begin, end, target, scratch);
  if (x.tokens <= x.laned) return;
  if (x.tokens - x.laned <= avx512::kFew)
    return avx512::multiply_few(view, x, x.laned, begin, end, target);
  // Up to kFill twice, each tile while it is in the caches: costs less than a block with gaps.
  for (int64_t tile = begin; tile < end; ++tile)
    for (int64_t first = x.laned; first < x.tokens; first += avx512::kFew)
      avx512::multiply_few(view, x, first, tile, tile + 1, target);
}

}  // namespace

const Kernels kAvx512Kernels = {
    "avx512", avx512::kLanes, avx512::kFill, avx512::quantize, avx512::scratch_bytes, multiply};

}  // namespace subllm
