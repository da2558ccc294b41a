/* beam.c: what comes out of a lane and what goes into it. Its beginning and its end are in beam_life.c. */
#include "relay/service/beam.h"

#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/submit.h"
#include "ringbridge/crc32c.h"

enum {
    TURN_REQUESTS =
        512,         /* of one ring in a round: one scheduler's flood must not starve the others, */
    TURN_ALL = 4096, /* of all rings: nor one lane's the others */
    TURN_BYTES = 2 << 20, /* nor one lane's bytes the workers */
    TURN_CANCELS = 8192,  /* slots that are looked at for their cancel words */
    WHOLE_BYTES = 16
        << 10, /* a request up to this is copied whole; of a larger one its head, and the payload where it belongs */
    TAIL_BYTES = 64 << 10, /* of options behind a payload, as on a connection */
    DRAWN_MIN = 4 << 10,   /* smaller answers lie in a near cache, and are summed where they lie */
};

static void broke(struct rb_beam *b, const char *rule) {
    if (!b->broke) b->broke = rule;
}

/* --- Answers ----------------------------------------------------------------------------------------------------------------- */

static struct rb_beam_slot *slot_of(struct rb_beam *b, uint64_t request) {
    struct rb_beam_slot *s = &b->slots[(uint32_t)request]; /* checked when it came */
    return s->open && s->generation == (uint32_t)(request >> 32) ? s : NULL;
}

/* Its answer waits until the BEAM gives something back. 0, or -ENOSPC: too much waits. */
static int keep(struct rb_beam *b, uint64_t request, uint32_t status,
                const struct rb_lane_piece pieces[3], size_t size) {
    if (b->kept_bytes + size > b->relay->config.outgoing_bytes_max) return -ENOSPC;
    struct rb_beam_kept *k = malloc(sizeof *k + size);
    if (!k) return -ENOSPC;
    *k = (struct rb_beam_kept){.request = request, .status = status, .size = size};
    uint8_t *to = k->bytes;
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
    *b->kept_end = k;
    b->kept_end = &k->next;
    b->kept_bytes += size;
    rb_lane_link_want(&b->link, 1);
    GAUGE(b->stats.kept_bytes, b->kept_bytes);
    return 0;
}

/* {error, {job_failed, 65280, Why}}: small enough for the completion itself. Its size. */
static int put_failure(struct rb_beam *b, uint64_t request, const char *why, size_t *size) {
    uint8_t bytes[RB_LANE_INLINE_BYTES_MAX];
    struct rb_pen p = {bytes, bytes};
    rb_pen_tuple(&p, 2);
    rb_pen_atom(&p, "error");
    rb_pen_tuple(&p, 3);
    rb_pen_atom(&p, "job_failed");
    rb_pen_unsigned(&p, RB_CODE_ANSWER_TOO_LARGE);
    rb_pen_binary(&p, strlen(why));
    rb_pen_bytes(&p, (const uint8_t *)why, strlen(why));
    struct rb_lane_piece piece = {bytes, rb_pen_size(&p)};
    *size = piece.size;
    return rb_lane_link_put(&b->link, request, RB_LANE_STATUS_TERM, &piece, 1);
}

/* 1: in its place a failure was told. */
static int complete(struct rb_beam *b, uint64_t request, uint32_t status,
                    const struct rb_lane_piece pieces[3]) {
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    const char *no_room = NULL;
    struct rb_beam_drawn drawn = b->drawn;
    int lies_there = drawn.bytes && drawn.bytes == pieces[0].at && drawn.size == size;
    if (lies_there) b->drawn.bytes = NULL;
    int rc = lies_there ? rb_lane_link_put_placed(&b->link, request, status, drawn.place, size)
                        : rb_lane_link_put(&b->link, request, status, pieces, 3);
    if (rc == -ENOSPC) rc = keep(b, request, status, pieces, size);
    if (rc == -ENOSPC) no_room = "no room in the lane";
    if (rc == -EMSGSIZE) no_room = "larger than the lane";
    if (no_room) rc = put_failure(b, request, no_room, &size);
    if (rc == -EAGAIN) broke(b, "completions_not_taken");
    if (rc == -EPROTO) broke(b, "completion_head_out_of_range");
    COUNT(b->stats.bytes_out, size);
    b->relay->cpus.lane_bytes += size;
    return no_room != NULL;
}

static void put_kept(struct rb_beam *b) {
    while (b->kept) {
        struct rb_beam_kept *k = b->kept;
        struct rb_lane_piece piece = {k->bytes, k->size};
        int rc = rb_lane_link_put(&b->link, k->request, k->status, &piece, 1);
        if (rc == -ENOSPC) return;
        if (rc < 0) broke(b, "completion_head_out_of_range");
        b->kept = k->next;
        if (!b->kept) b->kept_end = &b->kept;
        b->kept_bytes -= k->size;
        GAUGE(b->stats.kept_bytes, b->kept_bytes);
        free(k);
    }
    rb_lane_link_want(&b->link, 0);
}

static void close_slot(struct rb_beam *b, struct rb_beam_slot *s) {
    s->open = 0;
    COUNT(b->stats.open, -1);
}

static struct rb_asker asker_of(const uint8_t *tag) {
    struct rb_asker asker;
    memcpy(&asker, tag, sizeof asker); /* it lies among bytes */
    return asker;
}

void rb_beam_answer(const struct rb_caller *to, uint32_t status, const struct rb_slice pieces[3]) {
    if (!to->conn) return; /* the lane may have ended */
    const struct rb_asker asker = asker_of(to->tag.at);
    struct rb_beam *b = asker.beam;
    struct rb_beam_slot *s = slot_of(b, asker.request);
    if (!s) return; /* it has its answer */
    const struct rb_lane_piece p[3] = {{pieces[0].at, pieces[0].size},
                                       {pieces[1].at, pieces[1].size},
                                       {pieces[2].at, pieces[2].size}};
    s->replaced = (uint32_t)complete(b, asker.request, status, p);
    close_slot(b, s);
    COUNT(b->stats.answered, 1);
}

static struct rb_asker asker_of_job(const struct rb_job *j) {
    return asker_of(j->caller + j->pid_size);
}

/* Whose answer this is, if it is a lane's. */
static struct rb_beam *beam_of(const struct rb_job *j, uint64_t *request) {
    if (j->kind != RB_CALLER_LANE || j->watch != RB_WATCH_LANE || !j->conn) return NULL;
    const struct rb_asker asker = asker_of_job(j);
    *request = asker.request;
    return asker.beam;
}

const uint8_t *rb_beam_draw(const struct rb_job *j, const uint8_t *bytes, size_t size,
                            uint32_t *crc) {
    uint64_t request;
    struct rb_beam *b = beam_of(j, &request);
    if (!b || size < DRAWN_MIN || b->drawn.bytes || !slot_of(b, request)) return NULL;
    int64_t place = rb_lane_link_room(&b->link, size);
    if (place < 0) return NULL;
    uint8_t *to = b->link.results + place;
    *crc = rb_crc32c_copy(0, to, bytes, size);
    b->drawn = (struct rb_beam_drawn){to, (uint64_t)place, size};
    return to;
}

void rb_beam_drawn_end(const struct rb_job *j) {
    uint64_t request;
    struct rb_beam *b = beam_of(j, &request);
    if (!b || !b->drawn.bytes) return;
    rb_lane_link_no_room(&b->link, b->drawn.place, b->drawn.size);
    b->drawn.bytes = NULL;
}

static void drop(struct rb_beam *b, uint64_t request, struct rb_beam_slot *s) {
    static const struct rb_lane_piece none[3];
    complete(b, request, RB_LANE_STATUS_DROPPED, none);
    close_slot(b, s);
    COUNT(b->stats.dropped, 1);
}

void rb_beam_bind(struct rb_job *j) {
    const struct rb_asker asker = asker_of_job(j);
    j->kind = RB_CALLER_LANE;
    j->watch = RB_WATCH_LANE; /* the lane is told when the caller is forgotten */
    asker.beam->slots[(uint32_t)asker.request].job = j;
}

enum rb_reason rb_beam_told(const struct rb_job *j, enum rb_reason reason) {
    if (j->kind != RB_CALLER_LANE || j->watch != RB_WATCH_LANE)
        return reason; /* it has no caller */
    const struct rb_asker asker = asker_of_job(j);
    const struct rb_beam_slot *s = &asker.beam->slots[(uint32_t)asker.request];
    return s->job == j && !s->open && s->replaced ? RB_REASON_JOB_FAILED : reason;
}

size_t rb_beam_answer_max(const struct rb_job *j) {
    if (j->kind != RB_CALLER_LANE || j->watch != RB_WATCH_LANE) return SIZE_MAX;
    return (size_t)asker_of_job(j).beam->link.config.result_bytes;
}

int rb_beam_is_asker(const struct rb_beam *b, uint32_t slot, const struct rb_job *j) {
    const struct rb_asker asker = asker_of_job(j);
    return j->kind == RB_CALLER_LANE && j->conn == b->conn && asker.beam == b &&
           (uint32_t)asker.request == slot &&
           (uint32_t)(asker.request >> 32) == b->slots[slot].generation;
}

void rb_beam_forget(struct rb_job *j) {
    const struct rb_asker asker = asker_of_job(j);
    struct rb_beam *b = asker.beam;
    struct rb_beam_slot *s = &b->slots[(uint32_t)asker.request];
    if (s->job != j) return;
    s->job = NULL;
    if (slot_of(b, asker.request)) drop(b, asker.request, s);
}

/* --- Requests ---------------------------------------------------------------------------------------------------------------- */

struct asked {
    struct rb_beam *beam;
    struct rb_lane_submission s; /* a private copy */
    const uint8_t *bytes;        /* in it, or where the BEAM can still write */
    struct rb_asker asker;
    struct rb_from from; /* no pid, and the asker for a tag */
    struct rb_caller to;
};

/* The first `size` bytes from `from` on, where nobody else can write. NULL: no memory. */
static const uint8_t *private_copy(struct rb_relay *r, const struct asked *a, size_t from,
                                   size_t size) {
    if (a->s.flags & RB_LANE_FLAG_INLINE) return a->bytes + from;
    r->asked.begin = r->asked.end = 0;
    uint8_t *copy = rb_buffer_room(&r->asked, size ? size : 1);
    if (copy) memcpy(copy, a->bytes + from, size);
    return copy;
}

/* What a rule of the service's costs a connection, it costs the lane. */
static const char *rule_of(struct rb_conn *c, int rc) { return rc < 0 ? c->intake.why : NULL; }

/* A payload larger than what is copied whole: once into the pool, from where the BEAM wrote it; what is judged of it, is judged there. */
static const char *divert(struct asked *a, struct rb_submit *s, struct rb_diversion *d, size_t at) {
    struct rb_conn *c = a->beam->conn;
    struct rb_relay *r = c->relay;
    if (d->dest_bytes > a->s.bytes - at) {
        rb_submit_abort_large(r, d->token);
        return "bad_payload";
    }
    rb_submit_put_whole(d->token, a->bytes + at);
    if (a->s.form == RB_LANE_FORM_RAW) return rule_of(c, rb_submit_end_whole(c, d->token, s));
    at += d->dest_bytes;
    size_t left = a->s.bytes - at, tail = left < TAIL_BYTES ? left : TAIL_BYTES;
    const uint8_t *copy = private_copy(r, a, at, tail);
    if (!copy) {
        rb_submit_abort_large(r, d->token);
        return "no_memory";
    }
    return rule_of(c, rb_submit_end_large(c, d->token, (struct rb_slice){copy, tail}, tail < left));
}

static const char *on_term(struct asked *a) {
    struct rb_conn *c = a->beam->conn;
    struct rb_relay *r = c->relay;
    if (a->s.bytes > WHOLE_BYTES) {
        const uint8_t *head = private_copy(r, a, 0, WHOLE_BYTES);
        if (!head) return "no_memory";
        struct rb_cursor at = {head, head + WHOLE_BYTES};
        struct rb_diversion d;
        struct rb_submit s;
        enum rb_large large = rb_service_call_large(c, &a->from, &a->to, &at, &s, &d);
        if (large == RB_LARGE_DROP) return NULL;
        if (large == RB_LARGE_DIVERT) return divert(a, &s, &d, (size_t)(at.at - head));
    }
    const uint8_t *copy = private_copy(r, a, 0, a->s.bytes);
    if (!copy) return "no_memory";
    struct rb_cursor at = {copy, copy + a->s.bytes};
    return rule_of(c, rb_service_call(c, &a->from, &a->to, &at));
}

static const char *on_raw(struct asked *a) {
    struct rb_conn *c = a->beam->conn;
    const uint32_t role = a->s.role_bytes;
    if (role == 0 || role > 255 || role > a->s.bytes) return "submission_role";
    const uint32_t size = a->s.bytes - role;
    struct rb_submit s = {.verb = RB_VERB_CALL, .arity = 3};
    rb_options_default(&s.options);
    if (a->s.timeout_ms != RB_LANE_NO_TIMEOUT) {
        s.options.has_timeout = 1;
        s.options.timeout_ms = a->s.timeout_ms;
    }
    int large = a->s.bytes > WHOLE_BYTES;
    const uint8_t *copy = private_copy(c->relay, a, 0, large ? role : a->s.bytes);
    if (!copy) return "no_memory";
    s.role = (struct rb_slice){copy, role};
    if (!large) {
        struct rb_payload payload = {{copy + role, size}, 0};
        return rule_of(c, rb_submit_work(c, &a->from, &a->to, &s, &payload));
    }
    struct rb_diversion d;
    if (rb_submit_begin_sized(c, &a->from, &a->to, &s, size, &d) != RB_LARGE_DIVERT) return NULL;
    return divert(a, &s, &d, role);
}

/* One submission, on a private copy. NULL, or the rule that it breaks. */
static const char *take(struct rb_beam *b, uint32_t ring, const struct rb_lane_submission *from) {
    struct asked a;
    a.beam = b;
    memcpy(&a.s, from, sizeof a.s);
    a.from.monitor = (struct rb_slice){NULL, 0};
    const uint32_t slot = (uint32_t)a.s.request;
    struct rb_beam_slot *s = &b->slots[slot];
    if (slot >= b->slot_count || slot / b->link.config.slots != ring || s->open ||
        (uint32_t)(a.s.request >> 32) != s->generation + 1)
        return "submission_number";
    if (!(a.bytes = rb_lane_link_bytes(&b->link, ring, &a.s))) return "submission_place";
    s->generation++;
    s->open = 1;
    s->replaced = 0;
    COUNT(b->stats.open, 1);
    COUNT(b->stats.requests, 1);
    COUNT(b->stats.bytes_in, a.s.bytes);
    b->relay->cpus.lane_bytes += a.s.bytes;
    /* K2: pairs with K0 in rb_lane_cancel(): a cancel that was quicker than its request, which another thread sent, is found here. */
    if (rb_load_seq_cst(&b->link.cancels[slot].request) == a.s.request) {
        COUNT(b->stats.cancelled, 1);
        drop(b, a.s.request, s);
        return NULL;
    }
    a.asker = (struct rb_asker){b, a.s.request};
    a.from.pid = a.from.alias = (struct rb_slice){(const uint8_t *)"", 0};
    a.from.tag = (struct rb_slice){(const uint8_t *)&a.asker, sizeof a.asker};
    a.to = (struct rb_caller){.conn = b->conn,
                              .pid = a.from.pid,
                              .tag = a.from.tag,
                              .alias = a.from.alias,
                              .kind = RB_CALLER_LANE};
    /* So many call, as far as the way of waiting goes (wait.c). */
    b->relay->lane_callers[0] |= 1ull << (a.s.caller & 63);
    const char *rule = a.s.form == RB_LANE_FORM_TERM  ? on_term(&a)
                       : a.s.form == RB_LANE_FORM_RAW ? on_raw(&a)
                                                      : "submission_form";
    if (!rule && !s->job && s->open && s->generation == (uint32_t)(a.s.request >> 32))
        drop(b, a.s.request, s); /* nothing was said, and nobody will */
    return rule;
}

static int read_ring(struct rb_beam *b, uint32_t ring, uint64_t *bytes) {
    struct rb_ring_consumer *c = &b->link.submission_rings[ring];
    int64_t count = rb_ring_available(c), taken = 0;
    if (count < 0) broke(b, "submission_tail_out_of_range");
    if (count > TURN_REQUESTS) count = TURN_REQUESTS;
    while (taken < count && !b->broke && *bytes < TURN_BYTES) {
        const struct rb_lane_submission *s =
            rb_lane_link_submission(&b->link, ring, (uint64_t)taken);
        uint64_t before = b->stats.bytes_in;
        const char *rule = take(b, ring, s);
        *bytes += b->stats.bytes_in - before;
        taken++;
        if (rule) broke(b, rule);
    }
    if (taken > 0) rb_ring_release(c, (uint64_t)taken);
    return (int)taken;
}

/* Each round begins where the last one had to stop: else the first rings' bytes would be all that is ever read. */
static int read_rings(struct rb_beam *b) {
    const uint32_t rings = b->link.config.rings;
    uint64_t bytes = 0;
    int count = 0;
    for (uint32_t i = 0; i < rings && bytes < TURN_BYTES && count < TURN_ALL; i++) {
        count += read_ring(b, b->next_ring, &bytes);
        b->next_ring = (b->next_ring + 1) % rings;
    }
    return count;
}

/* --- Cancels ----------------------------------------------------------------------------------------------------------------- */

/* A request that is open and whose word names it. Its job ends as if its caller had died; what its caller forgets is dropped. */
static void read_cancel(struct rb_beam *b, uint32_t slot) {
    struct rb_beam_slot *s = &b->slots[slot];
    if (!s->open || !s->job) return;
    uint64_t request = (uint64_t)s->generation << 32 | slot;
    if (rb_load_relaxed(&b->link.cancels[slot].request) != request) return; /* after the count */
    COUNT(b->stats.cancelled, 1);
    rb_job_orphaned(b->relay, s->job);
}

/* Once round all slots from where it is, for each time that the count has changed; a part of it in a round, since a BEAM may count up as fast as
 * it can write, and have 132,096 slots. */
static int read_cancels(struct rb_beam *b) {
    uint64_t count = rb_load_seq_cst(&b->link.theirs->cancels); /* pairs with K1 */
    if (count != b->link.cancels_seen) {
        b->link.cancels_seen = count;
        b->cancel_left = b->slot_count;
    }
    if (!b->cancel_left) return 0;
    uint32_t turn = b->cancel_left < TURN_CANCELS ? b->cancel_left : TURN_CANCELS;
    b->cancel_left -= turn;
    for (; turn > 0; turn--) {
        read_cancel(b, b->cancel_at);
        b->cancel_at = (b->cancel_at + 1) % b->slot_count;
    }
    return 1;
}

/* --- Rounds ------------------------------------------------------------------------------------------------------------------ */

static int greeted(struct rb_beam *b) {
    const char *rule;
    uint32_t pid = 0;
    int rc = rb_lane_link_hello(&b->link, &pid, &rule);
    if (rc < 0) broke(b, rule);
    if (rc <= 0) return 0;
    b->greeted = 1;
    GAUGE(b->stats.pid, pid);
    rb_up_event(b->relay, RB_EVENT_LANE_READY, b->conn->id, b->id, pid, 0, 0, NULL, 0);
    return 1;
}

static int read_beam(struct rb_beam *b) {
    if (b->broke || b->conn->failed || (!b->greeted && !greeted(b))) return 0;
    if (!b->relay->owned[RB_SERVICE_JOBS].up) { /* a call by name would find nobody either */
        broke(b, "service_down");
        return 0;
    }
    int64_t given = rb_lane_link_reclaim(&b->link);
    if (given < 0) broke(b, "giveback_of_nothing_lent");
    if (given > 0 && b->kept) put_kept(b);
    int count = read_rings(b);
    return count + read_cancels(b);
}

int rb_beams_read(struct rb_relay *r) {
    int count = 0;
    for (struct rb_beam *b = r->beams; b; b = b->next) count += read_beam(b);
    return count;
}

void rb_beams_flush(struct rb_relay *r) {
    for (struct rb_beam *b = r->beams, *next; b; b = next) {
        next = b->next;
        GAUGE(b->stats.lent_blocks, b->link.results_region.taken);
        rb_lane_link_publish(&b->link);
        GAUGE(b->stats.wakes, b->link.waker.wakes);
        if (b->broke) rb_beam_close(r, b->id, b->broke);
    }
}

int rb_beams_wait(const struct rb_relay *r) {
    for (const struct rb_beam *b = r->beams; b; b = b->next) {
        /* What a lane that is not greeted has in its rings waits for its hello (seq_cst, as the look of a gate). */
        if (b->greeted ? b->cancel_left || rb_lane_link_waiting(&b->link)
                       : rb_load_seq_cst(&b->link.hello->hello) != RB_LANE_HELLO_NONE)
            return 1;
    }
    return 0;
}

void rb_beams_announce(const struct rb_relay *r) {
    for (struct rb_beam *b = r->beams; b; b = b->next)
        rb_gate_announce(&b->link.waiter, RB_PARK_EVENTFD);
}

void rb_beams_retract(const struct rb_relay *r) {
    for (struct rb_beam *b = r->beams; b; b = b->next) rb_gate_retract(&b->link.waiter);
}
