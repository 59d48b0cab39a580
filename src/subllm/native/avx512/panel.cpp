// Several tokens: blocks of 16 or 8 in the lanes, or the lanes along the columns for one.

#include "avx512/avx512.h"

namespace subllm::avx512 {

namespace {

// Lanes of 8 tokens from each of 8 rows -> 8 rows of each token.
void transpose(const float* from, int64_t pitch, __m256 (&to)[kTileRows]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_load_ps(from + i * pitch);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + 2 + j], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + 2 + j], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    to[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    to[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
}

inline __m512i four_bytes(const uint8_t* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return _mm512_set1_epi32(word);
}

// A tile times `vectors` blocks of 16 tokens, the first of them `block`.
template <ValueType type, int vectors>
void multiply_block(const Tile& tile, const Activations& x, int64_t block, const Target& target) {
  // Each token's rows lie in a cache line of its own: fetch them while we count.
  for (int64_t t = block * kLanes; t < least((block + vectors) * kLanes, x.tokens); ++t)
    __builtin_prefetch(target.out + t * target.stride + tile.row, 1);
  alignas(64) float totals[kTileRows][vectors * kLanes];
  if constexpr (type == ValueType::bf16) {
    const int64_t words = x.groups * kGroupCols / 2;
    const uint32_t* tokens = x.bf16_lanes + block * words * kLanes;
    __m512 sums[kTileRows][vectors];
    unrolled<kTileRows>([&](auto r) {
      unrolled<vectors>([&](auto v) { sums[r][v] = _mm512_setzero_ps(); });
    });
    for (int64_t i = 0; i < tile.blocks * kBlockCols / 2; ++i) {
      __m512i token[vectors];
      unrolled<vectors>(
          [&](auto v) { token[v] = _mm512_load_si512(tokens + (v * words + i) * kLanes); });
      unrolled<kTileRows>([&](auto r) {
        const __m512i weight = four_bytes(tile.rows + r * tile.pitch + 4 * i);
        unrolled<vectors>([&](auto v) { sums[r][v] = dot_bf16(sums[r][v], weight, token[v]); });
      });
    }
    unrolled<kTileRows>([&](auto r) {
      unrolled<vectors>([&](auto v) { _mm512_store_ps(&totals[r][v * kLanes], sums[r][v]); });
    });
  } else {
    const int64_t words = x.groups * kGroupCols / 4;
    const uint32_t* tokens = x.code_lanes + block * words * kLanes;
    for (int64_t group = 0; group < x.groups; ++group) {
      __m512i sums[kTileRows][vectors];
      unrolled<kTileRows>([&](auto r) {
        unrolled<vectors>([&](auto v) { sums[r][v] = _mm512_setzero_si512(); });
      });
      const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks) * kBlockCols / 4;
      for (int64_t i = group * kGroupCols / 4; i < last; ++i) {
        __m512i token[vectors];
        unrolled<vectors>(
            [&](auto v) { token[v] = _mm512_load_si512(tokens + (v * words + i) * kLanes); });
        unrolled<kTileRows>([&](auto r) {
          const __m512i weight = four_bytes(tile.rows + r * tile.pitch + 4 * i);
          unrolled<vectors>([&](auto v) { sums[r][v] = dot_bytes(sums[r][v], weight, token[v]); });
        });
      }
      alignas(32) float scales[kTileRows];
      _mm256_store_ps(scales, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(
                                  tile.scales + group * kTileRows))));
      unrolled<vectors>([&](auto v) {
        const int64_t at = ((block + v) * x.groups + group) * kLanes;
        const __m512i excess =
            _mm512_slli_epi32(_mm512_load_si512(x.sum_lanes + at), kBiasBits<type>);
        const __m512 token_scale = _mm512_load_ps(x.scale_lanes + at);
        unrolled<kTileRows>([&](auto r) {
          float* total = &totals[r][v * kLanes];
          const __m512 part = _mm512_mul_ps(
              _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][v], excess)),
              _mm512_mul_ps(_mm512_set1_ps(scales[r]), token_scale));
          _mm512_store_ps(total, group == 0 ? part : _mm512_add_ps(_mm512_load_ps(total), part));
        });
      });
    }
  }
  for (int64_t t = 0; t < vectors * kLanes; t += 8) {
    __m256 tokens[8];
    transpose(&totals[0][t], vectors * kLanes, tokens);
    const int64_t first = block * kLanes + t;
    for (int64_t i = 0; i < least(8, x.tokens - first); ++i)
      store_tile(tokens[i], target, first + i, tile.row, tile.row_count);
  }
}

inline __m512i eight_bytes(const void* at) {
  int64_t words;
  __builtin_memcpy(&words, at, sizeof(words));
  return _mm512_set1_epi64(words);
}

// Two rows with each token in two lanes that belong together -> sums of the two, the rows
// taking turns.
template <typename Add>
inline __m512i join_lanes(__m512i even, __m512i odd, Add add) {
  const __m512i own = _mm512_mask_blend_epi32(0xaaaa, even, odd);
  const __m512i other = _mm512_mask_blend_epi32(0xaaaa, odd, even);
  return add(own, _mm512_rol_epi64(other, 32));
}

// A tile times the half block of 8 tokens.
template <ValueType type>
void multiply_half(const Tile& tile, const Activations& x, const Target& target) {
  constexpr int kPairs = kTileRows / 2, kTokens = kLanes / 2;
  alignas(64) float totals[kPairs][kLanes];  // [token][row of the pair]
  const auto multiply_columns = [&](const uint64_t* tokens, int64_t begin, int64_t end, auto dot,
                                    __m512i(&sums)[kTileRows]) {
    unrolled<kTileRows>([&](auto r) { sums[r] = _mm512_setzero_si512(); });
    for (int64_t i = begin; i < end; ++i) {
      const __m512i token = _mm512_load_si512(tokens + i * kTokens);
      unrolled<kTileRows>([&](auto r) {
        sums[r] = dot(sums[r], eight_bytes(tile.rows + r * tile.pitch + 8 * i), token);
      });
    }
  };
  __m512i sums[kTileRows];
  if constexpr (type == ValueType::bf16) {
    multiply_columns(x.bf16_pairs, 0, tile.blocks * kBlockCols / 4,
                     [](__m512i sum, __m512i weight, __m512i token) {
                       return _mm512_castps_si512(
                           dot_bf16(_mm512_castsi512_ps(sum), weight, token));
                     },
                     sums);
    unrolled<kPairs>([&](auto p) {
      _mm512_store_si512(totals[p], join_lanes(sums[2 * p], sums[2 * p + 1], AddFloats{}));
    });
  } else {
    for (int64_t group = 0; group < x.groups; ++group) {
      const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks) * kBlockCols / 8;
      multiply_columns(x.code_pairs, group * kGroupCols / 8, last,
                       [](__m512i sum, __m512i weight, __m512i token) {
                         return dot_bytes(sum, weight, token);
                       },
                       sums);
      alignas(32) float scales[kTileRows];
      _mm256_store_ps(scales, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(
                                  tile.scales + group * kTileRows))));
      const __m512i excess =
          _mm512_slli_epi32(_mm512_load_si512(x.sum_pairs + group * kLanes), kBiasBits<type>);
      const __m512 token_scale = _mm512_load_ps(x.scale_pairs + group * kLanes);
      unrolled<kPairs>([&](auto p) {
        const __m512i exact = join_lanes(sums[2 * p], sums[2 * p + 1], AddIntegers{});
        const __m512 scale = _mm512_castsi512_ps(eight_bytes(scales + 2 * p));
        const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(exact, excess)),
                                          _mm512_mul_ps(scale, token_scale));
        _mm512_store_ps(totals[p],
                        group == 0 ? part : _mm512_add_ps(_mm512_load_ps(totals[p]), part));
      });
    }
  }
  for (int64_t t = 0; t < least(kTokens, x.tokens - x.laned); ++t) {
    alignas(32) float rows[kTileRows];
    unrolled<kPairs>([&](auto p) { __builtin_memcpy(rows + 2 * p, totals[p] + 2 * t, 8); });
    store_tile(_mm256_load_ps(rows), target, x.laned + t, tile.row, tile.row_count);
  }
}

// A tile times one token; every row's lanes are summed at the end of a group.
template <ValueType type>
void multiply_one(const Tile& tile, const Activations& x, int64_t t, const Target& target) {
  __m256 total = _mm256_setzero_ps();
  if constexpr (type == ValueType::bf16) {
    __m512 sums[kTileRows];
    unrolled<kTileRows>([&](auto r) { sums[r] = _mm512_setzero_ps(); });
    for (int64_t i = 0; i < tile.blocks * kBlockCols; i += 32) {
      const auto token = _mm512_load_si512(x.bf16 + t * x.groups * kGroupCols + i);
      unrolled<kTileRows>([&](auto r) {
        sums[r] = dot_bf16(sums[r], _mm512_load_si512(tile.rows + r * tile.pitch + 2 * i), token);
      });
    }
    __m512i lanes[kTileRows];
    unrolled<kTileRows>([&](auto r) { lanes[r] = _mm512_castps_si512(sums[r]); });
    total = _mm256_castsi256_ps(sum_lanes(lanes, AddFloats{}));
  } else {
    for (int64_t group = 0; group < x.groups; ++group) {
      __m512i sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = _mm512_setzero_si512(); });
      const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks);
      for (int64_t block = group * kGroupBlocks; block < last; ++block) {
        const __m512i token =
            _mm512_load_si512(x.codes + t * x.groups * kGroupCols + block * kBlockCols);
        unrolled<kTileRows>([&](auto r) {
          sums[r] = dot_bytes(sums[r], _mm512_load_si512(tile.rows + r * tile.pitch + block * kBlockCols),
                    token);
        });
      }
      const __m256 part = scaled<type>(sums, x.sums[t * x.groups + group],
                                       x.scales[t * x.groups + group],
                                       tile.scales + group * kTileRows);
      total = group == 0 ? part : _mm256_add_ps(total, part);
    }
  }
  store_tile(total, target, t, tile.row, tile.row_count);
}

struct Isa {
  static constexpr int kLanes = avx512::kLanes, kVectors = 2;
  static constexpr bool kHalves = true;
  template <ValueType type, Kind kind>
  using Runs = avx512::Runs<type, kind>;

  // Columns of a block -> their place in a row of the panel.
  template <ValueType type, Kind kind>
  static void unpack(Runs<type, kind>& runs, int64_t block, uint8_t* row) {
    if constexpr (type == ValueType::bf16) {
      __m512i low, high;
      runs.next_bf16(low, high);
      _mm512_store_si512(row + block * 128, low);
      _mm512_store_si512(row + block * 128 + 64, high);
    } else {
      _mm512_store_si512(row + block * 64, runs.next_bytes());
    }
  }
  template <ValueType type, int vectors>
  static void block(const Tile& tile, const Activations& x, int64_t at, const Target& target) {
    multiply_block<type, vectors>(tile, x, at, target);
  }
  template <ValueType type>
  static void half(const Tile& tile, const Activations& x, const Target& target) {
    multiply_half<type>(tile, x, target);
  }
  template <ValueType type>
  static void one(const Tile& tile, const Activations& x, int64_t t, const Target& target) {
    multiply_one<type>(tile, x, t, target);
  }
};

}  // namespace

void multiply_tokens(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch) {
  with_type_and_kind(view, [&]<ValueType type, Kind kind>() {
    multiply_panels<Isa, type, kind>(view, x, begin, end, target, scratch);
  });
}

}  // namespace subllm::avx512
