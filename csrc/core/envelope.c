/* envelope.c: the CRC of a request or completion (envelope.h says what it covers). */
#include "ringbridge/envelope.h"

#include <string.h>

#include "ringbridge/crc32c.h"

/* The first 64 bytes as words, made from the fields and not by a copy: who has just filled an envelope
 * in has narrow stores in flight, and a wider load over them would wait until they have reached the
 * cache (some 15 ns each). */
enum { HEAD_WORDS = 8 };

static uint64_t word_of(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static uint64_t fields(uint64_t low, uint64_t at_32, uint64_t at_40, uint64_t at_48) {
    return low | at_32 << 32 | at_40 << 40 | at_48 << 48;
}

static uint32_t crc_of(const uint64_t *head, const uint8_t *body, const void *payload,
                       uint32_t payload_bytes, uint64_t features) {
    uint32_t crc = rb_crc32c(0, head, HEAD_WORDS * sizeof *head);
    if (!(features & RB_FEATURE_CRC_PAYLOAD)) return crc;
    if (payload == NULL) {
        /* Inline. The length may come from the other side, unchecked: never past the envelope. */
        payload = body;
        if (payload_bytes > RB_INLINE_BYTES_MAX) payload_bytes = RB_INLINE_BYTES_MAX;
    }
    return rb_crc32c(crc, payload, payload_bytes);
}

static uint32_t crc_summed(const uint64_t *head, uint32_t payload_crc, uint32_t payload_bytes,
                           uint64_t features) {
    uint32_t crc = rb_crc32c(0, head, HEAD_WORDS * sizeof *head);
    return features & RB_FEATURE_CRC_PAYLOAD ? rb_crc32c_join(crc, payload_crc, payload_bytes)
                                             : crc;
}

static int is_unsummed(uint64_t features) {
    return !(features & (RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD));
}

/* `head`: HEAD_WORDS. */
static inline void request_head(uint64_t *head, const struct rb_request *e) {
    head[0] = e->job;
    head[1] = fields(0 /* crc */, e->opcode, 0, e->flags);
    head[2] = e->deadline_ns;
    head[3] = e->payload_at;
    head[4] = fields(e->payload_bytes, e->priority, e->trace_flags, e->reserved);
    head[5] = word_of(e->trace_id);
    head[6] = word_of(e->trace_id + 8);
    head[7] = word_of(e->span_id);
}

static inline void completion_head(uint64_t *head, const struct rb_completion *e) {
    head[0] = e->job;
    head[1] = fields(0 /* crc */, e->status, 0, e->flags);
    head[2] = e->queue_ns;
    head[3] = e->run_ns;
    head[4] = e->payload_at;
    head[5] = fields(e->payload_bytes, e->code, 0, e->reserved);
    head[6] = word_of(e->reserved2);
    head[7] = word_of(e->reserved2 + 8);
}

uint32_t rb_request_crc(const struct rb_request *e, const void *payload, uint64_t features) {
    uint64_t head[HEAD_WORDS];
    if (is_unsummed(features)) return 0;
    request_head(head, e);
    return crc_of(head, e->body, payload, e->payload_bytes, features);
}

uint32_t rb_completion_crc(const struct rb_completion *e, const void *payload, uint64_t features) {
    uint64_t head[HEAD_WORDS];
    if (is_unsummed(features)) return 0;
    completion_head(head, e);
    return crc_of(head, e->body, payload, e->payload_bytes, features);
}

uint32_t rb_request_crc_summed(const struct rb_request *e, uint32_t payload_crc,
                               uint64_t features) {
    uint64_t head[HEAD_WORDS];
    if (is_unsummed(features)) return 0;
    request_head(head, e);
    return crc_summed(head, payload_crc, e->payload_bytes, features);
}

uint32_t rb_completion_crc_summed(const struct rb_completion *e, uint32_t payload_crc,
                                  uint64_t features) {
    uint64_t head[HEAD_WORDS];
    if (is_unsummed(features)) return 0;
    completion_head(head, e);
    return crc_summed(head, payload_crc, e->payload_bytes, features);
}
