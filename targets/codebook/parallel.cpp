#include "parallel.h"

#include <exception>
#include <thread>
#include <vector>

namespace edgekit {
namespace {

// Starting and joining a thread costs about 20 microseconds; with fewer multiply-adds than this
// for each thread (some 100 microseconds of work) a second one does not pay.
constexpr double kWorkPerThread = 2e6;

constexpr int kMaxThreads = 256;

}  // namespace

int useful_threads(int requested, double work) {
  int limit = std::min(requested, kMaxThreads);
  if (limit == 0) limit = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const double worth = std::max(1.0, work / kWorkPerThread);
  return worth < limit ? static_cast<int>(worth) : limit;
}

void run_parallel(int count, const std::function<void(int)>& task) {
  std::vector<std::exception_ptr> errors(static_cast<size_t>(count));
  auto guarded = [&](int part) {
    try {
      task(part);
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(static_cast<size_t>(count));
  std::exception_ptr not_started;
  try {
    for (int part = 0; part + 1 < count; ++part) workers.emplace_back(guarded, part);
  } catch (...) {
    not_started = std::current_exception();  // threads that did start must still be joined
  }
  if (!not_started) guarded(count - 1);
  for (std::thread& worker : workers) worker.join();
  if (not_started) std::rethrow_exception(not_started);
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace edgekit
