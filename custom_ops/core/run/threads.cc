#include "core/run/threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace tfprune {
namespace {

struct Job {
  bool (*task)(void*);
  void* context;

  void work() {
    while (task(context)) {
    }
  }
};

class Pool {
 public:
  // Runs the job with up to `helpers` workers beside the caller; false if the pool is in use.
  bool run(Job* job, int32_t helpers) {
    std::unique_lock<std::mutex> use(in_use_, std::try_to_lock);
    if (!use.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      grow(helpers);
      job_ = job;
      seats_ = std::min(helpers, workers_);
    }
    for (int32_t i = 0; i < helpers; ++i) wake_.notify_one();
    job->work();
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // workers that have not started stay asleep
    done_.wait(lock, [this] { return busy_ == 0; });
    return true;
  }

 private:
  void grow(int32_t helpers) {
    const int32_t most = static_cast<int32_t>(std::thread::hardware_concurrency()) - 1;
    while (workers_ < std::min(helpers, most)) {
      try {
        std::thread(&Pool::serve, this).detach();
      } catch (const std::system_error&) {
        return;
      }
      ++workers_;
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return job_ != nullptr && seats_ > 0; });
      --seats_;
      ++busy_;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) done_.notify_all();
    }
  }

  std::mutex in_use_, mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int32_t workers_ = 0, seats_ = 0, busy_ = 0;
};

// Never freed, as workers outlive static destructors; created anew in a forked child, which has none
// of the parent's threads.
std::atomic<Pool*> the_pool{nullptr};

Pool* pool() {
  static const bool created = [] {
    the_pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(new Pool); });
    return true;
  }();
  (void)created;
  return the_pool.load();
}

}  // namespace

void parallel(int32_t threads, bool (*task)(void*), void* context) {
  Job job{task, context};
  if (threads < 2 || !pool()->run(&job, threads - 1)) job.work();
}

}  // namespace tfprune
