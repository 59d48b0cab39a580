// The forward pass of every supported family, driven by its DecoderSpec. Weights stay where
// they are mapped; a step of many chunks multiplies each matrix once with all their tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decoder/attention.h"
#include "core.h"
#include "product/input.h"
#include "decoder/kv.h"
#include "threads/pool.h"
#include "product/product.h"
#include "decoder/rope.h"
#include "decoder/spec.h"
#include "decoder/weights.h"

namespace subllm {

// Consecutive tokens of one sequence at positions start, start + 1, ... Hidden states are
// wanted of the `wanted` tokens from `first_wanted` on.
struct Chunk {
  int64_t slab, start;
  std::span<const int32_t> tokens;
  int64_t first_wanted, wanted;
};

struct DecoderOptions {
  KvType kv = KvType::bf16;
  int threads = 0;
  bool exact = false;  // activations as float32 in every product: slow, a reference
};

class Decoder {
 public:
  // Throws std::invalid_argument when weights do not have the shapes of the spec.
  Decoder(DecoderSpec spec, DecoderWeights weights, const DecoderOptions& options);

  const DecoderSpec& spec() const { return spec_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  Pool& pool() { return pool_; }

  // Runs all chunks, which must be of different slabs. Throws std::invalid_argument for
  // chunks that do not fit, before anything has changed.
  void forward(std::span<const Chunk> chunks);

  // Hidden states that the last `forward` was asked for.
  int64_t states() const { return states_; }

  // Logits [count][vocab] of some of those states; valid until the next call.
  std::span<float> logits(int64_t first, int64_t count);

 private:
  void check_chunks(std::span<const Chunk> chunks) const;
  void pass();
  void embed();
  void project(const LayerWeights& layer, int64_t index);
  void mlp(const LayerWeights& layer);
  void keep_wanted();
  void norm(const NormWeights& weights, const float* x, float* out) const;
  // Adds delta_ (through a norm, where there is one) to the stream and normalises it.
  void add_delta(const NormWeights& post, const NormWeights* next);
  void multiply(const float* x, int64_t stride, std::span<const Product> products);
  template <class Body>
  void each_row(const Body& body);

  DecoderSpec spec_;
  DecoderWeights weights_;
  bool exact_;
  Pool pool_;
  KvCache cache_;
  Rope rope_;
  Attention attention_;
  Input input_;
  // What the pass at hand works on.
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<Span> spans_;
  std::vector<int64_t> wanted_;  // rows
  int64_t rows_ = 0;
  float* x_ = nullptr;  // [rows][hidden], the residual stream
  Buffer<float> stream_, normed_, qkv_, attended_, delta_, inner_;
  Buffer<float> logits_;
  std::vector<float> hidden_;  // [states][hidden]
  int64_t states_ = 0;
};

}  // namespace subllm
