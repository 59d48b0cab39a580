#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core.h"
#include "half.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 4;
constexpr int64_t kGroupBlocks = kGroupCols / kBlockCols;

void check_finite(const float* weights, int64_t count, int64_t row) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i)
    bad |= (std::bit_cast<uint32_t>(weights[i]) & 0x7f800000u) == 0x7f800000u;
  if (bad)
    throw std::invalid_argument("weights of row " + std::to_string(row) +
                                " hold NaN or infinity");
}

// Appends the kept weights of one block; returns how many.
int gather(const float* weights, uint64_t bits, float* out) {
  int count = 0;
  for (; bits != 0; bits &= bits - 1) out[count++] = weights[std::countr_zero(bits)];
  return count;
}

// Writes a run of codes; slots past `count` up to `slots` hold the code of zero.
void write_codes(ValueType type, const int8_t* codes, int count, int64_t slots, uint8_t* out) {
  if (type == ValueType::int8) {
    std::memcpy(out, codes, static_cast<size_t>(count));
    std::memset(out + count, 0, static_cast<size_t>(slots - count));
    return;
  }
  int8_t padded[kBlockCols + 1] = {};
  std::memcpy(padded, codes, static_cast<size_t>(count));
  const int64_t bytes = run_bytes(ValueType::int4, slots);
  for (int64_t i = 0; i < bytes; ++i)
    out[i] = static_cast<uint8_t>((padded[2 * i] + 8) | ((padded[2 * i + 1] + 8) << 4));
}

void write_bf16(const float* values, int count, int64_t slots, uint8_t* out) {
  uint16_t run[kBlockCols] = {};
  for (int i = 0; i < count; ++i) run[i] = float_to_bf16(values[i]);
  std::memcpy(out, run, static_cast<size_t>(2 * slots));
}

class TilePacker {
 public:
  TilePacker(const float* weights, const Geometry& geometry, const uint64_t* mask)
      : weights_(weights), g_(geometry), mask_(mask) {}

  // Returns the end of what it wrote.
  uint8_t* pack(int64_t tile, uint8_t* out, uint16_t* scales) const {
    for (int64_t group = 0; group < g_.col_groups(); ++group) {
      const int64_t first = group * kGroupBlocks;
      const int64_t blocks = std::min(kGroupBlocks, g_.col_blocks() - first);
      uint8_t* runs[kGroupBlocks][kTileRows];
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t r = 0; r < kTileRows; ++r) {
          runs[b][r] = out;
          out += run_bytes(g_.type, slots(bits(tile, first + b, r)));
        }
      for (int64_t r = 0; r < kTileRows; ++r)
        pack_row_group(tile, r, first, blocks, runs, scales ? scales + group * kTileRows : nullptr);
    }
    return out;
  }

 private:
  uint64_t bits(int64_t tile, int64_t block, int64_t r) const {
    if (mask_) return mask_[(tile * g_.col_blocks() + block) * kTileRows + r];
    if (tile * kTileRows + r >= g_.rows) return 0;
    return ~uint64_t{0} >> (kBlockCols - g_.block_cols(block));
  }

  int64_t slots(uint64_t word) const { return g_.slots ? g_.slots : std::popcount(word); }

  void pack_row_group(int64_t tile, int64_t r, int64_t first, int64_t blocks,
                      uint8_t* (&runs)[kGroupBlocks][kTileRows], uint16_t* scales) const {
    alignas(64) float values[kGroupCols] = {};
    int8_t codes[kGroupCols] = {};
    int counts[kGroupBlocks] = {}, total = 0;
    const int64_t row = tile * kTileRows + r;
    for (int64_t b = 0; b < blocks; ++b) {
      const uint64_t word = bits(tile, first + b, r);
      if (g_.slots && std::popcount(word) > g_.slots)
        throw std::invalid_argument("row " + std::to_string(row) + " keeps more than " +
                                    std::to_string(g_.slots) + " weights of a block");
      if (row < g_.rows)
        counts[b] = gather(weights_ + row * g_.cols + (first + b) * kBlockCols, word,
                           values + total);
      total += counts[b];
    }
    if (scales) scales[r] = quantize_group(g_.type, values, total, codes);
    for (int64_t b = 0, start = 0; b < blocks; start += counts[b++]) {
      const int64_t width = slots(bits(tile, first + b, r));
      if (g_.type == ValueType::bf16)
        write_bf16(values + start, counts[b], width, runs[b][r]);
      else
        write_codes(g_.type, codes + start, counts[b], width, runs[b][r]);
    }
  }

  const float* weights_;
  const Geometry& g_;
  const uint64_t* mask_;
};

// Bits beyond the last column or the last row would send the packer out of the matrix.
void check_margins(const Geometry& g, const uint64_t* mask, int64_t tile) {
  const uint64_t valid = ~uint64_t{0} >> (kBlockCols - g.block_cols(g.col_blocks() - 1));
  const uint64_t* words = mask + tile * g.col_blocks() * kTileRows;
  for (int64_t block = 0; block < g.col_blocks(); ++block)
    for (int64_t r = 0; r < kTileRows; ++r) {
      const uint64_t word = words[block * kTileRows + r];
      const bool last = block == g.col_blocks() - 1;
      if ((tile * kTileRows + r >= g.rows && word) || (last && (word & ~valid)))
        throw std::invalid_argument("mask bits lie outside the matrix");
    }
}

}  // namespace

void pack(const float* weights, const Geometry& g, const uint64_t* mask, const uint32_t* offsets,
          uint8_t* values, uint16_t* scales, int threads) {
  const int64_t tile_bytes = g.col_blocks() * kTileRows * run_bytes(g.type, g.slots);
  const int64_t tiles = g.row_tiles();
  const auto start = [&](int64_t tile) {
    return offsets ? int64_t{offsets[tile]} * kAlign : tile * tile_bytes;
  };
  const TilePacker packer(weights, g, mask);
  parallel_for(tiles, kTileGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t last_row = std::min(g.rows, (tile + 1) * kTileRows);
      for (int64_t row = tile * kTileRows; row < last_row; ++row)
        check_finite(weights + row * g.cols, g.cols, row);
      if (mask) check_margins(g, mask, tile);
      uint16_t* tile_scales = scales ? scales + tile * g.col_groups() * kTileRows : nullptr;
      uint8_t* done = packer.pack(tile, values + start(tile), tile_scales);
      std::memset(done, 0, static_cast<size_t>(values + start(tile + 1) - done));
    }
  });
  const int64_t used = start(tiles);
  std::memset(values + used, 0,
              static_cast<size_t>(ceil_div(used, kAlign) * kAlign + kAlign - used));
}

}  // namespace subllm
