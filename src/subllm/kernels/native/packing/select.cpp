#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core.h"
#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kRowGrain = 16;

// Keys order as the floats do; -0 and +0 are equal. Returns whether any score is NaN.
bool to_keys(const float* scores, int64_t count, int32_t* keys) {
  int32_t nan = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(scores[i] + 0.0f);
    nan |= (bits & 0x7fffffff) > 0x7f800000;
    keys[i] = bits ^ ((bits >> 31) & 0x7fffffff);
  }
  return nan != 0;
}

[[noreturn]] void refuse_nan(int64_t row) {
  throw std::invalid_argument("scores of row " + std::to_string(row) + " hold NaN");
}

// 1 where j > i: what lets an equal score at a lower column rank below.
template <int M>
constexpr std::array<std::array<int32_t, M>, M> later_columns() {
  std::array<std::array<int32_t, M>, M> table{};
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < M; ++j) table[i][j] = j > i;
  return table;
}

template <int M>
void select_groups(const int32_t* keys, int64_t groups, int drop, bool* out) {
  static constexpr auto later = later_columns<M>();
  for (int64_t group = 0; group < groups; ++group) {
    const int32_t* key = keys + group * M;
    int32_t rank[M] = {};  // how many of the group rank below column j
    for (int i = 0; i < M; ++i) {
      const int32_t pivot = key[i];
      for (int j = 0; j < M; ++j) rank[j] += pivot < key[j] + later[i][j];
    }
    for (int j = 0; j < M; ++j) out[group * M + j] = rank[j] >= drop;
  }
}

// The key at position `index` of the ascending order, by three radix passes (11, 11 and
// 10 bits), and in `below` how many keys are smaller.
int32_t nth_key(const std::vector<int32_t>& keys, int64_t index, std::vector<uint32_t>& pool,
                int64_t& below) {
  pool.resize(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) pool[i] = static_cast<uint32_t>(keys[i]) ^ 0x80000000u;
  below = 0;
  uint32_t prefix = 0;
  for (const auto& [shift, bits] : {std::pair{21, 11}, std::pair{10, 11}, std::pair{0, 10}}) {
    const uint32_t mask = (1u << bits) - 1;
    std::array<uint32_t, 2048> histogram{};
    for (const uint32_t key : pool) ++histogram[(key >> shift) & mask];
    uint32_t digit = 0;
    while (below + histogram[digit] <= index) below += histogram[digit++];
    prefix |= digit << shift;
    size_t kept = 0;
    for (const uint32_t key : pool) {
      pool[kept] = key;
      kept += ((key >> shift) & mask) == digit;
    }
    pool.resize(kept);
  }
  return static_cast<int32_t>(prefix ^ 0x80000000u);
}

}  // namespace

void select_nm(const float* scores, int64_t rows, int64_t cols, int n, int m, bool* out,
               int threads) {
  const auto kernel = m == 4    ? select_groups<4>
                      : m == 8  ? select_groups<8>
                      : m == 16 ? select_groups<16>
                      : m == 32 ? select_groups<32>
                                : nullptr;
  if (kernel == nullptr || n < 1 || n >= m || cols % m != 0)
    throw std::invalid_argument("cannot keep " + std::to_string(n) + " of every " +
                                std::to_string(m) + " of " + std::to_string(cols) + " columns");
  parallel_for(rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> keys(cols);
    for (int64_t row = begin; row < end; ++row) {
      if (to_keys(scores + row * cols, cols, keys.data())) refuse_nan(row);
      kernel(keys.data(), cols / m, m - n, out + row * cols);
    }
  });
}

void select_rows(const float* scores, int64_t rows, int64_t cols, int64_t drop, bool* out,
                 int threads) {
  if (drop < 0 || drop > cols)
    throw std::invalid_argument("cannot drop " + std::to_string(drop) + " of " +
                                std::to_string(cols) + " columns");
  parallel_for(rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> keys(cols);
    std::vector<uint32_t> pool;
    for (int64_t row = begin; row < end; ++row) {
      if (to_keys(scores + row * cols, cols, keys.data())) refuse_nan(row);
      bool* kept = out + row * cols;
      if (drop == 0) {
        std::memset(kept, 1, static_cast<size_t>(cols));
        continue;
      }
      int64_t below = 0;
      const int32_t edge = nth_key(keys, drop - 1, pool, below);
      int64_t equals = drop - below;  // of those equal to the edge, how many go
      for (int64_t j = 0; j < cols; ++j) {
        const bool drop_equal = keys[j] == edge && equals > 0;
        equals -= drop_equal;
        kept[j] = keys[j] >= edge && !drop_equal;
      }
    }
  });
}

}  // namespace subllm
