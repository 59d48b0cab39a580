// What the AVX-512 kernels share. Codes meet signed activations in vpdpbusd as unsigned bytes
// u: int4 as they are (a dropped weight reads 8), int8 with 128 added (a dropped weight reads
// 128). A vector of bytes holds 4 rows of 16 columns, so each row has four lanes of sums.
#pragma once

#include <immintrin.h>

#include "isa/kernel_parts.h"

namespace subllm::avx512 {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int16_t* subs);

// The tokens from `first` on straight from the packed planes, at most kFew of them.
void multiply_few(const PackedView& view, const Activations& x, int64_t first, int64_t begin,
                  int64_t end, const Target& target);

// The laned tokens, by way of a panel in `scratch`.
void multiply_laned(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target, uint8_t* scratch);

int64_t scratch_bytes(const Geometry& geometry, int64_t tokens);

inline constexpr int kLanes = 16, kFill = 13, kFew = 8;

namespace {

// The intrinsics' builtins make GCC copy accumulators about between registers.
inline __m512i dot_bytes(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}
inline __m512i dot_words(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
inline __m512 dot_bf16(__m512 sum, __m512i a, __m512i b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

// High nibbles of all bytes: GF(2) matrix whose rows pick bits 4 to 7 for bits 0 to 3.
inline __m512i high_nibbles(__m512i bytes) {
  return _mm512_gf2p8affine_epi64_epi8(bytes, _mm512_set1_epi64(0x1020408000000000), 0);
}
inline __m512i low_nibbles(__m512i bytes) {
  return _mm512_and_si512(bytes, _mm512_set1_epi8(0x0f));
}

// Pairs of units, 16 columns of 8 rows, spread in registers.
template <ValueType type, Kind kind>
class Pairs : public PairWalk<type, kind> {
  using Walk = PairWalk<type, kind>;

 public:
  using PairWalk<type, kind>::PairWalk;

  // To be called before the pairs of each block. Near and only to the second cache, from where the
  // processor's own fetching goes on; from 4,096 bytes on they get in each other's way.
  void fetch() const { Walk::template fetch<2048, 2>(); }

  // Rows 0 to 3 and rows 4 to 7 as unsigned bytes.
  void next_bytes(__m512i (&rows)[2]) {
    if constexpr (Walk::kShared) {
      const __m512i both = load(0);
      rows[0] = spread(0, low_nibbles(both));
      rows[1] = spread(1, high_nibbles(both));
    } else if constexpr (type == ValueType::int4) {
      unrolled<2>([&](auto half) { rows[half] = spread(half, nibbles(half)); });
    } else {
      unrolled<2>([&](auto half) {
        rows[half] = spread(half, _mm512_xor_si512(load(half), zeros()));
      });
    }
    this->step();
  }

  // Rows 0 and 1, 2 and 3, ... as bf16 values.
  void next_bf16(__m512i (&rows)[4]) {
    unrolled<2>([&](auto half) {
      const uint64_t mask = this->mask(half);
      const auto lower = static_cast<__mmask32>(mask), upper = static_cast<__mmask32>(mask >> 32);
      rows[2 * half] = load(half);
      rows[2 * half + 1] = load(half, 2 * __builtin_popcount(lower));
      if constexpr (Walk::kMasked) {
        rows[2 * half] = _mm512_maskz_expand_epi16(lower, rows[2 * half]);
        rows[2 * half + 1] = _mm512_maskz_expand_epi16(upper, rows[2 * half + 1]);
      }
    });
    this->step();
  }

 private:
  static __m512i zeros() {
    return _mm512_set1_epi8(static_cast<char>(type == ValueType::int4 ? 8 : 128));
  }

  // As many bytes as a run can have. Beyond its end there are others, or the plane's 64 zeros.
  __m512i load(int half, int from = 0) const { return _mm512_loadu_si512(this->run(half) + from); }

  __m512i spread(int half, __m512i bytes) const {
    if constexpr (!Walk::kMasked) return bytes;
    return _mm512_mask_expand_epi8(zeros(), this->mask(half), bytes);
  }

  // The nibbles of a run of its own.
  __m512i nibbles(int half) const {
    const __m512i words = _mm512_cvtepu8_epi16(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(this->run(half))));
    // (words | words << 4) & 0x0f0f
    return _mm512_ternarylogic_epi32(words, _mm512_slli_epi16(words, 4),
                                     _mm512_set1_epi16(0x0f0f), 0xa8);
  }
};

// Adds the bias and writes the rows of a tile that the matrix has.
inline void store_tile(__m256 total, const Target& target, int64_t token, int64_t row,
                       int64_t rows) {
  const auto lanes =
      static_cast<__mmask8>(rows - row >= kTileRows ? 0xff : (1 << (rows - row)) - 1);
  if (target.bias) total = _mm256_add_ps(total, _mm256_maskz_loadu_ps(lanes, target.bias + row));
  _mm256_mask_storeu_ps(target.out + token * target.stride + row, lanes, total);
}

}  // namespace

}  // namespace subllm::avx512
