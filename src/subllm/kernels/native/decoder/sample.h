// Choosing a token from logits, as Python's `engine.sampler` defines it: bias and penalties,
// what is allowed, temperature, top_k, top_p, min_p, then a draw along the order of the logits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace subllm {

struct SampleParams {
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::vector<std::pair<int64_t, double>> logit_bias;
};

struct Draw {
  SampleParams params;
  std::span<const int32_t> history;  // of the whole sequence
  int64_t prompt_length = 0;
  double uniform = 0.0;  // in [0, 1)
  std::span<const uint32_t> allowed;  // a bit for each token; none beyond. Empty: all tokens are
  int64_t logprobs = -1;  // alternatives to report; -1: no log-probability either; kEstimate
};

// For `logprobs`: the token's log-probability alone, as far as it is known without more work.
inline constexpr int64_t kEstimate = -2;

struct TokenLogprob {
  int64_t token;
  double logprob;
  std::vector<std::pair<int64_t, double>> top;  // best first
};

// Throws std::invalid_argument for parameters out of range or tokens outside the vocabulary.
// Tokens of the history that lie in `known` were checked before.
void check_draw(const Draw& draw, int64_t vocab, std::span<const int32_t> known = {});

// Applies bias and penalties in place; what is not allowed becomes -infinity. The draw must have
// been checked.
void adjust(const Draw& draw, std::span<float> logits);

// The `count` best tokens, best first. NaN is never among the best.
std::vector<int64_t> best_tokens(std::span<const float> logits, int64_t count);

struct Drawn {
  int64_t token;
  float lowest;  // of the logits that the filters keep; -infinity where nothing filters
};

// The token chosen from adjusted logits at a temperature above 0, as `sample` does. `whole`, if
// known: the sum of exp((logit - largest) / temperature).
std::optional<Drawn> draw_from(const Draw& draw, std::span<const float> adjusted,
                               std::optional<double> whole = {});

// The token chosen from adjusted logits; none when the largest is not finite (NaN never is
// the largest): they have no order then.
std::optional<int64_t> sample(const Draw& draw, std::span<const float> adjusted);

// Natural log of a token's probability under the logits, with the `top` best tokens; none
// when the largest logit is not finite.
std::optional<TokenLogprob> logprob_of(int64_t token, int64_t top, std::span<const float> logits);

}  // namespace subllm
