// What the kernels of 256-bit vectors share, whatever they multiply with (see a `Dot`). In an
// anonymous namespace, as everything that kernels include.
#pragma once

#include <immintrin.h>

#include "isa/kernel_parts.h"

namespace subllm {

namespace {

// Packed planes are asked for so far ahead, into the second cache: further, or into the first, waits
// longer where memory is slow and shared.
constexpr int64_t kAhead = 2048;

inline void fetch_line(const void* at) {
  __builtin_prefetch(static_cast<const char*>(at) + kAhead, 0, 2);
}
inline void fetch(const uint8_t* at, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += kAlign) fetch_line(at + line);
}

inline __m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
inline __m256i load256(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
inline void store256(void* at, __m256i bytes) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), bytes);
}
// Sixteen bytes, in both halves.
inline __m256i load_twice(const void* at) { return _mm256_broadcastsi128_si256(load128(at)); }
// Eight bytes, in all quarters.
inline __m256i load_quarters(const void* at) {
  return _mm256_broadcastq_epi64(_mm_loadl_epi64(static_cast<const __m128i*>(at)));
}

inline __m256i low_nibbles(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(15)); }
inline __m256i high_nibbles(__m256i bytes) { return low_nibbles(_mm256_srli_epi16(bytes, 4)); }

// Rows of a tile go in pairs, one in each half of a vector: 0|1, 4|5, 2|3, 6|7, as the nibbles of
// a unit lie. Sums of rows come out in the order 0 2 4 6 1 3 5 7.
constexpr int kPairs = kTileRows / 2;

inline __m256i to_pair_order() { return _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7); }
inline __m256i to_row_order() { return _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); }

// [a a' x x | ...], [b b' y y | ...] -> [a+a' b+b' x+x y+y | ...]
inline __m256i add_neighbours(__m256i a, __m256i b) {
  return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xaa),
                          _mm256_shuffle_epi32(_mm256_blend_epi32(a, b, 0x55), 0xb1));
}
inline __m256 add_neighbours(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_blend_ps(a, b, 0xaa),
                       _mm256_permute_ps(_mm256_blend_ps(a, b, 0x55), 0xb1));
}

// Sums of the four lanes of each row.
inline __m256i sum_pairs(const __m256i (&pairs)[kPairs]) {
  const auto halve = [](__m256i a, __m256i b) {  // [a a b b]
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xcc), _mm256_alignr_epi8(b, a, 8));
  };
  return add_neighbours(halve(pairs[0], pairs[1]), halve(pairs[2], pairs[3]));
}
inline __m256 sum_pairs(const __m256 (&pairs)[kPairs]) {
  const auto halve = [](__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xcc), _mm256_shuffle_ps(a, b, 0x4e));
  };
  return add_neighbours(halve(pairs[0], pairs[1]), halve(pairs[2], pairs[3]));
}

inline __m256 halves_at(const uint16_t* scales) { return _mm256_cvtph_ps(load128(scales)); }

// Adds the bias and writes the rows of a tile that the matrix has. `total` in their order.
inline void store_tile(__m256 total, const Target& target, int64_t token, int64_t row,
                       int64_t rows) {
  float* out = target.out + token * target.stride + row;
  if (rows - row >= kTileRows) {
    if (target.bias) total = _mm256_add_ps(total, _mm256_loadu_ps(target.bias + row));
    _mm256_storeu_ps(out, total);
    return;
  }
  alignas(32) float values[kTileRows];
  _mm256_store_ps(values, total);
  for (int64_t r = 0; r < rows - row; ++r)
    out[r] = target.bias ? values[r] + target.bias[row + r] : values[r];
}

}  // namespace

}  // namespace subllm
