// Many tokens: tiles are unpacked into a panel once, then multiplied with blocks of 16 tokens that
// lie side by side in the lanes. The panel keeps the order of the units.

#include "avx512/avx512.h"

namespace subllm::avx512 {

namespace {

// What scales the rows of a tile in a group. Entry i belongs to row kSubscaleRows[i]; words are
// pairs of int16 that meet the sums of two times 32 activations, or one of them and 0.
struct alignas(64) Factors {
  uint32_t subscales[kGroupSubs][kTileRows];
  uint32_t excess[2][kTileRows];  // dense: 8 times the subscales
  uint32_t minima[2][kTileRows];
  float scales[kTileRows], minimum_scales[kTileRows];  // of row i
};

constexpr int kPlaces[kTileRows] = {0, 2, 4, 6, 1, 3, 5, 7};  // row r is entry kPlaces[r]

// A panel: for each tile its groups, each the units and then the factors.
template <ValueType type>
struct Panel {
  static constexpr int64_t kUnit = kUnitRows * kUnitCols * (type == ValueType::bf16 ? 2 : 1);
  static constexpr int64_t kUnits = kUnit * kBlockUnits * kGroupBlocks;
  static constexpr int64_t kGroup =
      kUnits + (type == ValueType::bf16 ? 0 : static_cast<int64_t>(sizeof(Factors)));
};

int64_t tile_bytes(const Geometry& g) {
  return g.col_groups() * (g.type == ValueType::bf16   ? Panel<ValueType::bf16>::kGroup
                           : g.type == ValueType::int8 ? Panel<ValueType::int8>::kGroup
                                                       : Panel<ValueType::int4>::kGroup);
}

// More than a tile pays only if several blocks of tokens read it.
int64_t tiles_at_once(const Geometry& g, int64_t laned) {
  if (laned <= kLanes) return 1;
  const int64_t fit = kPanelBytes / tile_bytes(g);
  return fit < 1 ? 1 : least(fit, kPanelTiles);
}

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

inline __m512i four_bytes(const void* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return _mm512_set1_epi32(word);
}

inline void store_half(void* at, __m256i bytes) {
  _mm256_store_si256(static_cast<__m256i*>(at), bytes);
}
inline __m256 eight_scales(const uint16_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

// 32 bytes, four of each entry -> words of the bytes 2 * part and 2 * part + 1 of each.
template <int part>
inline __m256i byte_pairs(__m256i entries) {
  const __m256i pairs = _mm256_srli_epi32(entries, 16 * part);
  return _mm256_or_si256(_mm256_and_si256(pairs, _mm256_set1_epi32(0xff)),
                         _mm256_and_si256(_mm256_slli_epi32(pairs, 8),
                                          _mm256_set1_epi32(0xff0000)));
}

// Factors of a tile's `group`; the planes' pointers are the tile's.
template <ValueType type, bool dense>
void unpack_factors(const uint16_t* scales, const uint8_t* subscales, int64_t group, Factors& to) {
  if constexpr (type == ValueType::int8) {
    _mm256_store_ps(to.scales, eight_scales(scales + group * kTileRows));
  } else {
    constexpr int64_t kTerms = dense ? 2 : 1;
    const uint16_t* at = scales + group * kGroupCols / kSuperCols * kTerms * kTileRows;
    const auto* bytes = reinterpret_cast<const __m256i*>(subscales) + group * kTerms;
    const __m256i factors = _mm256_loadu_si256(bytes);
    _mm256_store_ps(to.scales, eight_scales(at));
    unrolled<kGroupSubs>([&](auto j) {
      store_half(to.subscales[j], _mm256_and_si256(_mm256_srli_epi32(factors, 8 * j),
                                                   _mm256_set1_epi32(0xff)));
    });
    if constexpr (dense) {
      const __m256i minima = _mm256_loadu_si256(bytes + 1);
      _mm256_store_ps(to.minimum_scales, eight_scales(at + kTileRows));
      unrolled<2>([&](auto i) {
        store_half(to.excess[i], _mm256_slli_epi16(byte_pairs<i>(factors), 3));
        store_half(to.minima[i], byte_pairs<i>(minima));
      });
    }
  }
}

template <ValueType type, Kind kind>
void unpack(Pairs<type, kind>& pairs, const PackedView& view, int64_t tile, uint8_t* to) {
  constexpr int64_t kUnit = Panel<type>::kUnit;
  const Geometry& g = view.geometry;
  const int64_t blocks = g.col_blocks();
  pairs.start_tile(tile);
  for (int64_t group = 0; group < g.col_groups(); ++group, to += Panel<type>::kGroup) {
    uint8_t* unit = to;
    const int64_t last = least((group + 1) * kGroupBlocks, blocks);
    for (int64_t block = group * kGroupBlocks; block < last; ++block) {
      pairs.fetch();
      for (int64_t i = 0; i < kBlockUnits; i += 2, unit += 2 * kUnit) {
        if constexpr (type == ValueType::bf16) {
          __m512i rows[4];
          pairs.next_bf16(rows);
          unrolled<4>([&](auto r) { _mm512_store_si512(unit + 64 * r, rows[r]); });
        } else {
          __m512i rows[2];
          pairs.next_bytes(rows);
          unrolled<2>([&](auto half) { _mm512_store_si512(unit + half * kUnit, rows[half]); });
        }
      }
    }
    if constexpr (type != ValueType::bf16)
      unpack_factors<type, kind == Kind::dense>(
          view.scales + tile * g.tile_scales(), view.subscales + tile * g.tile_subscales(), group,
          *reinterpret_cast<Factors*>(to + Panel<type>::kUnits));
  }
}

// Where a row's four columns from `column` on are in a group's units, as bytes.
template <int64_t value_bytes>
constexpr int64_t place(int64_t row, int64_t column) {
  constexpr int64_t kRow = kUnitCols * value_bytes;
  return (column / kUnitCols * 2 + row / kUnitRows) * kUnitRows * kRow + row % kUnitRows * kRow +
         column % kUnitCols * value_bytes;
}

// Adds 16 columns of a group, from `column` on, to the sums of the eight rows.
template <int vectors>
inline void add_columns(const uint8_t* units, int64_t column, const uint32_t* tokens,
                        int64_t pitch, __m512i (&sums)[kTileRows][vectors]) {
  const uint8_t* at = units + place<1>(0, column);
  const uint32_t* codes = tokens + column / 4 * kLanes;
  unrolled<kUnitCols / 4>([&](auto i) {
    __m512i token[vectors];
    unrolled<vectors>(
        [&](auto v) { token[v] = _mm512_load_si512(codes + v * pitch + i * kLanes); });
    unrolled<kTileRows>([&](auto r) {
      const __m512i weight = four_bytes(at + place<1>(r, 4 * i));
      unrolled<vectors>([&](auto v) { sums[r][v] = dot_bytes(sums[r][v], weight, token[v]); });
    });
  });
}

// What a group of blocks of tokens brings along.
template <int vectors>
struct Group {
  const uint32_t* tokens;  // [vectors][pitch]
  int64_t pitch, columns;
  __m512i subs[vectors][2];
  __m512 scales[vectors];
};

template <int vectors>
using Totals = float[kTileRows][vectors][kLanes];

template <int vectors, typename Part>
inline void add_parts(Totals<vectors>& totals, Part part) {
  unrolled<kTileRows>([&](auto r) {
    unrolled<vectors>([&](auto v) {
      float* total = totals[r][v];
      _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), part(r, v)));
    });
  });
}

// One group of a tile times `vectors` blocks of tokens.
template <int vectors>
inline void add_int8(const uint8_t* units, const Factors& factors, const Group<vectors>& x,
                     Totals<vectors>& totals) {
  __m512i sums[kTileRows][vectors];
  unrolled<vectors>([&](auto v) {
    const __m512i minus = _mm512_set1_epi16(-128);
    const __m512i excess =
        dot_words(dot_words(_mm512_setzero_si512(), minus, x.subs[v][0]), minus, x.subs[v][1]);
    unrolled<kTileRows>([&](auto r) { sums[r][v] = excess; });
  });
  for (int64_t column = 0; column < x.columns; column += kUnitCols)
    add_columns<vectors>(units, column, x.tokens, x.pitch, sums);
  add_parts<vectors>(totals, [&](auto r, auto v) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]),
                         _mm512_mul_ps(_mm512_set1_ps(factors.scales[r]), x.scales[v]));
  });
}

template <int vectors, bool dense>
inline void add_int4(const uint8_t* units, const Factors& factors, const Group<vectors>& x,
                     Totals<vectors>& totals) {
  // In memory: the registers are for the sums of 32 columns.
  alignas(64) int32_t exact[kTileRows][vectors][kLanes] = {};
  for (int64_t j = 0; j < x.columns / kSubCols; ++j) {
    __m512i sums[kTileRows][vectors];
    unrolled<vectors>([&](auto v) {
      // Less the 8 that every code exceeds what it stands for: then 32 products of a row, at
      // most 8 * 127 each, fit in the words that meet the subscale.
      const __m512i minus = _mm512_set1_epi32(j % 2 ? -8 * 65536 : 65536 - 8);
      const __m512i excess = dot_words(_mm512_setzero_si512(), minus, x.subs[v][j / 2]);
      unrolled<kTileRows>([&](auto r) { sums[r][v] = excess; });
    });
    for (int64_t column = j * kSubCols; column < (j + 1) * kSubCols; column += kUnitCols)
      add_columns<vectors>(units, column, x.tokens, x.pitch, sums);
    unrolled<kTileRows>([&](auto r) {
      const __m512i factor = four_bytes(&factors.subscales[j][kPlaces[r]]);
      unrolled<vectors>([&](auto v) {
        int32_t* sum = exact[r][v];
        _mm512_store_si512(sum, dot_words(_mm512_load_si512(sum), sums[r][v], factor));
      });
    });
  }
  add_parts<vectors>(totals, [&](auto r, auto v) {
    const auto times_subs = [&](__m512i sum, const uint32_t(&words)[2][kTileRows]) {
      unrolled<2>([&](auto i) {
        sum = dot_words(sum, four_bytes(&words[i][kPlaces[r]]), x.subs[v][i]);
      });
      return sum;
    };
    const auto scaled = [&](__m512i sum, float scale) {
      return _mm512_mul_ps(_mm512_cvtepi32_ps(sum),
                           _mm512_mul_ps(_mm512_set1_ps(scale), x.scales[v]));
    };
    const __m512i sum = _mm512_load_si512(exact[r][v]);
    if constexpr (!dense) return scaled(sum, factors.scales[r]);
    return _mm512_sub_ps(
        scaled(times_subs(sum, factors.excess), factors.scales[r]),
        scaled(times_subs(_mm512_setzero_si512(), factors.minima), factors.minimum_scales[r]));
  });
}

template <int vectors>
inline void add_bf16(const uint8_t* units, int64_t columns, const uint32_t* tokens, int64_t pitch,
                     Totals<vectors>& totals) {
  __m512 sums[kTileRows][vectors];
  unrolled<kTileRows>(
      [&](auto r) { unrolled<vectors>([&](auto v) { sums[r][v] = _mm512_setzero_ps(); }); });
  for (int64_t column = 0; column < columns; column += kUnitCols) {
    const uint8_t* at = units + place<2>(0, column);
    const uint32_t* values = tokens + column / 2 * kLanes;
    unrolled<kUnitCols / 2>([&](auto i) {
      __m512i token[vectors];
      unrolled<vectors>(
          [&](auto v) { token[v] = _mm512_load_si512(values + v * pitch + i * kLanes); });
      unrolled<kTileRows>([&](auto r) {
        const __m512i weight = four_bytes(at + place<2>(r, 2 * i));
        unrolled<vectors>([&](auto v) { sums[r][v] = dot_bf16(sums[r][v], weight, token[v]); });
      });
    });
  }
  add_parts<vectors>(totals, [&](auto r, auto v) { return sums[r][v]; });
}

// A tile times `vectors` blocks of 16 tokens, the first of them `block`.
template <ValueType type, int vectors, bool dense>
[[gnu::flatten]] void multiply_block(const uint8_t* panel, const Geometry& g, int64_t tile,
                                     const Activations& x, int64_t block, const Target& target) {
  const int64_t row = tile * kTileRows, columns = g.col_blocks() * kBlockCols;
  // Each token's rows lie in a cache line of its own: fetch them while we count.
  for (int64_t t = block * kLanes; t < least((block + vectors) * kLanes, x.tokens); ++t)
    __builtin_prefetch(target.out + t * target.stride + row, 1);
  alignas(64) Totals<vectors> totals;
  unrolled<kTileRows>([&](auto r) {
    unrolled<vectors>([&](auto v) {
      _mm512_store_ps(totals[r][v], _mm512_set1_ps(-0.0f));  // -0 + a = a
    });
  });
  if constexpr (type == ValueType::bf16) {
    const int64_t pitch = x.groups * kGroupCols / 2 * kLanes;
    add_bf16<vectors>(panel, columns, x.bf16_lanes + block * pitch, pitch, totals);
  } else {
    Group<vectors> group;
    group.pitch = x.groups * kGroupCols / 4 * kLanes;
    group.tokens = x.code_lanes + block * group.pitch;
    for (int64_t i = 0; i < x.groups; ++i) {
      unrolled<vectors>([&](auto v) {
        const int64_t at = ((block + v) * x.groups + i) * kLanes;
        unrolled<2>([&](auto half) {
          group.subs[v][half] = _mm512_load_si512(x.sub_lanes + 2 * at + half * kLanes);
        });
        group.scales[v] = _mm512_load_ps(x.scale_lanes + at);
      });
      group.columns = least(kGroupCols, columns - i * kGroupCols);
      const uint8_t* units = panel + i * Panel<type>::kGroup;
      const auto& factors = *reinterpret_cast<const Factors*>(units + Panel<type>::kUnits);
      if constexpr (type == ValueType::int8)
        add_int8<vectors>(units, factors, group, totals);
      else
        add_int4<vectors, dense>(units, factors, group, totals);
      group.tokens += kGroupCols / 4 * kLanes;
    }
  }
  for (int64_t t = 0; t < vectors * kLanes; t += 8) {
    __m256 tokens[8];
    transpose(&totals[0][0][0] + t, vectors * kLanes, tokens);
    const int64_t first = block * kLanes + t;
    for (int64_t i = 0; i < least(8, x.tokens - first); ++i)
      store_tile(tokens[i], target, first + i, row, g.rows);
  }
}

template <ValueType type, Kind kind>
void multiply_panel(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* panel) {
  constexpr int kVectors = 2;
  constexpr bool kDense = kind == Kind::dense;
  const Geometry& g = view.geometry;
  const int64_t tiles = tiles_at_once(g, x.laned), bytes = tile_bytes(g), full = x.laned / kLanes;
  Pairs<type, kind> pairs(view, begin);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    for (int64_t tile = first; tile < last; ++tile)
      unpack(pairs, view, tile, panel + (tile - first) * bytes);
    int64_t block = 0;
    for (; block + kVectors <= full; block += kVectors)
      for (int64_t tile = first; tile < last; ++tile)
        multiply_block<type, kVectors, kDense>(panel + (tile - first) * bytes, g, tile, x, block,
                                               target);
    if (block < full)
      for (int64_t tile = first; tile < last; ++tile)
        multiply_block<type, 1, kDense>(panel + (tile - first) * bytes, g, tile, x, block, target);
  }
}

}  // namespace

int64_t scratch_bytes(const Geometry& g, int64_t tokens) {
  return tokens < kFill ? 0 : tiles_at_once(g, tokens) * tile_bytes(g);
}

void multiply_laned(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target, uint8_t* scratch) {
  with_type_and_kind(view, [&]<ValueType type, Kind kind>() {
    multiply_panel<type, kind>(view, x, begin, end, target, scratch);
  });
}

}  // namespace subllm::avx512
