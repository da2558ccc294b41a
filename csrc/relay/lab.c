/* lab.c: a relay without a thread, and workers that are played through their links (ringbridge/lab.h). */
#define _GNU_SOURCE
#include "ringbridge/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "ringbridge/envelope.h"
#include "ringbridge/telemetry.h"

int rb_lab_open(struct rb_relay **relay, const struct rb_relay_config *config, uint64_t now) {
    struct rb_relay *r = NULL;
    int rc = rb_relay_make(&r, config);
    if (rc < 0) return rc;
    r->still = 1;
    r->now = now;
    *relay = r;
    return 0;
}

int rb_lab_round(struct rb_relay *r, uint64_t now) {
    enum { EVENTS = 256 };
    struct epoll_event ready[EVENTS];
    int count = epoll_wait(r->epoll, ready, EVENTS, 0);
    return rb_relay_round(r, now, ready, count < 0 ? 0 : count);
}

uint64_t rb_lab_due(const struct rb_relay *r) {
    uint64_t due = rb_next_due(r);
    return due == UINT64_MAX ? 0 : due;
}

/* --- A worker, played ---------------------------------------------------------------------------------------------------- */

struct rb_lab_worker {
    struct rb_link_worker link;
    int obituary;
    uint64_t beats;
};

static int copies_of(const int fds[5], struct rb_link_fds *copies) {
    int copy[5];
    for (int i = 0; i < 5; i++) {
        copy[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (copy[i] >= 0) continue;
        int error = errno;
        while (i-- > 0) close(copy[i]);
        return -error;
    }
    *copies = (struct rb_link_fds){copy[0], copy[1], copy[2], copy[3], copy[4]};
    return 0;
}

static void close_all(const struct rb_link_fds *fds) {
    const int all[] = {fds->relay_side, fds->worker_side, fds->pool, fds->wake_worker,
                       fds->wake_relay};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) close(all[i]);
}

int rb_lab_hire(struct rb_relay *r, uint32_t role, uint64_t id, uint32_t slots,
                struct rb_lab_worker **worker) {
    enum { RESULT_BYTES = 1 << 20, RESULT_BLOCK_BYTES = 4096 };
    int fds[5], ends[2];
    char why[256];
    struct rb_link_fds copies;
    struct rb_lab_worker *w = calloc(1, sizeof *w);
    if (!w) return -ENOMEM;
    int rc = rb_relay_create_link(
        r, role, id, slots, RESULT_BYTES, RESULT_BLOCK_BYTES,
        RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD | RB_FEATURE_ZSTD, fds);
    if (rc < 0) goto no_link;
    rc = copies_of(fds, &copies);
    if (rc < 0) goto no_copies;
    rc = rb_link_attach(&w->link, &copies, why, sizeof why);
    if (rc < 0) goto not_attached;
    rc = pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
    if (rc < 0) goto no_pipe;
    w->obituary = ends[1];
    rc = rb_relay_add_worker(r, id, -1, ends[0], -1, -1);
    if (rc < 0) goto not_added;
    *worker = w;
    return 0;

not_added:
    close(ends[0]);
    close(ends[1]);
no_pipe:
    rb_link_detach(&w->link);
not_attached:
    close_all(&copies);
no_copies:
    rb_relay_drop_link(r, id);
no_link:
    free(w);
    return rc;
}

struct rb_link_worker *rb_lab_link(struct rb_lab_worker *w) { return &w->link; }

void rb_lab_greet(struct rb_lab_worker *w, const char *role) {
    rb_link_greet(&w->link, "lab", 1 << 16, role);
}

int64_t rb_lab_requests(struct rb_lab_worker *w) {
    return rb_ring_available(&w->link.request_ring);
}

int rb_lab_request(struct rb_lab_worker *w, uint64_t i, struct rb_lab_request *request) {
    int64_t count = rb_lab_requests(w);
    if (count < 0 || i >= (uint64_t)count) return -ENOENT;
    uint64_t slot = rb_ring_slot(&w->link.request_ring, i);
    const struct rb_request *e = &w->link.requests[slot];
    *request = (struct rb_lab_request){
        .job = e->job,
        .deadline_ns = e->deadline_ns,
        .position = w->link.request_ring.head + i,
        .opcode = e->opcode,
        .flags = e->flags,
        .priority = e->priority,
        .payload_bytes = e->payload_bytes,
        .cancelled = rb_load_acquire(&w->link.cancels[slot]) == e->job,   /* C0, job.c */
        .demand = rb_demand_left(rb_load_seq_cst(&w->link.demands[slot]), /* D0, stream.c */
                                 w->link.request_ring.head + i, 0),
        .payload = e->flags & RB_FLAG_INLINE ? e->body : w->link.pool + e->payload_at};
    return 0;
}

void rb_lab_start(struct rb_lab_worker *w, uint64_t count) {
    /* S0: pairs with leave_jobs() of the relay (dispatch/death.c). */
    rb_store_release(&w->link.ours->started, w->link.request_ring.head + count);
}

static void take_givebacks(struct rb_lab_worker *w) {
    struct rb_ring_consumer *ring = &w->link.giveback_ring;
    int64_t count = rb_ring_available(ring);
    for (int64_t i = 0; i < count; i++) {
        struct rb_giveback g = w->link.givebacks[rb_ring_slot(ring, (uint64_t)i)];
        rb_region_give(&w->link.result_region, g.first, g.count);
    }
    if (count > 0) rb_ring_release(ring, (uint64_t)count);
}

int rb_lab_complete(struct rb_lab_worker *w, const struct rb_lab_answer *a) {
    struct rb_completion e;
    memset(&e, 0, sizeof e);
    e.job = a->job;
    e.status = (uint16_t)a->status;
    e.code = (uint16_t)a->code;
    e.flags = (uint16_t)a->flags;
    e.run_ns = a->run_ns;
    e.payload_bytes = a->payload_bytes;
    uint8_t *to = e.body;
    int64_t first = 0;
    if (a->payload_bytes <= RB_INLINE_BYTES_MAX) {
        e.flags |= RB_FLAG_INLINE;
    } else {
        take_givebacks(w);
        first = rb_region_take(&w->link.result_region, a->payload_bytes);
        if (first < 0) return (int)first;
        e.payload_at = (uint64_t)first * w->link.header.result_block_bytes;
        to = w->link.results + e.payload_at;
    }
    int64_t slot = rb_ring_claim(&w->link.completion_ring);
    if (slot < 0) {
        if (!(e.flags & RB_FLAG_INLINE))
            rb_region_give(&w->link.result_region, (uint32_t)first,
                           rb_region_blocks_for(&w->link.result_region, a->payload_bytes));
        return (int)slot;
    }
    if (a->payload_bytes) memcpy(to, a->payload, a->payload_bytes);
    e.crc = rb_completion_crc(&e, to, w->link.header.features);
    w->link.completions[slot] = e;
    rb_ring_publish(&w->link.completion_ring);
    if (!a->silent) rb_gate_ring(&w->link.waker);
    return 0;
}

void rb_lab_ring(struct rb_lab_worker *w) { rb_gate_ring(&w->link.waker); }

void rb_lab_beat(struct rb_lab_worker *w, int unready) {
    struct rb_telemetry t = {.heartbeats = ++w->beats, .unready = (uint32_t)unready};
    rb_telemetry_store(w->link.telemetry, &t);
}

void rb_lab_pulse(struct rb_lab_worker *w) {
    /* Relaxed: nothing is read on the strength of it (vitals.c). */
    rb_store_relaxed(&w->link.ours->pulse, w->link.ours->pulse + 1);
}

void rb_lab_release(struct rb_lab_worker *w, uint64_t count) {
    rb_ring_release(&w->link.request_ring, count);
}

int rb_lab_draining(const struct rb_lab_worker *w) {
    return rb_load_seq_cst(&w->link.theirs->control) == RB_CONTROL_DRAIN; /* T0, worker.c */
}

void rb_lab_die(struct rb_lab_worker *w, int status, int signal, int oom) {
    struct rb_obituary o = {.magic = RB_OBITUARY_MAGIC,
                            .status = status,
                            .signal = (uint32_t)signal,
                            .flags = oom ? RB_OBITUARY_OOM : 0};
    while (write(w->obituary, &o, sizeof o) < 0 && errno == EINTR) {
    }
    close(w->obituary);
    rb_link_detach(&w->link);
    close_all(&w->link.fds);
    free(w);
}
