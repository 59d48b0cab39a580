// Matrices laid out anew, when they are loaded, for kernels that like planes of their own.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core.h"
#include "isa/isa.h"
#include "threads/pool.h"

namespace subllm {

// Memory in pages as large as the system gives: reading from many small ones costs up to a third of
// the bandwidth, as the processor's own prefetching stops at every page.
class Planes {
 public:
  // Contents are those of fresh memory. Throws std::bad_alloc.
  uint8_t* allocate(int64_t bytes);
  void clear() {
    data_.reset();
    size_ = 0;
  }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  int64_t size_ = 0;
};

// Sets view.relaid to planes in `planes`, if these kernels like some of their own for this matrix
// (see Kernels) and there are none yet. To be called after check_masks.
void relay(Pool& pool, PackedView& view, Planes& planes, const Kernels& with = kernels());

}  // namespace subllm
