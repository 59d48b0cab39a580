// binary16 and bfloat16 in plain integer arithmetic, so that every machine agrees.
#pragma once

#include <bit>
#include <cstdint>

namespace subllm {

inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t normal = magnitude + (112u << 23);
  const uint32_t special = normal + (112u << 23);  // infinity and NaN
  // A subnormal is its mantissa in units of 2^-24: set it below a normal 2^-14, subtract.
  const float subnormal = std::bit_cast<float>(normal + (1u << 23)) - 0x1p-14f;
  const uint32_t bits = exponent == 0             ? std::bit_cast<uint32_t>(subnormal)
                        : exponent == 0x0f800000u ? special
                                                  : normal;
  return std::bit_cast<float>(bits | sign);
}

// Nearest even; magnitudes above 65504 (infinity too) saturate. Not for NaN.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x477ff000u) return sign | 0x7bffu;  // would round past 65504
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves the mantissa in units of 2^-24, rounded by hardware.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((magnitude >> 13) - (112u << 10));
}

inline float bf16_to_float(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// Nearest even, -0 becomes +0, magnitudes past the largest finite value saturate.
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t magnitude = rounded & 0x7fffu;
  const uint32_t sign = rounded & 0x8000u;
  if (magnitude == 0) return 0;
  return static_cast<uint16_t>(sign | (magnitude >= 0x7f80u ? 0x7f7fu : magnitude));
}

}  // namespace subllm
