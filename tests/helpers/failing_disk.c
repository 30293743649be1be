/* Preloaded: writing, flushing or reading a file fails as on a disk that fails.

   FAULT_PATH    part of the names of the files meant; nothing fails while it is not set
   FAULT_CALL    fsync, write, read or pread
   FAULT_ERRNO   what the call fails with, as a number
   FAULT_AFTER   so many calls succeed before; none when it is not set
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(int descriptor, const char *call) {
    const char *path = getenv("FAULT_PATH"), *meant = getenv("FAULT_CALL");
    if (!path || !*path || !meant || strcmp(meant, call)) return 0;
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    if (!strstr(name, path)) return 0;
    static atomic_int calls;
    const char *after = getenv("FAULT_AFTER");
    if (after && atomic_fetch_add(&calls, 1) < atoi(after)) return 0;
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int descriptor) {
    return fails(descriptor, "fsync") ? -1 : REAL(fsync)(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    return fails(descriptor, "write") ? -1 : REAL(write)(descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    return fails(descriptor, "write") ? -1 : REAL(writev)(descriptor, parts, count);
}

ssize_t read(int descriptor, void *bytes, size_t count) {
    return fails(descriptor, "read") ? -1 : REAL(read)(descriptor, bytes, count);
}

ssize_t pread64(int descriptor, void *bytes, size_t count, off64_t offset) {
    return fails(descriptor, "pread") ? -1 : REAL(pread64)(descriptor, bytes, count, offset);
}

ssize_t pread(int descriptor, void *bytes, size_t count, off_t offset) {
    return fails(descriptor, "pread") ? -1 : REAL(pread)(descriptor, bytes, count, offset);
}
