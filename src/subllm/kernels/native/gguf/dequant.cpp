#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core.h"
#include "gguf/gguf.h"
#include "half.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

inline uint16_t load16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// The plain types come in runs of 32, which a last run may not fill.
constexpr int kPlainRun = 32;

void f32(const uint8_t* block, float* out) { std::memcpy(out, block, kPlainRun * sizeof(float)); }

void f16(const uint8_t* block, float* out) {
  for (int i = 0; i < kPlainRun; ++i) out[i] = half_to_float(load16(block + 2 * i));
}

void bf16(const uint8_t* block, float* out) {
  for (int i = 0; i < kPlainRun; ++i) out[i] = bf16_to_float(load16(block + 2 * i));
}

void q4_0(const uint8_t* block, float* out) {
  const float d = half_to_float(load16(block));
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

void q4_1(const uint8_t* block, float* out) {
  const float d = half_to_float(load16(block)), m = half_to_float(load16(block + 2));
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

inline void join_fifth_bits(const uint8_t* block, const uint8_t* q, int (&codes)[32]) {
  uint32_t high;
  std::memcpy(&high, block, sizeof(high));
  for (int i = 0; i < 16; ++i) {
    codes[i] = (q[i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    codes[i + 16] = (q[i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
  }
}

void q5_0(const uint8_t* block, float* out) {
  const float d = half_to_float(load16(block));
  int codes[32];
  join_fifth_bits(block + 2, block + 6, codes);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(codes[i] - 16);
}

void q5_1(const uint8_t* block, float* out) {
  const float d = half_to_float(load16(block)), m = half_to_float(load16(block + 2));
  int codes[32];
  join_fifth_bits(block + 4, block + 8, codes);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
}

void q8_0(const uint8_t* block, float* out) {
  const float d = half_to_float(load16(block));
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

struct Format {
  std::string_view name;
  int64_t values, bytes;  // of one block
  bool plain;             // a tensor may end inside a block
  gguf::Decoder decode;
};

constexpr Format kFormats[] = {
    {"F32", kPlainRun, 4 * kPlainRun, true, f32},
    {"F16", kPlainRun, 2 * kPlainRun, true, f16},
    {"BF16", kPlainRun, 2 * kPlainRun, true, bf16},
    {"Q4_0", 32, 18, false, q4_0},
    {"Q4_1", 32, 20, false, q4_1},
    {"Q5_0", 32, 22, false, q5_0},
    {"Q5_1", 32, 24, false, q5_1},
    {"Q8_0", 32, 34, false, q8_0},
    {"Q2_K", 256, 84, false, gguf::q2_k},
    {"Q3_K", 256, 110, false, gguf::q3_k},
    {"Q4_K", 256, 144, false, gguf::q4_k},
    {"Q5_K", 256, 176, false, gguf::q5_k},
    {"Q6_K", 256, 210, false, gguf::q6_k},
};

const Format& find_format(std::string_view type) {
  for (const Format& format : kFormats)
    if (format.name == type) return format;
  throw std::invalid_argument("tensor type '" + std::string(type) + "' is not supported");
}

}  // namespace

int64_t gguf_value_count(std::string_view type, int64_t bytes) {
  const Format& format = find_format(type);
  const int64_t unit = format.plain ? format.bytes / format.values : format.bytes;
  if (bytes % unit != 0)
    throw std::invalid_argument(std::to_string(bytes) + " bytes are not a whole number of " +
                                std::string(type) + " blocks of " + std::to_string(unit));
  return format.plain ? bytes / unit : bytes / unit * format.values;
}

void gguf_dequantize(std::string_view type, const uint8_t* data, int64_t bytes, float* out,
                     int threads) {
  const Format& format = find_format(type);
  const int64_t count = gguf_value_count(type, bytes);
  const int64_t blocks = count / format.values;
  constexpr int64_t kValueGrain = 1 << 16;
  parallel_for(blocks, kValueGrain / format.values, threads, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      format.decode(data + block * format.bytes, out + block * format.values);
  });
  const int64_t left = bytes - blocks * format.bytes;
  if (left > 0) {
    uint8_t last[4 * kPlainRun] = {};
    float decoded[kPlainRun];
    std::memcpy(last, data + blocks * format.bytes, static_cast<size_t>(left));
    format.decode(last, decoded);
    std::copy_n(decoded, count - blocks * format.values, out + blocks * format.values);
  }
}

}  // namespace subllm
