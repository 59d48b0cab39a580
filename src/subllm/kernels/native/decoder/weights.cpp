#include "decoder/weights.h"

#include <stdexcept>
#include <string>

namespace subllm {

namespace {

std::string shape(int64_t rows, int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

void expect_matrix(const std::string& name, const PackedView& view, int64_t rows, int64_t cols) {
  const Geometry& g = view.geometry;
  if (!view.values || g.rows != rows || g.cols != cols)
    throw std::invalid_argument(name + " is " + shape(g.rows, g.cols) + " where " +
                                shape(rows, cols) + " belongs");
}

void expect_vector(const std::string& name, const std::vector<float>& vector, int64_t size) {
  if (static_cast<int64_t>(vector.size()) != size)
    throw std::invalid_argument(name + " has " + std::to_string(vector.size()) +
                                " elements where " + std::to_string(size) + " belong");
}

void expect_linear(const std::string& name, const LinearWeights& linear, int64_t rows,
                   int64_t cols) {
  expect_matrix(name, linear.matrix, rows, cols);
  if (!linear.bias.empty()) expect_vector(name + " bias", linear.bias, rows);
}

void expect_norm(const std::string& name, const NormWeights& norm, int64_t size, bool bias) {
  expect_vector(name, norm.weight, size);
  expect_vector(name + " bias", norm.bias, bias ? size : 0);
}

}  // namespace

void check_shared(const DecoderSpec& spec, const DecoderWeights& weights) {
  expect_matrix("the embedding", weights.embedding, spec.vocab, spec.hidden);
  expect_matrix("the head", weights.head, spec.vocab, spec.hidden);
  if (weights.screen &&
      (weights.screen->rows != spec.vocab || weights.screen->cols != spec.hidden))
    throw std::invalid_argument("the screening plane is " +
                                shape(weights.screen->rows, weights.screen->cols) + " where " +
                                shape(spec.vocab, spec.hidden) + " belongs");
  expect_norm("the final norm", weights.final_norm, spec.hidden, spec.norm == NormKind::layer);
}

void check_layers(const DecoderSpec& spec, const std::vector<LayerWeights>& layers) {
  const int64_t hidden = spec.hidden;
  const bool bias = spec.norm == NormKind::layer;
  if (static_cast<int64_t>(layers.size()) != spec.layers)
    throw std::invalid_argument("there are weights of " + std::to_string(layers.size()) +
                                " layers where " + std::to_string(spec.layers) + " belong");
  for (int64_t index = 0; index < spec.layers; ++index) {
    const LayerWeights& layer = layers[index];
    const std::string prefix = "layer " + std::to_string(index) + ": ";
    expect_norm(prefix + "input norm", layer.input_norm, hidden, bias);
    expect_norm(prefix + "mlp norm", layer.mlp_norm, hidden, bias);
    for (const NormWeights* norm : {&layer.post_attention_norm, &layer.post_mlp_norm})
      if (!norm->weight.empty()) expect_norm(prefix + "post norm", *norm, hidden, bias);
    for (const NormWeights* norm : {&layer.q_norm, &layer.k_norm})
      if (!norm->weight.empty()) expect_norm(prefix + "q or k norm", *norm, spec.head_dim, false);
    expect_linear(prefix + "q", layer.q, spec.q_size(), hidden);
    expect_linear(prefix + "k", layer.k, spec.kv_size(), hidden);
    expect_linear(prefix + "v", layer.v, spec.kv_size(), hidden);
    expect_linear(prefix + "o", layer.o, hidden, spec.q_size());
    if (spec.gated) expect_linear(prefix + "gate", layer.gate, spec.intermediate, hidden);
    expect_linear(prefix + "up", layer.up, spec.intermediate, hidden);
    expect_linear(prefix + "down", layer.down, hidden, spec.intermediate);
  }
}

}  // namespace subllm
