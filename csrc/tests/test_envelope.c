/* What the CRC of an envelope covers. */
#include "check.h"
#include "ringbridge/crc32c.h"
#include "ringbridge/envelope.h"

enum { BOTH = RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD };

static struct rb_request request_of(uint32_t payload_bytes) {
    struct rb_request e = {.job = 77, .opcode = 3, .deadline_ns = 12345678, .payload_at = 8192};
    e.payload_bytes = payload_bytes;
    for (int i = 0; i < 16; i++) e.trace_id[i] = (uint8_t)(i * 3);
    for (int i = 0; i < 64; i++) e.body[i] = (uint8_t)(i + 1);
    return e;
}

static void without_the_features_the_crc_is_0(void) {
    struct rb_request e = request_of(16);
    struct rb_completion c = {.job = 5};
    CHECK_EQUAL(rb_request_crc(&e, "0123456789abcdef", 0), 0);
    CHECK_EQUAL(rb_completion_crc(&c, NULL, 0), 0);
}

static void every_bit_of_the_head_counts_but_those_of_the_crc(void) {
    struct rb_request e = request_of(0);
    uint32_t before = rb_request_crc(&e, NULL, RB_FEATURE_CRC_ENVELOPE);
    uint8_t *bytes = (uint8_t *)&e;
    for (int bit = 0; bit < 64 * 8; bit++) {
        int in_crc = bit / 8 >= 8 && bit / 8 < 12;
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK((rb_request_crc(&e, NULL, RB_FEATURE_CRC_ENVELOPE) == before) == in_crc);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* The words are made from fields: they must be those of the bytes. */
static void the_crc_is_that_of_the_bytes_with_the_crc_as_zero(void) {
    uint64_t state = 5;
    for (int i = 0; i < 1000; i++) {
        uint8_t bytes[128];
        struct rb_request request;
        struct rb_completion completion;
        uint32_t wanted;
        for (int k = 0; k < 128; k++) bytes[k] = (uint8_t)(check_random(&state) >> 30);
        memcpy(&request, bytes, sizeof request);
        memcpy(&completion, bytes, sizeof completion);
        memset(bytes + 8, 0, 4);
        wanted = rb_crc32c(0, bytes, 64);
        CHECK_EQUAL(rb_request_crc(&request, NULL, RB_FEATURE_CRC_ENVELOPE), wanted);
        CHECK_EQUAL(rb_completion_crc(&completion, NULL, RB_FEATURE_CRC_ENVELOPE), wanted);
    }
}

static void the_payload_counts_only_with_its_feature(void) {
    struct rb_request e = request_of(16);
    char payload[17] = "0123456789abcdef";
    uint32_t head = rb_request_crc(&e, payload, RB_FEATURE_CRC_ENVELOPE);
    uint32_t both = rb_request_crc(&e, payload, BOTH);
    CHECK_EQUAL(both, rb_crc32c(head, payload, 16));
    CHECK_EQUAL(rb_request_crc(&e, payload, RB_FEATURE_CRC_PAYLOAD), both);
    payload[15] ^= 1;
    CHECK_EQUAL(rb_request_crc(&e, payload, RB_FEATURE_CRC_ENVELOPE), head);
    CHECK(rb_request_crc(&e, payload, BOTH) != both);
}

static void an_inline_payload_is_the_body(void) {
    struct rb_request e = request_of(10);
    struct rb_completion c = {.job = 1, .payload_bytes = 64};
    for (int i = 0; i < 64; i++) c.body[i] = (uint8_t)i;
    CHECK_EQUAL(rb_request_crc(&e, NULL, BOTH), rb_request_crc(&e, e.body, BOTH));
    CHECK_EQUAL(rb_completion_crc(&c, NULL, BOTH), rb_completion_crc(&c, c.body, BOTH));
    e.body[10] ^= 1; /* past the payload */
    CHECK_EQUAL(rb_request_crc(&e, NULL, BOTH), rb_request_crc(&e, e.body, BOTH));
}

/* ASan is the judge: the length comes from the other side. */
static void an_inline_length_past_the_envelope_is_not_read(void) {
    struct rb_completion *c = calloc(1, sizeof *c);
    c->payload_bytes = UINT32_MAX;
    CHECK(rb_completion_crc(c, NULL, BOTH) != 0);
    free(c);
}

/* Whatever is summed: the head alone, both, nothing. */
static void a_payload_that_was_summed_before_gives_the_same(void) {
    static const uint64_t features[] = {0, RB_FEATURE_CRC_ENVELOPE, RB_FEATURE_CRC_PAYLOAD, BOTH};
    static uint8_t payload[70000];
    for (size_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)(i * 11 >> 3);
    for (uint32_t size = 1; size < sizeof payload; size = size * 3 + 1)
        for (int i = 0; i < 4; i++) {
            struct rb_request e = request_of(size);
            struct rb_completion c = {.job = 5, .run_ns = 9, .payload_bytes = size};
            uint32_t sum = rb_crc32c(0, payload, size);
            CHECK_EQUAL(rb_request_crc_summed(&e, sum, features[i]),
                        rb_request_crc(&e, payload, features[i]));
            CHECK_EQUAL(rb_completion_crc_summed(&c, sum, features[i]),
                        rb_completion_crc(&c, payload, features[i]));
        }
}

int main(void) {
    RUN(without_the_features_the_crc_is_0);
    RUN(every_bit_of_the_head_counts_but_those_of_the_crc);
    RUN(the_crc_is_that_of_the_bytes_with_the_crc_as_zero);
    RUN(the_payload_counts_only_with_its_feature);
    RUN(an_inline_payload_is_the_body);
    RUN(an_inline_length_past_the_envelope_is_not_read);
    RUN(a_payload_that_was_summed_before_gives_the_same);
    return check_end();
}
