#include "threads/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "threads/parallel.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace subllm {

namespace {

constexpr int64_t kPiecesPerThread = 6;
constexpr auto kSpin = std::chrono::microseconds(40);  // bridges the gap to the next region
constexpr int kPausesPerLook = 32;

thread_local bool inside_region = false;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Counts forks of which this process is the child: its pools have lost their threads.
std::atomic<uint32_t>& forks() {
  static std::atomic<uint32_t> count{0};
#if defined(__unix__) || defined(__APPLE__)
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forks().fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
#endif
  return count;
}

template <typename Ready>
bool spin_until(Ready ready) {
  const auto limit = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < limit);
  return ready();
}

}  // namespace

struct Pool::Team {
  using Body = FunctionRef<void(int64_t, int64_t)>;

  // High half: number of the region. Low half: pieces that nobody has taken. A piece can be
  // taken only while its region runs, so what describes the region may be read after that.
  alignas(64) std::atomic<uint64_t> open{0};
  alignas(64) std::atomic<uint32_t> region{0};  // what idle workers wait on
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int32_t> unfinished{0};
  const Body* body = nullptr;
  int64_t count = 0, pieces = 0;
  std::mutex error_lock;
  std::exception_ptr error;
  std::mutex regions;
  std::vector<std::thread> workers;
  bool started = false;
  uint32_t born = forks().load();

  // Takes pieces of region `number` until none is left.
  void work(uint32_t number) {
    uint64_t seen = open.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(seen >> 32) == number && static_cast<uint32_t>(seen) != 0) {
      if (!open.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) continue;
      const int64_t piece = pieces - static_cast<int64_t>(static_cast<uint32_t>(seen));
      try {
        (*body)(count * piece / pieces, count * (piece + 1) / pieces);
      } catch (...) {
        const std::lock_guard lock(error_lock);
        if (!error) error = std::current_exception();
      }
      if (unfinished.fetch_sub(1) == 1) unfinished.notify_one();
      seen = open.load(std::memory_order_acquire);
    }
  }

  void serve() {
    inside_region = true;
    uint32_t seen = 0;
    while (true) {
      const auto changed = [&] { return region.load(std::memory_order_acquire) != seen; };
      if (!spin_until(changed)) region.wait(seen, std::memory_order_acquire);
      seen = region.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      work(seen);
    }
  }

  void start(int threads) {
    if (started) return;
    started = true;
    try {
      while (static_cast<int>(workers.size()) < threads - 1)
        workers.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      // No thread to be had (a process limit): those that started, and the caller, do the work.
    }
  }

  void run(int64_t items, int64_t parts, Body call) {
    body = &call;
    count = items;
    pieces = parts;
    unfinished.store(static_cast<int32_t>(parts), std::memory_order_relaxed);
    const uint32_t number = region.load(std::memory_order_relaxed) + 1;
    open.store(uint64_t{number} << 32 | static_cast<uint32_t>(parts), std::memory_order_release);
    // Sequentially consistent, as whoever notifies must be: else the look at who is waiting may
    // come before the store, and a worker sleeps on.
    region.store(number);
    region.notify_all();
    inside_region = true;
    work(number);
    inside_region = false;
    const auto done = [&] { return unfinished.load(std::memory_order_acquire) == 0; };
    if (!spin_until(done))
      for (int32_t left; (left = unfinished.load(std::memory_order_acquire)) != 0;)
        unfinished.wait(left, std::memory_order_acquire);
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }

  ~Team() {
    stop.store(true, std::memory_order_release);
    region.fetch_add(1);
    region.notify_all();
    for (auto& worker : workers) worker.join();
  }
};

Pool::Pool(int threads)
    : threads_(threads > 0 ? std::min(threads, usable_cpus()) : usable_cpus()),
      team_(std::make_unique<Team>()) {}

Pool::~Pool() {
  // The child of a fork has no such threads to join: their memory is given up.
  if (team_->born != forks().load()) (void)team_.release();
}

void Pool::run(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (count <= 0) return;
  const int64_t pieces = std::min(threads_ * kPiecesPerThread, count / std::max<int64_t>(grain, 1));
  if (threads_ == 1 || pieces <= 1 || inside_region) {
    body(0, count);
    return;
  }
  if (team_->born != forks().load()) {
    (void)team_.release();
    team_ = std::make_unique<Team>();
  }
  const std::lock_guard lock(team_->regions);
  team_->start(threads_);
  team_->run(count, pieces, body);
}

}  // namespace subllm
