// Rotary position embedding: angles once per pass, applied to the heads of each token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decoder/spec.h"

namespace subllm {

class Rope {
 public:
  explicit Rope(const DecoderSpec& spec);

  // Computes the angles of these positions.
  void at(std::span<const int64_t> positions);

  // Rotates `heads` heads of the row-th position in place.
  void apply(int64_t row, bool sliding, float* first, int64_t heads) const;

 private:
  struct Table {
    std::vector<float> frequencies;  // [half]
    std::vector<float> cos, sin;     // [positions][half]
    void at(std::span<const int64_t> positions);
  };
  int64_t half_;
  bool local_;  // sliding layers have their own table
  Table global_, sliding_;
};

}  // namespace subllm
