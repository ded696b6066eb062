#include "parallel.h"

#include <exception>
#include <thread>
#include <vector>

namespace edgekit {
namespace {

// Starting and joining a thread costs about 20 microseconds; with fewer multiply-adds than this
// per thread (about 100 microseconds of work) a second one does not pay.
constexpr double kWorkPerNewThread = 2e6;
// Existing threads respond within a few microseconds.
constexpr double kWorkPerThread = 2.5e5;

constexpr int kMaxThreads = 256;

// Calls part(0) ... part(count - 1), which do not throw, in new threads; the last in the caller's.
void run_in_new_threads(int count, const std::function<void(int)>& part) {
  std::vector<std::thread> workers;
  workers.reserve(static_cast<size_t>(count));
  std::exception_ptr not_started;
  try {
    for (int i = 0; i + 1 < count; ++i) workers.emplace_back(part, i);
  } catch (...) {
    not_started = std::current_exception();  // threads that have started must still be joined
  }
  if (!not_started) part(count - 1);
  for (std::thread& worker : workers) worker.join();
  if (not_started) std::rethrow_exception(not_started);
}

}  // namespace

int useful_threads(const Crew& crew, int requested, double work) {
  int limit = std::min(requested, kMaxThreads);
  if (limit == 0) limit = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const double worth =
      std::max(1.0, work / (crew.run == nullptr ? kWorkPerNewThread : kWorkPerThread));
  return worth < limit ? static_cast<int>(worth) : limit;
}

void run_parallel(const Crew& crew, int count, const std::function<void(int)>& task) {
  std::vector<std::exception_ptr> errors(static_cast<size_t>(count));
  std::function<void(int)> guarded = [&](int part) {
    try {
      task(part);
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  if (crew.run == nullptr) {
    run_in_new_threads(count, guarded);
  } else {
    const auto call = [](void* work, int part) {
      (*static_cast<std::function<void(int)>*>(work))(part);
    };
    crew.run(crew.context, count, call, &guarded);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace edgekit
