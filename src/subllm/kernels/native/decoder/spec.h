// A decoder-only transformer as data: the part of Python's ArchSpec that a forward pass
// needs. Nothing in the decoder knows the name of a model.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace subllm {

enum class NormKind { rms, layer };
enum class Activation { silu, gelu, gelu_tanh };
enum class RopeScaling { none, linear, llama3 };

struct RopeSpec {
  double theta = 10000.0;
  std::optional<double> local_theta;  // of the sliding layers, which are then not scaled
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 8192.0;
};

struct DecoderSpec {
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  NormKind norm = NormKind::rms;
  float norm_eps = 1e-6f;
  float norm_offset = 0.0f;  // added to every stored norm weight
  Activation activation = Activation::silu;
  bool gated = true;
  RopeSpec rope;
  int64_t window = 0;           // tokens that a sliding layer sees; 0: no layer slides
  std::vector<bool> sliding;    // [layers]
  float attn_scale = 1.0f;
  float attn_softcap = 0.0f;    // 0: none
  float final_softcap = 0.0f;
  float embed_scale = 1.0f;

  int64_t q_size() const { return heads * head_dim; }
  int64_t kv_size() const { return kv_heads * head_dim; }
  int64_t group() const { return heads / kv_heads; }
};

// Throws std::invalid_argument for sizes that are out of range or contradict each other.
void check_spec(const DecoderSpec& spec);

}  // namespace subllm
