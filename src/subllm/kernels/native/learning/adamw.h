// AdamW on the kept values of one tensor, in one go over the memory.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace subllm {

class Pool;

inline constexpr int64_t kAdamwChunk = 2048;  // kept values that are worked on together

enum class LearnedType { f32, bf16 };  // bf16 as its bits

// Where the kept values of a flat tensor are: a bit each, the lowest of a word first, with the
// place that each chunk begins at; or (both null) everywhere.
struct Places {
  const uint64_t* bits;   // [(size + 63) / 64], none set from `size` on
  const int32_t* starts;  // [chunks]
};

// What learns is in float32. Where `master` is null, a float32 weight is that itself, and of a bf16
// weight, the nearest to it (of two, the one farther from 0), `rest` has what its bits are more:
// master = (weight << 16) + rest.
struct AdamwStep {
  int64_t size;   // of the whole tensor
  int64_t count;  // of the kept values
  Places places;
  LearnedType gradient_type, moments_type, weight_type;
  const void* gradient;  // [size]
  float* master;         // [count]
  int16_t* rest;         // [count]
  void* first;           // [count]
  void* second;          // [count]
  void* weight;          // [size], written where values are kept
  double clip;           // the longest gradient (2-norm over kept values); longer ones are scaled
  double beta1, beta2, eps;
  double rate;  // the step size, the first moment's correction of bias in it
  double root;  // the root of the second moment's correction of bias

  int64_t chunks() const { return (count + kAdamwChunk - 1) / kAdamwChunk; }
};

// What is compiled once for each instruction set.
struct AdamwOps {
  const char* name;
  // The sum of squares of one chunk's gradient; false where a place lies outside the tensor.
  bool (*squares)(const AdamwStep& step, int64_t chunk, double* sum);
  void (*update)(const AdamwStep& step, int64_t chunk, float scale);
};

// Names of those that this CPU runs, best first.
std::vector<std::string_view> adamw_isas();

// By name; "" is what the process uses for its row operations. Throws std::invalid_argument
// for a name that is not in adamw_isas().
const AdamwOps& adamw_ops(std::string_view name = "");

// Loshchilov and Hutter, arXiv 1711.05101, without decay. Returns the gradient's norm; where
// that is not finite, nothing has changed. The result does not depend on the threads.
// Throws std::invalid_argument, nothing changed, for places outside the tensor.
double adamw(Pool& pool, const AdamwStep& step, const AdamwOps& ops);

}  // namespace subllm
