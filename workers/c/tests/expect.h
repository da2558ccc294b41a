/* expect.h: what the kit's tests share: a pattern to send, and what is expected back. */
#ifndef RINGBRIDGE_WORKERS_TESTS_EXPECT_H
#define RINGBRIDGE_WORKERS_TESTS_EXPECT_H

#include "peer.h"
#include "ringbridge_worker.h"
#include "tests/check.h"

static const struct peer_options defaults = PEER_DEFAULT;
static uint8_t *big; /* 64 MiB of a pattern that repeats nowhere near */
enum { BIG_BYTES = 64 << 20 };

static inline void expect_echo(struct peer *p, uint64_t job, const uint8_t *payload, uint32_t bytes,
                               uint16_t flags) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 10000));
    CHECK_EQUAL(a.completion.job, job);
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.flags & RB_FLAG_TERM, flags);
    CHECK_EQUAL(a.completion.payload_bytes, bytes);
    CHECK(a.completion.payload_bytes == bytes && memcmp(a.payload, payload, bytes) == 0);
    peer_give_back(p, &a);
}

static inline void expect_failure(struct peer *p, unsigned code, const char *message) {
    struct peer_answer a;
    char text[2000] = "";
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_FAILED);
    CHECK_EQUAL(a.completion.code, code);
    memcpy(text, a.payload, a.completion.payload_bytes);
    /* Kits of other languages, which these tests are run on too, have words of their own. */
    if (getenv("WORKERS_OWN_WORDS") == NULL) {
        if (strcmp(text, message) != 0) printf("message: \"%s\", not \"%s\"\n", text, message);
        CHECK(strcmp(text, message) == 0);
    }
    peer_give_back(p, &a);
}

static inline void expect_status(struct peer *p, unsigned status, int within_ms) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, within_ms));
    CHECK_EQUAL(a.completion.status, status);
    CHECK_EQUAL(a.completion.payload_bytes, 0);
}

static inline void make_pattern(void) {
    uint64_t random = 1;
    big = malloc(BIG_BYTES + 4096);
    for (size_t i = 0; i < BIG_BYTES + 4096; i += 8) {
        uint64_t value = check_random(&random);
        memcpy(big + i, &value, 8);
    }
}

#endif
