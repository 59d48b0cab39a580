// Bindings of what tokenizers compute.

#include "bindings/bindings.h"
#include "text/bpe.h"

namespace subllm::python {

using namespace nb::literals;

namespace {

int64_t merge_words(Array<const uint64_t> pairs, Array<const uint32_t> ranks,
                    Array<const uint32_t> results, Array<const uint32_t> words,
                    Array<uint32_t> symbols) {
  const auto count = static_cast<int64_t>(pairs.size());
  expect_size("ranks", ranks.size(), count);
  expect_size("results", results.size(), count);
  expect_size("words", words.size(), static_cast<int64_t>(symbols.size()));
  nb::gil_scoped_release release;
  return subllm::merge_words({pairs.data(), ranks.data(), results.data(), count}, words.data(),
                             symbols.data(), static_cast<int64_t>(symbols.size()));
}

}  // namespace

void bind_text(nb::module_& m) {
  m.def("merge_words", &merge_words, "pairs"_a.noconvert(), "ranks"_a.noconvert(),
        "results"_a.noconvert(), "words"_a.noconvert(), "symbols"_a.noconvert(),
        "Byte pair encoding: tokens take the place of the symbols of each word, a run of equal "
        "`words`, from the start; returns how many they are. `pairs` (left << 32 | right) rise.");
}

}  // namespace subllm::python
