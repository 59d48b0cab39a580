// The weights of a decoder: views of mapped matrices, and small vectors of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core.h"
#include "decoder/spec.h"
#include "isa/screen.h"

namespace subllm {

struct NormWeights {
  std::vector<float> weight;  // empty: there is no such norm
  std::vector<float> bias;    // LayerNorm only
};

struct LinearWeights {
  PackedView matrix{};
  std::vector<float> bias;  // empty: none
};

struct LayerWeights {
  NormWeights input_norm, post_attention_norm, mlp_norm, post_mlp_norm;
  NormWeights q_norm, k_norm;                // [head_dim]
  LinearWeights q, k, v, o, gate, up, down;  // gate: gated models only
};

struct DecoderWeights {
  PackedView embedding{}, head{};  // [vocab, hidden]
  std::optional<ScreenView> screen;  // of the head
  NormWeights final_norm;
  std::vector<LayerWeights> layers;
};

// Throw std::invalid_argument, naming the first tensor that does not have the shape that the
// spec asks for: of the layers, and of what is beside them.
void check_layers(const DecoderSpec& spec, const std::vector<LayerWeights>& layers);
void check_shared(const DecoderSpec& spec, const DecoderWeights& weights);

}  // namespace subllm
