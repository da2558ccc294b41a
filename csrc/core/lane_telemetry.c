/* lane_telemetry.c: a BEAM's end of the bridge's telemetry (lane_telemetry.h has the protocol and the labels). */
#include "ringbridge/lane_telemetry.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lane_pvt.h"

enum {
    TRIES = 4,    /* whole copies: a writer that interferes each time writes without a pause */
    PAUSES = 256, /* looks at a number that is odd, of all tries: 5 us */
};

int rb_lane_telemetry_map(int fd, const uint8_t **base, const char **rule) {
    struct rb_guard guards[RB_LANE_TELEMETRY_GUARDS];
    struct rb_lane_telemetry_header h;
    uint8_t *at;
    if (rb_memory_sealed_bytes(fd) != RB_LANE_TELEMETRY_BYTES) {
        *rule = "the telemetry has another size";
        return -EPROTO;
    }
    int failed = rb_memory_map(fd, RB_LANE_TELEMETRY_BYTES, 0, &at);
    if (failed) return failed;
    memcpy(&h, at + RB_LANE_AT_HEADER, sizeof h);
    *rule = h.magic != RB_LANE_TELEMETRY_MAGIC    ? "the descriptor holds no telemetry"
            : h.version != RB_LANE_LAYOUT_VERSION ? "the telemetry has another version"
            : memcmp(h.digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof h.digest) != 0
                ? "the telemetry has another digest"
                : NULL;
    failed = *rule ? -EPROTO : rb_memory_guard(at, guards, rb_lane_telemetry_guards(guards));
    if (failed)
        munmap(at, RB_LANE_TELEMETRY_BYTES);
    else
        *base = at;
    return failed;
}

void rb_lane_telemetry_unmap(const uint8_t *base) {
    munmap((void *)(uintptr_t)base, RB_LANE_TELEMETRY_BYTES);
}

/* --- Read ------------------------------------------------------------------------------------------------------------------- */

/* A part: its head, and the two tables behind it. */
struct part {
    const uint8_t *head;
    size_t head_bytes, first_count_at, second_count_at;
    size_t first_bytes, second_bytes; /* of one record */
    uint32_t first_max, second_max;
};

static struct part figures_of(const uint8_t *base) {
    return (struct part){base + RB_LANE_TELEMETRY_AT_FIGURES,
                         sizeof(struct rb_lane_telemetry_figures),
                         offsetof(struct rb_lane_telemetry_figures, roles),
                         offsetof(struct rb_lane_telemetry_figures, workers),
                         sizeof(struct rb_lane_telemetry_role),
                         sizeof(struct rb_lane_telemetry_worker),
                         RB_LANE_TELEMETRY_ROLES_MAX,
                         RB_LANE_TELEMETRY_WORKERS_MAX};
}

static struct part list_of(const uint8_t *base) {
    return (struct part){base + RB_LANE_TELEMETRY_AT_LIST,
                         sizeof(struct rb_lane_telemetry_list),
                         offsetof(struct rb_lane_telemetry_list, errors),
                         offsetof(struct rb_lane_telemetry_list, places),
                         sizeof(struct rb_lane_telemetry_error),
                         sizeof(struct rb_lane_telemetry_place),
                         RB_LANE_TELEMETRY_ERRORS_MAX,
                         RB_LANE_TELEMETRY_WORKERS_MAX};
}

static void load_words(uint8_t *to, const uint8_t *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        /* T4: pairs with T1; keeps T5 below. */
        uint64_t word = rb_load_acquire((const uint64_t *)(const void *)(from + at));
        memcpy(to + at, &word, sizeof word);
    }
}

/* Bytes of the part by the counts in a head. -EPROTO: more than there is room for. */
static int64_t bytes_by(const struct part *p, const uint8_t *head, size_t *first, size_t *second) {
    uint32_t firsts, seconds;
    memcpy(&firsts, head + p->first_count_at, sizeof firsts);
    memcpy(&seconds, head + p->second_count_at, sizeof seconds);
    if (firsts > p->first_max || seconds > p->second_max) return -EPROTO;
    *first = firsts * p->first_bytes;
    *second = seconds * p->second_bytes;
    return (int64_t)(p->head_bytes + *first + *second);
}

static int64_t size_of(const struct part *p) {
    uint8_t head[sizeof(struct rb_lane_telemetry_figures)];
    size_t first, second;
    load_words(head, p->head, p->head_bytes);
    return bytes_by(p, head, &first, &second);
}

/* Into a head whose first word is left to the caller. One try: bytes, or an error. */
static int64_t copy_once(const struct part *p, uint8_t *to, size_t room) {
    size_t first, second;
    if (room < p->head_bytes) return -ENOSPC;
    load_words(to, p->head, p->head_bytes);
    int64_t bytes = bytes_by(p, to, &first, &second);
    if (bytes < 0) return bytes;
    if ((size_t)bytes > room) return -ENOSPC;
    to += p->head_bytes;
    load_words(to, p->head + p->head_bytes, first);
    load_words(to + first, p->head + p->head_bytes + p->first_max * p->first_bytes, second);
    return bytes;
}

static int64_t copy(const struct part *p, uint8_t *to, size_t room, int *pauses) {
    const uint64_t *sequence = (const void *)p->head;
    for (int tries = 0; tries < TRIES;) {
        uint64_t s = rb_load_acquire(sequence); /* T3: pairs with T2 */
        if (s & 1) {
            if (--*pauses < 0) break;
            rb_pause();
            continue;
        }
        tries++;
        int64_t bytes = copy_once(p, to, room);
        if (rb_load_relaxed(sequence) == s) return bytes; /* T5: ordered by T4's loads */
    }
    return -EAGAIN;
}

int64_t rb_lane_telemetry_size(const uint8_t *base) {
    struct part figures = figures_of(base), list = list_of(base);
    int64_t a = size_of(&figures), b = size_of(&list);
    return a < 0 ? a : b < 0 ? b : a + b;
}

int64_t rb_lane_telemetry_copy(const uint8_t *base, uint8_t *to, size_t room) {
    struct part figures = figures_of(base), list = list_of(base);
    int pauses = PAUSES;
    int64_t a = copy(&figures, to, room, &pauses);
    if (a < 0) return a;
    int64_t b = copy(&list, to + a, room - (size_t)a, &pauses);
    return b < 0 ? b : a + b;
}
