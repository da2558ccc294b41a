/* link_memory.c: memfds, their seals and their mappings.
 *
 * Facts: a memfd has no name in any filesystem, so the last close or unmap frees it. F_SEAL_SHRINK
 * makes every page below its size safe to touch (no SIGBUS by truncation); F_SEAL_SEAL keeps the
 * other side from adding F_SEAL_WRITE, which would turn our writes into faults. F_SEAL_FUTURE_WRITE
 * (Linux 5.1) leaves the mapping that exists writable and refuses every other one, as well as
 * write(2) and hole punching: memory under it never shrinks (mm/shmem.c, shmem_fallocate:
 * EPERM). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "link_pvt.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { SIZE_SEALS = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL };

int rb_memory_create(const char *name, uint64_t bytes) {
    int fd, failed;

    if (sysconf(_SC_PAGESIZE) != RB_PAGE_BYTES)
        return -EOPNOTSUPP; /* guards are pages of the layout's size */
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    if (ftruncate(fd, (off_t)bytes) == 0) return fd;
    failed = -errno;
    close(fd);
    return failed;
}

int rb_memory_seal(int fd, int read_only) {
    int seals;
    if (read_only && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 && errno != EINVAL)
        return -errno;
    if (fcntl(fd, F_ADD_SEALS, SIZE_SEALS) < 0) return -errno;
    seals = fcntl(fd, F_GET_SEALS);
    return seals < 0 ? -errno : seals;
}

int64_t rb_memory_sealed_bytes(int fd) {
    struct stat st;
    int seals = fcntl(
        fd, F_GET_SEALS); /* before the size is asked: with the seals on, the size is for good */
    if (seals < 0 || (seals & SIZE_SEALS) != SIZE_SEALS || fstat(fd, &st) < 0) return -EPROTO;
    return st.st_size;
}

int rb_memory_map(int fd, uint64_t bytes, int writable, uint8_t **base) {
    void *p =
        mmap(NULL, (size_t)bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return -errno;
    *base = p;
    return 0;
}

int rb_memory_guard(uint8_t *base, const struct rb_guard *guards, int count) {
    for (int i = 0; i < count; i++)
        if (mprotect(base + guards[i].at, (size_t)guards[i].bytes, PROT_NONE) < 0) return -errno;
    return 0;
}

void rb_memory_populate(uint8_t *base, uint64_t bytes) {
    if (madvise(base, (size_t)bytes, MADV_POPULATE_WRITE) == 0) return;
    /* An older kernel: touch each page. An atomic add of nothing: the other side may be mapped
     * already and may not lose a word. */
    for (uint64_t at = 0; at < bytes; at += RB_PAGE_BYTES)
        rb_add_relaxed((uint32_t *)(base + at), 0);
}
