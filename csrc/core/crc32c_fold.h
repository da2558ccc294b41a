/* crc32c_fold.h: the register of CRC-32C over a long run by carry-less multiplication, 256 bytes a step. */
#ifndef RB_CRC32C_FOLD_H
#define RB_CRC32C_FOLD_H

#include <stddef.h>
#include <stdint.h>

enum { RB_FOLD_STEP = 256, RB_FOLD_MIN = 4 * RB_FOLD_STEP }; /* shorter runs gain nothing */

/* This CPU and this system have what it needs. */
int rb_crc32c_can_fold(void);

/* Takes the greatest multiple of RB_FOLD_STEP bytes that lies in `size` (at least RB_FOLD_MIN) and leaves in `rest` 256 bytes with the same register:
 * who goes over them from a register of 0 has the register after all that was taken, begun at `before`. Returns the bytes taken. */
size_t rb_crc32c_fold(uint32_t before, const uint8_t *p, size_t size, uint8_t rest[RB_FOLD_STEP]);

#endif
