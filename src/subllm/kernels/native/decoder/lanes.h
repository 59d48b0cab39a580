// Vectors as wide as the instruction set that a file is compiled for, in the compiler's
// own vector notation. Only for files that are compiled once per instruction set: all of
// it is internal to a file, so that no function built for a newer CPU can be linked into
// code that runs on an older one. Such files use no inline functions of other headers.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#define SUBLLM_INLINE [[gnu::always_inline]] inline

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef double Doubles __attribute__((vector_size(4 * kLanes)));
typedef int64_t Longs __attribute__((vector_size(4 * kLanes)));

// Unaligned views of memory.
typedef float FloatsAt __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef float HalfFloatsAt __attribute__((vector_size(2 * kLanes), aligned(4), may_alias));

// Subtracting 0 changes nothing and costs nothing; adding it would turn -0 into 0.
SUBLLM_INLINE Floats splat(float value) { return value - Floats{}; }

SUBLLM_INLINE Floats load(const float* at) { return *reinterpret_cast<const FloatsAt*>(at); }

// Compilers widen small integers in many steps where one instruction does it.
#if defined(__AVX512F__)
// bf16, as its bits.
SUBLLM_INLINE Floats load(const uint16_t* at) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
SUBLLM_INLINE Floats load(const int8_t* at) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw));
}
SUBLLM_INLINE bool any_of(Ints hits) {
  const auto bits = reinterpret_cast<__m512i>(hits);
  return _mm512_test_epi32_mask(bits, bits) != 0;
}
#elif defined(__AVX2__)
SUBLLM_INLINE Floats load(const uint16_t* at) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
SUBLLM_INLINE Floats load(const int8_t* at) {
  const __m128i raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw));
}
SUBLLM_INLINE bool any_of(Ints hits) {
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(hits)) != 0;
}
#else
typedef uint16_t ShortsAt __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef int8_t BytesAt __attribute__((vector_size(kLanes), aligned(1), may_alias));
SUBLLM_INLINE Floats load(const uint16_t* at) {
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
  const auto raw = *reinterpret_cast<const ShortsAt*>(at);
  return reinterpret_cast<Floats>(__builtin_convertvector(raw, Words) << 16);
}
SUBLLM_INLINE Floats load(const int8_t* at) {
  const auto raw = *reinterpret_cast<const BytesAt*>(at);
  return __builtin_convertvector(__builtin_convertvector(raw, Ints), Floats);
}
SUBLLM_INLINE bool any_of(Ints hits) {
  const auto halves = reinterpret_cast<Longs>(hits);
  return (halves[0] | halves[1]) != 0;
}
#endif

SUBLLM_INLINE void store(float* at, Floats value) { *reinterpret_cast<FloatsAt*>(at) = value; }

// The first `count` < kLanes elements, the others being 0.
SUBLLM_INLINE Floats load_part(const float* at, int64_t count) {
  Floats value{};
  for (int64_t i = 0; i < count; ++i) value[i] = at[i];
  return value;
}

SUBLLM_INLINE void store_part(float* at, Floats value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) at[i] = value[i];
}

// Calls body(load, store) for each vector of [0, n), the last one perhaps partial:
// body gets the offset and how many of its elements are there.
template <class Body>
SUBLLM_INLINE void each_lanes(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, std::integral_constant<int, kLanes>{});
  if (i < n) body(i, n - i);
}

template <class Count>
SUBLLM_INLINE Floats take(const float* at, Count count) {
  if constexpr (std::is_same_v<Count, int64_t>)
    return load_part(at, count);
  else
    return load(at);
}

template <class Count>
SUBLLM_INLINE void put(float* at, Floats value, Count count) {
  if constexpr (std::is_same_v<Count, int64_t>)
    store_part(at, value, count);
  else
    store(at, value);
}

SUBLLM_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
SUBLLM_INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

SUBLLM_INLINE float sum_of(Floats value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

SUBLLM_INLINE float max_of(Floats value) {
  float lanes[kLanes];
  store(lanes, value);
  float best = lanes[0];
  for (int i = 1; i < kLanes; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

// e^x to about 2 units in the last place; 0 below -87, capped above 88.
SUBLLM_INLINE Floats exp_of(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats bounded = larger(smaller(x, splat(88.0f)), splat(-87.0f));
  const Floats shifted = bounded * splat(1.44269504f) + splat(kRound);
  const Floats n = shifted - splat(kRound);
  const Ints exponent = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(splat(kRound));
  Floats r = bounded - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  Floats p = splat(1.0f / 5040.0f);
  p = p * r + splat(1.0f / 720.0f);
  p = p * r + splat(1.0f / 120.0f);
  p = p * r + splat(1.0f / 24.0f);
  p = p * r + splat(1.0f / 6.0f);
  p = p * r + splat(0.5f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  const Floats result = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (exponent << 23));
  return x < splat(-87.0f) ? Floats{} : result;
}

// The same in double, to a few units in the last place; 0 below -700.
SUBLLM_INLINE Doubles exp_of(Doubles x) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  const Doubles zero{};
  const Doubles floor = zero - 700.0;
  const Doubles bounded = x > floor ? x : floor;
  const Doubles shifted = bounded * 1.4426950408889634 + kRound;
  const Doubles n = shifted - kRound;
  const Longs exponent =
      reinterpret_cast<Longs>(shifted) - reinterpret_cast<Longs>(zero + kRound);
  Doubles r = bounded - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  Doubles p = zero + 1.0 / 6227020800.0;
  constexpr double kInverse[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                                 1.0 / 40320,     1.0 / 5040,     1.0 / 720,     1.0 / 120,
                                 1.0 / 24,        1.0 / 6,        0.5,           1.0,
                                 1.0};
#pragma GCC unroll 13
  for (int i = 0; i < 13; ++i) p = p * r + kInverse[i];
  const Doubles result = reinterpret_cast<Doubles>(reinterpret_cast<Longs>(p) + (exponent << 52));
  return x < floor ? zero : result;
}

SUBLLM_INLINE Floats tanh_of(Floats x) {
  return splat(1.0f) - splat(2.0f) / (exp_of(x + x) + splat(1.0f));
}

}  // namespace
