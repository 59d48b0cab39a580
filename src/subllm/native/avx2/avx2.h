// What the AVX2 kernels share. There is no expand instruction: tables say where each column
// finds its weight, and pshufb puts it there.
//
// int4 becomes unsigned bytes u = code + 8 (0 is 8) for pmaddubsw, whose 16-bit sums hold a
// whole group; the excess 8 * (sum of activations) is taken off per group. int8 stays signed
// and lends its sign to the activation, else 16 bits would not hold a pair.
#pragma once

#include <immintrin.h>

#include "isa/kernel_parts.h"
#include "isa/spread_tables.h"

namespace subllm::avx2 {

void multiply_token(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target);
void multiply_tokens(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch);

// For int8 and int4 matrices whose masks keep eight of every 16 columns.
int64_t halved_scratch_bytes(const Geometry& geometry, int64_t tokens);
void multiply_halved(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                     const Target& target, uint8_t* scratch);

inline constexpr int kLanes = 8, kFill = 4;

namespace {

inline __m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
inline __m256i load256(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
inline __m128i load_pair(const uint8_t* low, const uint8_t* high) {
  return _mm_set_epi64x(static_cast<int64_t>(load64(high)), static_cast<int64_t>(load64(low)));
}

// Shuffle of 16 columns, whose mask is the two bytes, out of the next 16 values.
inline __m128i shuffle_of(const uint8_t* mask) {
  return _mm_add_epi8(load_pair(kTables.bytes[mask[0]], kTables.bytes[mask[1]]),
                      load128(kTables.later[__builtin_popcount(mask[0])]));
}
inline __m256i shuffles_of(const uint8_t* low, const uint8_t* high) {
  return _mm256_set_m128i(shuffle_of(high), shuffle_of(low));
}
// The same where 16 columns are known to keep `kept` values: this number in each upper eight
// bytes, 0 in the others.
inline __m256i shuffles_of(const uint8_t* low, const uint8_t* high, __m256i kept) {
  const __m128i first = load_pair(kTables.bytes[low[0]], kTables.back[low[1]]);
  const __m128i second = load_pair(kTables.bytes[high[0]], kTables.back[high[1]]);
  return _mm256_adds_epi8(_mm256_set_m128i(second, first), kept);  // 0x80 stays negative
}

// 64 columns; the order suits the unpacking of nibbles.
struct Columns {
  __m256i a;  // 0 .. 15 and 32 .. 47
  __m256i b;  // 16 .. 31 and 48 .. 63
};

inline Columns columns_at(const void* at) {
  const __m256i low = load256(at), high = load256(static_cast<const char*>(at) + 32);
  return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
}

template <ValueType type, Kind kind>
class Runs : public RunWalk<type, kind> {
 public:
  Runs(const PackedView& view, int64_t tile)
      : RunWalk<type, kind>(view, tile),
        kept_(static_cast<int>(view.geometry.slots / 4)),
        quarter_(run_bytes(type, view.geometry.slots / 4)) {}

  // The next run: code + 8 for int4, code for int8.
  Columns next_bytes() {
    const uint8_t* run = this->run();
    const uint64_t mask = this->mask();
    Columns out;
    if constexpr (kind == Kind::dense) {
      out = type == ValueType::int4 ? split(load256(run)) : columns_at(run);
    } else if constexpr (kind == Kind::balanced) {
      out = spread_evenly(run);
    } else {
      out = spread(run, __builtin_popcountll(mask & 0xffff), __builtin_popcountll(mask & 0xffffffff),
                   __builtin_popcountll(mask & 0xffffffffffff));
    }
    this->step();
    return out;
  }

  // Calls put(i, eight bf16 values) for the eighths of the next run.
  template <typename Put>
  void next_bf16(Put put) {
    const uint8_t* run = this->run();
    uint64_t mask = this->mask();
    for (int i = 0; i < 8; ++i, mask >>= 8) {
      __m128i values = load128(run);
      if constexpr (kind != Kind::dense)
        values = _mm_shuffle_epi8(values, load128(kTables.words[mask & 255]));
      put(i, values);
      run += 2 * __builtin_popcount(mask & 255);
    }
    this->step();
  }

 private:
  // Values from `at1`, `at2`, `at3` on belong to columns from 16, 32 and 48 on.
  Columns spread(const uint8_t* run, int at1, int at2, int at3) const {
    const uint8_t* mask = this->mask_bytes();
    const Columns at = {shuffles_of(mask, mask + 4), shuffles_of(mask + 2, mask + 6)};
    if constexpr (type == ValueType::int4)
      return shuffled_nibbles(_mm256_setr_epi64x(nibbles(run, 0), nibbles(run, at1),
                                                 nibbles(run, at2), nibbles(run, at3)), at);
    return shuffled_bytes(run, run + at1, run + at2, run + at3, at);
  }

  // A quarter of the values belongs to each 16 columns.
  Columns spread_evenly(const uint8_t* run) const {
    const uint8_t* mask = this->mask_bytes();
    const __m256i kept = _mm256_and_si256(_mm256_set1_epi8(static_cast<char>(kept_)),
                                          _mm256_setr_epi64x(0, -1, 0, -1));
    const Columns at = {shuffles_of(mask, mask + 4, kept), shuffles_of(mask + 2, mask + 6, kept)};
    const uint8_t* second = run + quarter_;
    const uint8_t* third = second + quarter_;
    const uint8_t* last = third + quarter_;
    if constexpr (type == ValueType::int4)
      return shuffled_nibbles(_mm256_set_m128i(load_pair(third, last), load_pair(run, second)), at);
    return shuffled_bytes(run, second, third, last, at);
  }

  // Sixteen nibbles from which each 16 columns take theirs.
  static Columns shuffled_nibbles(__m256i packed, Columns at) {
    // With bit 3 flipped, 0 stands for the code 0 as long as it is shuffled.
    const Columns values = split(_mm256_xor_si256(packed, _mm256_set1_epi8(static_cast<char>(0x88))));
    const __m256i bit = _mm256_set1_epi8(8);
    return {_mm256_xor_si256(_mm256_shuffle_epi8(values.a, at.a), bit),
            _mm256_xor_si256(_mm256_shuffle_epi8(values.b, at.b), bit)};
  }
  // The same of bytes.
  static Columns shuffled_bytes(const uint8_t* first, const uint8_t* second, const uint8_t* third,
                                const uint8_t* last, Columns at) {
    return {_mm256_shuffle_epi8(_mm256_set_m128i(load128(third), load128(first)), at.a),
            _mm256_shuffle_epi8(_mm256_set_m128i(load128(last), load128(second)), at.b)};
  }

  // Nibbles 0 .. 15 and 32 .. 47 of each half, then the others.
  static Columns split(__m256i packed) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(packed, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
    return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
  }

  int kept_;         // of every 16 columns, if that is known
  int64_t quarter_;  // bytes that they take
};

inline __m256 to_floats(__m128i bf16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}

// Sums of pairs (int4, 16 bits) or fours (int8, 32 bits) of products, added to `sum`.
template <ValueType type>
inline __m256i add_products(__m256i sum, __m256i weights, __m256i tokens) {
  if constexpr (type == ValueType::int4)
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, tokens));
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(tokens, weights));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// What add_products gathered, in 32 bits.
template <ValueType type>
inline __m256i widened(__m256i sum) {
  return type == ValueType::int4 ? _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) : sum;
}

// Sums of the lanes of each of eight vectors.
inline __m256i sum_lanes(const __m256i (&rows)[kTileRows]) {
  const auto add = [](__m256i a, __m256i b) { return _mm256_hadd_epi32(a, b); };
  const __m256i low = add(add(rows[0], rows[1]), add(rows[2], rows[3]));
  const __m256i high = add(add(rows[4], rows[5]), add(rows[6], rows[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31));
}
inline __m256 sum_lanes(const __m256 (&rows)[kTileRows]) {
  const auto add = [](__m256 a, __m256 b) { return _mm256_hadd_ps(a, b); };
  const __m256 low = add(add(rows[0], rows[1]), add(rows[2], rows[3]));
  const __m256 high = add(add(rows[4], rows[5]), add(rows[6], rows[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                       _mm256_permute2f128_ps(low, high, 0x31));
}

inline __m256 scales_at(const uint16_t* scales) { return _mm256_cvtph_ps(load128(scales)); }

// Products of a group for the eight rows of a tile.
template <ValueType type>
inline __m256 scaled(const __m256i (&sums)[kTileRows], int32_t token_sum, float token_scale,
                     const uint16_t* scales) {
  __m256i exact = sum_lanes(sums);
  if constexpr (type == ValueType::int4)
    exact = _mm256_sub_epi32(exact, _mm256_set1_epi32(8 * token_sum));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(exact),
                       _mm256_mul_ps(scales_at(scales), _mm256_set1_ps(token_scale)));
}

// Adds the bias and writes the rows of a tile that the matrix has.
inline void store_tile(__m256 total, const Target& target, int64_t token, int64_t row,
                       int64_t rows) {
  float* out = target.out + token * target.stride + row;
  if (rows - row >= kTileRows) {
    if (target.bias) total = _mm256_add_ps(total, _mm256_loadu_ps(target.bias + row));
    _mm256_storeu_ps(out, total);
    return;
  }
  alignas(32) float values[kTileRows];
  _mm256_store_ps(values, total);
  for (int64_t r = 0; r < rows - row; ++r)
    out[r] = target.bias ? values[r] + target.bias[row + r] : values[r];
}

}  // namespace

}  // namespace subllm::avx2
