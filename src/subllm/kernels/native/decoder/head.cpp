#include "decoder/head.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "decoder/ops.h"
#include "product/tiles.h"

namespace subllm {

namespace {

constexpr int64_t kTilesGrain = 16;
constexpr double kLeastNeighbours = 64;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

bool penalises(const SampleParams& p) {
  return p.repetition_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0;
}

// Calls body(begin, end) for the rows of each tile.
template <typename Body>
void each_tile(const std::vector<int64_t>& tiles, size_t rows, const Body& body) {
  for (const int64_t tile : tiles)
    body(tile * kTileRows, std::min((tile + 1) * kTileRows, static_cast<int64_t>(rows)));
}

// A number in [0, 1) that knows nothing of where `uniform` lies (SplitMix64's last steps).
double another(double uniform) {
  uint64_t bits = std::bit_cast<uint64_t>(uniform) + 0x9e3779b97f4a7c15u;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((bits ^ bits >> 31) >> 11) * 0x1p-53;
}

// The line through logits of tokens in `tiles` that are no candidates, given the copy's values.
CopyFit fit_copy(const std::vector<int64_t>& tiles, const std::vector<float>& copies, float bound,
                 std::span<const float> logits) {
  double count = 0, x = 0, y = 0, xx = 0, xy = 0, yy = 0;
  size_t at = 0;
  each_tile(tiles, logits.size(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const double copy = copies[at++], logit = logits[static_cast<size_t>(row)];
      if (copy >= bound) continue;
      count += 1, x += copy, y += logit;
      xx += copy * copy, xy += copy * logit, yy += logit * logit;
    }
  });
  CopyFit fit;
  if (count < kLeastNeighbours) {  // of a vocabulary that is all candidates, or nearly
    fit.sigma = std::numeric_limits<double>::infinity();
    return fit;
  }
  x /= count, y /= count;
  const double spread = xx / count - x * x, common = xy / count - x * y;
  if (spread > 0) fit.slope = common / spread;
  fit.offset = y - fit.slope * x;
  fit.sigma = std::sqrt(std::max(yy / count - y * y - fit.slope * common, 0.0));
  return fit;
}

}  // namespace

ScreenedHead::ScreenedHead(const PackedView& head, const ScreenView& view, float softcap)
    : head_(head), view_(view), softcap_(softcap) {}

std::span<const Screened> ScreenedHead::choose(Pool& pool, const float* normed,
                                               std::span<const Draw* const> draws) {
  const auto count = static_cast<int64_t>(draws.size());
  const int64_t rows = view_.rows;
  float* buffer = buffer_.reserve(count * rows);
  found_.assign(draws.size(), {});
  bounds_.assign(draws.size(), 0.0f);
  copies_.resize(draws.size());
  states_.prepare(pool, view_, normed, count);
  input_.prepare(pool, normed, count, view_.cols, view_.cols, input_form(head_.geometry.type));
  screen(pool, view_, states_, buffer, rows);
  const auto values_of = [&](int64_t t) {
    return std::span<float>(buffer + t * rows, static_cast<size_t>(rows));
  };
  const auto each_draw = [&](const auto& body) {
    pool.run(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        if (states_.finite(t)) body(t, *draws[static_cast<size_t>(t)]);
    });
  };
  each_draw([&](int64_t t, const Draw& draw) { rank(t, draw, values_of(t)); });
  for (int64_t t = 0; t < count; ++t) {
    const std::span<const int64_t> tiles = found_[static_cast<size_t>(t)].tiles;
    pool.run(static_cast<int64_t>(tiles.size()), kTilesGrain, [&](int64_t begin, int64_t end) {
      multiply_row_tiles(input_, t, head_,
                         tiles.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                         values_of(t).data());
    });
  }
  each_draw([&](int64_t t, const Draw& draw) { judge(t, draw, values_of(t)); });
  for (const Screened& found : found_) ++verdicts_[static_cast<size_t>(found.verdict)];
  return found_;
}

// Chooses the tiles whose logits are to be exact and keeps what the copy says of them.
void ScreenedHead::rank(int64_t t, const Draw& draw, std::span<const float> values) {
  const auto index = static_cast<size_t>(t);
  const std::vector<int64_t> best = best_tokens(values, kCandidates);
  bounds_[index] = best.size() == values.size() ? kNothing : values[best.back()];
  std::vector<int64_t>& tiles = found_[index].tiles;
  for (const int64_t token : best) tiles.push_back(token / kTileRows);
  for (const auto& named : draw.params.logit_bias) tiles.push_back(named.first / kTileRows);
  if (penalises(draw.params))
    for (const int32_t token : draw.history) tiles.push_back(token / kTileRows);
  std::sort(tiles.begin(), tiles.end());
  tiles.erase(std::unique(tiles.begin(), tiles.end()), tiles.end());
  copies_[index].clear();
  each_tile(tiles, values.size(), [&](int64_t begin, int64_t end) {
    copies_[index].insert(copies_[index].end(), values.begin() + begin, values.begin() + end);
  });
}

void ScreenedHead::judge(int64_t t, const Draw& draw, std::span<float> values) {
  decide(t, draw, values);
  Screened& found = found_[static_cast<size_t>(t)];
  if (draw.logprobs != kEstimate || found.verdict == Screened::Verdict::whole) return;
  const auto size = static_cast<int64_t>(values.size());
  const double logit = values[static_cast<size_t>(found.token)];
  found.logprob = -std::log(ops().exp_sum(values.data(), size, logit, 1.0));
}

// Leaves in `values` what the draw decided by: logits, exact or as good as the copy's.
void ScreenedHead::decide(int64_t t, const Draw& draw, std::span<float> values) {
  if (!draw.allowed.empty()) return;
  const SampleParams& p = draw.params;
  const auto index = static_cast<size_t>(t);
  Screened& found = found_[index];
  const CopyFit fit = fit_copy(found.tiles, copies_[index], bounds_[index], values);
  // The copy's values of all tokens become what they stand for, exact logits stay.
  std::vector<float>& exact = copies_[index];
  exact.clear();
  each_tile(found.tiles, values.size(), [&](int64_t begin, int64_t end) {
    exact.insert(exact.end(), values.begin() + begin, values.begin() + end);
  });
  const auto size = static_cast<int64_t>(values.size());
  const bool greedy = p.temperature == 0.0;
  const double lift = greedy ? 0.0 : fit.sigma * fit.sigma / (2.0 * p.temperature);
  const auto slope = static_cast<float>(fit.slope), offset = static_cast<float>(fit.offset + lift);
  if (!greedy)
    for (float& value : values) value = slope * value + offset;
  const float* kept = exact.data();
  each_tile(found.tiles, values.size(), [&](int64_t begin, int64_t end) {
    std::copy(kept, kept + (end - begin), values.begin() + begin);
    kept += end - begin;
  });
  float bound = bounds_[index];
  if (bound > kNothing) bound = slope * bound + offset + static_cast<float>(kMargin * fit.sigma);
  if (softcap_ != 0.0f) {
    ops().softcap(softcap_, size, values.data());
    ops().softcap(softcap_, 1, &bound);
  }
  adjust(draw, values);
  if (greedy) {
    int64_t best = -1;
    each_tile(found.tiles, values.size(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        if (best < 0 || values[row] > values[best]) best = row;
    });
    if (!std::isfinite(values[best]) || !(values[best] > bound)) return;
    found.token = best;
    found.verdict = Screened::Verdict::drawn;
    return;
  }
  std::optional<double> whole;
  if (p.top_k == 0) {
    const double peak = values[ops().argmax(values.data(), size)];
    whole = ops().exp_sum(values.data(), size, peak, p.temperature);
    double known = 0.0;
    each_tile(found.tiles, values.size(), [&](int64_t begin, int64_t end) {
      known += ops().exp_sum(values.data() + begin, end - begin, peak, p.temperature);
    });
    if (!(*whole - known <= kMostTail * *whole)) return;
  } else if (p.top_k > kMostTopK) {
    return;
  }
  const std::optional<Drawn> drawn = draw_from(draw, values, whole);
  if (!drawn) return;
  const bool known = std::binary_search(found.tiles.begin(), found.tiles.end(),
                                        drawn->token / kTileRows);
  found.token = drawn->token;
  found.lowest = drawn->lowest;
  found.verdict = known ? Screened::Verdict::drawn : Screened::Verdict::tail;
}

std::optional<int64_t> draw_tail(const Draw& draw, const Screened& screened,
                                 std::span<float> adjusted) {
  each_tile(screened.tiles, adjusted.size(), [&](int64_t begin, int64_t end) {
    std::fill(adjusted.begin() + begin, adjusted.begin() + end, kNothing);
  });
  if (screened.lowest > kNothing)
    for (float& logit : adjusted)
      if (!(logit >= screened.lowest)) logit = kNothing;
  Draw again = draw;
  again.params.top_k = 0, again.params.top_p = 1.0, again.params.min_p = 0.0;
  again.uniform = another(draw.uniform);
  return sample(again, adjusted);
}

}  // namespace subllm
