// The screen's product with VNNI. Codes are multiplied where they stand in their byte, as
// multiples of 1, 4, 16 and 64: one AND each, and one exact shift of the sums at the end.

#include <immintrin.h>

#include "isa/screen.h"

namespace subllm {

namespace {

constexpr int64_t kAheadUnits = 32;

inline __m512i dot_bytes(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}

// Sums of the four lanes of each row: rows 4k..4k+3 stand in the quarters of sums[k].
inline __m512i sum_rows(const __m512i (&sums)[4]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]),
                                     _mm512_unpackhi_epi32(sums[0], sums[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]),
                                     _mm512_unpackhi_epi32(sums[2], sums[3]));
  // Quarter j: row 4k + j of k = 0..3.
  const __m512i mixed =
      _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), mixed);
}

template <int kTokens>
inline void multiply_tile(const ScreenView& view, const ScreenStates& states, int64_t first,
                          int64_t tile, bool fetch, float* out, int64_t out_stride) {
  const int64_t units = view.units();
  const uint8_t* codes = view.codes + tile * units * kScreenUnit;
  const int8_t* x = states.codes + first * states.stride;
  const __m512i low = _mm512_set1_epi8(3), second = _mm512_set1_epi8(12);
  const __m512i third = _mm512_set1_epi8(48), high = _mm512_set1_epi8(static_cast<char>(192));
  __m512i sums[kTokens][4];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums[t][k] = _mm512_setzero_si512();
  for (int64_t unit = 0; unit < units; ++unit, codes += kScreenUnit, x += kScreenCols) {
    if (fetch) __builtin_prefetch(codes + kAheadUnits * kScreenUnit);
    const __m512i bytes = _mm512_loadu_si512(codes);
    const __m512i parts[4] = {_mm512_and_si512(bytes, low), _mm512_and_si512(bytes, second),
                              _mm512_and_si512(bytes, third), _mm512_and_si512(bytes, high)};
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m512i token = _mm512_broadcast_i32x4(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + t * states.stride)));
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) sums[t][k] = dot_bytes(sums[t][k], parts[k], token);
    }
  }
  const int64_t row = tile * kScreenRows, left = view.rows - row;
  const auto lanes = static_cast<__mmask16>(left >= kScreenRows ? 0xffff : (1 << left) - 1);
  const __m512 steps = _mm512_loadu_ps(view.steps + row);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    sums[t][1] = _mm512_srai_epi32(sums[t][1], 2);
    sums[t][2] = _mm512_srai_epi32(sums[t][2], 4);
    sums[t][3] = _mm512_srai_epi32(sums[t][3], 6);
    const __m512i dots = sum_rows(sums[t]);
    const __m512i exact = _mm512_sub_epi32(_mm512_slli_epi32(dots, 1),
                                           _mm512_set1_epi32(3 * states.sums[first + t]));
    const __m512 scales = _mm512_mul_ps(steps, _mm512_set1_ps(states.scales[first + t]));
    _mm512_mask_storeu_ps(out + (first + t) * out_stride + row, lanes,
                          _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scales));
  }
}

}  // namespace

void screen_avx512(const ScreenView& view, const ScreenStates& states, int64_t begin, int64_t end,
                   float* out, int64_t out_stride) {
  for (int64_t tile = begin; tile < end; ++tile) {
    int64_t t = 0;
    for (; t + 4 <= states.tokens; t += 4)
      multiply_tile<4>(view, states, t, tile, t == 0, out, out_stride);
    switch (states.tokens - t) {
      case 3: multiply_tile<3>(view, states, t, tile, t == 0, out, out_stride); break;
      case 2: multiply_tile<2>(view, states, t, tile, t == 0, out, out_stride); break;
      case 1: multiply_tile<1>(view, states, t, tile, t == 0, out, out_stride); break;
    }
  }
}

}  // namespace subllm
