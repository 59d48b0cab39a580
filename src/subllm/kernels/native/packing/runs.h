// Walking the runs of a row tile in plain C++.
#pragma once

#include <bit>
#include <cstdint>

#include "core.h"

namespace subllm {

class RunCursor {
 public:
  RunCursor(const PackedView& view, int64_t tile)
      : g_(view.geometry),
        run_(view.values + (view.offsets ? int64_t{view.offsets[tile]} * kAlign
                                         : tile * g_.col_blocks() * g_.block_bytes())) {}

  const uint8_t* at() const { return run_; }

  // Bytes that the run of this unit adds; a pair of int4 runs counts with its second.
  int64_t bytes(int64_t unit, int64_t kept) const {
    const int64_t bits = (g_.slots ? g_.slots : kept) * g_.value_bits();
    if (paired()) return unit % 2 ? bits / 4 : 0;
    return (bits + 7) / 8;
  }

  // The i-th code of this unit's run; for bf16 its bits.
  uint32_t code(int64_t unit, int64_t i) const {
    if (g_.type == ValueType::bf16) return static_cast<uint32_t>(run_[2 * i] | run_[2 * i + 1] << 8);
    if (g_.type == ValueType::int8) return run_[i];
    if (paired()) return run_[i] >> (4 * (unit % 2)) & 15;
    return run_[i / 2] >> (4 * (i % 2)) & 15;
  }

  void step(int64_t unit, int64_t kept) { run_ += bytes(unit, kept); }

 private:
  bool paired() const { return g_.type == ValueType::int4 && g_.slots; }

  const Geometry& g_;
  const uint8_t* run_;
};

}  // namespace subllm
