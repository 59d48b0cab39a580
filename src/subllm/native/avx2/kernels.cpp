// AVX2 with FMA and F16C: the table, and the quantiser of activations.

#include "avx2/avx2.h"

namespace subllm {

namespace {

// Magnitudes compare as integers do, and so a NaN, which is above infinity, is never lost.
float largest_lane(__m256i bits) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums) {
  constexpr int kVectors = kGroupCols / 8;
  const __m256i absolute = _mm256_set1_epi32(0x7fffffff);
  for (int64_t g = 0; g * kGroupCols < cols; ++g, x += kGroupCols, codes += kGroupCols) {
    const int64_t count = least(kGroupCols, cols - g * kGroupCols);
    alignas(32) float padded[kGroupCols] = {};
    const float* values = x;
    if (count < kGroupCols) {
      __builtin_memcpy(padded, x, static_cast<size_t>(count) * sizeof(float));
      values = padded;
    }
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < kVectors; ++i)
      largest = _mm256_max_epi32(
          largest, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(values + 8 * i)), absolute));
    const float most = largest_lane(largest);
    const bool zero = most < kSmallestInput;
    const __m256 inverse = _mm256_set1_ps(zero ? 0.0f : 127.0f / most);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < kVectors; ++i) {
      const __m256i code = _mm256_cvtps_epi32(_mm256_min_ps(
          _mm256_mul_ps(_mm256_loadu_ps(values + 8 * i), inverse), _mm256_set1_ps(127.0f)));
      sum = _mm256_add_epi32(sum, code);
      const __m128i words =
          _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + 8 * i), _mm_packs_epi16(words, words));
    }
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum);
    int32_t total = 0;
    for (const int32_t lane : lanes) total += lane;
    scales[g] = zero ? 0.0f : most / 127.0f;
    sums[g] = total;
  }
}

bool may_halve(const Geometry& g) {
  return g.type != ValueType::bf16 && g.slots == kBlockCols / 2;
}

int64_t scratch_bytes(const Geometry& g, int64_t tokens) {
  const int64_t bytes = panel_bytes(g, tokens, avx2::kLanes);
  const int64_t other = may_halve(g) ? avx2::halved_scratch_bytes(g, tokens) : 0;
  return bytes < other ? other : bytes;
}

void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  if (view.balanced && may_halve(view.geometry))
    return avx2::multiply_halved(view, x, begin, end, target, scratch);
  if (x.tokens == 1) return avx2::multiply_token(view, x, begin, end, target);
  avx2::multiply_tokens(view, x, begin, end, target, scratch);
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2",   avx2::kLanes,  avx2::kFill, 0,
                              quantize, scratch_bytes, multiply};

}  // namespace subllm
