// Several tokens: blocks of 8 in the lanes, or the lanes along the columns for a single one.

#include "avx2/avx2.h"

namespace subllm::avx2 {

namespace {

// 16-bit sums of pairs hold 8 additions: 8 * 2 * 15 * 127 < 2^15.
constexpr int64_t kWordsBeforeWidening = 8;

inline __m256i four_bytes(const uint8_t* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return _mm256_set1_epi32(word);
}

inline __m256 first_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}
inline __m256 second_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000))));
}

// Lanes are tokens, vectors are rows -> the other way round.
void transpose(__m256 (&m)[8]) {
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

void multiply_bf16(const Tile& tile, const Activations& x, int64_t block, __m256 (&totals)[8]) {
  const uint32_t* tokens = x.bf16_lanes + block * x.groups * kGroupCols / 2 * kLanes;
  unrolled<kTileRows>([&](auto r) { totals[r] = _mm256_setzero_ps(); });
  for (int64_t i = 0; i < tile.blocks * kBlockCols / 2; ++i) {
    const __m256i pairs = load256(tokens + i * kLanes);
    const __m256 first = first_of_pairs(pairs), second = second_of_pairs(pairs);
    unrolled<kTileRows>([&](auto r) {
      const __m256i weights = four_bytes(tile.rows + r * tile.pitch + 4 * i);
      totals[r] = _mm256_fmadd_ps(first_of_pairs(weights), first, totals[r]);
      totals[r] = _mm256_fmadd_ps(second_of_pairs(weights), second, totals[r]);
    });
  }
}

template <ValueType type>
void multiply_codes(const Tile& tile, const Activations& x, int64_t block, __m256 (&totals)[8]) {
  const uint32_t* tokens = x.code_lanes + block * x.groups * kGroupCols / 4 * kLanes;
  for (int64_t group = 0; group < x.groups; ++group) {
    const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks) * kBlockCols / 4;
    __m256i wide[kTileRows];
    unrolled<kTileRows>([&](auto r) { wide[r] = _mm256_setzero_si256(); });
    for (int64_t i = group * kGroupCols / 4; i < last; i += kWordsBeforeWidening) {
      __m256i sums[kTileRows];
      unrolled<kTileRows>([&](auto r) {
        sums[r] = type == ValueType::int4 ? _mm256_setzero_si256() : wide[r];
      });
      for (int64_t k = i; k < i + kWordsBeforeWidening; ++k) {
        const __m256i token = load256(tokens + k * kLanes);
        unrolled<kTileRows>([&](auto r) {
          sums[r] = add_products<type>(sums[r], four_bytes(tile.rows + r * tile.pitch + 4 * k), token);
        });
      }
      unrolled<kTileRows>([&](auto r) {
        wide[r] = type == ValueType::int4 ? _mm256_add_epi32(wide[r], widened<type>(sums[r])) : sums[r];
      });
    }
    const int64_t at = (block * x.groups + group) * kLanes;
    const __m256i excess = type == ValueType::int4 ? _mm256_slli_epi32(load256(x.sum_lanes + at), 3)
                                                   : _mm256_setzero_si256();
    const __m256 token_scale = _mm256_load_ps(x.scale_lanes + at);
    alignas(32) float scales[kTileRows];
    _mm256_store_ps(scales, scales_at(tile.scales + group * kTileRows));
    unrolled<kTileRows>([&](auto r) {
      const __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(wide[r], excess)),
                                        _mm256_mul_ps(_mm256_set1_ps(scales[r]), token_scale));
      totals[r] = group == 0 ? part : _mm256_add_ps(totals[r], part);
    });
  }
}

// A tile times one token; every row's lanes are summed at the end of a group.
template <ValueType type>
__m256 multiply_one(const Tile& tile, const Activations& x, int64_t t) {
  if constexpr (type == ValueType::bf16) {
    __m256 sums[kTileRows];
    unrolled<kTileRows>([&](auto r) { sums[r] = _mm256_setzero_ps(); });
    for (int64_t i = 0; i < tile.blocks * kBlockCols; i += 8) {
      const __m256 token = to_floats(load128(x.bf16 + t * x.groups * kGroupCols + i));
      unrolled<kTileRows>([&](auto r) {
        sums[r] = _mm256_fmadd_ps(to_floats(load128(tile.rows + r * tile.pitch + 2 * i)), token, sums[r]);
      });
    }
    return sum_lanes(sums);
  } else {
    __m256 total = _mm256_setzero_ps();
    for (int64_t group = 0; group < x.groups; ++group) {
      __m256i sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = _mm256_setzero_si256(); });
      const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks) * kBlockCols;
      for (int64_t i = group * kGroupCols; i < last; i += 32) {
        const __m256i token = load256(x.codes + t * x.groups * kGroupCols + i);
        unrolled<kTileRows>([&](auto r) {
          sums[r] = add_products<type>(sums[r], load256(tile.rows + r * tile.pitch + i), token);
        });
      }
      unrolled<kTileRows>([&](auto r) { sums[r] = widened<type>(sums[r]); });
      const __m256 part = scaled<type>(sums, x.sums[t * x.groups + group],
                                       x.scales[t * x.groups + group],
                                       tile.scales + group * kTileRows);
      total = group == 0 ? part : _mm256_add_ps(total, part);
    }
    return total;
  }
}

struct Isa {
  static constexpr int kLanes = avx2::kLanes, kVectors = 1;
  static constexpr bool kHalves = false;
  template <ValueType type, Kind kind>
  using Runs = avx2::Runs<type, kind>;

  // Columns of a block -> their place in a row of the panel.
  template <ValueType type, Kind kind>
  static void unpack(Runs<type, kind>& runs, int64_t block, uint8_t* row) {
    const auto store = [](void* at, __m128i bytes) { _mm_store_si128(static_cast<__m128i*>(at), bytes); };
    if constexpr (type == ValueType::bf16) {
      runs.next_bf16([&](int i, __m128i values) { store(row + block * 128 + 16 * i, values); });
    } else {
      const Columns columns = runs.next_bytes();
      store(row + block * 64, _mm256_castsi256_si128(columns.a));
      store(row + block * 64 + 16, _mm256_castsi256_si128(columns.b));
      store(row + block * 64 + 32, _mm256_extracti128_si256(columns.a, 1));
      store(row + block * 64 + 48, _mm256_extracti128_si256(columns.b, 1));
    }
  }
  template <ValueType type, int vectors>
  static void block(const Tile& tile, const Activations& x, int64_t at, const Target& target) {
    __m256 totals[kTileRows];
    if constexpr (type == ValueType::bf16)
      multiply_bf16(tile, x, at, totals);
    else
      multiply_codes<type>(tile, x, at, totals);
    transpose(totals);
    for (int64_t i = 0; i < least(kLanes, x.tokens - at * kLanes); ++i)
      store_tile(totals[i], target, at * kLanes + i, tile.row, tile.row_count);
  }
  template <ValueType type>
  static void one(const Tile& tile, const Activations& x, int64_t t, const Target& target) {
    store_tile(multiply_one<type>(tile, x, t), target, t, tile.row, tile.row_count);
  }
};

}  // namespace

void multiply_tokens(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch) {
  with_type_and_kind<true>(view, [&]<ValueType type, Kind kind>() {
    multiply_panels<Isa, type, kind>(view, x, begin, end, target, scratch);
  });
}

}  // namespace subllm::avx2
