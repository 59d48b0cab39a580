// Making and using the screening plane of a head; isa/screen.h describes it.
#pragma once

#include <cstdint>

#include "core.h"
#include "isa/isa.h"
#include "isa/screen.h"
#include "product/input.h"
#include "threads/pool.h"

namespace subllm {

// Fills codes, steps and columns of the plane of a packed matrix. A row's step is where repeated
// least squares comes to rest from the step that suits a normal distribution (at most 16 times).
// `columns` are those with the largest sum of squared errors in steps (of about 16,384 rows) when
// all have 2 bits; they do not take part in the final steps. The result depends on neither
// threads nor machine. Throws as unpack_tile does.
void build_screen(const PackedView& head, uint8_t* codes, float* steps, int32_t* columns,
                  int threads);

// The product for these kernels.
ScreenProduct screen_product(const Kernels& with);

// States [tokens][cols] quantised for a screen, each by itself. May be prepared again and again.
class ScreenInput {
 public:
  void prepare(Pool& pool, const ScreenView& view, const float* x, int64_t tokens);
  const ScreenStates& states() const { return states_; }
  // Whether all values of a state are finite.
  bool finite(int64_t token) const { return finite_[token] != 0; }

 private:
  ScreenStates states_{};
  Buffer<int8_t> codes_;
  Buffer<float> scales_;
  Buffer<int32_t> sums_;
  Buffer<uint8_t> finite_buffer_;
  uint8_t* finite_ = nullptr;
};

// out [tokens][out_stride] = products of the prepared states with all rows of the copy.
void screen(Pool& pool, const ScreenView& view, const ScreenInput& input, float* out,
            int64_t out_stride, const Kernels& with = kernels());

}  // namespace subllm
