/* liar.h: a worker whose words are written by hand, beside an honest one and their callers, at a relay that is turned by hand (crew.h). */
#ifndef RINGBRIDGE_TESTS_LIAR_H
#define RINGBRIDGE_TESTS_LIAR_H

#include "crew.h"

enum { LIAR, HONEST };

struct liar {
    struct crew c;
    struct rb_lab_request job, others; /* the liar's and the honest one's */
    struct rb_link_worker *link;       /* the liar's */
};

/* What it says, with a CRC and a place that are right. */
static inline void say_bytes(struct liar *l, const void *bytes, uint32_t size, uint32_t status,
                             uint32_t flags) {
    struct rb_lab_answer a = {.job = l->job.job,
                              .status = status,
                              .flags = flags,
                              .payload = bytes,
                              .payload_bytes = size};
    if (rb_lab_complete(l->c.workers[LIAR], &a) < 0) abort();
}

/* All frames that have come. */
static uint8_t heard[2 << 20];
static size_t heard_size;
static inline void listen_to(struct liar *l) {
    crew_round(&l->c);
    crew_round(&l->c);
    heard_size = 0;
    for (int n;
         (n = lab_read(l->c.lab.peer, heard + heard_size, sizeof heard - heard_size, 0)) > 0;)
        heard_size += (size_t)n;
}
static inline int has(const char *text) {
    return memmem(heard, heard_size, text, strlen(text)) != NULL;
}
static inline int told(struct liar *l, uint32_t kind, const char *text) {
    int found = 0;
    for (struct rb_event *e = &l->c.lab.event; rb_relay_take(l->c.lab.relay, e);)
        if (e->kind == kind) found += text ? lab_event_says(&l->c.lab, text) : 1;
    return found;
}

#endif
