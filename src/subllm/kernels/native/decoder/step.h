// One step of an engine on a decoder: a forward pass, then tokens or log-probabilities.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "decoder/decoder.h"
#include "decoder/sample.h"

namespace subllm {

struct StepChunk {
  int64_t slab, start;
  std::span<const int32_t> tokens;
  std::vector<Draw> draws;  // of the tokens that follow the last draws.size() positions
};

struct Choice {
  std::optional<int64_t> token;  // none: the logits are not finite, of this draw alone
  std::optional<TokenLogprob> logprob;
};

// A choice for each draw, those of the first chunk first. Throws std::invalid_argument for
// chunks or draws that do not fit, before anything has changed.
std::vector<Choice> step(Decoder& decoder, std::span<const StepChunk> chunks);

// Log-probabilities of targets[i] after tokens[i], with `top` alternatives each; there may be
// fewer targets than tokens. None where the logits are not finite. Throws as `step` does.
std::vector<std::optional<TokenLogprob>> score(Decoder& decoder, int64_t slab, int64_t start,
                                               std::span<const int32_t> tokens,
                                               std::span<const int32_t> targets, int64_t top);

}  // namespace subllm
