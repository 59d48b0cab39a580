// Plain C++ for any machine: the slow truth beside the vector kernels, and what runs where
// there are none.

#include <algorithm>
#include <bit>
#include <cmath>

#include "half.h"
#include "isa/kernels.h"
#include "packing/runs.h"

namespace subllm {

namespace {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int16_t* subs) {
  for (int64_t g = 0; g * kGroupCols < cols; ++g) {
    const int64_t first = g * kGroupCols, count = std::min(kGroupCols, cols - first);
    uint32_t bits = 0;  // of the largest magnitude; a NaN, which is above infinity, stays
    for (int64_t i = 0; i < count; ++i)
      bits = std::max(bits, std::bit_cast<uint32_t>(std::fabs(x[first + i])));
    const float largest = std::bit_cast<float>(bits);
    const bool zero = largest < kSmallestInput;
    const float inverse = zero ? 0.0f : 127.0f / largest;
    for (int64_t j = 0; j < kGroupSubs; ++j) subs[g * kGroupSubs + j] = 0;
    for (int64_t i = 0; i < kGroupCols; ++i) {
      const float scaled = i < count ? x[first + i] * inverse : 0.0f;
      // Infinity and NaN make NaN of it: any code will do, the scale is infinite or NaN.
      codes[first + i] = static_cast<int8_t>(std::nearbyint(scaled < 127.0f ? scaled : 127.0f));
      int16_t& sum = subs[g * kGroupSubs + i / kSubCols];
      sum = static_cast<int16_t>(sum + codes[first + i]);
    }
    scales[g] = zero ? 0.0f : largest / 127.0f;
  }
}

// Walks the units of one row tile in their order.
class Units {
 public:
  Units(const PackedView& view, int64_t tile)
      : view_(view), g_(view.geometry), tile_(tile), cursor_(view, tile) {}

  // Calls put(row of the tile, column of the block, code) for each kept weight of the next block.
  template <typename Put>
  void next_block(int64_t block, Put put) {
    for (int64_t unit = 0; unit < kBlockUnits; ++unit) {
      uint64_t bits = ~uint64_t{0};
      if (view_.mask) bits = view_.mask[(tile_ * g_.col_blocks() + block) * kBlockUnits + unit];
      const int64_t kept = std::popcount(bits);
      for (int64_t index = 0; bits; bits &= bits - 1, ++index) {
        const int at = std::countr_zero(bits);
        put(unit % 2 * kUnitRows + at / kUnitCols, unit / 2 * kUnitCols + at % kUnitCols,
            cursor_.code(unit, index));
      }
      cursor_.step(unit, kept);
    }
  }

 private:
  const PackedView& view_;
  const Geometry& g_;
  int64_t tile_;
  RunCursor cursor_;
};

// The product of a group of 128 columns, from its codes as integers.
float int8_part(const PackedView& view, int64_t tile, int64_t group, int64_t r, const int16_t* codes,
                const Activations& x, int64_t t) {
  const int8_t* token = x.codes + (t * x.groups + group) * kGroupCols;
  int32_t sum = 0;
  for (int64_t i = 0; i < kGroupCols; ++i) sum += codes[i] * token[i];
  const float scale =
      half_to_float(view.scales[tile * view.geometry.tile_scales() + group * kTileRows + r]);
  return static_cast<float>(sum) * (scale * x.scales[t * x.groups + group]);
}

float int4_part(const PackedView& view, int64_t tile, int64_t group, int64_t r, const int16_t* codes,
                const Activations& x, int64_t t) {
  const Geometry& g = view.geometry;
  const int64_t terms = g.terms();
  int64_t place = 0;
  while (kSubscaleRows[place] != r) ++place;
  const uint8_t* parts = view.subscales + tile * g.tile_subscales() +
                         (group * terms * kTileRows + place) * kGroupSubs;
  const uint8_t* minima = parts + kTileRows * kGroupSubs;
  const uint16_t* scales = view.scales + tile * g.tile_scales() +
                           group * kGroupCols / kSuperCols * terms * kTileRows + r;
  const int8_t* token = x.codes + (t * x.groups + group) * kGroupCols;
  int32_t sum = 0, minimum = 0;
  for (int64_t j = 0; j < kGroupSubs; ++j) {
    int32_t products = 0, tokens = 0;
    for (int64_t i = j * kSubCols; i < (j + 1) * kSubCols; ++i) {
      products += codes[i] * token[i];
      tokens += token[i];
    }
    sum += parts[j] * products;
    if (g.dense()) minimum += minima[j] * tokens;
  }
  const float token_scale = x.scales[t * x.groups + group];
  const float part = static_cast<float>(sum) * (half_to_float(scales[0]) * token_scale);
  if (!g.dense()) return part;
  return part - static_cast<float>(minimum) * (half_to_float(scales[kTileRows]) * token_scale);
}

void multiply_codes(const PackedView& view, const Activations& x, int64_t tile,
                    const Target& target) {
  const Geometry& g = view.geometry;
  const int64_t count = std::min(kTileRows, g.rows - tile * kTileRows);
  const auto part_of = g.type == ValueType::int8 ? int8_part : int4_part;
  const auto value_of = [&](uint32_t code) -> int16_t {
    if (g.type == ValueType::int8) return static_cast<int8_t>(code);
    return static_cast<int16_t>(g.dense() ? code : code - 8);
  };
  Units units(view, tile);
  for (int64_t group = 0; group < g.col_groups(); ++group) {
    int16_t codes[kTileRows][kGroupCols] = {};
    const int64_t first = group * kGroupCols / kBlockCols;
    for (int64_t block = first; block < std::min(first + 2, g.col_blocks()); ++block)
      units.next_block(block, [&](int64_t r, int64_t column, uint32_t code) {
        codes[r][(block - first) * kBlockCols + column] = value_of(code);
      });
    for (int64_t r = 0; r < count; ++r)
      for (int64_t t = 0; t < x.tokens; ++t) {
        const float part = part_of(view, tile, group, r, codes[r], x, t);
        float& out = target.out[t * target.stride + tile * kTileRows + r];
        out = group == 0 ? part : out + part;
      }
  }
}

void multiply_bf16(const PackedView& view, const Activations& x, int64_t tile,
                   const Target& target) {
  const Geometry& g = view.geometry;
  const int64_t count = std::min(kTileRows, g.rows - tile * kTileRows);
  Units units(view, tile);
  for (int64_t block = 0; block < g.col_blocks(); ++block) {
    float weights[kTileRows][kBlockCols] = {};
    units.next_block(block, [&](int64_t r, int64_t column, uint32_t code) {
      weights[r][column] = bf16_to_float(static_cast<uint16_t>(code));
    });
    for (int64_t r = 0; r < count; ++r)
      for (int64_t t = 0; t < x.tokens; ++t) {
        const uint16_t* token = x.bf16 + t * x.groups * kGroupCols + block * kBlockCols;
        float sum = 0;
        for (int64_t i = 0; i < kBlockCols; ++i) sum += weights[r][i] * bf16_to_float(token[i]);
        float& out = target.out[t * target.stride + tile * kTileRows + r];
        out = block == 0 ? sum : out + sum;
      }
  }
}

void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t*) {
  for (int64_t tile = begin; tile < end; ++tile) {
    (view.geometry.type == ValueType::bf16 ? multiply_bf16 : multiply_codes)(view, x, tile, target);
    if (!target.bias) continue;
    const int64_t last = std::min((tile + 1) * kTileRows, view.geometry.rows);
    for (int64_t t = 0; t < x.tokens; ++t)
      for (int64_t row = tile * kTileRows; row < last; ++row)
        target.out[t * target.stride + row] += target.bias[row];
  }
}

}  // namespace

const Kernels kScalarKernels = {
    "scalar", 0, 0, quantize, [](const Geometry&, int64_t) { return int64_t{0}; }, multiply};

}  // namespace subllm
