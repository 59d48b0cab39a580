// Bindings of what a recovery learns with.

#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "learning/adamw.h"
#include "learning/between.h"
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

double run(Pool& pool, const ReadValues& gradient, std::optional<Array<const uint64_t>> bits,
           std::optional<Array<const int32_t>> starts, std::optional<Array<float>> master,
           std::optional<Array<int16_t>> rest, const Values& first, const Values& second,
           const Values& weight, double clip, double beta1, double beta2, double eps, double rate,
           double root, const std::string& isa) {
  const auto whole = static_cast<int64_t>(gradient.size());
  const auto count = static_cast<int64_t>(first.size());
  const AdamwStep step{
      whole, count, {pointer(bits), pointer(starts)},
      type_of("gradient", gradient), type_of("first", first), type_of("weight", weight),
      gradient.data(), pointer(master), pointer(rest), first.data(), second.data(), weight.data(),
      clip, beta1, beta2, eps, rate, root};
  if (type_of("second", second) != step.moments_type)
    throw std::invalid_argument("first and second differ in type");
  expect_size("second", second.size(), count);
  expect_size("weight", weight.size(), whole);
  if (master) {
    expect_size("master", master->size(), count);
  } else if (step.weight_type == LearnedType::bf16) {
    expect_size("rest", size(rest), count);
  } else if (rest) {
    throw std::invalid_argument("a float32 weight has no rest");
  }
  if (bits) {
    expect_size("bits", bits->size(), (whole + 63) / 64);
    expect_size("starts", size(starts), step.chunks());
  } else {
    expect_size("first", first.size(), whole);
  }
  const AdamwOps& ops = adamw_ops(isa);
  nb::gil_scoped_release release;
  return adamw(pool, step, ops);
}

void run_gated(Pool& pool, const ReadValues& gate, const ReadValues& up,
               std::optional<ReadValues> back, const Values& out, std::optional<Values> out_up,
               const std::string& isa) {
  const Gated call{type_of("gate", gate), static_cast<int64_t>(gate.size()), gate.data(), up.data(),
                   back ? back->data() : nullptr, out.data(), out_up ? out_up->data() : nullptr};
  if (back.has_value() != out_up.has_value())
    throw std::invalid_argument("back and out_up belong together");
  if (type_of("up", up) != call.type || type_of("out", out) != call.type ||
      (back && (type_of("back", *back) != call.type || type_of("out_up", *out_up) != call.type)))
    throw std::invalid_argument("gate and others differ in type");
  expect_size("up", up.size(), call.count);
  expect_size("out", out.size(), call.count);
  if (back) expect_size("back", back->size(), call.count);
  if (out_up) expect_size("out_up", out_up->size(), call.count);
  const BetweenOps& ops = between_ops(isa);
  nb::gil_scoped_release release;
  gated(pool, call, ops);
}

void run_normed(Pool& pool, const ReadValues& x, const ReadValues& weight, double eps,
                std::optional<ReadValues> back, const Values& out, const std::string& isa) {
  const auto columns = static_cast<int64_t>(weight.size());
  const auto count = static_cast<int64_t>(x.size());
  const Normed call{type_of("x", x), columns ? count / columns : 0, columns,
                    static_cast<float>(eps), x.data(), weight.data(),
                    back ? back->data() : nullptr, out.data()};
  if (type_of("weight", weight) != call.type || type_of("out", out) != call.type ||
      (back && type_of("back", *back) != call.type))
    throw std::invalid_argument("x and others differ in type");
  expect_size("x", x.size(), call.rows * columns);
  expect_size("out", out.size(), count);
  if (back) expect_size("back", back->size(), count);
  const BetweenOps& ops = between_ops(isa);
  nb::gil_scoped_release release;
  normed(pool, call, ops);
}

}  // namespace

void bind_learning(nb::module_& m) {
  m.attr("ADAMW_CHUNK") = kAdamwChunk;
  m.def("adamw_isas", [] {
    std::vector<std::string> names;
    for (const auto name : adamw_isas()) names.emplace_back(name);
    return names;
  }, "Names that `adamw` takes as `isa`, best first.");
  m.def("adamw", &run, "pool"_a, "gradient"_a.noconvert(), "bits"_a.noconvert().none(),
        "starts"_a.noconvert().none(), "master"_a.noconvert().none(), "rest"_a.noconvert().none(),
        "first"_a.noconvert(), "second"_a.noconvert(), "weight"_a.noconvert(), "clip"_a,
        "beta1"_a, "beta2"_a, "eps"_a, "rate"_a, "root"_a, "isa"_a = "",
        "One step on the kept values of a tensor; returns the gradient's norm over them, and has "
        "changed nothing where that is not finite.");
  m.def("gated", &run_gated, "pool"_a, "gate"_a.noconvert(), "up"_a.noconvert(),
        "back"_a.noconvert().none(), "out"_a.noconvert(), "out_up"_a.noconvert().none(),
        "isa"_a = "",
        "out = silu(gate) * up; or, with the gradient `back` by that, those by gate and by up.");
  m.def("normed", &run_normed, "pool"_a, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a,
        "back"_a.noconvert().none(), "out"_a.noconvert(), "isa"_a = "",
        "out = RMSNorm of the rows of x; or, with the gradient `back` by that, the one by x.");
}

}  // namespace subllm::python
