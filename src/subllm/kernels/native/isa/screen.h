// The screening plane of a head: a copy of its rows at 2 bits a weight, which tells the few rows
// that matter. Included by files compiled for one instruction set: see isa/kernels.h.
#pragma once

#include <cstdint>

#include "core.h"

namespace subllm {

inline constexpr int64_t kScreenRows = 16;  // of a tile
inline constexpr int64_t kScreenCols = 16;  // of a unit
inline constexpr int64_t kScreenUnit = 64;  // bytes of 16 rows x 16 columns

// The codes of a row stand for (2 * code - 3) * step of the row, code 0..3. A tile's units follow
// each other; code of row 4 * k + j and column i of a unit: bits 2 * k and 2 * k + 1 of byte
// 16 * j + i. Two more units hold the 16 columns that 2 bits fit worst once more, at twice the
// step and at half of it: such a weight is the sum of three codes. Rows and columns that are
// missing have code 0; missing rows have step 0.
struct ScreenView {
  int64_t rows = 0, cols = 0;
  const uint8_t* codes = nullptr;    // [tiles][units][64]
  const float* steps = nullptr;      // [tiles * 16]
  const int32_t* columns = nullptr;  // [16], those of the last two units; -1: none

  int64_t tiles() const { return ceil_div(rows, kScreenRows); }
  int64_t own_units() const { return ceil_div(cols, kScreenCols); }
  int64_t units() const { return own_units() + 2; }
};

// States as the screen meets them: int8 codes by one scale, of the columns (zeros beyond), then of
// twice and of half the values of `columns`.
struct ScreenStates {
  int64_t tokens;
  int64_t stride;       // units * 16
  const int8_t* codes;  // [tokens][stride]
  const float* scales;  // [tokens]
  const int32_t* sums;  // [tokens], of the codes
};

// out[t * out_stride + row] = float(2 * dot - 3 * sum_t) * (step * scale_t) for the rows of tiles
// [begin, end), with dot the exact integer product of codes.
using ScreenProduct = void (*)(const ScreenView& view, const ScreenStates& states, int64_t begin,
                               int64_t end, float* out, int64_t out_stride);

void screen_scalar(const ScreenView&, const ScreenStates&, int64_t, int64_t, float*, int64_t);
#if defined(__x86_64__)
void screen_avx2(const ScreenView&, const ScreenStates&, int64_t, int64_t, float*, int64_t);
void screen_avx512(const ScreenView&, const ScreenStates&, int64_t, int64_t, float*, int64_t);
#endif

}  // namespace subllm
