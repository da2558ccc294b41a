/* footprint.c: let go of the pages that only the start needed.
 *
 * The program is small, but the C library's start-up code is not, and the kernel maps 64 KiB around
 * each page that was touched. All that is text in the page cache, shared by all shepherds of the
 * machine and mapped again on demand (some microseconds); dropped, a shepherd that waits has little
 * more than its own anonymous pages.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <sys/mman.h>

#include "shepherd_pvt.h"

#define PAGE_BYTES 4096 /* of the smallest page there is: a start that is not aligned is refused */

/* The linker's: the start of this file in memory (ld, "PROVIDE_HIDDEN (__ehdr_start)"). */
extern const ElfW(Ehdr) __ehdr_start __attribute__((weak, visibility("hidden")));

void rb_forget_startup(void) {
    const char *base = (const char *)&__ehdr_start;
    const ElfW(Phdr) * segment;
    ElfW(Half) i;

    /* Position-independent, addresses would need a base; then there is nothing to gain either. */
    if (base == NULL || __ehdr_start.e_type != ET_EXEC) return;
    segment = (const ElfW(Phdr) *)(base + __ehdr_start.e_phoff);
    for (i = 0; i < __ehdr_start.e_phnum; i++, segment++) {
        ElfW(Addr) start = segment->p_vaddr & ~(ElfW(Addr))(PAGE_BYTES - 1);
        /* Written segments are private copies: dropping those would undo what was written. The end
         * is rounded up by the kernel, to where no other segment begins (ld aligns them so). */
        if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W))
            madvise((void *)start, segment->p_vaddr + segment->p_memsz - start, MADV_DONTNEED);
    }
}
