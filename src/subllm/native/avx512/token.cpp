// One token: each run is expanded in registers and used once.

#include "avx512/avx512.h"

namespace subllm::avx512 {

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
      __m512i sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = _mm512_setzero_si512(); });
      const int64_t last = least((group + 1) * kGroupBlocks, blocks);
      for (int64_t block = group * kGroupBlocks; block < last; ++block) {
        runs.fetch();
        const __m512i token = _mm512_load_si512(x.codes + block * kBlockCols);
        unrolled<kTileRows>([&](auto r) { sums[r] = dot_bytes(sums[r], runs.next_bytes(), token); });
      }
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
    __m512 sums[kTileRows];
    unrolled<kTileRows>([&](auto r) { sums[r] = _mm512_setzero_ps(); });
    for (int64_t block = 0; block < blocks; ++block) {
      runs.fetch();
      const auto token_low = _mm512_load_si512(x.bf16 + block * kBlockCols);
      const auto token_high = _mm512_load_si512(x.bf16 + block * kBlockCols + 32);
      unrolled<kTileRows>([&](auto r) {
        __m512i low, high;
        runs.next_bf16(low, high);
        sums[r] = dot_bf16(sums[r], low, token_low);
        sums[r] = dot_bf16(sums[r], high, token_high);
      });
    }
    __m512i lanes[kTileRows];
    unrolled<kTileRows>([&](auto r) { lanes[r] = _mm512_castps_si512(sums[r]); });
    store_tile(_mm256_castsi256_ps(sum_lanes(lanes, AddFloats{})), target, 0, tile * kTileRows,
               view.geometry.rows);
  }
}

}  // namespace

void multiply_token(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target) {
  with_type_and_kind(view, [&]<ValueType type, Kind kind>() {
    if constexpr (type == ValueType::bf16)
      multiply_bf16<kind>(view, x, begin, end, target);
    else
      multiply_codes<type, kind>(view, x, begin, end, target);
  });
}

}  // namespace subllm::avx512
