#include "decoder/block.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "decoder/ops.h"

namespace subllm {

namespace {

constexpr int64_t kPassTokens = 256;  // as many as a decoder runs at once
constexpr int64_t kPartialRows = 128;
constexpr int64_t kSumColumns = 64;

void add_squares(Pool& pool, const float* x, int64_t rows, int64_t cols, int64_t stride,
                 double* sums) {
  pool.run(ceil_div(cols, kSumColumns), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kSumColumns, count = std::min(kSumColumns, cols - first);
      for (int64_t row = 0; row < rows; row += kPartialRows) {
        float partial[kSumColumns] = {};
        for (int64_t r = row; r < std::min(rows, row + kPartialRows); ++r)
          ops().add_squares(x + r * stride + first, count, partial);
        for (int64_t i = 0; i < count; ++i) sums[first + i] += static_cast<double>(partial[i]);
      }
    }
  });
}

// The KV memory of one sequence, for as long as it is needed.
class Slab {
 public:
  explicit Slab(KvCache& cache) : cache_(cache), id_(cache.open()) {}
  ~Slab() { cache_.close(id_); }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  int64_t id() const { return id_; }

 private:
  KvCache& cache_;
  int64_t id_;
};

std::vector<LayerWeights> alone(LayerWeights&& weights) {
  std::vector<LayerWeights> layers;
  layers.push_back(std::move(weights));
  return layers;
}

}  // namespace

Block::Block(DecoderSpec spec, LayerWeights weights, const DecoderOptions& options)
    : trunk_(std::move(spec), alone(std::move(weights)), options) {}

// Copies of the states go through in passes; done(first row, rows, states) sees each leave.
template <class Done>
void Block::each_pass(int64_t sequences, int64_t length, const float* x, const Tap* tap,
                      const Done& done) {
  const int64_t hidden = spec().hidden;
  std::vector<int64_t> positions, wanted;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    const Slab slab(trunk_.cache());
    for (int64_t start = 0; start < length; start += kPassTokens) {
      const int64_t count = std::min(kPassTokens, length - start);
      const int64_t row = sequence * length + start;
      float* stream = stream_.reserve(count * hidden);
      std::copy_n(x + row * hidden, count * hidden, stream);
      positions.resize(static_cast<size_t>(count));
      wanted.resize(static_cast<size_t>(count));
      std::iota(positions.begin(), positions.end(), start);
      std::iota(wanted.begin(), wanted.end(), int64_t{0});
      trunk_.cache().reserve(slab.id(), start, count);
      const Span span{slab.id(), 0, count, start};
      trunk_.pass({&span, 1}, positions, wanted, stream, tap);
      done(row, count, stream);
    }
  }
}

void Block::run(int64_t sequences, int64_t length, float* x) {
  const int64_t hidden = spec().hidden;
  each_pass(sequences, length, x, nullptr, [&](int64_t row, int64_t count, const float* states) {
    std::copy_n(states, count * hidden, x + row * hidden);
  });
}

void Block::collect(int64_t sequences, int64_t length, const float* x, const SquareSums& sums) {
  const Tap tap = [&](MatrixInput input, const float* rows_of, int64_t rows, int64_t cols,
                      int64_t stride) {
    double* const of[] = {sums.attention, sums.output, sums.mlp, sums.down};
    add_squares(trunk_.pool(), rows_of, rows, cols, stride, of[static_cast<int>(input)]);
  };
  each_pass(sequences, length, x, &tap, [](int64_t, int64_t, const float*) {});
}

}  // namespace subllm
