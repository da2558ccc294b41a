/* proxy.c: the worker's end of a link, played for a worker of another kind (ringbridge/proxy.h).
 *
 * What the relay wrote is checked as in a kit: one worker lost is better than a bridge or a BEAM lost. */
#define _GNU_SOURCE
#include "ringbridge/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ringbridge/envelope.h"
#include "ringbridge/link.h"
#include "ringbridge/telemetry.h"

enum { RESULTS_KEPT_BYTES = 1 << 20 };
/* A link may have 2^20 blocks, and a relay that lies gives each of them back, on and on: no scheduler looks at so many at once. */
enum { GIVEBACKS_MAX = 1024 };
/* Nor at so many requests: there may be 2^16. */
enum { SEEN_MAX = 1024 };

struct rb_proxy {
    struct rb_link_worker link;
    uint64_t taken;    /* of the requests from the ring's head on */
    uint64_t started;  /* since the link began */
    uint64_t seen;     /* the position behind the last request that was seen */
    uint64_t *seen_ns; /* by slot: when its request was seen first */
    uint64_t start_ns; /* of the job that was started last */
    struct rb_telemetry telemetry;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- Its begin and its end ------------------------------------------------------------------------------------------------ */

static int copies_of(const int fds[5], int copies[5]) {
    for (int i = 0; i < 5; i++) {
        copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (copies[i] >= 0) continue;
        int error = errno;
        while (i-- > 0) close(copies[i]);
        return -error;
    }
    return 0;
}

static void close_all(const int fds[5]) {
    for (int i = 0; i < 5; i++)
        if (fds[i] >= 0) close(fds[i]);
}

int rb_proxy_open(const int fds[5], struct rb_proxy **proxy, char *why, uint64_t why_bytes) {
    int copies[5];
    snprintf(why, (size_t)why_bytes, "no memory or no descriptor");
    struct rb_proxy *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    int rc = copies_of(fds, copies);
    if (rc < 0) goto no_copies;
    struct rb_link_fds named = {copies[0], copies[1], copies[2], copies[3], copies[4]};
    rc = rb_link_attach(&p->link, &named, why, why_bytes);
    if (rc < 0) goto not_attached;
    p->seen_ns = calloc(p->link.header.slots, sizeof *p->seen_ns);
    if (!p->seen_ns) {
        rc = -ENOMEM;
        goto no_times;
    }
    /* Mapped, these two are not needed any more; a slot shall cost no more descriptors than a worker. */
    close(p->link.fds.relay_side);
    close(p->link.fds.pool);
    p->link.fds.relay_side = p->link.fds.pool = -1;
    *proxy = p;
    return 0;

no_times:
    rb_link_detach(&p->link);
not_attached:
    close_all(copies);
no_copies:
    free(p);
    return rc;
}

void rb_proxy_close(struct rb_proxy *p) {
    const int fds[] = {p->link.fds.relay_side, p->link.fds.worker_side, p->link.fds.pool,
                       p->link.fds.wake_worker, p->link.fds.wake_relay};
    rb_link_detach(&p->link);
    close_all(fds);
    free(p->seen_ns);
    free(p);
}

int rb_proxy_greet(struct rb_proxy *p, const char *kit, uint32_t kit_version, const char *role,
                   const uint8_t *ops, uint32_t op_count, char *why, uint64_t why_bytes) {
    struct rb_worker_op declared[RB_OPS_MAX];
    const char *rule = "more operations than a worker may declare";
    int rc = op_count > RB_OPS_MAX ? -EINVAL : 0;
    if (rc == 0) {
        if (op_count > 0) memcpy(declared, ops, op_count * sizeof *declared);
        rc = rb_link_declare(&p->link, declared, op_count, &rule);
    }
    if (rc < 0) {
        snprintf(why, (size_t)why_bytes, "%s", rule);
        return rc;
    }
    rb_proxy_beat(p, 0); /* before the hello, so that it is never seen without a heart */
    rb_link_greet(&p->link, kit, kit_version, role);
    return 0;
}

/* --- Waiting -------------------------------------------------------------------------------------------------------------- */

uint64_t rb_proxy_answer_bytes_max(const struct rb_proxy *p) { return p->link.header.result_bytes; }

int rb_proxy_bell(const struct rb_proxy *p) { return p->link.fds.wake_worker; }

void rb_proxy_ring_at_bell(struct rb_proxy *p) { p->link.waker.bell = p->link.fds.wake_worker; }

void rb_proxy_park(struct rb_proxy *p) { rb_gate_announce(&p->link.waiter, RB_PARK_EVENTFD); }

int rb_proxy_unpark(struct rb_proxy *p) {
    rb_gate_retract(&p->link.waiter);
    return rb_gate_hush(p->link.fds.wake_worker);
}

/* --- Requests ------------------------------------------------------------------------------------------------------------- */

static uint64_t slot_of(const struct rb_proxy *p, uint64_t position) {
    return position & (p->link.header.slots - 1);
}

int64_t rb_proxy_next_bytes(struct rb_proxy *p) {
    int64_t count = rb_ring_available(&p->link.request_ring);
    if (count < 0) return -EPROTO;
    if (p->taken >= (uint64_t)count) return -EAGAIN;
    return p->link.requests[slot_of(p, p->link.request_ring.head + p->taken)].payload_bytes;
}

static int take_givebacks(struct rb_proxy *p) {
    struct rb_ring_consumer *ring = &p->link.giveback_ring;
    int64_t count = rb_ring_available(ring);
    if (count < 0) return -EPROTO;
    if (count > GIVEBACKS_MAX) count = GIVEBACKS_MAX;
    for (int64_t i = 0; i < count; i++) {
        struct rb_giveback g = p->link.givebacks[rb_ring_slot(ring, (uint64_t)i)];
        if (rb_region_give(&p->link.result_region, g.first, g.count) < 0) return -EPROTO;
    }
    if (count > 0) rb_ring_release(ring, (uint64_t)count);
    return 0;
}

/* From now on they are queued here: those behind the next one, too. */
static void see(struct rb_proxy *p, uint64_t count) {
    uint64_t end = p->link.request_ring.head + count;
    if (p->seen >= end) return;
    if (end - p->seen > SEEN_MAX) end = p->seen + SEEN_MAX;
    uint64_t now = now_ns();
    while (p->seen < end) p->seen_ns[slot_of(p, p->seen++)] = now;
}

int rb_proxy_take(struct rb_proxy *p, struct rb_proxy_request *request) {
    return rb_proxy_take_up_to(p, UINT32_MAX, request);
}

int rb_proxy_take_up_to(struct rb_proxy *p, uint32_t most, struct rb_proxy_request *request) {
    int64_t count = rb_ring_available(&p->link.request_ring);
    if (count < 0) return -EPROTO;
    see(p, (uint64_t)count);
    if (p->taken >= (uint64_t)count) return 0;
    /* Before a handler sees anything: what is broken here is broken for the job, too. */
    if (take_givebacks(p) < 0) return -EPROTO;
    uint64_t position = p->link.request_ring.head + p->taken;
    uint64_t pool_bytes = p->link.pool ? p->link.header.pool_bytes : 0;
    struct rb_request e; /* copied before it is checked: the memory is the relay's */
    memcpy(&e, &p->link.requests[slot_of(p, position)], sizeof e);
    if (e.payload_bytes > most) return -E2BIG;
    const uint8_t *payload = p->link.requests[slot_of(p, position)].body;
    if (e.flags & RB_FLAG_ZSTD) return -EPROTO; /* the hello agrees to none */
    if (e.flags & RB_FLAG_INLINE) {
        if (e.payload_bytes > RB_INLINE_BYTES_MAX) return -EPROTO;
    } else {
        if (e.payload_at > pool_bytes || e.payload_bytes > pool_bytes - e.payload_at)
            return -EPROTO;
        payload = p->link.pool + e.payload_at;
    }
    if (rb_request_crc(&e, payload, p->link.header.features) != e.crc) return -EPROTO;
    *request = (struct rb_proxy_request){.job = e.job,
                                         .position = position,
                                         .deadline_ns = e.deadline_ns,
                                         .opcode = e.opcode,
                                         .flags = e.flags,
                                         .priority = e.priority,
                                         .payload_bytes = e.payload_bytes,
                                         .trace_flags = e.trace_flags,
                                         .payload = payload};
    memcpy(request->trace_id, e.trace_id, sizeof request->trace_id);
    memcpy(request->span_id, e.span_id, sizeof request->span_id);
    p->taken++;
    return 1;
}

int64_t rb_proxy_waiting(struct rb_proxy *p) {
    int64_t count = rb_ring_available(&p->link.request_ring);
    return count < 0 ? count : count - (int64_t)p->taken;
}

int rb_proxy_start(struct rb_proxy *p) {
    p->started++;
    p->start_ns = now_ns();
    /* K0: pairs with S0 in leave_jobs() (dispatch/death.c): what is begun is lost with its worker. seq_cst with the look K1 that follows: the
     * relay says STOP before it reads what is begun, so either it counts this job as begun, or we see that the link is over. What was read of
     * the payload was read before K0, and its place is given away after S0: who does not see STOP has read the job's own. */
    rb_store_seq_cst(&p->link.ours->started, p->started);
    return rb_load_seq_cst(&p->link.theirs->control) != RB_CONTROL_STOP; /* K1 */
}

int rb_proxy_cancelled(const struct rb_proxy *p, uint64_t position, uint64_t job) {
    /* C1: pairs with C0 in stop_running() (dispatch/job.c); seq_cst, as a gate waits for it. */
    return rb_load_seq_cst(&p->link.cancels[slot_of(p, position)]) == job;
}

uint32_t rb_proxy_demand(const struct rb_proxy *p, uint64_t position, uint32_t sent) {
    /* D1: pairs with D0 in rb_stream_grant(); seq_cst, as a gate waits for it. */
    return rb_demand_left(rb_load_seq_cst(&p->link.demands[slot_of(p, position)]), position, sent);
}

uint32_t rb_proxy_control(const struct rb_proxy *p) {
    /* T1: pairs with T0 in rb_worker_drain(); seq_cst, as a gate waits for it. */
    return rb_load_seq_cst(&p->link.theirs->control);
}

/* --- Answers -------------------------------------------------------------------------------------------------------------- */

/* Room for the bytes of `e`: where, or NULL with the errno. */
static uint8_t *room_for(struct rb_proxy *p, struct rb_completion *e, int *error) {
    if (e->payload_bytes <= RB_INLINE_BYTES_MAX) {
        e->flags |= RB_FLAG_INLINE;
        return e->body;
    }
    if ((*error = take_givebacks(p)) < 0) return NULL;
    int64_t first = rb_region_take(&p->link.result_region, e->payload_bytes);
    if (first < 0) {
        *error = (int)first;
        return NULL;
    }
    e->payload_at = (uint64_t)first * p->link.header.result_block_bytes;
    return p->link.results + e->payload_at;
}

int rb_proxy_answer(struct rb_proxy *p, const struct rb_proxy_answer *a) {
    struct rb_completion e;
    int final = a->status <= RB_STATUS_CANCELLED, error = 0;
    uint64_t now = now_ns(), seen_ns = p->seen_ns[slot_of(p, p->link.request_ring.head)];
    /* Looked at first, so that no block is taken for what cannot be told. */
    int64_t free_slots = rb_ring_free(&p->link.completion_ring);
    if (free_slots <= 0) return free_slots < 0 ? -EPROTO : -ENOSPC;
    memset(&e, 0, sizeof e);
    e.job = a->job;
    e.status = (uint16_t)a->status;
    e.code = (uint16_t)a->code;
    e.flags = (uint16_t)a->flags;
    e.payload_bytes = a->payload_bytes;
    e.queue_ns = p->start_ns > seen_ns ? p->start_ns - seen_ns : 0;
    e.run_ns = now > p->start_ns ? now - p->start_ns : 0;
    if (a->run_ns && a->run_ns < now - seen_ns) e.run_ns = a->run_ns;
    uint8_t *to = room_for(p, &e, &error);
    if (!to) return error;
    if (a->payload_bytes) memcpy(to, a->payload, a->payload_bytes);
    e.crc = rb_completion_crc(&e, to, p->link.header.features);
    p->link.completions[rb_ring_claim(&p->link.completion_ring)] = e;
    rb_ring_publish(&p->link.completion_ring);
    rb_gate_ring(&p->link.waker);
    if (!final) return 0;
    p->telemetry.jobs++;
    p->telemetry.run_ns = e.run_ns;
    if (a->status == RB_STATUS_FAILED) {
        p->telemetry.failed++;
        p->telemetry.last_code = a->code;
    }
    /* After the completion: a slot that is free belongs to a job that is answered. */
    rb_ring_release(&p->link.request_ring, 1);
    p->taken--;
    return 0;
}

/* --- Signs of life -------------------------------------------------------------------------------------------------------- */

void rb_proxy_pulse(struct rb_proxy *p) {
    /* Relaxed: one writer, and nothing is read on the strength of it (vitals.c). */
    rb_store_relaxed(&p->link.ours->pulse, p->link.ours->pulse + 1);
}

void rb_proxy_beat(struct rb_proxy *p, uint32_t unready) {
    int changed = p->telemetry.unready != unready;
    uint64_t tail = rb_load_relaxed(&p->link.theirs->request_tail); /* a count to show */
    p->telemetry.unready = unready;
    p->telemetry.gate = RB_PARK_EVENTFD;
    p->telemetry.heartbeats++;
    p->telemetry.heartbeat_ns = now_ns();
    p->telemetry.queued = tail > p->started ? (uint32_t)(tail - p->started) : 0;
    rb_telemetry_store(p->link.telemetry, &p->telemetry);
    if (changed) rb_link_knock(&p->link);
}

static uint64_t touched_bytes(const struct rb_proxy *p) {
    return (uint64_t)p->link.result_region.highest_touched * p->link.result_region.block_bytes;
}

uint32_t rb_proxy_trim_bytes_min(const struct rb_proxy *p) {
    return p->link.header.result_block_bytes;
}

int rb_proxy_trim(struct rb_proxy *p, uint64_t most_bytes) {
    uint64_t before = touched_bytes(p), keep = RESULTS_KEPT_BYTES;
    if (p->taken > 0 || before <= keep) return 0;
    if (take_givebacks(p) < 0) return 0; /* the next answer says so */
    if (most_bytes < rb_proxy_trim_bytes_min(p)) most_bytes = rb_proxy_trim_bytes_min(p);
    /* From the end on: what is free there is not looked at again. */
    if (before - keep > most_bytes) keep = before - most_bytes;
    rb_region_trim(&p->link.result_region, p->link.fds.worker_side, p->link.header.results_at,
                   keep);
    return touched_bytes(p) < before && touched_bytes(p) > RESULTS_KEPT_BYTES;
}
