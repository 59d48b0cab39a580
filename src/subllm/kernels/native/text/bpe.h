// Byte pair encoding over a table of merges that may lie in a mapped file.
#pragma once

#include <cstdint>

namespace subllm {

struct Merges {
  const uint64_t* pairs;    // left << 32 | right, rising
  const uint32_t* ranks;    // of each pair; the lowest is merged first
  const uint32_t* results;  // the token that each pair becomes
  int64_t count;
};

// Merges the symbols of each word until no neighbours are in the table: of all pairs the one
// of the lowest rank, of equal ones the leftmost. words[i] tells words apart: a word is a run of
// equal values. Tokens replace the symbols from the start; returns how many they are.
// Throws std::length_error for a word that 31 bits cannot index.
int64_t merge_words(const Merges& merges, const uint32_t* words, uint32_t* symbols,
                    int64_t count);

}  // namespace subllm
