// The Python face of the native core: argument checks and docstrings, no arithmetic.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "core.h"
#include "threads/parallel.h"

namespace nb = nanobind;
using namespace nb::literals;

using subllm::python::Array;
using subllm::python::expect_size;
using subllm::python::Matrix;
using subllm::python::pointer;
using subllm::python::size;
using subllm::python::view_of;

namespace {

template <typename A, typename B>
void expect_same_shape(const Matrix<A>& a, const Matrix<B>& b) {
  if (a.shape(0) != b.shape(0) || a.shape(1) != b.shape(1))
    throw std::invalid_argument("input and output differ in shape");
}

void select_nm(Matrix<const float> scores, int n, int m, Matrix<bool> out, int threads) {
  expect_same_shape(scores, out);
  nb::gil_scoped_release release;
  subllm::select_nm(scores.data(), scores.shape(0), scores.shape(1), n, m, out.data(), threads);
}

void select_rows(Matrix<const float> scores, int64_t drop, Matrix<bool> out, int threads) {
  expect_same_shape(scores, out);
  nb::gil_scoped_release release;
  subllm::select_rows(scores.data(), scores.shape(0), scores.shape(1), drop, out.data(), threads);
}

int64_t mask_words(int64_t rows, int64_t cols) {
  const subllm::Geometry geometry{rows, cols, 0, subllm::ValueType::int8};
  subllm::check_geometry(geometry);
  return geometry.mask_words();
}

void pack_bits(Matrix<const bool> mask, Array<uint64_t> out, int threads) {
  expect_size("out", out.size(), mask_words(mask.shape(0), mask.shape(1)));
  nb::gil_scoped_release release;
  subllm::pack_bits(mask.data(), mask.shape(0), mask.shape(1), out.data(), threads);
}

void unpack_bits(Array<const uint64_t> bits, Matrix<bool> out, int threads) {
  expect_size("bits", bits.size(), mask_words(out.shape(0), out.shape(1)));
  nb::gil_scoped_release release;
  subllm::unpack_bits(bits.data(), out.shape(0), out.shape(1), out.data(), threads);
}

void tile_offsets(int64_t rows, int64_t cols, const std::string& values_type,
                  Array<const uint64_t> mask, Array<uint32_t> out) {
  const subllm::Geometry geometry{rows, cols, 0, subllm::parse_value_type(values_type)};
  expect_size("mask", mask.size(), mask_words(rows, cols));
  expect_size("out", out.size(), geometry.row_tiles() + 1);
  nb::gil_scoped_release release;
  subllm::tile_offsets(geometry, mask.data(), out.data());
}

void pack(Matrix<const float> weights, std::optional<Array<const float>> importance, int64_t slots, const std::string& values_type,
          std::optional<Array<const uint64_t>> mask, std::optional<Array<const uint32_t>> offsets,
          Array<uint8_t> values, std::optional<Array<uint16_t>> scales,
          std::optional<Array<uint8_t>> subscales, int threads) {
  const auto view = view_of(weights.shape(0), weights.shape(1), slots, values_type, mask,
                            values.data(), values.size(), pointer(scales), size(scales), offsets,
                            pointer(subscales), size(subscales));
  if (importance) expect_size("importance", importance->size(), weights.shape(1));
  nb::gil_scoped_release release;
  subllm::pack(weights.data(), pointer(importance), view.geometry, view.mask, view.offsets, values.data(),
               {pointer(scales), pointer(subscales)}, threads);
}

void pack_codes(Matrix<const uint8_t> codes, int64_t slots, const std::string& values_type,
                std::optional<Array<const uint64_t>> mask,
                std::optional<Array<const uint32_t>> offsets, Array<uint8_t> values,
                std::optional<Array<const uint16_t>> scales,
                std::optional<Array<const uint8_t>> subscales, int threads) {
  const auto view = view_of(codes.shape(0), codes.shape(1), slots, values_type, mask,
                            values.data(), values.size(), pointer(scales), size(scales), offsets,
                            pointer(subscales), size(subscales));
  if (view.geometry.type == subllm::ValueType::bf16)
    throw std::invalid_argument("bf16 values have no codes");
  nb::gil_scoped_release release;
  subllm::pack_codes(codes.data(), view.geometry, view.mask, view.offsets, values.data(), threads);
}

void round_with_feedback(Matrix<float> weights, Matrix<const float> upper,
                         Array<const int32_t> sub_of, Matrix<const float> steps,
                         std::optional<Matrix<const float>> minima,
                         std::optional<Matrix<const uint8_t>> kept, Matrix<uint8_t> codes,
                         Matrix<float> errors, int threads) {
  const auto rows = static_cast<int64_t>(weights.shape(0));
  const auto cols = static_cast<int64_t>(weights.shape(1));
  const auto subs = static_cast<int64_t>(steps.shape(1));
  expect_size("upper", upper.size(), cols * cols);
  expect_size("sub_of", sub_of.size(), cols);
  expect_size("steps", steps.size(), rows * subs);
  if (minima) expect_size("minima", minima->size(), rows * subs);
  if (kept) expect_size("kept", kept->size(), rows * cols);
  expect_size("codes", codes.size(), rows * cols);
  expect_size("errors", errors.size(), rows * cols);
  for (int64_t c = 0; c < cols; ++c)
    if (sub_of.data()[c] < 0 || sub_of.data()[c] >= subs)
      throw std::invalid_argument("a column's steps lie outside the matrix");
  const subllm::FeedbackBlock block{rows, cols, subs, upper.data(), sub_of.data(), steps.data(),
                                    minima ? minima->data() : nullptr,
                                    kept ? kept->data() : nullptr};
  nb::gil_scoped_release release;
  subllm::round_with_feedback(weights.data(), block, codes.data(), errors.data(), threads);
}

void unpack(int64_t slots, const std::string& values_type,
            std::optional<Array<const uint64_t>> mask,
            std::optional<Array<const uint32_t>> offsets, Array<const uint8_t> values,
            std::optional<Array<const uint16_t>> scales,
            std::optional<Array<const uint8_t>> subscales, Matrix<float> out, int threads) {
  const auto view = view_of(out.shape(0), out.shape(1), slots, values_type, mask, values.data(),
                            values.size(), pointer(scales), size(scales), offsets, pointer(subscales),
                            size(subscales));
  nb::gil_scoped_release release;
  subllm::unpack(view, out.data(), threads);
}

void unpack_rows(int64_t rows, int64_t slots, const std::string& values_type,
                 std::optional<Array<const uint64_t>> mask,
                 std::optional<Array<const uint32_t>> offsets, Array<const uint8_t> values,
                 std::optional<Array<const uint16_t>> scales,
                 std::optional<Array<const uint8_t>> subscales, Array<const int64_t> indices,
                 Matrix<float> out, int threads) {
  expect_size("indices", indices.size(), out.shape(0));
  const auto view = view_of(rows, out.shape(1), slots, values_type, mask, values.data(),
                            values.size(), pointer(scales), size(scales), offsets, pointer(subscales),
                            size(subscales));
  nb::gil_scoped_release release;
  subllm::unpack_rows(view, indices.data(), out.shape(0), out.data(), threads);
}

int64_t gguf_value_count(const std::string& type, int64_t bytes) {
  return subllm::gguf_value_count(type, bytes);
}

void gguf_dequantize(const std::string& type, Array<const uint8_t> data, Array<float> out,
                     int threads) {
  expect_size("out", out.size(), subllm::gguf_value_count(type, data.size()));
  nb::gil_scoped_release release;
  subllm::gguf_dequantize(type, data.data(), data.size(), out.data(), threads);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Packing, selection and GGUF decoding in C++. Outputs are arrays given by the "
            "caller; ValueError for data that does not fit. `threads` 0 means every usable CPU.";
  subllm::python::bind_kernels(m);
  subllm::python::bind_block(m);
  subllm::python::bind_screen(m);
  subllm::python::bind_decoder(m);
  subllm::python::bind_text(m);
  subllm::python::bind_learning(m);
  m.def("usable_cpus", &subllm::usable_cpus, "CPUs that this process may run on.");
  m.def("select_nm", &select_nm, "scores"_a.noconvert(), "n"_a, "m"_a, "out"_a.noconvert(), "threads"_a = 0,
        "out[r, c] = scores[r, c] is among the n highest of its group of m columns.");
  m.def("select_rows", &select_rows, "scores"_a.noconvert(), "drop"_a, "out"_a.noconvert(), "threads"_a = 0,
        "out[r, c] = scores[r, c] is not among the `drop` lowest of row r.");
  m.def("pack_bits", &pack_bits, "mask"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0,
        "bool [R, C] -> uint64 [row tiles, column blocks, 8].");
  m.def("unpack_bits", &unpack_bits, "bits"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0,
        "uint64 [row tiles, column blocks, 8] -> bool [R, C].");
  m.def("tile_offsets", &tile_offsets, "rows"_a, "cols"_a, "values_type"_a, "mask"_a.noconvert(), "out"_a.noconvert(),
        "Start of each row tile of an unstructured matrix, uint32 [row tiles + 1], in 64 bytes.");
  m.def("pack", &pack, "weights"_a.noconvert(), "importance"_a.noconvert().none(), "slots"_a, "values_type"_a, "mask"_a.noconvert().none(),
        "offsets"_a.noconvert().none(), "values"_a.noconvert(), "scales"_a.noconvert().none(), "subscales"_a.noconvert().none(), "threads"_a = 0,
        "Fills the values plane, the scales plane (binary16 as uint16) and the subscales plane.");
  m.def("pack_codes", &pack_codes, "codes"_a.noconvert(), "slots"_a, "values_type"_a, "mask"_a.noconvert().none(),
        "offsets"_a.noconvert().none(), "values"_a.noconvert(), "scales"_a.noconvert().none(), "subscales"_a.noconvert().none(), "threads"_a = 0,
        "Fills the values plane from codes uint8 [R, C].");
  m.def("round_with_feedback", &round_with_feedback, "weights"_a.noconvert(), "upper"_a.noconvert(),
        "sub_of"_a.noconvert(), "steps"_a.noconvert(), "minima"_a.noconvert().none(),
        "kept"_a.noconvert().none(), "codes"_a.noconvert(), "errors"_a.noconvert(), "threads"_a = 0,
        "Rounds some columns of an int4 matrix in their order; errors are taken from later ones.");
  m.def("unpack", &unpack, "slots"_a, "values_type"_a, "mask"_a.noconvert().none(), "offsets"_a.noconvert().none(),
        "values"_a.noconvert(), "scales"_a.noconvert().none(), "subscales"_a.noconvert().none(), "out"_a.noconvert(), "threads"_a = 0,
        "Packed planes -> float32 [R, C], dropped weights 0.");
  m.def("unpack_rows", &unpack_rows, "rows"_a, "slots"_a, "values_type"_a, "mask"_a.noconvert().none(),
        "offsets"_a.noconvert().none(), "values"_a.noconvert(), "scales"_a.noconvert().none(), "subscales"_a.noconvert().none(), "indices"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0,
        "Some rows of a packed matrix of `rows` rows -> float32 [len(indices), C].");
  m.def("gguf_value_count", &gguf_value_count, "type"_a, "bytes"_a,
        "Values in `bytes` bytes of a GGUF tensor type.");
  m.def("gguf_dequantize", &gguf_dequantize, "type"_a, "data"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0,
        "GGUF blocks -> float32, equal bit for bit to the gguf package.");
}
