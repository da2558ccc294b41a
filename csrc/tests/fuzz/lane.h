/* fuzz/lane.h: a relay writes what it likes into its side of a lane, and the BEAM loses the lane at most.
 *
 * The library of the BEAM's end (ringbridge/lane.h) over real memory, the relay played by hand. The input is a program: what a NIF does,
 * and what the relay writes: completions, raw envelopes, positions, its header, bytes of the result region, its end. Held at every step:
 * each request that was sent is told of once, as long as it is open, and at the end none is left; what is shown lies in the region or
 * where the relay cannot write; what is kept is held until it is given back, and nothing else lies there; the figures are even; while
 * the relay has not lied, an answer is what it said. */
#ifndef RINGBRIDGE_FUZZ_LANE_H
#define RINGBRIDGE_FUZZ_LANE_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/lane_client.h"
#include "ringbridge/lane_link.h"

enum {
    FABLE_STEPS_MAX = 400,
    FABLE_RINGS = 3,
    FABLE_SLOTS = 4, /* of each ring */
    FABLE_NUMBERS = FABLE_RINGS * FABLE_SLOTS,
    FABLE_ARENA = 64 << 10,
    FABLE_RESULTS = 128 << 10, /* so that a term may lie apart (RB_LANE_TERM_APART) */
    FABLE_BLOCKS = FABLE_RESULTS / 4096
};
enum fable_step {
    FABLE_SEND,     /* ring, size: the NIF's from here on */
    FABLE_UNCLAIM,  /* ring */
    FABLE_CANCEL,   /* which, or any number */
    FABLE_DRAIN,    /* how many, and whether they are kept */
    FABLE_GIVE,     /* one that is kept, or any */
    FABLE_SLEEP,    /* park, unpark or hush */
    FABLE_CLOSE,    /* close, or lose too */
    FABLE_ECHO,     /* the relay does as it should */
    FABLE_COMPLETE, /* the relay's from here on: which request, status, place */
    FABLE_ENVELOPE, /* a completion that is bytes of the program */
    FABLE_PLACE,    /* which word, by how much */
    FABLE_SCRAWL,   /* where, bytes */
    FABLE_END,      /* the lane's, as the relay says it; or its bell is hung up */
    FABLE_STEPS
};

struct fable {
    struct rb_lane_link relay;
    struct rb_lane_client *beam;
    const uint8_t *at, *end; /* of the program */
    int lied, keep, losing;
    uint64_t sent, told;
    uint64_t number[FABLE_NUMBERS]; /* by slot; 0: not open */
    uint32_t size[FABLE_NUMBERS];   /* of its request */
    uint64_t kept[FABLE_BLOCKS];    /* by first block: bytes; 0: none */
    uint64_t held;
};

static inline uint8_t fable_byte(struct fable *f) { return f->at < f->end ? *f->at++ : 0; }
static inline uint32_t fable_u32(struct fable *f) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) v = v << 8 | fable_byte(f);
    return v;
}
static inline size_t fable_bytes(struct fable *f, void *to, size_t most) {
    size_t n = (size_t)(f->end - f->at) < most ? (size_t)(f->end - f->at) : most;
    if (n) memcpy(to, f->at, n);
    f->at += n;
    return n;
}

/* --- What the NIF sees ------------------------------------------------------------------------- */

static inline int fable_within(const uint8_t *at, size_t size, const uint8_t *from, size_t bytes) {
    return at >= from && at <= from + bytes && size <= (size_t)(from + bytes - at);
}
static inline uint64_t fable_blocks(uint64_t bytes) { return (bytes + 4095) / 4096; }

static inline int fable_see(void *arg, const struct rb_lane_answer *a) {
    struct fable *f = arg;
    struct rb_lane_client *l = f->beam;
    uint32_t slot = rb_lane_slot(a->number);
    if (slot >= FABLE_NUMBERS || f->number[slot] != a->number) abort(); /* not open */
    if (a->kind == RB_LANE_ANSWER_LOST && !f->losing) abort();
    f->number[slot] = 0;
    f->told++;
    uint8_t first = 0, differs = 0;
    for (size_t i = 0; i < a->size; i++) { /* all of it can be read */
        if (i == 0) first = a->bytes[0];
        differs |= a->bytes[i] ^ first;
    }
    int has_bytes = a->kind == RB_LANE_ANSWER_TERM || a->kind == RB_LANE_ANSWER_RAW;
    if (!has_bytes && a->size) abort();
    if (has_bytes && !f->lied && (a->size != f->size[slot] || differs)) abort();
    if (!a->keepable) {
        if (a->size && fable_within(a->bytes, 0, l->relay_side, l->header.relay_side_bytes))
            abort();
        return f->keep ? RB_LANE_KEEP : RB_LANE_TAKEN; /* which is not heard */
    }
    if (!fable_within(a->bytes, a->size, l->results, FABLE_RESULTS) ||
        a->bytes != l->results + a->at || a->size == 0)
        abort();
    for (uint64_t b = 0; b < FABLE_BLOCKS; b++) { /* nothing that is kept lies there */
        uint64_t mine = a->at / 4096, mine_end = mine + fable_blocks(a->size);
        if (f->kept[b] && b < mine_end && mine < b + fable_blocks(f->kept[b])) abort();
    }
    if (!f->keep) return RB_LANE_TAKEN;
    f->kept[a->at / 4096] = a->size;
    f->held += fable_blocks(a->size) * 4096;
    return RB_LANE_KEEP;
}
static inline void fable_check(struct fable *f) {
    struct rb_lane_figures g;
    uint64_t open = 0;
    rb_lane_read_figures(f->beam, &g);
    for (uint32_t i = 0; i < FABLE_NUMBERS; i++) open += f->number[i] != 0;
    if (g.sent != f->sent || g.answered + g.dropped != f->told || g.open != open) abort();
    if (g.held_bytes != f->held || rb_lane_held_bytes(f->beam) != f->held) abort();
    int broken = rb_lane_state(f->beam) == RB_LANE_BROKEN;
    if (broken != (rb_lane_why(f->beam)[0] != 0) || (broken && !f->lied)) abort();
}

/* --- What the NIF does ------------------------------------------------------------------------- */

static inline void fable_send(struct fable *f) {
    static uint8_t bytes[FABLE_ARENA];
    uint8_t how = fable_byte(f), more = fable_byte(f);
    uint32_t ring = how % 4 == 3 ? RB_LANE_SHARED : how % 4;
    size_t size = (how & 4 ? 192u : 1u) * more;
    uint64_t number;
    int open = rb_lane_state(f->beam) == RB_LANE_OPEN;
    int rc = rb_lane_claim(f->beam, ring, &number);
    if (!open && rc != -EPIPE) abort();
    if (rc < 0) return;
    uint32_t slot = rb_lane_slot(number);
    if (slot >= FABLE_NUMBERS || f->number[slot]) abort(); /* it is another's */
    memset(bytes, (int)(slot + 1), size < 16 ? 16 : size);
    struct iovec parts[2] = {{bytes, size / 3}, {bytes, size - size / 3}};
    struct rb_lane_request q = {.form = how & 8 ? RB_LANE_RAW : RB_LANE_TERM,
                                .caller = how,
                                .parts = parts,
                                .count = 2,
                                .role = bytes,
                                .role_bytes = how & 8 ? how & 16 : 0};
    f->number[slot] = number;
    f->size[slot] = (uint32_t)size + q.role_bytes;
    rc = rb_lane_send(f->beam, ring, number, &q);
    if (rc < 0)
        f->number[slot] = 0; /* the claim is undone */
    else
        f->sent++;
    if (rc == -EPROTO && !f->lied) abort();
}
static inline void fable_unclaim(struct fable *f) {
    uint64_t number;
    uint32_t ring = fable_byte(f) % 4;
    if (rb_lane_claim(f->beam, ring, &number) == 0) rb_lane_unclaim(f->beam, ring, number);
}
static inline void fable_cancel(struct fable *f) {
    uint8_t how = fable_byte(f);
    rb_lane_cancel(f->beam, how & 0x80 ? (uint64_t)fable_byte(f) << 32 | fable_u32(f)
                                       : f->number[how % FABLE_NUMBERS]);
}
static inline void fable_give(struct fable *f) {
    uint8_t how = fable_byte(f);
    uint64_t at = (uint64_t)(how % FABLE_BLOCKS) * 4096;
    if (how & 0x80) at = how & 0x40 ? (uint64_t)fable_u32(f) << 8 | fable_byte(f) : at + 1;
    uint64_t *kept = at % 4096 == 0 && at < FABLE_RESULTS ? &f->kept[at / 4096] : NULL;
    if (rb_lane_give_back(f->beam, at) != (kept && *kept ? 0 : -EINVAL)) abort();
    if (!kept) return;
    f->held -= fable_blocks(*kept) * 4096;
    *kept = 0;
}
static inline void fable_sleep(struct fable *f) {
    switch (fable_byte(f) % 3) {
    case 0: rb_lane_park(f->beam); break;
    case 1: rb_lane_unpark(f->beam); break;
    default: rb_lane_hush(f->beam);
    }
}
static inline void fable_lose(struct fable *f) {
    f->losing = 1;
    rb_lane_lose(f->beam, fable_see, f);
    f->losing = 0;
    for (uint32_t i = 0; i < FABLE_NUMBERS; i++)
        if (f->number[i]) abort();
}

/* --- What the relay does ------------------------------------------------------------------------ */

/* As far as it still can, after what it has written. */
static inline void fable_echo(struct fable *f) {
    uint8_t how = fable_byte(f);
    struct rb_lane_link *r = &f->relay;
    struct rb_ring_consumer *c = &r->submission_rings[how % FABLE_RINGS];
    int64_t count = rb_ring_available(c), most = 1 + (how >> 4);
    if (count > most) count = most;
    rb_lane_link_reclaim(r);
    for (int64_t i = 0; i < count; i++) {
        struct rb_lane_submission s = *rb_lane_link_submission(r, how % FABLE_RINGS, 0);
        struct rb_lane_piece piece = {rb_lane_link_bytes(r, how % FABLE_RINGS, &s), s.bytes};
        if (!piece.at) abort();
        uint32_t status = how & 4 ? RB_LANE_STATUS_RAW : RB_LANE_STATUS_TERM;
        if (how & 8) {
            status = RB_LANE_STATUS_DROPPED;
            piece.size = 0;
        }
        if (rb_lane_link_put(r, s.request, status, &piece, 1) < 0) break; /* no room now */
        rb_ring_release(c, 1);
    }
    rb_lane_link_publish(r);
}
static inline void fable_publish(struct fable *f, const struct rb_lane_completion *e) {
    struct rb_lane_link *r = &f->relay;
    int64_t slot = rb_ring_claim(&r->completion_ring);
    f->lied = 1;
    if (slot < 0) return;
    r->completions[slot] = *e;
    rb_lane_link_publish(r);
}
static inline void fable_complete(struct fable *f) {
    uint8_t which = fable_byte(f), how = fable_byte(f), size = fable_byte(f);
    struct rb_lane_completion e = {.request = f->number[which % FABLE_NUMBERS],
                                   .status = how % 5,
                                   .flags = how & 8 ? RB_LANE_FLAG_INLINE : 0,
                                   .bytes = how & 16 ? size * 512u : size,
                                   .at = (which >> 4) * 8192u};
    if (how & 32) e.at = fable_u32(f);
    if (how & 64) e.request += UINT64_C(1) << 32;
    fable_publish(f, &e);
}
static inline void fable_envelope(struct fable *f) {
    struct rb_lane_completion e;
    uint8_t how = fable_byte(f);
    memset(&e, 0, sizeof e);
    fable_bytes(f, &e, how & 1 ? sizeof e : 32);
    if (how & 2) e.request = f->number[(how >> 4) % FABLE_NUMBERS];
    if (how & 4) e.at = e.at % FABLE_RESULTS / 4096 * 4096;
    if (how & 8) e.bytes %= FABLE_RESULTS;
    fable_publish(f, &e);
}
static inline void fable_place(struct fable *f) {
    struct rb_lane_relay_positions *p = f->relay.ours;
    uint64_t *words[] = {
        &p->completion_tail, &p->giveback_head, f->relay.submission_rings[0].shared_head,
        f->relay.submission_rings[1].shared_head, f->relay.submission_rings[2].shared_head};
    uint32_t *flags[] = {&p->park, &p->doorbell, &p->state, &p->wants};
    uint8_t which = fable_byte(f), by = fable_byte(f);
    f->lied = 1;
    if (which % 9 < 5)
        rb_store_seq_cst(words[which % 9], which & 0x80 ? (uint64_t)fable_u32(f) << 32
                                                        : *words[which % 9] + (uint64_t)(int8_t)by);
    else
        rb_store_seq_cst(flags[which % 9 - 5], which & 0x80 ? fable_u32(f) : by);
}
static inline void fable_scrawl(struct fable *f) {
    struct rb_lane_link *r = &f->relay;
    uint8_t which = fable_byte(f);
    uint32_t at = fable_u32(f);
    uint8_t *parts[] = {r->relay_side + RB_LANE_AT_HEADER + at % 512, (uint8_t *)r->ours + at % 768,
                        (uint8_t *)r->completions + at % 1024,
                        r->results + at % (FABLE_RESULTS - 256)};
    f->lied = 1;
    fable_bytes(f, parts[which % 4], fable_byte(f));
}
static inline void fable_end(struct fable *f) {
    if (fable_byte(f) & 1) {
        if (f->relay.bell >= 0) close(f->relay.bell);
        f->relay.bell = -1;
        rb_gate_waker_init(&f->relay.waker, &f->relay.theirs->park, &f->relay.ours->doorbell, -1,
                           -1);
    } else {
        rb_lane_link_end(&f->relay);
    }
}

static inline void fable_step(struct fable *f) {
    switch ((enum fable_step)(fable_byte(f) % FABLE_STEPS)) {
    case FABLE_SEND: fable_send(f); break;
    case FABLE_UNCLAIM: fable_unclaim(f); break;
    case FABLE_CANCEL: fable_cancel(f); break;
    case FABLE_DRAIN: {
        uint8_t how = fable_byte(f);
        f->keep = how >> 7;
        if (rb_lane_drain(f->beam, fable_see, f, how & 0x7f) < 0 && !f->lied) abort();
        break;
    }
    case FABLE_GIVE: fable_give(f); break;
    case FABLE_SLEEP: fable_sleep(f); break;
    case FABLE_CLOSE:
        rb_lane_close(f->beam);
        if (fable_byte(f) & 1) fable_lose(f);
        break;
    case FABLE_ECHO: fable_echo(f); break;
    case FABLE_COMPLETE: fable_complete(f); break;
    case FABLE_ENVELOPE: fable_envelope(f); break;
    case FABLE_PLACE: fable_place(f); break;
    case FABLE_SCRAWL: fable_scrawl(f); break;
    case FABLE_END: fable_end(f); break;
    default: break;
    }
    fable_check(f);
}

/* 0: the BEAM has refused it, for what its header says. */
static inline int fable_open(struct fable *f) {
    struct rb_lane_config config = {.lane = 7,
                                    .rings = FABLE_RINGS,
                                    .slots = FABLE_SLOTS,
                                    .arena_bytes = FABLE_ARENA,
                                    .result_bytes = FABLE_RESULTS,
                                    .result_block_bytes = 4096};
    char why[256];
    if (rb_lane_link_create(&f->relay, &config) < 0) abort();
    for (int lies = fable_byte(f) % 8 - 4; lies > 0; lies--) {
        uint8_t at = fable_byte(f);
        f->relay.relay_side[RB_LANE_AT_HEADER + at] ^= fable_byte(f);
    }
    struct rb_lane_fds fds = {dup(f->relay.relay_side_fd), dup(f->relay.beam_side_fd),
                              dup(f->relay.beam_bell), -1};
    int rc = rb_lane_attach(&f->beam, &fds, why, sizeof why);
    rb_lane_link_handed_over(&f->relay);
    if (rc == 0) return 1;
    if (!why[0]) abort();
    close(fds.relay_side);
    close(fds.beam_side);
    close(fds.bell);
    return 0;
}

static inline int fuzz_lane(const uint8_t *data, size_t size) {
    struct fable all = {.at = data, .end = data + size}, *f = &all;
    if (fable_open(f)) {
        for (int i = 0; i < FABLE_STEPS_MAX && f->at < f->end; i++) fable_step(f);
        f->keep = 0;
        fable_lose(f); /* none is left */
        fable_check(f);
        for (uint64_t b = 0; b < FABLE_BLOCKS; b++)
            if (f->kept[b] && rb_lane_give_back(f->beam, b * 4096) < 0) abort();
        if (rb_lane_held_bytes(f->beam) != 0) abort();
        rb_lane_detach(f->beam);
    }
    rb_lane_link_close(&f->relay);
    return 0;
}

#endif
