// Products of bytes with AVX2: pmaddubsw multiplies unsigned by signed bytes into 16-bit sums of
// pairs.
#pragma once

#include <immintrin.h>

namespace subllm {

namespace {

struct Dot {
  // int8: both are signed, so the weight lends its sign to the activation, else 16 bits would not
  // hold a pair. Sums are exact.
  static constexpr int kExcess = 0;
  struct Bytes {
    __m256i codes, magnitudes;
  };
  static Bytes bytes(__m256i codes) { return {codes, _mm256_abs_epi8(codes)}; }
  static __m256i add(__m256i sum, Bytes weights, __m256i x) {
    const __m256i pairs =
        _mm256_maddubs_epi16(weights.magnitudes, _mm256_sign_epi8(x, weights.codes));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // int8 with activations picked for each weight.
  static constexpr int kPickExcess = 0;
  static Bytes pick_bytes(__m256i codes) { return bytes(codes); }
  static __m256i add_picks(__m256i sum, Bytes weights, __m256i x) { return add(sum, weights, x); }
  static __m256i add_pick_excess(__m256i sum, __m256i) { return sum; }

  // int4: sums of 32 columns of one row stay in 16 bits; the multiplication by the subscale, which
  // is in every word, widens them.
  static constexpr bool kScaleInEveryWord = true;
  static __m256i add_scaled(__m256i sum, __m256i codes0, __m256i x0, __m256i codes1, __m256i x1,
                            __m256i scale) {
    const __m256i words = _mm256_add_epi16(_mm256_maddubs_epi16(codes0, x0),
                                           _mm256_maddubs_epi16(codes1, x1));
    return add_words(sum, words, scale);
  }
  // Tokens in lanes: 32 columns stay in 16 bits.
  static constexpr int kColumnsBeforeScaling = 2;  // times 16
  static __m256i add_codes(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  }
  static __m256i add_words(__m256i sum, __m256i a, __m256i b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
};

}  // namespace

}  // namespace subllm
