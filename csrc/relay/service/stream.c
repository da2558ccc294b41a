/* stream.c: demand on its way to workers, parts on their way to consumers (stream.h has the picture). */
#include "relay/service/stream.h"

#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum {
    WINDOW_FIRST = 16, /* parts that a worker may be ahead while nobody knows how large they are, */
    WINDOW_MOST = 1024, /* and when they are tiny */
    PART_LEAST = 64,    /* as large as this is each taken to be, at least */
    GATHERED_BYTES = 48
        << 10, /* of events in one message, but for one that is larger; not to be cut in fragments */
};

static uint64_t hash_of(struct rb_slice tag) { /* FNV-1a */
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < tag.size; i++) h = (h ^ tag.at[i]) * UINT64_C(0x100000001b3);
    return h;
}

static struct rb_slice tag_of(const struct rb_job *j) {
    return (struct rb_slice){j->caller + j->pid_size, j->tag_size};
}

/* --- Who has subscribed -------------------------------------------------------------------------------------------------- */

int rb_stream_open(struct rb_job *j) {
    struct rb_subscription *s = malloc(sizeof *s);
    if (!s) return -ENOMEM;
    *s = (struct rb_subscription){.job = j, .hash = hash_of(tag_of(j))};
    struct rb_subscription **bucket = &j->conn->streams.at[s->hash % SUBSCRIPTION_BUCKETS];
    s->next = *bucket;
    *bucket = s;
    j->subscription = s;
    COUNT(j->conn->relay->stats.streams, 1);
    return 0;
}

struct rb_subscription *rb_stream_find(struct rb_conn *c, struct rb_slice tag) {
    uint64_t hash = hash_of(tag);
    for (struct rb_subscription *s = c->streams.at[hash % SUBSCRIPTION_BUCKETS]; s; s = s->next) {
        if (s->hash == hash && rb_slice_equal(tag_of(s->job), tag)) return s;
    }
    return NULL;
}

static void remember(struct rb_subscriptions *all, uint64_t hash) {
    all->ended[all->ended_at++ % ENDED_KEPT] = hash;
}

void rb_stream_refused(struct rb_conn *c, struct rb_slice tag) {
    remember(&c->streams, hash_of(tag));
}

int rb_stream_ended(const struct rb_conn *c, struct rb_slice tag) {
    uint64_t hash = hash_of(tag);
    for (int i = 0; i < ENDED_KEPT; i++) {
        if (c->streams.ended[i] == hash) return 1;
    }
    return 0;
}

void rb_stream_forget(struct rb_job *j) {
    struct rb_subscription *s = j->subscription;
    struct rb_subscriptions *all = &j->conn->streams;
    struct rb_relay *r = j->conn->relay;
    struct rb_subscription **p = &all->at[s->hash % SUBSCRIPTION_BUCKETS];
    while (*p != s) p = &(*p)->next;
    *p = s->next;
    remember(all, s->hash);
    j->subscription = NULL;
    free(s);
    if (r->gathered.job == j) r->gathered.job = NULL;
    if (j->worker) j->worker->held = 0; /* what it holds back is for nobody now */
    COUNT(r->stats.streams, -1);
}

/* --- Demand -------------------------------------------------------------------------------------------------------------- */

/* How many parts a worker may be ahead of the socket: what fits into the room that streams keep to, by the largest part so far. */
static uint64_t window(const struct rb_subscription *s, const struct rb_relay *r) {
    if (s->largest == 0) return WINDOW_FIRST;
    uint64_t parts =
        r->config.outgoing_low_bytes / (s->largest < PART_LEAST ? PART_LEAST : s->largest);
    return parts < 1 ? 1 : parts > WINDOW_MOST ? WINDOW_MOST : parts;
}

static void write_demand(const struct rb_job *j) {
    struct rb_link *link = &j->worker->link;
    /* D0: pairs with D1 in the kit's rb_demand(). seq_cst, since a worker waits for it at its gate (gate.h, G0). */
    rb_store_seq_cst(&link->demands[j->position & (link->config.slots - 1)],
                     rb_demand_word(j->position, (uint32_t)j->parts_granted));
}

/* The worker may send what is asked for, within the window, while the socket has room. 1: it hears of more. */
static int grant(struct rb_subscription *s) {
    struct rb_job *j = s->job;
    struct rb_conn *c = j->conn;
    struct rb_relay *r = c->relay;
    if (r->owned[RB_SERVICE_STREAMS].held || s->asked == j->parts_granted) return 0;
    if (rb_conn_waiting_bytes(c) > r->config.outgoing_low_bytes) {
        c->streams.held = 1;
        return 0;
    }
    uint64_t granted = j->parts_sent + window(s, r);
    if (granted > s->asked) granted = s->asked;
    if (granted <= j->parts_granted) return 0;
    j->parts_granted = granted;
    return 1;
}

static void grant_running(struct rb_subscription *s) {
    struct rb_job *j = s->job;
    if (j->state != RB_JOB_PLACED || !grant(s)) return;
    write_demand(j);
    rb_gate_ring(&j->worker->link.waker);
}

void rb_stream_ask(struct rb_subscription *s, uint64_t parts) {
    s->asked = parts > UINT64_MAX / 2 - s->asked ? UINT64_MAX / 2 : s->asked + parts;
    grant_running(s);
}

void rb_stream_placed(struct rb_job *j) {
    j->parts_granted = j->parts_sent = 0;
    if (j->subscription) grant(j->subscription);
    write_demand(j); /* also of nothing: the word is the slot's last job's */
}

void rb_streams_resume(struct rb_conn *c) {
    c->streams.held = 0;
    for (int i = 0; i < SUBSCRIPTION_BUCKETS; i++) {
        for (struct rb_subscription *s = c->streams.at[i]; s; s = s->next) {
            grant_running(s);
            if (s->job->worker) s->job->worker->held = 0;
        }
    }
}

/* --- Parts --------------------------------------------------------------------------------------------------------------- */

int rb_stream_must_wait(struct rb_worker *w, const struct rb_completion *e) {
    struct rb_relay *r = w->relay;
    struct rb_job *j = rb_job_find(r, e->job);
    if (!j || j->worker != w || j->state != RB_JOB_PLACED || !j->subscription) return 0;
    struct rb_conn *c = j->conn;
    /* The last words of a worker that has ended lie in memory that ends with it: half of what may wait at all is theirs. */
    uint64_t most = w->last_words ? r->config.outgoing_bytes_max / 2 : r->config.outgoing_low_bytes;
    uint64_t batched = r->gathered.job && r->gathered.job->conn == c ? r->gathered.events.end : 0;
    if (rb_conn_waiting_bytes(c) + batched <= most) return 0;
    c->streams.held = 1;
    return 1;
}

static int put_part(struct rb_buffer *events, int raw, const uint8_t *bytes, size_t size) {
    uint8_t *room = rb_buffer_room(events, size + 5);
    if (!room) return -ENOMEM;
    if (raw) {
        *room++ = RB_TAG_BINARY;
        rb_put_be32(room, (uint32_t)size);
        room += 4;
        events->end += 5;
    }
    if (size) memcpy(room, bytes, size);
    events->end += size;
    return 0;
}

const char *rb_stream_part(struct rb_worker *w, struct rb_job *j, const struct rb_completion *e,
                           const uint8_t *payload) {
    struct rb_relay *r = w->relay;
    struct rb_gathered *g = &r->gathered;
    int raw = !(e->flags & RB_FLAG_TERM);
    if (g->job != j || g->events.end + e->payload_bytes > GATHERED_BYTES) {
        rb_stream_flush(r);
        g->job = j;
        g->count = 0;
        g->events.begin = g->events.end = 0;
    }
    if (put_part(&g->events, raw, payload, e->payload_bytes) < 0) return "no_memory";
    if (!raw) {
        /* A term is walked where nobody else can write, which is where it leaves from. */
        const char *rule;
        struct rb_slice copy = {g->events.at + g->events.end - e->payload_bytes, e->payload_bytes};
        if (rb_worker_check_term(w, j, copy, &rule) < 0) {
            g->events.end -= e->payload_bytes;
            return rule;
        }
    }
    g->count++;
    if (e->payload_bytes > j->subscription->largest) j->subscription->largest = e->payload_bytes;
    return NULL;
}

void rb_stream_flush(struct rb_relay *r) {
    struct rb_gathered *g = &r->gathered;
    struct rb_job *j = g->job;
    if (!j) return;
    g->job = NULL;
    struct rb_caller to = rb_job_caller(j);
    struct rb_reply reply;
    if (g->count > 0 && rb_reply_begin_events(&reply, &to, 16)) {
        static const uint8_t nil = RB_TAG_NIL;
        rb_pen_list(&reply.pen, g->count);
        rb_reply_end_with(&reply, (struct rb_slice){g->events.at, g->events.end},
                          (struct rb_slice){&nil, 1});
        COUNT(r->stats.events, g->count);
    }
    if (j->subscription) grant_running(j->subscription);
}

/* --- The end of them all ------------------------------------------------------------------------------------------------- */

void rb_streams_end(struct rb_relay *r) {
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_conn *c = r->conns[i];
        for (int b = 0; c && b < SUBSCRIPTION_BUCKETS; b++) {
            while (c->streams.at[b]) rb_job_cancel(r, c->streams.at[b]->job, RB_REASON_CANCELLED);
        }
    }
}
