#include "decoder/kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <set>
#include <stdexcept>
#include <string>

#include "core.h"
#include "half.h"

namespace subllm {

namespace {

int64_t element_bytes(KvType type) {
  return type == KvType::f32 ? 4 : type == KvType::bf16 ? 2 : 1;
}

int64_t aligned(int64_t bytes) { return ceil_div(bytes, kAlign) * kAlign; }

// Code of x where 127 stands for the largest magnitude.
int8_t code_of(float x, float inverse) { return static_cast<int8_t>(std::nearbyintf(x * inverse)); }

// Writes n elements `step` apart. Returns the scale (int8 only).
float encode(KvType type, const float* x, int64_t n, int64_t step, std::byte* out) {
  switch (type) {
    case KvType::f32: {
      auto* target = reinterpret_cast<float*>(out);
      for (int64_t i = 0; i < n; ++i) target[i * step] = x[i];
      return 1.0f;
    }
    case KvType::bf16: {
      auto* target = reinterpret_cast<uint16_t*>(out);
      for (int64_t i = 0; i < n; ++i) target[i * step] = float_to_bf16(x[i]);
      return 1.0f;
    }
    case KvType::int8: break;
  }
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  auto* target = reinterpret_cast<int8_t*>(out);
  for (int64_t i = 0; i < n; ++i) target[i * step] = code_of(x[i], inverse);
  return largest / 127.0f;
}

}  // namespace

KvLayout::KvLayout(const DecoderSpec& spec, KvType kv_type)
    : type(kv_type), layers(spec.layers), heads(spec.kv_heads), dim(spec.head_dim),
      stride(ceil_div(spec.head_dim, 16) * 16) {
  const int64_t size = element_bytes(type);
  values = aligned(dim * kKvBlock * size);
  key_scales = values + aligned(kKvBlock * stride * size);
  const int64_t scale_bytes = type == KvType::int8 ? kKvBlock * int64_t{sizeof(float)} : 0;
  value_scales = key_scales + ceil_div(dim, kKeyGroup) * scale_bytes;
  head_bytes = value_scales + scale_bytes;
  block_bytes = layers * heads * head_bytes;
}

int64_t KvCache::bytes() const {
  std::set<const std::byte*> seen;
  for (const auto& [handle, slab] : slabs_) seen.insert(slab.table.begin(), slab.table.end());
  return static_cast<int64_t>(seen.size()) * layout_.block_bytes;
}

const KvCache::Slab& KvCache::slab_of(int64_t slab) const {
  const auto found = slabs_.find(slab);
  if (found == slabs_.end())
    throw std::invalid_argument("KV slab " + std::to_string(slab) + " does not exist");
  return found->second;
}

KvCache::Block KvCache::make_block() const {
  const auto bytes = static_cast<size_t>(layout_.block_bytes);
  auto* memory = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kAlign}));
  // Positions that were never written meet a weight of 0, which only finite numbers survive.
  std::memset(memory, 0, bytes);
  return {memory, [](std::byte* p) { ::operator delete(p, std::align_val_t{kAlign}); }};
}

int64_t KvCache::open() {
  slabs_[++last_];
  return last_;
}

int64_t KvCache::fork(int64_t slab, int64_t length) {
  const Slab& source = slab_of(slab);
  if (length < 0 || length > source.length)
    throw std::invalid_argument("KV slab " + std::to_string(slab) + " holds " +
                                std::to_string(source.length) + " tokens, not " +
                                std::to_string(length));
  const int64_t blocks = ceil_div(length, kKvBlock);
  Slab copy;
  copy.blocks.assign(source.blocks.begin(), source.blocks.begin() + blocks);
  copy.table.assign(source.table.begin(), source.table.begin() + blocks);
  copy.length = length;
  slabs_[++last_] = std::move(copy);
  return last_;
}

void KvCache::close(int64_t slab) {
  slab_of(slab);
  slabs_.erase(slab);
}

void KvCache::check(int64_t slab, int64_t start) const {
  const int64_t length = slab_of(slab).length;
  if (start < 0 || start > length)
    throw std::invalid_argument("KV slab " + std::to_string(slab) + " holds " +
                                std::to_string(length) + " tokens; a chunk cannot start at " +
                                std::to_string(start));
}

void KvCache::reserve(int64_t slab, int64_t start, int64_t count) {
  Slab& target = const_cast<Slab&>(slab_of(slab));
  const int64_t needed = ceil_div(start + count, kKvBlock);
  for (int64_t i = start / kKvBlock; i < needed; ++i) {
    if (i < static_cast<int64_t>(target.blocks.size())) {
      if (target.blocks[i].use_count() == 1) continue;
      Block own = make_block();
      std::memcpy(own.get(), target.blocks[i].get(), static_cast<size_t>(layout_.block_bytes));
      target.table[i] = own.get();
      target.blocks[i] = std::move(own);
    } else {
      Block own = make_block();
      target.table.push_back(own.get());
      target.blocks.push_back(std::move(own));
    }
  }
}

void KvCache::written(int64_t slab, int64_t length) {
  const_cast<Slab&>(slab_of(slab)).length = length;
}

const std::byte* const* KvCache::blocks(int64_t slab) const { return slab_of(slab).table.data(); }

void KvCache::store(int64_t slab, int64_t position, int64_t layer, const float* key,
                    const float* value) const {
  const int64_t slot = position % kKvBlock, size = element_bytes(layout_.type);
  std::byte* block = slab_of(slab).table[position / kKvBlock];
  const int64_t dim = layout_.dim;
  for (int64_t head = 0; head < layout_.heads; ++head) {
    std::byte* base = block + layout_.head(layer, head);
    auto* key_scales = reinterpret_cast<float*>(base + layout_.key_scales) + slot;
    for (int64_t i = 0; i < dim; i += kKeyGroup) {
      const float scale = encode(layout_.type, key + head * dim + i, std::min(kKeyGroup, dim - i),
                                 kKvBlock, base + (i * kKvBlock + slot) * size);
      if (layout_.type == KvType::int8) key_scales[i / kKeyGroup * kKvBlock] = scale;
    }
    const float scale = encode(layout_.type, value + head * dim, dim, 1,
                               base + layout_.values + slot * layout_.stride * size);
    if (layout_.type == KvType::int8)
      reinterpret_cast<float*>(base + layout_.value_scales)[slot] = scale;
  }
}

}  // namespace subllm
