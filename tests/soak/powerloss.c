/* Preloaded into a node: remembers what it wrote and has not synced, so that a power cut can be played.
 *
 * For every file below $POWERLOSS_DIR each write and truncation is first appended to $POWERLOSS_LOG/<inode>, with
 * what was there before; an fsync empties that log, unless $POWERLOSS_LOG/lies exists: then it is a store that does
 * not sync. powerloss.py takes unsynced writes back after a kill. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct record {
    uint8_t kind; /* 'w' write, 't' truncate */
    uint64_t offset; /* of a write; the new size of a truncation */
    uint64_t size; /* of the file before */
    uint32_t before; /* bytes that follow: what was there */
    uint32_t after; /* bytes that follow then: what is written */
} __attribute__((packed));

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* The path of the file's log if the file is watched. */
static int watched(int fd, char *log, size_t size, struct stat *st) {
    const char *dir = getenv("POWERLOSS_DIR"), *logs = getenv("POWERLOSS_LOG");
    char link[64], path[PATH_MAX];
    if (!dir || !logs) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    size_t end = strlen(path);
    if (strncmp(path, dir, strlen(dir)) != 0) return 0;
    /* Mapped into memory and rebuilt at every start. */
    if (end > 4 && strcmp(path + end - 4, "-shm") == 0) return 0;
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) return 0;
    snprintf(log, size, "%s/%llu", logs, (unsigned long long)st->st_ino);
    return 1;
}

static void put(int out, const void *bytes, size_t count) {
    const char *at = bytes;
    while (count > 0) {
        ssize_t n = syscall(SYS_write, out, at, count);
        if (n <= 0) abort();
        at += n;
        count -= (size_t)n;
    }
}

static void remember(int fd, uint8_t kind, uint64_t offset, const void *new, size_t count) {
    char log[PATH_MAX];
    struct stat st;
    if (!watched(fd, log, sizeof log, &st)) return;
    uint64_t size = (uint64_t)st.st_size, last = kind == 'w' ? offset + count : size;
    if (last > size) last = size;
    size_t old = last > offset ? last - offset : 0;
    char *before = malloc(old + 1);
    if (!before) abort();
    if (old && syscall(SYS_pread64, fd, before, old, offset) != (ssize_t)old) abort();
    struct record r = {kind, offset, size, (uint32_t)old, (uint32_t)(kind == 'w' ? count : 0)};
    int out = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0) abort();
    put(out, &r, sizeof r);
    put(out, before, old);
    if (kind == 'w') put(out, new, count);
    syscall(SYS_close, out);
    free(before);
}

static int synced(int fd, int result) {
    char log[PATH_MAX], lies[PATH_MAX];
    struct stat st;
    if (result != 0 || !watched(fd, log, sizeof log, &st)) return result;
    snprintf(lies, sizeof lies, "%s/lies", getenv("POWERLOSS_LOG"));
    if (access(lies, F_OK) != 0) syscall(SYS_truncate, log, 0);
    return result;
}

#define LOCKED(type, remembering, call)                                                                            \
    do {                                                                                                           \
        pthread_mutex_lock(&mutex);                                                                                \
        remembering;                                                                                               \
        type result = (type)(call);                                                                                \
        int kept = errno;                                                                                          \
        pthread_mutex_unlock(&mutex);                                                                              \
        errno = kept;                                                                                              \
        return result;                                                                                             \
    } while (0)

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    LOCKED(ssize_t, remember(fd, 'w', (uint64_t)at, bytes, count), syscall(SYS_pwrite64, fd, bytes, count, at));
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

static uint64_t place(int fd) {
    /* Appending, or where the file stands; a pipe or socket answers -1 and is not watched anyway. */
    int flags = fcntl(fd, F_GETFL);
    off_t at = lseek(fd, 0, SEEK_CUR);
    struct stat st;
    if (flags != -1 && (flags & O_APPEND) && fstat(fd, &st) == 0) return (uint64_t)st.st_size;
    return at < 0 ? 0 : (uint64_t)at;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char log[PATH_MAX];
    struct stat st;
    if (!watched(fd, log, sizeof log, &st)) return syscall(SYS_write, fd, bytes, count);
    LOCKED(ssize_t, remember(fd, 'w', place(fd), bytes, count), syscall(SYS_write, fd, bytes, count));
}

int ftruncate64(int fd, off64_t size) {
    LOCKED(int, remember(fd, 't', (uint64_t)size, NULL, 0), syscall(SYS_ftruncate, fd, size));
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fsync(int fd) { LOCKED(int, (void)0, synced(fd, (int)syscall(SYS_fsync, fd))); }

int fdatasync(int fd) { LOCKED(int, (void)0, synced(fd, (int)syscall(SYS_fdatasync, fd))); }
