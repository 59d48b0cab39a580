// KV memory: blocks of 64 tokens, each holding all layers; a slab is one sequence's table of
// blocks. Slabs share blocks by reference count, and a shared block is copied when one of
// them is about to write to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "decoder/ops.h"
#include "decoder/spec.h"

namespace subllm {

// Where things lie in a block. For each layer and KV head: keys [dim][64], transposed,
// values [64][stride], and for int8 float scales: of each token's keys one per 16 elements,
// [ceil(dim / 16)][64], of its values one, [64].
struct KvLayout {
  KvType type;
  int64_t layers, heads, dim;
  int64_t stride;                    // of a value row: dim rounded up to 16, zeros beyond dim
  int64_t values, key_scales, value_scales;  // offsets inside a head, in bytes
  int64_t head_bytes, block_bytes;

  KvLayout(const DecoderSpec& spec, KvType kv_type);
  int64_t head(int64_t layer, int64_t kv_head) const {
    return (layer * heads + kv_head) * head_bytes;
  }
};

class KvCache {
 public:
  KvCache(const DecoderSpec& spec, KvType type) : layout_(spec, type) {}

  const KvLayout& layout() const { return layout_; }
  // Bytes of all blocks, shared ones counted once.
  int64_t bytes() const;

  int64_t open();
  // Throws std::invalid_argument for an unknown slab, or when it holds fewer tokens.
  int64_t fork(int64_t slab, int64_t length);
  void close(int64_t slab);

  // Throws std::invalid_argument for an unknown slab or when positions before `start` were
  // never written.
  void check(int64_t slab, int64_t start) const;
  // Makes positions [start, start + count) of a checked slab writable.
  void reserve(int64_t slab, int64_t start, int64_t count);
  // Says that all positions below `length` are written, and none from there on.
  void written(int64_t slab, int64_t length);
  // Block table; valid until the slab changes.
  const std::byte* const* blocks(int64_t slab) const;

  // Stores key and value [kv_heads][dim] of one token of a reserved position.
  void store(int64_t slab, int64_t position, int64_t layer, const float* key,
             const float* value) const;

 private:
  using Block = std::shared_ptr<std::byte>;
  struct Slab {
    std::vector<Block> blocks;
    std::vector<std::byte*> table;
    int64_t length = 0;
  };

  const Slab& slab_of(int64_t slab) const;
  Block make_block() const;

  KvLayout layout_;
  std::map<int64_t, Slab> slabs_;
  int64_t last_ = 0;
};

}  // namespace subllm
