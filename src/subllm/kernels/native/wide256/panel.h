// Many tokens, side by side in the lanes: tiles are unpacked into a panel once and multiplied with
// blocks of eight tokens, four columns of a row at a time.
#pragma once

#include "wide256/few.h"

namespace subllm {

namespace {

// Up to eight tokens, and those that a block is not full of, are multiplied as few.
constexpr int kLanes = 8, kFill = kLanes;

// Of a group in the panel: codes, and for int4 what belongs to them: subscales of each piece of
// 32 columns [4][8] and factors of the sums of activations, two to a word, [2][8].
template <ValueType type>
constexpr int64_t kFactorBytes = type == ValueType::int4 ? (4 + 2) * kTileRows * 4 : 0;
template <ValueType type>
constexpr int64_t kLanedGroup = kGroupBytes<type> + kFactorBytes<type>;

// Subscales as Dot multiplies with them, and pairs of factors.
template <typename Dot>
inline void lay_out_factors(const uint8_t* subscales, const uint8_t* factors, uint8_t* out) {
  constexpr int kPlaceOfRow[kTileRows] = {0, 2, 4, 6, 1, 3, 5, 7};
  uint32_t words[6][kTileRows];
  for (int r = 0; r < static_cast<int>(kTileRows); ++r) {
    const uint8_t* own = subscales + 4 * kPlaceOfRow[r];
    const uint8_t* lost = factors + 4 * kPlaceOfRow[r];
    for (int piece = 0; piece < 4; ++piece)
      words[piece][r] = own[piece] * (Dot::kScaleInEveryWord ? 0x10001u : 1u);
    for (int half = 0; half < 2; ++half)
      words[4 + half][r] = lost[2 * half] | static_cast<uint32_t>(lost[2 * half + 1]) << 16;
  }
  __builtin_memcpy(out, words, sizeof(words));
}

inline __m256i word_at(const uint8_t* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return _mm256_set1_epi32(word);
}

// Lanes are tokens, vectors are rows -> the other way round.
inline void transpose(__m256 (&m)[8]) {
  __m256 a[8];
  unrolled<4>([&](auto i) {
    a[2 * i] = _mm256_unpacklo_ps(m[2 * i], m[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i], m[2 * i + 1]);
  });
  unrolled<2>([&](auto i) {
    unrolled<2>([&](auto j) {
      m[4 * i + 2 * j] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0x44);
      m[4 * i + 2 * j + 1] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0xee);
    });
  });
  unrolled<4>([&](auto i) {
    a[i] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x20);
    a[i + 4] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x31);
  });
  unrolled<8>([&](auto i) { m[i] = a[i]; });
}

// The group's sums, of `columns` times 16 columns. Loops are unrolled as far as GCC 12 keeps the
// sums in registers, which it does not inside of several lambdas.
template <typename Dot>
inline void laned_int4(const uint8_t* codes, const uint32_t* tokens, int64_t columns,
                       __m256i (&sums)[kTileRows]) {
  constexpr int kColumns = Dot::kColumnsBeforeScaling;
  __m256i wide[kTileRows];
  unrolled<kTileRows>([&](auto r) { wide[r] = _mm256_setzero_si256(); });
  const uint8_t* scales = codes + kGroupBytes<ValueType::int4>;
  for (int64_t i = 0; i < columns; i += kColumns) {
    __m256i few[kTileRows];
    unrolled<kTileRows>([&](auto r) { few[r] = _mm256_setzero_si256(); });
#pragma GCC unroll 2
    for (int column = 0; column < kColumns; ++column) {
#pragma GCC unroll 2
      for (int k = 0; k < 4; ++k) {
        const __m256i token = load256(tokens);
        unrolled<kTileRows>(
            [&](auto r) { few[r] = Dot::add_codes(few[r], word_at(codes + 16 * r), token); });
        tokens += kLanes;
        codes += 4;
      }
      codes += kColumnBytes<ValueType::int4> - 16;
    }
    const uint8_t* scale = scales + i / 2 * 4 * kTileRows;
    unrolled<kTileRows>(
        [&](auto r) { wide[r] = Dot::add_words(wide[r], few[r], word_at(scale + 4 * r)); });
  }
  unrolled<kTileRows>([&](auto r) { sums[r] = wide[r]; });
}

template <typename Dot>
inline void laned_int8(const uint8_t* codes, const uint32_t* tokens, int64_t columns,
                       __m256i (&sums)[kTileRows]) {
  __m256i wide[kTileRows];
  unrolled<kTileRows>([&](auto r) { wide[r] = _mm256_setzero_si256(); });
  for (int64_t i = 0; i < columns; ++i) {
#pragma GCC unroll 2
    for (int k = 0; k < 4; ++k) {
      const __m256i token = load256(tokens);
      unrolled<kTileRows>([&](auto r) {
        wide[r] = Dot::add(wide[r], Dot::bytes(word_at(codes + 16 * r)), token);
      });
      tokens += kLanes;
      codes += 4;
    }
    codes += kColumnBytes<ValueType::int8> - 16;
  }
  unrolled<kTileRows>([&](auto r) { sums[r] = wide[r]; });
}

// A tile times the tokens of a block.
template <typename Dot, ValueType type, bool masked>
void laned_tile(const PackedView& view, const uint8_t* panel, const Activations& x, int64_t tile,
                int64_t block, const Target& target) {
  constexpr int64_t kKinds = type == ValueType::int4 && !masked ? 2 : 1;
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const int64_t scale_rows = type == ValueType::int4 ? ceil_div(x.groups, 2) : x.groups;
  const uint16_t* scales = view.scales + tile * scale_rows * kKinds * kTileRows;
  const uint32_t* tokens = x.code_lanes + block * x.groups * kGroupCols / 4 * kLanes;
  __m256 totals[kTileRows];
  unrolled<kTileRows>([&](auto r) { totals[r] = _mm256_setzero_ps(); });
  for (int64_t group = 0; group < x.groups; ++group, panel += kLanedGroup<type>) {
    const int64_t columns = group_columns(blocks, group);
    const int64_t at = block * x.groups + group;
    const __m256 token_scale = _mm256_loadu_ps(x.scale_lanes + at * kLanes);
    const uint16_t* own = scales + (type == ValueType::int4 ? group / 2 : group) * kKinds * kTileRows;
    alignas(32) float scale[2][kTileRows];
    _mm256_store_ps(scale[0], halves_at(own));
    if constexpr (kKinds == 2) _mm256_store_ps(scale[1], halves_at(own + kTileRows));
    __m256i sums[kTileRows];
    const auto scaled = [&](__m256i exact, float by) {
      return _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_mul_ps(_mm256_set1_ps(by), token_scale));
    };
    const uint32_t* own_tokens = tokens + group * kGroupCols / 4 * kLanes;
    if constexpr (type == ValueType::int4) {
      laned_int4<Dot>(panel, own_tokens, columns, sums);
      const __m256i subs = load256(x.sub_lanes + at * 2 * kLanes);
      const __m256i more_subs = load256(x.sub_lanes + at * 2 * kLanes + kLanes);
      const uint8_t* factors = panel + kGroupBytes<type> + 4 * 32;
#pragma GCC unroll 8
      for (int64_t r = 0; r < kTileRows; ++r) {
        const __m256i lost = Dot::add_words(_mm256_madd_epi16(subs, word_at(factors + 4 * r)),
                                            more_subs, word_at(factors + 32 + 4 * r));
        __m256 part;
        if constexpr (masked)
          part = scaled(_mm256_sub_epi32(sums[r], _mm256_slli_epi32(lost, 3)), scale[0][r]);
        else
          part = _mm256_sub_ps(scaled(sums[r], scale[0][r]), scaled(lost, scale[1][r]));
        totals[r] = add_part(totals[r], part, group);
      }
    } else {
      laned_int8<Dot>(panel, own_tokens, columns, sums);
      __m256i excess = _mm256_setzero_si256();
      if constexpr (Dot::kExcess != 0)
        for (int half = 0; half < 2; ++half)
          excess = Dot::add_words(excess, load256(x.sub_lanes + (at * 2 + half) * kLanes),
                                  _mm256_set1_epi16(Dot::kExcess));
#pragma GCC unroll 8
      for (int64_t r = 0; r < kTileRows; ++r)
        totals[r] = add_part(totals[r], scaled(_mm256_sub_epi32(sums[r], excess), scale[0][r]), group);
    }
  }
  transpose(totals);
  for (int64_t i = 0; i < least(kLanes, x.tokens - block * kLanes); ++i)
    store_tile(totals[i], target, block * kLanes + i, tile * kTileRows, view.geometry.rows);
}

template <ValueType type>
inline int64_t laned_tile_bytes(const Geometry& g) {
  return ceil_div(g.cols, kGroupCols) * kLanedGroup<type>;
}
// More than a tile at a time pays only if several blocks of tokens read it.
template <ValueType type>
inline int64_t laned_tiles(const Geometry& g, int64_t laned) {
  const int64_t fit = kPanelBytes / laned_tile_bytes<type>(g);
  return laned <= kLanes || fit < 1 ? 1 : least(fit, kPanelTiles);
}

// The first `laned` tokens.
template <typename Dot, ValueType type, bool masked>
void multiply_laned(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target, uint8_t* panel) {
  constexpr int64_t kKinds = masked ? 1 : 2;
  // Dense int8 is its own panel.
  constexpr bool kInPlace = type == ValueType::int8 && !masked;
  constexpr int64_t kBlockBytes = kGroupBytes<type> / kGroupBlocks;
  const Geometry& g = view.geometry;
  const int64_t blocks = ceil_div(g.cols, kBlockCols);
  const int64_t tiles = laned_tiles<type>(g, x.laned), pitch = laned_tile_bytes<type>(g);
  Groups<type, masked> groups(view, begin);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    for (int64_t tile = first; tile < last && !kInPlace; ++tile) {
      groups.start_tile(tile);
      uint8_t* out = panel + (tile - first) * pitch;
      for (int64_t group = 0; group < x.groups; ++group, out += kLanedGroup<type>) {
        const int64_t columns = group_columns(blocks, group);
        const uint8_t* in = groups.next(group);
        if constexpr (type == ValueType::int4 && !masked)
          widen_group(in, columns, out);
        else
          __builtin_memcpy(out, in, static_cast<size_t>(columns * kColumnBytes<type>));
        if constexpr (type == ValueType::int4) {
          const uint8_t* subscales =
              view.subscales + (tile * x.groups + group) * kKinds * kTileRows * 4;
          lay_out_factors<Dot>(subscales, masked ? subscales : subscales + kTileRows * 4,
                               out + kGroupBytes<type>);
        }
      }
    }
    for (int64_t block = 0; block < x.laned / kLanes; ++block)
      for (int64_t tile = first; tile < last; ++tile)
        laned_tile<Dot, type, masked>(
            view,
            kInPlace ? view.values + tile * blocks * kBlockBytes : panel + (tile - first) * pitch, x,
            tile, block, target);
  }
}

}  // namespace

}  // namespace subllm
