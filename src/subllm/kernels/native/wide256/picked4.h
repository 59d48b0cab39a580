// int4 that keeps at most eight of every 16 columns of a row: the activations that meet a kept
// weight are picked out for it (pshufb), instead of weights being spread over columns, which
// leaves half of the multiplications. Picking by the bits of a mask takes tables, and looking
// those up takes longer than everything else; so the planes are laid out anew when a matrix is
// loaded, with places instead of bits, in 3 bits a weight where the mask has 2.
//
// A row keeps eight of 16 columns in four pairs (a, b). A vector of codes holds, in each half, two
// pairs' `a` of all eight rows, another their `b`, so a word of pmaddubsw is of one row. `a` picks
// any of the 16 columns, with four bits, and so does `b`; but the upper two bits of the one are
// the lower two of the other, so that a pair takes six bits. The activations lie in their order in
// the lower half and in another in the upper one, such that these two and their columns modulo 4
// and divided by 4 are four parallel classes of an affine plane of order 4; then every eight of
// 16 columns can be told so (kAssignments finds how).
#pragma once

#include "wide256/few.h"

namespace subllm {

namespace {

// Where a column lies in the upper half: quotient and remainder of its place by 4 are i + j and
// i + 2 j of its own ones in the field of four elements.
constexpr int upper_place(int column) {
  constexpr int twice[4] = {0, 2, 3, 1};
  const int i = column / 4, j = column % 4;
  return 4 * (i ^ j) + (i ^ twice[j]);
}

struct PickOrder {
  alignas(32) uint8_t columns[32];
};
constexpr PickOrder make_pick_order() {
  PickOrder order{};
  for (int column = 0; column < 16; ++column) {
    order.columns[column] = static_cast<uint8_t>(column);
    order.columns[16 + upper_place(column)] = static_cast<uint8_t>(column);
  }
  return order;
}
constexpr PickOrder kPickOrder = make_pick_order();

// Bytes of 64 columns: the codes of 16 columns each (`a` low, `b` high nibbles); places of the
// first three 16 columns, and of the fourth in the upper two bits of those.
constexpr int64_t kPickedCodes = 4 * 32, kPickedBlock = kPickedCodes + 3 * 32;
// Of a group: subscales of rows 0 .. 3 (pieces 0 and 2 of each; 1 and 3 of each), rows 4 .. 7.
constexpr int64_t kPickedScales = kTileRows * 4;
constexpr int64_t kPickedGroup = kPickedScales + kGroupBlocks * kPickedBlock;

inline bool may_be_picked(const Geometry& g) {
  return g.type == ValueType::int4 && g.slots == kBlockCols / 2;
}

// Of 16 columns: codes, and where their activations lie.
struct Picks {
  __m256i a, b, at_a, at_b;
};

template <int i>
inline Picks picks_at(const uint8_t* block) {
  const __m256i codes = load256(block + 32 * i);
  const uint8_t* places = block + kPickedCodes;
  if constexpr (i < 3) {
    const __m256i place = load256(places + 32 * i);
    return {low_nibbles(codes), high_nibbles(codes), low_nibbles(place),
            low_nibbles(_mm256_srli_epi16(place, 2))};
  }
  const __m256i first = load256(places), second = load256(places + 32), third = load256(places + 64);
  const __m256i low = _mm256_set1_epi8(3), high = _mm256_set1_epi8(12);
  const auto join = [&](__m256i lower, __m256i upper) {
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(lower, 6), low),
                           _mm256_and_si256(_mm256_srli_epi16(upper, 4), high));
  };
  return {low_nibbles(codes), high_nibbles(codes), join(first, second), join(second, third)};
}

// Codes that are signed.
inline Picks centred(Picks picks) {
  const __m256i zero = _mm256_set1_epi8(8);
  return {_mm256_sub_epi8(picks.a, zero), _mm256_sub_epi8(picks.b, zero), picks.at_a, picks.at_b};
}

// Activations as picks read them: 32 bytes for 16 columns. With `unsigned_too` they are 128 too
// large, for signed codes.
inline void lay_out_picks(const Activations& x, int64_t first, int64_t count, bool unsigned_too,
                          uint8_t* out) {
  const __m256i order = load256(kPickOrder.columns);
  const __m256i sign = _mm256_set1_epi8(static_cast<char>(unsigned_too ? 0x80 : 0));
  const int8_t* codes = x.codes + first * x.groups * kGroupCols;
  for (int64_t i = 0; i < count * x.groups * kGroupUnits; ++i)
    store256(out + 32 * i,
             _mm256_xor_si256(_mm256_shuffle_epi8(load_twice(codes + 16 * i), order), sign));
}
inline int64_t picks_bytes(const Geometry& g, int64_t tokens) {
  return tokens * ceil_div(g.cols, kGroupCols) * kGroupCols * 2;
}

// For each piece of 32 columns, words of which the two halves' sum is that of a row -> sums of
// rows, with subscales.
inline __m256i sum_pieces(const __m256i (&words)[4], const uint8_t* subscales) {
  const auto fold = [](__m256i first, __m256i second) {
    return _mm256_add_epi16(_mm256_blend_epi32(first, second, 0xf0),
                            _mm256_permute2x128_si256(first, second, 0x21));
  };
  const __m256i even = fold(words[0], words[1]), odd = fold(words[2], words[3]);
  const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(even, odd),
                                        _mm256_cvtepu8_epi16(load128(subscales)));
  const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(even, odd),
                                         _mm256_cvtepu8_epi16(load128(subscales + 16)));
  return _mm256_add_epi32(_mm256_blend_epi32(low, high, 0xf0),
                          _mm256_permute2x128_si256(low, high, 0x21));
}

// Products of signed codes with activations that are 128 too large, words; what is to be taken off
// is excess_of. A sum of eight products stays below 2^14.
template <int tokens, typename Source>
inline void add_picked(Source source, const uint8_t* x, int64_t stride,
                       __m256i (&words)[tokens][4], __m256i (&weight_sums)[4]) {
  unrolled<4>([&](auto piece) {
    const Picks first = source(std::integral_constant<int, 2 * piece>{});
    const Picks second = source(std::integral_constant<int, 2 * piece + 1>{});
    weight_sums[piece] = _mm256_add_epi8(_mm256_add_epi8(first.a, first.b),
                                         _mm256_add_epi8(second.a, second.b));
    unrolled<tokens>([&](auto t) {
      const auto products = [&](Picks picks, const uint8_t* at) {
        const __m256i from = load256(at);
        return _mm256_add_epi16(
            _mm256_maddubs_epi16(_mm256_shuffle_epi8(from, picks.at_a), picks.a),
            _mm256_maddubs_epi16(_mm256_shuffle_epi8(from, picks.at_b), picks.b));
      };
      const uint8_t* at = x + t * stride + 64 * piece;
      words[t][piece] = _mm256_add_epi16(products(first, at), products(second, at + 32));
    });
  });
}
inline __m256i excess_of(const __m256i (&weight_sums)[4], const uint8_t* subscales) {
  const __m256i excess = _mm256_set1_epi8(static_cast<char>(128));
  __m256i words[4];
  unrolled<4>([&](auto i) { words[i] = _mm256_maddubs_epi16(excess, weight_sums[i]); });
  return sum_pieces(words, subscales);
}

// One token: unsigned codes and signed activations, of which eight times their sum is taken off;
// that takes fewer instructions.
template <typename Source>
inline void add_picked_once(Source source, const uint8_t* x, __m256i (&words)[4]) {
  const __m256i zero = _mm256_set1_epi8(8);
  unrolled<4>([&](auto piece) {
    const auto products = [&](Picks picks, const uint8_t* at) {
      const __m256i from = load256(at);
      const __m256i a = _mm256_shuffle_epi8(from, picks.at_a);
      const __m256i b = _mm256_shuffle_epi8(from, picks.at_b);
      return _mm256_sub_epi16(
          _mm256_add_epi16(_mm256_maddubs_epi16(picks.a, a), _mm256_maddubs_epi16(picks.b, b)),
          _mm256_add_epi16(_mm256_maddubs_epi16(zero, a), _mm256_maddubs_epi16(zero, b)));
    };
    words[piece] =
        _mm256_add_epi16(products(source(std::integral_constant<int, 2 * piece>{}), x + 64 * piece),
                         products(source(std::integral_constant<int, 2 * piece + 1>{}),
                                  x + 64 * piece + 32));
  });
}

template <int tokens>
void few_picked(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                const Target& target, uint8_t* scratch) {
  lay_out_picks(x, 0, tokens, tokens > 1, scratch);
  const int64_t supers = ceil_div(x.groups, 2), stride = x.groups * kGroupCols * 2;
  const uint16_t* scales = view.scales + begin * supers * kTileRows;
  const uint8_t* in = view.relaid + begin * x.groups * kPickedGroup;
  for (int64_t tile = begin; tile < end; ++tile) {
    __m256 totals[tokens], scale = {};
    unrolled<tokens>([&](auto t) { totals[t] = _mm256_setzero_ps(); });
    for (int64_t group = 0; group < x.groups; ++group, in += kPickedGroup) {
      if (group % 2 == 0) {
        scale = halves_at(scales);
        scales += kTileRows;
      }
      fetch(in, kPickedGroup);
      const auto source = [&](auto i) {
        return picks_at<i % 4>(in + kPickedScales + i / 4 * kPickedBlock);
      };
      const uint8_t* at = scratch + group * kGroupCols * 2;
      __m256i words[tokens][4], excess = _mm256_setzero_si256();
      if constexpr (tokens == 1) {
        add_picked_once(source, at, words[0]);
      } else {
        __m256i weight_sums[4];
        add_picked([&](auto i) { return centred(source(i)); }, at, stride, words, weight_sums);
        excess = excess_of(weight_sums, in);
      }
      unrolled<tokens>([&](auto t) {
        const __m256i exact = _mm256_sub_epi32(sum_pieces(words[t], in), excess);
        totals[t] = add_part(totals[t],
                             times_scale(exact, scale, x.scales[t * x.groups + group]), group);
      });
    }
    unrolled<tokens>([&](auto t) {
      store_tile(totals[t], target, t, tile * kTileRows, view.geometry.rows);
    });
  }
}

// Many tokens: picks are made ready in a panel of tiles. Of a group: what is to be taken off its
// sums, subscales, and the picks of each 16 columns.
constexpr int64_t kPanelGroup = 2 * 32 + kGroupUnits * 4 * 32;
constexpr int64_t kPickedChunk = 16;  // tokens

inline void ready_picks(const uint8_t* in, int64_t groups, uint8_t* out) {
  for (int64_t group = 0; group < groups; ++group, in += kPickedGroup, out += kPanelGroup) {
    fetch(in, kPickedGroup);
    __m256i weight_sums[4];
    unrolled<8>([&](auto i) {
      const Picks picks =
          centred(picks_at<i % 4>(in + kPickedScales + i / 4 * kPickedBlock));
      uint8_t* at = out + 64 + i * 128;
      store256(at, picks.a);
      store256(at + 32, picks.at_a);
      store256(at + 64, picks.b);
      store256(at + 96, picks.at_b);
      const __m256i sum = _mm256_add_epi8(picks.a, picks.b);
      weight_sums[i / 2] = i % 2 == 0 ? sum : _mm256_add_epi8(weight_sums[i / 2], sum);
    });
    store256(out, excess_of(weight_sums, in));
    store256(out + 32, load256(in));
  }
}

template <int width>
inline void multiply_ready(const uint8_t* panel, const Activations& x, int64_t token,
                           int64_t group, const uint8_t* picks, __m256 scale, float* totals) {
  const auto source = [&](auto i) {
    const uint8_t* at = panel + 64 + i * 128;
    return Picks{load256(at), load256(at + 64), load256(at + 32), load256(at + 96)};
  };
  __m256i words[width][4], unused[4];
  add_picked(source, picks, x.groups * kGroupCols * 2, words, unused);
  unrolled<width>([&](auto t) {
    const __m256i exact = _mm256_sub_epi32(sum_pieces(words[t], panel + 32), load256(panel));
    float* total = totals + t * kTileRows;
    _mm256_store_ps(total, add_part(_mm256_load_ps(total),
                                    times_scale(exact, scale, x.scales[(token + t) * x.groups + group]),
                                    group));
  });
}

inline void multiply_ready_tile(const PackedView& view, const uint8_t* panel, const Activations& x,
                                int64_t tile, int64_t first, int64_t count, const uint8_t* picks,
                                const Target& target) {
  alignas(32) float totals[kPickedChunk * kTileRows] = {};
  const int64_t stride = x.groups * kGroupCols * 2;
  const uint16_t* scales = view.scales + tile * ceil_div(x.groups, 2) * kTileRows;
  for (int64_t group = 0; group < x.groups; ++group, panel += kPanelGroup, picks += kGroupCols * 2) {
    const __m256 scale = halves_at(scales + group / 2 * kTileRows);
    int64_t t = 0;
    for (; t + 4 <= count; t += 4)
      multiply_ready<4>(panel, x, first + t, group, picks + t * stride, scale, totals + t * kTileRows);
    for (; t < count; ++t)
      multiply_ready<1>(panel, x, first + t, group, picks + t * stride, scale, totals + t * kTileRows);
  }
  for (int64_t t = 0; t < count; ++t)
    store_tile(_mm256_load_ps(totals + t * kTileRows), target, first + t, tile * kTileRows,
               view.geometry.rows);
}

inline int64_t ready_tile_bytes(const Geometry& g) {
  return ceil_div(g.cols, kGroupCols) * kPanelGroup;
}
// More than a tile at a time pays only if several chunks of tokens read it.
inline int64_t ready_tiles(const Geometry& g) {
  const int64_t fit = kPanelBytes / ready_tile_bytes(g);
  return fit < 1 ? 1 : least(fit, kPanelTiles);
}

inline int64_t picked_scratch_bytes(const Geometry& g, int64_t tokens) {
  if (tokens <= kFew) return picks_bytes(g, tokens);
  return picks_bytes(g, kPickedChunk) + ready_tiles(g) * ready_tile_bytes(g);
}

inline void multiply_picked(const PackedView& view, const Activations& x, int64_t begin,
                            int64_t end, const Target& target, uint8_t* scratch) {
  const Geometry& g = view.geometry;
  if (x.tokens <= kFew) {
    with_count(x.tokens, [&]<int tokens>() {
      few_picked<tokens>(view, x, begin, end, target, scratch);
    });
    return;
  }
  const int64_t tiles = ready_tiles(g), pitch = ready_tile_bytes(g);
  uint8_t* panel = scratch + picks_bytes(g, kPickedChunk);
  for (int64_t first = begin; first < end; first += tiles) {
    const int64_t last = least(first + tiles, end);
    for (int64_t tile = first; tile < last; ++tile)
      ready_picks(view.relaid + tile * x.groups * kPickedGroup, x.groups,
                  panel + (tile - first) * pitch);
    for (int64_t token = 0; token < x.tokens; token += kPickedChunk) {
      const int64_t count = least(kPickedChunk, x.tokens - token);
      lay_out_picks(x, token, count, true, scratch);
      for (int64_t tile = first; tile < last; ++tile)
        multiply_ready_tile(view, panel + (tile - first) * pitch, x, tile, token, count, scratch,
                            target);
    }
  }
}

}  // namespace

}  // namespace subllm
