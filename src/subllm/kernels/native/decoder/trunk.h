// The blocks of a decoder without embedding and head: the residual stream in, and out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "decoder/attention.h"
#include "decoder/kv.h"
#include "decoder/rope.h"
#include "decoder/spec.h"
#include "decoder/weights.h"
#include "product/input.h"
#include "product/product.h"
#include "threads/pool.h"

namespace subllm {

struct DecoderOptions {
  KvType kv = KvType::bf16;
  int threads = 0;
  bool exact = false;  // activations as float32 in every product: slow, a reference
};

// The distinct inputs of a block's matrices: of q, k and v; of o; of gate and up; of down.
enum class MatrixInput { attention, output, mlp, down };

// Shown each of them, x [rows][cols], rows `stride` apart, before the matrices read it.
using Tap = std::function<void(MatrixInput input, const float* x, int64_t rows, int64_t cols,
                               int64_t stride)>;

// Where the residual stream of all rows is copied to as it enters these layers (ascending):
// out [rows][layers.size()][hidden].
struct Features {
  std::span<const int64_t> layers;
  float* out;
};

class Trunk {
 public:
  // Throws std::invalid_argument when layers do not have the shapes of the spec.
  Trunk(DecoderSpec spec, std::vector<LayerWeights> layers, const DecoderOptions& options);
  Trunk(const Trunk&) = delete;
  Trunk& operator=(const Trunk&) = delete;

  const DecoderSpec& spec() const { return spec_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  Pool& pool() { return pool_; }

  // Runs tokens of `spans`, whose positions are reserved in the cache, through all layers. x
  // [rows][hidden] is what enters the first one; afterwards its first rows are what the rows
  // of `wanted` (ascending) leave the last one with, and x is lost beyond. A tap sees the
  // inputs of matrices; the pass then ends with the last of them, and x is lost. Features are
  // of every row, whoever is wanted.
  void pass(std::span<const Span> spans, std::span<const int64_t> positions,
            std::span<const int64_t> wanted, float* x, const Tap* tap = nullptr,
            const Features* features = nullptr);

  // Products of x [rows][stride] with matrices of equal columns.
  void multiply(const float* x, int64_t rows, int64_t stride, std::span<const Product> products);

  template <class Body>
  void each_row(int64_t rows, const Body& body) {
    pool_.run(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(row);
    });
  }

  static constexpr int64_t kRowGrain = 4;

 private:
  void project(const LayerWeights& layer, int64_t index);
  void activate(const LayerWeights& layer);
  void keep(std::span<const int64_t> wanted);
  void copy(const Features& features, int64_t layer);
  void show(const Tap* tap, MatrixInput input, const float* x, int64_t cols, int64_t stride) const;
  // Adds delta_ (through a norm, where there is one) to the stream and normalises it.
  void add_delta(const NormWeights& post, const NormWeights* next);

  DecoderSpec spec_;
  std::vector<LayerWeights> layers_;
  bool exact_;
  Pool pool_;
  KvCache cache_;
  Rope rope_;
  Attention attention_;
  Input input_;
  // What the pass at hand works on.
  std::span<const Span> spans_;
  int64_t rows_ = 0;
  float* x_ = nullptr;  // [rows][hidden], the residual stream
  Buffer<float> normed_, qkv_, attended_, delta_, inner_;
};

// The norm of one row of hidden states, by the spec's kind.
void normalise(const DecoderSpec& spec, const NormWeights& weights, const float* x, float* out);

// Stored norm weights to those that apply.
void add_offset(const DecoderSpec& spec, NormWeights& norm);

}  // namespace subllm
