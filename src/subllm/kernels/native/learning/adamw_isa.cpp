// AdamW for one instruction set: compiled once for each, with SUBLLM_ISA its name. Loops are
// plain, over one chunk in the innermost cache, for the compiler to vectorise; as in files with
// decoder/lanes.h, nothing here is shared with code for another instruction set.

#include "isa/per_isa.h"
#include "learning/adamw.h"

#define SUBLLM_INLINE [[gnu::always_inline]] inline

namespace subllm {

namespace {

SUBLLM_INLINE float widen(float value) { return value; }
SUBLLM_INLINE float widen(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

SUBLLM_INLINE void narrow(float value, float& out) { out = value; }
// Nearest even; values are finite.
SUBLLM_INLINE void narrow(float value, uint16_t& out) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  out = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// One chunk's part of the arrays.
struct Part {
  int64_t begin;
  int64_t count;
  const int32_t* index;  // the place of each value, or null where it is begin + i
};

// `room` [kAdamwChunk] may be used for the index. False for a place outside the tensor.
SUBLLM_INLINE bool part_of(const AdamwStep& step, int64_t chunk, int32_t* room, Part& part) {
  const int64_t begin = chunk * kAdamwChunk;
  const int64_t left = step.count - begin;
  const int64_t count = left < kAdamwChunk ? left : kAdamwChunk;
  part = {begin, count, nullptr};
  if (step.places.bits) {
    int64_t at = step.places.starts[chunk];
    if (at < 0 || at >= step.size) return false;
    const int64_t words = (step.size + 63) / 64;
    int64_t found = 0;
    uint64_t skipped = ~uint64_t{0} << (at & 63);
    for (int64_t word = at >> 6; found < count; ++word) {
      if (word >= words) return false;
      uint64_t bits = step.places.bits[word] & skipped;
      skipped = ~uint64_t{0};
      for (; bits && found < count; bits &= bits - 1)
        room[found++] = static_cast<int32_t>(word * 64 + __builtin_ctzll(bits));
    }
    part.index = room;
    return count == 0 || room[count - 1] < step.size;
  }
  return begin + count <= step.size;
}

template <class T>
SUBLLM_INLINE void gather(const T* __restrict from, const Part& part, float* __restrict out) {
  if (!part.index) {
    for (int64_t i = 0; i < part.count; ++i) out[i] = widen(from[part.begin + i]);
    return;
  }
  // Collected first and widened afterwards: only the latter can be vectorised.
  T found[kAdamwChunk];
  for (int64_t i = 0; i < part.count; ++i) found[i] = from[part.index[i]];
  for (int64_t i = 0; i < part.count; ++i) out[i] = widen(found[i]);
}

SUBLLM_INLINE void gradient_of(const AdamwStep& step, const Part& part, float* out) {
  if (step.gradient_type == LearnedType::bf16)
    gather(static_cast<const uint16_t*>(step.gradient), part, out);
  else
    gather(static_cast<const float*>(step.gradient), part, out);
}

bool squares(const AdamwStep& step, int64_t chunk, double* sum) {
  int32_t room[kAdamwChunk];
  float g[kAdamwChunk];
  Part part;
  if (!part_of(step, chunk, room, part)) return false;
  gradient_of(step, part, g);
  constexpr int64_t kSums = 32;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= part.count; i += kSums)
    for (int64_t j = 0; j < kSums; ++j)
      sums[j] += static_cast<double>(g[i + j]) * static_cast<double>(g[i + j]);
  for (int64_t j = 0; i + j < part.count; ++j)
    sums[j] += static_cast<double>(g[i + j]) * static_cast<double>(g[i + j]);
  double total = 0.0;
  for (const double value : sums) total += value;
  *sum = total;
  return true;
}

struct Factors {
  float scale, beta1, beta2, eps, rate, root;
};

template <class T>
SUBLLM_INLINE void move(const float* __restrict gradient, int64_t n, const Factors& f,
                        T* __restrict first, T* __restrict second, float* __restrict master) {
  const float rest1 = 1.0f - f.beta1, rest2 = 1.0f - f.beta2;
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * f.scale;
    const float m = f.beta1 * widen(first[i]) + rest1 * g;
    const float v = f.beta2 * widen(second[i]) + rest2 * (g * g);
    narrow(m, first[i]);
    narrow(v, second[i]);
    master[i] -= f.rate * m / (__builtin_sqrtf(v) * f.root + f.eps);
  }
}

template <class T>
SUBLLM_INLINE void scatter(const float* __restrict from, const Part& part, T* __restrict to) {
  if (!part.index) {
    for (int64_t i = 0; i < part.count; ++i) narrow(from[i], to[part.begin + i]);
    return;
  }
  T ready[kAdamwChunk];
  for (int64_t i = 0; i < part.count; ++i) narrow(from[i], ready[i]);
  for (int64_t i = 0; i < part.count; ++i) to[part.index[i]] = ready[i];
}

// A bf16 weight and what is left of its master, from there and back.
SUBLLM_INLINE void join(const AdamwStep& step, const Part& part, float* __restrict master) {
  const auto* weight = static_cast<const uint16_t*>(step.weight);
  const int16_t* rest = step.rest + part.begin;
  uint16_t found[kAdamwChunk];
  if (part.index)
    for (int64_t i = 0; i < part.count; ++i) found[i] = weight[part.index[i]];
  else
    for (int64_t i = 0; i < part.count; ++i) found[i] = weight[part.begin + i];
  for (int64_t i = 0; i < part.count; ++i) {
    const uint32_t bits = (static_cast<uint32_t>(found[i]) << 16) + static_cast<uint32_t>(rest[i]);
    master[i] = __builtin_bit_cast(float, bits);
  }
}

SUBLLM_INLINE void split(const AdamwStep& step, const Part& part, const float* __restrict master) {
  auto* weight = static_cast<uint16_t*>(step.weight);
  int16_t* rest = step.rest + part.begin;
  uint16_t ready[kAdamwChunk];
  for (int64_t i = 0; i < part.count; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, master[i]);
    ready[i] = static_cast<uint16_t>((bits + 0x8000u) >> 16);
    rest[i] = static_cast<int16_t>(bits);
  }
  if (part.index)
    for (int64_t i = 0; i < part.count; ++i) weight[part.index[i]] = ready[i];
  else
    for (int64_t i = 0; i < part.count; ++i) weight[part.begin + i] = ready[i];
}

void update(const AdamwStep& step, int64_t chunk, float scale) {
  int32_t room[kAdamwChunk];
  float g[kAdamwChunk];
  Part part;
  if (!part_of(step, chunk, room, part)) return;
  gradient_of(step, part, g);
  const Factors factors{scale,
                        static_cast<float>(step.beta1),
                        static_cast<float>(step.beta2),
                        static_cast<float>(step.eps),
                        static_cast<float>(step.rate),
                        static_cast<float>(1.0 / step.root)};
  float room_for_master[kAdamwChunk];
  float* master = step.master ? step.master + part.begin : room_for_master;
  if (!step.master && step.rest)
    join(step, part, master);
  else if (!step.master)
    gather(static_cast<const float*>(step.weight), part, master);
  if (step.moments_type == LearnedType::bf16)
    move(g, part.count, factors, static_cast<uint16_t*>(step.first) + part.begin,
         static_cast<uint16_t*>(step.second) + part.begin, master);
  else
    move(g, part.count, factors, static_cast<float*>(step.first) + part.begin,
         static_cast<float*>(step.second) + part.begin, master);
  if (!step.master && step.rest)
    split(step, part, master);
  else if (step.weight_type == LearnedType::bf16)
    scatter(master, part, static_cast<uint16_t*>(step.weight));
  else
    scatter(master, part, static_cast<float*>(step.weight));
}

}  // namespace

extern const AdamwOps SUBLLM_FOR_ISA(adamw);
const AdamwOps SUBLLM_FOR_ISA(adamw) = {SUBLLM_TEXT(SUBLLM_ISA), squares, update};

}  // namespace subllm
