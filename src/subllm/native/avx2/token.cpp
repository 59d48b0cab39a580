// One token: each run is spread out in registers and used once.

#include "avx2/avx2.h"

namespace subllm::avx2 {

namespace {

template <ValueType type, Kind kind>
void multiply_codes(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const uint16_t* scales = view.scales + begin * x.groups * kTileRows;
  Runs<type, kind> runs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    runs.start_tile(tile);
    __m256 total = _mm256_setzero_ps();
    for (int64_t group = 0; group < x.groups; ++group, scales += kTileRows) {
      __m256i sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = _mm256_setzero_si256(); });
      const int64_t last = least((group + 1) * kGroupBlocks, blocks);
      for (int64_t block = group * kGroupBlocks; block < last; ++block) {
        runs.fetch();
        const Columns token = columns_at(x.codes + block * kBlockCols);
        unrolled<kTileRows>([&](auto r) {
          const Columns weights = runs.next_bytes();
          sums[r] = add_products<type>(sums[r], weights.a, token.a);
          sums[r] = add_products<type>(sums[r], weights.b, token.b);
        });
      }
      unrolled<kTileRows>([&](auto r) { sums[r] = widened<type>(sums[r]); });
      const __m256 part = scaled<type>(sums, x.sums[group], x.scales[group], scales);
      total = group == 0 ? part : _mm256_add_ps(total, part);
    }
    store_tile(total, target, 0, tile * kTileRows, view.geometry.rows);
  }
}

template <Kind kind>
void multiply_bf16(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                   const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  Runs<ValueType::bf16, kind> runs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    runs.start_tile(tile);
    __m256 sums[kTileRows];
    unrolled<kTileRows>([&](auto r) { sums[r] = _mm256_setzero_ps(); });
    for (int64_t block = 0; block < blocks; ++block) {
      runs.fetch();
      alignas(32) float token[kBlockCols];
      for (int i = 0; i < 8; ++i)
        _mm256_store_ps(token + 8 * i, to_floats(load128(x.bf16 + block * kBlockCols + 8 * i)));
      unrolled<kTileRows>([&](auto r) {
        __m256 sum = sums[r];
        runs.next_bf16([&](int i, __m128i values) {
          sum = _mm256_fmadd_ps(to_floats(values), _mm256_load_ps(token + 8 * i), sum);
        });
        sums[r] = sum;
      });
    }
    store_tile(sum_lanes(sums), target, 0, tile * kTileRows, view.geometry.rows);
  }
}

}  // namespace

void multiply_token(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target) {
  with_type_and_kind<true>(view, [&]<ValueType type, Kind kind>() {
    if constexpr (type == ValueType::bf16)
      multiply_bf16<kind>(view, x, begin, end, target);
    else
      multiply_codes<type, kind>(view, x, begin, end, target);
  });
}

}  // namespace subllm::avx2
