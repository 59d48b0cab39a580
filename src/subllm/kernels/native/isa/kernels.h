// What an instruction set implements. Files compiled for one may define nothing that
// another file could link to (an inline function built for AVX-512 would be taken for all),
// so they include no more than this and keep to anonymous namespaces.
#pragma once

#include <cstdint>

#include "core.h"

namespace subllm {

// A prepared input, as kernels see it; see Input. `stride` is groups * 128.
struct Activations {
  int64_t tokens, cols, groups;
  const int8_t* codes;      // [tokens][stride]
  const float* scales;      // [tokens][groups]
  const int16_t* subs;      // [tokens][groups][4], sums of the codes of 32 columns
  const uint16_t* bf16;     // [tokens][stride]

  // The same again for the first `laned` tokens, a multiple of the kernels' lanes L, with
  // tokens side by side; those beyond `tokens` are zeros.
  int64_t laned;
  const uint32_t* code_lanes;   // [laned / L][stride / 4][L], four codes each
  const float* scale_lanes;     // [laned / L][groups][L]
  const uint32_t* sub_lanes;    // [laned / L][groups][2][L], two sums each
  const uint32_t* bf16_lanes;   // [laned / L][stride / 2][L], two values each
};

// A group of activations that are all below counts as zeros: 127 / x would overflow.
inline constexpr float kSmallestInput = 1e-30f;

// Where the rows of a product go.
struct Target {
  const float* bias;  // or null
  float* out;
  int64_t stride;
};

struct Kernels {
  const char* name;

  // Tokens side by side in a block, 0 for none. A last block that is not full is made from
  // `fill` tokens on; fewer are multiplied straight from the packed planes.
  int lanes, fill;

  // One token: codes[groups * 128], scales[groups], subs[groups * 4] of x[cols].
  void (*quantize)(const float* x, int64_t cols, int8_t* codes, float* scales, int16_t* subs);

  // Bytes of working memory, aligned to kAlign, that `multiply` wants.
  int64_t (*scratch)(const Geometry& geometry, int64_t tokens);

  // All tokens times the row tiles [begin, end).
  void (*multiply)(const PackedView& view, const Activations& input, int64_t begin, int64_t end,
                   const Target& target, uint8_t* scratch);

  // Null, or how a matrix is laid out anew, once, when it is loaded: the bytes that takes (0: not
  // this one), and row tiles [begin, end) of it, false if masks turn out not to fit.
  int64_t (*relaid_bytes)(const PackedView& view) = nullptr;
  bool (*relay)(const PackedView& view, int64_t begin, int64_t end, uint8_t* relaid) = nullptr;
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels, kAvxVnniKernels, kAvx512Kernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
#endif

}  // namespace subllm
