#include "bindings/reading.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <utility>

namespace subllm::python {

namespace {

template <typename T>
T field(const nb::dict& dict, const char* name) {
  if (!dict.contains(name)) throw std::invalid_argument(std::string(name) + " is missing");
  return nb::cast<T>(dict[name]);
}

// A number where Python may have None.
float number_or(const nb::dict& dict, const char* name, float absent) {
  const auto value = field<nb::object>(dict, name);
  return value.is_none() ? absent : nb::cast<float>(value);
}

template <typename T>
T named(const std::string& name, std::initializer_list<std::pair<const char*, T>> choices) {
  for (const auto& [known, value] : choices)
    if (name == known) return value;
  throw std::invalid_argument("'" + name + "' is unknown");
}

RopeSpec rope_of(const nb::dict& dict) {
  RopeSpec rope;
  rope.theta = field<double>(dict, "rope_theta");
  const auto local = field<nb::object>(dict, "local_rope_theta");
  if (!local.is_none()) rope.local_theta = nb::cast<double>(local);
  const auto scaling = field<nb::object>(dict, "rope_scaling");
  if (scaling.is_none()) return rope;
  const auto values = nb::cast<nb::dict>(scaling);
  rope.scaling = named<RopeScaling>(field<std::string>(values, "kind"),
                                    {{"linear", RopeScaling::linear},
                                     {"llama3", RopeScaling::llama3}});
  rope.factor = field<double>(values, "factor");
  rope.low_freq_factor = field<double>(values, "low_freq_factor");
  rope.high_freq_factor = field<double>(values, "high_freq_factor");
  rope.original_context = field<double>(values, "original_context");
  return rope;
}

}  // namespace

KvType kv_type_of(const std::string& name) {
  return named<KvType>(name, {{"float32", KvType::f32},
                              {"bfloat16", KvType::bf16},
                              {"int8", KvType::int8}});
}

DecoderSpec spec_of(const nb::dict& dict) {
  DecoderSpec spec;
  spec.hidden = field<int64_t>(dict, "hidden_size");
  spec.intermediate = field<int64_t>(dict, "intermediate_size");
  spec.layers = field<int64_t>(dict, "num_layers");
  spec.heads = field<int64_t>(dict, "num_heads");
  spec.kv_heads = field<int64_t>(dict, "num_kv_heads");
  spec.head_dim = field<int64_t>(dict, "head_dim");
  spec.vocab = field<int64_t>(dict, "vocab_size");
  spec.norm = named<NormKind>(field<std::string>(dict, "norm"),
                              {{"rmsnorm", NormKind::rms}, {"layernorm", NormKind::layer}});
  spec.norm_eps = field<float>(dict, "norm_eps");
  spec.norm_offset = field<float>(dict, "norm_offset");
  spec.activation = named<Activation>(field<std::string>(dict, "activation"),
                                      {{"silu", Activation::silu},
                                       {"gelu", Activation::gelu},
                                       {"gelu_tanh", Activation::gelu_tanh}});
  spec.gated = field<bool>(dict, "gated");
  spec.rope = rope_of(dict);
  const auto window = field<nb::object>(dict, "sliding_window");
  spec.window = window.is_none() ? 0 : nb::cast<int64_t>(window);
  spec.sliding = field<std::vector<bool>>(dict, "sliding_layers");
  spec.attn_scale = field<float>(dict, "attn_scale");
  spec.attn_softcap = number_or(dict, "attn_softcap", 0.0f);
  spec.final_softcap = number_or(dict, "final_softcap", 0.0f);
  spec.embed_scale = field<float>(dict, "embed_scale");
  return spec;
}

PackedView WeightReader::matrix(const std::string& name) {
  if (!dict_.contains(name.c_str())) return {};
  keep_.emplace_back(dict_[name.c_str()]);
  return nb::cast<MatrixHandle&>(keep_.back()).view;
}

std::optional<ScreenView> WeightReader::screen(const std::string& name) {
  if (!dict_.contains(name.c_str())) return std::nullopt;
  keep_.emplace_back(dict_[name.c_str()]);
  return nb::cast<ScreenHandle&>(keep_.back()).view;
}

std::vector<float> WeightReader::vector(const std::string& name) {
  if (!dict_.contains(name.c_str())) return {};
  using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  const auto values = nb::cast<Values>(dict_[name.c_str()]);
  std::vector<float> copy(values.size());  // byte by byte: a mapped vector may be unaligned
  if (!copy.empty()) std::memcpy(copy.data(), values.data(), copy.size() * sizeof(float));
  return copy;
}

LayerWeights layer_of(const nb::dict& dict, std::vector<nb::object>& keep) {
  WeightReader part(dict, keep);
  return {part.norm("input_norm"), part.norm("post_attention_norm"), part.norm("mlp_norm"),
          part.norm("post_mlp_norm"), part.norm("q_norm"), part.norm("k_norm"), part.linear("q"),
          part.linear("k"), part.linear("v"), part.linear("o"), part.linear("gate"),
          part.linear("up"), part.linear("down")};
}

}  // namespace subllm::python
