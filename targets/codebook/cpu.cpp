// Detects which instruction sets this machine has.
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace edgekit {
namespace {

struct Table {
  const Kernels* entries[6] = {};
  int count = 0;

  void add(const Kernels& kernels) { entries[count++] = &kernels; }

  Table();
};

#if defined(__x86_64__)

bool has_avx_vnni() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}

Table::Table() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) add(kAvx512VnniKernels);
#ifdef EDGEKIT_HAVE_AVXVNNI
  if (avx2 && has_avx_vnni()) add(kAvxVnniKernels);
#endif
  if (avx512) add(kAvx512Kernels);
  if (avx2) add(kAvx2Kernels);
  add(kPortableKernels);
}

#elif defined(__aarch64__)

Table::Table() {
#ifdef __linux__
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  if ((getauxval(AT_HWCAP) & kDotProduct) != 0) add(kNeonDotKernels);
#endif
  add(kPortableKernels);
}

#else

Table::Table() { add(kPortableKernels); }

#endif

}  // namespace

const Kernels* const* available_kernels() {
  static const Table table;
  return table.entries;
}

}  // namespace edgekit
