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

DecoderSpec checked(DecoderSpec spec, const DecoderWeights& weights) {
  check_spec(spec);
  check_shared(spec, weights);
  return spec;
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DecoderWeights weights, const DecoderOptions& options)
    : embedding_(weights.embedding), head_(weights.head),
      final_norm_(weights.final_norm),
      trunk_(checked(std::move(spec), weights), std::move(weights.layers), options) {
  add_offset(trunk_.spec(), final_norm_);
  if (weights.screen && !options.exact)
    screened_.emplace(head_, *weights.screen, trunk_.spec().final_softcap);
}

void Decoder::check_chunks(std::span<const Chunk> chunks) const {
  std::set<int64_t> slabs;
  for (const Chunk& chunk : chunks) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    if (count == 0) throw std::invalid_argument("a chunk has no tokens");
    if (!slabs.insert(chunk.slab).second)
      throw std::invalid_argument("two chunks of a step use KV slab " + std::to_string(chunk.slab));
    cache().check(chunk.slab, chunk.start);
    if (chunk.first_wanted < 0 || chunk.wanted < 0 || chunk.first_wanted + chunk.wanted > count)
      throw std::invalid_argument("more tokens are wanted than a chunk has");
    for (const int32_t token : chunk.tokens)
      if (token < 0 || token >= spec().vocab)
        throw std::invalid_argument("token " + std::to_string(token) +
                                    " is outside the vocabulary of " + std::to_string(spec().vocab));
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
      cache().written(chunk.slab, chunk.start + done);  // what follows is overwritten
      cache().reserve(chunk.slab, chunk.start + done, part);
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

void Decoder::forward(std::span<const Chunk> chunks, std::span<const int64_t> layers, float* out) {
  for (size_t i = 0; i < layers.size(); ++i)
    if (layers[i] < (i ? layers[i - 1] + 1 : 0) || layers[i] >= spec().layers)
      throw std::invalid_argument("features are asked for of layers that do not exist");
  features_ = {layers, out};
  try {
    forward(chunks);
  } catch (...) {
    features_ = {{}, nullptr};
    throw;
  }
  features_ = {{}, nullptr};
}

void Decoder::pass() {
  const auto rows = static_cast<int64_t>(tokens_.size());
  float* x = stream_.reserve(rows * spec().hidden);
  embed(x);
  trunk_.pass(spans_, positions_, wanted_, x, nullptr, features_.out ? &features_ : nullptr);
  if (features_.out)
    features_.out += rows * static_cast<int64_t>(features_.layers.size()) * spec().hidden;
  const auto kept = static_cast<int64_t>(wanted_.size());
  hidden_.insert(hidden_.end(), x, x + kept * spec().hidden);
  states_ += kept;
}

void Decoder::embed(float* x) {
  const std::vector<int64_t> rows(tokens_.begin(), tokens_.end());
  const int64_t hidden = spec().hidden;
  pool().run(static_cast<int64_t>(rows.size()), Trunk::kRowGrain, [&](int64_t begin, int64_t end) {
    float* out = x + begin * hidden;
    unpack_rows(embedding_, rows.data() + begin, end - begin, out, 1);
    if (spec().embed_scale != 1.0f) ops().scale(spec().embed_scale, (end - begin) * hidden, out);
  });
}

void Decoder::normalise_state(int64_t state, float* out) const {
  if (state < 0 || state >= states_)
    throw std::invalid_argument("logits are asked for of states that do not exist");
  normalise(spec(), final_norm_, hidden_.data() + state * spec().hidden, out);
}

std::span<float> Decoder::logits(int64_t first, int64_t count) {
  float* normed = normed_.reserve(count * spec().hidden);
  trunk_.each_row(count, [&](int64_t row) {
    normalise_state(first + row, normed + row * spec().hidden);
  });
  return multiply_head(normed, count);
}

std::span<float> Decoder::logits(std::span<const int64_t> states) {
  const auto count = static_cast<int64_t>(states.size());
  float* normed = normed_.reserve(count * spec().hidden);
  for (int64_t row = 0; row < count; ++row)
    normalise_state(states[static_cast<size_t>(row)], normed + row * spec().hidden);
  return multiply_head(normed, count);
}

std::span<const float> Decoder::head_inputs() {
  float* normed = normed_.reserve(states_ * spec().hidden);
  trunk_.each_row(states_, [&](int64_t row) { normalise_state(row, normed + row * spec().hidden); });
  return {normed, static_cast<size_t>(states_ * spec().hidden)};
}

std::span<float> Decoder::multiply_head(const float* normed, int64_t count) {
  const int64_t hidden = spec().hidden, vocab = spec().vocab;
  float* logits = logits_.reserve(count * vocab);
  const Product head{&head_, nullptr, logits, vocab};
  if (count > 0) trunk_.multiply(normed, count, hidden, {&head, 1});
  if (spec().final_softcap != 0.0f)
    trunk_.each_row(count, [&](int64_t row) {
      ops().softcap(spec().final_softcap, vocab, logits + row * vocab);
    });
  return {logits, static_cast<size_t>(count * vocab)};
}

std::span<const Screened> Decoder::screen(int64_t first, std::span<const Draw* const> draws) {
  const auto count = static_cast<int64_t>(draws.size());
  float* normed = normed_.reserve(count * spec().hidden);
  trunk_.each_row(count, [&](int64_t row) {
    normalise_state(first + row, normed + row * spec().hidden);
  });
  return screened_->choose(pool(), normed, draws);
}

}  // namespace subllm
