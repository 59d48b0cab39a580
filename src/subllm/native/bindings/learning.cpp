// Bindings of what a recovery learns with.

#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "learning/adamw.h"
#include "threads/pool.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

using Values = nb::ndarray<nb::c_contig, nb::device::cpu>;
using ReadValues = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

template <typename Any>
LearnedType type_of(const char* name, const Any& values) {
  if (values.dtype() == nb::dtype<float>()) return LearnedType::f32;
  if (values.dtype() == nb::dtype<uint16_t>()) return LearnedType::bf16;
  throw std::invalid_argument(std::string(name) + " is neither float32 nor bfloat16 as uint16");
}

double run(Pool& pool, const ReadValues& gradient, std::optional<Array<const uint8_t>> gaps,
           std::optional<Array<const int32_t>> starts, std::optional<Array<const int32_t>> indices,
           Array<float> master, const Values& first, const Values& second, const Values& weight,
           double clip, double beta1, double beta2, double eps, double rate, double root,
           const std::string& isa) {
  const auto whole = static_cast<int64_t>(gradient.size());
  const auto count = static_cast<int64_t>(master.size());
  const AdamwStep step{
      whole, count, {pointer(gaps), pointer(starts), pointer(indices)},
      type_of("gradient", gradient), type_of("first", first), type_of("weight", weight),
      gradient.data(), master.data(), first.data(), second.data(), weight.data(),
      clip, beta1, beta2, eps, rate, root};
  if (type_of("second", second) != step.moments_type)
    throw std::invalid_argument("first and second differ in type");
  expect_size("first", first.size(), count);
  expect_size("second", second.size(), count);
  expect_size("weight", weight.size(), whole);
  if (gaps) {
    expect_size("gaps", gaps->size(), count);
    expect_size("starts", size(starts), step.chunks());
  } else if (indices) {
    expect_size("indices", indices->size(), count);
  } else {
    expect_size("master", count, whole);
  }
  const AdamwOps& ops = adamw_ops(isa);
  nb::gil_scoped_release release;
  return adamw(pool, step, ops);
}

}  // namespace

void bind_learning(nb::module_& m) {
  m.attr("ADAMW_CHUNK") = kAdamwChunk;
  m.def("adamw_isas", [] {
    std::vector<std::string> names;
    for (const auto name : adamw_isas()) names.emplace_back(name);
    return names;
  }, "Names that `adamw` takes as `isa`, best first.");
  m.def("adamw", &run, "pool"_a, "gradient"_a.noconvert(), "gaps"_a.noconvert().none(),
        "starts"_a.noconvert().none(), "indices"_a.noconvert().none(), "master"_a.noconvert(),
        "first"_a.noconvert(), "second"_a.noconvert(), "weight"_a.noconvert(), "clip"_a,
        "beta1"_a, "beta2"_a, "eps"_a, "rate"_a, "root"_a, "isa"_a = "",
        "One step on the kept values of a tensor; returns the gradient's norm over them, and has "
        "changed nothing where that is not finite.");
}

}  // namespace subllm::python
