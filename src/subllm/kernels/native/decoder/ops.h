// The elementwise and row operations of a decoder, one implementation per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/spec.h"

namespace subllm {

inline constexpr int64_t kKvBlock = 64;  // tokens of a block of KV memory
// Elements of a key that share a scale. Keys have a few channels far larger than the rest
// (a bias of theirs, in some families), which must not coarsen all of them.
inline constexpr int64_t kKeyGroup = 16;

enum class KvType { f32, bf16, int8 };

// Query rows that share one KV head, over a range of its keys. Row r is query head
// r % group of the token at `position` + r / group.
struct AttendTile {
  KvType type;
  int64_t dim;     // of a head
  int64_t stride;  // elements of a value row, dim rounded up to 16
  int64_t rows;
  int64_t group;
  int64_t position;
  int64_t window;      // 0: every earlier key is visible
  int64_t begin, end;  // keys considered
  float softcap;       // 0: none
  const float* queries;            // [rows][dim], scaled
  const std::byte* const* blocks;  // KV blocks of the sequence
  int64_t keys, values;            // byte offsets in a block: [dim][64], [64][stride]
  int64_t key_scales, value_scales;  // [ceil(dim / 16)][64] and [64] float; int8 only
  float* scores;                   // scratch [rows][64]
  float* widened;                  // scratch [dim][64]; int8 only
  // Results: out [rows][stride] is the sum of exp(score - peak) * value, mass the sum of
  // exp(score - peak). A row that sees no key has mass 0.
  float* out;
  float* peak;
  float* mass;
};

struct Ops {
  // Name of the instruction set.
  const char* name;
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                     float* out);
  void (*add)(const float* x, int64_t n, float* sum);
  void (*add_squares)(const float* x, int64_t n, float* sums);  // sums[i] += x[i] * x[i]
  void (*scale)(float factor, int64_t n, float* x);
  // out = activation(gate) * up, or activation(gate) where up is null.
  void (*activate)(Activation kind, const float* gate, const float* up, int64_t n, float* out);
  // Rotates a head of 2 * half elements in place, half against half.
  void (*rotate)(const float* cos, const float* sin, int64_t half, float* head);
  // x = cap * tanh(x / cap)
  void (*softcap)(float cap, int64_t n, float* x);
  void (*attend)(const AttendTile& tile);
  // Index of the largest element, the first among equals; NaN is never chosen.
  int64_t (*argmax)(const float* x, int64_t n);
  // Sum of exp((x - peak) / temperature), in double.
  double (*exp_sum)(const float* x, int64_t n, double peak, double temperature);
  // Writes the indices of elements >= threshold, ascending, at most `limit` of them;
  // returns how many there are.
  int64_t (*at_least)(const float* x, int64_t n, float threshold, int32_t* out, int64_t limit);
};

// Those that this CPU runs, best first.
std::vector<const Ops*> all_ops();

// The best of them, or those that the variable SUBLLM_ISA names ("scalar": the plainest).
const Ops& ops();

}  // namespace subllm
