#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 16;

// The words of a tile, one for each unit; calls visit(word, row, first column, shift) for
// every row of every unit that the matrix has.
template <typename Visit>
void each_piece(const Geometry& g, int64_t tile, Visit visit) {
  const int64_t rows = std::min(kTileRows, g.rows - tile * kTileRows);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t first = 0; first < g.cols; first += kUnitCols)
      visit(tile * g.col_blocks() * kBlockUnits + first / kUnitCols * 2 + r / kUnitRows,
            tile * kTileRows + r, first, kUnitCols * (r % kUnitRows));
}

}  // namespace

ValueType parse_value_type(std::string_view name) {
  if (name == "bf16") return ValueType::bf16;
  if (name == "int8") return ValueType::int8;
  if (name == "int4") return ValueType::int4;
  throw std::invalid_argument("unknown value type '" + std::string(name) + "'");
}

void check_geometry(const Geometry& g) {
  constexpr int64_t kMaxSide = int64_t{1} << 31;
  if (g.rows < 1 || g.cols < 1 || g.rows > kMaxSide || g.cols > kMaxSide ||
      g.rows > (int64_t{1} << 40) / g.cols)
    throw std::invalid_argument("shape [" + std::to_string(g.rows) + ", " +
                                std::to_string(g.cols) + "] is out of range");
  if (g.slots < 0 || g.slots > kBlockCols || g.slots % 4 != 0)
    throw std::invalid_argument(std::to_string(g.slots) + " slots per unit are not possible");
}

void check_planes(const PackedView& view, const PlaneSizes& sizes) {
  const Geometry& g = view.geometry;
  check_geometry(g);
  const auto expect = [](const char* plane, int64_t have, int64_t want) {
    if (have != want)
      throw std::invalid_argument(std::string(plane) + " plane has " + std::to_string(have) +
                                  " elements where " + std::to_string(want) + " belong");
  };
  const bool dense = view.mask == nullptr;
  if (dense != g.dense())
    throw std::invalid_argument("a matrix has a mask plane unless it is dense");
  expect("mask", sizes.mask, dense ? 0 : g.mask_words());
  expect("scales", sizes.scales, g.row_tiles() * g.tile_scales());
  expect("subscales", sizes.subscales, g.row_tiles() * g.tile_subscales());
  expect("offsets", sizes.offsets, g.slots ? 0 : g.row_tiles() + 1);
  int64_t bytes = g.row_tiles() * g.col_blocks() * g.block_bytes();
  if (g.slots == 0) {
    const uint32_t* offsets = view.offsets;
    if (offsets[0] != 0 || !std::is_sorted(offsets, offsets + g.row_tiles() + 1))
      throw std::invalid_argument("tile offsets do not ascend from 0");
    bytes = int64_t{offsets[g.row_tiles()]} * kAlign;
  }
  expect("values", sizes.values, ceil_div(bytes, kAlign) * kAlign + kAlign);
}

void pack_bits(const bool* mask, int64_t rows, int64_t cols, uint64_t* bits, int threads) {
  const Geometry g{rows, cols, 0, ValueType::int8};
  check_geometry(g);
  parallel_for(g.row_tiles(), kTileGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t words = g.col_blocks() * kBlockUnits;
      std::fill_n(bits + tile * words, words, uint64_t{0});
      each_piece(g, tile, [&](int64_t word, int64_t row, int64_t first, int64_t shift) {
        const bool* from = mask + row * cols + first;
        const int64_t width = std::min(kUnitCols, cols - first);
        uint64_t piece = 0;
        for (int64_t c = 0; c < width; ++c) piece |= static_cast<uint64_t>(from[c]) << c;
        bits[word] |= piece << shift;
      });
    }
  });
}

void unpack_bits(const uint64_t* bits, int64_t rows, int64_t cols, bool* mask, int threads) {
  const Geometry g{rows, cols, 0, ValueType::int8};
  check_geometry(g);
  parallel_for(g.row_tiles(), kTileGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      each_piece(g, tile, [&](int64_t word, int64_t row, int64_t first, int64_t shift) {
        bool* to = mask + row * cols + first;
        const int64_t width = std::min(kUnitCols, cols - first);
        for (int64_t c = 0; c < width; ++c) to[c] = bits[word] >> (shift + c) & 1;
      });
  });
}

void tile_offsets(const Geometry& g, const uint64_t* mask, uint32_t* offsets) {
  check_geometry(g);
  const int64_t words = g.col_blocks() * kBlockUnits;
  int64_t total = 0;
  for (int64_t tile = 0; tile < g.row_tiles(); ++tile) {
    offsets[tile] = static_cast<uint32_t>(total);
    int64_t bytes = 0;
    for (int64_t i = 0; i < words; ++i)
      bytes += run_bytes(g.type, std::popcount(mask[tile * words + i]));
    total += ceil_div(bytes, kAlign);
    if (total > int64_t{UINT32_MAX}) throw std::invalid_argument("matrix is too large");
  }
  offsets[g.row_tiles()] = static_cast<uint32_t>(total);
}

}  // namespace subllm
