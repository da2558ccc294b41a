/* envelope.h: sealing and checking the 128-byte envelopes (layout.h has their fields).
 *
 * CRC: over the first 64 bytes of the envelope with `crc` taken as zero, then, with
 * RB_FEATURE_CRC_PAYLOAD, over the payload wherever it lies; with RB_FEATURE_CRC_ENVELOPE alone,
 * over the 64 bytes only. With neither feature `crc` is 0 and unchecked. */
#ifndef RINGBRIDGE_ENVELOPE_H
#define RINGBRIDGE_ENVELOPE_H

#include <stdint.h>

#include "ringbridge/layout.h"

/* `payload`: payload_bytes of it are summed. NULL: the payload lies in the envelope's own body, of
 * which no more than RB_INLINE_BYTES_MAX are read whatever payload_bytes says. */
uint32_t rb_request_crc(const struct rb_request *e, const void *payload, uint64_t features);
uint32_t rb_completion_crc(const struct rb_completion *e, const void *payload, uint64_t features);

/* The same, of a payload that was summed before: `payload_crc` is rb_crc32c(0, payload, e->payload_bytes). */
uint32_t rb_request_crc_summed(const struct rb_request *e, uint32_t payload_crc, uint64_t features);
uint32_t rb_completion_crc_summed(const struct rb_completion *e, uint32_t payload_crc,
                                  uint64_t features);

#endif
