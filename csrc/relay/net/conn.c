/* conn.c: established sockets. Always read; written only here, in one piece a round; bounded both ways. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "relay/net/tls.h"
#include "relay/relay_pvt.h"

enum {
    TURN_BYTES = 2 << 20, /* one peer's flood must not starve the others, */
    TURN_NS = 1000000,    /* nor the work that its bytes make: after so long no read follows */
    KEEP_OUT = 1 << 20,   /* bytes of an empty buffer that are kept */
};

struct rb_conn *rb_conn_find(struct rb_relay *r, uint32_t id) {
    struct rb_conn *c = r->conns[id % CONNECTIONS_MAX];
    if (c && c->id == id) return c;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i] && r->conns[i]->id == id) return r->conns[i];
    }
    return NULL;
}

/* Its own place, or any: a connection that lives long must not keep a newcomer of the same remainder out. */
static struct rb_conn **room_for(struct rb_relay *r, uint32_t id) {
    struct rb_conn **slot = &r->conns[id % CONNECTIONS_MAX];
    for (uint32_t i = 0; *slot && i < CONNECTIONS_MAX; i++) slot = &r->conns[i];
    return *slot ? NULL : slot;
}

/* Answers are small and waited for: no Nagle. On loopback nothing is ever lost, and pacing by the default congestion control
 * (bbr on many hosts) only delays: a fifth of the rate at one caller. */
static void tune(int fd) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int on = 1;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0) return;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&peer;
    int loopback = (peer.ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127) ||
                   (peer.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr));
    if (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (loopback) setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

struct rb_conn *rb_conn_of_node(struct rb_relay *r, struct rb_slice node) {
    /* The newest, where a node has come back before its first connection was seen to be gone. */
    struct rb_conn *found = NULL;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_conn *c = r->conns[i];
        if (c && !c->failed && (!found || c->id > found->id) && rb_slice_equal(node, c->peer_text))
            found = c;
    }
    return found;
}

static void poll_for(struct rb_conn *c, int out) {
    if (c->wants_out == out) return;
    c->wants_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0),
                            .data.u64 = rb_source(RB_SOURCE_CONN, c->id)};
    epoll_ctl(c->relay->epoll, EPOLL_CTL_MOD, c->wire.fd, &e);
}

/* The peer may have sent frames behind its last handshake message. They are fed like any other bytes. */
static void feed(struct rb_conn *c, const uint8_t *bytes, size_t size) {
    while (size > 0 && !c->failed) {
        struct rb_room room[2];
        rb_intake_room(&c->intake, room);
        size_t n = room[0].size < size ? room[0].size : size;
        memcpy(room[0].at, bytes, n);
        bytes += n;
        size -= n;
        if (rb_intake_took(&c->intake, n) < 0) rb_conn_fail(c, c->intake.why);
    }
}

int rb_conn_open(struct rb_relay *r, uint32_t id, struct rb_flow *flow, int fd, struct rb_tls *tls,
                 const char *peer, uint64_t flags, const uint8_t *leftover, size_t size) {
    struct rb_conn **slot = room_for(r, id);
    if (!slot) return -EMFILE;
    struct rb_conn *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->relay = r;
    c->id = id;
    c->flow = flow;
    c->wire = (struct rb_wire){.fd = fd, .connection = id, .tape = r->tape, .tls = tls};
    strncpy(c->peer, peer, sizeof c->peer - 1);
    c->peer_text = (struct rb_slice){(const uint8_t *)c->peer, strlen(c->peer)};
    c->flags = flags;
    c->sent_ns = c->received_ns = r->now;
    rb_service_bind(c);
    if (rb_outgoing_open(c) < 0 ||
        rb_intake_open(&c->intake, &c->owner, flags, r->config.frame_bytes_max,
                       r->config.signal_bytes_max) < 0) {
        rb_outgoing_free(c);
        free(c);
        return -ENOMEM;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = rb_source(RB_SOURCE_CONN, id)};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
        int error = errno;
        rb_intake_close(&c->intake);
        rb_outgoing_free(c);
        free(c);
        return -error;
    }
    *slot = c;
    tune(fd);
    COUNT(r->stats.connections, 1);
    if (tls) { /* before anything is fed: its answer comes behind what waits already */
        c->out = tls->unsent;
        tls->unsent = (struct rb_buffer){.at = NULL};
    }
    feed(c, leftover, size);
    if (tls) {
        feed(c, tls->unread.at, tls->unread.end);
        rb_conn_read(c); /* libssl may hold more, which epoll does not see */
        rb_conn_dirty(c);
    }
    return 0;
}

void rb_conn_fail(struct rb_conn *c, const char *reason) {
    if (!c->failed) c->failed = reason ? reason : "closed";
    rb_conn_dirty(c); /* closed when the round flushes */
}

void rb_conn_close(struct rb_conn *c, const char *reason) {
    struct rb_relay *r = c->relay;
    c->failed = reason; /* answers to it go nowhere from here */
    rb_beams_of_conn_end(c);
    while (c->jobs) rb_job_orphaned(r, c->jobs);
    rb_intake_close(&c->intake);
    rb_monitors_free(c);
    if (c->account) rb_account_release(&c->relay->accounts, c->account);
    if (c->dirty) {
        for (struct rb_conn **p = &r->dirty_conns; *p; p = &(*p)->next_dirty) {
            if (*p == c) {
                *p = c->next_dirty;
                break;
            }
        }
    }
    if (c->unread) {
        for (struct rb_conn **p = &r->unread_conns; *p; p = &(*p)->next_unread) {
            if (*p == c) {
                *p = c->next_unread;
                break;
            }
        }
    }
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i] == c) r->conns[i] = NULL;
    }
    COUNT(r->stats.connections, -1);
    /* Its descriptor is free before anybody hears of its end; words of TLS go with it. */
    char words[sizeof(struct rb_tls_words)];
    size_t size = strnlen(reason, sizeof words);
    memcpy(words, reason, size);
    rb_wire_close(&c->wire);
    rb_up_event(r, RB_EVENT_CONNECTION_LOST, c->id, 0, 0, 0, 0, words, size);
    rb_outgoing_free(c);
    free(c->out.at);
    free(c->farewell);
    free(c);
}

/* The words of a connection's end for what reading or writing it gave. */
static const char *end_of(const struct rb_conn *c, ssize_t n) {
    switch (n) {
    case 0: return "closed_by_peer";
    case -ECONNRESET:
    case -EPIPE: return "reset_by_peer";
    case -EPROTO: return rb_wire_why(&c->wire);
    default: return "socket_error";
    }
}

/* Bytes that libssl holds wake nobody: this connection is read again without being asked. */
static void unread(struct rb_conn *c) {
    if (c->unread) return;
    c->unread = 1;
    c->next_unread = c->relay->unread_conns;
    c->relay->unread_conns = c;
}

void rb_conns_read(struct rb_relay *r) {
    struct rb_conn *c = r->unread_conns;
    r->unread_conns = NULL;
    while (c) {
        struct rb_conn *next = c->next_unread; /* reading may put it on the new list */
        c->unread = 0;
        rb_conn_read(c);
        c = next;
    }
}

void rb_conn_read(struct rb_conn *c) {
    struct rb_relay *r = c->relay;
    uint64_t from = rb_relay_clock(r);
    for (uint64_t bytes = 0; bytes < TURN_BYTES && !c->failed;) {
        struct rb_room room[2];
        struct iovec iov[2];
        if (bytes > 0 && rb_relay_clock(r) - from > TURN_NS) break;
        int pieces = rb_intake_room(&c->intake, room);
        for (int k = 0; k < pieces; k++) iov[k] = (struct iovec){room[k].at, room[k].size};
        ssize_t n = rb_wire_read(&c->wire, iov, pieces);
        if (n == -EAGAIN) break;
        if (n <= 0) {
            rb_conn_fail(c, end_of(c, n));
            return;
        }
        c->received_ns = c->relay->now;
        COUNT(c->relay->stats.bytes_in, n);
        bytes += (uint64_t)n;
        if (rb_intake_took(&c->intake, (size_t)n) < 0) rb_conn_fail(c, c->intake.why);
        if (c->wire.drained) break;
    }
    if (!c->wire.tls || c->failed) return;
    if (!c->wire.drained) unread(c);
    if (c->wire.unsent) rb_conn_dirty(c);
}

void rb_conn_dirty(struct rb_conn *c) {
    if (c->dirty) return;
    c->dirty = 1;
    c->next_dirty = c->relay->dirty_conns;
    c->relay->dirty_conns = c;
}

ssize_t rb_conn_transmit(struct rb_conn *c, const struct iovec *more, int pieces) {
    enum { PIECES_MAX = 32 };
    struct iovec iov[1 + PIECES_MAX], *at = iov;
    size_t waiting = c->out.end - c->out.begin, total = waiting, sent = 0;
    int count = 0;
    if (waiting > 0) iov[count++] = (struct iovec){c->out.at + c->out.begin, waiting};
    for (int i = 0; i < pieces && i < PIECES_MAX; i++) {
        total += more[i].iov_len;
        if (more[i].iov_len > 0) iov[count++] = more[i];
    }
    while (sent < total) {
        ssize_t n = rb_wire_write(&c->wire, at, count);
        if (n == -EAGAIN) break;
        if (n < 0) {
            rb_conn_fail(c, end_of(c, n));
            return -1;
        }
        sent += (size_t)n;
        c->sent_ns = c->relay->now;
        for (size_t gone = (size_t)n; gone > 0 && count > 0;) {
            size_t part = gone < at->iov_len ? gone : at->iov_len;
            at->iov_base = (uint8_t *)at->iov_base + part;
            at->iov_len -= part;
            gone -= part;
            if (at->iov_len == 0) at++, count--;
        }
    }
    COUNT(c->relay->stats.bytes_out, sent);
    c->out.begin += sent < waiting ? sent : waiting;
    return sent > waiting ? (ssize_t)(sent - waiting) : 0;
}

int rb_conn_write_through(struct rb_conn *c, const uint8_t *bytes, size_t size) {
    if (c->failed) return -EPIPE;
    struct iovec all = {(void *)(uintptr_t)bytes, size};
    ssize_t sent = rb_conn_transmit(c, &all, 1);
    if (sent < 0) return -EPIPE;
    if ((size_t)sent == size) return 0;
    if (rb_buffer_put(&c->out, bytes + sent, size - (size_t)sent) < 0) {
        rb_conn_fail(c, "no_memory");
        return -ENOMEM;
    }
    rb_conn_dirty(c);
    return 0;
}

void rb_conn_flush(struct rb_conn *c) {
    if (c->failed) return;
    if (c->untold) rb_shared_tell(c);
    if (c->out.begin < c->out.end && rb_conn_transmit(c, NULL, 0) < 0) return;
    if (c->wire.unsent) {
        int rc = rb_wire_flush(&c->wire);
        if (rc < 0 && rc != -EAGAIN) rb_conn_fail(c, end_of(c, rc));
    }
    if (c->out.begin == c->out.end) rb_outgoing_pump(c);
    if (c->failed) return;
    uint64_t left = rb_conn_waiting_bytes(c);
    if (left > c->relay->config.outgoing_bytes_max) {
        rb_conn_fail(c, "outgoing_limit_reached: the peer does not read");
        return;
    }
    rb_store_relaxed(&c->flow->queued, left); /* a figure for the other thread */
    if (c->wants_room && left <= c->relay->config.outgoing_low_bytes) {
        c->wants_room = 0;
        rb_up_event(c->relay, RB_EVENT_CONNECTION_ROOM, c->id, 0, 0, 0, 0, NULL, 0);
    }
    if (c->streams.held && left <= c->relay->config.outgoing_low_bytes) rb_streams_resume(c);
    if (c->untold && left <= c->relay->config.outgoing_low_bytes) rb_conn_dirty(c);
    if (c->out.begin == c->out.end && c->out.capacity > KEEP_OUT) {
        free(c->out.at); /* a slow reader's backlog is not kept for ever */
        c->out = (struct rb_buffer){.at = NULL};
    }
    poll_for(c, left > 0 || c->wire.unsent);
}

void rb_conns_tick(struct rb_relay *r) {
    /* net_ticktime's rule (dist_util.erl): the kernel's clock is looked at four times an interval. */
    uint64_t interval = r->config.tick_ms * NS_PER_MS;
    if (r->now - r->ticked_ns < interval / 4) return;
    r->ticked_ns = r->now;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_conn *c = r->conns[i];
        if (!c) continue;
        if (r->now - c->received_ns > r->config.silence_ms * NS_PER_MS) {
            rb_conn_fail(c, "net_tick_timeout");
        } else if (r->now - c->sent_ns >= interval * 3 / 4) {
            static const uint8_t tick[4];
            if (rb_buffer_put(&c->out, tick, sizeof tick) == 0) rb_conn_dirty(c);
            c->sent_ns = r->now;
        }
    }
}
