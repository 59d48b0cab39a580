// The forward pass of every supported family, driven by its DecoderSpec. Weights stay where
// they are mapped; a step of many chunks multiplies each matrix once with all their tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core.h"
#include "decoder/attention.h"
#include "decoder/head.h"
#include "decoder/kv.h"
#include "decoder/spec.h"
#include "decoder/trunk.h"
#include "decoder/weights.h"
#include "threads/pool.h"

namespace subllm {

// Consecutive tokens of one sequence at positions start, start + 1, ... Hidden states are
// wanted of the `wanted` tokens from `first_wanted` on.
struct Chunk {
  int64_t slab, start;
  std::span<const int32_t> tokens;
  int64_t first_wanted, wanted;
};

class Decoder {
 public:
  // Throws std::invalid_argument when weights do not have the shapes of the spec.
  Decoder(DecoderSpec spec, DecoderWeights weights, const DecoderOptions& options);

  const DecoderSpec& spec() const { return trunk_.spec(); }
  KvCache& cache() { return trunk_.cache(); }
  const KvCache& cache() const { return trunk_.cache(); }
  Pool& pool() { return trunk_.pool(); }

  // Runs all chunks, which must be of different slabs. Throws std::invalid_argument for
  // chunks that do not fit, before anything has changed.
  void forward(std::span<const Chunk> chunks);

  // The same, and the streams of all tokens as they enter `layers`, ascending and below the number
  // of layers: out [tokens of all chunks][layers][hidden].
  void forward(std::span<const Chunk> chunks, std::span<const int64_t> layers, float* out);

  // Hidden states that the last `forward` was asked for.
  int64_t states() const { return states_; }

  // Logits [count][vocab] of some of those states; valid until the next call.
  std::span<float> logits(int64_t first, int64_t count);
  std::span<float> logits(std::span<const int64_t> states);

  // Whether the head has a screen for draws.
  bool screens() const { return screened_.has_value(); }

  // The last states as the head reads them, [states][hidden].
  std::span<const float> head_inputs();

  // Draws that the screen decided, that fell into its tail, and that it left to the whole head.
  std::span<const int64_t> verdicts() const {
    return screened_ ? screened_->verdicts() : std::span<const int64_t>{};
  }

  // What the screen says of draws[i] at state first + i; valid until the next call.
  std::span<const Screened> screen(int64_t first, std::span<const Draw* const> draws);

 private:
  void check_chunks(std::span<const Chunk> chunks) const;
  void pass();
  void embed(float* x);
  void normalise_state(int64_t state, float* out) const;
  std::span<float> multiply_head(const float* normed, int64_t count);

  PackedView embedding_, head_;
  NormWeights final_norm_;
  Trunk trunk_;
  std::optional<ScreenedHead> screened_;
  // What the pass at hand works on.
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<Span> spans_;
  std::vector<int64_t> wanted_;  // rows
  Buffer<float> stream_;         // [rows][hidden]
  Buffer<float> normed_, logits_;
  std::vector<float> hidden_;  // [states][hidden]
  Features features_{{}, nullptr};  // of the pass at hand, where they are asked for
  int64_t states_ = 0;
};

}  // namespace subllm
