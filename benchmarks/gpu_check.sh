#!/usr/bin/env bash
# Checks the CUDA lookup on the NVIDIA GPU at hand, in under four minutes: builds it, compares every
# index, runs the sanitizers and the worst inputs, and prints a table of times beside torch's.
#
#   bash benchmarks/gpu_check.sh [FOLDER]     results go to FOLDER (build/gpu-check)
#
# Wants nvcc and a Python with torch that sees the GPU (PYTHON=python3). With TENSORRT_INCLUDE_DIR, a
# folder with NvInferRuntime.h, the plugin is built and driven too; with RTX_MODEL, an ONNX file,
# TensorRT-RTX is tried. Exits with 1 on a wrong index or a sanitizer's finding.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly python="${PYTHON:-python3}" out="${1:-build/gpu-check}"
mkdir -p "$out"
export PATH="$PATH:/usr/local/cuda/bin" PYTHONUNBUFFERED=1
failed=0
start=$SECONDS

note() {
  echo "[$((SECONDS - start)) s] $*"
}

command -v nvcc >/dev/null || {
  echo "error: no nvcc: install the CUDA toolkit" >&2
  exit 4
}
sm="$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')" || {
  echo "error: $python has no torch that sees a GPU" >&2
  exit 4
}
readonly sources=targets/codebook/cuda
readonly flags=(-std=c++17 -O3 "-arch=sm_$sm" --ftz=false --prec-sqrt=true --split-compile 0)
nvcc "${flags[@]}" -Xcompiler -fPIC -shared -cudart static \
  -o "$out/libedgekit_codebook_cuda.so" "$sources/codebook_cuda.cu" &
readonly library=$!
nvcc "${flags[@]}" -lineinfo -I "$sources" -o "$out/check_lookup" \
  "$sources/check_lookup.cu" "$sources/codebook_cuda.cu" &
readonly program=$!
# The product of GPUs without the instruction for it.
nvcc "${flags[@]}" -DEDGEKIT_PLAIN_PRODUCT -I "$sources" -o "$out/check_plain" \
  "$sources/check_lookup.cu" "$sources/codebook_cuda.cu" &
readonly plain=$!
wait "$library" && wait "$program" && wait "$plain" || exit 1
note "compiled for SM $sm"

"$out/check_lookup" || failed=1
"$out/check_plain" || failed=1
note "definition"
sanitizers=()
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    timeout 90 compute-sanitizer --tool "$tool" --error-exitcode 1 "$out/check_lookup" short \
      >"$out/$tool.log" 2>&1 &
    sanitizers+=("$tool:$!")
  done
else
  note "sanitizers: left out, no compute-sanitizer"
fi

# Sizes of the head and beyond, while the sanitizers are slow; times wait for them.
options=(--library "$out/libedgekit_codebook_cuda.so")
[ -z "${TENSORRT_INCLUDE_DIR:-}" ] || options+=(--tensorrt-include "$TENSORRT_INCLUDE_DIR")
[ -z "${RTX_MODEL:-}" ] || options+=(--rtx "$RTX_MODEL")
"$python" benchmarks/cuda_lookup.py --only check --json "$out/check.json" "${options[@]}" || failed=1
note "sizes"
for sanitizer in "${sanitizers[@]}"; do
  wait "${sanitizer#*:}" || failed=1
  tool="${sanitizer%:*}"
  note "$tool: $(grep SUMMARY "$out/$tool.log" | tail -n 1)"
done
"$python" benchmarks/cuda_lookup.py --only time worst --json "$out/times.json" \
  --library "$out/libedgekit_codebook_cuda.so" || failed=1
note "done, results in $out"
[ "$failed" -eq 0 ] || echo "FAILED"
exit "$failed"
