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

// The choice that a draw makes of the whole head's logits. `screened` (or null): what the screen
// said before.
Choice choose(const Draw& draw, const Screened* screened, std::span<float> logits) {
  using Verdict = Screened::Verdict;
  Choice choice;
  if (screened && screened->verdict != Verdict::whole) choice.token = screened->token;
  const bool tail = screened && screened->verdict == Verdict::tail;
  const auto draw_token = [&](std::span<float> adjusted) {
    if (screened && screened->verdict == Verdict::drawn) return;
    adjust(draw, adjusted);
    if (!tail) {
      choice.token = sample(draw, adjusted);
    } else if (const auto token = draw_tail(draw, *screened, adjusted)) {
      choice.token = token;
    }
  };
  if (draw.logprobs < 0) {
    draw_token(logits);
    if (draw.logprobs == kEstimate && choice.token)
      choice.logprob = tail ? TokenLogprob{*choice.token, screened->logprob, {}}
                            : logprob_of(*choice.token, 0, logits);
    return choice;
  }
  // Log-probabilities are those of the unmodified logits.
  std::vector<float> adjusted(logits.begin(), logits.end());
  draw_token(adjusted);
  if (!choice.token) return choice;
  choice.logprob = logprob_of(*choice.token, draw.logprobs, logits);
  if (!choice.logprob) choice.token.reset();
  return choice;
}

// Choices by way of the screen; the whole head only where it is needed.
void choose_screened(Decoder& decoder, std::span<const Draw* const> draws, Choice* choices) {
  const auto vocab = static_cast<size_t>(decoder.spec().vocab);
  for (size_t first = 0; first < draws.size(); first += kLogitRows) {
    const auto part = draws.subspan(first, std::min<size_t>(kLogitRows, draws.size() - first));
    const std::span<const Screened> screened = decoder.screen(static_cast<int64_t>(first), part);
    std::vector<int64_t> whole;
    for (size_t i = 0; i < part.size(); ++i) {
      if (screened[i].verdict == Screened::Verdict::drawn && part[i]->logprobs < 0) {
        Choice& choice = choices[first + i];
        choice.token = screened[i].token;
        if (part[i]->logprobs == kEstimate)
          choice.logprob = TokenLogprob{*choice.token, screened[i].logprob, {}};
      } else {
        whole.push_back(static_cast<int64_t>(first + i));
      }
    }
    if (whole.empty()) continue;
    const std::span<float> logits = decoder.logits(whole);
    decoder.pool().run(static_cast<int64_t>(whole.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto index = static_cast<size_t>(whole[static_cast<size_t>(i)]);
        choices[index] = choose(*draws[index], &screened[index - first],
                                logits.subspan(static_cast<size_t>(i) * vocab, vocab));
      }
    });
  }
}

}  // namespace

std::vector<Choice> step(Decoder& decoder, std::span<const StepChunk> chunks) {
  std::vector<Chunk> work;
  std::vector<const Draw*> draws;
  for (const StepChunk& chunk : chunks) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    const auto wanted = static_cast<int64_t>(chunk.draws.size());
    if (wanted > count) throw std::invalid_argument("a chunk has more draws than tokens");
    work.push_back({chunk.slab, chunk.start, chunk.tokens, count - wanted, wanted});
    std::span<const int32_t> known;  // history that was checked: of the draw before, mostly
    for (const Draw& draw : chunk.draws) {
      check_draw(draw, decoder.spec().vocab, known);
      known = draw.history;
      draws.push_back(&draw);
    }
  }
  decoder.forward(work);
  std::vector<Choice> choices(draws.size());
  if (decoder.screens()) {
    choose_screened(decoder, draws, choices.data());
    return choices;
  }
  each_state(decoder, [&](int64_t i, std::span<float> logits) {
    const auto index = static_cast<size_t>(i);
    choices[index] = choose(*draws[index], nullptr, logits);
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
