// The quantiser of activations.
#pragma once

#include "wide256/parts.h"

namespace subllm {

namespace {

// Magnitudes compare as integers do, and so a NaN, which is above infinity, is never lost.
inline float largest_lane(__m256i bits) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

inline int32_t sum_lanes(__m256i lanes) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

inline void quantize(const float* x, int64_t cols, int8_t* codes, float* scales,
                     int16_t* subs) {
  constexpr int kPieces = kGroupSubs, kVectors = kSubCols / 8;
  const __m256i absolute = _mm256_set1_epi32(0x7fffffff);
  for (int64_t g = 0; g * kGroupCols < cols; ++g, x += kGroupCols, codes += kGroupCols) {
    const int64_t count = least(kGroupCols, cols - g * kGroupCols);
    alignas(32) float padded[kGroupCols] = {};
    const float* values = x;
    if (count < kGroupCols) {
      __builtin_memcpy(padded, x, static_cast<size_t>(count) * sizeof(float));
      values = padded;
    }
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < kPieces * kVectors; ++i)
      largest = _mm256_max_epi32(
          largest, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(values + 8 * i)), absolute));
    const float most = largest_lane(largest);
    const bool zero = most < kSmallestInput;
    const __m256 inverse = _mm256_set1_ps(zero ? 0.0f : 127.0f / most);
    for (int piece = 0; piece < kPieces; ++piece) {
      __m256i sum = _mm256_setzero_si256();
      for (int i = piece * kVectors; i < (piece + 1) * kVectors; ++i) {
        const __m256i code = _mm256_cvtps_epi32(_mm256_min_ps(
            _mm256_mul_ps(_mm256_loadu_ps(values + 8 * i), inverse), _mm256_set1_ps(127.0f)));
        const __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
        const __m128i bytes = _mm_packs_epi16(words, words);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + 8 * i), bytes);
        sum = _mm256_add_epi32(sum, code);
      }
      subs[kPieces * g + piece] = static_cast<int16_t>(sum_lanes(sum));
    }
    scales[g] = zero ? 0.0f : most / 127.0f;
  }
}

}  // namespace

}  // namespace subllm
