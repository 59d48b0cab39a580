#include "decoder/spec.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace subllm {

namespace {

constexpr int64_t kMaxSide = int64_t{1} << 31;

void expect(bool right, const std::string& what) {
  if (!right) throw std::invalid_argument("architecture: " + what);
}

void expect_size(const char* name, int64_t value, int64_t limit) {
  expect(value >= 1 && value <= limit, std::string(name) + " is out of range");
}

}  // namespace

void check_spec(const DecoderSpec& spec) {
  expect_size("hidden_size", spec.hidden, kMaxSide);
  expect_size("intermediate_size", spec.intermediate, kMaxSide);
  expect_size("num_layers", spec.layers, 4096);
  expect_size("num_heads", spec.heads, 4096);
  expect_size("num_kv_heads", spec.kv_heads, spec.heads);
  expect_size("head_dim", spec.head_dim, 4096);
  expect_size("vocab_size", spec.vocab, kMaxSide - 1);
  expect(spec.heads % spec.kv_heads == 0, "num_heads is not a multiple of num_kv_heads");
  expect(spec.head_dim % 2 == 0, "head_dim is odd");
  expect(static_cast<int64_t>(spec.sliding.size()) == spec.layers,
         "sliding_layers has another number of entries than there are layers");
  expect(spec.window >= 0, "sliding_window is negative");
  expect(std::isfinite(spec.norm_eps) && spec.norm_eps >= 0.0f, "norm_eps is out of range");
  for (const double number :
       {double{spec.norm_offset}, double{spec.attn_scale}, double{spec.attn_softcap},
        double{spec.final_softcap}, double{spec.embed_scale}, spec.rope.low_freq_factor,
        spec.rope.high_freq_factor})
    expect(std::isfinite(number), "a number is not finite");
  expect(spec.attn_softcap >= 0.0f && spec.final_softcap >= 0.0f, "a soft cap is negative");
  for (const double number : {spec.rope.theta, spec.rope.local_theta.value_or(1.0),
                              spec.rope.factor, spec.rope.original_context})
    expect(std::isfinite(number) && number > 0.0, "a rope parameter is not positive");
}

}  // namespace subllm
