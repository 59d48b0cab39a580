// What the vector kernels share: the walk over a matrix, whatever the instruction set. In an
// anonymous namespace, because every file that includes it is compiled in its own way.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "isa/kernels.h"

namespace subllm {

namespace {

constexpr int64_t kGroupBlocks = kGroupCols / kBlockCols;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(0), body(1), ... with constants, so that arrays which they index stay in registers.
template <int count, typename Body>
inline void unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    (body(std::integral_constant<int, i>{}), ...);
  }(std::make_integer_sequence<int, count>{});
}

// How the runs of a matrix follow each other. `balanced` is `fixed` with the same number kept of
// every 16 columns, for the instruction sets that gain from knowing it; `halved` is `balanced`
// with eight, for kernels that are made for it alone.
enum class Kind { dense, fixed, balanced, halved, ragged };

// Calls work.template operator()<type, kind>() for what the matrix is.
template <ValueType type, bool balances, typename Work>
inline void with_kind(const PackedView& view, Work work) {
  if (view.offsets) return work.template operator()<type, Kind::ragged>();
  if constexpr (balances)
    if (view.balanced) return work.template operator()<type, Kind::balanced>();
  if (view.mask) return work.template operator()<type, Kind::fixed>();
  return work.template operator()<type, Kind::dense>();
}
template <bool balances = false, typename Work>
inline void with_type_and_kind(const PackedView& view, Work work) {
  switch (view.geometry.type) {
    case ValueType::int4: return with_kind<ValueType::int4, balances>(view, work);
    case ValueType::int8: return with_kind<ValueType::int8, balances>(view, work);
    case ValueType::bf16: return with_kind<ValueType::bf16, false>(view, work);
  }
}

// How far ahead of use packed planes are asked for. The processor's own prefetching stops at
// every page, which costs a tenth to a fifth of the bandwidth.
constexpr int64_t kBlocksAhead = 32;

// Walks the runs of row tiles that follow each other.
template <ValueType type, Kind kind>
class RunWalk {
 public:
  RunWalk(const PackedView& view, int64_t tile)
      : view_(view), step_(run_bytes(type, view.geometry.slots)) {
    const int64_t first = tile * ceil_div(view.geometry.cols, kBlockCols) * kTileRows;
    mask_ = kind == Kind::dense ? nullptr : view.mask + first;
    run_ = view.values + first * step_;
    start_tile(tile);
  }

  // To be called before the first run of each tile.
  void start_tile(int64_t tile) {
    if constexpr (kind == Kind::ragged) run_ = view_.values + int64_t{view_.offsets[tile]} * kAlign;
  }

  // To be called before the runs of each block.
  void fetch() const {
    const int64_t bytes =
        kTileRows * (kind == Kind::ragged || kind == Kind::halved ? run_bytes(type, kBlockCols / 2)
                                                                  : step_);
    for (int64_t at = 0; at < bytes; at += kAlign)
      __builtin_prefetch(run_ + kBlocksAhead * bytes + at);
    if constexpr (kind != Kind::dense) __builtin_prefetch(mask_ + kBlocksAhead * kTileRows);
  }

 protected:
  const uint8_t* run() const { return run_; }
  const uint64_t* mask_at() const { return mask_; }
  const uint8_t* mask_bytes() const { return reinterpret_cast<const uint8_t*>(mask_); }
  uint64_t mask() const { return kind == Kind::dense ? ~uint64_t{0} : *mask_; }
  void step() {
    if constexpr (kind == Kind::ragged)
      run_ += run_bytes(type, __builtin_popcountll(*mask_));
    else
      run_ += step_;
    if constexpr (kind != Kind::dense) ++mask_;
  }

  void step_block() {
    static_assert(kind == Kind::halved);
    run_ += kTileRows * run_bytes(type, kBlockCols / 2);
    mask_ += kTileRows;
  }

 private:
  const PackedView& view_;
  int64_t step_;
  const uint64_t* mask_;
  const uint8_t* run_;
};

// The eight rows of a tile, unpacked, and where they stand in the matrix.
struct Tile {
  const uint8_t* rows;  // [8][pitch]
  int64_t pitch, row, row_count, blocks;
  const uint16_t* scales;  // [groups][8]
};

// With a block of tokens, a panel of so many bytes stays in a core's second cache.
constexpr int64_t kPanelBytes = 256 << 10;
constexpr int64_t kPanelTiles = 16;

// Rows of a panel are a little further apart than they are long, so that the same columns
// of neighbouring rows do not compete for cache lines.
inline int64_t row_bytes(const Geometry& g) {
  return ceil_div(g.cols, kGroupCols) * kGroupCols * (g.type == ValueType::bf16 ? 2 : 1) + kAlign;
}

// More than a tile pays only if several blocks of tokens read it.
inline int64_t panel_tiles(const Geometry& g, int64_t tokens, int64_t lanes) {
  if (lanes == 0 || tokens <= lanes) return 1;
  const int64_t fit = kPanelBytes / (row_bytes(g) * kTileRows);
  return fit < 1 ? 1 : least(fit, kPanelTiles);
}

inline int64_t panel_bytes(const Geometry& g, int64_t tokens, int64_t lanes) {
  return tokens == 1 ? 0 : panel_tiles(g, tokens, lanes) * kTileRows * row_bytes(g);
}

// Several tokens: row tiles are unpacked into a panel once, then multiplied with blocks of
// tokens that lie side by side in the lanes, and one by one with the tokens that are left.
// Isa says how: kLanes (0: no blocks), kFill, kVectors (blocks at a time, 1 or 2), unpack,
// block and one.
template <typename Isa, ValueType type, Kind kind>
inline void multiply_panels(const PackedView& view, const Activations& x, int64_t begin,
                            int64_t end, const Target& target, uint8_t* panel) {
  const Geometry& g = view.geometry;
  const int64_t blocks = ceil_div(g.cols, kBlockCols), pitch = row_bytes(g);
  const int64_t tiles = panel_tiles(g, x.tokens, Isa::kLanes);
  typename Isa::template Runs<type, kind> runs(view, begin);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    const auto tile_at = [&](int64_t tile) {
      return Tile{panel + (tile - first) * kTileRows * pitch,
                  pitch,
                  tile * kTileRows,
                  g.rows,
                  blocks,
                  type == ValueType::bf16 ? nullptr : view.scales + tile * x.groups * kTileRows};
    };
    for (int64_t tile = first; tile < last; ++tile) {
      runs.start_tile(tile);
      uint8_t* rows = panel + (tile - first) * kTileRows * pitch;
      for (int64_t block = 0; block < blocks; ++block) {
        runs.fetch();
        for (int64_t r = 0; r < kTileRows; ++r) Isa::unpack(runs, block, rows + r * pitch);
      }
    }
    if constexpr (Isa::kLanes > 0) {
      const int64_t full = x.laned / Isa::kLanes;
      int64_t block = 0;
      for (; block + Isa::kVectors <= full; block += Isa::kVectors)
        for (int64_t tile = first; tile < last; ++tile)
          Isa::template block<type, Isa::kVectors>(tile_at(tile), x, block, target);
      if (block < full)
        for (int64_t tile = first; tile < last; ++tile)
          Isa::template block<type, 1>(tile_at(tile), x, block, target);
    }
    if constexpr (Isa::kHalves)
      if (x.halved > 0)
        for (int64_t tile = first; tile < last; ++tile)
          Isa::template half<type>(tile_at(tile), x, target);
    for (int64_t tile = first; tile < last; ++tile)
      for (int64_t t = x.laned + x.halved; t < x.tokens; ++t)
        Isa::template one<type>(tile_at(tile), x, t, target);
  }
}

}  // namespace

}  // namespace subllm
