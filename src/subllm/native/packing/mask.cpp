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

// Gathers the lowest bits of eight bytes into one byte, first byte lowest.
inline uint64_t gather_bits(const uint8_t* bytes) {
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) bits |= static_cast<uint64_t>(bytes[i] != 0) << i;
  return bits;
}

inline uint64_t block_word(const uint8_t* bytes, int64_t width) {
  uint64_t word = 0;
  if (width == kBlockCols) {
    for (int i = 0; i < 8; ++i) word |= gather_bits(bytes + 8 * i) << (8 * i);
    return word;
  }
  for (int64_t j = 0; j < width; ++j) word |= static_cast<uint64_t>(bytes[j] != 0) << j;
  return word;
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
  if (g.slots < 0 || g.slots > kBlockCols || g.slots % 2 != 0)
    throw std::invalid_argument(std::to_string(g.slots) + " slots per block are not possible");
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
  if (dense && g.slots != kBlockCols)
    throw std::invalid_argument("a matrix without a mask plane must be dense");
  expect("mask", sizes.mask, dense ? 0 : g.mask_words());
  expect("scales", sizes.scales, g.type == ValueType::bf16 ? 0 : g.scale_count());
  expect("offsets", sizes.offsets, g.slots ? 0 : g.row_tiles() + 1);
  int64_t bytes = g.row_tiles() * g.col_blocks() * kTileRows * run_bytes(g.type, g.slots);
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
  const auto* bytes = reinterpret_cast<const uint8_t*>(mask);
  parallel_for(g.row_tiles(), kTileGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      uint64_t* words = bits + tile * g.col_blocks() * kTileRows;
      for (int64_t r = 0; r < kTileRows; ++r) {
        const int64_t row = tile * kTileRows + r;
        for (int64_t block = 0; block < g.col_blocks(); ++block)
          words[block * kTileRows + r] =
              row < rows ? block_word(bytes + row * cols + block * kBlockCols,
                                      g.block_cols(block))
                         : 0;
      }
    }
  });
}

void unpack_bits(const uint64_t* bits, int64_t rows, int64_t cols, bool* mask, int threads) {
  const Geometry g{rows, cols, 0, ValueType::int8};
  check_geometry(g);
  parallel_for(rows, kTileGrain * kTileRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t tile = row / kTileRows, r = row % kTileRows;
      const uint64_t* words = bits + tile * g.col_blocks() * kTileRows + r;
      for (int64_t block = 0; block < g.col_blocks(); ++block) {
        const uint64_t word = words[block * kTileRows];
        bool* out = mask + row * cols + block * kBlockCols;
        const int64_t width = g.block_cols(block);
        for (int64_t j = 0; j < width; ++j) out[j] = (word >> j) & 1;
      }
    }
  });
}

void tile_offsets(const Geometry& g, const uint64_t* mask, uint32_t* offsets) {
  check_geometry(g);
  const int64_t words = g.col_blocks() * kTileRows;
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
