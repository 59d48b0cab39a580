#include "product/product.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <stdexcept>
#include <string>

#include "packing/runs.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 2;

// Working memory of this thread; it lives as long as the thread.
uint8_t* scratch(int64_t bytes) {
  thread_local Buffer<uint8_t> buffer;
  return buffer.reserve(bytes);
}

// The judge: weights and activations as float32, sums in double.
void multiply_exactly(const PackedView& view, const Input& input, int64_t begin, int64_t end,
                      const Target& target) {
  constexpr int64_t kLanes = 8;
  const int64_t cols = view.geometry.cols, stride = input.stride();
  auto* weights = reinterpret_cast<float*>(
      scratch(kTileRows * stride * static_cast<int64_t>(sizeof(float))));
  float* rows[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) {
    rows[r] = weights + r * stride;
    for (int64_t c = cols; c < stride; ++c) rows[r][c] = 0.0f;
  }
  for (int64_t tile = begin; tile < end; ++tile) {
    unpack_tile(view, tile, rows);
    const int64_t count = std::min(kTileRows, view.geometry.rows - tile * kTileRows);
    for (int64_t t = 0; t < input.view().tokens; ++t)
      for (int64_t r = 0; r < count; ++r) {
        const float* x = input.exact() + t * stride;
        double lanes[kLanes] = {}, sum = 0;
        for (int64_t c = 0; c < stride; c += kLanes)
          for (int64_t i = 0; i < kLanes; ++i)
            lanes[i] += static_cast<double>(rows[r][c + i]) * static_cast<double>(x[c + i]);
        for (const double lane : lanes) sum += lane;
        const int64_t row = tile * kTileRows + r;
        if (target.bias) sum += static_cast<double>(target.bias[row]);
        target.out[t * target.stride + row] = static_cast<float>(sum);
      }
  }
}

void multiply_tiles(const Input& input, const Product& product, int64_t begin, int64_t end,
                    const Kernels& with) {
  const Target target{product.bias, product.out, product.out_stride};
  const PackedView& view = *product.matrix;
  if (input.forms() & kExactInput) return multiply_exactly(view, input, begin, end, target);
  with.multiply(view, input.view(), begin, end, target,
                scratch(with.scratch(view.geometry, input.view().tokens)));
}

// Whether each quarter of the word has so many bits.
bool keeps(uint64_t word, int64_t bits) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return ((word + (word >> 8)) & 0x00ff00ff00ff00ff) ==
         0x0001000100010001 * static_cast<uint64_t>(bits);
}

// The same of the first `rows` quarters alone.
bool keeps_above(uint64_t word, int64_t bits, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    if (std::popcount(word >> (kUnitCols * r) & 0xffff) != bits) return false;
  return true;
}

// Returns whether every row of the tile's units keeps slots / 4 weights.
bool check_tile(const PackedView& view, int64_t tile) {
  const Geometry& g = view.geometry;
  const int64_t rows = std::min(kTileRows, g.rows - tile * kTileRows);
  const uint64_t* words = view.mask + tile * g.col_blocks() * kBlockUnits;
  const RunCursor cursor(view, tile);
  int64_t bytes = 0;
  bool fits = true, balanced = !view.offsets;
  for (int64_t i = 0; i < g.col_blocks() * kBlockUnits; ++i) {
    const int64_t kept = std::popcount(words[i]);
    if (g.slots)
      fits &= kept <= g.slots;
    else
      bytes += cursor.bytes(i % 2, kept);
    if (!balanced) continue;
    // A row that the matrix does not have keeps nothing, which no product shows.
    const int64_t missing = std::clamp<int64_t>((i % 2 + 1) * kUnitRows - rows, 0, kUnitRows);
    balanced = missing == 0 ? keeps(words[i], g.slots / 4) : missing == kUnitRows || keeps_above(words[i], g.slots / 4, kUnitRows - missing);
  }
  if (view.offsets)
    fits &= bytes <= (int64_t{view.offsets[tile + 1]} - view.offsets[tile]) * kAlign;
  if (!fits)
    throw std::invalid_argument("a mask keeps more weights than there are values (row tile " +
                                std::to_string(tile) + ")");
  return balanced;
}

}  // namespace

void multiply(Pool& pool, const Input& input, std::span<const Product> products,
              const Kernels& with) {
  int64_t tiles = 0;
  for (const auto& product : products) {
    const Geometry& g = product.matrix->geometry;
    if (g.cols != input.view().cols)
      throw std::logic_error("a matrix of " + std::to_string(g.cols) +
                             " columns meets an input of " + std::to_string(input.view().cols));
    if (!(input.forms() & (kExactInput | input_form(g.type))))
      throw std::logic_error("the input was not prepared for this type of weights");
    tiles += g.row_tiles();
  }
  if (input.view().tokens == 0) return;
  pool.run(tiles, kTileGrain, [&](int64_t begin, int64_t end) {
    for (const auto& product : products) {
      const int64_t count = product.matrix->geometry.row_tiles();
      if (begin < count && end > 0)
        multiply_tiles(input, product, std::max<int64_t>(begin, 0), std::min(end, count), with);
      begin -= count;
      end -= count;
    }
  });
}

bool check_masks(Pool& pool, const PackedView& view) {
  if (!view.mask) return false;
  std::atomic<bool> balanced{true};
  pool.run(view.geometry.row_tiles(), kTileGrain, [&](int64_t begin, int64_t end) {
    bool all = true;
    for (int64_t tile = begin; tile < end; ++tile) all &= check_tile(view, tile);
    if (!all) balanced.store(false, std::memory_order_relaxed);
  });
  return balanced.load();
}

}  // namespace subllm
