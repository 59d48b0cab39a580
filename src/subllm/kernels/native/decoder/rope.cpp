#include "decoder/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "decoder/ops.h"

namespace subllm {

namespace {

// Single precision throughout, as the models were trained with.
std::vector<float> base_frequencies(double theta, int64_t dim) {
  std::vector<float> result;
  for (int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return result;
}

void scale_frequencies(const RopeSpec& rope, std::vector<float>& frequencies) {
  if (rope.scaling == RopeScaling::none) return;
  const auto factor = static_cast<float>(rope.factor);
  if (rope.scaling == RopeScaling::linear) {
    for (float& frequency : frequencies) frequency /= factor;
    return;
  }
  // llama3: long wavelengths are divided, short ones kept, those between blended.
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
    const float turns = static_cast<float>(rope.original_context) / wavelength;
    const float blend = std::clamp((turns - low) / (high - low), 0.0f, 1.0f);
    frequency *= blend + (1.0f - blend) / factor;
  }
}

}  // namespace

Rope::Rope(const DecoderSpec& spec) : half_(spec.head_dim / 2), local_(spec.rope.local_theta) {
  global_.frequencies = base_frequencies(spec.rope.theta, spec.head_dim);
  scale_frequencies(spec.rope, global_.frequencies);
  if (local_) sliding_.frequencies = base_frequencies(*spec.rope.local_theta, spec.head_dim);
}

void Rope::Table::at(std::span<const int64_t> positions) {
  const size_t half = frequencies.size();
  cos.resize(positions.size() * half);
  sin.resize(positions.size() * half);
  for (size_t row = 0; row < positions.size(); ++row)
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(positions[row]) * frequencies[i];
      cos[row * half + i] = std::cos(angle);
      sin[row * half + i] = std::sin(angle);
    }
}

void Rope::at(std::span<const int64_t> positions) {
  global_.at(positions);
  if (local_) sliding_.at(positions);
}

void Rope::apply(int64_t row, bool sliding, float* first, int64_t heads) const {
  const Table& table = sliding && local_ ? sliding_ : global_;
  const Ops& op = ops();
  for (int64_t head = 0; head < heads; ++head)
    op.rotate(table.cos.data() + row * half_, table.sin.data() + row * half_, half_,
              first + head * 2 * half_);
}

}  // namespace subllm
