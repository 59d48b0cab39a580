// Activations, made ready once for all matrices that read them.
#pragma once

#include <cstdint>
#include <memory>

#include "core.h"
#include "isa/isa.h"
#include "threads/pool.h"

namespace subllm {

// What a product reads of its input.
enum InputForm : unsigned {
  kInt8Input = 1,   // for int8 and int4 weights: int8 codes, a scale per 128 columns
  kBf16Input = 2,   // for bf16 weights: bfloat16
  kExactInput = 4,  // for every weight: float32 as given; slow, to judge the others by
};

// The form that a matrix of this type reads (unless the exact one is there).
constexpr unsigned input_form(ValueType type) {
  return type == ValueType::bf16 ? kBf16Input : kInt8Input;
}

// A buffer that only grows; contents are lost when it does. Aligned to kAlign.
template <typename T>
class Buffer {
 public:
  T* reserve(int64_t count) {
    if (count > size_) {
      data_.reset(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T),
                                                 std::align_val_t{kAlign})));
      size_ = count;
    }
    return data_.get();
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }

 private:
  struct Delete {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{kAlign}); }
  };
  std::unique_ptr<T, Delete> data_;
  int64_t size_ = 0;
};

// Activations [tokens, cols] in the forms asked for. May be prepared again and again.
//
// Codes are symmetric per token and group of 128 columns: scale = max |x| / 127,
// code = x * (127 / max |x|), nearest even; both are 0 where max |x| < 1e-30. So they
// depend on nothing but the values: not on the machine, the threads or the other tokens.
class Input {
 public:
  // x [tokens][x_stride], finite. `forms` is a union of InputForm. Products must use the
  // same kernels.
  void prepare(Pool& pool, const float* x, int64_t tokens, int64_t cols, int64_t x_stride,
               unsigned forms, const Kernels& with = kernels());

  unsigned forms() const { return forms_; }
  const Activations& view() const { return view_; }
  // Columns rounded up to whole groups: the length of a token's codes, bf16 and exact, which
  // are zero from `cols` on.
  int64_t stride() const { return view_.groups * kGroupCols; }
  const float* exact() const { return exact_.data(); }  // [tokens][stride]

 private:
  unsigned forms_ = 0;
  Activations view_{};
  Buffer<int8_t> codes_;
  Buffer<float> scales_;
  Buffer<int16_t> subs_;
  Buffer<uint32_t> code_lanes_;
  Buffer<float> scale_lanes_;
  Buffer<uint32_t> sub_lanes_;
  Buffer<uint16_t> bf16_;
  Buffer<uint32_t> bf16_lanes_;
  Buffer<float> exact_;
};

}  // namespace subllm
