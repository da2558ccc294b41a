/* peer_asked.c: a job that another worker asked for, where it is unlike one of the bridge's: room for its answer, the answer's way,
 * what takes it back. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "peer_pvt.h"

void *rb_peer_room(struct rb_job *job, size_t size) {
    uint8_t *room = size > RB_PEER_BYTES_MAX ? NULL : malloc(size + 1);
    if (room == NULL) {
        job->wanted = size;
        job->refused = errno = EMSGSIZE;
        return NULL;
    }
    job->peer->room = room;
    job->state = RB_JOB_RESERVED;
    job->reserved = size;
    job->first_block = -1;
    return room;
}

void rb_peer_drop_room(struct rb_peer_asked *asked) {
    free(asked->room);
    asked->room = NULL;
}

void *rb_peer_keep_room(struct rb_job *job) {
    void *room = job->peer->room;
    job->peer->room = NULL;
    job->state = RB_JOB_OPEN;
    return room;
}

void *rb_peer_keep_request(struct rb_job *job) {
    void *memory = job->peer->message->memory;
    job->peer->message->memory = NULL;
    return memory;
}

void rb_peer_answer(struct rb_job *job, struct rb_completion *c) {
    struct rb_peer_asked *asked = job->peer;
    struct rb_packet head = {.kind = RB_PACKET_REPLY, .id = asked->id, .job = c->job};
    int failed = rb_peer_send(asked->on->fd, &head, c, asked->room, c->payload_bytes);
    rb_peer_drop_room(asked);
    if (failed) asked->on->last_id = UINT64_MAX; /* the end of this link: its next look drops it */
}

int rb_peer_is_cancelled(const struct rb_job *job) {
    struct rb_peer_asked *asked = job->peer;
    uint64_t now = rb_now_ns();
    /* Relaxed, both: a late look is a look one millisecond later. */
    if (rb_load_relaxed(&asked->taken_back)) return 1;
    if (rb_kit_control(job->worker) == RB_CONTROL_STOP) return 1;
    if (job->request.deadline_ns != 0 && now >= job->request.deadline_ns) return 1;
    if (now - rb_load_relaxed(&asked->looked_ns) < RB_PEER_LOOK_NS) return 0;
    rb_store_relaxed(&asked->looked_ns, now);
    struct pollfd link = {.fd = asked->on->fd, .events = POLLIN};
    if (poll(&link, 1, 0) <= 0) return 0;
    rb_store_relaxed(&asked->taken_back, 1);
    return 1;
}
