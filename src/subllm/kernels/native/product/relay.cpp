#include "product/relay.h"

#include <atomic>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace subllm {

namespace {

constexpr int64_t kLargePage = 2 << 20;
constexpr int64_t kTileGrain = 2;

}  // namespace

uint8_t* Planes::allocate(int64_t bytes) {
  void* data = nullptr;
  const bool large = bytes >= kLargePage;
  if (posix_memalign(&data, static_cast<size_t>(large ? kLargePage : kAlign),
                     static_cast<size_t>(bytes)) != 0)
    throw std::bad_alloc();
  data_.reset(static_cast<uint8_t*>(data));
  size_ = bytes;
#if defined(__linux__)
  // The rest, less than a large page, is not worth a whole one. Advice only: it may be refused.
  if (large) (void)madvise(data, static_cast<size_t>(bytes / kLargePage * kLargePage), MADV_HUGEPAGE);
#endif
  return data_.get();
}

void relay(Pool& pool, PackedView& view, Planes& planes, const Kernels& with) {
  const int64_t bytes = with.relay && !view.relaid ? with.relaid_bytes(view) : 0;
  if (bytes == 0) return;
  uint8_t* out = planes.allocate(bytes);
  std::atomic<bool> fits{true};
  pool.run(view.geometry.row_tiles(), kTileGrain, [&](int64_t begin, int64_t end) {
    if (!with.relay(view, begin, end, out)) fits.store(false, std::memory_order_relaxed);
  });
  if (fits.load())
    view.relaid = out;
  else
    planes.clear();
}

}  // namespace subllm
