// Plain C++ for any machine: the slow truth beside the vector kernels, and what runs where
// there are none.

#include <algorithm>
#include <bit>
#include <cmath>

#include "half.h"
#include "isa/kernels.h"

namespace subllm {

namespace {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t g = 0; g * kGroupCols < cols; ++g) {
    const int64_t first = g * kGroupCols, count = std::min(kGroupCols, cols - first);
    uint32_t bits = 0;  // of the largest magnitude; a NaN, which is above infinity, stays
    for (int64_t i = 0; i < count; ++i)
      bits = std::max(bits, std::bit_cast<uint32_t>(std::fabs(x[first + i])));
    const float largest = std::bit_cast<float>(bits);
    const bool zero = largest < kSmallestInput;
    const float inverse = zero ? 0.0f : 127.0f / largest;
    int32_t sum = 0;
    for (int64_t i = 0; i < kGroupCols; ++i) {
      const float scaled = i < count ? x[first + i] * inverse : 0.0f;
      // Infinity and NaN make NaN of it: any code will do, the scale is infinite or NaN.
      codes[first + i] = static_cast<int8_t>(std::nearbyint(scaled < 127.0f ? scaled : 127.0f));
      sum += codes[first + i];
    }
    scales[g] = zero ? 0.0f : largest / 127.0f;
    sums[g] = sum;
  }
}

// Walks the runs of one row tile in their order.
class Runs {
 public:
  Runs(const PackedView& view, int64_t tile) : view_(view), g_(view.geometry), tile_(tile) {
    run_ = view.values + (view.offsets ? int64_t{view.offsets[tile]} * kAlign
                                       : tile * g_.col_blocks() * kTileRows *
                                             run_bytes(g_.type, g_.slots));
  }

  // Calls put(column of the block, bytes of the run, index in the run) for each kept weight
  // of the next run.
  template <typename Put>
  void next(int64_t block, int64_t r, Put put) {
    uint64_t bits = ~uint64_t{0} >> (kBlockCols - g_.block_cols(block));
    if (view_.mask) bits = view_.mask[(tile_ * g_.col_blocks() + block) * kTileRows + r];
    int64_t index = 0;
    for (; bits; bits &= bits - 1) put(std::countr_zero(bits), run_, index++);
    run_ += run_bytes(g_.type, g_.slots ? g_.slots : index);
  }

 private:
  const PackedView& view_;
  const Geometry& g_;
  int64_t tile_;
  const uint8_t* run_;
};

int code_of(ValueType type, const uint8_t* run, int64_t index) {
  if (type == ValueType::int8) return static_cast<int8_t>(run[index]);
  return ((run[index / 2] >> (4 * (index % 2))) & 15) - 8;
}

void multiply_codes(const PackedView& view, const Activations& x, int64_t tile,
                    const Target& target) {
  const Geometry& g = view.geometry;
  const int64_t count = std::min(kTileRows, g.rows - tile * kTileRows);
  Runs runs(view, tile);
  for (int64_t group = 0; group < g.col_groups(); ++group) {
    int8_t codes[kTileRows][kGroupCols] = {};
    const int64_t first = group * kGroupCols / kBlockCols;
    for (int64_t block = first; block < std::min(first + 2, g.col_blocks()); ++block)
      for (int64_t r = 0; r < kTileRows; ++r)
        runs.next(block, r, [&](int column, const uint8_t* run, int64_t index) {
          codes[r][(block - first) * kBlockCols + column] =
              static_cast<int8_t>(code_of(g.type, run, index));
        });
    for (int64_t r = 0; r < count; ++r) {
      const float scale = half_to_float(view.scales[(tile * g.col_groups() + group) * kTileRows + r]);
      for (int64_t t = 0; t < x.tokens; ++t) {
        const int8_t* tokens = x.codes + (t * x.groups + group) * kGroupCols;
        int32_t sum = 0;
        for (int64_t i = 0; i < kGroupCols; ++i) sum += codes[r][i] * tokens[i];
        const float part = static_cast<float>(sum) * (scale * x.scales[t * x.groups + group]);
        float& out = target.out[t * target.stride + tile * kTileRows + r];
        out = group == 0 ? part : out + part;
      }
    }
  }
}

void multiply_bf16(const PackedView& view, const Activations& x, int64_t tile,
                   const Target& target) {
  const Geometry& g = view.geometry;
  const int64_t count = std::min(kTileRows, g.rows - tile * kTileRows);
  Runs runs(view, tile);
  for (int64_t block = 0; block < g.col_blocks(); ++block)
    for (int64_t r = 0; r < kTileRows; ++r) {
      float weights[kBlockCols] = {};
      runs.next(block, r, [&](int column, const uint8_t* run, int64_t index) {
        weights[column] = bf16_to_float(
            static_cast<uint16_t>(run[2 * index] | run[2 * index + 1] << 8));
      });
      if (r >= count) continue;
      for (int64_t t = 0; t < x.tokens; ++t) {
        const uint16_t* token = x.bf16 + t * x.groups * kGroupCols + block * kBlockCols;
        float sum = 0;
        for (int64_t i = 0; i < kBlockCols; ++i) sum += weights[i] * bf16_to_float(token[i]);
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
    "scalar", 0, 0, 0, quantize, [](const Geometry&, int64_t) { return int64_t{0}; }, multiply};

}  // namespace subllm
