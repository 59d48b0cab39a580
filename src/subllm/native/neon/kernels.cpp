// NEON with the dot product extension. Codes and activations are both signed; a dropped
// weight reads 0. Several tokens share the unpacked rows but are multiplied one by one.

#include <arm_neon.h>

#include "isa/kernel_parts.h"
#include "isa/spread_tables.h"

namespace subllm {

namespace {

void quantize(const float* x, int64_t cols, int8_t* codes, float* scales, int32_t* sums) {
  constexpr int kVectors = kGroupCols / 16;
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
    int32_t sum = 0;
    for (int i = 0; i < kVectors; ++i) {
      const float* at = values + 16 * i;
      const int8x16_t bytes = vcombine_s8(vqmovn_s16(vcombine_s16(code(at), code(at + 4))),
                                          vqmovn_s16(vcombine_s16(code(at + 8), code(at + 12))));
      vst1q_s8(codes + 16 * i, bytes);
      sum += vaddlvq_s8(bytes);
    }
    scales[g] = zero ? 0.0f : most / 127.0f;
    sums[g] = sum;
  }
}

template <ValueType type, Kind kind>
class Runs : public RunWalk<type, kind> {
 public:
  using RunWalk<type, kind>::RunWalk;

  // Calls put(i, sixteen codes) for the quarters of the next run.
  template <typename Put>
  void next_bytes(Put put) {
    const uint8_t* run = this->run();
    uint64_t mask = this->mask();
    int at = 0;
    for (int i = 0; i < 4; ++i, mask >>= 16) {
      int8x16_t codes;
      if constexpr (type == ValueType::int4) {
        const uint8x8_t packed = vcreate_u8(static_cast<uint64_t>(nibbles(run, at)));
        const uint8x8x2_t pairs = vzip_u8(vand_u8(packed, vdup_n_u8(15)), vshr_n_u8(packed, 4));
        codes = vsubq_s8(vreinterpretq_s8_u8(vcombine_u8(pairs.val[0], pairs.val[1])), vdupq_n_s8(8));
      } else {
        codes = vreinterpretq_s8_u8(vld1q_u8(run + at));
      }
      if constexpr (kind != Kind::dense) {
        const auto first = mask & 255, second = mask >> 8 & 255;
        const int count = __builtin_popcountll(first);
        const uint8x16_t from = vaddq_u8(
            vcombine_u8(vld1_u8(kTables.bytes[first]), vld1_u8(kTables.bytes[second])),
            vld1q_u8(kTables.later[count]));
        codes = vqtbl1q_s8(codes, from);
        at += __builtin_popcountll(mask & 0xffff);
      } else {
        at += 16;
      }
      put(i, codes);
    }
    this->step();
  }

  // Calls put(i, eight bf16 values) for the eighths of the next run.
  template <typename Put>
  void next_bf16(Put put) {
    const uint8_t* run = this->run();
    uint64_t mask = this->mask();
    for (int i = 0; i < 8; ++i, mask >>= 8) {
      uint8x16_t values = vld1q_u8(run);
      if constexpr (kind != Kind::dense)
        values = vqtbl1q_u8(values, vld1q_u8(kTables.words[mask & 255]));
      put(i, vreinterpretq_u16_u8(values));
      run += 2 * __builtin_popcountll(mask & 255);
    }
    this->step();
  }
};

// The eight rows of a tile.
struct Rows {
  float32x4_t low, high;
};

inline Rows add(Rows a, Rows b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }

inline Rows scaled(const int32x4_t (&sums)[kTileRows], float token_scale, const uint16_t* scales) {
  const auto four = [&](int r) {
    const int32x4_t exact = vpaddq_s32(vpaddq_s32(sums[r], sums[r + 1]),
                                       vpaddq_s32(sums[r + 2], sums[r + 3]));
    const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales + r)));
    return vmulq_f32(vcvtq_f32_s32(exact), vmulq_n_f32(scale, token_scale));
  };
  return {four(0), four(4)};
}

inline Rows sum_lanes(const float32x4_t (&sums)[kTileRows]) {
  const auto four = [&](int r) {
    return vpaddq_f32(vpaddq_f32(sums[r], sums[r + 1]), vpaddq_f32(sums[r + 2], sums[r + 3]));
  };
  return {four(0), four(4)};
}

inline float32x4_t add_products(float32x4_t sum, uint16x8_t a, uint16x8_t b) {
  const auto low = [](uint16x8_t v) {
    return vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
  };
  const auto high = [](uint16x8_t v) {
    return vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(v), 16));
  };
  return vfmaq_f32(vfmaq_f32(sum, low(a), low(b)), high(a), high(b));
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

// One token, straight from the packed planes.
template <ValueType type, Kind kind>
void multiply_token(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
                    const Target& target) {
  const int64_t blocks = ceil_div(view.geometry.cols, kBlockCols);
  Runs<type, kind> runs(view, begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    runs.start_tile(tile);
    Rows total{vdupq_n_f32(0), vdupq_n_f32(0)};
    if constexpr (type == ValueType::bf16) {
      float32x4_t sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_f32(0); });
      for (int64_t block = 0; block < blocks; ++block) {
        runs.fetch();
        unrolled<kTileRows>([&](auto r) {
          runs.next_bf16([&](int i, uint16x8_t values) {
            sums[r] = add_products(sums[r], values, vld1q_u16(x.bf16 + block * kBlockCols + 8 * i));
          });
        });
      }
      total = sum_lanes(sums);
    } else {
      const uint16_t* scales = view.scales + tile * x.groups * kTileRows;
      for (int64_t group = 0; group < x.groups; ++group) {
        int32x4_t sums[kTileRows];
        unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_s32(0); });
        const int64_t last = least((group + 1) * kGroupBlocks, blocks);
        for (int64_t block = group * kGroupBlocks; block < last; ++block) {
          runs.fetch();
          unrolled<kTileRows>([&](auto r) {
            runs.next_bytes([&](int i, int8x16_t codes) {
              sums[r] = vdotq_s32(sums[r], codes, vld1q_s8(x.codes + block * kBlockCols + 16 * i));
            });
          });
        }
        const Rows part = scaled(sums, x.scales[group], scales + group * kTileRows);
        total = group == 0 ? part : add(total, part);
      }
    }
    store_tile(total, target, 0, tile * kTileRows, view.geometry.rows);
  }
}

struct Isa {
  // No blocks of tokens: a panel of one tile serves them all.
  static constexpr int kLanes = 0, kVectors = 1;
  static constexpr bool kHalves = false;
  template <ValueType type, Kind kind>
  using Runs = subllm::Runs<type, kind>;

  // Columns of a block -> their place in a row of the panel.
  template <ValueType type, Kind kind>
  static void unpack(Runs<type, kind>& runs, int64_t block, uint8_t* row) {
    if constexpr (type == ValueType::bf16)
      runs.next_bf16([&](int i, uint16x8_t values) {
        vst1q_u8(row + block * 128 + 16 * i, vreinterpretq_u8_u16(values));
      });
    else
      runs.next_bytes([&](int i, int8x16_t codes) {
        vst1q_u8(row + block * 64 + 16 * i, vreinterpretq_u8_s8(codes));
      });
  }

  template <ValueType type>
  static void one(const Tile& tile, const Activations& x, int64_t t, const Target& target) {
    Rows total{vdupq_n_f32(0), vdupq_n_f32(0)};
    if constexpr (type == ValueType::bf16) {
      const uint16_t* token = x.bf16 + t * x.groups * kGroupCols;
      float32x4_t sums[kTileRows];
      unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_f32(0); });
      for (int64_t i = 0; i < tile.blocks * kBlockCols; i += 8)
        unrolled<kTileRows>([&](auto r) {
          sums[r] = add_products(
              sums[r], vreinterpretq_u16_u8(vld1q_u8(tile.rows + r * tile.pitch + 2 * i)),
              vld1q_u16(token + i));
        });
      total = sum_lanes(sums);
    } else {
      const int8_t* token = x.codes + t * x.groups * kGroupCols;
      for (int64_t group = 0; group < x.groups; ++group) {
        int32x4_t sums[kTileRows];
        unrolled<kTileRows>([&](auto r) { sums[r] = vdupq_n_s32(0); });
        const int64_t last = least((group + 1) * kGroupBlocks, tile.blocks) * kBlockCols;
        for (int64_t i = group * kGroupCols; i < last; i += 16)
          unrolled<kTileRows>([&](auto r) {
            const uint8x16_t codes = vld1q_u8(tile.rows + r * tile.pitch + i);
            sums[r] = vdotq_s32(sums[r], vreinterpretq_s8_u8(codes), vld1q_s8(token + i));
          });
        const Rows part =
            scaled(sums, x.scales[t * x.groups + group], tile.scales + group * kTileRows);
        total = group == 0 ? part : add(total, part);
      }
    }
    store_tile(total, target, t, tile.row, tile.row_count);
  }
};

int64_t scratch_bytes(const Geometry& g, int64_t tokens) {
  return panel_bytes(g, tokens, Isa::kLanes);
}

void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  with_type_and_kind(view, [&]<ValueType type, Kind kind>() {
    if (x.tokens == 1)
      multiply_token<type, kind>(view, x, begin, end, target);
    else
      multiply_panels<Isa, type, kind>(view, x, begin, end, target, scratch);
  });
}

}  // namespace

const Kernels kNeonKernels = {"neon", 0, 0, 0, quantize, scratch_bytes, multiply};

}  // namespace subllm
