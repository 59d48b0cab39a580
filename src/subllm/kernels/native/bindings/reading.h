// What Python hands over of a model's architecture and weights, as the core's structures.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "decoder/trunk.h"

namespace subllm::python {

// "float32", "bfloat16" or "int8".
KvType kv_type_of(const std::string& name);

// The fields of an ArchSpec.
DecoderSpec spec_of(const nb::dict& dict);

// Reads weights by name; `keep` gets the matrices, whose planes must outlive what is made of
// them. What is absent comes empty.
class WeightReader {
 public:
  WeightReader(const nb::dict& dict, std::vector<nb::object>& keep) : dict_(dict), keep_(keep) {}

  PackedView matrix(const std::string& name);
  std::optional<ScreenView> screen(const std::string& name);
  std::vector<float> vector(const std::string& name);
  LinearWeights linear(const std::string& name) { return {matrix(name), vector(name + "_bias")}; }
  NormWeights norm(const std::string& name) { return {vector(name), vector(name + "_bias")}; }

 private:
  const nb::dict& dict_;
  std::vector<nb::object>& keep_;
};

// One block: q, k, v, o, gate, up, down (Matrix) and norms (float32), with `_bias`.
LayerWeights layer_of(const nb::dict& dict, std::vector<nb::object>& keep);

}  // namespace subllm::python
