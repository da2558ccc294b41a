/* envelope.c: the CRC of a request or completion (envelope.h says what it covers). */
#include "ringbridge/envelope.h"

#include <string.h>

#include "ringbridge/crc32c.h"

enum { HEAD_BYTES = 64, CRC_AT = 8 };
RB_ASSERT_AT(struct rb_request, crc, CRC_AT);
RB_ASSERT_AT(struct rb_completion, crc, CRC_AT);
RB_ASSERT_AT(struct rb_request, body, HEAD_BYTES);
RB_ASSERT_AT(struct rb_completion, body, HEAD_BYTES);

static uint32_t envelope_crc(const void *envelope, const uint8_t *body, const void *payload,
                             uint32_t payload_bytes, uint64_t features) {
    uint8_t head[HEAD_BYTES];
    uint32_t crc;

    if (!(features & (RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD))) return 0;
    memcpy(head, envelope, sizeof head);
    memset(head + CRC_AT, 0, sizeof(uint32_t));
    crc = rb_crc32c(0, head, sizeof head);
    if (!(features & RB_FEATURE_CRC_PAYLOAD)) return crc;
    if (payload == NULL) {
        /* Inline. The length may come from the other side and be unchecked yet: never past the
         * envelope. */
        payload = body;
        if (payload_bytes > RB_INLINE_BYTES_MAX) payload_bytes = RB_INLINE_BYTES_MAX;
    }
    return rb_crc32c(crc, payload, payload_bytes);
}

uint32_t rb_request_crc(const struct rb_request *e, const void *payload, uint64_t features) {
    return envelope_crc(e, e->body, payload, e->payload_bytes, features);
}

uint32_t rb_completion_crc(const struct rb_completion *e, const void *payload, uint64_t features) {
    return envelope_crc(e, e->body, payload, e->payload_bytes, features);
}
