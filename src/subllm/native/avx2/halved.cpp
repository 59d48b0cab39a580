// int8 and int4 matrices that keep eight of every 16 columns.

#include "avx2/halved.h"

namespace subllm::avx2 {

namespace {

constexpr int64_t kVector = 32;                            // bytes
constexpr int64_t kBlockBytes = kPairs * 4 * kVector;      // weights and positions
constexpr int64_t kGroupBytes = kGroupBlocks * kBlockBytes + kVector;  // and the sums of rows
constexpr int64_t kChunk = 16;

inline __m256 scaled(__m256i exact, float token_scale, const uint16_t* scales) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(exact),
                       _mm256_mul_ps(scales_at(scales), _mm256_set1_ps(token_scale)));
}

// One or two tokens: positions are used as soon as they are known.
template <ValueType type, int tokens>
void multiply_few(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                  const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const uint16_t* scales = view.scales + begin * x.groups * kTileRows;
  Pairs<type> pairs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    __m256 totals[tokens];
    unrolled<tokens>([&](auto t) { totals[t] = _mm256_setzero_ps(); });
    for (int64_t group = 0; group < x.groups; ++group, scales += kTileRows) {
      __m256i sums[tokens][kPairs], weight_sums[kPairs];
      unrolled<kPairs>([&](auto p) {
        unrolled<tokens>([&](auto t) { sums[t][p] = _mm256_setzero_si256(); });
        weight_sums[p] = _mm256_setzero_si256();
      });
      const int64_t last = least((group + 1) * kGroupBlocks, blocks);
      for (int64_t block = group * kGroupBlocks; block < last; ++block) {
        pairs.fetch();
        Columns columns[tokens];
        unrolled<tokens>([&](auto t) {
          columns[t] = tokens_at<type>(x.codes + t * x.groups * kGroupCols + block * kBlockCols);
        });
        unrolled<kPairs>([&](auto p) {
          const Columns weights = pairs.weights(p), at = pairs.positions(p);
          if constexpr (type == ValueType::int4)
            weight_sums[p] =
                _mm256_add_epi8(weight_sums[p], _mm256_add_epi8(weights.a, weights.b));
          unrolled<tokens>([&](auto t) {
            sums[t][p] = add_picked<type>(sums[t][p], weights.a, at.a, columns[t].a);
            sums[t][p] = add_picked<type>(sums[t][p], weights.b, at.b, columns[t].b);
          });
        });
        pairs.next_block();
      }
      unrolled<tokens>([&](auto t) {
        if constexpr (type == ValueType::int4)
          unrolled<kPairs>([&](auto p) {
            sums[t][p] = widened<type>(_mm256_sub_epi16(sums[t][p], excess_of(weight_sums[p])));
          });
        const __m256 part = scaled(sum_rows(sums[t]), x.scales[t * x.groups + group], scales);
        totals[t] = group == 0 ? part : _mm256_add_ps(totals[t], part);
      });
    }
    unrolled<tokens>([&](auto t) {
      store_tile(totals[t], target, t, tile * kTileRows, view.geometry.rows);
    });
  }
}

// Groups of a tile, one after the other: weights and positions of its blocks, and what is to be
// taken off the sums of rows.
template <ValueType type>
void unpack(Pairs<type>& pairs, int64_t groups, int64_t blocks, uint8_t* panel) {
  const auto store = [](uint8_t* at, __m256i bytes) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(at), bytes);
  };
  for (int64_t group = 0; group < groups; ++group, panel += kGroupBytes) {
    __m256i weight_sums[kPairs];
    unrolled<kPairs>([&](auto p) { weight_sums[p] = _mm256_setzero_si256(); });
    uint8_t* out = panel + kVector;
    for (int64_t block = group * kGroupBlocks; block < least((group + 1) * kGroupBlocks, blocks);
         ++block) {
      pairs.fetch();
      unrolled<kPairs>([&](auto p) {
        const Columns weights = pairs.weights(p), at = pairs.positions(p);
        if constexpr (type == ValueType::int4)
          weight_sums[p] = _mm256_add_epi8(weight_sums[p], _mm256_add_epi8(weights.a, weights.b));
        store(out + p * 4 * kVector, weights.a);
        store(out + p * 4 * kVector + kVector, at.a);
        store(out + p * 4 * kVector + 2 * kVector, weights.b);
        store(out + p * 4 * kVector + 3 * kVector, at.b);
      });
      pairs.next_block();
      out += kBlockBytes;
    }
    if constexpr (type == ValueType::int4) {
      unrolled<kPairs>(
          [&](auto p) { weight_sums[p] = widened<type>(excess_of(weight_sums[p])); });
      store(panel, sum_rows(weight_sums));
    }
  }
}

// The tokens [first, first + count), a group of columns at a time, `width` of them together.
template <ValueType type, int width>
inline void multiply_group(const uint8_t* panel, int64_t count, const Activations& x, int64_t token,
                           int64_t group, const uint16_t* scales, float* totals) {
  __m256i sums[width][kPairs];
  unrolled<width>([&](auto t) {
    unrolled<kPairs>([&](auto p) { sums[t][p] = _mm256_setzero_si256(); });
  });
  const int8_t* codes = x.codes + (token * x.groups + group) * kGroupCols;
  const uint8_t* in = panel + kVector;
  for (int64_t block = 0; block < count; ++block, in += kBlockBytes, codes += kBlockCols) {
    Columns columns[width];
    unrolled<width>(
        [&](auto t) { columns[t] = tokens_at<type>(codes + t * x.groups * kGroupCols); });
    unrolled<kPairs>([&](auto p) {
      const uint8_t* at = in + p * 4 * kVector;
      unrolled<width>([&](auto t) {
        sums[t][p] = add_picked<type>(sums[t][p], load256(at), load256(at + kVector), columns[t].a);
      });
      unrolled<width>([&](auto t) {
        sums[t][p] = add_picked<type>(sums[t][p], load256(at + 2 * kVector), load256(at + 3 * kVector),
                                      columns[t].b);
      });
    });
  }
  unrolled<width>([&](auto t) {
    unrolled<kPairs>([&](auto p) { sums[t][p] = widened<type>(sums[t][p]); });
    __m256i exact = sum_rows(sums[t]);
    if constexpr (type == ValueType::int4) exact = _mm256_sub_epi32(exact, load256(panel));
    const __m256 part = scaled(exact, x.scales[(token + t) * x.groups + group], scales);
    float* total = totals + t * kTileRows;
    _mm256_store_ps(total, group == 0 ? part : _mm256_add_ps(_mm256_load_ps(total), part));
  });
}

template <ValueType type>
void multiply_tile(const PackedView& view, const uint8_t* panel, const Activations& x, int64_t tile,
                   int64_t first, int64_t count, const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  alignas(32) float totals[kChunk * kTileRows];
  for (int64_t group = 0; group < x.groups; ++group, panel += kGroupBytes) {
    const uint16_t* scales = view.scales + (tile * x.groups + group) * kTileRows;
    const int64_t present = least(kGroupBlocks, blocks - group * kGroupBlocks);
    int64_t t = 0;
    for (; t + 2 <= count; t += 2)
      multiply_group<type, 2>(panel, present, x, first + t, group, scales, totals + t * kTileRows);
    if (t < count)
      multiply_group<type, 1>(panel, present, x, first + t, group, scales, totals + t * kTileRows);
  }
  for (int64_t t = 0; t < count; ++t)
    store_tile(_mm256_load_ps(totals + t * kTileRows), target, first + t, tile * kTileRows,
               view.geometry.rows);
}

inline int64_t tile_bytes(const Geometry& g) { return ceil_div(g.cols, kGroupCols) * kGroupBytes; }

// More than a tile at a time pays only if several chunks of tokens read it.
inline int64_t tiles_together(const Geometry& g, int64_t tokens) {
  const int64_t fit = kPanelBytes / tile_bytes(g);
  return tokens <= kChunk || fit < 1 ? 1 : least(fit, kPanelTiles);
}

template <ValueType type>
void multiply_several(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                      const Target& target, uint8_t* panel) {
  const Geometry& g = view.geometry;
  const int64_t blocks = ceil_div(g.cols, kBlockCols), pitch = tile_bytes(g);
  const int64_t tiles = tiles_together(g, x.tokens);
  Pairs<type> pairs(view, begin);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    for (int64_t tile = first; tile < last; ++tile)
      unpack(pairs, x.groups, blocks, panel + (tile - first) * pitch);
    for (int64_t token = 0; token < x.tokens; token += kChunk)
      for (int64_t tile = first; tile < last; ++tile)
        multiply_tile<type>(view, panel + (tile - first) * pitch, x, tile, token,
                            least(kChunk, x.tokens - token), target);
  }
}

template <ValueType type>
void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  if (x.tokens == 1) return multiply_few<type, 1>(view, x, begin, end, target);
  if (x.tokens == 2) return multiply_few<type, 2>(view, x, begin, end, target);
  multiply_several<type>(view, x, begin, end, target, scratch);
}

}  // namespace

int64_t halved_scratch_bytes(const Geometry& g, int64_t tokens) {
  return tokens <= 2 ? 0 : tiles_together(g, tokens) * tile_bytes(g);
}

void multiply_halved(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch) {
  if (view.geometry.type == ValueType::int4)
    multiply<ValueType::int4>(view, x, begin, end, target, scratch);
  else
    multiply<ValueType::int8>(view, x, begin, end, target, scratch);
}

}  // namespace subllm::avx2
