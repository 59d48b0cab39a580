// Products of bytes with AVX-VNNI: vpdpbusd sums four products of unsigned and signed bytes in 32
// bits, vpdpwssd two of words.
#pragma once

#include <immintrin.h>

namespace subllm {

namespace {

struct Dot {
  // The intrinsics' builtins make GCC copy accumulators about between registers.
  static __m256i dot_bytes(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(unsigned_bytes), "xm"(signed_bytes));
    return sum;
  }
  static __m256i add_words(__m256i sum, __m256i a, __m256i b) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "xm"(b));
    return sum;
  }

  // int8: weights become unsigned, 128 too large; the sums are kExcess * (sum of activations) too
  // large.
  static constexpr int kExcess = 128;
  struct Bytes {
    __m256i codes;
  };
  static Bytes bytes(__m256i codes) {
    return {_mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)))};
  }
  static __m256i add(__m256i sum, Bytes weights, __m256i x) {
    return dot_bytes(sum, weights.codes, x);
  }

  // int8 with activations picked for each weight: here it is those that are 128 too large, and the
  // sums 128 * (sum of weights), as not all activations are picked.
  static constexpr int kPickExcess = 128;
  static Bytes pick_bytes(__m256i codes) { return {codes}; }
  static __m256i add_picks(__m256i sum, Bytes weights, __m256i x) {
    return dot_bytes(sum, x, weights.codes);
  }
  static __m256i add_pick_excess(__m256i sum, __m256i codes) {
    return dot_bytes(sum, _mm256_set1_epi8(static_cast<char>(kPickExcess)), codes);
  }

  // int4: a lane sums eight products of 32 columns, less than 2^15, so its low word is all of it;
  // the subscale stands in low words, with zeros above.
  static constexpr bool kScaleInEveryWord = false;
  static __m256i add_scaled(__m256i sum, __m256i codes0, __m256i x0, __m256i codes1, __m256i x1,
                            __m256i scale) {
    const __m256i lanes = dot_bytes(dot_bytes(_mm256_setzero_si256(), codes0, x0), codes1, x1);
    return add_words(sum, lanes, scale);
  }
  // Tokens in lanes: 16 columns stay below 2^15.
  static constexpr int kColumnsBeforeScaling = 1;  // times 16
  static __m256i add_codes(__m256i sum, __m256i codes, __m256i x) {
    return dot_bytes(sum, codes, x);
  }
};

}  // namespace

}  // namespace subllm
