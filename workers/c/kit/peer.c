/* peer.c: the asking end of a link to another worker (docs/links.md).
 *
 * The bridge grants the link and hands over one end of a socket; from there on it has no part in what is asked. A link carries one
 * request at a time. The bridge ends a link by shutting the socket down, which neither end can prevent.
 *
 * Death: the peer's ends the link (-EPIPE); ours ends what the peer does for us. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer_pvt.h"

enum { TIMEOUT_MS_MAX = 86400000 };

struct rb_peer {
    int fd; /* -1: the link is over */
    uint64_t link, last_id;
    uint64_t
        heard_id; /* of the last answer: those to requests that were taken back come once, in order */
};

/* --- opening, closing ------------------------------------------------------------------------------------------------- */

/* Links that are given back without waiting. What finds no room in the channel is told with the next one, or before the next is
 * opened; of more than so many the bridge hears when the worker ends. */
enum { UNTOLD_MAX = 64 };
static uint64_t untold[UNTOLD_MAX];
static unsigned untold_count;

static void tell_given_back(void) {
    while (untold_count > 0) {
        struct rb_packet head = {.kind = RB_PACKET_PEER_CLOSE, .id = rb_channel_next_id()};
        const struct iovec part = {&untold[untold_count - 1], sizeof *untold};
        if (rb_packet_send(NULL, &head, &part, 1, RB_AT_ONCE) != 0) return;
        untold_count--;
    }
}

static void give_back(uint64_t link) {
    if (untold_count < UNTOLD_MAX) untold[untold_count++] = link;
    tell_given_back();
}

static int ask_bridge(struct rb_job *job, uint16_t kind, const void *body, size_t size,
                      struct rb_incoming *reply) {
    struct rb_packet head = {
        .kind = kind, .id = rb_channel_next_id(), .job = job ? job->request.job : 0};
    const struct iovec part = {(void *)body, size};
    int failed = rb_packet_send(job, &head, &part, 1, 0);
    if (!failed) failed = rb_packet_await_reply(job, head.id, 0, reply);
    if (failed) return failed;
    failed = rb_reply_errno(reply);
    if (failed) rb_packet_drop(reply);
    return failed;
}

int rb_peer_open(struct rb_job *job, const char *role, struct rb_peer **peer) {
    struct rb_incoming reply;
    *peer = NULL;
    if (role == NULL || *role == '\0') return -EINVAL; /* an empty body says something else */
    tell_given_back();
    int failed = ask_bridge(job, RB_PACKET_PEER_OPEN, role, strlen(role), &reply);
    if (failed) return failed;
    struct rb_peer *made = malloc(sizeof *made);
    if (made == NULL) {
        rb_peer_granted_too_late(&reply);
        rb_packet_drop(&reply);
        return -ENOMEM;
    }
    if (!reply.has_fd || reply.size != sizeof made->link)
        rb_kit_channel_broken("a link was granted without its number or its socket");
    *made = (struct rb_peer){.fd = reply.fd, .link = rb_u64_at(reply.body)};
    reply.has_fd = 0;
    rb_packet_drop(&reply);
    *peer = made;
    return 0;
}

static int over(struct rb_peer *peer, int why) {
    if (peer->fd >= 0) close(peer->fd);
    peer->fd = -1;
    return why;
}

int rb_peer_close(struct rb_job *job, struct rb_peer *peer) {
    struct rb_incoming reply;
    uint64_t link = peer->link;
    over(peer, 0);
    free(peer);
    int failed = ask_bridge(job, RB_PACKET_PEER_CLOSE, &link, sizeof link, &reply);
    if (!failed) rb_packet_drop(&reply);
    return failed;
}

void rb_peer_abandon(struct rb_peer *peer, int tell) {
    if (tell) give_back(peer->link);
    over(peer, 0);
    free(peer);
}

void rb_peer_granted_too_late(const struct rb_incoming *in) {
    if (in->has_fd && in->size == sizeof(uint64_t)) give_back(rb_u64_at(in->body));
}

/* --- asking ------------------------------------------------------------------------------------------------------------- */

static int send_in_time(struct rb_job *job, struct rb_peer *peer, const struct rb_packet *head,
                        const struct rb_request *envelope, const void *bytes, uint64_t until_ns) {
    for (;;) {
        int failed = rb_peer_send(peer->fd, head, envelope, bytes, envelope->payload_bytes);
        if (failed != -EAGAIN) return failed;
        int found = rb_kit_wait_fd(job, peer->fd, POLLOUT, until_ns);
        if (found == 0) return -ETIMEDOUT;
        if (found == -ECANCELED) return found;
    }
}

/* The rules of an answer, on our own copy. */
static int is_sound(const struct rb_peer_message *m, const struct rb_completion *c) {
    if (m->head.kind != RB_PACKET_REPLY || m->memory == NULL) return 0;
    if (c->payload_bytes != m->payload_bytes || c->flags & ~RB_FLAG_TERM) return 0;
    if (c->status > RB_STATUS_CANCELLED) return 0;
    return !(c->flags & RB_FLAG_TERM) ||
           rb_peer_term_is_sound(rb_peer_payload(m), m->payload_bytes);
}

/* The answer to request `id`; those to requests that were taken back are dropped. A peer that sends many of them does not hold up whoever's
 * time is over. */
static int await(struct rb_job *job, struct rb_peer *peer, uint64_t id, uint64_t until_ns,
                 struct rb_peer_message *m, struct rb_completion *c) {
    for (;;) {
        int found = rb_peer_receive(peer->fd, m);
        if (found < 0) return found;
        if (found) {
            if (m->memory != NULL) memcpy(c, m->memory, sizeof *c);
            int due = is_sound(m, c) && m->head.id > peer->heard_id && m->head.id <= id;
            if (due) peer->heard_id = m->head.id;
            if (due && m->head.id == id) return 0;
            rb_peer_message_drop(m);
            if (!due) return -EPROTO;
            if (rb_now_ns() >= until_ns) return -ETIMEDOUT;
        }
        found = rb_kit_wait_fd(job, peer->fd, POLLIN, until_ns);
        if (found == 0) return -ETIMEDOUT;
        if (found == -ECANCELED) return found;
    }
}

/* A peer is told the deadline, and may give up a moment before we do: the time is over then, whoever sees it first. */
static int given_up(struct rb_job *job, uint64_t until_ns) {
    if (job != NULL && rb_is_cancelled(job)) {
        job->refused = ECANCELED; /* for a handler that returns now */
        return -ECANCELED;
    }
    return rb_now_ns() >= until_ns ? -ETIMEDOUT : -ECONNABORTED;
}

static int told(struct rb_job *job, uint64_t until_ns, const struct rb_peer_message *m,
                const struct rb_completion *c, struct rb_peer_answer *answer) {
    *answer = (struct rb_peer_answer){.bytes = rb_peer_payload(m),
                                      .size = m->payload_bytes,
                                      .is_term = (c->flags & RB_FLAG_TERM) != 0,
                                      .code = c->code,
                                      .memory = m->memory};
    if (c->status == RB_STATUS_FAILED) return -EREMOTEIO;
    return c->status == RB_STATUS_CANCELLED ? given_up(job, until_ns) : 0;
}

int rb_peer_call(struct rb_job *job, struct rb_peer *peer, uint16_t opcode, const void *bytes,
                 size_t size, int is_term, uint32_t timeout_ms, struct rb_peer_answer *answer) {
    struct rb_peer_message m;
    struct rb_completion c;
    struct rb_request envelope = {
        .opcode = opcode, .flags = is_term ? RB_FLAG_TERM : 0, .payload_bytes = (uint32_t)size};
    uint64_t deadline = job ? job->request.deadline_ns : 0;

    *answer = (struct rb_peer_answer){0};
    if (peer->fd < 0) return -EPIPE;
    if (size > RB_PEER_BYTES_MAX) return -EMSGSIZE;
    if (is_term && !rb_peer_term_is_sound(bytes, size)) return -EINVAL;
    if (timeout_ms > TIMEOUT_MS_MAX) timeout_ms = TIMEOUT_MS_MAX;
    uint64_t until = rb_now_ns() + timeout_ms * 1000000ull;
    if (deadline != 0 && deadline < until) until = deadline;
    envelope.deadline_ns = until;
    if (job != NULL) {
        envelope.job = job->request.job;
        envelope.priority = job->request.priority;
        envelope.trace_flags = job->request.trace_flags;
        memcpy(envelope.trace_id, job->request.trace_id, sizeof envelope.trace_id);
        memcpy(envelope.span_id, job->request.span_id, sizeof envelope.span_id);
        rb_kit_publish(job->worker); /* answers that short_jobs holds back do not wait for a peer */
    }
    struct rb_packet head = {.kind = RB_PACKET_CALL, .id = ++peer->last_id, .job = envelope.job};
    int failed = send_in_time(job, peer, &head, &envelope, bytes, until);
    if (failed == -EPIPE) return over(peer, failed);
    if (failed) return failed;
    failed = await(job, peer, head.id, until, &m, &c);
    if (!failed) return told(job, until, &m, &c, answer);
    if (failed == -EPIPE || failed == -EPROTO || failed == -ENOMEM) return over(peer, failed);
    /* Nobody waits for it any more. A link whose socket has no room for that is of no more use. */
    head.kind = RB_PACKET_FORGET;
    if (rb_peer_send(peer->fd, &head, NULL, NULL, 0) != 0) over(peer, 0);
    return failed;
}

void rb_peer_answer_free(struct rb_peer_answer *answer) {
    free(answer->memory);
    *answer = (struct rb_peer_answer){0};
}
