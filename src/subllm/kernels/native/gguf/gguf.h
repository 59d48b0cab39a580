// Decoders of GGUF block formats. Each reads one block and writes its values, in exactly
// the order of operations of the gguf package, so that results are equal bit for bit.
#pragma once

#include <cstdint>

namespace subllm::gguf {

using Decoder = void (*)(const uint8_t* block, float* out);

// Blocks of 256 values with 6-bit or 4-bit scales.
void q2_k(const uint8_t* block, float* out);
void q3_k(const uint8_t* block, float* out);
void q4_k(const uint8_t* block, float* out);
void q5_k(const uint8_t* block, float* out);
void q6_k(const uint8_t* block, float* out);

}  // namespace subllm::gguf
