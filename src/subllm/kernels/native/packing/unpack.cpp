#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core.h"
#include "half.h"
#include "packing/runs.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 8;

// What turns the codes of one row and 32 columns into weights.
struct Terms {
  float step = 1.0f, offset = 0.0f;
};

Terms terms_of(const PackedView& view, int64_t tile, int64_t row, int64_t col) {
  const Geometry& g = view.geometry;
  if (g.type == ValueType::bf16) return {};
  const uint16_t* scales = view.scales + tile * g.tile_scales();
  if (g.type == ValueType::int8) return {half_to_float(scales[col / kGroupCols * kTileRows + row]), 0.0f};
  int64_t place = 0;
  while (kSubscaleRows[place] != row) ++place;
  const uint8_t* parts = view.subscales + tile * g.tile_subscales() +
                         col / kGroupCols * g.terms() * kTileRows * kGroupSubs;
  const auto term = [&](int64_t i) {
    return half_to_float(scales[(col / kSuperCols * g.terms() + i) * kTileRows + row]) *
           static_cast<float>(parts[(i * kTileRows + place) * kGroupSubs + col % kGroupCols / kSubCols]);
  };
  return {term(0), g.dense() ? term(1) : 0.0f};
}

// Adding 0 turns the -0 of a negative scale into 0.
float weight_of(const Geometry& g, uint32_t code, const Terms& terms) {
  switch (g.type) {
    case ValueType::bf16: return bf16_to_float(static_cast<uint16_t>(code));
    case ValueType::int8: return static_cast<float>(static_cast<int8_t>(code)) * terms.step + 0.0f;
    case ValueType::int4: break;
  }
  if (g.dense()) return terms.step * static_cast<float>(code) - terms.offset + 0.0f;
  return terms.step * (static_cast<float>(code) - 8.0f) + 0.0f;
}

}  // namespace

void unpack_tile(const PackedView& view, int64_t tile, float* const (&out)[kTileRows]) {
  const Geometry& g = view.geometry;
  const auto refuse = [&](const char* what) {
    throw std::invalid_argument(std::string(what) + " (row tile " + std::to_string(tile) + ")");
  };
  RunCursor cursor(view, tile);
  const uint8_t* start = cursor.at();
  const int64_t size = view.offsets ? int64_t{view.offsets[tile + 1] - view.offsets[tile]} * kAlign
                                    : g.col_blocks() * g.block_bytes();
  const int64_t rows = std::min(kTileRows, g.rows - tile * kTileRows);
  for (float* row : out)
    if (row) std::fill_n(row, g.cols, 0.0f);
  for (int64_t i = 0; i < g.col_blocks() * kBlockUnits; ++i) {
    const int64_t unit = i % kBlockUnits, top = unit % 2 * kUnitRows, first = i / 2 * kUnitCols;
    const int64_t width = std::clamp<int64_t>(g.cols - first, 0, kUnitCols);
    uint64_t valid = 0;
    for (int64_t r = 0; r < kUnitRows && top + r < rows; ++r)
      valid |= ((uint64_t{1} << width) - 1) << (kUnitCols * r);
    uint64_t bits = valid;
    if (view.mask) {
      bits = view.mask[tile * g.col_blocks() * kBlockUnits + i];
      if (bits & ~valid) refuse("mask bits lie outside the matrix");
      if (g.slots)
        for (int64_t r = 0; r < kUnitRows && top + r < rows; ++r)
          if (std::popcount(bits >> (kUnitCols * r) & 0xffff) != width * g.slots / kBlockCols)
            refuse("a unit keeps another number of weights than its pattern says");
    }
    const int64_t count = std::popcount(bits);
    if (cursor.at() - start + cursor.bytes(unit, count) > size)
      refuse("a mask keeps more weights than there are values");
    Terms terms;
    int64_t row = -1;
    for (int64_t index = 0; bits; bits &= bits - 1, ++index) {
      const int at = std::countr_zero(bits);
      const int64_t r = top + at / kUnitCols, c = first + at % kUnitCols;
      if (!out[r]) continue;
      if (r != row) terms = terms_of(view, tile, r, c), row = r;
      out[r][c] = weight_of(g, cursor.code(unit, view.mask ? index : at), terms);
    }
    cursor.step(unit, count);
  }
  if (ceil_div(cursor.at() - start, kAlign) != ceil_div(size, kAlign))
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
