#include <cstring>

#include "gguf/gguf.h"
#include "half.h"

namespace subllm::gguf {

namespace {

inline float load_half(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return half_to_float(value);
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes.
inline void scales_and_minima(const uint8_t* packed, uint8_t (&scales)[8], uint8_t (&minima)[8]) {
  for (int i = 0; i < 4; ++i) {
    const uint8_t d = packed[i], m = packed[4 + i], both = packed[8 + i];
    scales[i] = d & 0x3f;
    minima[i] = m & 0x3f;
    scales[4 + i] = (both & 0x0f) | ((d >> 2) & 0x30);
    minima[4 + i] = (both >> 4) | ((m >> 2) & 0x30);
  }
}

}  // namespace

void q2_k(const uint8_t* block, float* out) {
  const uint8_t *scales = block, *q = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (int part = 0; part < 16; ++part) {
    const float dl = d * static_cast<float>(scales[part] & 15);
    const float ml = dmin * static_cast<float>(scales[part] >> 4);
    // 32 bytes hold four runs of 32 values, two bits each; a part is half a run.
    const uint8_t* bytes = q + (part / 8) * 32 + (part % 2) * 16;
    const int shift = 2 * ((part / 2) % 4);
    for (int i = 0; i < 16; ++i)
      out[part * 16 + i] = dl * static_cast<float>((bytes[i] >> shift) & 3) - ml;
  }
}

void q3_k(const uint8_t* block, float* out) {
  const uint8_t *high = block, *q = block + 32, *packed = block + 96;
  const float d = load_half(block + 108);
  for (int part = 0; part < 16; ++part) {
    const int low4 = (packed[part % 8] >> (4 * (part / 8))) & 15;
    const int high2 = (packed[8 + part % 4] >> (2 * (part / 4))) & 3;
    const float dl = d * static_cast<float>((low4 | (high2 << 4)) - 32);
    const uint8_t* bytes = q + (part / 8) * 32 + (part % 2) * 16;
    const uint8_t* bits = high + (part % 2) * 16;
    const int shift = 2 * ((part / 2) % 4), bit = part / 2;
    for (int i = 0; i < 16; ++i) {
      const int code = ((bytes[i] >> shift) & 3) - (((~bits[i] >> bit) & 1) << 2);
      out[part * 16 + i] = dl * static_cast<float>(code);
    }
  }
}

void q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  uint8_t scales[8], minima[8];
  scales_and_minima(block + 4, scales, minima);
  for (int part = 0; part < 8; ++part) {
    const float dl = d * static_cast<float>(scales[part]);
    const float ml = dmin * static_cast<float>(minima[part]);
    const uint8_t* bytes = block + 16 + (part / 2) * 32;
    const int shift = 4 * (part % 2);
    for (int i = 0; i < 32; ++i)
      out[part * 32 + i] = dl * static_cast<float>((bytes[i] >> shift) & 15) - ml;
  }
}

void q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  uint8_t scales[8], minima[8];
  scales_and_minima(block + 4, scales, minima);
  const uint8_t* high = block + 16;
  for (int part = 0; part < 8; ++part) {
    const float dl = d * static_cast<float>(scales[part]);
    const float ml = dmin * static_cast<float>(minima[part]);
    const uint8_t* bytes = block + 48 + (part / 2) * 32;
    const int shift = 4 * (part % 2);
    for (int i = 0; i < 32; ++i) {
      const int code = ((bytes[i] >> shift) & 15) | (((high[i] >> part) & 1) << 4);
      out[part * 32 + i] = dl * static_cast<float>(code) - ml;
    }
  }
}

void q6_k(const uint8_t* block, float* out) {
  const uint8_t *low = block, *high = block + 128, *scales = block + 192;
  const float d = load_half(block + 208);
  for (int part = 0; part < 8; ++part) {
    // Two halves of 128 values; in each, 64 bytes of low nibbles and 32 of high pairs.
    const int half = part / 4, quarter = part % 4;
    const uint8_t* nibbles = low + half * 64 + (quarter % 2) * 32;
    const uint8_t* pairs = high + half * 32;
    const int nibble_shift = 4 * (quarter / 2), pair_shift = 2 * quarter;
    for (int run = 0; run < 2; ++run) {
      const float dl =
          d * static_cast<float>(static_cast<int8_t>(scales[part * 2 + run]));
      for (int i = run * 16; i < run * 16 + 16; ++i) {
        const int code = (((nibbles[i] >> nibble_shift) & 15) |
                          (((pairs[i] >> pair_shift) & 3) << 4)) - 32;
        out[part * 32 + i] = dl * static_cast<float>(code);
      }
    }
  }
}

}  // namespace subllm::gguf
