// What the AVX-512 kernels share. Codes become unsigned bytes u = code + bias and meet signed
// activations in vpdpbusd; a dropped weight reads u = bias, that is 0. What the bias adds,
// bias * (sum of the activations), is taken off again per group.
#pragma once

#include <immintrin.h>

#include "isa/kernel_parts.h"

namespace subllm::avx512 {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums);

// One token, straight from the packed planes.
void multiply_token(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target);

// Several tokens, by way of a panel in `scratch`.
void multiply_tokens(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch);

inline constexpr int kLanes = 16, kFill = 9, kHalfFill = 3;

namespace {

template <ValueType type>
constexpr int kBiasBits = type == ValueType::int4 ? 3 : 7;

// The intrinsics' builtins make GCC copy accumulators about between registers.
inline __m512i dot_bytes(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}
inline __m512 dot_bf16(__m512 sum, __m512i a, __m512i b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

template <ValueType type, Kind kind>
class Runs : public RunWalk<type, kind> {
 public:
  using RunWalk<type, kind>::RunWalk;

  // The next run as 64 unsigned bytes.
  __m512i next_bytes() {
    const __m512i bias = _mm512_set1_epi8(static_cast<char>(1 << kBiasBits<type>));
    __m512i bytes;
    if constexpr (type == ValueType::int4) {
      const __m512i words =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(this->run())));
      // (words | words << 4) & 0x0f0f
      bytes = _mm512_ternarylogic_epi32(words, _mm512_slli_epi16(words, 4),
                                        _mm512_set1_epi16(0x0f0f), 0xa8);
    } else {
      bytes = _mm512_xor_si512(_mm512_loadu_si512(this->run()), bias);
    }
    if constexpr (kind != Kind::dense) bytes = _mm512_mask_expand_epi8(bias, this->mask(), bytes);
    this->step();
    return bytes;
  }

  // The next run as 64 bf16 values.
  void next_bf16(__m512i& low, __m512i& high) {
    const uint64_t mask = this->mask();
    const auto half = static_cast<__mmask32>(mask);
    low = _mm512_loadu_si512(this->run());
    high = _mm512_loadu_si512(this->run() + 2 * __builtin_popcount(half));
    if constexpr (kind != Kind::dense) {
      low = _mm512_maskz_expand_epi16(half, low);
      high = _mm512_maskz_expand_epi16(static_cast<__mmask32>(mask >> 32), high);
    }
    this->step();
  }
};

struct AddIntegers {
  __m512i operator()(__m512i a, __m512i b) const { return _mm512_add_epi32(a, b); }
};
struct AddFloats {
  __m512i operator()(__m512i a, __m512i b) const {
    return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
  }
};

// Sums of the 16 lanes of each of eight vectors.
template <typename Add>
inline __m256i sum_lanes(const __m512i (&rows)[kTileRows], Add add) {
  const auto halves = [&](__m512i a, __m512i b) {  // [a a b b] in quarters
    return add(_mm512_mask_blend_epi64(0xf0, a, b), _mm512_shuffle_i64x2(a, b, 0x4e));
  };
  const auto quarters = [&](__m512i a, __m512i b) {  // of halves: one row in each quarter
    return add(_mm512_mask_blend_epi64(0xcc, a, b),
               _mm512_permutex2var_epi64(a, _mm512_setr_epi64(2, 3, 8, 9, 6, 7, 12, 13), b));
  };
  const __m512i even = quarters(halves(rows[0], rows[4]), halves(rows[1], rows[5]));
  const __m512i odd = quarters(halves(rows[2], rows[6]), halves(rows[3], rows[7]));
  // In quarters: rows 0 and 2, 1 and 3, 4 and 6, 5 and 7.
  __m512i sums = add(_mm512_unpacklo_epi32(even, odd), _mm512_unpackhi_epi32(even, odd));
  sums = add(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
  return _mm512_castsi512_si256(_mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 1, 5, 8, 12, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0), sums));
}

// Products of a group for the eight rows of a tile: integer sums of biased codes -> floats.
template <ValueType type>
inline __m256 scaled(const __m512i (&sums)[kTileRows], int32_t token_sum, float token_scale,
                     const uint16_t* scales) {
  const __m256i exact = _mm256_sub_epi32(sum_lanes(sums, AddIntegers{}),
                                         _mm256_set1_epi32(token_sum << kBiasBits<type>));
  const __m256 scale = _mm256_mul_ps(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))),
      _mm256_set1_ps(token_scale));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(exact), scale);
}

// Adds the bias and writes the rows of a tile that the matrix has.
inline void store_tile(__m256 total, const Target& target, int64_t token, int64_t row,
                       int64_t rows) {
  const auto lanes = static_cast<__mmask8>(rows - row >= kTileRows ? 0xff : (1 << (rows - row)) - 1);
  if (target.bias) total = _mm256_add_ps(total, _mm256_maskz_loadu_ps(lanes, target.bias + row));
  _mm256_mask_storeu_ps(target.out + token * target.stride + row, lanes, total);
}

}  // namespace

}  // namespace subllm::avx512
