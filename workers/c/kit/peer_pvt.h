/* peer_pvt.h: links to other workers (docs/links.md), as the kit's parts use them.
 *
 *      peer_wire.c    one message out, one message in: nothing of it is believed before it is checked
 *      peer.c         the asking end: rb_peer_open, rb_peer_call, rb_peer_close
 *      peer_serve.c   the serving end: offers, requests through the worker's handler
 *      peer_asked.c   the job that such a request is: its room, its answer, its cancel
 *
 * The other end is a worker that may be broken or hostile, as this one may be to it. Whatever it sends is copied into memory of our own
 * and checked there; who breaks a rule loses the link, and nobody loses a process. All of it belongs to the handler's thread. */
#ifndef RINGBRIDGE_PEER_PVT_H
#define RINGBRIDGE_PEER_PVT_H

#include "channel_pvt.h"

/* A message is struct rb_packet, an envelope (struct rb_request or struct rb_completion, both of this size), and payload. */
enum { RB_PEER_ENVELOPE_BYTES = 128 };

struct rb_peer_message {
    struct rb_packet head;
    uint8_t *memory; /* envelope and payload, ours until rb_peer_message_drop() */
    size_t payload_bytes;
};

/* 0; -EAGAIN: the socket is full; -EPIPE: the link is over; or what making a memfd gave. */
int rb_peer_send(int fd, const struct rb_packet *head, const void *envelope, const void *payload,
                 size_t payload_bytes);
/* 1: a message, whose head is as long as it says; 0: none; -EPIPE; -EPROTO: a rule is broken; -ENOMEM. A packet without
 * a body (PACKET_FORGET) has memory NULL. */
int rb_peer_receive(int fd, struct rb_peer_message *m);
void rb_peer_message_drop(struct rb_peer_message *m);
static inline const void *rb_peer_payload(const struct rb_peer_message *m) {
    return m->memory + RB_PEER_ENVELOPE_BYTES;
}
/* Whether a payload that is said to be a term is one. */
int rb_peer_term_is_sound(const void *bytes, size_t size);

/* rb_peer_close() that waits for nothing; without `tell` the bridge does not hear of it either, as in a forked child. */
void rb_peer_abandon(struct rb_peer *peer, int tell);
/* A reply that nobody waits for any more. If it grants a link, that goes back: nobody else could, and it counts against links_max. */
void rb_peer_granted_too_late(const struct rb_incoming *in);

/* --- a request that is served ------------------------------------------------------------------------------------------ */

enum { RB_PEER_LOOK_NS = 1000000 }; /* between two looks in the midst of other work */

struct rb_peer_served {
    int fd; /* -1: free */
    uint64_t link, last_id;
};

struct rb_peer_asked {
    struct rb_peer_served *on;
    uint64_t id;
    struct rb_peer_message *message;
    uint8_t *room;      /* for the answer */
    uint64_t looked_ns; /* any thread of the handler, relaxed, as the next */
    int taken_back;
};

/* --- the serving end, as the loop uses it ------------------------------------------------------------------------------ */

/* Says that this worker serves others, before the hello, where its options say so. */
void rb_peers_offer_service(struct rb_worker *w);
void rb_peers_take_offer(struct rb_incoming *in);
/* Serves one request of each link that has one; with `now` 0 at most once a millisecond. Returns how many. A comparison while there is no
 * link. */
int rb_peers_serve(struct rb_worker *w, int now);
/* What an idle worker that listens waits for: the channel, and its links where it has some. */
int rb_peers_wait_fd(void);
void rb_peers_channel_closed(void);
void rb_peers_end(void);

#endif
