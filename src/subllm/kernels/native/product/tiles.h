// A few row tiles of a product, for one token.
#pragma once

#include <cstdint>
#include <span>

#include "core.h"
#include "product/input.h"

namespace subllm {

// out[row] of the rows of `tiles` (ascending) for one token of the input, with the bits that
// `multiply` gives them where the weights are int8 or int4. In this thread.
void multiply_row_tiles(const Input& input, int64_t token, const PackedView& matrix,
                        std::span<const int64_t> tiles, float* out,
                        const Kernels& with = kernels());

}  // namespace subllm
