// The screen's product with AVX2: byte products in pairs of 16 bits, which 32 units cannot
// overflow (2 * 3 * 127 * 32 < 2^15), then in 32 bits.

#include <immintrin.h>

#include "isa/screen.h"

namespace subllm {

namespace {

constexpr int64_t kAheadUnits = 32;
constexpr int64_t kWordUnits = 32;

// Adds the products of codes 2k of `bytes`, two rows of 16 columns, to words[k].
inline void add_unit(__m256i bytes, __m256i token, __m256i (&words)[4]) {
  const __m256i low = _mm256_set1_epi8(3);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m256i codes = _mm256_and_si256(k == 0 ? bytes : _mm256_srli_epi16(bytes, 2 * k), low);
    words[k] = _mm256_add_epi16(words[k], _mm256_maddubs_epi16(codes, token));
  }
}

// Rows 4k and 4k + 1 (or + 2 and + 3) stand in the halves of sums[k], four lanes each. Returns
// their sums: k = 0..3 of the first in the low half, of the second in the high one.
inline __m256i sum_rows(const __m256i (&sums)[4]) {
  return _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]),
                           _mm256_hadd_epi32(sums[2], sums[3]));
}

void multiply_tile(const ScreenView& view, const ScreenStates& states, int64_t t, int64_t tile,
                   float* out, int64_t out_stride) {
  const int64_t units = view.units();
  const uint8_t* codes = view.codes + tile * units * kScreenUnit;
  const int8_t* x = states.codes + t * states.stride;
  __m256i sums[2][4];  // rows 0 and 1 of every four, then 2 and 3
  for (auto& half : sums)
    for (__m256i& sum : half) sum = _mm256_setzero_si256();
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t unit = 0; unit < units;) {
    const int64_t last = unit + kWordUnits < units ? unit + kWordUnits : units;
    __m256i first[4], second[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) first[k] = second[k] = _mm256_setzero_si256();
    for (; unit < last; ++unit, codes += kScreenUnit, x += kScreenCols) {
      if (t == 0) __builtin_prefetch(codes + kAheadUnits * kScreenUnit);
      const __m256i token =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
      add_unit(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)), token, first);
      add_unit(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32)), token, second);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      sums[0][k] = _mm256_add_epi32(sums[0][k], _mm256_madd_epi16(first[k], ones));
      sums[1][k] = _mm256_add_epi32(sums[1][k], _mm256_madd_epi16(second[k], ones));
    }
  }
  alignas(32) int32_t dots[2][8];
  for (int h = 0; h < 2; ++h)
    _mm256_store_si256(reinterpret_cast<__m256i*>(dots[h]), sum_rows(sums[h]));
  const int64_t row = tile * kScreenRows, left = view.rows - row;
  const int64_t count = left < kScreenRows ? left : kScreenRows;
  float* to = out + t * out_stride + row;
  for (int64_t r = 0; r < count; ++r) {
    const int32_t dot = dots[r % 4 / 2][r % 2 * 4 + r / 4];
    to[r] = static_cast<float>(2 * dot - 3 * states.sums[t]) *
            (view.steps[row + r] * states.scales[t]);
  }
}

}  // namespace

void screen_avx2(const ScreenView& view, const ScreenStates& states, int64_t begin, int64_t end,
                 float* out, int64_t out_stride) {
  for (int64_t tile = begin; tile < end; ++tile)
    for (int64_t t = 0; t < states.tokens; ++t)
      multiply_tile(view, states, t, tile, out, out_stride);
}

}  // namespace subllm
