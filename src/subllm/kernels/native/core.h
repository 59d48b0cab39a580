// The native core: packing, unpacking and selecting masks, decoding GGUF blocks.
// Plain C++20. Functions throw std::invalid_argument for data that does not fit its
// description; sizes of the buffers are checked by `check_*` before work starts.
// `threads` is an upper bound, 0 meaning every CPU that the process may use; results
// never depend on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace subllm {

inline constexpr int64_t kTileRows = 8;
inline constexpr int64_t kBlockCols = 64;
inline constexpr int64_t kGroupCols = 128;   // share a scale of activations, and of int8 weights
inline constexpr int64_t kSubCols = 32;       // share a subscale of int4 weights
inline constexpr int64_t kSuperCols = 256;    // share a scale of int4 weights
inline constexpr int64_t kGroupSubs = kGroupCols / kSubCols;
inline constexpr int64_t kUnitRows = 4;       // a mask word and its run cover 4 rows
inline constexpr int64_t kUnitCols = 16;      // and 16 columns
inline constexpr int64_t kBlockUnits = 8;     // (columns 0..15, rows 0..3), (0..15, 4..7), ...
inline constexpr int64_t kAlign = 64;

enum class ValueType { bf16, int8, int4 };

ValueType parse_value_type(std::string_view name);

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of a run of `count` values; int4 runs end on a byte boundary.
constexpr int64_t run_bytes(ValueType type, int64_t count) {
  switch (type) {
    case ValueType::bf16: return 2 * count;
    case ValueType::int8: return count;
    case ValueType::int4: return (count + 1) / 2;
  }
  return 0;
}

// Shape of a packed matrix. `slots` is the fixed number of values of a unit (N:M and dense),
// or 0 where it varies (unstructured).
struct Geometry {
  int64_t rows, cols, slots;
  ValueType type;

  bool dense() const { return slots == kBlockCols; }
  int64_t row_tiles() const { return ceil_div(rows, kTileRows); }
  int64_t col_blocks() const { return ceil_div(cols, kBlockCols); }
  int64_t col_groups() const { return ceil_div(cols, kGroupCols); }
  int64_t col_supers() const { return ceil_div(cols, kSuperCols); }
  int64_t mask_words() const { return row_tiles() * col_blocks() * kBlockUnits; }
  // What int4 has of scales and of subscales: minima beside them where it is dense.
  int64_t terms() const { return dense() ? 2 : 1; }
  // Scales of a tile.
  int64_t tile_scales() const {
    if (type == ValueType::bf16) return 0;
    return kTileRows * (type == ValueType::int4 ? col_supers() * terms() : col_groups());
  }
  // Subscales of a tile.
  int64_t tile_subscales() const {
    return type == ValueType::int4 ? col_groups() * terms() * kTileRows * kGroupSubs : 0;
  }
  // Bytes of the runs of a block, where they are fixed.
  int64_t block_bytes() const { return kBlockUnits * slots * value_bits() / 8; }
  int64_t value_bits() const {
    return type == ValueType::bf16 ? 16 : type == ValueType::int8 ? 8 : 4;
  }
  int64_t block_cols(int64_t block) const {
    const int64_t left = cols - block * kBlockCols;
    return left < kBlockCols ? left : kBlockCols;
  }
};

// Of the rows of a tile, which one the i-th entry of a group of subscales belongs to.
inline constexpr int kSubscaleRows[kTileRows] = {0, 4, 1, 5, 2, 6, 3, 7};

// Planes of a packed matrix, as sparsity/layout.py draws them. mask is null when dense, scales
// null for bf16, offsets null unless unstructured, subscales null but for int4.
struct PackedView {
  Geometry geometry;
  const uint64_t* mask;
  const uint8_t* values;
  const uint16_t* scales;   // binary16
  const uint32_t* offsets;  // [row_tiles + 1], in units of kAlign bytes
  const uint8_t* subscales = nullptr;  // int4: [row_tiles][col_groups][terms][8][4]
  bool balanced = false;    // every row of a unit keeps slots / 4 weights; see check_masks
  const uint8_t* relaid = nullptr;  // the same as the kernels in use like it, or null; see relay
};

struct PlaneSizes {
  int64_t mask, values, scales, offsets, subscales;  // elements; 0 for a plane that is absent
};

// Throws std::invalid_argument when rows, cols or slots are out of range.
void check_geometry(const Geometry& geometry);

// Throws std::invalid_argument unless every plane has the size that the geometry asks for.
void check_planes(const PackedView& view, const PlaneSizes& sizes);

// out[r][c] = whether scores[r][c] survives; every group of m columns keeps its n highest.
// Among equals the lower column is dropped. cols % m must be 0; NaN is refused.
void select_nm(const float* scores, int64_t rows, int64_t cols, int n, int m, bool* out,
               int threads);

// As select_nm with one group per row, of which the `drop` lowest go.
void select_rows(const float* scores, int64_t rows, int64_t cols, int64_t drop, bool* out,
                 int threads);

// mask [rows][cols] <-> bits [row_tiles][col_blocks][8]: one word for each unit.
void pack_bits(const bool* mask, int64_t rows, int64_t cols, uint64_t* bits, int threads);
void unpack_bits(const uint64_t* bits, int64_t rows, int64_t cols, bool* mask, int threads);

// Where each row tile of an unstructured matrix starts; writes row_tiles + 1 entries.
void tile_offsets(const Geometry& geometry, const uint64_t* mask, uint32_t* offsets);

// Where the quantiser's results go, for all rows of a matrix: scales and subscales as in
// PackedView.
struct ScalePlanes {
  uint16_t* scales;
  uint8_t* subscales;
};

// Fills `values` and the scales of a matrix whose mask (and offsets) are known. importance
// [cols] weighs the squared errors that int4 minimises; null counts all alike.
void pack(const float* weights, const float* importance, const Geometry& geometry,
          const uint64_t* mask, const uint32_t* offsets, uint8_t* values,
          const ScalePlanes& scales, int threads);

// Fills `values` from codes [rows][cols] that are there already: int8 codes, or 0 .. 15 for
// int4. Codes of dropped weights are not read.
void pack_codes(const uint8_t* codes, const Geometry& geometry, const uint64_t* mask,
                const uint32_t* offsets, uint8_t* values, int threads);

// out [rows][cols]; masked weights are 0.
void unpack(const PackedView& view, float* out, int threads);

// Rows of one row tile: out[r] is null or [cols]. Throws std::invalid_argument when mask and
// values contradict each other.
void unpack_tile(const PackedView& view, int64_t tile, float* const (&out)[kTileRows]);

// out [count][cols], the rows named by `indices`.
void unpack_rows(const PackedView& view, const int64_t* indices, int64_t count, float* out,
                 int threads);

// int8: scale (as binary16 bits) and codes of one group of kept values, chosen by least squared
// error. `values` holds `count` values and zeros up to the next multiple of 16.
uint16_t quantize_group(const float* values, int count, int8_t* codes);

// int4: one row of up to 256 columns (`cols` of them) whose kept weights are those with kept[c];
// null keeps all and gives minima too. importance [cols] weighs squared errors, null alike.
// codes [cols] 0 .. 15; scales [terms]; subscales [terms][8], of 32 columns each.
void quantize_super(const float* weights, const uint8_t* kept, const float* importance,
                    int64_t cols, uint8_t* codes, uint16_t* scales,
                    uint8_t (*subscales)[kSuperCols / kSubCols]);

// Some columns of an int4 matrix, in the order in which they are rounded.
struct FeedbackBlock {
  int64_t rows, cols, subs;
  const float* upper;      // [cols][cols], what an error in column c means for column j > c
  const int32_t* sub_of;   // [cols], each column's place in steps and minima
  const float* steps;      // [rows][subs]
  const float* minima;     // the same, or null for codes about 8
  const uint8_t* kept;     // [rows][cols], or null where all are
};

// codes [rows][cols] 0 .. 15 of `weights`, column by column; the part of a rounding error that
// later columns can make up for is taken from them in `weights`. errors [rows][cols]: for the
// columns after the block. Dropped weights are 0, code 8, whatever errors ask of them.
void round_with_feedback(float* weights, const FeedbackBlock& block, uint8_t* codes,
                         float* errors, int threads);

// Values encoded in `bytes` bytes of a GGUF tensor type ("Q4_K", "F16", ...).
int64_t gguf_value_count(std::string_view type, int64_t bytes);

// out [gguf_value_count(type, bytes)].
void gguf_dequantize(std::string_view type, const uint8_t* data, int64_t bytes, float* out,
                     int threads);

}  // namespace subllm
