/* state.c: what a worker keeps beyond its life: checkpoints that it saves, states that it is given (docs/channel.md).
 *
 * Saved and restored by the handler's thread between two jobs, so that a state is never that of half a job. While the worker does
 * not listen (it has neither options.save nor options.restore), none of this runs.
 *
 * Death: killed while it saves, the checkpoint before stands; killed while it restores, the next life is given the same again. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel_pvt.h"
#include "peer_pvt.h"

_Static_assert(RB_STATE_FULL == RB_CHECKPOINT_FULL, "the header's words are the layout's");
_Static_assert(RB_STATE_INCREMENT == RB_CHECKPOINT_INCREMENTAL,
               "the header's words are the layout's");

/* Between two looks at the channel of a worker that always has jobs. */
static const uint64_t LOOK_EVERY_NS = 1000000;

/* --- saving ------------------------------------------------------------------------------------------------------------- */

int rb_checkpoint(struct rb_job *job, enum rb_state_kind kind, const void *bytes, size_t size) {
    uint64_t written = kind;
    struct rb_packet head = {.kind = RB_PACKET_CHECKPOINT_SAVE,
                             .id = rb_channel_next_id(),
                             .job = job ? job->request.job : 0};
    const struct iovec parts[] = {{&written, sizeof written}, {(void *)bytes, size}};
    struct rb_incoming reply;
    if (kind != RB_STATE_FULL && kind != RB_STATE_INCREMENT) return -EINVAL;
    int failed = rb_packet_send(job, &head, parts, 2, 0);
    if (!failed) failed = rb_packet_await_reply(job, head.id, 0, &reply);
    if (failed) return failed;
    failed = rb_reply_errno(&reply);
    rb_packet_drop(&reply);
    return failed;
}

/* A checkpoint that options.save is writing: a memfd that begins with the kind. */
struct rb_state {
    int memfd;
    int failed; /* the first thing that went wrong; a checkpoint with a hole is not sent */
};

int rb_state_write(struct rb_state *state, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size > 0 && !state->failed) {
        ssize_t n = write(state->memfd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            state->failed = n < 0 ? -errno : -EIO;
            break;
        }
        at += n;
        size -= (size_t)n;
    }
    return state->failed;
}

/* Has the worker save, and sends that as the answer to the bridge's request `id`. */
static void save(struct rb_worker *w, uint64_t id, uint64_t wanted) {
    struct rb_packet head = {.kind = RB_PACKET_CHECKPOINT_SAVE, .id = id};
    struct rb_state state = {.memfd =
                                 memfd_create("ringbridge state", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    uint64_t kind = wanted;
    char why[64];
    int saved = -ENOTSUP;
    if (state.memfd < 0) state.failed = -errno;
    rb_state_write(&state, &kind, sizeof kind);
    if (w->options->save != NULL && !state.failed)
        saved = w->options->save(&state, (enum rb_state_kind)wanted, w->options->user);
    if (saved >= 0 && state.failed) saved = state.failed;
    if (saved == RB_STATE_FULL || (saved == RB_STATE_INCREMENT && wanted == RB_STATE_INCREMENT)) {
        kind = (uint64_t)saved;
        saved = pwrite(state.memfd, &kind, sizeof kind, 0) == sizeof kind ? 0 : -EIO;
    } else if (saved >= 0) {
        saved = -EINVAL; /* an increment where the whole was asked for */
    }
    if (saved == 0) saved = rb_packet_send_memfd(NULL, &head, state.memfd, 0);
    if (saved < 0 && saved != -ESHUTDOWN) {
        snprintf(why, sizeof why, "the worker could not save: %s", strerror(-saved));
        rb_packet_refuse(&head, RB_CHANNEL_ERROR_UNAVAILABLE, why);
    }
    if (state.memfd >= 0) close(state.memfd);
}

/* --- being given a state ------------------------------------------------------------------------------------------------- */

typedef int (*rb_restore)(enum rb_state_kind kind, const void *bytes, size_t size, void *user);

/* Hands each part of a state to the worker. 0, or what it gave. */
static int restore_parts(rb_restore restore, void *user, const uint8_t *at, size_t left) {
    while (left > 0) {
        uint64_t kind, size;
        if (left < 2 * sizeof(uint64_t)) rb_kit_channel_broken("a state ends within a part's head");
        kind = rb_u64_at(at);
        size = rb_u64_at(at + sizeof kind);
        at += 2 * sizeof kind, left -= 2 * sizeof kind;
        if (kind > RB_CHECKPOINT_INCREMENTAL || size > left)
            rb_kit_channel_broken("a state's part is of no kind, or longer than the state");
        int failed = restore ? restore((enum rb_state_kind)kind, at, size, user) : -ENOTSUP;
        if (failed) return failed;
        at += size, left -= size;
    }
    return 0;
}

int rb_checkpoint_load(struct rb_job *job, rb_restore restore, void *user) {
    struct rb_packet head = {.kind = RB_PACKET_CHECKPOINT_LOAD,
                             .id = rb_channel_next_id(),
                             .job = job ? job->request.job : 0};
    struct rb_incoming reply;
    int failed = rb_packet_send(job, &head, NULL, 0, 0);
    if (!failed) failed = rb_packet_await_reply(job, head.id, 0, &reply);
    if (failed) return failed;
    rb_channel.listens = 1;
    failed = rb_reply_errno(&reply);
    if (!failed) failed = restore_parts(restore, user, reply.body, reply.size);
    rb_packet_drop(&reply);
    return failed;
}

static int take_none(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    (void)kind, (void)bytes, (void)size, (void)user;
    return 0;
}

int rb_state_load(struct rb_worker *w) {
    const struct rb_worker_options *options = w->options;
    if (options == NULL || (options->save == NULL && options->restore == NULL)) return 0;
    int failed =
        rb_checkpoint_load(NULL, options->restore ? options->restore : take_none, options->user);
    /* There is no channel, its other end is closed, or the role keeps none: then it begins without. */
    return failed == -ENOTCONN || failed == -ESHUTDOWN || failed == -ENOTSUP ? 0 : failed;
}

static void take_state(struct rb_worker *w, const struct rb_incoming *in) {
    struct rb_packet head = {.kind = RB_PACKET_REPLY, .id = in->head.id};
    char why[64];
    const uint8_t *state = in->body + sizeof(uint64_t);
    int failed =
        restore_parts(w->options->restore, w->options->user, state, in->size - sizeof(uint64_t));
    rb_channel.held = rb_channel.coming = 0;
    if (failed) {
        snprintf(why, sizeof why, "the worker did not take it: %s", strerror(-failed));
        rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_UNAVAILABLE, why);
    } else if (head.id != 0) {
        rb_packet_send(NULL, &head, NULL, 0, 0);
    }
}

/* --- between two jobs ---------------------------------------------------------------------------------------------------- */

static void handle_restore(struct rb_worker *w, const struct rb_incoming *in) {
    struct rb_channel *c = &rb_channel;
    if (in->size < sizeof(uint64_t)) rb_kit_channel_broken("a restore without its word");
    switch (rb_u64_at(in->body)) {
    case RB_RESTORE_STATE: take_state(w, in); break;
    case RB_RESTORE_HOLD: c->held = 1; break;
    case RB_RESTORE_COMING: c->coming = 1; break;
    case RB_RESTORE_ABANDONED: c->held = c->coming = 0; break;
    default: rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_UNAVAILABLE, "no such way to restore");
    }
}

static void handle_checkpoint(struct rb_worker *w, const struct rb_incoming *in) {
    if (in->size != 2 * sizeof(uint64_t))
        rb_kit_channel_broken("a request to save of another size");
    uint64_t kind = rb_u64_at(in->body), when = rb_u64_at(in->body + sizeof kind);
    if (when == RB_SAVE_LEAVING) {
        rb_channel.leave_id = in->head.id;
        rb_channel.leave_kind = kind;
    } else {
        save(w, in->head.id, kind);
    }
}

static void handle(struct rb_worker *w, struct rb_incoming *in) {
    switch (in->head.kind) {
    case RB_PACKET_REPLY: rb_peer_granted_too_late(in); break;
    case RB_PACKET_CHECKPOINT_NOW: handle_checkpoint(w, in); break;
    case RB_PACKET_RESTORE: handle_restore(w, in); break;
    case RB_PACKET_PEER_OFFER: rb_peers_take_offer(in); break;
    case RB_PACKET_CHAOS: rb_chaos_take(w, in); break;
    default: rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_UNAVAILABLE, "this kit does not know it");
    }
    rb_packet_drop(in);
}

static void take_all(struct rb_worker *w) {
    struct rb_channel *c = &rb_channel;
    struct rb_incoming in;
    while (c->put_by_count > 0) { /* what is handled may put by more */
        in = c->put_by[0];
        memmove(c->put_by, c->put_by + 1, --c->put_by_count * sizeof in);
        handle(w, &in);
    }
    while (rb_packet_receive(&in) == 1) handle(w, &in);
    if (c->closed) {
        c->listens = c->held = c->coming = 0;
        rb_peers_channel_closed();
    }
}

void rb_channel_look(struct rb_worker *w, int now) {
    struct rb_channel *c = &rb_channel;
    if (!c->listens || (!now && w->now_ns - c->looked_ns < LOOK_EVERY_NS)) return;
    c->looked_ns = w->now_ns;
    take_all(w);
}

void rb_channel_leave(struct rb_worker *w) {
    struct rb_channel *c = &rb_channel;
    rb_channel_look(w, 1); /* the request was sent before the worker was told to leave */
    if (c->leave_id != 0) save(w, c->leave_id, c->leave_kind);
    c->leave_id = 0;
}

int rb_await_state(struct rb_job *job) {
    struct rb_channel *c = &rb_channel;
    struct rb_incoming in;
    for (;;) {
        for (unsigned i = 0; i < c->put_by_count; i++) {
            if (c->put_by[i].head.kind != RB_PACKET_RESTORE) continue;
            in = c->put_by[i];
            memmove(c->put_by + i, c->put_by + i + 1, (--c->put_by_count - i) * sizeof in);
            i--;
            handle(job->worker, &in);
        }
        if (!c->listens || !c->coming) return 0;
        int found = rb_packet_receive(&in);
        if (found < 0) return 0; /* none comes any more */
        if (found)
            rb_packet_put_by(&in);
        else if (rb_channel_wait(job, POLLIN, 0) == -ECANCELED)
            return -ECANCELED;
    }
}
