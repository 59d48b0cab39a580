// int8 that keeps eight of every 16 columns of a row: as picked4.h, but from the packed planes, by
// tables of what a byte of the mask keeps. Reading a byte a weight from memory takes longer than
// looking them up.
#pragma once

#include "wide256/few.h"

namespace subllm {

namespace {

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

// Of the kept weights of two rows: eight and eight.
inline __m128i two_rows(const uint8_t* mask) {
  const auto join = [](const uint8_t* low, const uint8_t* high) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
    return _mm_blend_epi32(first, load128(high - 8), 12);
  };
  return _mm_or_si128(join(kPositions.front[mask[0]], kPositions.front[mask[2]]),
                      join(kPositions.back[mask[1]], kPositions.back[mask[3]]));
}
inline __m256i unit_positions(const uint8_t* mask) {
  return _mm256_set_m128i(two_rows(mask + 4), two_rows(mask));
}

inline bool is_halved(const PackedView& view) {
  return view.balanced && view.geometry.type == ValueType::int8 &&
         view.geometry.slots == kBlockCols / 2;
}

constexpr int64_t kHalfUnit = 32;  // bytes of a unit's values

// Sums of rows from those of the lanes of rows 0 .. 3 and 4 .. 7, two lanes each.
inline __m256i sum_halves(__m256i lower, __m256i upper) {
  return _mm256_permutevar8x32_epi32(add_neighbours(lower, upper), to_pair_order());
}

template <typename Dot, int tokens>
void few_halved(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const int64_t stride = x.groups * kGroupCols;
  const uint16_t* scales = view.scales + begin * x.groups * kTileRows;
  const uint8_t* run = view.values + begin * blocks * kTileRows * kHalfUnit;
  const auto* mask = reinterpret_cast<const uint8_t*>(view.mask + begin * blocks * kTileRows);
  const __m256i sign = _mm256_set1_epi8(static_cast<char>(Dot::kPickExcess));
  for (int64_t tile = begin; tile < end; ++tile) {
    __m256 totals[tokens];
    unrolled<tokens>([&](auto t) { totals[t] = _mm256_setzero_ps(); });
    for (int64_t group = 0; group < x.groups; ++group, scales += kTileRows) {
      __m256i sums[tokens][2], excess[2];
      unrolled<2>([&](auto half) {
        excess[half] = _mm256_setzero_si256();
        unrolled<tokens>([&](auto t) { sums[t][half] = _mm256_setzero_si256(); });
      });
      const int64_t columns = group_columns(blocks, group);
      for (int64_t i = 0; i < columns; ++i, run += 2 * kHalfUnit, mask += 16) {
        fetch(run, kAlign);
        if (i % 4 == 0) fetch_line(mask);
        __m256i from[tokens];
        unrolled<tokens>([&](auto t) {
          from[t] = _mm256_xor_si256(
              load_twice(x.codes + t * stride + group * kGroupCols + i * kUnitCols), sign);
        });
        unrolled<2>([&](auto half) {
          const __m256i at = unit_positions(mask + 8 * half);
          const __m256i codes = load256(run + kHalfUnit * half);
          const auto weights = Dot::pick_bytes(codes);
          excess[half] = Dot::add_pick_excess(excess[half], codes);
          unrolled<tokens>([&](auto t) {
            sums[t][half] =
                Dot::add_picks(sums[t][half], weights, _mm256_shuffle_epi8(from[t], at));
          });
        });
      }
      const __m256 scale = halves_at(scales);
      const __m256i lost = sum_halves(excess[0], excess[1]);
      unrolled<tokens>([&](auto t) {
        const __m256i exact = _mm256_sub_epi32(sum_halves(sums[t][0], sums[t][1]), lost);
        totals[t] = add_part(totals[t], times_scale(exact, scale, x.scales[t * x.groups + group]),
                             group);
      });
    }
    unrolled<tokens>([&](auto t) {
      store_tile(totals[t], target, t, tile * kTileRows, view.geometry.rows);
    });
  }
}

// Many tokens: picks are made ready in a panel of tiles. Of a group: what is to be taken off, then
// for each unit values and positions.
constexpr int64_t kHalvedGroup = 32 + kGroupUnits * 4 * 32;
constexpr int64_t kHalvedChunk = 16;  // tokens

template <typename Dot>
void ready_halves(const PackedView& view, int64_t tile, int64_t groups, uint8_t* out) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const uint8_t* run = view.values + tile * blocks * kTileRows * kHalfUnit;
  const auto* mask = reinterpret_cast<const uint8_t*>(view.mask + tile * blocks * kTileRows);
  for (int64_t group = 0; group < groups; ++group, out += kHalvedGroup) {
    __m256i excess[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    uint8_t* to = out + 32;
    for (int64_t i = 0; i < group_columns(blocks, group); ++i)
      for (int half = 0; half < 2; ++half, run += kHalfUnit, mask += 8, to += 64) {
        fetch(run, kHalfUnit);
        const __m256i codes = load256(run);
        excess[half] = Dot::add_pick_excess(excess[half], codes);
        store256(to, codes);
        store256(to + 32, unit_positions(mask));
      }
    store256(out, sum_halves(excess[0], excess[1]));
  }
}

template <typename Dot, int width>
inline void multiply_halves(const uint8_t* panel, int64_t columns, const Activations& x,
                            int64_t token, int64_t group, __m256 scale, float* totals) {
  const __m256i sign = _mm256_set1_epi8(static_cast<char>(Dot::kPickExcess));
  const int8_t* codes = x.codes + (token * x.groups + group) * kGroupCols;
  __m256i sums[width][2];
  unrolled<width>([&](auto t) { sums[t][0] = sums[t][1] = _mm256_setzero_si256(); });
  const uint8_t* at = panel + 32;
  for (int64_t i = 0; i < columns; ++i, codes += kUnitCols, at += 128) {
    __m256i from[width];
    unrolled<width>([&](auto t) {
      from[t] = _mm256_xor_si256(load_twice(codes + t * x.groups * kGroupCols), sign);
    });
    unrolled<2>([&](auto half) {
      const auto weights = Dot::pick_bytes(load256(at + 64 * half));
      const __m256i places = load256(at + 64 * half + 32);
      unrolled<width>([&](auto t) {
        sums[t][half] =
            Dot::add_picks(sums[t][half], weights, _mm256_shuffle_epi8(from[t], places));
      });
    });
  }
  unrolled<width>([&](auto t) {
    const __m256i exact = _mm256_sub_epi32(sum_halves(sums[t][0], sums[t][1]), load256(panel));
    float* total = totals + t * kTileRows;
    _mm256_store_ps(total, add_part(_mm256_load_ps(total),
                                    times_scale(exact, scale, x.scales[(token + t) * x.groups + group]),
                                    group));
  });
}

template <typename Dot>
void multiply_halved_tile(const PackedView& view, const uint8_t* panel, const Activations& x,
                          int64_t tile, int64_t first, int64_t count, const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  alignas(32) float totals[kHalvedChunk * kTileRows] = {};
  for (int64_t group = 0; group < x.groups; ++group, panel += kHalvedGroup) {
    const __m256 scale = halves_at(view.scales + (tile * x.groups + group) * kTileRows);
    const int64_t columns = group_columns(blocks, group);
    int64_t t = 0;
    for (; t + 3 <= count; t += 3)
      multiply_halves<Dot, 3>(panel, columns, x, first + t, group, scale, totals + t * kTileRows);
    for (; t < count; ++t)
      multiply_halves<Dot, 1>(panel, columns, x, first + t, group, scale, totals + t * kTileRows);
  }
  for (int64_t t = 0; t < count; ++t)
    store_tile(_mm256_load_ps(totals + t * kTileRows), target, first + t, tile * kTileRows,
               view.geometry.rows);
}

inline int64_t halved_tile_bytes(const Geometry& g) {
  return ceil_div(g.cols, kGroupCols) * kHalvedGroup;
}
// More than a tile at a time pays only if several chunks of tokens read it.
inline int64_t halved_tiles(const Geometry& g, int64_t tokens) {
  const int64_t fit = kPanelBytes / halved_tile_bytes(g);
  return tokens <= kHalvedChunk || fit < 1 ? 1 : least(fit, kPanelTiles);
}
inline int64_t halved_scratch_bytes(const Geometry& g, int64_t tokens) {
  return tokens <= kFew ? 0 : halved_tiles(g, tokens) * halved_tile_bytes(g);
}

template <typename Dot>
void multiply_halved(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* panel) {
  if (x.tokens <= kFew) {
    with_count(x.tokens,
               [&]<int tokens>() { few_halved<Dot, tokens>(view, x, begin, end, target); });
    return;
  }
  const int64_t tiles = halved_tiles(view.geometry, x.tokens);
  const int64_t pitch = halved_tile_bytes(view.geometry);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    for (int64_t tile = first; tile < last; ++tile)
      ready_halves<Dot>(view, tile, x.groups, panel + (tile - first) * pitch);
    for (int64_t token = 0; token < x.tokens; token += kHalvedChunk)
      for (int64_t tile = first; tile < last; ++tile)
        multiply_halved_tile<Dot>(view, panel + (tile - first) * pitch, x, tile, token,
                                  least(kHalvedChunk, x.tokens - token), target);
  }
}

}  // namespace

}  // namespace subllm
