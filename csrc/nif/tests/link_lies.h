/* link_lies.h: what a relay that lies hands over and writes, at random (link_loopback.c). */
#ifndef RINGBRIDGE_NIF_TESTS_LINK_LIES_H
#define RINGBRIDGE_NIF_TESTS_LINK_LIES_H

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ringbridge/link.h"

static uint64_t noise = 88172645463325252u;

/* A number below `below`; of all numbers where that is 0. */
static uint64_t draw(uint64_t below) {
    noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
    return below ? noise % below : noise;
}

/* A number that a checked one may be taken for: near a bound, near its wrap, or any. */
static uint64_t odd(uint64_t bound) {
    switch (draw(5)) {
    case 0: return draw(bound + 2);
    case 1: return bound - draw(3);
    case 2: return UINT64_MAX - draw(bound + 1);
    case 3: return UINT32_MAX - draw(3);
    default: return draw(0);
    }
}

static void lie_in_a_request(struct rb_link *l, uint64_t pool_bytes) {
    struct rb_request *r = &l->requests[draw(l->config.slots)];
    *r = (struct rb_request){.job = draw(0),
                             .flags = (uint16_t)(draw(2)   ? draw(0)
                                                 : draw(2) ? RB_FLAG_INLINE
                                                           : 0),
                             .payload_at = odd(pool_bytes),
                             .payload_bytes =
                                 (uint32_t)odd(draw(2) ? pool_bytes / 16 : RB_INLINE_BYTES_MAX),
                             .deadline_ns = draw(3) ? 0 : draw(0),
                             .opcode = (uint16_t)draw(0),
                             .priority = (uint8_t)draw(0)};
    r->crc = (uint32_t)draw(0);
}

/* Mostly what goes on: a position that is nonsense ends all that hangs on it. */
static void lie(struct rb_link *l, uint64_t pool_bytes) {
    uint64_t blocks = l->config.result_bytes / l->config.result_block_bytes;
    static char rings[4096];
    struct rb_relay_positions *ours = l->ours;
    const struct rb_worker_positions *theirs = l->theirs;
    int nonsense = draw(200) == 0;
    switch (draw(10)) {
    case 0:
    case 1:
        if (nonsense)
            rb_store_seq_cst(&ours->request_tail, odd(l->config.slots));
        else if (ours->request_tail - theirs->request_head < l->config.slots)
            rb_store_seq_cst(&ours->request_tail, ours->request_tail + 1);
        break;
    case 2:
        rb_store_release(&ours->completion_head,
                         nonsense ? odd(l->config.slots) : theirs->completion_tail);
        break;
    case 3:
        if (nonsense) rb_store_release(&ours->giveback_tail, odd(blocks));
        break;
    case 4:
        l->givebacks[draw(blocks)] =
            (struct rb_giveback){(uint32_t)odd(blocks), (uint32_t)odd(blocks)};
        break;
    case 5:
        if (nonsense) rb_store_seq_cst(&ours->control, (uint32_t)draw(4));
        break;
    case 6:
        l->cancels[draw(l->config.slots)] =
            draw(2) ? draw(0) : l->requests[draw(l->config.slots)].job;
        break;
    case 7: l->demands[draw(l->config.slots)] = draw(0); break;
    case 8:
        send(l->bell, rings, draw(sizeof rings), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (nonsense) shutdown(l->bell, draw(2) ? SHUT_WR : SHUT_RDWR);
        break;
    default: lie_in_a_request(l, pool_bytes);
    }
}

static void hand_over(int fd, const int *fds, int count) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec word = {.iov_base = "", .iov_len = 1};
    struct msghdr m = {.msg_iov = &word,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof *fds);
    sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* Two of them in each other's place, `file` in place of one, one too few, one too many. */
static void hand_over_nonsense(int fd, const struct rb_link *link, int file) {
    const struct rb_link_fds *f = &link->fds;
    int all[] = {f->relay_side,  f->worker_side, f->pool,
                 f->wake_worker, f->wake_relay,  STDIN_FILENO};
    int a = (int)draw(5), b = (int)draw(6), count = 5;
    if (draw(3) == 0) {
        all[a] = file;
    } else if (draw(4) == 0) {
        count = draw(2) ? 6 : (int)draw(5);
    } else {
        int other = all[a];
        all[a] = all[b], all[b] = other;
    }
    if (count > 0) hand_over(fd, all, count);
}

#endif
