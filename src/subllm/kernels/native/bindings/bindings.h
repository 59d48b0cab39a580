// What the binding files share: array types, checks, handles. Only bindings*.cpp know Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "core.h"
#include "isa/screen.h"
#include "product/relay.h"

namespace subllm::python {

namespace nb = nanobind;

template <typename T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
T* pointer(const std::optional<Array<T>>& array) {
  return array ? array->data() : nullptr;
}

template <typename T>
int64_t size(const std::optional<Array<T>>& array) {
  return array ? static_cast<int64_t>(array->size()) : 0;
}

inline void expect_size(const char* name, size_t have, int64_t want) {
  if (static_cast<int64_t>(have) != want)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(have) +
                                " elements where " + std::to_string(want) + " belong");
}

inline PackedView view_of(int64_t rows, int64_t cols, int64_t slots,
                          const std::string& values_type,
                          const std::optional<Array<const uint64_t>>& mask,
                          const uint8_t* values, int64_t values_size,
                          const uint16_t* scales, int64_t scales_size,
                          const std::optional<Array<const uint32_t>>& offsets,
                          const uint8_t* subscales, int64_t subscales_size) {
  const PackedView view{{rows, cols, slots, parse_value_type(values_type)},
                        pointer(mask), values, scales, pointer(offsets), subscales};
  check_planes(view, {size(mask), values_size, scales_size, size(offsets), subscales_size});
  return view;
}

// A packed matrix whose planes Python owns; it keeps them alive.
struct MatrixHandle {
  std::optional<Array<const uint64_t>> mask;
  std::optional<Array<const uint32_t>> offsets;
  Array<const uint8_t> values;
  std::optional<Array<const uint16_t>> scales;
  std::optional<Array<const uint8_t>> subscales;
  PackedView view;
  Planes relaid;
};

// The screening plane of a head, likewise.
struct ScreenHandle {
  Array<const uint8_t> codes;
  Array<const float> steps;
  Array<const int32_t> columns;
  ScreenView view;
};

void bind_kernels(nb::module_& m);
void bind_screen(nb::module_& m);
void bind_decoder(nb::module_& m);
void bind_text(nb::module_& m);
void bind_block(nb::module_& m);
void bind_learning(nb::module_& m);

}  // namespace subllm::python
