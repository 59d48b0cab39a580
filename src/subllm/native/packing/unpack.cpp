#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core.h"
#include "half.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 8;

// Decodes a run of `count` values. Adding 0 turns the -0 of a negative scale into 0.
void decode(ValueType type, const uint8_t* run, int64_t count, float scale, float* out) {
  switch (type) {
    case ValueType::bf16: {
      uint16_t raw[kBlockCols];
      std::memcpy(raw, run, static_cast<size_t>(2 * count));
      for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_float(raw[i]);
      return;
    }
    case ValueType::int8:
      for (int64_t i = 0; i < count; ++i)
        out[i] = static_cast<float>(static_cast<int8_t>(run[i])) * scale + 0.0f;
      return;
    case ValueType::int4:
      for (int64_t i = 0; i < count / 2; ++i) {
        out[2 * i] = static_cast<float>((run[i] & 15) - 8) * scale + 0.0f;
        out[2 * i + 1] = static_cast<float>((run[i] >> 4) - 8) * scale + 0.0f;
      }
      if (count % 2)
        out[count - 1] = static_cast<float>((run[count / 2] & 15) - 8) * scale + 0.0f;
  }
}

// Spreads packed values over the set bits; the others read 0.
void expand(uint64_t bits, const float* values, int64_t width, float* out) {
  int64_t next = 0;
  for (int64_t j = 0; j < width; ++j) {
    const int64_t bit = (bits >> j) & 1;
    const float value = values[next];
    out[j] = bit ? value : 0.0f;
    next += bit;
  }
}

}  // namespace

void unpack_tile(const PackedView& view, int64_t tile, float* const (&out)[kTileRows]) {
  const Geometry& g = view.geometry;
  const int64_t fixed = run_bytes(g.type, g.slots);
  const uint8_t* start = view.values + (view.offsets
                                            ? int64_t{view.offsets[tile]} * kAlign
                                            : tile * g.col_blocks() * kTileRows * fixed);
  const uint8_t* run = start;
  const int64_t size = view.offsets
                           ? int64_t{view.offsets[tile + 1] - view.offsets[tile]} * kAlign
                           : g.col_blocks() * kTileRows * fixed;
  const auto refuse = [&](const char* what) {
    throw std::invalid_argument(std::string(what) + " (row tile " + std::to_string(tile) + ")");
  };
  float values[kBlockCols + 1] = {};
  for (int64_t block = 0; block < g.col_blocks(); ++block) {
    const int64_t width = g.block_cols(block);
    const uint64_t valid = ~uint64_t{0} >> (kBlockCols - width);
    for (int64_t r = 0; r < kTileRows; ++r) {
      const bool inside = tile * kTileRows + r < g.rows;
      uint64_t bits = inside ? valid : 0;
      if (view.mask) {
        const uint64_t word = view.mask[(tile * g.col_blocks() + block) * kTileRows + r];
        if (word & ~bits) refuse("mask bits lie outside the matrix");
        bits = word;
      }
      const int64_t count = std::popcount(bits);
      if (g.slots && inside && count != width * g.slots / kBlockCols)
        refuse("a block keeps another number of weights than its pattern says");
      const int64_t bytes = g.slots ? fixed : run_bytes(g.type, count);
      if (run - start + bytes > size) refuse("a mask keeps more weights than there are values");
      if (out[r]) {
        const float scale =
            view.scales
                ? half_to_float(view.scales[(tile * g.col_groups() + block * kBlockCols / kGroupCols) *
                                                kTileRows +
                                            r])
                : 1.0f;
        decode(g.type, run, count, scale, values);
        float* target = out[r] + block * kBlockCols;
        if (view.mask)
          expand(bits, values, width, target);
        else
          std::memcpy(target, values, static_cast<size_t>(width) * sizeof(float));
      }
      run += bytes;
    }
  }
  if (ceil_div(run - start, kAlign) != ceil_div(size, kAlign))
    refuse("a mask keeps fewer weights than there are values");
}

void unpack(const PackedView& view, float* out, int threads) {
  const Geometry& g = view.geometry;
  parallel_for(g.row_tiles(), kTileGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      float* targets[kTileRows] = {};
      for (int64_t r = 0; r < kTileRows && tile * kTileRows + r < g.rows; ++r)
        targets[r] = out + (tile * kTileRows + r) * g.cols;
      unpack_tile(view, tile, targets);
    }
  });
}

void unpack_rows(const PackedView& view, const int64_t* indices, int64_t count, float* out,
                 int threads) {
  const Geometry& g = view.geometry;
  for (int64_t i = 0; i < count; ++i)
    if (indices[i] < 0 || indices[i] >= g.rows)
      throw std::invalid_argument("row " + std::to_string(indices[i]) + " is not among the " +
                                  std::to_string(g.rows) + " rows");
  parallel_for(count, kTileGrain * kTileRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* targets[kTileRows] = {};
      targets[indices[i] % kTileRows] = out + i * g.cols;
      unpack_tile(view, indices[i] / kTileRows, targets);
    }
  });
}

}  // namespace subllm
