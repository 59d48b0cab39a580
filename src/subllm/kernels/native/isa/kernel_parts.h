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

// How the runs of a matrix follow each other. `picked` is `fixed` where every row of a unit keeps
// as many weights as the others, for the instruction sets that gain from knowing it.
enum class Kind { dense, fixed, picked, ragged };

// Calls work.template operator()<type, kind>() for what the matrix is.
template <ValueType type, bool picks, typename Work>
inline void with_kind(const PackedView& view, Work work) {
  if (view.offsets) return work.template operator()<type, Kind::ragged>();
  if constexpr (picks)
    if (view.balanced) return work.template operator()<type, Kind::picked>();
  if (view.mask) return work.template operator()<type, Kind::fixed>();
  return work.template operator()<type, Kind::dense>();
}
template <bool picks = false, typename Work>
inline void with_type_and_kind(const PackedView& view, Work work) {
  switch (view.geometry.type) {
    case ValueType::int4: return with_kind<ValueType::int4, picks>(view, work);
    case ValueType::int8: return with_kind<ValueType::int8, picks>(view, work);
    case ValueType::bf16: return with_kind<ValueType::bf16, false>(view, work);
  }
}

// How far ahead of use packed planes are asked for. The processor's own prefetching stops at
// every page, which costs a tenth to a fifth of the bandwidth.
constexpr int64_t kBytesAhead = 8192;

// Walks the pairs of runs (rows 0..3 and 4..7 of the same 16 columns) of row tiles that follow
// each other.
template <ValueType type, Kind kind>
class PairWalk {
 public:
  static constexpr bool kMasked = kind != Kind::dense;
  // Both runs of a pair in the nibbles of the same bytes.
  static constexpr bool kShared = type == ValueType::int4 && kind != Kind::ragged;

  PairWalk(const PackedView& view, int64_t tile)
      : view_(view), size_(run_bytes(type, view.geometry.slots)) {
    const int64_t pairs = tile * ceil_div(view.geometry.cols, kBlockCols) * kBlockUnits / 2;
    mask_ = kMasked ? view.mask + 2 * pairs : nullptr;
    at_ = view.values + pairs * 2 * size();
    start_tile(tile);
  }

  // To be called before the first pair of each tile.
  void start_tile(int64_t tile) {
    if constexpr (kind == Kind::ragged) at_ = view_.values + int64_t{view_.offsets[tile]} * kAlign;
  }

  // To be called before the pairs of each block: asks for as many bytes as a block has, `ahead` of
  // those at hand, and to be kept in caches as __builtin_prefetch takes `locality`.
  template <int64_t ahead = kBytesAhead, int locality = 3>
  void fetch() const {
    constexpr int64_t kMost = kBlockUnits * run_bytes(type, kBlockCols);
    const int64_t bytes = kind == Kind::ragged ? kMost / 2 : kBlockUnits * size();
    unrolled<kMost / kAlign>([&](auto line) {
      if (line * kAlign < bytes) __builtin_prefetch(at_ + ahead + line * kAlign, 0, locality);
    });
    // A block has a line of masks and, with int4 and half of the weights, two of values.
    if constexpr (kMasked)
      __builtin_prefetch(mask_bytes(0) + ahead / 2, 0, locality);
  }

 protected:
  // The mask of rows 0..3 (half 0) or 4..7 of the pair.
  uint64_t mask(int half) const { return kMasked ? mask_[half] : ~uint64_t{0}; }
  const uint8_t* mask_bytes(int half) const { return reinterpret_cast<const uint8_t*>(mask_ + half); }

  // Where the run of this half begins (of both, where they are shared).
  const uint8_t* run(int half) const {
    if (kShared || half == 0) return at_;
    if constexpr (kind == Kind::ragged) return at_ + run_bytes(type, __builtin_popcountll(mask_[0]));
    return at_ + size();
  }

  void step() {
    if constexpr (kind == Kind::ragged)
      at_ = run(1) + run_bytes(type, __builtin_popcountll(mask_[1]));
    else
      at_ += 2 * size();
    if constexpr (kMasked) mask_ += 2;
  }

 private:
  // Bytes of a run; of two that share their bytes, half of those.
  int64_t size() const { return kMasked ? size_ : run_bytes(type, kBlockCols); }

  const PackedView& view_;
  int64_t size_;
  const uint64_t* mask_;
  const uint8_t* at_;
};

// The eight rows of a tile, unpacked, and where they stand in the matrix.
struct Tile {
  const uint8_t* rows;  // [8][pitch]
  int64_t pitch, row, row_count, blocks;
  const uint16_t* scales;     // of the tile; see Geometry
  const uint8_t* subscales;
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
// tokens that lie side by side in the lanes. Tokens beyond `laned` are left out.
// Isa says how: kLanes, kVectors (blocks at a time, 1 or 2), unpack (the next block of the eight
// rows, to `rows` + their place) and block.
template <typename Isa, ValueType type, Kind kind>
inline void multiply_panels(const PackedView& view, const Activations& x, int64_t begin,
                            int64_t end, const Target& target, uint8_t* panel) {
  const Geometry& g = view.geometry;
  const int64_t blocks = ceil_div(g.cols, kBlockCols), pitch = row_bytes(g);
  const int64_t tiles = panel_tiles(g, x.tokens, Isa::kLanes);
  typename Isa::template Pairs<type, kind> pairs(view, begin);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    const auto tile_at = [&](int64_t tile) {
      return Tile{panel + (tile - first) * kTileRows * pitch,
                  pitch,
                  tile * kTileRows,
                  g.rows,
                  blocks,
                  view.scales + tile * g.tile_scales(),
                  view.subscales + tile * g.tile_subscales()};
    };
    for (int64_t tile = first; tile < last; ++tile) {
      pairs.start_tile(tile);
      uint8_t* rows = panel + (tile - first) * kTileRows * pitch;
      for (int64_t block = 0; block < blocks; ++block) {
        pairs.fetch();
        Isa::unpack(pairs, block, rows, pitch);
      }
    }
    const int64_t full = x.laned / Isa::kLanes;
    int64_t block = 0;
    for (; block + Isa::kVectors <= full; block += Isa::kVectors)
      for (int64_t tile = first; tile < last; ++tile)
        Isa::template block<type, kind, Isa::kVectors>(tile_at(tile), x, block, target);
    if (block < full)
      for (int64_t tile = first; tile < last; ++tile)
        Isa::template block<type, kind, 1>(tile_at(tile), x, block, target);
  }
}

}  // namespace

}  // namespace subllm
