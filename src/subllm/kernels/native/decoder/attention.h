// Attention of a step: all chunks of all sequences, split into tiles for the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "product/input.h"
#include "decoder/kv.h"
#include "threads/pool.h"
#include "decoder/spec.h"

namespace subllm {

// Tokens of one sequence in a step: rows [row, row + count) of the step's activations, at
// positions start, start + 1, ...
struct Span {
  int64_t slab;
  int64_t row, count;
  int64_t start;
};

class Attention {
 public:
  explicit Attention(const DecoderSpec& spec) : spec_(spec) {}

  // To be called when the spans change; `spans` must live on.
  void plan(std::span<const Span> spans);

  // out [rows][heads * dim] = attention of the queries over their sequences, whose keys and
  // values up to and including their own are in `cache`. queries [rows][query_stride].
  void run(Pool& pool, const KvCache& cache, int64_t layer, const float* queries,
           int64_t query_stride, float* out);

 private:
  struct Tile {
    const Span* span;
    int64_t kv_head;
    int64_t first, count;  // tokens of the span
    int64_t begin, end;    // keys
    int64_t tasks;         // that share the keys of these tokens, one part each; 1: all parts
  };
  struct Plan {
    int64_t window = 0;
    std::vector<Tile> tiles;
    int64_t products = 0;  // multiplications with keys, a measure of the work
    bool split = false;
  };

  Plan planned(std::span<const Span> spans, int64_t window) const;
  void compute(const KvCache& cache, const Tile& tile, int64_t window, int64_t layer,
               const float* queries, int64_t query_stride, float* partial, float* out) const;
  void join(const Tile& tile, int64_t parts, const float* partials, float* out) const;
  int64_t rows_of(const Tile& tile) const { return tile.count * spec_.group(); }
  int64_t partial_floats() const;
  float* out_of(const Tile& tile, int64_t row, float* out) const;

  const DecoderSpec& spec_;
  Plan full_, sliding_;
  Buffer<float> partials_;
};

}  // namespace subllm
