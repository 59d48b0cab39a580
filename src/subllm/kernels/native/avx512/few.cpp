// Few tokens: each unit is expanded once in registers and meets them all.
//
// Lanes hold the rows of a tile as 128-bit quarters: rows r and 4 + r in quarter r. Sums of two
// tokens end up together, quarter r being [row r, row 4 + r] of one token and then of the other.

#include "avx512/avx512.h"

namespace subllm::avx512 {

namespace {

inline __m512i token_codes(const int8_t* at) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
}

// One dword from each of two tokens.
inline __m512i both_tokens(const void* even, const void* odd) {
  int32_t words[2];
  __builtin_memcpy(&words[0], even, 4);
  __builtin_memcpy(&words[1], odd, 4);
  return _mm512_mask_set1_epi32(_mm512_set1_epi32(words[0]), 0xcccc, words[1]);
}
inline __m512 both_tokens(float even, float odd) {
  return _mm512_mask_broadcastss_ps(_mm512_set1_ps(even), 0xcccc, _mm_set_ss(odd));
}

inline __m512i four_words(const int16_t* at) {
  int64_t words;
  __builtin_memcpy(&words, at, sizeof(words));
  return _mm512_set1_epi64(words);
}

// Eight binary16 scales, from the 8 * part-th on, to their quarters.
template <int part>
inline __m512 quarters(__m512 rows) {
  constexpr int i = 8 * part;
  return _mm512_permutexvar_ps(_mm512_setr_epi32(i, i + 4, i, i + 4, i + 1, i + 5, i + 1, i + 5,
                                                 i + 2, i + 6, i + 2, i + 6, i + 3, i + 7, i + 3,
                                                 i + 7),
                               rows);
}
inline __m512 eight_scales(const uint16_t* at) {
  return quarters<0>(_mm512_castps256_ps512(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)))));
}

// [a a b b] in every quarter of each token -> sums of the pairs.
inline __m512i join_pairs(__m512i even, __m512i odd) {
  const auto shuffled = [&](auto order) {
    return _mm512_castps_si512(
        _mm512_shuffle_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd), order()));
  };
  return _mm512_add_epi32(shuffled([] { return 0x88; }), shuffled([] { return 0xdd; }));
}

template <int n>
inline void store_tokens(const __m512 (&totals)[(n + 1) / 2], const Target& target, int64_t first,
                         int64_t row, int64_t rows) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  unrolled<(n + 1) / 2>([&](auto p) {
    const __m512 tokens = _mm512_permutexvar_ps(order, totals[p]);
    store_tile(_mm512_castps512_ps256(tokens), target, first + 2 * p, row, rows);
    if constexpr (2 * p + 1 < n)
      store_tile(_mm512_extractf32x8_ps(tokens, 1), target, first + 2 * p + 1, row, rows);
  });
}

// The order of bytes within quarters whose halves are the 4 + 4 subscales of rows r and 4 + r.
struct Shuffles {
  alignas(64) uint8_t factors[4][64];  // the j-th of each, as four words
  alignas(64) uint8_t words[64];       // all, as words
  alignas(64) uint8_t pairs[2][64];    // the first or second two of each as words, twice
};
constexpr Shuffles make_shuffles() {
  Shuffles s{};
  for (int i = 0; i < 64; ++i) {
    const int word = i % 16 / 2, odd = i % 2;
    for (int j = 0; j < 4; ++j)
      s.factors[j][i] = static_cast<uint8_t>(odd ? 0x80 : word / 4 * 4 + j);
    s.words[i] = static_cast<uint8_t>(odd ? 0x80 : word);
    for (int j = 0; j < 2; ++j)
      s.pairs[j][i] = static_cast<uint8_t>(odd ? 0x80 : word / 2 % 2 * 4 + 2 * j + word % 2);
  }
  return s;
}
constexpr Shuffles kShuffles = make_shuffles();

inline __m512i shuffled(__m512i bytes, const uint8_t (&order)[64]) {
  return _mm512_shuffle_epi8(bytes, _mm512_load_si512(order));
}

template <Kind kind, int n>
[[gnu::flatten]] void multiply_int4(const PackedView& view, const Activations& x, int64_t first,
                                    int64_t begin, int64_t end, const Target& target) {
  constexpr bool kDense = kind == Kind::dense;
  constexpr int kTokenPairs = (n + 1) / 2;
  const Geometry& g = view.geometry;
  const int64_t blocks = g.col_blocks(), stride = x.groups * kGroupCols;
  const uint8_t* subscales = view.subscales + begin * g.tile_subscales();
  const uint16_t* scales = view.scales + begin * g.tile_scales();
  Pairs<ValueType::int4, kind> pairs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    pairs.start_tile(tile);
    __m512 totals[kTokenPairs], scale = _mm512_setzero_ps(), minimum = scale;
    unrolled<kTokenPairs>([&](auto p) { totals[p] = _mm512_set1_ps(-0.0f); });  // -0 + a = a
    for (int64_t group = 0; group < x.groups; ++group) {
      if (group % (kSuperCols / kGroupCols) == 0) {
        if constexpr (kDense) {
          const __m512 rows =
              _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
          scale = quarters<0>(rows);
          minimum = quarters<1>(rows);
        } else {
          scale = eight_scales(scales);
        }
        scales += kTileRows * (kDense ? 2 : 1);
      }
      __m512i factors, minima = _mm512_setzero_si512(), sums[n];
      const int16_t* subs = x.subs + (first * x.groups + group) * kGroupSubs;
      const auto subs_of = [&](int64_t t) { return subs + t * x.groups * kGroupSubs; };
      if constexpr (kDense) {
        const __m512i bytes = _mm512_loadu_si512(subscales);
        factors = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), bytes);
        minima = _mm512_permutexvar_epi64(_mm512_setr_epi64(4, 4, 5, 5, 6, 6, 7, 7), bytes);
        unrolled<n>([&](auto t) { sums[t] = _mm512_setzero_si512(); });
        subscales += 64;
      } else {
        const __m512i bytes = _mm512_castsi256_si512(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(subscales)));
        factors = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), bytes);
        // The 8 that every weight reads too much.
        const __m512i excess =
            _mm512_mullo_epi16(shuffled(factors, kShuffles.words), _mm512_set1_epi16(-8));
        unrolled<n>([&](auto t) {
          sums[t] = dot_words(_mm512_setzero_si512(), excess, four_words(subs_of(t)));
        });
        subscales += 32;
      }
      const int64_t begin_block = group * kGroupBlocks;
      const int64_t last = least(begin_block + kGroupBlocks, blocks);
      for (int64_t block = begin_block; block < last; ++block) {
        pairs.fetch();
        const int8_t* token = x.codes + first * stride + block * kBlockCols;
        unrolled<2>([&](auto half) {
          __m512i codes[2][2];
          pairs.next_bytes(codes[0]);
          pairs.next_bytes(codes[1]);
          const int64_t j = (block - begin_block) * 2 + half;
          const __m512i factor = shuffled(factors, kShuffles.factors[j]);
          unrolled<n>([&](auto t) {
            const int8_t* at = token + t * stride + half * kSubCols;
            const __m512i a = token_codes(at), b = token_codes(at + kUnitCols);
            // Four lanes of a row sum 8 products each, of at most 15 * 127: words hold them.
            const __m512i zero = _mm512_setzero_si512();
            const __m512i rows = dot_bytes(dot_bytes(zero, codes[0][0], a), codes[1][0], b);
            const __m512i others = dot_bytes(dot_bytes(zero, codes[0][1], a), codes[1][1], b);
            sums[t] = dot_words(sums[t], _mm512_packs_epi32(rows, others), factor);
          });
        });
      }
      unrolled<kTokenPairs>([&](auto p) {
        constexpr int kEven = 2 * p, kOdd = 2 * p + 1 < n ? 2 * p + 1 : kEven;
        const float* token_scales = x.scales + first * x.groups + group;
        const __m512 token_scale =
            both_tokens(token_scales[kEven * x.groups], token_scales[kOdd * x.groups]);
        __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(join_pairs(sums[kEven], sums[kOdd])),
                                    _mm512_mul_ps(scale, token_scale));
        if constexpr (kDense) {
          __m512i sum = _mm512_setzero_si512();
          unrolled<2>([&](auto j) {
            sum = dot_words(sum, shuffled(minima, kShuffles.pairs[j]),
                            both_tokens(subs_of(kEven) + 2 * j, subs_of(kOdd) + 2 * j));
          });
          part = _mm512_sub_ps(part, _mm512_mul_ps(_mm512_cvtepi32_ps(sum),
                                                   _mm512_mul_ps(minimum, token_scale)));
        }
        totals[p] = _mm512_add_ps(totals[p], part);
      });
    }
    store_tokens<n>(totals, target, first, tile * kTileRows, g.rows);
  }
}

// Four lanes of each row -> sums, of two tokens.
inline __m512i join_lanes(__m512i even, __m512i odd) {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd));
}
inline __m512i join_rows(__m512i rows, __m512i others) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(rows, others), _mm512_unpackhi_epi32(rows, others));
}

template <Kind kind, int n>
[[gnu::flatten]] void multiply_int8(const PackedView& view, const Activations& x, int64_t first,
                                    int64_t begin, int64_t end, const Target& target) {
  constexpr int kTokenPairs = (n + 1) / 2;
  const Geometry& g = view.geometry;
  const int64_t blocks = g.col_blocks(), stride = x.groups * kGroupCols;
  const uint16_t* scales = view.scales + begin * g.tile_scales();
  Pairs<ValueType::int8, kind> pairs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    pairs.start_tile(tile);
    __m512 totals[kTokenPairs];
    unrolled<kTokenPairs>([&](auto p) { totals[p] = _mm512_set1_ps(-0.0f); });  // -0 + a = a
    for (int64_t group = 0; group < x.groups; ++group, scales += kTileRows) {
      // The 128 that every weight reads too much, taken off in two of a row's four lanes.
      const __m512i minus = _mm512_maskz_set1_epi16(0x0f0f0f0f, -128);
      __m512i rows[n], others[n];
      unrolled<n>([&](auto t) {
        const int16_t* subs = x.subs + ((first + t) * x.groups + group) * kGroupSubs;
        rows[t] = others[t] = dot_words(_mm512_setzero_si512(), minus, four_words(subs));
      });
      const int64_t last = least((group + 1) * kGroupBlocks, blocks);
      for (int64_t block = group * kGroupBlocks; block < last; ++block) {
        pairs.fetch();
        const int8_t* token = x.codes + first * stride + block * kBlockCols;
        unrolled<kBlockCols / kUnitCols>([&](auto i) {
          __m512i codes[2];
          pairs.next_bytes(codes);
          unrolled<n>([&](auto t) {
            const __m512i columns = token_codes(token + t * stride + i * kUnitCols);
            rows[t] = dot_bytes(rows[t], codes[0], columns);
            others[t] = dot_bytes(others[t], codes[1], columns);
          });
        });
      }
      const __m512 scale = eight_scales(scales);
      unrolled<kTokenPairs>([&](auto p) {
        constexpr int kEven = 2 * p, kOdd = 2 * p + 1 < n ? 2 * p + 1 : kEven;
        const float* token_scales = x.scales + first * x.groups + group;
        const __m512 token_scale =
            both_tokens(token_scales[kEven * x.groups], token_scales[kOdd * x.groups]);
        const __m512i exact = join_lanes(join_rows(rows[kEven], others[kEven]),
                                         join_rows(rows[kOdd], others[kOdd]));
        totals[p] = _mm512_add_ps(
            totals[p], _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_mul_ps(scale, token_scale)));
      });
    }
    store_tokens<n>(totals, target, first, tile * kTileRows, g.rows);
  }
}

// Eight lanes of each of two rows in four vectors -> sums of the eight rows.
inline __m256 sum_rows(const __m512 (&rows)[4]) {
  const auto joined = [](__m512 a, __m512 b) {  // rows of a and b: [a b a b] in halves
    __m512 sum = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    sum = _mm512_add_ps(sum, _mm512_shuffle_ps(sum, sum, 0x4e));
    return _mm512_add_ps(sum, _mm512_shuffle_f32x4(sum, sum, 0xb1));
  };
  const __m512i order =
      _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_castps512_ps256(
      _mm512_permutex2var_ps(joined(rows[0], rows[2]), order, joined(rows[1], rows[3])));
}

// At most four tokens times a tile, so that there are registers for their sums.
template <Kind kind, int n>
[[gnu::flatten]] void multiply_bf16(Pairs<ValueType::bf16, kind>& pairs, const Geometry& g,
                                    const Activations& x, int64_t first, int64_t tile,
                                    const Target& target) {
  const int64_t stride = x.groups * kGroupCols;
  __m512 sums[n][4];
  unrolled<n>([&](auto t) { unrolled<4>([&](auto i) { sums[t][i] = _mm512_setzero_ps(); }); });
  for (int64_t block = 0; block < g.col_blocks(); ++block) {
    pairs.fetch();
    const uint16_t* token = x.bf16 + first * stride + block * kBlockCols;
    for (int64_t at = 0; at < kBlockCols; at += kUnitCols) {
      __m512i rows[4];
      pairs.next_bf16(rows);
      unrolled<n>([&](auto t) {
        const __m512i columns = _mm512_broadcast_i64x4(
            _mm256_load_si256(reinterpret_cast<const __m256i*>(token + t * stride + at)));
        unrolled<4>([&](auto i) { sums[t][i] = dot_bf16(sums[t][i], rows[i], columns); });
      });
    }
  }
  unrolled<n>([&](auto t) {
    store_tile(sum_rows(sums[t]), target, first + t, tile * kTileRows, g.rows);
  });
}

template <Kind kind, int n>
void multiply_bf16(const PackedView& view, const Activations& x, int64_t first, int64_t begin,
                   int64_t end, const Target& target) {
  constexpr int kAtOnce = 4;
  const Geometry& g = view.geometry;
  Pairs<ValueType::bf16, kind> pairs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    pairs.start_tile(tile);
    if constexpr (n > kAtOnce) {
      auto again = pairs;
      multiply_bf16<kind, n - kAtOnce>(again, g, x, first + kAtOnce, tile, target);
    }
    multiply_bf16<kind, (n < kAtOnce ? n : kAtOnce)>(pairs, g, x, first, tile, target);
  }
}

template <ValueType type, Kind kind, int n>
void multiply_few(const PackedView& view, const Activations& x, int64_t first, int64_t begin,
                  int64_t end, const Target& target) {
  if constexpr (n > 1)
    if (x.tokens - first < n)
      return multiply_few<type, kind, n - 1>(view, x, first, begin, end, target);
  if constexpr (type == ValueType::int4)
    multiply_int4<kind, n>(view, x, first, begin, end, target);
  else if constexpr (type == ValueType::int8)
    multiply_int8<kind, n>(view, x, first, begin, end, target);
  else
    multiply_bf16<kind, n>(view, x, first, begin, end, target);
}

}  // namespace

void multiply_few(const PackedView& view, const Activations& x, int64_t first, int64_t begin,
                  int64_t end, const Target& target) {
  with_type_and_kind(view, [&]<ValueType type, Kind kind>() {
    multiply_few<type, kind, kFew>(view, x, first, begin, end, target);
  });
}

}  // namespace subllm::avx512
