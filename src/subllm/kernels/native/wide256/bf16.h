// bf16: float32 sums in eight lanes along the columns, whatever the number of tokens, so that none
// changes the bits of another.
#pragma once

#include "wide256/few.h"

namespace subllm {

namespace {

inline __m256 to_floats(__m128i bf16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}

// Sums of the lanes of each row.
inline __m256 sum_rows(const __m256 (&rows)[kTileRows]) {
  const auto add = [](__m256 a, __m256 b) { return _mm256_hadd_ps(a, b); };
  const __m256 low = add(add(rows[0], rows[1]), add(rows[2], rows[3]));
  const __m256 high = add(add(rows[4], rows[5]), add(rows[6], rows[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                       _mm256_permute2f128_ps(low, high, 0x31));
}

// Every column in its place.
template <int tokens>
void tile_bf16(const uint8_t* tile, int64_t columns, const Activations& x, int64_t row,
               int64_t rows, const Target& target) {
  constexpr int64_t kBytes = kColumnBytes<ValueType::bf16>, kRowBytes = kUnitCols * 2;
  constexpr int at_once = tokens == 1 ? 8 : tokens == 2 ? 4 : tokens <= 4 ? 2 : 1;
  const int64_t stride = x.groups * kGroupCols;
  __m256 lanes[tokens][kTileRows];
  unrolled<kTileRows / at_once>([&](auto pass) {
    __m256 sums[tokens][at_once];
    unrolled<tokens>([&](auto t) {
      unrolled<at_once>([&](auto r) { sums[t][r] = _mm256_setzero_ps(); });
    });
    for (int64_t i = 0; i < columns; ++i) {
      const uint8_t* at = tile + i * kBytes + pass * at_once * kRowBytes;
      if constexpr (pass == 0) fetch(at, kBytes);
      unrolled<2>([&](auto half) {
        __m256 weights[at_once];
        unrolled<at_once>([&](auto r) {
          weights[r] = to_floats(load128(at + r * kRowBytes + half * kRowBytes / 2));
        });
        unrolled<tokens>([&](auto t) {
          const __m256 token = to_floats(load128(x.bf16 + t * stride + i * kUnitCols + half * 8));
          unrolled<at_once>([&](auto r) {
            sums[t][r] = _mm256_fmadd_ps(weights[r], token, sums[t][r]);
          });
        });
      });
    }
    unrolled<tokens>([&](auto t) {
      unrolled<at_once>([&](auto r) { lanes[t][pass * at_once + r] = sums[t][r]; });
    });
  });
  unrolled<tokens>([&](auto t) { store_tile(sum_rows(lanes[t]), target, t, row, rows); });
}

inline int64_t bf16_scratch_bytes(const Geometry& g, bool masked) {
  return masked ? ceil_div(g.cols, kGroupCols) * kGroupBytes<ValueType::bf16> : 0;
}

inline void multiply_bf16(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                          const Target& target, uint8_t* scratch) {
  const Geometry& g = view.geometry;
  const int64_t columns = ceil_div(g.cols, kBlockCols) * (kBlockCols / kUnitCols);
  Units<ValueType::bf16> units(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    const uint8_t* at = scratch;
    if (view.mask) {
      units = Units<ValueType::bf16>(view, tile);
      units.expand(columns, scratch);
    } else {
      at = view.values + tile * columns * kColumnBytes<ValueType::bf16>;
    }
    for (int64_t t = 0; t < x.tokens; t += kFew)
      with_count(least(kFew, x.tokens - t), [&]<int tokens>() {
        tile_bf16<tokens>(at, columns, from_token(x, t), tile * kTileRows, g.rows,
                          from_token(target, t));
      });
  }
}

}  // namespace

}  // namespace subllm
