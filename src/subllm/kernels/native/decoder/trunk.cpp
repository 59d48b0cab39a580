#include "decoder/trunk.h"

#include <algorithm>
#include <utility>

#include "decoder/ops.h"

namespace subllm {

namespace {

const float* bias_of(const LinearWeights& linear) {
  return linear.bias.empty() ? nullptr : linear.bias.data();
}

}  // namespace

void normalise(const DecoderSpec& spec, const NormWeights& weights, const float* x, float* out) {
  if (spec.norm == NormKind::rms)
    ops().rms_norm(x, weights.weight.data(), spec.hidden, spec.norm_eps, out);
  else
    ops().layer_norm(x, weights.weight.data(), weights.bias.data(), spec.hidden, spec.norm_eps,
                     out);
}

void add_offset(const DecoderSpec& spec, NormWeights& norm) {
  for (float& weight : norm.weight) weight += spec.norm_offset;
}

Trunk::Trunk(DecoderSpec spec, std::vector<LayerWeights> layers, const DecoderOptions& options)
    : spec_((check_spec(spec), std::move(spec))), layers_(std::move(layers)),
      exact_(options.exact), pool_(options.threads), cache_(spec_, options.kv), rope_(spec_),
      attention_(spec_) {
  check_layers(spec_, layers_);
  kernels();  // that cannot be had fail the loading, not the first step
  for (LayerWeights& layer : layers_)
    for (NormWeights* norm : {&layer.input_norm, &layer.post_attention_norm, &layer.mlp_norm,
                              &layer.post_mlp_norm, &layer.q_norm, &layer.k_norm})
      add_offset(spec_, *norm);
}

void Trunk::multiply(const float* x, int64_t rows, int64_t stride,
                     std::span<const Product> products) {
  unsigned forms = 0;
  for (const Product& product : products)
    forms |= exact_ ? kExactInput : input_form(product.matrix->geometry.type);
  input_.prepare(pool_, x, rows, products.front().matrix->geometry.cols, stride, forms);
  subllm::multiply(pool_, input_, products);
}

void Trunk::show(const Tap* tap, MatrixInput input, const float* x, int64_t cols,
                 int64_t stride) const {
  if (tap) (*tap)(input, x, rows_, cols, stride);
}

void Trunk::pass(std::span<const Span> spans, std::span<const int64_t> positions,
                 std::span<const int64_t> wanted, float* x, const Tap* tap,
                 const Features* features) {
  spans_ = spans;
  rows_ = static_cast<int64_t>(positions.size());
  x_ = x;
  rope_.at(positions);
  attention_.plan(spans);
  const int64_t q_size = spec_.q_size(), last = spec_.layers - 1;
  float* normed = normed_.reserve(rows_ * spec_.hidden);
  each_row(rows_, [&](int64_t row) {
    normalise(spec_, layers_.front().input_norm, x_ + row * spec_.hidden,
              normed + row * spec_.hidden);
  });
  for (int64_t index = 0; index <= last; ++index) {
    const LayerWeights& layer = layers_[index];
    if (features) copy(*features, index);
    show(tap, MatrixInput::attention, normed_.data(), spec_.hidden, spec_.hidden);
    project(layer, index);
    // Only keys and values are needed of a token whose state nobody wants.
    if (index == last && wanted.empty()) break;
    attention_.run(pool_, cache_, index, qkv_.data(), q_size + 2 * spec_.kv_size(),
                   attended_.reserve(rows_ * q_size));
    if (index == last) keep(wanted);
    show(tap, MatrixInput::output, attended_.data(), q_size, q_size);
    const Product out{&layer.o.matrix, bias_of(layer.o), delta_.reserve(rows_ * spec_.hidden),
                      spec_.hidden};
    multiply(attended_.data(), rows_, q_size, {&out, 1});
    add_delta(layer.post_attention_norm, &layer.mlp_norm);
    show(tap, MatrixInput::mlp, normed_.data(), spec_.hidden, spec_.hidden);
    activate(layer);
    const int64_t width = spec_.gated ? 2 * spec_.intermediate : spec_.intermediate;
    show(tap, MatrixInput::down, inner_.data(), spec_.intermediate, width);
    if (tap && index == last) break;
    const Product down{&layer.down.matrix, bias_of(layer.down),
                       delta_.reserve(rows_ * spec_.hidden), spec_.hidden};
    multiply(inner_.data(), rows_, width, {&down, 1});
    add_delta(layer.post_mlp_norm, index == last ? nullptr : &layers_[index + 1].input_norm);
  }
  for (const Span& span : spans) cache_.written(span.slab, span.start + span.count);
}

void Trunk::project(const LayerWeights& layer, int64_t index) {
  const int64_t q_size = spec_.q_size(), kv_size = spec_.kv_size(), dim = spec_.head_dim;
  const int64_t width = q_size + 2 * kv_size;
  float* qkv = qkv_.reserve(rows_ * width);
  const Product products[] = {
      {&layer.q.matrix, bias_of(layer.q), qkv, width},
      {&layer.k.matrix, bias_of(layer.k), qkv + q_size, width},
      {&layer.v.matrix, bias_of(layer.v), qkv + q_size + kv_size, width},
  };
  multiply(normed_.data(), rows_, spec_.hidden, products);
  const bool sliding = spec_.sliding[index];
  const auto norm_heads = [&](const NormWeights& weights, float* first, int64_t heads) {
    if (weights.weight.empty()) return;
    for (int64_t head = 0; head < heads; ++head)
      ops().rms_norm(first + head * dim, weights.weight.data(), dim, spec_.norm_eps,
                     first + head * dim);
  };
  for (const Span& span : spans_) {
    pool_.run(span.count, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* query = qkv + (span.row + i) * width;
        float* key = query + q_size;
        norm_heads(layer.q_norm, query, spec_.heads);
        norm_heads(layer.k_norm, key, spec_.kv_heads);
        rope_.apply(span.row + i, sliding, query, spec_.heads + spec_.kv_heads);
        cache_.store(span.slab, span.start + i, index, key, key + kv_size);
      }
    });
  }
}

void Trunk::activate(const LayerWeights& layer) {
  const int64_t size = spec_.intermediate, width = spec_.gated ? 2 * size : size;
  float* inner = inner_.reserve(rows_ * width);
  std::vector<Product> products;
  if (spec_.gated) products.push_back({&layer.gate.matrix, bias_of(layer.gate), inner, width});
  products.push_back({&layer.up.matrix, bias_of(layer.up), inner + width - size, width});
  multiply(normed_.data(), rows_, spec_.hidden, products);
  each_row(rows_, [&](int64_t row) {
    float* gate = inner + row * width;
    ops().activate(spec_.activation, gate, spec_.gated ? gate + size : nullptr, size, gate);
  });
}

void Trunk::add_delta(const NormWeights& post, const NormWeights* next) {
  float* normed = normed_.reserve(rows_ * spec_.hidden);
  each_row(rows_, [&](int64_t row) {
    float* delta = delta_.data() + row * spec_.hidden;
    float* x = x_ + row * spec_.hidden;
    if (!post.weight.empty()) normalise(spec_, post, delta, delta);
    ops().add(delta, spec_.hidden, x);
    if (next) normalise(spec_, *next, x, normed + row * spec_.hidden);
  });
}

void Trunk::copy(const Features& features, int64_t layer) {
  const auto count = static_cast<int64_t>(features.layers.size()), hidden = spec_.hidden;
  for (int64_t slot = 0; slot < count; ++slot) {
    if (features.layers[static_cast<size_t>(slot)] != layer) continue;
    each_row(rows_, [&](int64_t row) {
      std::copy_n(x_ + row * hidden, hidden, features.out + (row * count + slot) * hidden);
    });
  }
}

void Trunk::keep(std::span<const int64_t> wanted) {
  const auto count = static_cast<int64_t>(wanted.size());
  if (count == rows_) return;
  const auto move_rows = [&](float* data, int64_t width) {
    for (int64_t i = 0; i < count; ++i)
      if (wanted[i] != i) std::copy_n(data + wanted[i] * width, width, data + i * width);
  };
  move_rows(x_, spec_.hidden);
  move_rows(attended_.data(), spec_.q_size());
  rows_ = count;
}

}  // namespace subllm
