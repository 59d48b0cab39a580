// Bindings of the matrix products, for tests and benchmarks; the decoder calls them in C++.

#include <nanobind/stl/vector.h>

#include <vector>

#include "bindings/bindings.h"
#include "isa/isa.h"
#include "threads/pool.h"
#include "product/product.h"
#include "product/read.h"
#include "product/relay.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

void construct(MatrixHandle* self, int64_t rows, int64_t cols, int64_t slots,
               const std::string& values_type, std::optional<Array<const uint64_t>> mask,
               std::optional<Array<const uint32_t>> offsets, Array<const uint8_t> values,
               std::optional<Array<const uint16_t>> scales,
               std::optional<Array<const uint8_t>> subscales) {
  PackedView view = view_of(rows, cols, slots, values_type, mask, values.data(),
                                  static_cast<int64_t>(values.size()), pointer(scales),
                                  size(scales), offsets, pointer(subscales), size(subscales));
  Pool pool;
  view.balanced = check_masks(pool, view);
  Planes relaid;
  relay(pool, view, relaid);
  new (self) MatrixHandle{mask, offsets, values, scales, subscales, view, std::move(relaid)};
}

void multiply(Pool& pool, const std::vector<MatrixHandle*>& matrices, Matrix<const float> x,
              const std::vector<Matrix<float>>& outs,
              const std::vector<std::optional<Array<const float>>>& biases,
              const std::string& isa, bool exact) {
  if (matrices.size() != outs.size() || matrices.size() != biases.size())
    throw std::invalid_argument("there must be one output and one bias for each matrix");
  const Kernels& with = isa.empty() ? kernels() : kernels(isa);
  const auto tokens = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  std::vector<Product> products;
  unsigned forms = exact ? kExactInput : 0;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const Geometry& g = matrices[i]->view.geometry;
    expect_size("out", outs[i].size(), tokens * g.rows);
    if (g.cols != cols) throw std::invalid_argument("x and a matrix differ in columns");
    if (!exact) forms |= input_form(g.type);
    if (biases[i]) expect_size("bias", biases[i]->size(), g.rows);
    // Kernels that are not this process's own may want another layout of the matrix.
    relay(pool, matrices[i]->view, matrices[i]->relaid, with);
    products.push_back({&matrices[i]->view, pointer(biases[i]), outs[i].data(), g.rows});
  }
  nb::gil_scoped_release release;
  Input input;
  input.prepare(pool, x.data(), tokens, cols, cols, forms, with);
  subllm::multiply(pool, input, products, with);
}

}  // namespace

void bind_kernels(nb::module_& m) {
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const auto name : isas()) names.emplace_back(name);
    return names;
  }, "Names of the kernels that this CPU runs, best first.");
  nb::class_<Pool>(m, "Pool", "Threads of the engine, at most one per usable CPU.")
      .def(nb::init<int>(), "threads"_a = 0)
      .def_prop_ro("threads", &Pool::threads);
  nb::class_<MatrixHandle>(m, "Matrix", "The planes of a packed matrix, checked and kept alive.")
      .def("__init__", &construct, "rows"_a, "cols"_a, "slots"_a, "values_type"_a,
           "mask"_a.noconvert().none(), "offsets"_a.noconvert().none(), "values"_a.noconvert(),
           "scales"_a.noconvert().none(), "subscales"_a.noconvert().none())
      .def_prop_ro("relaid_bytes", [](const MatrixHandle& self) { return self.relaid.size(); },
                   "Private memory of planes that the kernels have laid out anew; 0 where they read those given.");
  m.def("sum_words", [](Pool& pool, Array<const uint64_t> words) {
    nb::gil_scoped_release release;
    return sum_words(pool, words.data(), static_cast<int64_t>(words.size()));
  }, "pool"_a, "words"_a.noconvert(), "Sum of all words modulo 2^64, as fast as memory is read.");
  m.def("multiply", &multiply, "pool"_a, "matrices"_a, "x"_a.noconvert(), "outs"_a, "biases"_a, "isa"_a = "",
        "exact"_a = false,
        "outs[i] = x @ matrices[i].T + biases[i] (or None) in one parallel region; RuntimeError for an `isa` that "
        "this CPU does not run.");
}

}  // namespace subllm::python
