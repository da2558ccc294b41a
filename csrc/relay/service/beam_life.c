/* beam_life.c: how a lane begins and ends in the relay. face.c makes its memory, and frees it after its end was heard of. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "relay/relay_pvt.h"

struct rb_beam *rb_beam_find(struct rb_relay *r, uint64_t id) {
    struct rb_beam *b = r->beams;
    while (b && b->id != id) b = b->next;
    return b;
}

void rb_beam_free(struct rb_beam *b) {
    while (b->kept) {
        struct rb_beam_kept *k = b->kept;
        b->kept = k->next;
        free(k);
    }
    rb_lane_link_close(&b->link);
    free(b->slots);
    b->slots = NULL;
    b->slot_count = 0;
}

static void tell_end(struct rb_relay *r, struct rb_beam *b, const char *reason) {
    uint32_t connection = b->conn ? b->conn->id : 0;
    rb_beam_free(b);
    rb_up_event(r, RB_EVENT_LANE_ENDED, connection, b->id, 0, 0, 0, reason, strlen(reason));
}

static int watch(struct rb_relay *r, const struct rb_beam *b) {
    struct epoll_event bell = {.events = EPOLLIN | EPOLLRDHUP,
                               .data.u64 = rb_source(RB_SOURCE_LANE, b->id)};
    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, b->link.bell, &bell) < 0 ? -errno : 0;
}

void rb_beam_open(struct rb_relay *r, struct rb_beam *b, uint32_t connection) {
    b->conn = rb_conn_find(r, connection);
    if (!b->conn || b->conn->failed || watch(r, b) < 0) {
        tell_end(r, b, b->conn ? "no_room" : "no_connection");
        return;
    }
    b->next = r->beams;
    r->beams = b;
    GAUGE(b->stats.connection, connection);
    rb_vitals_soon(r); /* it reads figures of now */
}

static void end(struct rb_beam *b, const char *reason) {
    struct rb_relay *r = b->relay;
    for (struct rb_beam **p = &r->beams; *p; p = &(*p)->next) {
        if (*p != b) continue;
        *p = b->next;
        break;
    }
    for (uint32_t i = 0; i < b->slot_count; i++) {
        b->slots[i].open = 0; /* nobody hears of it any more */
        if (b->slots[i].job) rb_job_orphaned(r, b->slots[i].job);
    }
    rb_lane_link_end(&b->link);
    tell_end(r, b, reason);
}

void rb_beam_close(struct rb_relay *r, uint64_t id, const char *reason) {
    struct rb_beam *b = rb_beam_find(r, id);
    if (b) end(b, reason);
}

void rb_beams_of_conn_end(struct rb_conn *c) {
    for (struct rb_beam *b = c->relay->beams, *next; b; b = next) {
        next = b->next;
        if (b->conn == c) end(b, "connection_lost");
    }
}

void rb_beams_end(struct rb_relay *r, const char *reason) {
    while (r->beams) end(r->beams, reason);
}

/* Rung or not, the round looks into all lanes; a bell that rings for nothing costs a round. */
void rb_beam_rang(struct rb_beam *b) {
    if (rb_lane_link_hush(&b->link) < 0 && !b->broke) b->broke = "closed_by_beam";
}
