// Groups of columns with every column in its place: 16 columns of eight rows after the other, as
// the plane of a dense matrix has them. There is no expand instruction: tables say where each
// column finds its weight, and pshufb puts it there.
#pragma once

#include "isa/spread_tables.h"
#include "wide256/parts.h"

namespace subllm {

namespace {

constexpr int64_t kGroupUnits = kGroupCols / kUnitCols;  // of either four rows

template <ValueType type>
constexpr int64_t kValueBytes = type == ValueType::bf16 ? 2 : 1;
// Eight rows of 16 columns, and of a group.
template <ValueType type>
constexpr int64_t kColumnBytes = kTileRows * kUnitCols * kValueBytes<type>;
template <ValueType type>
constexpr int64_t kGroupBytes = kGroupUnits * kColumnBytes<type>;

// Shuffle of 16 columns, whose mask is the two bytes, out of the next 16 values.
inline __m128i shuffle_of(const uint8_t* mask) {
  const __m128i each = _mm_set_epi64x(static_cast<int64_t>(load64(kTables.bytes[mask[1]])),
                                      static_cast<int64_t>(load64(kTables.bytes[mask[0]])));
  return _mm_add_epi8(each, load128(kTables.later[__builtin_popcount(mask[0])]));
}

// Sixteen nibbles as bytes.
inline __m128i nibbles_at(const uint8_t* run, int at) {
  const __m128i packed = _mm_cvtsi64_si128(nibbles(run, at));
  const __m128i mask = _mm_set1_epi8(15);
  return _mm_unpacklo_epi8(_mm_and_si128(packed, mask),
                           _mm_and_si128(_mm_srli_epi16(packed, 4), mask));
}

// The runs of a tile with a mask, `slots` values each or (0) as many as bits.
template <ValueType type>
class Units {
 public:
  Units(const PackedView& view, int64_t tile)
      : slots_(view.geometry.slots), blocks_(ceil_div(view.geometry.cols, kBlockCols)) {
    mask_ = reinterpret_cast<const uint8_t*>(view.mask + tile * blocks_ * kTileRows);
    run_ = view.values + (view.offsets
                              ? int64_t{view.offsets[tile]} * kAlign
                              : tile * blocks_ * kTileRows * run_bytes(type, slots_));
  }

  // Writes the next group, of `columns` times 16 columns.
  void expand(int64_t columns, uint8_t* out) {
    for (int64_t i = 0; i < columns; ++i, out += kColumnBytes<type>) {
      if (i % 4 == 0) fetch();
      for (int64_t half = 0; half < 2; ++half, mask_ += sizeof(uint64_t)) {
        const int count = expand_unit(half, out + half * kColumnBytes<type> / 2);
        if (slots_ == 0)
          run_ += run_bytes(type, count);
        else if (type != ValueType::int4)
          run_ += run_bytes(type, slots_);
      }
      if (type == ValueType::int4) run_ += slots_;
    }
  }

 private:
  // Returns how many values the unit keeps.
  int expand_unit(int64_t half, uint8_t* out) const {
    int at = 0;
    for (int64_t r = 0; r < kUnitRows; ++r) {
      const uint8_t* mask = mask_ + 2 * r;
      const int first = __builtin_popcount(mask[0]);
      if constexpr (type == ValueType::bf16) {
        const auto put = [&](int64_t eight, int from) {
          _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * r + 16 * eight),
                           _mm_shuffle_epi8(load128(run_ + 2 * from),
                                            load128(kTables.words[mask[eight]])));
        };
        put(0, at);
        put(1, at + first);
      } else {
        __m128i codes = codes_at(half, at);
        // With bit 3 flipped, 0 stands for the code of zero as long as it is shuffled.
        const __m128i zero = _mm_set1_epi8(type == ValueType::int4 ? 8 : 0);
        codes = _mm_xor_si128(_mm_shuffle_epi8(_mm_xor_si128(codes, zero), shuffle_of(mask)), zero);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * r), codes);
      }
      at += first + __builtin_popcount(mask[1]);
    }
    return at;
  }

  __m128i codes_at(int64_t half, int at) const {
    if constexpr (type == ValueType::int8) return load128(run_ + at);
    if (slots_ == 0) return nibbles_at(run_, at);
    // Values of the lower four rows in the low nibbles, of the upper ones in the high nibbles.
    const __m128i both = load128(run_ + at);
    return _mm_and_si128(half == 0 ? both : _mm_srli_epi16(both, 4), _mm_set1_epi8(15));
  }

  void fetch() const {
    const int64_t bytes = kBlockUnits * run_bytes(type, slots_ == 0 ? kBlockCols / 2 : slots_);
    subllm::fetch(run_, bytes);
    fetch_line(mask_);
  }

  int64_t slots_, blocks_;
  const uint8_t* mask_;
  const uint8_t* run_;
};

// Dense int4 as bytes.
inline void widen_group(const uint8_t* run, int64_t columns, uint8_t* out) {
  for (int64_t i = 0; i < columns; ++i, run += 64, out += 128) {
    const __m256i low = load256(run), high = load256(run + 32);
    store256(out, low_nibbles(low));
    store256(out + 32, low_nibbles(high));
    store256(out + 64, high_nibbles(low));
    store256(out + 96, high_nibbles(high));
  }
}

}  // namespace

}  // namespace subllm
