#include "text/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <stdexcept>
#include <vector>

namespace subllm {

namespace {

constexpr int32_t kNone = -1;

struct Symbol {
  uint32_t token;
  int32_t before, after;  // its neighbours, kNone at the ends
  bool gone;              // swallowed by the symbol before it
};

struct Candidate {
  uint32_t rank;
  int32_t at;  // the left symbol
  uint32_t result;

  // The top of a priority queue is the greatest.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

class Word {
 public:
  explicit Word(const Merges& merges) : merges_(merges) {}

  // Merges `count` symbols; writes the tokens to `out`, which may be `tokens`.
  int64_t merge(const uint32_t* tokens, int64_t count, uint32_t* out) {
    symbols_.clear();
    const auto last = static_cast<int32_t>(count) - 1;
    for (int32_t i = 0; i <= last; ++i)
      symbols_.push_back({tokens[i], i - 1, i == last ? kNone : i + 1, false});
    for (int32_t i = 0; i < last; ++i) propose(i);
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      apply(best);
    }
    int64_t size = 0;
    for (const Symbol& symbol : symbols_)
      if (!symbol.gone) out[size++] = symbol.token;
    return size;
  }

 private:
  // The place of the pair that starts at a symbol in the table, or its end.
  int64_t find(int32_t at) const {
    const Symbol& left = symbols_[at];
    const uint64_t pair = uint64_t{left.token} << 32 | symbols_[left.after].token;
    const uint64_t* end = merges_.pairs + merges_.count;
    const uint64_t* found = std::lower_bound(merges_.pairs, end, pair);
    return found != end && *found == pair ? found - merges_.pairs : merges_.count;
  }

  void propose(int32_t at) {
    const int64_t place = find(at);
    if (place < merges_.count) candidates_.push({merges_.ranks[place], at, merges_.results[place]});
  }

  void apply(const Candidate& best) {
    Symbol& left = symbols_[best.at];
    if (left.gone || left.after == kNone) return;
    // Either symbol may have changed since the pair was proposed.
    const int64_t place = find(best.at);
    if (place == merges_.count || merges_.results[place] != best.result) return;
    Symbol& right = symbols_[left.after];
    left.token = best.result;
    left.after = right.after;
    right.gone = true;
    if (left.after != kNone) symbols_[left.after].before = best.at;
    if (left.before != kNone) propose(left.before);
    if (left.after != kNone) propose(best.at);
  }

  const Merges& merges_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

int64_t merge_words(const Merges& merges, const uint32_t* words, uint32_t* symbols,
                    int64_t count) {
  Word word(merges);
  int64_t size = 0;
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    for (end = begin + 1; end < count && words[end] == words[begin];) ++end;
    if (end - begin > std::numeric_limits<int32_t>::max())
      throw std::length_error("a word is too long to be merged");
    size += word.merge(symbols + begin, end - begin, symbols + size);
  }
  return size;
}

}  // namespace subllm
