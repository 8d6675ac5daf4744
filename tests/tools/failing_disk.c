/* A disk that fails, for tests: loaded by LD_PRELOAD, it makes the nth call of a kind below a folder fail.
 *
 *   FAILING_DISK_FOLDER  the folder
 *   FAILING_DISK_KIND    a letter: w write, s fsync, r rename or link, o create a file, m make a folder, l read
 *   FAILING_DISK_NTH     which call of that kind fails, from 1; 0: none, calls are only recorded
 *   FAILING_DISK_TIMES   how many calls in a row fail; 0: all from then on
 *   FAILING_DISK_ERRNO   the error's number
 *   FAILING_DISK_LOG     a file that gets the letter of each call, an upper-case one where it failed
 *
 * A failing write has written the first half, as a full disk has. A failing fsync has lost what was written: a file that
 * was never synced before is cut to its half, since the kernel marks such pages clean and drops them later.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static int kind, error_number, log_descriptor = -1;
static long nth, times, passed;

static long number(const char *name) {
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static void begin(void) {
    const char *value = getenv("FAILING_DISK_FOLDER");
    if (!value)
        return;
    snprintf(folder, sizeof folder, "%s", value);
    kind = *getenv("FAILING_DISK_KIND");
    nth = number("FAILING_DISK_NTH");
    times = number("FAILING_DISK_TIMES");
    error_number = (int)number("FAILING_DISK_ERRNO");
    log_descriptor = (int)syscall(SYS_openat, AT_FDCWD, getenv("FAILING_DISK_LOG"),
                                  O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    folder_length = strlen(folder);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

/* Tell whether the call is to fail; errno is set then. */
static int fails(int of_kind, const char *path) {
    pthread_once(&once, begin);
    if (!folder_length || path[0] != '/' || !is_below(path))
        return 0;
    int chosen = 0;
    if (of_kind == kind && nth) {
        long call = __atomic_add_fetch(&passed, 1, __ATOMIC_SEQ_CST);
        chosen = call >= nth && (!times || call < nth + times);
    }
    char letter = (char)(chosen ? toupper(of_kind) : of_kind);
    syscall(SYS_write, log_descriptor, &letter, 1);
    if (chosen)
        errno = error_number;
    return chosen;
}

static int file_fails(int of_kind, int descriptor) {
    pthread_once(&once, begin);
    if (!folder_length)
        return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(of_kind, path);
}

static int fails_at(int of_kind, int directory, const char *path) {
    if (path[0] == '/' || directory == AT_FDCWD) {
        char absolute[PATH_MAX];
        if (path[0] == '/' || !getcwd(absolute, sizeof absolute - 1))
            return fails(of_kind, path);
        size_t length = strlen(absolute);
        snprintf(absolute + length, sizeof absolute - length, "/%s", path);
        return fails(of_kind, absolute);
    }
    return file_fails(of_kind, directory);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size) {
    if (file_fails('w', file)) {
        int wanted = errno;
        if (size > 1 && wanted == ENOSPC)
            return syscall(SYS_write, file, data, size / 2);
        errno = wanted;
        return -1;
    }
    return syscall(SYS_write, file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    if (file_fails('w', file)) {
        int wanted = errno;
        if (size > 1 && wanted == ENOSPC)
            syscall(SYS_pwrite64, file, data, size / 2, at);
        errno = wanted;
        return -1;
    }
    return syscall(SYS_pwrite64, file, data, size, at);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return pwrite64(file, data, size, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    return file_fails('w', file) ? -1 : NEXT(writev)(file, parts, count);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
    return file_fails('w', file) ? -1 : NEXT(pwritev)(file, parts, count, at);
}

int ftruncate64(int file, off64_t size) {
    return file_fails('w', file) ? -1 : (int)syscall(SYS_ftruncate, file, size);
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int posix_fallocate(int file, off_t at, off_t size) {
    return file_fails('w', file) ? errno : NEXT(posix_fallocate)(file, at, size);
}

int posix_fallocate64(int file, off64_t at, off64_t size) {
    return file_fails('w', file) ? errno : NEXT(posix_fallocate64)(file, at, size);
}

/* Files that were synced, by their inodes' last bits: a false "was" only makes a fault milder. */
static char synced[1 << 16];

static int keep(int file, int done) {
    struct stat status;
    if (folder_length && done == 0 && fstat(file, &status) == 0)
        synced[status.st_ino & (sizeof synced - 1)] = 1;
    return done;
}

static int lost(int file) {
    int wanted = errno;
    struct stat status;
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && !synced[status.st_ino & (sizeof synced - 1)])
        syscall(SYS_ftruncate, file, status.st_size / 2);
    errno = wanted;
    return -1;
}

int fsync(int file) { return file_fails('s', file) ? lost(file) : keep(file, (int)syscall(SYS_fsync, file)); }

int fdatasync(int file) { return file_fails('s', file) ? lost(file) : keep(file, (int)syscall(SYS_fdatasync, file)); }

int rename(const char *from, const char *to) {
    return fails_at('r', AT_FDCWD, to) ? -1 : NEXT(rename)(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    return fails_at('r', to_directory, to) ? -1 : NEXT(renameat)(from_directory, from, to_directory, to);
}

int link(const char *from, const char *to) { return fails_at('r', AT_FDCWD, to) ? -1 : NEXT(link)(from, to); }

int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags) {
    return fails_at('r', to_directory, to) ? -1 : NEXT(linkat)(from_directory, from, to_directory, to, flags);
}

int mkdir(const char *path, mode_t mode) { return fails_at('m', AT_FDCWD, path) ? -1 : NEXT(mkdir)(path, mode); }

static int opened(int directory, const char *path, int flags, va_list rest) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE))
        mode = va_arg(rest, mode_t);
    if ((flags & O_CREAT) && fails_at('o', directory, path))
        return -1;
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

#define OPEN(name, large)                                                                                              \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int file = opened(AT_FDCWD, path, flags | (large), rest);                                                      \
        va_end(rest);                                                                                                  \
        return file;                                                                                                   \
    }
#define OPEN_AT(name, large)                                                                                           \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int file = opened(directory, path, flags | (large), rest);                                                     \
        va_end(rest);                                                                                                  \
        return file;                                                                                                   \
    }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)
OPEN_AT(openat, 0)
OPEN_AT(openat64, O_LARGEFILE)

ssize_t read(int file, void *data, size_t size) {
    return file_fails('l', file) ? -1 : syscall(SYS_read, file, data, size);
}

ssize_t pread64(int file, void *data, size_t size, off64_t at) {
    return file_fails('l', file) ? -1 : syscall(SYS_pread64, file, data, size, at);
}

ssize_t pread(int file, void *data, size_t size, off_t at) { return pread64(file, data, size, at); }

ssize_t preadv(int file, const struct iovec *parts, int count, off_t at) {
    return file_fails('l', file) ? -1 : NEXT(preadv)(file, parts, count, at);
}
