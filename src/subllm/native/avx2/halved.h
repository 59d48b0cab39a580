// Matrices that keep eight of every 16 columns: the activations that meet a kept weight are
// picked out for it, instead of weights being spread over columns. That leaves half of the
// multiplications, and indices of half the length.
//
// Rows go in pairs. A vector holds 32 weights as they are packed, of columns 0 .. 15 and
// 32 .. 47 of a block (`a`) or the others (`b`): eight of the even row and eight of the odd
// one in each half.
#pragma once

#include "avx2/avx2.h"

namespace subllm::avx2 {

namespace {

constexpr int kPairs = kTileRows / 2;

// For each byte of a mask, the columns that it keeps.
struct Positions {
  alignas(64) uint8_t before[8];  // read with the first entry, and not used
  uint8_t front[256][8];          // first come first, then zeros
  uint8_t back[256][8];           // of columns 8 .. 15: after zeros, up to the end
};

constexpr Positions make_positions() {
  Positions p{};
  for (int mask = 0; mask < 256; ++mask) {
    int next = 0, left = 8;
    for (int j = 0; j < 8; ++j)
      if (mask >> j & 1) p.front[mask][next++] = static_cast<uint8_t>(j);
    for (int j = 7; j >= 0; --j)
      if (mask >> j & 1) p.back[mask][--left] = static_cast<uint8_t>(8 + j);
  }
  return p;
}
constexpr Positions kPositions = make_positions();

inline __m128i join(const uint8_t* low, const uint8_t* high) {
  const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
  return _mm_blend_epi32(first, load128(high - 8), 12);
}

// Of the kept weights of 16 columns, for masks of two rows: eight and eight.
inline __m128i positions(const uint8_t* even, const uint8_t* odd) {
  return _mm_or_si128(join(kPositions.front[even[0]], kPositions.front[odd[0]]),
                      join(kPositions.back[even[1]], kPositions.back[odd[1]]));
}

template <ValueType type>
class Pairs : public RunWalk<type, Kind::halved> {
 public:
  using RunWalk<type, Kind::halved>::RunWalk;

  Columns positions(int pair) const {
    const uint8_t* even = this->mask_bytes() + pair * 16;
    const uint8_t* odd = even + 8;
    return {_mm256_set_m128i(avx2::positions(even + 4, odd + 4), avx2::positions(even, odd)),
            _mm256_set_m128i(avx2::positions(even + 6, odd + 6), avx2::positions(even + 2, odd + 2))};
  }

  void next_block() { this->step_block(); }

  // Signed codes.
  Columns weights(int pair) const {
    constexpr int64_t bytes = run_bytes(type, kBlockCols / 2);
    const uint8_t* run = this->run() + pair * 2 * bytes;
    if constexpr (type == ValueType::int4) {
      const __m256i turns = _mm256_permutevar8x32_epi32(
          load256(run), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      const __m256i mask = _mm256_set1_epi8(15), zero = _mm256_set1_epi8(8);
      const __m256i low = _mm256_sub_epi8(_mm256_and_si256(turns, mask), zero);
      const __m256i high =
          _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(turns, 4), mask), zero);
      return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
    } else {
      const __m256i even = load256(run), odd = load256(run + bytes);
      return {_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd)};
    }
  }
};

// For int4, activations are unsigned, 128 too large, so that no sign has to be lent; then
// 128 * (sum of weights) is taken off per group.
template <ValueType type>
inline Columns tokens_at(const int8_t* codes) {
  Columns out = columns_at(codes);
  if constexpr (type == ValueType::int4) {
    const __m256i bit = _mm256_set1_epi8(static_cast<char>(0x80));
    out = {_mm256_xor_si256(out.a, bit), _mm256_xor_si256(out.b, bit)};
  }
  return out;
}

// Products of 32 weights and the activations at their positions, added to `sum`: sums of pairs
// (int4, 16 bits; four additions stay below 2^14) or fours (int8, 32 bits).
template <ValueType type>
inline __m256i add_picked(__m256i sum, __m256i weights, __m256i positions, __m256i tokens) {
  const __m256i picked = _mm256_shuffle_epi8(tokens, positions);
  if constexpr (type == ValueType::int4)
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(picked, weights));
  return add_products<type>(sum, weights, picked);
}

// 128 * sums of pairs of weights.
inline __m256i excess_of(__m256i weights) {
  return _mm256_slli_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), weights), 7);
}

// Sums of the lanes of each row, 32 bits, from the pairs of rows.
inline __m256i sum_rows(const __m256i (&pairs)[kPairs]) {
  const __m256i low = _mm256_hadd_epi32(pairs[0], pairs[1]);
  const __m256i high = _mm256_hadd_epi32(pairs[2], pairs[3]);
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31));
}

}  // namespace

}  // namespace subllm::avx2
