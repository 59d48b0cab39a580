#include "decoder/decoder.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "decoder/ops.h"

namespace subllm {

namespace {

// Tokens that run at once: enough to make good use of unpacked weights, few enough that
// activations stay small beside the weights.
constexpr int64_t kPassTokens = 256;
constexpr int64_t kRowGrain = 4;

void add_offset(const DecoderSpec& spec, NormWeights& norm) {
  for (float& weight : norm.weight) weight += spec.norm_offset;
}

const float* bias_of(const LinearWeights& linear) {
  return linear.bias.empty() ? nullptr : linear.bias.data();
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DecoderWeights weights, const DecoderOptions& options)
    : spec_((check_spec(spec), std::move(spec))), weights_(std::move(weights)),
      exact_(options.exact), pool_(options.threads), cache_(spec_, options.kv), rope_(spec_),
      attention_(spec_) {
  check_weights(spec_, weights_);
  add_offset(spec_, weights_.final_norm);
  for (LayerWeights& layer : weights_.layers)
    for (NormWeights* norm : {&layer.input_norm, &layer.post_attention_norm, &layer.mlp_norm,
                              &layer.post_mlp_norm, &layer.q_norm, &layer.k_norm})
      add_offset(spec_, *norm);
}

void Decoder::check_chunks(std::span<const Chunk> chunks) const {
  std::set<int64_t> slabs;
  for (const Chunk& chunk : chunks) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    if (count == 0) throw std::invalid_argument("a chunk has no tokens");
    if (!slabs.insert(chunk.slab).second)
      throw std::invalid_argument("two chunks of a step use KV slab " + std::to_string(chunk.slab));
    cache_.check(chunk.slab, chunk.start);
    if (chunk.first_wanted < 0 || chunk.wanted < 0 || chunk.first_wanted + chunk.wanted > count)
      throw std::invalid_argument("more tokens are wanted than a chunk has");
    for (const int32_t token : chunk.tokens)
      if (token < 0 || token >= spec_.vocab)
        throw std::invalid_argument("token " + std::to_string(token) +
                                    " is outside the vocabulary of " + std::to_string(spec_.vocab));
  }
}

void Decoder::forward(std::span<const Chunk> chunks) {
  check_chunks(chunks);
  hidden_.clear();
  states_ = 0;
  const auto begin_pass = [&] {
    tokens_.clear();
    positions_.clear();
    spans_.clear();
    wanted_.clear();
  };
  begin_pass();
  for (const Chunk& chunk : chunks) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    for (int64_t done = 0; done < count;) {
      const auto row = static_cast<int64_t>(tokens_.size());
      const int64_t part = std::min(count - done, kPassTokens - row);
      cache_.written(chunk.slab, chunk.start + done);  // what follows is overwritten
      cache_.reserve(chunk.slab, chunk.start + done, part);
      spans_.push_back({chunk.slab, row, part, chunk.start + done});
      for (int64_t i = done; i < done + part; ++i) {
        if (i >= chunk.first_wanted && i < chunk.first_wanted + chunk.wanted)
          wanted_.push_back(static_cast<int64_t>(tokens_.size()));
        tokens_.push_back(chunk.tokens[i]);
        positions_.push_back(chunk.start + i);
      }
      done += part;
      if (static_cast<int64_t>(tokens_.size()) == kPassTokens) {
        pass();
        begin_pass();
      }
    }
  }
  if (!tokens_.empty()) pass();
}

template <class Body>
void Decoder::each_row(const Body& body) {
  pool_.run(rows_, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

void Decoder::norm(const NormWeights& weights, const float* x, float* out) const {
  if (spec_.norm == NormKind::rms)
    ops().rms_norm(x, weights.weight.data(), spec_.hidden, spec_.norm_eps, out);
  else
    ops().layer_norm(x, weights.weight.data(), weights.bias.data(), spec_.hidden, spec_.norm_eps,
                     out);
}

void Decoder::multiply(const float* x, int64_t stride, std::span<const Product> products) {
  unsigned forms = 0;
  for (const Product& product : products)
    forms |= exact_ ? kExactInput : input_form(product.matrix->geometry.type);
  input_.prepare(pool_, x, rows_, products.front().matrix->geometry.cols, stride, forms);
  subllm::multiply(pool_, input_, products);
}

void Decoder::pass() {
  rows_ = static_cast<int64_t>(tokens_.size());
  embed();
  rope_.at(positions_);
  attention_.plan(spans_);
  float* normed = normed_.reserve(rows_ * spec_.hidden);
  each_row([&](int64_t row) {
    norm(weights_.layers.front().input_norm, x_ + row * spec_.hidden, normed + row * spec_.hidden);
  });
  const int64_t last = spec_.layers - 1;
  for (int64_t index = 0; index <= last; ++index) {
    const LayerWeights& layer = weights_.layers[index];
    project(layer, index);
    if (index == last) {
      // Only keys and values are needed of a token whose state nobody wants.
      if (wanted_.empty()) break;
    }
    const int64_t q_size = spec_.q_size();
    attention_.run(pool_, cache_, index, qkv_.data(), q_size + 2 * spec_.kv_size(),
                   attended_.reserve(rows_ * q_size));
    if (index == last) keep_wanted();
    const Product out{&layer.o.matrix, bias_of(layer.o), delta_.reserve(rows_ * spec_.hidden),
                      spec_.hidden};
    multiply(attended_.data(), q_size, {&out, 1});
    add_delta(layer.post_attention_norm, &layer.mlp_norm);
    mlp(layer);
    add_delta(layer.post_mlp_norm,
              index == last ? nullptr : &weights_.layers[index + 1].input_norm);
  }
  for (const Span& span : spans_) cache_.written(span.slab, span.start + span.count);
  if (wanted_.empty()) return;
  hidden_.insert(hidden_.end(), x_, x_ + rows_ * spec_.hidden);
  states_ += rows_;
}

void Decoder::embed() {
  x_ = stream_.reserve(rows_ * spec_.hidden);
  const std::vector<int64_t> rows(tokens_.begin(), tokens_.end());
  pool_.run(rows_, kRowGrain, [&](int64_t begin, int64_t end) {
    float* out = x_ + begin * spec_.hidden;
    unpack_rows(weights_.embedding, rows.data() + begin, end - begin, out, 1);
    if (spec_.embed_scale != 1.0f)
      ops().scale(spec_.embed_scale, (end - begin) * spec_.hidden, out);
  });
}

void Decoder::project(const LayerWeights& layer, int64_t index) {
  const int64_t q_size = spec_.q_size(), kv_size = spec_.kv_size(), dim = spec_.head_dim;
  const int64_t width = q_size + 2 * kv_size;
  float* qkv = qkv_.reserve(rows_ * width);
  const Product products[] = {
      {&layer.q.matrix, bias_of(layer.q), qkv, width},
      {&layer.k.matrix, bias_of(layer.k), qkv + q_size, width},
      {&layer.v.matrix, bias_of(layer.v), qkv + q_size + kv_size, width},
  };
  multiply(normed_.data(), spec_.hidden, products);
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

void Decoder::mlp(const LayerWeights& layer) {
  const int64_t size = spec_.intermediate, width = spec_.gated ? 2 * size : size;
  float* inner = inner_.reserve(rows_ * width);
  std::vector<Product> products;
  if (spec_.gated) products.push_back({&layer.gate.matrix, bias_of(layer.gate), inner, width});
  products.push_back({&layer.up.matrix, bias_of(layer.up), inner + width - size, width});
  multiply(normed_.data(), spec_.hidden, products);
  each_row([&](int64_t row) {
    float* gate = inner + row * width;
    ops().activate(spec_.activation, gate, spec_.gated ? gate + size : nullptr, size, gate);
  });
  const Product down{&layer.down.matrix, bias_of(layer.down),
                     delta_.reserve(rows_ * spec_.hidden), spec_.hidden};
  multiply(inner, width, {&down, 1});
}

void Decoder::add_delta(const NormWeights& post, const NormWeights* next) {
  float* normed = normed_.reserve(rows_ * spec_.hidden);
  each_row([&](int64_t row) {
    float* delta = delta_.data() + row * spec_.hidden;
    float* x = x_ + row * spec_.hidden;
    if (!post.weight.empty()) norm(post, delta, delta);
    ops().add(delta, spec_.hidden, x);
    if (next) norm(*next, x, normed + row * spec_.hidden);
  });
}

void Decoder::keep_wanted() {
  const auto move_rows = [&](float* data, int64_t width) {
    for (size_t i = 0; i < wanted_.size(); ++i)
      std::copy_n(data + wanted_[i] * width, width, data + static_cast<int64_t>(i) * width);
  };
  move_rows(x_, spec_.hidden);
  move_rows(attended_.data(), spec_.q_size());
  rows_ = static_cast<int64_t>(wanted_.size());
}

std::span<float> Decoder::logits(int64_t first, int64_t count) {
  if (first < 0 || count < 0 || first + count > states_)
    throw std::invalid_argument("logits are asked for of states that do not exist");
  rows_ = count;
  float* normed = normed_.reserve(rows_ * spec_.hidden);
  each_row([&](int64_t row) {
    norm(weights_.final_norm, hidden_.data() + (first + row) * spec_.hidden,
         normed + row * spec_.hidden);
  });
  float* logits = logits_.reserve(rows_ * spec_.vocab);
  const Product head{&weights_.head, nullptr, logits, spec_.vocab};
  if (rows_ > 0) multiply(normed, spec_.hidden, {&head, 1});
  if (spec_.final_softcap != 0.0f)
    each_row([&](int64_t row) {
      ops().softcap(spec_.final_softcap, spec_.vocab, logits + row * spec_.vocab);
    });
  return {logits, static_cast<size_t>(rows_ * spec_.vocab)};
}

}  // namespace subllm
