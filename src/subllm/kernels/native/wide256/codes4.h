// int4: exact sums of a group of columns with their subscales.
#pragma once

#include "wide256/parts.h"

namespace subllm {

namespace {

// For each of the two pairs of rows that share 16 bytes of subscales, and each piece of 32 columns
// of a group: the subscale of either row in every word (or every second) of its half.
struct SubscalePatterns {
  alignas(32) uint8_t at[2][4][32];
};
template <bool every_word>
constexpr SubscalePatterns make_subscale_patterns() {
  SubscalePatterns p{};
  for (int pair = 0; pair < 2; ++pair)
    for (int piece = 0; piece < 4; ++piece)
      for (int i = 0; i < 32; ++i) {
        const bool here = i % (every_word ? 2 : 4) == 0;
        const int row = i / 16 * 2 + pair;
        p.at[pair][piece][i] = static_cast<uint8_t>(here ? 4 * row + piece : 0x80);
      }
  return p;
}
template <bool every_word>
constexpr SubscalePatterns kSubscalePatterns = make_subscale_patterns<every_word>();

// So many pairs of rows are gone through together, that their sums stay in registers.
template <int tokens>
constexpr int kPairsAtOnce = tokens <= 2 ? 4 : tokens <= 4 ? 2 : 1;

// Sums over the pieces of subscale * (sum of code * activation), in pair order. weights(pair, i)
// are the codes of columns 16 i to 16 i + 15 of the group.
template <typename Dot, int tokens, typename Weights>
inline void sum_group(Weights weights, int64_t pieces, const uint8_t* subscales, const int8_t* x,
                      int64_t stride, __m256i (&sums)[tokens]) {
  constexpr int at_once = kPairsAtOnce<tokens>;
  const auto& patterns = kSubscalePatterns<Dot::kScaleInEveryWord>.at;
  __m256i lanes[tokens][kPairs];
  unrolled<kPairs / at_once>([&](auto pass) {
    __m256i acc[tokens][at_once];
    unrolled<tokens>([&](auto t) {
      unrolled<at_once>([&](auto p) { acc[t][p] = _mm256_setzero_si256(); });
    });
    for (int64_t j = 0; j < pieces; ++j) {
      unrolled<at_once>([&](auto p) {
        constexpr int pair = pass * at_once + p;
        const __m256i scale = _mm256_shuffle_epi8(load_twice(subscales + 16 * (pair / 2)),
                                                  load256(patterns[pair % 2][j]));
        const __m256i first = weights(pair, 2 * j), second = weights(pair, 2 * j + 1);
        unrolled<tokens>([&](auto t) {
          const int8_t* at = x + t * stride + 32 * j;
          acc[t][p] = Dot::add_scaled(acc[t][p], first, load_twice(at), second,
                                      load_twice(at + 16), scale);
        });
      });
    }
    unrolled<tokens>([&](auto t) {
      unrolled<at_once>([&](auto p) { lanes[t][pass * at_once + p] = acc[t][p]; });
    });
  });
  unrolled<tokens>([&](auto t) { sums[t] = sum_pairs(lanes[t]); });
}

// A byte for each piece of each row (minima, or subscales) times the sums of the activations.
struct PieceFactors {
  explicit PieceFactors(const uint8_t* factors)
      : first(_mm256_cvtepu8_epi16(load128(factors))),
        second(_mm256_cvtepu8_epi16(load128(factors + 16))) {}
  __m256i times(const int16_t* subs) const {
    const __m256i sums = load_quarters(subs);
    return add_neighbours(_mm256_madd_epi16(first, sums), _mm256_madd_epi16(second, sums));
  }
  __m256i first, second;
};

// The scales of a row of scales, in pair order.
inline __m256 paired_scales(const uint16_t* scales) {
  return _mm256_permutevar8x32_ps(halves_at(scales), to_pair_order());
}

inline __m256 times_scale(__m256i exact, __m256 scale, float token_scale) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(exact),
                       _mm256_mul_ps(scale, _mm256_set1_ps(token_scale)));
}

// `lost`: with a mask subscales, without one minima, times the sums of the activations.
template <bool masked>
inline __m256 part_of(__m256i sums, __m256i lost, __m256 scale, __m256 least_scale,
                      float token_scale) {
  if constexpr (masked)  // a dropped weight reads 8, as 0 does
    return times_scale(_mm256_sub_epi32(sums, _mm256_slli_epi32(lost, 3)), scale, token_scale);
  return _mm256_sub_ps(times_scale(sums, scale, token_scale),
                       times_scale(lost, least_scale, token_scale));
}

}  // namespace

}  // namespace subllm
