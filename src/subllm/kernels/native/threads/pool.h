// The engine's threads: started at the first region, asleep between regions.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace subllm {

// A reference to a callable; the callable must outlive it.
template <typename Signature>
class FunctionRef;
template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& callable)  // NOLINT: converting by design
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

class Pool {
 public:
  // At most `threads` threads, the caller's among them; 0 means every usable CPU, and there
  // are never more threads than those.
  explicit Pool(int threads = 0);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  // Calls body(begin, end) on contiguous pieces that cover [0, count), each of at least
  // `grain` items; returns when all are done. Pieces go to whoever is free, so a worker that
  // the system does not schedule delays nobody. The calling thread takes part; alone when
  // there is one piece, or inside another region. The first exception of a piece is rethrown
  // after the others. Regions of several threads follow each other.
  void run(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

 private:
  struct Team;
  int threads_;
  std::unique_ptr<Team> team_;
};

}  // namespace subllm
