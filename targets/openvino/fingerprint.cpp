#include "fingerprint.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace edgekit {
namespace {

__extension__ using uint128_t = unsigned __int128;

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr size_t kWords = 4;  // absorbed with one reduction

using Words = std::array<uint32_t, kWords>;

// Congruent modulo kPrime and below 2^61 + 8, for any value below 2^125: 2^61 is 1 in the field.
uint64_t reduce(uint128_t value) {
  const uint64_t once = static_cast<uint64_t>(value & kPrime) + static_cast<uint64_t>(value >> 61);
  return (once & kPrime) + (once >> 61);
}

// A point of the field by its powers 1 to kWords.
struct Point {
  std::array<uint64_t, kWords> power;

  explicit Point(uint64_t at) {
    power[0] = at;
    for (size_t i = 1; i < kWords; ++i) power[i] = reduce(uint128_t{power[i - 1]} * at);
  }

  // Four steps of Horner's rule, hash = hash * point + word, at once.
  uint64_t absorb(uint64_t hash, const Words& words) const {
    return reduce(uint128_t{hash} * power[3] + uint128_t{words[0]} * power[2] +
                  uint128_t{words[1]} * power[1] + uint128_t{words[2]} * power[0] + words[3]);
  }
};

uint64_t draw() {
  std::random_device device;
  return std::uniform_int_distribution<uint64_t>(1, kPrime - 1)(device);
}

}  // namespace

Fingerprint fingerprint(const void* data, size_t bytes) {
  static const std::array<Point, 2> points{Point(draw()), Point(draw())};
  const auto* from = static_cast<const char*>(data);
  Fingerprint hash{};
  for (size_t at = 0; at < bytes; at += sizeof(Words)) {
    Words words{};
    std::memcpy(words.data(), from + at, std::min(sizeof(Words), bytes - at));
    hash[0] = points[0].absorb(hash[0], words);
    hash[1] = points[1].absorb(hash[1], words);
  }
  return hash;
}

}  // namespace edgekit
