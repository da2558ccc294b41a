/* obituary.h: how a worker's death reaches the relay without any help of the interpreter.
 *
 * The bridge makes one pipe per worker. Its read end belongs to the relay; its write end goes
 * through the shepherd to the worker's init, which is the only process that keeps it (the worker
 * never has it).
 *
 *   worker ended                -> one record, written with one write(2), then EOF
 *   init and worker were killed -> EOF without a record (SIGKILL of the init, or of the shepherd)
 *   the read end is closed      -> nobody is left to hear of the worker: the init ends the tree by
 *                                  itself (shepherd/init.c), so the reader keeps its end open for
 *                                  as long as it wants the worker
 *
 * A record is 16 bytes, below PIPE_BUF: it arrives whole or not at all (pipe(7)).
 */
#ifndef RINGBRIDGE_OBITUARY_H
#define RINGBRIDGE_OBITUARY_H

#include <stdint.h>

#define RB_OBITUARY_MAGIC 0x424F4252u /* the bytes "RBOB" in memory, little-endian */
#define RB_OBITUARY_CORE 0x1u         /* flags: a core was dumped */
#define RB_OBITUARY_OOM \
    0x2u /* flags: most likely the OOM killer (shepherd/oom.c says how this is known) */

struct rb_obituary {
    uint32_t magic;
    int32_t status;  /* exit code 0..255, or -1 when a signal ended the worker */
    uint32_t signal; /* the signal's number, or 0 */
    uint32_t flags;  /* RB_OBITUARY_* */
};

/* C99 has no _Static_assert; a negative array size is the same refusal. */
typedef char rb_obituary_is_16_bytes[sizeof(struct rb_obituary) == 16 ? 1 : -1];

#endif
