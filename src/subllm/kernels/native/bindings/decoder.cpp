// Bindings of the decoder: Python's structures to the core's, and back.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/reading.h"
#include "decoder/step.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Cube = nb::ndarray<T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const int32_t> span_of(const Tokens& tokens) { return {tokens.data(), tokens.size()}; }

DecoderWeights weights_of(const nb::dict& shared, const std::vector<nb::dict>& layers,
                          std::vector<nb::object>& keep) {
  DecoderWeights weights;
  WeightReader reader(shared, keep);
  weights.embedding = reader.matrix("embedding");
  weights.head = reader.matrix("head");
  weights.screen = reader.screen("screen");
  weights.final_norm = reader.norm("final_norm");
  for (const nb::dict& layer : layers) weights.layers.push_back(layer_of(layer, keep));
  return weights;
}

// A draw as Python packs it; `alive` keeps its history while that is read. What is allowed, a
// 13th field, the tuple itself keeps.
Draw draw_of(const nb::tuple& values, std::vector<Tokens>& alive) {
  const size_t fields = nb::len(values);
  if (fields != 12 && fields != 13) throw std::invalid_argument("a draw has 12 or 13 fields");
  Draw draw;
  draw.params.temperature = nb::cast<double>(values[0]);
  draw.params.top_k = nb::cast<int64_t>(values[1]);
  draw.params.top_p = nb::cast<double>(values[2]);
  draw.params.min_p = nb::cast<double>(values[3]);
  draw.params.repetition_penalty = nb::cast<double>(values[4]);
  draw.params.presence_penalty = nb::cast<double>(values[5]);
  draw.params.frequency_penalty = nb::cast<double>(values[6]);
  draw.params.logit_bias = nb::cast<std::vector<std::pair<int64_t, double>>>(values[7]);
  alive.push_back(nb::cast<Tokens>(values[8]));
  draw.history = span_of(alive.back());
  draw.prompt_length = nb::cast<int64_t>(values[9]);
  draw.uniform = nb::cast<double>(values[10]);
  draw.logprobs = nb::cast<int64_t>(values[11]);
  if (fields == 13) {
    const Bits bits = nb::cast<Bits>(values[12], false);
    if (bits.size() == 0) throw std::invalid_argument("allowed has no bits");
    draw.allowed = {bits.data(), bits.size()};
  }
  return draw;
}

nb::object object_of(const std::optional<TokenLogprob>& value) {
  if (!value) return nb::none();
  nb::list top;
  for (const auto& [token, logprob] : value->top) top.append(nb::make_tuple(token, logprob));
  return nb::make_tuple(value->token, value->logprob, nb::tuple(top));
}

class DecoderHandle {
 public:
  DecoderHandle(const nb::dict& spec, const nb::dict& shared, const std::vector<nb::dict>& layers,
                const std::string& kv, int threads, bool exact) {
    decoder_ = std::make_unique<Decoder>(spec_of(spec), weights_of(shared, layers, keep_),
                                         DecoderOptions{kv_type_of(kv), threads, exact});
  }

  // The decoder, for one caller at a time: others meet an error, not a data race.
  class Use {
   public:
    explicit Use(DecoderHandle& handle) : lock_(handle.mutex_, std::try_to_lock) {
      if (!lock_.owns_lock()) throw std::runtime_error("another thread is using this model");
      if (!handle.decoder_) throw std::runtime_error("this model is closed");
      decoder_ = handle.decoder_.get();
    }
    Decoder& operator*() const { return *decoder_; }
    Decoder* operator->() const { return decoder_; }

   private:
    std::unique_lock<std::mutex> lock_;
    Decoder* decoder_;
  };

  void close() {
    const Use use(*this);
    decoder_.reset();
    keep_.clear();
  }

 private:
  std::vector<nb::object> keep_;
  std::unique_ptr<Decoder> decoder_;
  std::mutex mutex_;
};

using Use = DecoderHandle::Use;

nb::list step(DecoderHandle& handle, const std::vector<nb::tuple>& chunks) {
  const Use decoder(handle);
  std::vector<Tokens> alive;
  std::vector<StepChunk> work;
  for (const nb::tuple& chunk : chunks) {
    if (nb::len(chunk) != 4) throw std::invalid_argument("a chunk has 4 fields");
    alive.push_back(nb::cast<Tokens>(chunk[2]));
    work.push_back({nb::cast<int64_t>(chunk[0]), nb::cast<int64_t>(chunk[1]),
                    span_of(alive.back()), {}});
    for (const nb::handle draw : nb::cast<nb::list>(chunk[3]))
      work.back().draws.push_back(draw_of(nb::cast<nb::tuple>(draw), alive));
  }
  std::vector<Choice> choices;
  {
    nb::gil_scoped_release release;
    choices = subllm::step(*decoder, work);
  }
  nb::list result;
  auto choice = choices.begin();
  for (const StepChunk& chunk : work) {
    nb::list drawn;
    for (size_t i = 0; i < chunk.draws.size(); ++i, ++choice)
      drawn.append(nb::make_tuple(choice->token, object_of(choice->logprob)));
    result.append(drawn);
  }
  return result;
}

nb::list score(DecoderHandle& handle, int64_t slab, int64_t start, const Tokens& tokens,
               const Tokens& targets, int64_t top) {
  const Use decoder(handle);
  std::vector<std::optional<TokenLogprob>> scores;
  {
    nb::gil_scoped_release release;
    scores = subllm::score(*decoder, slab, start, span_of(tokens), span_of(targets), top);
  }
  nb::list result;
  for (const auto& value : scores) result.append(object_of(value));
  return result;
}

// The logits of every token of one chunk, for tests.
void logits(DecoderHandle& handle, int64_t slab, int64_t start, const Tokens& tokens,
            Matrix<float> out) {
  const Use decoder(handle);
  const auto count = static_cast<int64_t>(tokens.size());
  expect_size("out", out.size(), count * decoder->spec().vocab);
  nb::gil_scoped_release release;
  const Chunk chunk{slab, start, span_of(tokens), 0, count};
  decoder->forward({&chunk, 1});
  const auto values = decoder->logits(0, count);
  std::memcpy(out.data(), values.data(), values.size_bytes());
}

// What the head reads of every token of one chunk, for tests.
void head_inputs(DecoderHandle& handle, int64_t slab, int64_t start, const Tokens& tokens,
                 Matrix<float> out) {
  const Use decoder(handle);
  const auto count = static_cast<int64_t>(tokens.size());
  expect_size("out", out.size(), count * decoder->spec().hidden);
  nb::gil_scoped_release release;
  const Chunk chunk{slab, start, span_of(tokens), 0, count};
  decoder->forward({&chunk, 1});
  const auto values = decoder->head_inputs();
  std::memcpy(out.data(), values.data(), values.size_bytes());
}

// The states that enter some layers, and what the head reads, of every token of one chunk.
void features(DecoderHandle& handle, int64_t slab, int64_t start, const Tokens& tokens,
              const std::vector<int64_t>& layers, Cube<float> out, Matrix<float> inputs) {
  const Use decoder(handle);
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t hidden = decoder->spec().hidden;
  expect_size("out", out.size(), count * static_cast<int64_t>(layers.size()) * hidden);
  expect_size("inputs", inputs.size(), count * hidden);
  nb::gil_scoped_release release;
  const Chunk chunk{slab, start, span_of(tokens), 0, count};
  decoder->forward({&chunk, 1}, layers, out.data());
  const auto values = decoder->head_inputs();
  std::memcpy(inputs.data(), values.data(), values.size_bytes());
}

std::span<const float> logits_of(const Logits& array) {
  if (array.size() == 0) throw std::invalid_argument("there are no logits");
  return {array.data(), array.size()};
}

std::optional<int64_t> sample(const Logits& array, const nb::tuple& values) {
  const std::span<const float> given = logits_of(array);
  std::vector<Tokens> alive;
  const Draw draw = draw_of(values, alive);
  check_draw(draw, static_cast<int64_t>(given.size()));
  nb::gil_scoped_release release;
  std::vector<float> adjusted(given.begin(), given.end());
  adjust(draw, adjusted);
  return subllm::sample(draw, adjusted);
}

nb::object logprob(const Logits& array, int64_t token, int64_t top) {
  const std::span<const float> given = logits_of(array);
  if (token < 0 || token >= static_cast<int64_t>(given.size()) || top < 0)
    throw std::invalid_argument("token or top is out of range");
  return object_of(logprob_of(token, top, given));
}

}  // namespace

void bind_decoder(nb::module_& m) {
  nb::class_<DecoderHandle>(m, "Decoder",
                            "A model over mapped weights. ValueError for arguments that do not "
                            "fit, RuntimeError when it is closed or in use.")
      .def(nb::init<const nb::dict&, const nb::dict&, const std::vector<nb::dict>&,
                    const std::string&, int, bool>(),
           "spec"_a, "shared"_a, "layers"_a, "kv"_a = "bfloat16", "threads"_a = 0,
           "exact"_a = false,
           "spec: fields of ArchSpec. shared: embedding, head, final_norm, screen (Screen) or "
           "none. layers: for each "
           "block q, k, v, o, gate, up, down (Matrix) and norms (float32), with `_bias`.")
      .def_prop_ro("kv_block_bytes",
                   [](DecoderHandle& self) { return Use(self)->cache().layout().block_bytes; })
      .def_prop_ro("kv_bytes", [](DecoderHandle& self) { return Use(self)->cache().bytes(); })
      .def("kv_open", [](DecoderHandle& self) { return Use(self)->cache().open(); })
      .def("kv_fork", [](DecoderHandle& self, int64_t slab, int64_t length) {
        return Use(self)->cache().fork(slab, length);
      }, "slab"_a, "length"_a)
      .def("kv_close", [](DecoderHandle& self, int64_t slab) { Use(self)->cache().close(slab); },
           "slab"_a)
      .def("step", &step, "chunks"_a,
           "[(slab, start, int32 tokens, [draw])] -> [[(token, logprob or None)]], of the last "
           "positions; a token is None where the logits of that draw are not finite.")
      .def("score", &score, "slab"_a, "start"_a, "tokens"_a.noconvert(), "targets"_a.noconvert(),
           "top"_a,
           "[(token, log-probability, ((token, log-probability), ...))] of the targets; None where "
           "the logits are not finite.")
      .def("logits", &logits, "slab"_a, "start"_a, "tokens"_a.noconvert(), "out"_a.noconvert(),
           "Fills float32 [tokens, vocab].")
      .def("head_inputs", &head_inputs, "slab"_a, "start"_a, "tokens"_a.noconvert(),
           "out"_a.noconvert(), "Fills float32 [tokens, hidden]: the normalised last states.")
      .def("features", &features, "slab"_a, "start"_a, "tokens"_a.noconvert(), "layers"_a,
           "out"_a.noconvert(), "inputs"_a.noconvert(),
           "Fills float32 [tokens, layers, hidden] with the states that enter these layers, and "
           "[tokens, hidden] with the normalised last states.")
      .def_prop_ro("verdicts", [](DecoderHandle& self) {
        const auto counts = Use(self)->verdicts();
        return std::vector<int64_t>(counts.begin(), counts.end());
      }, "Draws that the screen decided, that fell into its tail, that it left to the whole head; "
         "[] without a screen.")
      .def("close", &DecoderHandle::close);
  m.def("sample", &sample, "logits"_a.noconvert(), "draw"_a, "The token that a draw chooses; None where the logits are not finite.");
  m.def("logprob", &logprob, "logits"_a.noconvert(), "token"_a, "top"_a,
        "(token, log-probability, alternatives) under float32 [vocab]; None where it is not "
        "finite.");
}

}  // namespace subllm::python
