// The head of a decoder for the draws of a step: a screen ranks all tokens, exact logits of the
// best decide. Where they cannot, a draw asks for the logits of the whole head.
//
// Logits are those of the head itself for the candidates, all tokens whose rows lie in the same
// tiles, and tokens that the draw's bias or penalties name. The candidates' neighbours in their
// tiles were not chosen for what the copy says of them: the line that fits their logits best,
// given the copy's values, and the spread sigma around it tell what the copy means at this state.
// All other tokens get the value of the line. Then
// - greedy: the best exact logit counts if it is ahead of every other value by kMargin sigma;
// - top_k: of the exact logits, up to kMostTopK;
// - else a token is drawn from the exact logits and the tail of others, whose mass at temperature
//   T is that of normal noise, exp((value + sigma^2 / (2 T)) / T), provided the tail has no more
//   than kMostTail of the mass. A draw that falls into the tail is made again there, from the
//   whole head's logits.
// A draw that may not choose among all tokens is left to the whole head: candidates are the best
// of all. A draw depends on its state and parameters alone, not on what else its step draws.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "decoder/sample.h"
#include "product/input.h"
#include "screen/screen.h"
#include "threads/pool.h"

namespace subllm {

// What the copy's values mean at one state.
struct CopyFit {
  double slope = 1.0, offset = 0.0, sigma = 0.0;
};

inline constexpr int64_t kCandidates = 256;
inline constexpr int64_t kMostTopK = kCandidates / 2;
inline constexpr double kMargin = 4.0;
inline constexpr double kMostTail = 0.125;

// What the screen says of one draw.
struct Screened {
  enum class Verdict {
    drawn,  // `token` is the one
    tail,   // one of the tokens outside `tiles` whose logit is `lowest` or more
    whole,  // to be drawn from the whole head's logits
  };
  Verdict verdict = Verdict::whole;
  int64_t token = -1;
  float lowest = 0.0f;
  double logprob = 0.0;  // of `token`, estimated, where the draw asks for kEstimate
  std::vector<int64_t> tiles;  // row tiles of the head whose logits are exact, ascending
};

class ScreenedHead {
 public:
  // softcap: of the logits; 0: none.
  ScreenedHead(const PackedView& head, const ScreenView& view, float softcap);

  // What to do for draws[i] at states[i], rows of normed [count][cols].
  std::span<const Screened> choose(Pool& pool, const float* normed,
                                   std::span<const Draw* const> draws);

  // How many draws ended with each verdict so far, in their order.
  std::span<const int64_t> verdicts() const { return verdicts_; }

 private:
  void rank(int64_t t, const Draw& draw, std::span<const float> values);
  void judge(int64_t t, const Draw& draw, std::span<float> values);
  void decide(int64_t t, const Draw& draw, std::span<float> values);

  PackedView head_;
  ScreenView view_;
  float softcap_;
  Input input_;
  ScreenInput states_;
  Buffer<float> buffer_;
  std::vector<Screened> found_;
  int64_t verdicts_[3] = {};
  std::vector<float> bounds_;  // of the copy's values of tokens that are no candidates
  std::vector<std::vector<float>> copies_;  // the copy's values in the exact tiles, [8] each
};

// The token of a draw that fell into the tail: from the head's adjusted logits, which are lost.
// None where no token is left there.
std::optional<int64_t> draw_tail(const Draw& draw, const Screened& screened,
                                 std::span<float> adjusted);

}  // namespace subllm
