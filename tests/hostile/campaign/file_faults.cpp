// A layer between a program and the C library (LD_PRELOAD) that makes the disk misbehave on
// purpose.
//
// It counts the operations that change files below one folder, and at the chosen one
//   - kills the process, a write half done (mode 2),
//   - says from then on that the disk is full (modes 3 and 4),
// or it writes all of them to a log (mode 5), for a replay of what a loss of power would have left.
// What OpenVINO and other libraries write in C++ passes here as well.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

namespace {

enum Mode { kOff, kCount, kKill, kFull, kFullForNames, kRecord };

struct State {
  std::mutex mutex;
  int mode = kOff;
  long at = 0;
  long count = 0;
  bool full = false;
  std::string root;
  int log = -1;
};

State& state() {
  // Never destroyed: files are still written while the process ends.
  static State* const one = new State;
  return *one;
}

std::string of_descriptor(int fd) {
  char name[64];
  std::snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  char path[PATH_MAX];
  const ssize_t length = readlink(name, path, sizeof path);
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : std::string();
}

std::string absolute(int folder, const char* path) {
  if (path == nullptr) return {};
  if (path[0] == '/') return path;
  char here[PATH_MAX];
  if (folder != AT_FDCWD) return of_descriptor(folder) + "/" + path;
  return getcwd(here, sizeof here) == nullptr ? std::string() : std::string(here) + "/" + path;
}

bool watched(const std::string& path) {
  const std::string& root = state().root;
  return state().mode != kOff && path.compare(0, root.size(), root) == 0 &&
         (path.size() == root.size() || path[root.size()] == '/');
}

bool watched(int fd) { return state().mode != kOff && watched(of_descriptor(fd)); }

// Counts an operation; true if it is the one that the process is to die in.
bool last() {
  State& s = state();
  ++s.count;
  if (s.mode == kFull || s.mode == kFullForNames) s.full = s.full || s.count >= s.at;
  return s.mode == kKill && s.count == s.at;
}

[[noreturn]] void die() {
  for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

long no_space() {
  errno = ENOSPC;
  return -1;
}

void record(const std::string& line, const void* data = nullptr, size_t size = 0) {
  const int log = state().log;
  if (state().mode != kRecord || log < 0) return;
  syscall(SYS_write, log, line.data(), line.size());
  if (size > 0) syscall(SYS_write, log, data, size);
}

unsigned long inode(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

int open_file(int folder, const char* path, int flags, mode_t mode) {
  const auto go = [&] {
    return static_cast<int>(syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode));
  };
  if (state().mode == kOff || (flags & (O_CREAT | O_TRUNC)) == 0) return go();
  const std::string name = absolute(folder, path);
  std::lock_guard<std::mutex> lock(state().mutex);
  if (!watched(name)) return go();
  struct stat before;
  const bool creates = stat(name.c_str(), &before) != 0;
  if (!creates && (flags & O_TRUNC) == 0) return go();
  if (last()) die();
  if (creates && state().full && state().mode == kFullForNames) {
    return static_cast<int>(no_space());
  }
  const int fd = go();
  if (fd >= 0 && state().mode == kRecord) {
    const std::string number = std::to_string(inode(fd));
    record(creates ? "create\t" + number + "\t" + name + "\n" : "truncate\t" + number + "\t0\n");
  }
  return fd;
}

ssize_t write_file(int fd, const void* data, size_t size, off_t at) {
  const auto go = [&](size_t count) {
    return at < 0 ? syscall(SYS_write, fd, data, count)
                  : syscall(SYS_pwrite64, fd, data, count, at);
  };
  if (state().mode == kOff) return go(size);
  std::lock_guard<std::mutex> lock(state().mutex);
  if (!watched(fd)) return go(size);
  const bool was_full = state().full;
  if (last()) {
    go(size / 2);
    die();
  }
  if (state().full) return was_full || size < 2 ? no_space() : go(size / 2);
  const off_t end = lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
  const ssize_t done = go(size);
  if (done > 0 && state().mode == kRecord) {
    record("write\t" + std::to_string(inode(fd)) + "\t" + std::to_string(at < 0 ? end : at) + "\t" +
               std::to_string(done) + "\n",
           data, static_cast<size_t>(done));
  }
  return done;
}

// An operation on names: `call` does it, `line` is its record, `grows` whether it needs room.
template <typename Call>
int change_names(const std::string& one, const std::string& two, bool grows, const char* kind,
                 const Call& call) {
  if (state().mode == kOff) return static_cast<int>(call());
  std::lock_guard<std::mutex> lock(state().mutex);
  if (!watched(one)) return static_cast<int>(call());
  if (last()) die();
  if (grows && state().full && state().mode == kFullForNames) return static_cast<int>(no_space());
  const int status = static_cast<int>(call());
  if (status == 0) {
    record(std::string(kind) + "\t" + one + (two.empty() ? "" : "\t" + two) + "\n");
  }
  return status;
}

int synced(int fd, long number) {
  const auto go = [&] { return static_cast<int>(syscall(number, fd)); };
  if (state().mode == kOff) return go();
  const std::string name = of_descriptor(fd);
  std::lock_guard<std::mutex> lock(state().mutex);
  if (!watched(name)) return go();
  if (last()) die();
  const int status = go();
  if (status == 0) record("sync\t" + std::to_string(inode(fd)) + "\t" + name + "\n");
  return status;
}

int cut(int fd, off_t size) {
  const auto go = [&] { return static_cast<int>(syscall(SYS_ftruncate, fd, size)); };
  if (state().mode == kOff) return go();
  std::lock_guard<std::mutex> lock(state().mutex);
  if (!watched(fd)) return go();
  if (last()) die();
  const int status = go();
  if (status == 0) {
    record("truncate\t" + std::to_string(inode(fd)) + "\t" + std::to_string(size) + "\n");
  }
  return status;
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | __O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

// For programs that are started, not forked: "MODE:AT:FOLDER".
__attribute__((constructor)) void start() {
  const char* text = std::getenv("EDGEKIT_FILE_FAULTS");
  int mode = 0;
  long at = 0;
  int end = 0;
  if (text == nullptr || std::sscanf(text, "%d:%ld:%n", &mode, &at, &end) < 2 || end == 0) return;
  state().root = text + end;
  state().at = at;
  state().mode = mode;
}

}  // namespace

#define EXPORTED __attribute__((visibility("default")))

extern "C" {

EXPORTED void file_faults_arm(int mode, long at, const char* root, const char* log) {
  State& s = state();
  s.root = root;
  s.at = at;
  s.count = 0;
  s.full = false;
  s.log = log == nullptr || *log == '\0'
              ? -1
              : static_cast<int>(syscall(SYS_openat, AT_FDCWD, log,
                                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  s.mode = mode;
}

EXPORTED long file_faults_count() { return state().count; }

EXPORTED int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_file(AT_FDCWD, path, flags, mode);
}

EXPORTED int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_file(AT_FDCWD, path, flags, mode);
}

EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_file(folder, path, flags, mode);
}

EXPORTED int openat64(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_file(folder, path, flags, mode);
}

EXPORTED ssize_t write(int fd, const void* data, size_t size) {
  return write_file(fd, data, size, -1);
}

EXPORTED ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return write_file(fd, data, size, at);
}

EXPORTED ssize_t pwrite64(int fd, const void* data, size_t size, off_t at) {
  return write_file(fd, data, size, at);
}

EXPORTED ssize_t writev(int fd, const struct iovec* parts, int count) {
  if (!watched(fd)) return syscall(SYS_writev, fd, parts, count);
  ssize_t total = 0;
  for (int i = 0; i < count; ++i) {
    const ssize_t done = write_file(fd, parts[i].iov_base, parts[i].iov_len, -1);
    if (done < 0) return total > 0 ? total : done;
    total += done;
    if (static_cast<size_t>(done) < parts[i].iov_len) break;
  }
  return total;
}

// Who copies within the kernel does it with `write` if that is not to be had.
EXPORTED ssize_t sendfile64(int out, int in, off_t* offset, size_t count) {
  if (!watched(out)) return syscall(SYS_sendfile, out, in, offset, count);
  errno = EINVAL;
  return -1;
}

EXPORTED ssize_t sendfile(int out, int in, off_t* offset, size_t count) {
  return sendfile64(out, in, offset, count);
}

EXPORTED ssize_t copy_file_range(int in, off64_t* from, int out, off64_t* to, size_t size,
                                 unsigned flags) {
  if (!watched(out)) return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
  errno = EXDEV;
  return -1;
}

EXPORTED int renameat2(int from, const char* one, int to, const char* two, unsigned flags) {
  return change_names(absolute(from, one), absolute(to, two), false,
                      (flags & 2u) != 0 ? "exchange" : "rename",
                      [&] { return syscall(SYS_renameat2, from, one, to, two, flags); });
}

EXPORTED int renameat(int from, const char* one, int to, const char* two) {
  return renameat2(from, one, to, two, 0);
}

EXPORTED int rename(const char* one, const char* two) {
  return renameat2(AT_FDCWD, one, AT_FDCWD, two, 0);
}

EXPORTED int linkat(int from, const char* one, int to, const char* two, int flags) {
  return change_names(absolute(from, one), absolute(to, two), true, "link",
                      [&] { return syscall(SYS_linkat, from, one, to, two, flags); });
}

EXPORTED int link(const char* one, const char* two) {
  return linkat(AT_FDCWD, one, AT_FDCWD, two, 0);
}

EXPORTED int unlinkat(int folder, const char* path, int flags) {
  return change_names(absolute(folder, path), "", false,
                      (flags & AT_REMOVEDIR) != 0 ? "rmdir" : "unlink",
                      [&] { return syscall(SYS_unlinkat, folder, path, flags); });
}

EXPORTED int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }

EXPORTED int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

EXPORTED int mkdirat(int folder, const char* path, mode_t mode) {
  return change_names(absolute(folder, path), "", true, "mkdir",
                      [&] { return syscall(SYS_mkdirat, folder, path, mode); });
}

EXPORTED int mkdir(const char* path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORTED int fsync(int fd) { return synced(fd, SYS_fsync); }

EXPORTED int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

EXPORTED int ftruncate(int fd, off_t size) noexcept { return cut(fd, size); }

EXPORTED int ftruncate64(int fd, off64_t size) noexcept { return cut(fd, size); }

}  // extern "C"
