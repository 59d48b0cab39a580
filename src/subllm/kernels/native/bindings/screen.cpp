// Bindings of the head's screening plane: making it, and its product for tests and benchmarks.

#include "bindings/bindings.h"
#include "decoder/head.h"
#include "screen/screen.h"
#include "threads/pool.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

void check_sizes(const ScreenView& view, size_t codes, size_t steps, size_t columns) {
  check_geometry({view.rows, view.cols, kBlockCols, ValueType::int8});
  expect_size("codes", codes, view.tiles() * view.units() * kScreenUnit);
  expect_size("steps", steps, view.tiles() * kScreenRows);
  expect_size("columns", columns, kScreenCols);
}

void construct(ScreenHandle* self, int64_t rows, int64_t cols, Array<const uint8_t> codes,
               Array<const float> steps, Array<const int32_t> columns) {
  const ScreenView view{rows, cols, codes.data(), steps.data(), columns.data()};
  check_sizes(view, codes.size(), steps.size(), columns.size());
  for (int64_t i = 0; i < kScreenCols; ++i)
    if (columns.data()[i] < -1 || columns.data()[i] >= cols)
      throw std::invalid_argument("a column of the screening plane does not exist");
  new (self) ScreenHandle{codes, steps, columns, view};
}

void build(int64_t rows, int64_t cols, int64_t slots, const std::string& values_type,
           std::optional<Array<const uint64_t>> mask, std::optional<Array<const uint32_t>> offsets,
           Array<const uint8_t> values, std::optional<Array<const uint16_t>> scales,
           std::optional<Array<const uint8_t>> subscales, Array<uint8_t> codes,
           Array<float> steps, Array<int32_t> columns, int threads) {
  const auto view = view_of(rows, cols, slots, values_type, mask, values.data(),
                            static_cast<int64_t>(values.size()), pointer(scales), size(scales),
                            offsets, pointer(subscales), size(subscales));
  check_sizes({rows, cols}, codes.size(), steps.size(), columns.size());
  nb::gil_scoped_release release;
  build_screen(view, codes.data(), steps.data(), columns.data(), threads);
}

void multiply(Pool& pool, const ScreenHandle& handle, Matrix<const float> x, Matrix<float> out,
              const std::string& isa) {
  const Kernels& with = isa.empty() ? kernels() : kernels(isa);
  const auto tokens = static_cast<int64_t>(x.shape(0));
  if (static_cast<int64_t>(x.shape(1)) != handle.view.cols)
    throw std::invalid_argument("x and the screening plane differ in columns");
  expect_size("out", out.size(), tokens * handle.view.rows);
  nb::gil_scoped_release release;
  ScreenInput input;
  input.prepare(pool, handle.view, x.data(), tokens);
  screen(pool, handle.view, input, out.data(), handle.view.rows, with);
}

}  // namespace

void bind_screen(nb::module_& m) {
  m.attr("SCREEN_CANDIDATES") = kCandidates;
  m.attr("SCREEN_MOST_TAIL") = kMostTail;
  nb::class_<ScreenHandle>(m, "Screen", "The screening plane of a head, checked and kept alive.")
      .def("__init__", &construct, "rows"_a, "cols"_a, "codes"_a.noconvert(),
           "steps"_a.noconvert(), "columns"_a.noconvert());
  m.def("build_screen", &build, "rows"_a, "cols"_a, "slots"_a, "values_type"_a,
        "mask"_a.noconvert().none(), "offsets"_a.noconvert().none(), "values"_a.noconvert(),
        "scales"_a.noconvert().none(), "subscales"_a.noconvert().none(), "codes"_a.noconvert(),
        "steps"_a.noconvert(), "columns"_a.noconvert(), "threads"_a = 0,
        "Fills the planes of a packed matrix's screen.");
  m.def("screen", &multiply, "pool"_a, "screen"_a, "x"_a.noconvert(), "out"_a.noconvert(),
        "isa"_a = "", "out = x @ copy.T, with x rounded to int8 by one scale a row.");
}

}  // namespace subllm::python
