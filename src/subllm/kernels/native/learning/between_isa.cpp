// What lies between products for one instruction set: compiled once for each, with SUBLLM_ISA its
// name. Values are widened to float32 a piece at a time, which stays in the innermost cache.

#include "decoder/lanes.h"
#include "isa/per_isa.h"
#include "learning/between.h"

namespace subllm {

namespace {

constexpr int64_t kPiece = 1024;

SUBLLM_INLINE void widen(const float* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
SUBLLM_INLINE void widen(const uint16_t* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = __builtin_bit_cast(float, static_cast<uint32_t>(from[i]) << 16);
}

SUBLLM_INLINE void narrow(const float* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
// Nearest even; what is no number stays none.
SUBLLM_INLINE void narrow(const float* __restrict from, int64_t n, uint16_t* __restrict to) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, from[i]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
}

template <class T>
void gated_of(const Gated& call, int64_t begin, int64_t end) {
  float gate[kPiece], up[kPiece], back[kPiece];
  for (int64_t at = begin; at < end; at += kPiece) {
    const int64_t n = end - at < kPiece ? end - at : kPiece;
    widen(static_cast<const T*>(call.gate) + at, n, gate);
    widen(static_cast<const T*>(call.up) + at, n, up);
    if (!call.back) {
      each_lanes(n, [&](int64_t i, auto count) {
        const Floats g = take(gate + i, count);
        put(gate + i, g / (splat(1.0f) + exp_of(-g)) * take(up + i, count), count);
      });
      narrow(gate, n, static_cast<T*>(call.out) + at);
      continue;
    }
    widen(static_cast<const T*>(call.back) + at, n, back);
    each_lanes(n, [&](int64_t i, auto count) {
      const Floats g = take(gate + i, count), d = take(back + i, count);
      const Floats s = splat(1.0f) / (splat(1.0f) + exp_of(-g));
      put(gate + i, d * take(up + i, count) * s * (splat(1.0f) + g * (splat(1.0f) - s)), count);
      put(up + i, d * g * s, count);
    });
    narrow(gate, n, static_cast<T*>(call.out) + at);
    narrow(up, n, static_cast<T*>(call.out_up) + at);
  }
}

template <class T>
void normed_of(const Normed& call, int64_t begin, int64_t end) {
  float x[kPiece], w[kPiece], back[kPiece];
  const int64_t columns = call.columns;
  const auto* weight = static_cast<const T*>(call.weight);
  for (int64_t row = begin; row < end; ++row) {
    const auto* from = static_cast<const T*>(call.x) + row * columns;
    const auto* by = static_cast<const T*>(call.back) + (call.back ? row * columns : 0);
    auto* out = static_cast<T*>(call.out) + row * columns;
    Floats squares{}, crossed{};
    for (int64_t at = 0; at < columns; at += kPiece) {
      const int64_t n = columns - at < kPiece ? columns - at : kPiece;
      widen(from + at, n, x);
      if (call.back) {
        widen(weight + at, n, w);
        widen(by + at, n, back);
      }
      each_lanes(n, [&](int64_t i, auto count) {
        const Floats value = take(x + i, count);
        squares += value * value;
        if (call.back) crossed += value * take(w + i, count) * take(back + i, count);
      });
    }
    const float mean = sum_of(squares) / static_cast<float>(columns);
    const float scale = 1.0f / __builtin_sqrtf(mean + call.eps);
    const Floats factor = splat(scale);
    const Floats along =
        splat(sum_of(crossed) * scale * scale * scale / static_cast<float>(columns));
    for (int64_t at = 0; at < columns; at += kPiece) {
      const int64_t n = columns - at < kPiece ? columns - at : kPiece;
      widen(from + at, n, x);
      widen(weight + at, n, w);
      if (call.back) widen(by + at, n, back);
      each_lanes(n, [&](int64_t i, auto count) {
        const Floats value = take(x + i, count), each = take(w + i, count);
        const Floats result = call.back
                                  ? factor * each * take(back + i, count) - value * along
                                  : value * factor * each;
        put(x + i, result, count);
      });
      narrow(x, n, out + at);
    }
  }
}

void gated(const Gated& call, int64_t begin, int64_t end) {
  if (call.type == LearnedType::bf16)
    gated_of<uint16_t>(call, begin, end);
  else
    gated_of<float>(call, begin, end);
}

void normed(const Normed& call, int64_t begin, int64_t end) {
  if (call.type == LearnedType::bf16)
    normed_of<uint16_t>(call, begin, end);
  else
    normed_of<float>(call, begin, end);
}

}  // namespace

extern const BetweenOps SUBLLM_FOR_ISA(between);
const BetweenOps SUBLLM_FOR_ISA(between) = {SUBLLM_TEXT(SUBLLM_ISA), gated, normed};

}  // namespace subllm
