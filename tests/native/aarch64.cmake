# Cross-compiles for 64-bit ARM Linux and runs the tests in an emulator:
#   cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=tests/native/aarch64.cmake -DEDGEKIT_TESTS=ON
# Debian packages: g++-aarch64-linux-gnu qemu-user-static
# -DEDGEKIT_EMULATOR= names another program to run them, such as `make test-arm`'s userland.
include(${CMAKE_CURRENT_LIST_DIR}/../../targets/aarch64-linux-gnu.cmake)
if(EDGEKIT_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${EDGEKIT_EMULATOR})
else()
  set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
