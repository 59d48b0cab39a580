// One to eight tokens: weights are unpacked in registers (or, with a mask, in the first cache) and
// used for all of them.
#pragma once

#include "wide256/codes4.h"
#include "wide256/expand.h"

namespace subllm {

namespace {

constexpr int kFew = 8;

// The same input from `token` on.
inline Activations from_token(const Activations& x, int64_t token) {
  Activations rest = x;
  const int64_t stride = x.groups * kGroupCols;
  rest.tokens -= token;
  rest.codes += token * stride;
  rest.scales += token * x.groups;
  rest.subs += token * x.groups * kGroupSubs;
  rest.bf16 += token * stride;
  return rest;
}
inline Target from_token(const Target& target, int64_t token) {
  return {target.bias, target.out + token * target.stride, target.stride};
}

// Calls call.template operator()<count>().
template <typename Call>
inline void with_count(int64_t count, Call call) {
  switch (count) {
    case 1: return call.template operator()<1>();
    case 2: return call.template operator()<2>();
    case 3: return call.template operator()<3>();
    case 4: return call.template operator()<4>();
    case 5: return call.template operator()<5>();
    case 6: return call.template operator()<6>();
    case 7: return call.template operator()<7>();
    case 8: return call.template operator()<8>();
  }
}

// Where the pairs of rows lie in eight rows of 16 columns.
constexpr int64_t kPairAt[kPairs] = {0, 64, 32, 96};

// Columns of a group, in units of 16.
inline int64_t group_columns(int64_t blocks, int64_t group) {
  return least(kGroupBlocks, blocks - group * kGroupBlocks) * (kBlockCols / kUnitCols);
}

// The groups of a matrix one after the other, as bytes that `kColumnBytes` describes: those of a
// dense matrix where they are, the others unpacked into a buffer. Dense int4 stays packed.
template <ValueType type, bool masked>
class Groups {
 public:
  Groups(const PackedView& view, int64_t tile)
      : view_(view), blocks_(ceil_div(view.geometry.cols, kBlockCols)), units_(view, tile) {}
  void start_tile(int64_t tile) { units_ = Units<type>(view_, tile); }
  const uint8_t* next(int64_t group) {
    units_.expand(group_columns(blocks_, group), buffer_);
    return buffer_;
  }

 private:
  const PackedView& view_;
  int64_t blocks_;
  Units<type> units_;
  alignas(64) uint8_t buffer_[kGroupBytes<type>];
};
template <ValueType type>
class Groups<type, false> {
  static constexpr int64_t kBytes =
      type == ValueType::int4 ? kGroupBytes<type> / 2 : kGroupBytes<type>;

 public:
  Groups(const PackedView& view, int64_t tile)
      : blocks_(ceil_div(view.geometry.cols, kBlockCols)),
        next_(view.values + tile * blocks_ * (kBytes / kGroupBlocks)) {}
  void start_tile(int64_t) {}
  const uint8_t* next(int64_t group) {
    const uint8_t* here = next_;
    next_ += kBytes / kGroupUnits * group_columns(blocks_, group);
    fetch(here, kBytes);
    return here;
  }

 private:
  int64_t blocks_;
  const uint8_t* next_;
};

inline int32_t sum_of(const int16_t* subs) { return subs[0] + subs[1] + subs[2] + subs[3]; }

inline __m256 add_part(__m256 total, __m256 part, int64_t group) {
  return group == 0 ? part : _mm256_add_ps(total, part);
}

template <typename Dot, bool masked, int tokens>
void few_int4(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target) {
  constexpr int64_t kKinds = masked ? 1 : 2;  // scales, and minima
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols), supers = ceil_div(x.groups, 2);
  const int64_t stride = x.groups * kGroupCols;
  const uint16_t* scales = view.scales + begin * supers * kKinds * kTileRows;
  const uint8_t* subscales = view.subscales + begin * x.groups * kKinds * kTileRows * 4;
  Groups<ValueType::int4, masked> groups(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    groups.start_tile(tile);
    __m256 totals[tokens], scale = {}, least_scale = {};
    unrolled<tokens>([&](auto t) { totals[t] = _mm256_setzero_ps(); });
    for (int64_t group = 0; group < x.groups; ++group, subscales += kKinds * kTileRows * 4) {
      if (group % 2 == 0) {
        scale = paired_scales(scales);
        if constexpr (!masked) least_scale = paired_scales(scales + kTileRows);
        scales += kKinds * kTileRows;
      }
      const uint8_t* at = groups.next(group);
      fetch_line(subscales);
      const auto weights = [&](int pair, int64_t i) {
        if constexpr (masked) return load256(at + kColumnBytes<ValueType::int4> * i + kPairAt[pair]);
        const __m256i both = load256(at + 64 * i + 32 * (pair / 2));
        return pair % 2 == 0 ? low_nibbles(both) : high_nibbles(both);
      };
      __m256i sums[tokens];
      sum_group<Dot, tokens>(weights, group_columns(blocks, group) / 2, subscales,
                             x.codes + group * kGroupCols, stride, sums);
      const PieceFactors factors(masked ? subscales : subscales + kTileRows * 4);
      unrolled<tokens>([&](auto t) {
        const int64_t token = t * x.groups + group;
        const __m256i lost = factors.times(x.subs + token * kGroupSubs);
        totals[t] = add_part(
            totals[t], part_of<masked>(sums[t], lost, scale, least_scale, x.scales[token]), group);
      });
    }
    unrolled<tokens>([&](auto t) {
      store_tile(_mm256_permutevar8x32_ps(totals[t], to_row_order()), target, t, tile * kTileRows,
                 view.geometry.rows);
    });
  }
}

template <typename Dot, bool masked, int tokens>
void few_int8(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target) {
  constexpr int at_once = kPairsAtOnce<tokens>;
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  const int64_t stride = x.groups * kGroupCols;
  const uint16_t* scales = view.scales + begin * x.groups * kTileRows;
  Groups<ValueType::int8, masked> groups(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    groups.start_tile(tile);
    __m256 totals[tokens];
    unrolled<tokens>([&](auto t) { totals[t] = _mm256_setzero_ps(); });
    for (int64_t group = 0; group < x.groups; ++group, scales += kTileRows) {
      const uint8_t* at = groups.next(group);
      const int64_t columns = group_columns(blocks, group);
      __m256i lanes[tokens][kPairs];
      unrolled<kPairs / at_once>([&](auto pass) {
        __m256i acc[tokens][at_once];
        unrolled<tokens>([&](auto t) {
          unrolled<at_once>([&](auto p) { acc[t][p] = _mm256_setzero_si256(); });
        });
        for (int64_t i = 0; i < columns; ++i)
          unrolled<at_once>([&](auto p) {
            const auto weights = Dot::bytes(
                load256(at + kColumnBytes<ValueType::int8> * i + kPairAt[pass * at_once + p]));
            unrolled<tokens>([&](auto t) {
              acc[t][p] = Dot::add(
                  acc[t][p], weights,
                  load_twice(x.codes + t * stride + group * kGroupCols + i * kUnitCols));
            });
          });
        unrolled<tokens>([&](auto t) {
          unrolled<at_once>([&](auto p) { lanes[t][pass * at_once + p] = acc[t][p]; });
        });
      });
      const __m256 scale = paired_scales(scales);
      unrolled<tokens>([&](auto t) {
        const int64_t token = t * x.groups + group;
        __m256i exact = sum_pairs(lanes[t]);
        if constexpr (Dot::kExcess != 0)
          exact = _mm256_sub_epi32(
              exact, _mm256_set1_epi32(Dot::kExcess * sum_of(x.subs + token * kGroupSubs)));
        totals[t] = add_part(totals[t], times_scale(exact, scale, x.scales[token]), group);
      });
    }
    unrolled<tokens>([&](auto t) {
      store_tile(_mm256_permutevar8x32_ps(totals[t], to_row_order()), target, t, tile * kTileRows,
                 view.geometry.rows);
    });
  }
}

template <typename Dot>
void multiply_few(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                  const Target& target) {
  with_count(x.tokens, [&]<int tokens>() {
    const auto run = view.geometry.type == ValueType::int4
                         ? (view.mask ? few_int4<Dot, true, tokens> : few_int4<Dot, false, tokens>)
                         : (view.mask ? few_int8<Dot, true, tokens> : few_int8<Dot, false, tokens>);
    run(view, x, begin, end, target);
  });
}

}  // namespace

}  // namespace subllm
