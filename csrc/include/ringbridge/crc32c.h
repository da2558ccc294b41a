/* crc32c.h: CRC-32C (Castagnoli, RFC 3720 appendix B.4; reflected polynomial 0x82f63b78). */
#ifndef RINGBRIDGE_CRC32C_H
#define RINGBRIDGE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `size` bytes continued from `crc` (0 to begin). Pre- and post-inversion are inside, so
 * rb_crc32c(rb_crc32c(0, a, n), b, m) is the CRC of a followed by b. Uses the CPU's instruction
 * where it has one, with three streams in flight for long inputs, or folds them by wide carry-less
 * multiplication where it has that; the choice is made once, at first use. */
uint32_t rb_crc32c(uint32_t crc, const void *data, size_t size);

/* Copies, and returns the CRC of what was copied, in one pass: piece by piece, each summed where it was laid down while it is in the nearest
 * cache. `from` may change meanwhile; to `to` nobody else may write. They do not overlap. */
uint32_t rb_crc32c_copy(uint32_t crc, void *to, const void *from, size_t size);

/* The CRC of a followed by b, of the CRCs of both and the size of b: for sums that are made before what stands in front of them is
 * known. At most 64 products of two words, 1 us; two for a size that is a power of two. */
uint32_t rb_crc32c_join(uint32_t a, uint32_t b, size_t b_size);

/* Two of the forms by name, for tests that hold them against each other. rb_crc32c_hardware() needs
 * rb_crc32c_has_hardware(). */
uint32_t rb_crc32c_table(uint32_t crc, const void *data, size_t size);
uint32_t rb_crc32c_hardware(uint32_t crc, const void *data, size_t size);
int rb_crc32c_has_hardware(void);

#endif
