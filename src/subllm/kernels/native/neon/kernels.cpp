// NEON with the dot product extension, which multiplies signed bytes: 16 columns of a row at a
// time. With a mask, tiles are unpacked first; a dropped weight reads 0, and int4 is centred, so
// that its sums need no correction.

#include <arm_neon.h>

#include "isa/kernel_parts.h"
#include "isa/spread_tables.h"

namespace subllm {

namespace {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int16_t* subs) {
  for (int64_t g = 0; g * kGroupCols < cols; ++g, x += kGroupCols, codes += kGroupCols) {
    const int64_t count = least(kGroupCols, cols - g * kGroupCols);
    float padded[kGroupCols] = {};
    const float* values = x;
    if (count < kGroupCols) {
      __builtin_memcpy(padded, x, static_cast<size_t>(count) * sizeof(float));
      values = padded;
    }
    float32x4_t largest = vdupq_n_f32(0);
    for (int i = 0; i < kGroupCols; i += 4)
      largest = vmaxq_f32(largest, vabsq_f32(vld1q_f32(values + i)));
    const float most = vmaxvq_f32(largest);
    const bool zero = most < kSmallestInput;
    const float32x4_t inverse = vdupq_n_f32(zero ? 0.0f : 127.0f / most);
    const auto code = [&](const float* at) {
      return vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(vld1q_f32(at), inverse)));
    };
    for (int i = 0; i < kGroupCols / 16; ++i) {
      const float* at = values + 16 * i;
      const int8x16_t bytes = vcombine_s8(vqmovn_s16(vcombine_s16(code(at), code(at + 4))),
                                          vqmovn_s16(vcombine_s16(code(at + 8), code(at + 12))));
      vst1q_s8(codes + 16 * i, bytes);
      int16_t& sum = subs[g * kGroupSubs + i / 2];
      sum = static_cast<int16_t>((i % 2 == 0 ? 0 : sum) + vaddlvq_s8(bytes));
    }
    scales[g] = zero ? 0.0f : most / 127.0f;
  }
}

constexpr int64_t kGroupUnits = kGroupCols / kUnitCols;  // of either four rows
constexpr int kTogether = 4;                             // tokens

template <ValueType type>
constexpr int64_t kRowBytes = kUnitCols * (type == ValueType::bf16 ? 2 : 1);

inline int64_t columns_of(const Geometry& g) {  // in units of 16
  return ceil_div(g.cols, kBlockCols) * (kBlockCols / kUnitCols);
}

// Unpacks the runs of a tile with a mask: 16 columns of eight rows after the other, every column
// in its place.
template <ValueType type>
void unpack_tile(const PackedView& view, int64_t tile, uint8_t* out) {
  const Geometry& g = view.geometry;
  const int64_t words = ceil_div(g.cols, kBlockCols) * kBlockUnits;
  const bool shared = type == ValueType::int4 && g.slots > 0;
  const int64_t fixed = run_bytes(type, g.slots);
  const uint8_t* run = view.values + (view.offsets ? int64_t{view.offsets[tile]} * kAlign
                                                   : tile * words * fixed);
  const uint64_t* mask = view.mask + tile * words;
  for (int64_t word = 0; word < words; ++word) {
    int at = 0;
    for (int64_t r = 0; r < kUnitRows; ++r, out += kRowBytes<type>) {
      const auto first = mask[word] >> (kUnitCols * r) & 255;
      const auto second = mask[word] >> (kUnitCols * r + 8) & 255;
      const int count = __builtin_popcountll(first);
      if constexpr (type == ValueType::bf16) {
        const auto put = [&](int64_t half, uint64_t bits, int from) {
          vst1q_u8(out + 16 * half, vqtbl1q_u8(vld1q_u8(run + 2 * from), vld1q_u8(kTables.words[bits])));
        };
        put(0, first, at);
        put(1, second, at + count);
      } else {
        uint8x16_t codes;
        if (type == ValueType::int8) {
          codes = vld1q_u8(run + at);
        } else if (shared) {
          codes = vld1q_u8(run + at);
          codes = word % 2 == 0 ? vandq_u8(codes, vdupq_n_u8(15)) : vshrq_n_u8(codes, 4);
        } else {
          const uint8x8_t packed = vcreate_u8(static_cast<uint64_t>(nibbles(run, at)));
          const uint8x8x2_t pairs = vzip_u8(vand_u8(packed, vdup_n_u8(15)), vshr_n_u8(packed, 4));
          codes = vcombine_u8(pairs.val[0], pairs.val[1]);
        }
        if (type == ValueType::int4) codes = vsubq_u8(codes, vdupq_n_u8(8));
        const uint8x16_t from = vaddq_u8(
            vcombine_u8(vld1_u8(kTables.bytes[first]), vld1_u8(kTables.bytes[second])),
            vld1q_u8(kTables.later[count]));
        vst1q_u8(out, vqtbl1q_u8(codes, from));
      }
      at += count + __builtin_popcountll(second);
    }
    if (!shared)
      run += view.offsets ? run_bytes(type, at) : fixed;
    else if (word % 2 == 1)
      run += 2 * fixed;
  }
}

// The eight rows of a tile.
struct Rows {
  float32x4_t low, high;
};

inline Rows add(Rows a, Rows b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }

inline float32x4_t halves_at(const uint16_t* scales) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales)));
}

// Exact sums times scale * token_scale.
inline Rows scaled(int32x4_t low, int32x4_t high, const uint16_t* scales, float token_scale) {
  return {vmulq_f32(vcvtq_f32_s32(low), vmulq_n_f32(halves_at(scales), token_scale)),
          vmulq_f32(vcvtq_f32_s32(high), vmulq_n_f32(halves_at(scales + 4), token_scale))};
}

inline int32x4_t sum_lanes(const int32x4_t* sums) {
  return vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
}
inline float32x4_t sum_lanes(const float32x4_t* sums) {
  return vpaddq_f32(vpaddq_f32(sums[0], sums[1]), vpaddq_f32(sums[2], sums[3]));
}

// Adds the bias and writes the rows of a tile that the matrix has.
inline void store_tile(Rows total, const Target& target, int64_t token, int64_t row, int64_t rows) {
  float values[kTileRows];
  vst1q_f32(values, total.low);
  vst1q_f32(values + 4, total.high);
  float* out = target.out + token * target.stride + row;
  for (int64_t r = 0; r < least(kTileRows, rows - row); ++r)
    out[r] = target.bias ? values[r] + target.bias[row + r] : values[r];
}

// Codes of a row's 16 columns: unpacked ones, or nibbles of the plane of a dense matrix.
template <ValueType type, bool masked>
inline int8x16_t codes_at(const uint8_t* tile, int64_t column, int r) {
  if constexpr (type == ValueType::int8 || masked)
    return vreinterpretq_s8_u8(vld1q_u8(tile + (column * kTileRows + r) * kUnitCols));
  const uint8x16_t both = vld1q_u8(tile + (column * kUnitRows + r % kUnitRows) * kUnitCols);
  return vreinterpretq_s8_u8(r < kUnitRows ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4));
}

// The products of a group, `columns` times 16 columns from `first` on.
template <ValueType type, bool masked>
inline Rows multiply_group(const PackedView& view, const uint8_t* codes, const Activations& x,
                           int64_t tile, int64_t t, int64_t group, int64_t columns) {
  const Geometry& g = view.geometry;
  const int64_t first = group * kGroupUnits, token = t * x.groups + group;
  const int8_t* at = x.codes + token * kGroupCols;
  const uint16_t* scales = view.scales + tile * g.tile_scales();
  int32x4_t sums[kTileRows];
  unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_s32(0); });
  if constexpr (type == ValueType::int8) {
    for (int64_t i = 0; i < columns; ++i) {
      const int8x16_t from = vld1q_s8(at + kUnitCols * i);
      unrolled<kTileRows>([&](auto r) {
        sums[r] = vdotq_s32(sums[r], codes_at<type, masked>(codes, first + i, r), from);
      });
    }
    return scaled(sum_lanes(sums), sum_lanes(sums + 4), scales + group * kTileRows, x.scales[token]);
  } else {
    constexpr int64_t kTerms = masked ? 1 : 2;
    const uint8_t* subscales = view.subscales + tile * g.tile_subscales() +
                               group * kTerms * kTileRows * kGroupSubs;
    scales += group / 2 * kTerms * kTileRows;
    for (int64_t sub = 0; sub < columns / 2; ++sub) {
      const int8x16_t from = vld1q_s8(at + kSubCols * sub), next = vld1q_s8(at + kSubCols * sub + 16);
      unrolled<kTileRows>([&](auto i) {
        constexpr int r = kSubscaleRows[i];
        const int64_t column = first + 2 * sub;
        const int32x4_t exact =
            vdotq_s32(vdotq_s32(vdupq_n_s32(0), codes_at<type, masked>(codes, column, r), from),
                      codes_at<type, masked>(codes, column + 1, r), next);
        sums[r] = vmlaq_n_s32(sums[r], exact, subscales[kGroupSubs * i + sub]);
      });
    }
    const Rows part = scaled(sum_lanes(sums), sum_lanes(sums + 4), scales, x.scales[token]);
    if constexpr (masked) return part;
    const uint8_t* minima = subscales + kTileRows * kGroupSubs;
    int32_t lost[kTileRows];
    unrolled<kTileRows>([&](auto i) {
      constexpr int r = kSubscaleRows[i];
      lost[r] = 0;
      for (int64_t sub = 0; sub < kGroupSubs; ++sub)
        lost[r] += minima[kGroupSubs * i + sub] * x.subs[token * kGroupSubs + sub];
    });
    const Rows less =
        scaled(vld1q_s32(lost), vld1q_s32(lost + 4), scales + kTileRows, x.scales[token]);
    return {vsubq_f32(part.low, less.low), vsubq_f32(part.high, less.high)};
  }
}

// The sum of eight columns of each row after the other, whatever the other tokens.
inline Rows multiply_bf16(const uint8_t* tile, int64_t columns, const uint16_t* token) {
  float32x4_t sums[kTileRows];
  unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_f32(0); });
  const auto low = [](uint16x8_t v) {
    return vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
  };
  const auto high = [](uint16x8_t v) {
    return vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(v), 16));
  };
  for (int64_t i = 0; i < columns; ++i, tile += kTileRows * kRowBytes<ValueType::bf16>)
    unrolled<2>([&](auto half) {
      const uint16x8_t from = vld1q_u16(token + kUnitCols * i + 8 * half);
      unrolled<kTileRows>([&](auto r) {
        const uint16x8_t row = vreinterpretq_u16_u8(
            vld1q_u8(tile + r * kRowBytes<ValueType::bf16> + 16 * half));
        sums[r] = vfmaq_f32(vfmaq_f32(sums[r], low(row), low(from)), high(row), high(from));
      });
    });
  return {sum_lanes(sums), sum_lanes(sums + 4)};
}

template <ValueType type, bool masked>
void multiply_tiles(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target, uint8_t* scratch) {
  const Geometry& g = view.geometry;
  const int64_t columns = columns_of(g), bytes = columns / 4 * g.block_bytes();
  for (int64_t tile = begin; tile < end; ++tile) {
    const uint8_t* at = scratch;
    if constexpr (masked)
      unpack_tile<type>(view, tile, scratch);
    else
      at = view.values + tile * bytes;
    const auto store = [&](Rows total, int64_t t) {
      store_tile(total, target, t, tile * kTileRows, g.rows);
    };
    if constexpr (type == ValueType::bf16) {
      for (int64_t t = 0; t < x.tokens; ++t)
        store(multiply_bf16(at, columns, x.bf16 + t * x.groups * kGroupCols), t);
    } else {
      for (int64_t first = 0; first < x.tokens; first += kTogether) {
        const int64_t count = least(kTogether, x.tokens - first);
        Rows totals[kTogether];
        for (int64_t group = 0; group < x.groups; ++group)
          for (int64_t t = 0; t < count; ++t) {
            const Rows part = multiply_group<type, masked>(
                view, at, x, tile, first + t, group,
                least(kGroupUnits, columns - group * kGroupUnits));
            totals[t] = group == 0 ? part : add(totals[t], part);
          }
        for (int64_t t = 0; t < count; ++t) store(totals[t], first + t);
      }
    }
  }
}

int64_t scratch_bytes(const Geometry& g, int64_t) {
  return g.dense() ? 0 : columns_of(g) * kTileRows * kUnitCols * (g.type == ValueType::bf16 ? 2 : 1);
}

template <ValueType type>
void multiply_type(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                   const Target& target, uint8_t* scratch) {
  (view.mask ? multiply_tiles<type, true> : multiply_tiles<type, false>)(view, x, begin, end, target,
                                                                         scratch);
}

void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  switch (view.geometry.type) {
    case ValueType::int4: return multiply_type<ValueType::int4>(view, x, begin, end, target, scratch);
    case ValueType::int8: return multiply_type<ValueType::int8>(view, x, begin, end, target, scratch);
    case ValueType::bf16: return multiply_type<ValueType::bf16>(view, x, begin, end, target, scratch);
  }
}

}  // namespace

const Kernels kNeonKernels = {"neon", 0, 0, quantize, scratch_bytes, multiply};

}  // namespace subllm
