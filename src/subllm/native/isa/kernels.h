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
  const int32_t* sums;      // [tokens][groups]
  const uint16_t* bf16;     // [tokens][stride]

  // The same again for the first `laned` tokens, a multiple of the kernels' lanes L, with
  // tokens side by side; those beyond `tokens` are zeros.
  int64_t laned;
  const uint32_t* code_lanes;   // [laned / L][stride / 4][L], four codes each
  const float* scale_lanes;     // [laned / L][groups][L]
  const int32_t* sum_lanes;     // [laned / L][groups][L]
  const uint32_t* bf16_lanes;   // [laned / L][stride / 2][L], two values each

  // And of the `halved` tokens after those, 0 or L / 2: twice as many columns of each side by
  // side, so that few tokens fill the lanes as well.
  int64_t halved;
  const uint64_t* code_pairs;   // [stride / 8][L / 2], eight codes each
  const float* scale_pairs;     // [groups][L], every token's twice
  const int32_t* sum_pairs;     // [groups][L]
  const uint64_t* bf16_pairs;   // [stride / 4][L / 2], four values each
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
  // `fill` tokens on, a half block from `half_fill` on (0: never); fewer are multiplied one
  // by one.
  int lanes, fill, half_fill;

  // One token: codes[groups * 128], scales[groups], sums[groups] of x[cols].
  void (*quantize)(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums);

  // Bytes of working memory, aligned to kAlign, that `multiply` wants.
  int64_t (*scratch)(const Geometry& geometry, int64_t tokens);

  // All tokens times the row tiles [begin, end).
  void (*multiply)(const PackedView& view, const Activations& input, int64_t begin, int64_t end,
                   const Target& target, uint8_t* scratch);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels, kAvx512Kernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
#endif

}  // namespace subllm
