#include "product/read.h"

#include <atomic>

namespace subllm {

namespace {

constexpr int64_t kLine = 8;              // words of a cache line
constexpr int64_t kAhead = 4096 / 8;      // words: beyond the page at hand
constexpr int64_t kPieceWords = 1 << 17;  // 1 MB

}  // namespace

uint64_t sum_words(Pool& pool, const uint64_t* words, int64_t count) {
  std::atomic<uint64_t> total{0};
  pool.run(count, kPieceWords, [&](int64_t begin, int64_t end) {
    uint64_t lanes[kLine] = {};
    int64_t at = begin;
    for (; at + kLine <= end; at += kLine) {
      __builtin_prefetch(words + at + kAhead);
      for (int64_t i = 0; i < kLine; ++i) lanes[i] += words[at + i];
    }
    for (; at < end; ++at) lanes[0] += words[at];
    uint64_t sum = 0;
    for (const uint64_t lane : lanes) sum += lane;
    total.fetch_add(sum, std::memory_order_relaxed);
  });
  return total.load();
}

}  // namespace subllm
