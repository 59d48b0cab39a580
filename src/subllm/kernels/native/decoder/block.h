// One block of a decoder on whole sequences of hidden states: what calibration runs.
#pragma once

#include <cstdint>

#include "decoder/trunk.h"

namespace subllm {

// Sums over rows of the squares of each column, of each distinct input of a block's matrices;
// each is added to.
struct SquareSums {
  double* attention;  // [hidden]
  double* output;     // [heads * head_dim]
  double* mlp;        // [hidden]
  double* down;       // [intermediate]
};

class Block {
 public:
  // spec: of one layer. Throws as Trunk does.
  Block(DecoderSpec spec, LayerWeights weights, const DecoderOptions& options);

  const DecoderSpec& spec() const { return trunk_.spec(); }

  // Replaces hidden states [sequences][length][hidden] that enter the block by those that
  // leave it. Sequences start at position 0 and do not see each other.
  void run(int64_t sequences, int64_t length, float* x);

  // Adds up the inputs of its matrices over all tokens of x, which stays; what comes after
  // the last input is not computed. Partial sums are float32 over at most 128 rows.
  void collect(int64_t sequences, int64_t length, const float* x, const SquareSums& sums);

 private:
  template <class Done>
  void each_pass(int64_t sequences, int64_t length, const float* x, const Tap* tap,
                 const Done& done);

  Trunk trunk_;
  Buffer<float> stream_;  // [rows][hidden] of the pass at hand
};

}  // namespace subllm
