#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core.h"
#include "half.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 4;

void check_finite(const float* weights, int64_t count, int64_t row) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i)
    bad |= (std::bit_cast<uint32_t>(weights[i]) & 0x7f800000u) == 0x7f800000u;
  if (bad)
    throw std::invalid_argument("weights of row " + std::to_string(row) +
                                " hold NaN or infinity");
}

// Which columns a row of a tile keeps, as bytes; null where it keeps all.
class RowMask {
 public:
  RowMask(const Geometry& geometry, const uint64_t* mask)
      : g_(geometry), mask_(mask), kept_(mask ? static_cast<size_t>(g_.col_blocks() * kBlockCols) : 0) {}

  const uint8_t* row(int64_t tile, int64_t r) {
    if (!mask_) return nullptr;
    const uint64_t* words = mask_ + tile * g_.col_blocks() * kBlockUnits + r / kUnitRows;
    for (int64_t piece = 0; piece < g_.col_blocks() * kBlockCols / kUnitCols; ++piece) {
      const uint64_t bits = words[2 * piece] >> (kUnitCols * (r % kUnitRows));
      for (int64_t c = 0; c < kUnitCols; ++c) kept_[static_cast<size_t>(piece * kUnitCols + c)] = bits >> c & 1;
    }
    return kept_.data();
  }

 private:
  const Geometry& g_;
  const uint64_t* mask_;
  std::vector<uint8_t> kept_;
};

// Writes the runs of tiles from the codes of their rows.
template <typename Code>
class RunWriter {
 public:
  RunWriter(const Geometry& geometry, const uint64_t* mask) : g_(geometry), mask_(mask) {}

  // rows[r] [cols], null for rows that the matrix lacks. Returns the end of what it wrote.
  uint8_t* write(int64_t tile, const Code* const (&rows)[kTileRows], uint8_t* out) const {
    for (int64_t block = 0; block < g_.col_blocks(); ++block)
      for (int64_t u = 0; u < kBlockUnits; u += 2) {
        Code runs[2][kBlockCols + 1];
        int64_t counts[2];
        for (int64_t half = 0; half < 2; ++half)
          counts[half] = gather(tile, block, u + half, rows + half * kUnitRows, runs[half]);
        out = store(runs, counts, out);
      }
    return out;
  }

 private:
  Code zero() const { return g_.type == ValueType::int4 && mask_ ? Code{8} : Code{0}; }

  // The codes of a unit, filled up to its slots; returns how many there are in all.
  int64_t gather(int64_t tile, int64_t block, int64_t unit, const Code* const* rows, Code* run) const {
    std::fill_n(run, kBlockCols + 1, zero());
    const int64_t first = block * kBlockCols + unit / 2 * kUnitCols;
    if (!mask_) {
      const int64_t width = std::clamp<int64_t>(g_.cols - first, 0, kUnitCols);
      for (int64_t r = 0; r < kUnitRows; ++r)
        if (rows[r]) std::copy_n(rows[r] + first, width, run + r * kUnitCols);
      return kBlockCols;
    }
    const uint64_t word = mask_[(tile * g_.col_blocks() + block) * kBlockUnits + unit];
    int64_t count = 0;
    for (uint64_t bits = word; bits; bits &= bits - 1) {
      const int at = std::countr_zero(bits);
      run[count++] = rows[at / kUnitCols][first + at % kUnitCols];
    }
    return g_.slots ? g_.slots : count;
  }

  uint8_t* store(const Code (&runs)[2][kBlockCols + 1], const int64_t (&counts)[2], uint8_t* out) const {
    if constexpr (sizeof(Code) == 1) {
      if (g_.type == ValueType::int4) {
        if (g_.slots) {
          for (int64_t i = 0; i < g_.slots; ++i)
            out[i] = static_cast<uint8_t>(runs[0][i] | runs[1][i] << 4);
          return out + g_.slots;
        }
        for (int half = 0; half < 2; ++half)
          for (int64_t i = 0; i < counts[half]; i += 2)
            *out++ = static_cast<uint8_t>(runs[half][i] | runs[half][i + 1] << 4);
        return out;
      }
    }
    for (int half = 0; half < 2; ++half) {
      const size_t bytes = static_cast<size_t>(counts[half]) * sizeof(Code);
      std::memcpy(out, runs[half], bytes);
      out += bytes;
    }
    return out;
  }

  const Geometry& g_;
  const uint64_t* mask_;
};

// Quantises the rows of a tile.
class TileQuantizer {
 public:
  TileQuantizer(const float* weights, const float* importance, const Geometry& geometry,
                const uint64_t* mask)
      : weights_(weights), importance_(importance), g_(geometry), masks_(geometry, mask),
        codes_(static_cast<size_t>(kTileRows * g_.cols)),
        values_(static_cast<size_t>(g_.type == ValueType::bf16 ? kTileRows * g_.cols : 0)) {}

  void quantize(int64_t tile, const ScalePlanes& out) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      const int64_t row = tile * kTileRows + r;
      if (row >= g_.rows) continue;
      const float* weights = weights_ + row * g_.cols;
      const uint8_t* kept = masks_.row(tile, r);
      uint8_t* codes = codes_.data() + r * g_.cols;
      switch (g_.type) {
        case ValueType::bf16:
          for (int64_t c = 0; c < g_.cols; ++c)
            values_[static_cast<size_t>(r * g_.cols + c)] = float_to_bf16(weights[c]);
          break;
        case ValueType::int8: row_int8(weights, kept, codes, out.scales + r); break;
        case ValueType::int4: row_int4(weights, kept, codes, r, out); break;
      }
    }
  }

  template <typename Code>
  uint8_t* write(const RunWriter<Code>& writer, int64_t tile, uint8_t* out) const {
    const Code* rows[kTileRows] = {};
    for (int64_t r = 0; r < kTileRows && tile * kTileRows + r < g_.rows; ++r) {
      if constexpr (sizeof(Code) == 2)
        rows[r] = values_.data() + r * g_.cols;
      else
        rows[r] = codes_.data() + r * g_.cols;
    }
    return writer.write(tile, rows, out);
  }

 private:
  void row_int8(const float* weights, const uint8_t* kept, uint8_t* codes, uint16_t* scales) const {
    for (int64_t group = 0; group < g_.col_groups(); ++group) {
      const int64_t first = group * kGroupCols, last = std::min(first + kGroupCols, g_.cols);
      alignas(64) float values[kGroupCols] = {};
      int8_t found[kGroupCols] = {};
      int count = 0;
      for (int64_t c = first; c < last; ++c)
        if (!kept || kept[c]) values[count++] = weights[c];
      scales[group * kTileRows] = quantize_group(values, count, found);
      count = 0;
      for (int64_t c = first; c < last; ++c)
        codes[c] = !kept || kept[c] ? static_cast<uint8_t>(found[count++]) : uint8_t{0};
    }
  }

  void row_int4(const float* weights, const uint8_t* kept, uint8_t* codes, int64_t r,
                const ScalePlanes& out) const {
    constexpr int64_t kSubs = kSuperCols / kSubCols;
    int64_t place = 0;
    while (kSubscaleRows[place] != r) ++place;
    for (int64_t super = 0; super < g_.col_supers(); ++super) {
      const int64_t first = super * kSuperCols;
      uint16_t scales[2];
      uint8_t subscales[2][kSubs] = {};
      quantize_super(weights + first, kept ? kept + first : nullptr,
                     importance_ ? importance_ + first : nullptr,
                     std::min(kSuperCols, g_.cols - first), codes + first, scales, subscales);
      for (int64_t term = 0; term < g_.terms(); ++term) {
        out.scales[(super * g_.terms() + term) * kTileRows + r] = scales[term];
        for (int64_t j = 0; j < kSubs; ++j) {
          const int64_t group = super * kSuperCols / kGroupCols + j / kGroupSubs;
          if (group < g_.col_groups())
            out.subscales[((group * g_.terms() + term) * kTileRows + place) * kGroupSubs +
                          j % kGroupSubs] = subscales[term][j];
        }
      }
    }
  }

  const float* weights_;
  const float* importance_;
  const Geometry& g_;
  RowMask masks_;
  std::vector<uint8_t> codes_;
  std::vector<uint16_t> values_;
};

// Bits beyond the last column or the last row would send the packer out of the matrix.
void check_words(const Geometry& g, const uint64_t* mask, int64_t tile) {
  const uint64_t* words = mask + tile * g.col_blocks() * kBlockUnits;
  const int64_t rows = std::min(kTileRows, g.rows - tile * kTileRows);
  for (int64_t i = 0; i < g.col_blocks() * kBlockUnits; ++i) {
    const int64_t first = i / 2 * kUnitCols, top = i % 2 * kUnitRows;
    const int64_t width = std::clamp<int64_t>(g.cols - first, 0, kUnitCols);
    uint64_t valid = 0;
    for (int64_t r = 0; r < kUnitRows && top + r < rows; ++r)
      valid |= ((uint64_t{1} << width) - 1) << (kUnitCols * r);
    if (words[i] & ~valid) throw std::invalid_argument("mask bits lie outside the matrix");
    if (g.slots && std::popcount(words[i]) > g.slots)
      throw std::invalid_argument("rows " + std::to_string(tile * kTileRows + top) + " on keep more than " +
                                  std::to_string(g.slots) + " weights of a unit");
  }
}

// Calls fill(tile, out), which returns the end of what it wrote, for all tiles from `make()`.
template <typename Make>
void fill_tiles(const Geometry& g, const uint64_t* mask, const uint32_t* offsets, uint8_t* values,
                int threads, Make make) {
  const int64_t tile_bytes = g.col_blocks() * g.block_bytes(), tiles = g.row_tiles();
  const auto start = [&](int64_t tile) {
    return offsets ? int64_t{offsets[tile]} * kAlign : tile * tile_bytes;
  };
  parallel_for(tiles, kTileGrain, threads, [&](int64_t begin, int64_t end) {
    auto fill = make();
    for (int64_t tile = begin; tile < end; ++tile) {
      if (mask) check_words(g, mask, tile);
      uint8_t* done = fill(tile, values + start(tile));
      std::memset(done, 0, static_cast<size_t>(values + start(tile + 1) - done));
    }
  });
  const int64_t used = start(tiles);
  std::memset(values + used, 0,
              static_cast<size_t>(ceil_div(used, kAlign) * kAlign + kAlign - used));
}

}  // namespace

void pack(const float* weights, const float* importance, const Geometry& g, const uint64_t* mask,
          const uint32_t* offsets, uint8_t* values, const ScalePlanes& planes, int threads) {
  fill_tiles(g, mask, offsets, values, threads, [&] {
    return [&, quantizer = TileQuantizer(weights, importance, g, mask)](int64_t tile, uint8_t* out) mutable {
      const int64_t last_row = std::min(g.rows, (tile + 1) * kTileRows);
      for (int64_t row = tile * kTileRows; row < last_row; ++row)
        check_finite(weights + row * g.cols, g.cols, row);
      const ScalePlanes own{planes.scales + tile * g.tile_scales(),
                            planes.subscales + tile * g.tile_subscales()};
      std::fill_n(own.scales, g.tile_scales(), uint16_t{0});
      std::fill_n(own.subscales, g.tile_subscales(), uint8_t{0});
      quantizer.quantize(tile, own);
      if (g.type == ValueType::bf16) return quantizer.write(RunWriter<uint16_t>(g, mask), tile, out);
      return quantizer.write(RunWriter<uint8_t>(g, mask), tile, out);
    };
  });
}

void pack_codes(const uint8_t* codes, const Geometry& g, const uint64_t* mask,
                const uint32_t* offsets, uint8_t* values, int threads) {
  fill_tiles(g, mask, offsets, values, threads, [&] {
    return [&](int64_t tile, uint8_t* out) {
      const uint8_t* rows[kTileRows] = {};
      for (int64_t r = 0; r < kTileRows && tile * kTileRows + r < g.rows; ++r)
        rows[r] = codes + (tile * kTileRows + r) * g.cols;
      return RunWriter<uint8_t>(g, mask).write(tile, rows, out);
    };
  });
}

}  // namespace subllm
