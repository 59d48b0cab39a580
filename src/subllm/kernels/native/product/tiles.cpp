#include "product/tiles.h"

#include <algorithm>

namespace subllm {

namespace {

constexpr int64_t kBytesAhead = 1024;  // of the next tile, until kernels and hardware follow

void ask_for(const PackedView& matrix, int64_t tile) {
  const Geometry& g = matrix.geometry;
  if (matrix.offsets) return;
  const int64_t bytes = g.col_blocks() * g.block_bytes();
  const uint8_t* start = matrix.values + tile * bytes;
  for (int64_t at = 0; at < std::min(bytes, kBytesAhead); at += kAlign) __builtin_prefetch(start + at);
}

}  // namespace

void multiply_row_tiles(const Input& input, int64_t token, const PackedView& matrix,
                        std::span<const int64_t> tiles, float* out, const Kernels& with) {
  const Activations& all = input.view();
  Activations one{};
  one.tokens = 1, one.cols = all.cols, one.groups = all.groups;
  one.codes = all.codes + token * input.stride();
  one.scales = all.scales + token * all.groups;
  one.subs = all.subs + token * all.groups * kGroupSubs;
  one.bf16 = all.bf16 + token * input.stride();
  thread_local Buffer<uint8_t> scratch;
  const Target target{nullptr, out, matrix.geometry.rows};
  uint8_t* memory = scratch.reserve(with.scratch(matrix.geometry, 1));
  for (size_t i = 0; i < tiles.size(); ++i) {
    if (i + 1 < tiles.size()) ask_for(matrix, tiles[i + 1]);
    with.multiply(matrix, one, tiles[i], tiles[i] + 1, target, memory);
  }
}

}  // namespace subllm
