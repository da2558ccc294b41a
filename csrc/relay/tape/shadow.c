/* shadow.c: a worker's memory as the relay sees it while there is a tape.
 *
 * The relay's pointers into what the worker writes (positions, hello, envelopes, results) are turned to private copies, which only a
 * look brings up to date. So the rest of the relay does not know of the tape, and a record holds exactly what it saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "relay/relay_pvt.h"
#include "relay/tape/tape_pvt.h"

static void turn(struct rb_link *link, const struct rb_worker_positions *positions,
                 const struct rb_worker_header *hello, const struct rb_worker_op *ops,
                 const struct rb_completion *completions, const uint8_t *results) {
    link->theirs = positions;
    link->hello = hello;
    link->ops = ops;
    link->completions = completions;
    link->results = results;
    link->request_ring.shared_head = &positions->request_head;
    link->giveback_ring.shared_head = &positions->giveback_head;
    link->completion_ring.shared_tail = &positions->completion_tail;
}

int rb_shadow_open(struct rb_worker *w) {
    struct rb_link *link = &w->link;
    struct rb_shadow *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->completions = calloc(link->config.slots, sizeof *s->completions);
    s->results_bytes = link->config.result_bytes;
    s->results = mmap(NULL, s->results_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!s->completions || s->results == MAP_FAILED) {
        if (s->results != MAP_FAILED) munmap(s->results, s->results_bytes);
        free(s->completions);
        free(s);
        return -ENOMEM;
    }
    s->real = link->theirs;
    s->real_hello = link->hello;
    s->real_ops = link->ops;
    s->real_completions = link->completions;
    s->real_results = link->results;
    w->shadow = s;
    turn(link, &s->positions, &s->hello, s->ops, s->completions, s->results);
    return 0;
}

void rb_shadow_close(struct rb_worker *w) {
    struct rb_shadow *s = w->shadow;
    if (!s) return;
    turn(&w->link, s->real, s->real_hello, s->real_ops, s->real_completions, s->real_results);
    munmap(s->results, s->results_bytes);
    free(s->completions);
    free(s);
    w->shadow = NULL;
}

void rb_tape_watch(struct rb_worker *w) {
    struct rb_tape *t = w->relay->tape;
    if (rb_shadow_open(w) == 0) return;
    if (t->replaying)
        rb_replay_differs(t, "no memory");
    else
        rb_tape_end(t, RB_RECORD_NO_MEMORY);
}

const uint64_t *rb_shadow_real_tail(const struct rb_worker *w) {
    return &w->shadow->real->completion_tail;
}

/* --- Recording ------------------------------------------------------------------------------------------------------------------ */

/* Its bytes, if it has any that lie within the region: only those are ever looked at (dispatch/completion.c, result_at). */
static void copy_result(struct rb_tape *t, const struct rb_worker *w,
                        const struct rb_completion *e) {
    struct rb_shadow *s = w->shadow;
    if (e->flags & RB_FLAG_INLINE || e->payload_bytes == 0) return;
    if (e->payload_at > s->results_bytes || e->payload_bytes > s->results_bytes - e->payload_at)
        return;
    memcpy(s->results + e->payload_at, s->real_results + e->payload_at, e->payload_bytes);
    rb_tape_put(t, RB_ITEM_RESULT, w->id, (int64_t)e->payload_at, 0,
                &(struct rb_part){s->results + e->payload_at, e->payload_bytes}, 1);
}

static void copy_completions(struct rb_tape *t, const struct rb_worker *w, uint64_t from,
                             uint64_t to) {
    struct rb_shadow *s = w->shadow;
    const uint64_t slots = w->link.config.slots;
    if (to - from > slots) return; /* a lie, which breaks a rule by itself */
    while (from < to) {
        uint64_t first = from & (slots - 1), count = to - from;
        if (count > slots - first) count = slots - first;
        memcpy(&s->completions[first], &s->real_completions[first], count * sizeof *s->completions);
        for (uint64_t i = 0; i < count; i++) copy_result(t, w, &s->completions[first + i]);
        rb_tape_put(t, RB_ITEM_COMPLETIONS, w->id, (int64_t)first, 0,
                    &(struct rb_part){&s->completions[first], count * sizeof *s->completions}, 1);
        from += count;
    }
}

static int look_at_hello(struct rb_tape *t, const struct rb_worker *w) {
    struct rb_shadow *s = w->shadow;
    if (s->hello.hello != RB_HELLO_NONE) return 0;
    uint32_t hello = rb_load_seq_cst(&s->real_hello->hello); /* H1 (link.c) */
    if (hello == RB_HELLO_NONE) return 0;
    memcpy(&s->hello, s->real_hello, sizeof s->hello);
    memcpy(s->ops, s->real_ops, sizeof s->ops);
    s->hello.hello = hello;
    struct rb_worker_header taped = s->hello;
    taped.nonce ^=
        w->link.nonce; /* each link has its own, the replayed one too: 0 is the right one */
    const struct rb_part parts[] = {{&taped, sizeof taped}, {s->ops, sizeof s->ops}};
    rb_tape_put(t, RB_ITEM_HELLO, w->id, 0, 0, parts, 2);
    return 1;
}

static void look(struct rb_tape *t, struct rb_worker *w) {
    struct rb_shadow *s = w->shadow;
    struct rb_worker_positions *seen = &s->positions;
    int news = look_at_hello(t, w);
    /* R1 (ring.h) first: what the worker did before it published that is then seen too, S0 and R2 among it. */
    uint64_t tail = rb_load_seq_cst(&s->real->completion_tail);
    uint64_t started = rb_load_acquire(&s->real->started);
    uint64_t request_head = rb_load_acquire(&s->real->request_head);
    uint64_t giveback_head = rb_load_acquire(&s->real->giveback_head);
    if (!news && tail == seen->completion_tail && started == seen->started &&
        request_head == seen->request_head && giveback_head == seen->giveback_head) {
        t->skipped++;
        return;
    }
    copy_completions(t, w, seen->completion_tail, tail);
    seen->completion_tail = tail;
    seen->started = started;
    seen->request_head = request_head;
    seen->giveback_head = giveback_head;
    const uint64_t positions[4] = {request_head, started, tail, giveback_head};
    rb_tape_put(t, RB_ITEM_LOOK, w->id, 0, 0, &(struct rb_part){positions, sizeof positions}, 1);
}

/* --- Replaying ------------------------------------------------------------------------------------------------------------------- */

/* One item of a look; 1 when it was the last. */
static int look_again(struct rb_tape *t, struct rb_worker *w) {
    struct rb_shadow *s = w->shadow;
    struct rb_item item;
    const uint8_t *data;
    if (rb_replay_next_is(t, RB_ITEM_HELLO, w->id)) {
        data = rb_replay_take(t, RB_ITEM_HELLO, w->id, &item);
        if (item.size == sizeof s->hello + sizeof s->ops) {
            memcpy(&s->hello, data, sizeof s->hello);
            memcpy(s->ops, data + sizeof s->hello, sizeof s->ops);
        }
        s->hello.nonce ^= w->link.nonce;
        return 0;
    }
    if (rb_replay_next_is(t, RB_ITEM_RESULT, w->id)) {
        data = rb_replay_take(t, RB_ITEM_RESULT, w->id, &item);
        uint64_t at = (uint64_t)item.a;
        if (at <= s->results_bytes && item.size <= s->results_bytes - at)
            memcpy(s->results + at, data, item.size);
        return 0;
    }
    if (rb_replay_next_is(t, RB_ITEM_COMPLETIONS, w->id)) {
        data = rb_replay_take(t, RB_ITEM_COMPLETIONS, w->id, &item);
        uint64_t first = (uint64_t)item.a, count = item.size / sizeof *s->completions;
        if (first <= w->link.config.slots && count <= w->link.config.slots - first)
            memcpy(&s->completions[first], data, count * sizeof *s->completions);
        return 0;
    }
    uint64_t positions[4];
    data = rb_replay_take(t, RB_ITEM_LOOK, w->id, &item);
    if (!data || item.size != sizeof positions) return 1;
    memcpy(positions, data, sizeof positions);
    s->positions.request_head = positions[0];
    s->positions.started = positions[1];
    s->positions.completion_tail = positions[2];
    s->positions.giveback_head = positions[3];
    return 1;
}

void rb_tape_look(struct rb_worker *w) {
    struct rb_tape *t = w->relay->tape;
    if (!w->shadow) return;
    if (!t->replaying) {
        look(t, w);
    } else if (t->skipped) {
        t->skipped--;
    } else {
        while (!t->differs && !look_again(t, w)) {
        }
    }
}

void rb_tape_vitals(struct rb_worker *w, struct rb_vital_signs *seen) {
    struct rb_tape *t = w->relay->tape;
    struct rb_item item;
    memset(seen, 0, sizeof *seen);
    if (!t->replaying) {
        *seen = rb_vital_signs_of(&w->link, w->shadow->real);
        rb_tape_put(t, RB_ITEM_VITALS, w->id, 0, 0, &(struct rb_part){seen, sizeof *seen}, 1);
        return;
    }
    const uint8_t *data = rb_replay_take(t, RB_ITEM_VITALS, w->id, &item);
    if (data && item.size == sizeof *seen) memcpy(seen, data, sizeof *seen);
}
