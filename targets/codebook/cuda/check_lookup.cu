// The lookup on the GPU at hand against its definition, through the C interface, without Python:
// for the sanitizers. Also measures how careless this GPU's tensor cores are, against what bounds.h
// assumes.
//
//   nvcc -I. check_lookup.cu codebook_cuda.cu && ./a.out [short]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "bounds.h"
#include "edgekit_codebook_cuda.h"
#include "mma.h"
#include "reference.h"

namespace {

using edgekit::cuda::kWarp;
using edgekit::cuda::Quad;

[[noreturn]] void fail(const char* what) {
  std::printf("FAILED: %s\n", what);
  std::exit(1);
}

void demand(cudaError_t error) {
  if (error != cudaSuccess) fail(cudaGetErrorString(error));
}

template <typename T>
class Array {
 public:
  explicit Array(const std::vector<T>& values) : count_(values.size()) {
    demand(cudaMalloc(&data_, count_ * sizeof(T)));
    demand(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  explicit Array(size_t count) : count_(count) { demand(cudaMalloc(&data_, count * sizeof(T))); }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() { return static_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> found(count_);
    demand(cudaMemcpy(found.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return found;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

enum class Kind { kNormal, kTies, kNear };

void check(int64_t m, int64_t n, int64_t d, bool l2, Kind kind) {
  std::mt19937 random(static_cast<unsigned>(m * 7919 + n * 31 + d));
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    return kind == Kind::kTies ? static_cast<float>(static_cast<int>(random() % 3) - 1) * 0.5f
                               : normal(random);
  };
  std::vector<float> x(static_cast<size_t>(m * d));
  std::vector<float> rows(static_cast<size_t>(n * d));
  for (float& value : x) value = draw();
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t wide = static_cast<size_t>(d);
    // Near-duplicates of one row in each direction: more than any shortlist holds.
    rows[i] = kind == Kind::kNear && i >= 2 * wide
                  ? rows[i % wide + (i / wide % 2) * wide] * (1 + 1e-7f * normal(random))
                  : draw();
  }
  const size_t packed_bytes = edgekit_codebook_cuda_packed_bytes(n, d);
  const size_t workspace_bytes = edgekit_codebook_cuda_workspace(m, n, d);
  Array<float> x_device(x);
  Array<float> rows_device(rows);
  Array<unsigned char> packed(packed_bytes);
  Array<unsigned char> workspace(workspace_bytes);
  Array<int64_t> indices(std::vector<int64_t>(static_cast<size_t>(m), -1));
  Array<float> margins(std::vector<float>(static_cast<size_t>(m)));
  edgekit_codebook_cuda_codebook codebook = {rows_device.data(), n,           d, 0,
                                             packed.data(),      packed_bytes};
  if (edgekit_codebook_cuda_pack(&codebook, nullptr) != 0) fail("pack");
  edgekit_codebook_cuda_request request = {};
  request.x = x_device.data();
  request.codebook = rows_device.data();
  request.m = m;
  request.n = n;
  request.d = d;
  request.metric = l2 ? 1 : 0;
  request.indices = indices.data();
  request.margin = margins.data();
  request.workspace = workspace.data();
  request.workspace_bytes = workspace_bytes;
  request.packed = packed.data();
  request.packed_bytes = packed_bytes;
  for (const bool margin : {true, false}) {
    request.margin = margin ? margins.data() : nullptr;
    if (edgekit_codebook_cuda_lookup(&request, nullptr) != 0) fail("lookup");
    demand(cudaDeviceSynchronize());
    const std::vector<int64_t> found = indices.values();
    const std::vector<float> distance = margins.values();
    for (size_t i = 0; i < found.size(); ++i) {
      const auto expected =
          edgekit::cuda::defined_lookup(rows.data(), n, d, &x[i * static_cast<size_t>(d)], l2);
      if (found[i] != expected.index || distance[i] != expected.margin) {
        std::printf("m %lld n %lld d %lld l2 %d kind %d vector %zu\n", static_cast<long long>(m),
                    static_cast<long long>(n), static_cast<long long>(d), l2,
                    static_cast<int>(kind), i);
        fail("index or margin");
      }
    }
  }
}

struct Operands {
  Quad low;
  Quad high;
  Quad b;
  float c[4];
};

__global__ void multiply_once(Operands* operands) {
  Operands own = operands[threadIdx.x];
  edgekit::cuda::multiply<0>(
      &own, [](Operands& o) -> float* { return o.c; },
      [](Operands& o) -> const Quad& { return o.low; },
      [](Operands& o) -> const Quad& { return o.high; },
      [](Operands& o) -> const Quad& { return o.b; });
  operands[threadIdx.x] = own;
}

// The greatest error of a product of 16 columns and its addition, in units of what is assumed: sums
// that cancel, of terms of all sizes.
double carelessness(int rounds) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  double worst = 0;
  for (int round = 0; round < rounds; ++round) {
    __half rows[16][16];
    __half vectors[8][16];
    const auto spread = static_cast<float>(round % 8);
    const auto draw = [&] {
      const float value = normal(random) * std::exp2(spread * normal(random));
      return __float2half_rn(std::fmin(std::fmax(value, -60000.0f), 60000.0f));
    };
    for (auto& row : rows) {
      for (__half& value : row) value = draw();
    }
    for (auto& vector : vectors) {
      for (__half& value : vector) value = draw();
    }
    const auto bits = [](__half value) { return static_cast<uint32_t>(__half_as_ushort(value)); };
    std::vector<Operands> operands(kWarp);
    for (int lane = 0; lane < kWarp; ++lane) {
      Operands& o = operands[static_cast<size_t>(lane)];
      std::memset(&o, 0, sizeof o);
      for (int i = 0; i < 4; ++i) {
        const int k = lane % 4 * 2 + i % 2 + i / 2 * 8;
        o.low.word[i / 2] |= bits(rows[lane / 4][k]) << (i % 2 * 16);
        o.high.word[i / 2] |= bits(rows[lane / 4 + 8][k]) << (i % 2 * 16);
        o.b.word[i / 2] |= bits(vectors[lane / 4][k]) << (i % 2 * 16);
        o.c[i] = normal(random) * std::exp2(2 * spread * normal(random));
      }
    }
    Array<Operands> device(operands);
    multiply_once<<<1, kWarp>>>(device.data());
    demand(cudaDeviceSynchronize());
    const std::vector<Operands> found = device.values();
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const auto at = static_cast<size_t>(lane);
        long double sum = operands[at].c[i];
        long double size = std::fabs(operands[at].c[i]);
        for (int k = 0; k < 16; ++k) {
          const long double product =
              static_cast<long double>(__half2float(rows[lane / 4 + i / 2 * 8][k])) *
              __half2float(vectors[lane % 4 * 2 + i % 2][k]);
          sum += product;
          size += product < 0 ? -product : product;
        }
        const auto error = static_cast<double>((found[at].c[i] - sum) / size);
        worst = std::max(worst, std::fabs(error) / edgekit::cuda::bounds::kTensor);
      }
    }
  }
  return worst;
}

}  // namespace

int main(int count, char** arguments) {
  const bool brief = count > 1 && std::strcmp(arguments[1], "short") == 0;
  const double careless = carelessness(brief ? 8 : 400);
  std::printf("error of the tensor cores: %.3f of what is assumed\n", careless);
  if (!(careless <= 1)) fail("the bound does not hold on this GPU");
  for (const bool l2 : {false, true}) {
    for (const Kind kind : {Kind::kNormal, Kind::kTies, Kind::kNear}) {
      for (const int64_t m : {1, 3, 8, 9, 49, 130, 300}) {
        if (brief && (m == 3 || m == 300)) continue;
        check(m, m % 2 == 0 ? 333 : 700, 130, l2, kind);
      }
      if (!brief) check(49, 1000, 2048, l2, kind);
      check(1, 1000, brief ? 300 : 2048, l2, kind);
    }
  }
  std::printf("indices and margins: ok\n");
  return 0;
}
