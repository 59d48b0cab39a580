// Products of packed matrices with a prepared input.
#pragma once

#include <cstdint>
#include <span>

#include "core.h"
#include "product/input.h"
#include "threads/pool.h"

namespace subllm {

struct Product {
  const PackedView* matrix;
  const float* bias;   // [rows], or null
  float* out;          // [tokens][out_stride]
  int64_t out_stride;  // at least rows
};

// out[t][r] = bias[r] + sum over c of W[r, c] x[t, c], for every product of the span in one
// parallel region. All matrices have the input's columns. With the int8 form,
//
//     out[t][r] = bias[r] + ((p_0 + p_1) + p_2) + ...
//     int8:         p_g = float(i_g) * (w_scale * x_scale)
//     int4 masked:  p_g = float(s_g) * (d * x_scale)
//     int4 dense:   p_g = float(s_g) * (d * x_scale) - float(m_g) * (dmin * x_scale)
//
// where i_g is the exact integer product of group g, s_g that of int4 with the products of
// every 32 columns times their subscale, m_g the sum of submin * (sum of the activations'
// codes): the same bits on every machine, for every number of tokens and threads. With bf16 weights the order of the sum is the
// kernel's; it depends on neither threads nor token values. Throws std::logic_error for an
// input that lacks the form or has other columns.
void multiply(Pool& pool, const Input& input, std::span<const Product> products,
              const Kernels& with = kernels());

// Throws std::invalid_argument unless every tile's masks keep as many weights as there are
// values (or at most `slots` in a block), so that no kernel reads past the plane. To be
// called once for a matrix that comes from outside. Returns whether every row of a unit keeps
// slots / 4 weights: kernels then know where the runs of rows divide.
bool check_masks(Pool& pool, const PackedView& view);

}  // namespace subllm
