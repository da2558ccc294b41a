/* queue.c: which of the waiting jobs is next: bands, tenants' turns, urgency. */
#include "relay/dispatch/queue.h"

#include "relay/dispatch/job.h"
#include "relay/dispatch/tenant.h"

/* Jobs that move up from one band in one moment, so that a queue that stood still for long does not hold up the round: the rest in
 * later ones, whoever has waited longest first. */
enum { MOVES_A_BAND = 1024 };
#define NS_PER_MS 1000000ull

static struct rb_job *job_of_urgency(struct rb_rank *n) {
    return (struct rb_job *)(void *)((char *)n - offsetof(struct rb_job, queued.urgency));
}
static struct rb_job *job_of_age(struct rb_rank *n) {
    return (struct rb_job *)(void *)((char *)n - offsetof(struct rb_job, queued.age));
}
static struct rb_share *share_of_turn(struct rb_rank *n) {
    return (struct rb_share *)(void *)((char *)n - offsetof(struct rb_share, turn));
}

static void set_config(struct rb_queue *q, const struct rb_order_config *config) {
    q->aging_ns = config->aging_ms ? config->aging_ms * NS_PER_MS : RB_QUEUE_NEVER;
    q->patience_ns = config->patience_ms ? config->patience_ms * NS_PER_MS : RB_QUEUE_NEVER;
}

void rb_queue_init(struct rb_queue *q, const struct rb_order_config *config) {
    *q = (struct rb_queue){.moves_ns = RB_QUEUE_NEVER};
    set_config(q, config);
}

/* --- Shares: turns within a band ------------------------------------------------------------------------------------------ */

static struct rb_share *share_for(struct rb_band *band, const struct rb_job *j) {
    if (!j->tenant) return &band->own;
    struct rb_shares *rows = &j->tenant->table->shares;
    if (!band->number) band->number = ++rows->bands;
    struct rb_share *row = rb_share_of(rows, band->number, j->tenant->number);
    return row ? row : &band->own;
}

static uint32_t weight_of(const struct rb_share *share, const struct rb_job *j) {
    return share->owner ? j->tenant->weight : RB_WEIGHT_DEFAULT;
}

static void count_weight(struct rb_band *band, struct rb_share *share, uint32_t weight) {
    band->weights += weight - (uint64_t)share->weight;
    share->weight = weight;
}

static void stand(struct rb_queue *q, struct rb_job *j) {
    struct rb_band *band = &q->bands[j->queued.band];
    struct rb_share *share = share_for(band, j);
    q->occupied |= 1u << j->queued.band;
    if (j->queued.age.key + q->aging_ns < q->moves_ns)
        q->moves_ns = j->queued.age.key + q->aging_ns;
    if (share->count++ == 0) {
        if (share->turn.key < band->clock) share->turn.key = band->clock;
        share->turn.tie = ++q->waits;
        rb_heap_add(&band->turns, &share->turn);
        share->weight = 0;
        count_weight(band, share, weight_of(share, j));
    }
    j->queued.share = share;
    rb_line_add(&share->line, &j->queued.urgency);
    rb_line_add(&band->ages, &j->queued.age);
}

/* Nobody waits in it. A clock that has come far starts again, and with it all tags: the rows of its old number are never found again. */
static void empty(struct rb_queue *q, unsigned band) {
    struct rb_band *b = &q->bands[band];
    q->occupied &= ~(1u << band);
    if (b->clock < RB_SHARE_CLOCK_FAR) return;
    b->clock = b->own.turn.key = b->number = 0;
}

static void leave(struct rb_queue *q, struct rb_job *j) {
    struct rb_band *band = &q->bands[j->queued.band];
    struct rb_share *share = j->queued.share;
    rb_line_remove(&band->ages, &j->queued.age);
    rb_line_remove(&share->line, &j->queued.urgency);
    if (--share->count == 0) {
        rb_heap_remove(&band->turns, &share->turn);
        band->weights -= share->weight;
        if (!band->turns.root) empty(q, j->queued.band);
        if (share->owner) rb_share_idle(&j->tenant->table->shares, share);
    }
    j->queued.share = NULL;
}

/* A job of this share goes to a worker. */
static void charge(struct rb_band *band, struct rb_share *share, const struct rb_job *j) {
    if (band->clock < share->turn.key) band->clock = share->turn.key;
    if (band->turns.count == 1) return; /* nobody else asks: nothing is owed to anyone */
    count_weight(band, share, weight_of(share, j)); /* it may have been changed */
    uint64_t step = RB_SHARE_UNIT / band->weights;
    band->clock += step ? step : 1;
    share->turn.key += RB_SHARE_UNIT / share->weight;
    rb_heap_later(&band->turns, &share->turn);
}

/* --- The queue ------------------------------------------------------------------------------------------------------------ */

void rb_queue_push(struct rb_queue *q, struct rb_job *j, uint64_t now) {
    struct rb_queued *at = &j->queued;
    at->urgency.key = j->accepted_ns + q->patience_ns;
    if (j->due_ns && j->due_ns < at->urgency.key) at->urgency.key = j->due_ns;
    at->urgency.tie = at->age.tie = j->id;
    at->band = j->request.priority;
    at->age.key = j->accepted_ns;
    while (at->band > 0 && at->age.key + q->aging_ns <= now) {
        at->band--; /* it has waited elsewhere */
        at->age.key += q->aging_ns;
    }
    q->count++;
    stand(q, j);
}

/* Those that have been in their band for long enough go one up, counted from when that was due, however late we look. */
static void move_up(struct rb_queue *q, unsigned from, uint64_t now) {
    struct rb_rank *n;
    for (int moves = 0; moves < MOVES_A_BAND; moves++) {
        if (!(n = rb_line_first(&q->bands[from].ages)) || n->key + q->aging_ns > now) return;
        struct rb_job *j = job_of_age(n);
        leave(q, j);
        j->queued.band--;
        n->key += q->aging_ns;
        stand(q, j);
    }
}

static void age(struct rb_queue *q, uint64_t now) {
    if (q->aged_ns == now)
        return; /* time makes jobs move: the next look in a round finds none, or the bound was reached */
    q->aged_ns = now;
    for (unsigned from = RB_BANDS; --from > 0;) move_up(q, from, now);
    q->moves_ns = RB_QUEUE_NEVER;
    for (unsigned from = RB_BANDS; --from > 0;) {
        struct rb_rank *n = rb_line_first(&q->bands[from].ages);
        if (n && n->key + q->aging_ns < q->moves_ns) q->moves_ns = n->key + q->aging_ns;
    }
}

struct rb_job *rb_queue_first(struct rb_queue *q, uint64_t now) {
    if (q->count == 0) return NULL;
    if (q->moves_ns <= now) age(q, now);
    struct rb_band *band = &q->bands[__builtin_ctz(q->occupied)];
    return job_of_urgency(rb_line_first(&share_of_turn(band->turns.root)->line));
}

void rb_queue_remove(struct rb_queue *q, struct rb_job *j) {
    q->count--;
    leave(q, j);
}

void rb_queue_take(struct rb_queue *q, struct rb_job *j) {
    charge(&q->bands[j->queued.band], j->queued.share, j);
    rb_queue_remove(q, j);
}

struct rb_job *rb_queue_oldest(const struct rb_queue *q) {
    for (unsigned band = RB_BANDS; band-- > 0;) {
        struct rb_rank *n = rb_line_first(&q->bands[band].ages);
        if (n) return job_of_age(n);
    }
    return NULL;
}

int rb_queue_before(const struct rb_job *a, const struct rb_job *b) {
    if (a->queued.band != b->queued.band) return a->queued.band < b->queued.band;
    return rb_rank_before(&a->queued.urgency, &b->queued.urgency);
}

int rb_queue_older(const struct rb_job *a, const struct rb_job *b) {
    if (a->queued.band != b->queued.band) return a->queued.band > b->queued.band;
    return rb_rank_before(&a->queued.age, &b->queued.age);
}

void rb_queue_configure(struct rb_queue *q, const struct rb_order_config *config, uint64_t now) {
    struct rb_rank *out = NULL, **end = &out;
    struct rb_job *j;
    while ((j = rb_queue_oldest(q))) {
        rb_queue_remove(q, j);
        *end = &j->queued.age;
        j->queued.age.right = NULL;
        end = &j->queued.age.right;
    }
    set_config(q, config);
    while (out) {
        j = job_of_age(out);
        out = out->right;
        rb_queue_push(q, j, now);
    }
}
