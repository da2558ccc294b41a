/* up.c: what goes up from the relay to the thread that runs trio: events, and signals for its processes.
 *
 * One duct, which rings only a side that sleeps. Functions named rb_relay_* run on the other thread; the rest on the relay's. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "relay/note.h"
#include "relay/relay_pvt.h"

/* Of what all connections may have waiting upward, each has so much in any case. */
#define UPWARD_SHARE (1u << 20)

struct up_note {
    struct rb_note head; /* kind: rb_event_kind */
    uint32_t connection;
    uint32_t reserved;
    uint64_t worker;
    int64_t a, b, c;
    struct rb_note *next; /* while it waits for room */
    uint64_t size;
    uint8_t data[];
};

static struct up_note *up_note(uint32_t kind, size_t size) {
    struct up_note *n = malloc(sizeof *n + size);
    if (!n) return NULL;
    memset(n, 0, sizeof *n);
    n->head.kind = kind;
    n->head.size = (uint32_t)(sizeof *n + size);
    n->size = size;
    return n;
}

struct rb_note *rb_note_next(const struct rb_note *note) {
    return ((const struct up_note *)note)->next;
}

void rb_up_flush(struct rb_relay *r) {
    while (r->waiting_up) {
        struct up_note *n = (struct up_note *)r->waiting_up;
        struct rb_note *next = n->next;
        if (rb_duct_put(&r->up, &n->head) < 0) break;
        r->waiting_up = next;
        if (!next) r->waiting_up_end = &r->waiting_up;
    }
    rb_duct_ring(
        &r->up); /* for the signals of this round too: one wake-up for what arrived together */
}

static void wait_up(struct rb_relay *r, struct up_note *n) {
    *r->waiting_up_end = &n->head;
    r->waiting_up_end = &n->next;
}

void rb_up_event(struct rb_relay *r, uint32_t kind, uint32_t connection, uint64_t worker, int64_t a,
                 int64_t b, int64_t c, const void *data, size_t size) {
    struct up_note *n = up_note(kind, size);
    if (!n) return;
    n->connection = connection;
    n->worker = worker;
    n->a = a;
    n->b = b;
    n->c = c;
    if (size) memcpy(n->data, data, size);
    if (r->tape) {
        struct rb_taped_event e = {
            .kind = kind, .connection = connection, .worker = worker, .a = a, .b = b, .c = c};
        rb_tape_event(r, &e, (struct rb_part){data, size}, (struct rb_part){NULL, 0});
    }
    if (!r->waiting_up && rb_duct_put(&r->up, &n->head) == 0) {
        rb_duct_ring(&r->up);
    } else if (kind == RB_EVENT_WORKER_OUTPUT) {
        free(
            n); /* a talkative worker and a stalled interpreter: its words are dropped, not kept without bound */
    } else {
        wait_up(r, n); /* never lost; there are no more of them than connections and workers */
    }
}

/* May a signal of this size wait too? The largest of those since none waited does not count, nor does one alone: else a large signal
 * would be refused for the small ones before it, or they for it. It may have been taken while smaller ones still wait: then what waits
 * is less than it, and nothing. Relaxed: a count behind the truth refuses a little early. */
static int has_room(struct rb_conn *c, uint64_t size) {
    const struct rb_relay *r = c->relay;
    uint64_t own = c->put_up - rb_load_relaxed(&c->flow->heard);
    uint64_t all = r->put_up - rb_load_relaxed(&r->heard);
    if (own == 0) c->put_up_largest = 0;
    if (size > c->put_up_largest) c->put_up_largest = size;
    own += size;
    own -= own < c->put_up_largest ? own : c->put_up_largest;
    if (own > r->config.upward_bytes_max) return 0;
    return all <= r->config.upward_total_max || own <= UPWARD_SHARE;
}

int rb_up_signal(struct rb_conn *c, struct rb_slice control, struct rb_slice message) {
    struct rb_relay *r = c->relay;
    uint64_t size = sizeof(struct up_note) + control.size + message.size;
    int room = has_room(c, size);
    if (r->tape) room = rb_tape_has_room(c, room);
    if (!room) return -EAGAIN;
    struct up_note *n = up_note(RB_EVENT_SIGNAL, control.size + message.size);
    if (!n) return -ENOMEM;
    n->connection = c->id;
    n->a = (int64_t)control.size;
    memcpy(n->data, control.at, control.size);
    if (message.size) memcpy(n->data + control.size, message.at, message.size);
    if (r->tape) {
        struct rb_taped_event e = {.kind = RB_EVENT_SIGNAL, .connection = c->id};
        rb_tape_event(r, &e, (struct rb_part){control.at, control.size},
                      (struct rb_part){message.at, message.size});
    }
    c->put_up += size;
    r->put_up += size;
    /* The duct's places are everybody's: many small signals of one connection cost no other its own. */
    if (r->waiting_up || rb_duct_put(&r->up, &n->head) < 0) wait_up(r, n);
    return 0; /* rb_up_flush() rings */
}

int rb_relay_event_fd(const struct rb_relay *r) { return r->up.eventfd; }
int rb_relay_waiting(const struct rb_relay *r) { return rb_duct_peek(&r->up) != NULL; }

void rb_relay_hush(struct rb_relay *r) {
    rb_duct_hush(&r->up);
    rb_duct_announce(&r->up);
}

/* How long to look, adapted as the relay's own spin is (relay.c): what comes in time lengthens it, so does what comes soon after;
 * what does not come halves it. */
int rb_relay_linger(struct rb_relay *r) {
    const uint64_t most = r->config.spin_us * 1000ull, from = rb_clock_ns();
    if (rb_relay_waiting(r)) return 1;
    while (rb_clock_ns() - from < r->linger_ns) {
        sched_yield(); /* the relay, or the caller's BEAM, may be waiting for this very core */
        if (rb_relay_waiting(r)) {
            r->linger_ns = r->linger_ns + most / 8 < most ? r->linger_ns + most / 8 : most;
            return 1;
        }
    }
    r->lingered_ns = from;
    return 0;
}

/* What was taken after a sleep: had a longer look been better? */
static void learn_from_sleep(struct rb_relay *r) {
    const uint64_t most = r->config.spin_us * 1000ull;
    if (rb_clock_ns() - r->lingered_ns < 4 * most)
        r->linger_ns = r->linger_ns + most / 4 < most ? r->linger_ns + most / 4 : most;
    else
        r->linger_ns /= 2;
    r->lingered_ns = 0;
}

/* A signal waits no more. Relaxed: read by the relay as a bound only. */
static void heard(struct rb_relay *r, const struct up_note *n) {
    struct rb_flow *f = rb_flow_find(r, n->connection);
    if (f) rb_store_relaxed(&f->heard, f->heard + n->head.size);
    rb_store_relaxed(&r->heard, r->heard + n->head.size);
}

int rb_relay_take_signals(struct rb_relay *r, uint32_t *heads, int max, uint8_t *room,
                          uint64_t size) {
    const struct up_note *n;
    int count = 0;
    if (r->lingered_ns) learn_from_sleep(r);
    while (count < max && (n = (const struct up_note *)rb_duct_peek(&r->up)) &&
           n->head.kind == RB_EVENT_SIGNAL && n->size <= size) {
        memcpy(room, n->data, n->size);
        room += n->size;
        size -= n->size;
        *heads++ = n->connection;
        *heads++ = (uint32_t)n->a;
        *heads++ = (uint32_t)(n->size - (uint64_t)n->a);
        count++;
        heard(r, n);
        free(rb_duct_take(&r->up));
    }
    return count;
}

int rb_relay_take(struct rb_relay *r, struct rb_event *event) {
    free(r->event_note);
    r->event_note = rb_duct_take(&r->up);
    if (!r->event_note) return 0;
    const struct up_note *n = (const struct up_note *)r->event_note;
    *event = (struct rb_event){.kind = n->head.kind,
                               .connection = n->connection,
                               .worker = n->worker,
                               .a = n->a,
                               .b = n->b,
                               .c = n->c,
                               .data = n->data,
                               .size = n->size};
    if (n->head.kind == RB_EVENT_WORKER_ENDED) rb_face_forget(r, n->worker);
    if (n->head.kind == RB_EVENT_LANE_ENDED) rb_face_forget_lane(r, n->worker);
    if (n->head.kind == RB_EVENT_ROLE_GONE) rb_face_forget_role(r, (uint32_t)n->a);
    if (n->head.kind == RB_EVENT_SIGNAL) heard(r, n);
    if (n->head.kind == RB_EVENT_CONNECTION_LOST) rb_flow_close(rb_flow_find(r, n->connection));
    return 1;
}
