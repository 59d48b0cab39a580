// Bindings of a single block, for calibration.

#include <nanobind/stl/string.h>

#include <memory>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/reading.h"
#include "decoder/block.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

template <typename T>
using States = nb::ndarray<T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

class BlockHandle {
 public:
  BlockHandle(const nb::dict& spec, const nb::dict& weights, int threads, bool exact)
      : block_(spec_of(spec), layer_of(weights, keep_), {KvType::f32, threads, exact}) {}

  void run(States<float> x) {
    check(x.shape(2));
    nb::gil_scoped_release release;
    block_.run(sequences(x), static_cast<int64_t>(x.shape(1)), x.data());
  }

  void collect(States<const float> x, Sums attention, Sums output, Sums mlp, Sums down) {
    const DecoderSpec& spec = block_.spec();
    check(x.shape(2));
    expect_size("attention", attention.size(), spec.hidden);
    expect_size("output", output.size(), spec.q_size());
    expect_size("mlp", mlp.size(), spec.hidden);
    expect_size("down", down.size(), spec.intermediate);
    nb::gil_scoped_release release;
    block_.collect(sequences(x), static_cast<int64_t>(x.shape(1)), x.data(),
                   {attention.data(), output.data(), mlp.data(), down.data()});
  }

 private:
  template <typename T>
  static int64_t sequences(const States<T>& x) {
    return static_cast<int64_t>(x.shape(0));
  }
  void check(size_t hidden) const {
    if (static_cast<int64_t>(hidden) != block_.spec().hidden)
      throw std::invalid_argument("the states are " + std::to_string(hidden) + " wide, not " +
                                  std::to_string(block_.spec().hidden));
  }

  std::vector<nb::object> keep_;
  Block block_;
};

}  // namespace

void bind_block(nb::module_& m) {
  nb::class_<BlockHandle>(m, "Block",
                          "One block of a model on whole sequences of hidden states. Not to be "
                          "used by two threads at once. ValueError for arguments that do not fit.")
      .def(nb::init<const nb::dict&, const nb::dict&, int, bool>(), "spec"_a, "weights"_a,
           "threads"_a = 0, "exact"_a = false,
           "spec: fields of an ArchSpec of one layer. weights: as a layer of Decoder's.")
      .def("run", &BlockHandle::run, "x"_a.noconvert(),
           "Replaces float32 [sequences, length, hidden] by what leaves the block.")
      .def("collect", &BlockHandle::collect, "x"_a.noconvert(), "attention"_a.noconvert(),
           "output"_a.noconvert(), "mlp"_a.noconvert(), "down"_a.noconvert(),
           "Adds to float64 [columns] the squares of each input of its matrices.");
}

}  // namespace subllm::python
