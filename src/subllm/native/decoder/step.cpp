#include "decoder/step.h"

#include <algorithm>
#include <stdexcept>

namespace subllm {

namespace {

constexpr int64_t kLogitRows = 16;  // held at once: 10 MB at 152k tokens

// Calls body(i, logits) for each state of the last forward pass, in parallel.
template <class Body>
void each_state(Decoder& decoder, const Body& body) {
  const auto vocab = static_cast<size_t>(decoder.spec().vocab);
  for (int64_t first = 0; first < decoder.states(); first += kLogitRows) {
    const int64_t count = std::min(kLogitRows, decoder.states() - first);
    const std::span<float> logits = decoder.logits(first, count);
    decoder.pool().run(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        body(first + i, logits.subspan(static_cast<size_t>(i) * vocab, vocab));
    });
  }
}

}  // namespace

std::vector<std::optional<Choice>> step(Decoder& decoder, std::span<const StepChunk> chunks) {
  std::vector<Chunk> work;
  std::vector<size_t> drawing;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const StepChunk& chunk = chunks[i];
    const auto last = static_cast<int64_t>(chunk.tokens.size()) - 1;
    work.push_back({chunk.slab, chunk.start, chunk.tokens, last, chunk.draw ? 1 : 0});
    if (!chunk.draw) work.back().first_wanted = 0;
    if (!chunk.draw) continue;
    check_draw(*chunk.draw, decoder.spec().vocab);
    drawing.push_back(i);
  }
  decoder.forward(work);
  std::vector<std::optional<Choice>> choices(chunks.size());
  each_state(decoder, [&](int64_t i, std::span<float> logits) {
    const size_t index = drawing[static_cast<size_t>(i)];
    const Draw& draw = *chunks[index].draw;
    if (draw.logprobs < 0) {
      adjust(draw, logits);
      choices[index] = Choice{sample(draw, logits), {}};
      return;
    }
    // Log-probabilities are those of the unmodified logits.
    std::vector<float> adjusted(logits.begin(), logits.end());
    adjust(draw, adjusted);
    const std::optional<int64_t> token = sample(draw, adjusted);
    choices[index] = Choice{token, {}};
    if (!token) return;
    choices[index]->logprob = logprob_of(*token, draw.logprobs, logits);
    if (!choices[index]->logprob) choices[index]->token.reset();
  });
  return choices;
}

std::vector<std::optional<TokenLogprob>> score(Decoder& decoder, int64_t slab, int64_t start,
                                               std::span<const int32_t> tokens,
                                               std::span<const int32_t> targets, int64_t top) {
  const int64_t vocab = decoder.spec().vocab;
  if (targets.size() > tokens.size())
    throw std::invalid_argument("there are more targets than tokens");
  if (top < 0 || top > vocab) throw std::invalid_argument("top is out of range");
  for (const int32_t target : targets)
    if (target < 0 || target >= vocab)
      throw std::invalid_argument("a target is outside the vocabulary");
  const Chunk chunk{slab, start, tokens, 0, static_cast<int64_t>(targets.size())};
  decoder.forward({&chunk, 1});
  std::vector<std::optional<TokenLogprob>> result(targets.size());
  each_state(decoder, [&](int64_t i, std::span<float> logits) {
    result[static_cast<size_t>(i)] = logprob_of(targets[static_cast<size_t>(i)], top, logits);
  });
  return result;
}

}  // namespace subllm
