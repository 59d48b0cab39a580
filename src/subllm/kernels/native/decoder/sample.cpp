#include "decoder/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "decoder/ops.h"

namespace subllm {

namespace {

// Sorts like (logit descending, token ascending) when sorted descending.
uint64_t sort_key(float logit, int64_t token) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 equals 0
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | (0xffffffffu - static_cast<uint32_t>(token));
}

int64_t token_of(uint64_t key) {
  return static_cast<int64_t>(0xffffffffu - static_cast<uint32_t>(key));
}

std::vector<uint64_t> keys_of(std::span<const float> logits, std::span<const int32_t> tokens) {
  std::vector<uint64_t> keys;
  keys.reserve(tokens.size());
  for (const int32_t token : tokens) keys.push_back(sort_key(logits[token], token));
  return keys;
}

// Tokens whose logit reaches the threshold, best first.
std::vector<int64_t> best_above(std::span<const float> logits, float threshold) {
  const auto size = static_cast<int64_t>(logits.size());
  thread_local std::vector<int32_t> found;
  if (static_cast<int64_t>(found.size()) < size) found.resize(size);
  const int64_t count = ops().at_least(logits.data(), size, threshold, found.data(), size);
  auto keys = keys_of(logits, {found.data(), static_cast<size_t>(count)});
  std::sort(keys.begin(), keys.end(), std::greater<>());
  std::vector<int64_t> tokens(keys.size());
  std::transform(keys.begin(), keys.end(), tokens.begin(), token_of);
  return tokens;
}

int64_t argmax(std::span<const float> logits) {
  return ops().argmax(logits.data(), static_cast<int64_t>(logits.size()));
}

// A count of 0 for every token; whoever raises some sets them back to 0. A draw's history is
// long and several draws of a step share most of it, so it is neither copied nor sorted.
int32_t* tallies(size_t vocab) {
  thread_local std::vector<int32_t> counts;
  if (counts.size() < vocab) counts.resize(vocab);
  return counts.data();
}

// -infinity for every token without its bit in `allowed`.
void forbid(std::span<const uint32_t> allowed, std::span<float> logits) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (size_t first = 0; first < logits.size(); first += 32) {
    const uint32_t bits = first / 32 < allowed.size() ? allowed[first / 32] : 0;
    if (bits == 0xffffffffu) continue;
    const size_t count = std::min<size_t>(32, logits.size() - first);
    for (size_t i = 0; i < count; ++i)
      if (!(bits >> i & 1)) logits[first + i] = kNever;
  }
}

struct Filtered {
  std::vector<int64_t> tokens;     // in drawing order
  std::vector<double> cumulative;  // of their weights
  double mass = 0.0;               // of all tokens that the filters keep, also beyond these
  bool enough = false;             // whether a draw can be decided with these tokens
};

// Weights, filters and mass of the best tokens. `all`: they are all there are (of top_k).
Filtered filter(const Draw& draw, std::span<const float> logits, std::vector<int64_t> tokens,
                double peak, double whole, bool all) {
  const SampleParams& p = draw.params;
  Filtered result;
  result.tokens = std::move(tokens);
  result.cumulative.reserve(result.tokens.size());
  double mass = 0.0;
  size_t likely = 0;  // tokens that min_p keeps
  for (const int64_t token : result.tokens) {
    const double weight = std::exp((static_cast<double>(logits[token]) - peak) / p.temperature);
    if (weight >= p.min_p) ++likely;
    result.cumulative.push_back(mass += weight);
  }
  if (all) whole = mass;
  size_t count = result.tokens.size();
  if (p.top_p < 1.0) {
    const auto at = std::lower_bound(result.cumulative.begin(), result.cumulative.end(),
                                     p.top_p * whole);
    count = static_cast<size_t>(at - result.cumulative.begin()) + 1;
  }
  if (p.min_p > 0.0) count = std::min(count, likely);
  if (all || count < result.tokens.size()) {
    count = std::min(count, result.tokens.size());
    result.tokens.resize(count);
    result.cumulative.resize(count);
    result.mass = result.cumulative.back();
    result.enough = true;
  } else {
    result.mass = whole;
    result.enough = p.top_p >= 1.0 && p.min_p <= 0.0 && draw.uniform * whole < mass;
  }
  return result;
}

Filtered kept(const Draw& draw, std::span<const float> logits, double peak,
              std::optional<double> known) {
  const SampleParams& p = draw.params;
  if (p.top_k > 0) return filter(draw, logits, best_tokens(logits, p.top_k), peak, 0.0, true);
  const auto size = static_cast<int64_t>(logits.size());
  const double whole = known ? *known : ops().exp_sum(logits.data(), size, peak, p.temperature);
  // Nearly always the answer is among few tokens; the cuts are e^-8 and e^-16 of the best.
  for (const double cut : {8.0, 16.0}) {
    const double threshold = peak - cut * p.temperature;
    auto tokens = best_above(logits, static_cast<float>(threshold));
    if (tokens.size() == logits.size()) break;
    Filtered result = filter(draw, logits, std::move(tokens), peak, whole, false);
    if (result.enough) return result;
  }
  return filter(draw, logits, best_tokens(logits, size), peak, whole, true);
}

}  // namespace

std::vector<int64_t> best_tokens(std::span<const float> logits, int64_t count) {
  const auto size = static_cast<int64_t>(logits.size());
  count = std::min(count, size);
  if (count == 0) return {};
  // The count-th best of a few thousand is a threshold that the best of all surely reach.
  const int64_t sampled = std::min<int64_t>(size, std::max<int64_t>(4096, 4 * count));
  std::vector<float> head(logits.begin(), logits.begin() + sampled);
  for (float& logit : head)
    if (std::isnan(logit)) logit = -HUGE_VALF;  // no order would be left
  std::nth_element(head.begin(), head.begin() + (count - 1), head.end(), std::greater<>());
  const float threshold = head[count - 1];
  thread_local std::vector<int32_t> found;
  if (static_cast<int64_t>(found.size()) < size) found.resize(size);
  const int64_t reached = ops().at_least(logits.data(), size, threshold, found.data(), size);
  auto keys = keys_of(logits, {found.data(), static_cast<size_t>(reached)});
  const auto end = keys.begin() + std::min<int64_t>(count, reached);
  std::partial_sort(keys.begin(), end, keys.end(), std::greater<>());
  std::vector<int64_t> tokens(end - keys.begin());
  std::transform(keys.begin(), end, tokens.begin(), token_of);
  return tokens;
}

void check_draw(const Draw& draw, int64_t vocab, std::span<const int32_t> known) {
  const SampleParams& p = draw.params;
  const auto expect = [](bool right, const char* what) {
    if (!right) throw std::invalid_argument(std::string(what) + " is out of range");
  };
  expect(std::isfinite(p.temperature) && p.temperature >= 0.0, "temperature");
  expect(p.top_k >= 0, "top_k");
  expect(p.top_p >= 0.0 && p.top_p <= 1.0, "top_p");
  expect(p.min_p >= 0.0 && p.min_p <= 1.0, "min_p");
  expect(std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0.0, "repetition_penalty");
  expect(std::isfinite(p.presence_penalty), "presence_penalty");
  expect(std::isfinite(p.frequency_penalty), "frequency_penalty");
  expect(draw.uniform >= 0.0 && draw.uniform < 1.0, "uniform");
  expect(draw.logprobs >= kEstimate && draw.logprobs <= vocab, "logprobs");
  expect(draw.prompt_length >= 0 &&
             draw.prompt_length <= static_cast<int64_t>(draw.history.size()),
         "prompt_length");
  for (const auto& [token, bias] : p.logit_bias)
    expect(token >= 0 && token < vocab && std::isfinite(bias), "logit_bias");
  const bool goes_on = known.data() == draw.history.data() && known.size() <= draw.history.size();
  for (const int32_t token : draw.history.subspan(goes_on ? known.size() : 0))
    expect(token >= 0 && token < vocab, "a token of history");
}

void adjust(const Draw& draw, std::span<float> logits) {
  const SampleParams& p = draw.params;
  for (const auto& [token, bias] : p.logit_bias) logits[token] += static_cast<float>(bias);
  if (p.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(p.repetition_penalty);
    int32_t* seen = tallies(logits.size());
    for (const int32_t token : draw.history) {
      if (seen[token]++ != 0) continue;
      float& logit = logits[token];
      logit = logit > 0.0f ? logit / penalty : logit * penalty;
    }
    for (const int32_t token : draw.history) seen[token] = 0;
  }
  if (p.presence_penalty != 0.0 || p.frequency_penalty != 0.0) {
    const auto completion = draw.history.subspan(draw.prompt_length);
    int32_t* counts = tallies(logits.size());
    for (const int32_t token : completion) ++counts[token];
    for (const int32_t token : completion) {
      const int32_t count = std::exchange(counts[token], 0);
      if (count == 0) continue;
      logits[token] -= static_cast<float>(p.presence_penalty);
      logits[token] -= static_cast<float>(p.frequency_penalty) * static_cast<float>(count);
    }
  }
  if (!draw.allowed.empty()) forbid(draw.allowed, logits);
}

std::optional<Drawn> draw_from(const Draw& draw, std::span<const float> adjusted,
                               std::optional<double> whole) {
  const SampleParams& p = draw.params;
  const int64_t best = argmax(adjusted);
  if (!std::isfinite(adjusted[best])) return std::nullopt;
  const Filtered found = kept(draw, adjusted, adjusted[best], whole);
  const auto at = std::upper_bound(found.cumulative.begin(), found.cumulative.end(),
                                   draw.uniform * found.mass);
  const size_t index = static_cast<size_t>(at - found.cumulative.begin());
  const bool filters = p.top_k > 0 || p.top_p < 1.0 || p.min_p > 0.0;
  return Drawn{found.tokens[std::min(index, found.tokens.size() - 1)],
               filters ? adjusted[found.tokens.back()] : -std::numeric_limits<float>::infinity()};
}

std::optional<int64_t> sample(const Draw& draw, std::span<const float> adjusted) {
  if (draw.params.temperature == 0.0) {
    const int64_t best = argmax(adjusted);
    return std::isfinite(adjusted[best]) ? std::optional(best) : std::nullopt;
  }
  const std::optional<Drawn> drawn = draw_from(draw, adjusted);
  return drawn ? std::optional(drawn->token) : std::nullopt;
}

std::optional<TokenLogprob> logprob_of(int64_t token, int64_t top, std::span<const float> logits) {
  const double peak = logits[argmax(logits)];
  if (!std::isfinite(peak)) return std::nullopt;
  const double norm =
      peak + std::log(ops().exp_sum(logits.data(), static_cast<int64_t>(logits.size()), peak, 1.0));
  TokenLogprob result{token, static_cast<double>(logits[token]) - norm, {}};
  for (const int64_t other : best_tokens(logits, top))
    result.top.emplace_back(other, static_cast<double>(logits[other]) - norm);
  return result;
}

}  // namespace subllm
