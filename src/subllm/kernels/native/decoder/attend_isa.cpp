// Attention of a tile of query rows over KV blocks, with an online softmax: the scores of
// one block at a time, so that memory does not grow with the context. Keys lie transposed,
// so both products have the form C[rows][n] += A[rows][depth] * B[depth][n] and need no
// horizontal sums. Compiled once for each instruction set.

#include "decoder/attend_isa.h"
#include "decoder/lanes.h"

namespace subllm {

namespace {

// Rows and vectors of the register tile.
#if defined(__AVX512F__)
constexpr int kTileRowsMax = 8, kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRowsMax = 4, kTileVectors = 2;
#else
constexpr int kTileRowsMax = 4, kTileVectors = 4;
#endif

struct Product {
  const float* a;
  int64_t a_stride, depth;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  bool accumulate;
};

template <int Rows, int Vectors, class T>
SUBLLM_INLINE void register_tile(const Product& p, const T* b, int64_t row, int64_t col) {
  Floats sums[Rows][Vectors];
  float* c = p.c + row * p.c_stride + col;
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = p.accumulate ? load(c + r * p.c_stride + v * kLanes) : Floats{};
  const float* a = p.a + row * p.a_stride;
  for (int64_t k = 0; k < p.depth; ++k) {
    Floats line[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) line[v] = load(b + k * p.b_stride + col + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] += splat(a[r * p.a_stride + k]) * line[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(c + r * p.c_stride + v * kLanes, sums[r][v]);
}

template <int Rows, class T>
void strip(const Product& p, const T* b, int64_t row, int64_t cols) {
  int64_t col = 0;
  for (; col + kTileVectors * kLanes <= cols; col += kTileVectors * kLanes)
    register_tile<Rows, kTileVectors>(p, b, row, col);
  for (; col < cols; col += kLanes) register_tile<Rows, 1>(p, b, row, col);
}

// cols is a multiple of 16.
template <class T>
void multiply(const Product& p, const T* b, int64_t rows, int64_t cols) {
  int64_t row = 0;
  for (; row + kTileRowsMax <= rows; row += kTileRowsMax) strip<kTileRowsMax>(p, b, row, cols);
  switch (rows - row) {
    case 1: strip<1>(p, b, row, cols); break;
    case 2: strip<2>(p, b, row, cols); break;
    case 3: strip<3>(p, b, row, cols); break;
#if defined(__AVX512F__)
    case 4: strip<4>(p, b, row, cols); break;
    case 5: strip<5>(p, b, row, cols); break;
    case 6: strip<6>(p, b, row, cols); break;
    case 7: strip<7>(p, b, row, cols); break;
#endif
    default: break;
  }
}

// Turns the scores of columns [low, high) into weights, the other columns into 0, and
// rescales what the row has summed so far.
SUBLLM_INLINE void soften(const AttendTile& t, int64_t row, int64_t low, int64_t high,
                          const float* value_scales) {
  float* scores = t.scores + row * kKvBlock;
  if (low >= high) {
    for (int64_t i = 0; i < kKvBlock; i += kLanes) store(scores + i, Floats{});
    return;
  }
  const float lowest = -__builtin_inff();
  for (int64_t i = 0; i < low; ++i) scores[i] = lowest;
  for (int64_t i = high; i < kKvBlock; ++i) scores[i] = lowest;
  Floats top = splat(lowest);
  for (int64_t i = 0; i < kKvBlock; i += kLanes) top = larger(load(scores + i), top);
  const float block_peak = max_of(top);
  const float peak = block_peak > t.peak[row] ? block_peak : t.peak[row];
  Floats total{};
  for (int64_t i = 0; i < kKvBlock; i += kLanes) {
    Floats weight = exp_of(load(scores + i) - splat(peak));
    total += weight;
    if (value_scales) weight *= load(value_scales + i);
    store(scores + i, weight);
  }
  const Floats factor = exp_of(splat(t.peak[row] - peak));
  t.mass[row] = t.mass[row] * factor[0] + sum_of(total);
  if (peak != t.peak[row]) {
    float* out = t.out + row * t.stride;
    for (int64_t i = 0; i < t.stride; i += kLanes) store(out + i, load(out + i) * factor);
  }
  t.peak[row] = peak;
}

// Keys of a block as floats.
void widen(const AttendTile& t, const int8_t* keys, const float* scales) {
  for (int64_t i = 0; i < t.dim; ++i)
    for (int64_t j = 0; j < kKvBlock; j += kLanes)
      store(t.widened + i * kKvBlock + j,
            load(keys + i * kKvBlock + j) * load(scales + i / kKeyGroup * kKvBlock + j));
}

template <class T>
void attend_blocks(const AttendTile& t) {
  for (int64_t row = 0; row < t.rows; ++row) {
    t.peak[row] = -__builtin_inff();
    t.mass[row] = 0.0f;
    for (int64_t i = 0; i < t.stride; ++i) t.out[row * t.stride + i] = 0.0f;
  }
  for (int64_t block = t.begin / kKvBlock; block * kKvBlock < t.end; ++block) {
    const int64_t origin = block * kKvBlock;
    const std::byte* base = t.blocks[block];
    const T* keys = reinterpret_cast<const T*>(base + t.keys);
    const T* values = reinterpret_cast<const T*>(base + t.values);
    const float* value_scales = nullptr;
    const int64_t first = (t.begin > origin ? t.begin : origin) - origin;
    const int64_t last = (t.end < origin + kKvBlock ? t.end : origin + kKvBlock) - origin;

    const Product scores{t.queries, t.dim, t.dim, kKvBlock, t.scores, kKvBlock, false};
    if constexpr (sizeof(T) == 1) {
      widen(t, keys, reinterpret_cast<const float*>(base + t.key_scales));
      multiply(scores, t.widened, t.rows, kKvBlock);
      value_scales = reinterpret_cast<const float*>(base + t.value_scales);
    } else {
      multiply(scores, keys, t.rows, kKvBlock);
    }
    for (int64_t row = 0; row < t.rows; ++row) {
      float* line = t.scores + row * kKvBlock;
      if (t.softcap != 0.0f)
        for (int64_t i = 0; i < kKvBlock; i += kLanes)
          store(line + i, splat(t.softcap) * tanh_of(load(line + i) * splat(1.0f / t.softcap)));
      const int64_t own = t.position + row / t.group - origin;  // the row's own token
      const int64_t low = t.window > 0 && own - t.window + 1 > first ? own - t.window + 1 : first;
      const int64_t high = own + 1 < last ? own + 1 : last;
      soften(t, row, low, high, value_scales);
    }
    multiply<T>({t.scores, kKvBlock, last, t.stride, t.out, t.stride, true}, values, t.rows,
                t.stride);
  }
}

}  // namespace

void SUBLLM_FOR_ISA(attend)(const AttendTile& tile) {
  switch (tile.type) {
    case KvType::f32: return attend_blocks<float>(tile);
    case KvType::bf16: return attend_blocks<uint16_t>(tile);
    case KvType::int8: return attend_blocks<int8_t>(tile);
  }
}

}  // namespace subllm
