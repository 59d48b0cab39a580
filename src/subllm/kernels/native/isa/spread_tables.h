// Spreading packed values over the columns of a mask, for instruction sets that shuffle bytes
// by a table (pshufb, tbl) but have no instruction for it. In an anonymous namespace, as
// everything that kernels include.
#pragma once

#include <cstdint>

namespace subllm {

namespace {

struct Tables {
  // For each byte of a mask: which of the following values a column takes, 0x80 for none.
  alignas(64) uint8_t bytes[256][8];
  // As bytes, counted from behind the last of the values: -1 for that one.
  alignas(64) uint8_t back[256][8];
  alignas(64) uint8_t words[256][16];  // the same for values of two bytes
  alignas(64) uint8_t later[9][16];    // what eight columns add to the indices of the next eight
};

constexpr Tables make_tables() {
  Tables t{};
  for (int mask = 0; mask < 256; ++mask) {
    int next = 0;
    for (int j = 0; j < 8; ++j) {
      const bool kept = mask >> j & 1;
      t.bytes[mask][j] = static_cast<uint8_t>(kept ? next : 0x80);
      t.words[mask][2 * j] = static_cast<uint8_t>(kept ? 2 * next : 0x80);
      t.words[mask][2 * j + 1] = static_cast<uint8_t>(kept ? 2 * next + 1 : 0x80);
      next += kept;
    }
    for (int j = 0; j < 8; ++j)
      t.back[mask][j] = static_cast<uint8_t>(mask >> j & 1 ? t.bytes[mask][j] - next : 0x80);
  }
  for (int count = 0; count <= 8; ++count)
    for (int j = 8; j < 16; ++j) t.later[count][j] = static_cast<uint8_t>(count);
  return t;
}
constexpr Tables kTables = make_tables();

inline uint64_t load64(const void* at) {
  uint64_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return word;
}

// Sixteen nibbles from nibble `at` of a run on.
inline int64_t nibbles(const uint8_t* run, int at) {
  const uint8_t* byte = run + at / 2;
  const int odd = at % 2;
  // If odd, the first load lacks the last nibble and the second the first; the rest agrees.
  return static_cast<int64_t>(load64(byte) >> (4 * odd) | load64(byte + odd) << (4 * odd));
}

}  // namespace

}  // namespace subllm
