/* peer_serve.c: the serving end of links to other workers (docs/links.md).
 *
 * A request goes through the worker's own handler between two of its jobs, with a private copy of what came; its answer leaves from
 * memory of ours. It is no job of the bridge's: no started mark, no place in the counters. Whatever comes on a link while its request
 * is served takes that back, and so does the link's end. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "peer_pvt.h"

enum { LINKS_MAX = 256 };

static struct {
    int poller;  /* epoll of the channel and the links; -1: this worker serves none */
    int channel; /* the channel is among them */
    unsigned count;
    uint64_t looked_ns;
    struct rb_peer_served links[LINKS_MAX];
} peers = {.poller = -1};

/* --- links come and go -------------------------------------------------------------------------------------------------- */

static int watch(int fd, struct rb_peer_served *s) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    return epoll_ctl(peers.poller, EPOLL_CTL_ADD, fd, &event);
}

/* A kit that cannot serve others is a good worker all the same. */
void rb_peers_offer_service(struct rb_worker *w) {
    struct rb_packet head = {.kind = RB_PACKET_PEER_OPEN, .id = rb_channel_next_id()};
    struct rb_incoming reply;
    if (w->options == NULL || !w->options->serves_peers || rb_channel_fd() < 0) return;
    peers.poller = epoll_create1(EPOLL_CLOEXEC);
    if (peers.poller < 0) return;
    for (unsigned i = 0; i < LINKS_MAX; i++) peers.links[i].fd = -1;
    int failed = watch(rb_channel_fd(), NULL) < 0 ? -errno : 0;
    if (!failed) failed = rb_packet_send(NULL, &head, NULL, 0, 0);
    if (!failed) failed = rb_packet_await_reply(NULL, head.id, 0, &reply);
    if (!failed) {
        failed = rb_reply_errno(&reply);
        rb_packet_drop(&reply);
    }
    if (failed) {
        rb_peers_end();
        return;
    }
    peers.channel = 1;
    rb_channel.listens = 1; /* offers come at any time */
}

void rb_peers_take_offer(struct rb_incoming *in) {
    if (!in->has_fd || in->size < sizeof(uint64_t))
        rb_kit_channel_broken("a link was offered without its number or its socket");
    for (unsigned i = 0; peers.poller >= 0 && i < LINKS_MAX; i++) {
        struct rb_peer_served *s = &peers.links[i];
        if (s->fd >= 0) continue;
        *s = (struct rb_peer_served){.fd = in->fd, .link = rb_u64_at(in->body)};
        if (watch(s->fd, s) < 0) {
            s->fd = -1;
            break;
        }
        in->has_fd = 0;
        peers.count++;
        break;
    }
    rb_packet_drop(in); /* closes what was not taken, which tells the one that asked */
}

static void drop(struct rb_peer_served *s, const char *why) {
    if (why != NULL)
        rb_log(NULL, RB_LOG_WARNING, "link %llu is dropped: %s", (unsigned long long)s->link, why);
    close(s->fd);
    s->fd = -1;
    peers.count--;
}

void rb_peers_channel_closed(void) {
    if (peers.channel) epoll_ctl(peers.poller, EPOLL_CTL_DEL, rb_channel.fd, NULL);
    peers.channel = 0;
}

void rb_peers_end(void) {
    for (unsigned i = 0; peers.poller >= 0 && i < LINKS_MAX; i++)
        if (peers.links[i].fd >= 0) drop(&peers.links[i], NULL);
    if (peers.poller >= 0) close(peers.poller);
    peers.poller = -1;
    peers.channel = 0;
}

int rb_peers_wait_fd(void) {
    /* While a state is awaited nothing is served, so a request must not end the wait. */
    return peers.count == 0 || rb_channel.held ? rb_channel.fd : peers.poller;
}

/* --- one request -------------------------------------------------------------------------------------------------------- */

/* The rule that a request breaks, or NULL. */
static const char *broken_rule(const struct rb_peer_served *s, const struct rb_peer_message *m,
                               const struct rb_request *q) {
    if (m->head.kind != RB_PACKET_CALL) return "a message that is neither a request nor its end";
    if (m->head.id <= s->last_id) return "the number of a request is not above the last one";
    if (q->payload_bytes != m->payload_bytes) return "a payload of another size than announced";
    if (q->flags & ~RB_FLAG_TERM) return "a request with flags that none has";
    if (q->flags & RB_FLAG_TERM && !rb_peer_term_is_sound(rb_peer_payload(m), m->payload_bytes))
        return "a term that is not well-formed";
    return NULL;
}

static void serve(struct rb_worker *w, struct rb_peer_served *s, struct rb_peer_message *m) {
    uint64_t now = rb_now_ns();
    struct rb_peer_asked asked = {.on = s, .id = m->head.id, .message = m, .looked_ns = now};
    struct rb_job job = {.worker = w,
                         .peer = &asked,
                         .payload = rb_peer_payload(m),
                         .first_block = -1,
                         .drained_ns = now,
                         .start_ns = now};
    memcpy(&job.request, m->memory, sizeof job.request);
    s->last_id = m->head.id;
    if (rb_is_cancelled(&job)) {
        rb_cancelled(&job);
    } else {
        w->options->handler(&job, w->options->user);
        if (!w->leaving) rb_kit_answer_unanswered(&job); /* else the end of the link says it */
    }
    rb_peer_drop_room(&asked);
}

/* One message of a link. Returns whether a request was served. */
static int take(struct rb_worker *w, struct rb_peer_served *s) {
    struct rb_peer_message m;
    struct rb_request q;
    int found = rb_peer_receive(s->fd, &m), served = 0;
    if (found == 0) return 0;
    if (found < 0 || s->last_id == UINT64_MAX) {
        if (found > 0) rb_peer_message_drop(&m);
        drop(s, found == -EPROTO ? "a message breaks a rule" : NULL);
        return 0;
    }
    if (m.head.kind == RB_PACKET_FORGET) return 0; /* of a request that is answered already */
    memcpy(&q, m.memory, sizeof q);
    const char *rule = broken_rule(s, &m, &q);
    if (rule != NULL) {
        drop(s, rule);
    } else {
        serve(w, s, &m);
        served = 1;
    }
    rb_peer_message_drop(&m);
    return served;
}

int rb_peers_serve(struct rb_worker *w, int now) {
    struct epoll_event ready[LINKS_MAX + 1];
    int served = 0;
    if (peers.count == 0 || (!now && w->now_ns - peers.looked_ns < RB_PEER_LOOK_NS)) return 0;
    peers.looked_ns = now ? rb_now_ns() : w->now_ns;
    int count = epoll_wait(peers.poller, ready, LINKS_MAX + 1, 0);
    for (int i = 0; i < count && rb_kit_control(w) == RB_CONTROL_RUN && !w->leaving; i++) {
        struct rb_peer_served *s = ready[i].data.ptr;
        if (s == NULL || s->fd < 0) continue; /* the channel */
        if (!served) rb_kit_publish(w);       /* answers do not wait behind a peer's request */
        served += take(w, s);
    }
    if (served) w->now_ns = rb_now_ns();
    return served;
}
