// Lays out what picked4.h multiplies.
#pragma once

#include "wide256/picked4.h"

namespace subllm {

namespace {

// How eight of 16 columns are told: for each mask, which of its weights the slots of the pairs
// (a, b, a, b, ...) take, and the places of each pair, six bits.
class Assignments {
 public:
  struct Entry {
    uint8_t weights[8], places[4];
  };

  Assignments() noexcept : lower_([](int column) { return column; }), upper_(upper_place), entries_{} {
    for (unsigned mask = 0; mask < 1u << 16; ++mask) {
      if (__builtin_popcount(mask) != 8) continue;
      for (unsigned part = mask; part; part = (part - 1) & mask)
        if (lower_.holds(part) && upper_.holds(mask ^ part)) {
          Entry& entry = entries_[mask];
          lower_.assign(part, mask, entry.weights, entry.places);
          upper_.assign(mask ^ part, mask, entry.weights + 4, entry.places + 2);
          break;
        }
    }
  }

  // Of a mask of eight bits.
  const Entry& operator[](unsigned mask) const { return entries_[mask]; }

 private:
  // Two pairs of columns.
  class Half {
    struct Pairs {
      uint8_t a, b, c, d;
    };

   public:
    template <typename Place>
    explicit Half(Place place) noexcept : pairs_{} {
      for (int column = 0; column < 16; ++column) places_[column] = place(column);
      for (int a = 0; a < 16; ++a)
        for (int b = 0; b < 16; ++b)
          for (int c = a + 1; c < 16; ++c)
            for (int d = 0; d < 16; ++d) {
              const unsigned columns = 1u << a | 1u << b | 1u << c | 1u << d;
              if (__builtin_popcount(columns) == 4 && fit(a, b) && fit(c, d))
                pairs_[columns] = {static_cast<uint8_t>(a), static_cast<uint8_t>(b),
                                   static_cast<uint8_t>(c), static_cast<uint8_t>(d)};
            }
    }
    bool holds(unsigned columns) const {
      const Pairs& p = pairs_[columns];
      return p.a != p.b;
    }
    void assign(unsigned columns, unsigned mask, uint8_t* weights, uint8_t* places) const {
      const Pairs& p = pairs_[columns];
      const auto weight = [&](int column) {
        return static_cast<uint8_t>(__builtin_popcount(mask & ((1u << column) - 1)));
      };
      const auto place = [&](int a, int b) {
        return static_cast<uint8_t>(places_[a] | places_[b] / 4 << 4);
      };
      weights[0] = weight(p.a), weights[1] = weight(p.b);
      weights[2] = weight(p.c), weights[3] = weight(p.d);
      places[0] = place(p.a, p.b), places[1] = place(p.c, p.d);
    }

   private:
    bool fit(int a, int b) const { return places_[a] / 4 == places_[b] % 4; }
    int places_[16];
    Pairs pairs_[1 << 16];  // by the four columns; all 0 where there are none
  };

  Half lower_, upper_;
  Entry entries_[1 << 16];
};

inline int64_t picked_bytes(const PackedView& view) {
  const Geometry& g = view.geometry;
  if (!may_be_picked(g)) return 0;
  return ceil_div(g.rows, kTileRows) * ceil_div(g.cols, kGroupCols) * kPickedGroup;
}

// A mask of eight bits that has all bits of `mask`.
inline unsigned filled(unsigned mask) {
  for (unsigned bit = 1; __builtin_popcount(mask) < 8; bit <<= 1) mask |= bit;
  return mask;
}

// Writes 16 columns of eight rows: their codes, and their places (two bits free).
inline bool pick_columns(const Assignments& assignments, const uint8_t* masks, const uint8_t* run,
                         uint8_t* codes, uint8_t* places) {
  for (int half = 0; half < 2; ++half) {
    int at = 0;
    for (int r = 4 * half; r < 4 * half + 4; ++r) {
      const unsigned mask = masks[2 * r] | masks[2 * r + 1] << 8;
      const int kept = __builtin_popcount(mask);
      if (kept > 8) return false;
      uint64_t values = load64(run + at) >> (4 * half) & 0x0f0f0f0f0f0f0f0f;
      unsigned whole = mask;
      if (kept < 8) {
        // Columns that are made up have weights of zero.
        whole = filled(mask);
        uint64_t all = 0;
        int rank = 0, next = 0;
        for (unsigned bits = whole; bits; bits &= bits - 1, ++rank) {
          const bool real = mask >> __builtin_ctz(bits) & 1;
          all |= (real ? values >> (8 * next) & 15 : 8) << (8 * rank);
          next += real;
        }
        values = all;
      }
      const Assignments::Entry& entry = assignments[whole];
      const __m128i slots =
          _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<int64_t>(values)),
                           _mm_loadl_epi64(reinterpret_cast<const __m128i*>(entry.weights)));
      // a in the low nibble, b in the high one
      const __m128i words = _mm_maddubs_epi16(slots, _mm_set1_epi16(0x1001));
      const int32_t pairs = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
      __builtin_memcpy(codes + 2 * r, &pairs, 2);
      __builtin_memcpy(codes + 16 + 2 * r, reinterpret_cast<const uint8_t*>(&pairs) + 2, 2);
      __builtin_memcpy(places + 2 * r, entry.places, 2);
      __builtin_memcpy(places + 16 + 2 * r, entry.places + 2, 2);
      at += kept;
    }
  }
  return true;
}

// Row tiles [begin, end) of a matrix; `out` is where the first tile of all goes. False if a row
// keeps more than eight of 16 columns somewhere.
inline bool pick(const PackedView& view, int64_t begin, int64_t end, uint8_t* out) {
  static const Assignments assignments;
  // Rows in the order of the subscales.
  constexpr int kPlaceOfRow[kTileRows] = {0, 2, 4, 6, 1, 3, 5, 7};
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const int64_t groups = ceil_div(view.geometry.cols, kGroupCols), slots = view.geometry.slots;
  for (int64_t tile = begin; tile < end; ++tile) {
    const auto* mask =
        reinterpret_cast<const uint8_t*>(view.mask + tile * blocks * kTileRows);
    const uint8_t* run = view.values + tile * view.geometry.col_blocks() * view.geometry.block_bytes();
    const uint8_t* subscales = view.subscales + tile * groups * kPickedScales;
    uint8_t* to = out + tile * groups * kPickedGroup;
    for (int64_t group = 0; group < groups; ++group, subscales += kPickedScales) {
      for (int r = 0; r < static_cast<int>(kTileRows); ++r)
        for (int piece = 0; piece < 4; ++piece)
          to[r / 4 * 16 + piece % 2 * 8 + r % 4 * 2 + piece / 2] =
              subscales[4 * kPlaceOfRow[r] + piece];
      to += kPickedScales;
      for (int64_t block = group * kGroupBlocks; block < (group + 1) * kGroupBlocks;
           ++block, to += kPickedBlock) {
        if (block >= blocks) {
          __builtin_memset(to, 0x88, kPickedCodes);
          __builtin_memset(to + kPickedCodes, 0, kPickedBlock - kPickedCodes);
          continue;
        }
        alignas(32) uint8_t places[4][32];
        for (int64_t i = 0; i < 4; ++i, mask += 16, run += slots)
          if (!pick_columns(assignments, mask, run, to + 32 * i, places[i])) return false;
        const __m256i last = load256(places[3]);
        for (int i = 0; i < 3; ++i) {
          const __m256i two =
              _mm256_and_si256(_mm256_srl_epi16(last, _mm_cvtsi32_si128(2 * i)), _mm256_set1_epi8(3));
          store256(to + kPickedCodes + 32 * i,
                   _mm256_or_si256(load256(places[i]), _mm256_slli_epi16(two, 6)));
        }
      }
    }
  }
  return true;
}

}  // namespace

}  // namespace subllm
