// What lies between a block's matrix products while it learns, forward and backward: the gated
// activation of an MLP and RMSNorm, each in one go over the memory.
#pragma once

#include <cstdint>

#include "learning/adamw.h"

namespace subllm {

// All of one type, float32 or bf16; worked on in float32.
struct Gated {
  LearnedType type;
  int64_t count;
  const void* gate;
  const void* up;
  const void* back;  // the gradient by the result; null forward
  void* out;         // silu(gate) * up, or the gradient by gate
  void* out_up;      // the gradient by up; null forward
};

struct Normed {
  LearnedType type;
  int64_t rows, columns;
  float eps;
  const void* x;       // [rows, columns]
  const void* weight;  // [columns]
  const void* back;    // the gradient by the result; null forward
  void* out;           // x / rms(x) * weight, or the gradient by x
};

// What is compiled once for each instruction set; parts of [0, count) and of [0, rows).
struct BetweenOps {
  const char* name;
  void (*gated)(const Gated& call, int64_t begin, int64_t end);
  void (*normed)(const Normed& call, int64_t begin, int64_t end);
};

// By name; "" is what the process uses for its row operations. Throws std::invalid_argument
// for a name that is not in adamw_isas().
const BetweenOps& between_ops(std::string_view name = "");

void gated(Pool& pool, const Gated& call, const BetweenOps& ops);
void normed(Pool& pool, const Normed& call, const BetweenOps& ops);

}  // namespace subllm
