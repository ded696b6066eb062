#include "packed_codebook.h"

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "fingerprint.h"

namespace edgekit {
namespace {

// Content, not a pointer: memory is reused, and the same codebook exists in several places.
using Key = std::tuple<size_t, size_t, int, Fingerprint>;  // rows, width, metric

struct Cache {
  std::mutex mutex;
  std::map<Key, std::weak_ptr<const PackedCodebook>> entries;
};

// Never destroyed: models in static storage may outlive everything of ours.
Cache& cache() {
  static auto* instance = new Cache;
  return *instance;
}

// The first of `count` vectors that holds NaN or infinity.
size_t first_nonfinite(const void* vectors, size_t count, size_t width) {
  const auto* bytes = static_cast<const char*>(vectors);
  for (size_t i = 0; i < count * width; ++i) {
    float value;
    std::memcpy(&value, bytes + i * sizeof(float), sizeof(float));
    if (!std::isfinite(value)) return i / width;
  }
  return count;
}

}  // namespace

std::shared_ptr<const PackedCodebook> PackedCodebook::share(const CodebookView& codebook,
                                                            int metric) {
  const size_t bytes = codebook.rows * codebook.width * sizeof(float);
  const Key key{codebook.rows, codebook.width, metric, fingerprint(codebook.floats, bytes)};
  Cache& known = cache();
  // Held while packing: two threads that compile the same model pack only once.
  const std::lock_guard<std::mutex> lock(known.mutex);
  std::erase_if(known.entries, [](const auto& entry) { return entry.second.expired(); });
  if (const auto entry = known.entries.find(key); entry != known.entries.end()) {
    if (auto packed = entry->second.lock()) return packed;
  }
  auto packed = std::make_shared<const PackedCodebook>(codebook, metric);
  known.entries.insert_or_assign(key, packed);
  return packed;
}

PackedCodebook::PackedCodebook(const CodebookView& codebook, int metric) : width_(codebook.width) {
  const int status = edgekit_codebook_pack(static_cast<const float*>(codebook.floats),
                                           static_cast<int64_t>(codebook.rows),
                                           static_cast<int64_t>(codebook.width), metric, &handle_);
  if (status != EDGEKIT_CODEBOOK_OK) throw std::runtime_error(edgekit_status_text(status));
}

PackedCodebook::~PackedCodebook() { edgekit_codebook_free(handle_); }

void PackedCodebook::lookup(const void* vectors, size_t count, int64_t* indices, float* margins,
                            int threads, edgekit_codebook_crew crew) const {
  const int status = edgekit_codebook_lookup_by(handle_, static_cast<const float*>(vectors),
                                                static_cast<int64_t>(count), indices, nullptr,
                                                margins, threads, crew, nullptr);
  if (status == EDGEKIT_CODEBOOK_OK) return;
  std::string text = edgekit_status_text(status);
  if (status == EDGEKIT_CODEBOOK_NONFINITE_INPUT) {
    text = "features hold NaN or infinity, first in vector " +
           std::to_string(first_nonfinite(vectors, count, width_)) + " of " + std::to_string(count);
  }
  throw std::runtime_error(text);
}

}  // namespace edgekit
