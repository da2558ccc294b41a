/* fuzz/beam.h: a BEAM writes what it likes into its side of a lane, and others notice nothing.
 *
 * A relay without a thread, one role with an honest worker, and three who call: a liar over a lane that it maps by hand, an honest BEAM
 * over another lane, and a peer over the connection that both belong to. The input is a program: requests, cancel words, extents given
 * back, positions, the hello, bytes of the arenas, raw submissions. Held at every step and at the end: of each request of the liar's that
 * the relay took there is one completion, in order by slot, at a place that is not lent twice; the honest ones are answered once, with
 * what their worker said; the books are even (audit.c); and no sanitizer finds anything. */
#ifndef RINGBRIDGE_FUZZ_BEAM_H
#define RINGBRIDGE_FUZZ_BEAM_H

#include <stddef.h>

#include "../relay_lab.h"
#include "core/lane_pvt.h"
#include "ringbridge/lab.h"
#include "ringbridge/lane.h"
#include "ringbridge/lane_link.h"

enum {
    FIB_STEPS_MAX = 300,
    FIB_RINGS = 2,
    FIB_SLOTS = 8, /* of each ring */
    FIB_NUMBERS = FIB_RINGS * FIB_SLOTS,
    FIB_ARENA = 64 << 10,
    FIB_RESULTS = 64 << 10,
    FIB_BLOCKS = FIB_RESULTS / 4096,
    FIB_LANES_MAX = 6,
    FIB_CALLS_MAX = 200,
    FIB_HONEST_LANE = 99,
    FIB_REPLY_MAX = 96 << 10, /* more than a lane's whole region */
};
enum fib_step {
    FIB_RAW,     /* a request as the library writes it, of bytes: where, how large, how long */
    FIB_TERM,    /* {submit, echo, Binary}, or bytes of the program */
    FIB_LARGE,   /* either, larger than what is copied whole */
    FIB_WRONG,   /* a submission that is bytes of the program */
    FIB_PLACE,   /* which word, by how much */
    FIB_CANCEL,  /* which slot, which generation */
    FIB_GIVE,    /* an extent that it holds, or any */
    FIB_HEADER,  /* where, a byte */
    FIB_SCRAWL,  /* where in all that it can write, bytes */
    FIB_TAKE,    /* completions: how many */
    FIB_HONEST,  /* the other BEAM calls */
    FIB_PEER,    /* the peer calls */
    FIB_WORK,    /* the worker answers one: status, size */
    FIB_TIME,    /* how long */
    FIB_HANG_UP, /* the liar dies; another comes */
    FIB_STEPS
};

struct fib_lane { /* the liar's end */
    int open;
    int gave_wrong; /* what it gave back may be a lie: what it is lent then is held to nothing */
    int took_wrong; /* nor is what it is told, once it has lied about what it took */
    uint64_t id;
    int fds[4];
    struct rb_lane_parts parts;
    const uint8_t *theirs; /* the relay's side */
    uint8_t *ours;
    uint64_t tails[FIB_RINGS], head, gives, cancels;
    uint32_t answered[FIB_NUMBERS]; /* by slot: the generation that was completed last */
    uint32_t asked[FIB_NUMBERS];    /* and the one that was sent last, as far as it did not lie */
    uint32_t held[FIB_BLOCKS];      /* by first block: how many */
    uint8_t busy[FIB_BLOCKS];
};

struct fib {
    struct rb_relay *relay;
    struct rb_lab_worker *worker;
    struct rb_lane_client *honest;
    int peer;
    uint64_t now, lanes;
    struct fib_lane liar;
    const uint8_t *at, *end; /* of the program */
    uint32_t calls, unread, expired;
    uint8_t answers[FIB_CALLS_MAX + 1];
    uint32_t call_of[FIB_NUMBERS]; /* by slot of the honest lane */
    size_t in_size;
    uint8_t in[3 << 20]; /* last: not cleared */
};

static inline uint8_t fib_byte(struct fib *f) { return f->at < f->end ? *f->at++ : 0; }
static inline uint32_t fib_u32(struct fib *f) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) v = v << 8 | fib_byte(f);
    return v;
}
static inline size_t fib_bytes(struct fib *f, void *to, size_t most) {
    size_t n = (size_t)(f->end - f->at) < most ? (size_t)(f->end - f->at) : most;
    if (n) memcpy(to, f->at, n);
    f->at += n;
    return n;
}

/* --- What honest callers hear ------------------------------------------------------------------ */

/* The n-th call is answered once, and while no deadline passes with its worker's words. */
static inline void fib_heard(struct fib *f, uint32_t n, const uint8_t *answer, size_t size) {
    char words[32];
    if (n == 0 || n > f->calls || f->answers[n]++) abort();
    snprintf(words, sizeof words, "said %u.", n);
    if (!f->expired && !memmem(answer, size, words, strlen(words))) {
        fprintf(stderr, "call %u: not its words: %.*s\n", n, (int)size, (const char *)answer);
        abort();
    }
}
static inline int fib_take_honest(void *arg, const struct rb_lane_answer *a) {
    struct fib *f = arg;
    uint32_t n = f->call_of[rb_lane_slot(a->number)];
    if (a->kind == RB_LANE_ANSWER_LOST || a->kind == RB_LANE_ANSWER_DROPPED) abort();
    fib_heard(f, n, a->bytes, a->size);
    return RB_LANE_TAKEN;
}
static inline void fib_frame(struct fib *f, const uint8_t *frame, size_t size) {
    struct rb_cursor c = {frame, frame + size};
    struct rb_slice control, part;
    uint64_t op = 0;
    if (rb_term_skip(&c, &control) < 0) abort();
    struct rb_cursor in = rb_cursor_of(control);
    if (rb_term_tuple(&in) < 3 || rb_term_unsigned(&in, &op) < 0) abort();
    if (op != RB_OP_ALIAS_SEND) return;
    if (rb_term_skip(&in, &part) < 0 || rb_term_skip(&in, &part) < 0) abort();
    fib_heard(f, rb_be32(part.at + part.size - 12), c.at, (size_t)(c.end - c.at));
}
static inline int fib_listen(struct fib *f) {
    for (int heard = 0;;) {
        ssize_t n = recv(f->peer, f->in + f->in_size, sizeof f->in - f->in_size, MSG_DONTWAIT);
        if (n == 0) abort(); /* whatever a lane does, no connection closes */
        if (n > 0) f->in_size += (size_t)n, heard = 1;
        size_t at = 0;
        while (f->in_size - at >= 4 && f->in_size - at - 4 >= rb_be32(f->in + at)) {
            uint32_t length = rb_be32(f->in + at);
            if (length > 3) fib_frame(f, f->in + at + 7, length - 3);
            at += 4 + length;
        }
        memmove(f->in, f->in + at, f->in_size -= at);
        if (n < 0) return heard;
    }
}

/* --- The liar's end --------------------------------------------------------------------------- */

static inline struct rb_lane_beam_positions *fib_positions(struct fib *f) {
    return (void *)(f->liar.ours + RB_LANE_AT_POSITIONS);
}
static inline void fib_ring(struct fib *f) {
    if (send(f->liar.fds[2], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN &&
        errno != EPIPE)
        abort();
}
static inline void fib_unmap(struct fib *f) {
    struct fib_lane *l = &f->liar;
    if (!l->open) return;
    munmap((void *)(uintptr_t)l->theirs, l->parts.relay_side_bytes);
    munmap(l->ours, l->parts.beam_side_bytes);
    for (int i = 0; i < 4; i++) close(l->fds[i]);
    l->open = 0;
}
static inline struct rb_lane_config fib_config(uint64_t id) {
    return (struct rb_lane_config){.lane = id,
                                   .rings = FIB_RINGS,
                                   .slots = FIB_SLOTS,
                                   .arena_bytes = FIB_ARENA,
                                   .result_bytes = FIB_RESULTS,
                                   .result_block_bytes = 4096};
}
/* What the relay has told it: each request once, in order by slot, where nothing else that it holds lies. */
static inline void fib_take(struct fib *f, uint32_t most) {
    struct fib_lane *l = &f->liar;
    const struct rb_lane_relay_positions *p = (const void *)(l->theirs + RB_LANE_AT_POSITIONS);
    const struct rb_lane_completion *all = (const void *)(l->theirs + l->parts.completions_at);
    uint64_t tail = rb_load_acquire(&p->completion_tail);
    for (; l->head != tail && most; l->head++, most--) {
        const struct rb_lane_completion *e = &all[l->head % FIB_NUMBERS];
        uint32_t slot = rb_lane_slot(e->request), generation = (uint32_t)(e->request >> 32);
        if (slot >= FIB_NUMBERS || (generation != ++l->answered[slot] && !l->took_wrong)) abort();
        if (l->asked[slot] < generation) l->asked[slot] = generation; /* it guessed right */
        if (e->status < RB_LANE_STATUS_TERM || e->status > RB_LANE_STATUS_DROPPED) abort();
        if (e->flags & RB_LANE_FLAG_INLINE) {
            if (e->bytes > RB_LANE_INLINE_BYTES_MAX) abort();
            continue;
        }
        if (e->at % 4096 || e->at >= FIB_RESULTS || e->bytes > FIB_RESULTS - e->at) abort();
        uint32_t first = (uint32_t)(e->at / 4096), count = (e->bytes + 4095) / 4096;
        for (uint32_t i = first; i < first + count; i++) {
            if (l->busy[i] && !l->gave_wrong) abort();
            l->busy[i] = 1;
        }
        l->held[first] = count;
    }
    rb_store_release(&fib_positions(f)->completion_head, l->head);
}
static inline void fib_give(struct fib *f, uint64_t at) {
    struct fib_lane *l = &f->liar;
    struct rb_lane_giveback *ring = (void *)(l->ours + l->parts.givebacks_at);
    uint64_t first = at / 4096;
    if (at % 4096 || first >= FIB_BLOCKS || !l->held[first]) l->gave_wrong = 1;
    if (!l->gave_wrong) {
        memset(l->busy + first, 0, l->held[first]);
        l->held[first] = 0;
    }
    rb_store_relaxed(&ring[l->gives++ % FIB_BLOCKS].at, at);
    rb_store_seq_cst(&fib_positions(f)->giveback_tail, l->gives);
}

/* --- Rounds ----------------------------------------------------------------------------------- */

static inline int fib_round(struct fib *f, uint64_t ns) { /* 1 when the peer heard something */
    struct rb_event event;
    lab_write(f->peer, "\0\0\0\0", 4); /* a tick: it lives, however much time passes */
    rb_lab_round(f->relay, f->now += ns);
    while (rb_relay_take(f->relay, &event)) {
        if (event.kind != RB_EVENT_LANE_ENDED) continue;
        if (event.worker == FIB_HONEST_LANE) abort();
        if (event.worker == f->liar.id && f->liar.open) {
            fib_take(f, UINT32_MAX); /* what was published before the end stays */
            fib_unmap(f);
        }
    }
    int heard = fib_listen(f);
    while (rb_lane_drain(f->honest, fib_take_honest, f, 64) > 0) {
    }
    if (rb_lane_state(f->honest) != RB_LANE_OPEN) abort();
    return heard;
}
static inline void
fib_audit(struct fib *f) { /* it looks at all that a relay has: not every round */
    char why[256];
    if (rb_relay_audit(f->relay, why, sizeof why) == 0) return;
    fprintf(stderr, "%s\n", why);
    abort();
}

/* A lane for the liar, greeted or, one in four, as the program says. */
static inline void fib_come(struct fib *f) {
    struct fib_lane *l = &f->liar;
    struct rb_lane_config config = fib_config(f->lanes + 1);
    struct rb_lane_sizes sizes = {.rings = FIB_RINGS,
                                  .slots = FIB_SLOTS,
                                  .arena_bytes = FIB_ARENA,
                                  .result_bytes = FIB_RESULTS,
                                  .result_block_bytes = 4096};
    if (l->open || f->lanes == FIB_LANES_MAX) return;
    memset(l, 0, sizeof *l);
    l->id = ++f->lanes;
    if (rb_lane_parts(&l->parts, &sizes) < 0 ||
        rb_relay_open_lane(f->relay, 1, &config, l->fds) < 0)
        abort();
    l->theirs = mmap(NULL, l->parts.relay_side_bytes, PROT_READ, MAP_SHARED, l->fds[0], 0);
    l->ours =
        mmap(NULL, l->parts.beam_side_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, l->fds[1], 0);
    if (l->theirs == MAP_FAILED || (void *)l->ours == MAP_FAILED) abort();
    l->open = 1;
    const struct rb_lane_relay_header *header = (const void *)(l->theirs + RB_LANE_AT_HEADER);
    struct rb_lane_beam_header hello = {
        .magic = RB_LANE_BEAM_MAGIC, .version = RB_LANE_LAYOUT_VERSION, .nonce = header->nonce};
    memcpy(hello.digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof hello.digest);
    hello.pid = 1;
    if (fib_byte(f) % 4 == 3) ((uint8_t *)&hello)[fib_byte(f) % 64] ^= fib_byte(f);
    hello.hello = fib_byte(f) % 8 == 7 ? fib_byte(f) : RB_LANE_HELLO_READY;
    memcpy(l->ours + RB_LANE_AT_HEADER, &hello, sizeof hello);
    fib_ring(f);
    fib_round(f, 1000);
}

/* --- What the liar writes --------------------------------------------------------------------- */

static inline void fib_publish(struct fib *f, uint32_t ring, const struct rb_lane_submission *s) {
    struct fib_lane *l = &f->liar;
    struct rb_lane_submission *all = (void *)(l->ours + l->parts.submissions_at);
    struct rb_lane_position *tails = (void *)(l->ours + l->parts.tails_at);
    all[ring * FIB_SLOTS + l->tails[ring] % FIB_SLOTS] = *s;
    rb_store_seq_cst(&tails[ring].at, ++l->tails[ring]);
    fib_ring(f);
}
/* A slot that has its answer, as an honest BEAM takes one; FIB_NUMBERS: none. */
static inline uint32_t fib_free_slot(struct fib *f, uint32_t ring) {
    for (uint32_t slot = ring * FIB_SLOTS; slot < (ring + 1) * FIB_SLOTS; slot++)
        if (f->liar.asked[slot] == f->liar.answered[slot]) return slot;
    return FIB_NUMBERS;
}
/* {submit, echo, Binary} or with options; an edited size of the binary is one of the lies. How many bytes. */
static inline uint32_t fib_term(struct fib *f, uint8_t how, uint32_t size, uint8_t *to) {
    struct lab_bytes head = {.size = 0}, map = {.size = 0};
    lab_submit_head(&head, how & 16 ? 4 : 3, "echo");
    lab_put_binary(&head, "", 0);
    rb_put_be32(head.at + head.size - 4, how & 32 ? fib_u32(f) : size);
    memcpy(to, head.at, head.size);
    memset(to + head.size, 0, size);
    if (how & 16) {
        PUT(&map, "\x74\x00\x00\x00\x01");
        lab_put_atom(&map, how & 64 ? "timeout" : "detail");
        lab_put_atom(&map, "true");
    }
    memcpy(to + head.size + size, map.at, map.size);
    return (uint32_t)(head.size + size + map.size);
}
static inline void fib_request(struct fib *f, enum fib_step kind) {
    static uint8_t bytes[FIB_ARENA];
    struct fib_lane *l = &f->liar;
    uint8_t how = fib_byte(f);
    uint32_t ring = how & 1, slot = fib_free_slot(f, ring);
    if (slot == FIB_NUMBERS) return;
    int raw = kind == FIB_RAW || (kind == FIB_LARGE && (how & 2));
    uint32_t size = kind == FIB_LARGE ? 16000 + fib_byte(f) * 128u : fib_byte(f);
    struct rb_lane_submission s = {.request = (uint64_t)++l->asked[slot] << 32 | slot,
                                   .form = raw ? RB_LANE_FORM_RAW : RB_LANE_FORM_TERM,
                                   .caller = how,
                                   .timeout_ms = how & 4 ? RB_LANE_NO_TIMEOUT : how};
    if (raw) {
        memset(bytes, 0, 4 + size);
        memcpy(bytes, "echo", 4);
        s.role_bytes = how & 8 ? fib_byte(f) : 4;
        s.bytes = 4 + size;
    } else if (kind == FIB_TERM && (how & 8)) {
        s.bytes = (uint32_t)fib_bytes(f, bytes, size);
    } else {
        s.bytes = fib_term(f, how, size, bytes);
    }
    if (s.bytes <= RB_LANE_INLINE_BYTES_MAX && !(how & 128)) {
        s.flags = RB_LANE_FLAG_INLINE;
        memcpy(s.body, bytes, s.bytes);
    } else {
        s.at = how & 128 ? fib_byte(f) * 64u % (FIB_ARENA - s.bytes + 1) : 0;
        memcpy(l->ours + l->parts.arenas_at + ring * FIB_ARENA + s.at, bytes, s.bytes);
    }
    fib_publish(f, ring, &s);
}
static inline void fib_wrong(struct fib *f) {
    struct rb_lane_submission s = {.request = 0};
    uint8_t how = fib_byte(f);
    uint32_t ring = how & 1, slot = fib_free_slot(f, ring);
    fib_bytes(f, &s, how & 2 ? sizeof s : 40);
    if ((how & 4) && slot < FIB_NUMBERS) s.request = (uint64_t)++f->liar.asked[slot] << 32 | slot;
    if (how & 8) s.at %= FIB_ARENA;
    if (how & 16) s.bytes %= FIB_ARENA;
    if (how & 32) s.form = 1 + (s.form & 1);
    if (how & 64) s.role_bytes = s.role_bytes % 16;
    fib_publish(f, ring, &s);
}
static inline void fib_place(struct fib *f) {
    struct rb_lane_beam_positions *p = fib_positions(f);
    struct rb_lane_position *tails = (void *)(f->liar.ours + f->liar.parts.tails_at);
    uint64_t *words[] = {&p->completion_head, &p->giveback_tail, &p->cancels, &tails[0].at,
                         &tails[1].at};
    uint8_t which = fib_byte(f);
    int8_t by = (int8_t)fib_byte(f);
    if (which % 6 < 5)
        rb_store_seq_cst(words[which % 6], which & 0x80 ? (uint64_t)fib_u32(f) << 32
                                                        : *words[which % 6] + (uint64_t)by);
    else
        rb_store_seq_cst(&p->park, (uint32_t)by);
    if (which % 6 == 0) f->liar.took_wrong = 1;
    if (which % 6 <= 1) f->liar.gave_wrong = 1;
    fib_ring(f);
}
static inline void fib_cancel(struct fib *f) {
    struct fib_lane *l = &f->liar;
    struct rb_lane_cancel *words = (void *)(l->ours + l->parts.cancels_at);
    uint8_t how = fib_byte(f);
    uint32_t slot = how % FIB_NUMBERS;
    uint64_t generation = l->asked[slot] + (how & 0x40 ? 1u : 0u); /* before it is sent */
    rb_store_seq_cst(&words[slot].request, how & 0x80 ? fib_u32(f) : (generation << 32 | slot));
    rb_store_seq_cst(&fib_positions(f)->cancels, ++l->cancels);
    fib_ring(f);
}
static inline void fib_give_some(struct fib *f) {
    uint8_t which = fib_byte(f);
    if (which & 0x80) {
        fib_give(f, which & 0x40 ? fib_u32(f) : (which & 0x3f) * 4096u);
        return;
    }
    for (uint32_t i = 0; i < FIB_BLOCKS; i++) {
        uint32_t first = (which + i) % FIB_BLOCKS;
        if (!f->liar.held[first]) continue;
        fib_give(f, first * 4096u);
        return;
    }
}
/* Anywhere in its side, guards left out: of a word that it scrawled over it knows nothing any more. */
static inline void fib_scrawl(struct fib *f) {
    struct fib_lane *l = &f->liar;
    const struct rb_lane_parts *p = &l->parts;
    const uint64_t parts[] = {RB_LANE_AT_HEADER, RB_LANE_AT_POSITIONS,    p->tails_at,
                              p->cancels_at,     p->givebacks_at,         p->submissions_at,
                              p->arenas_at,      p->arenas_at + FIB_ARENA};
    uint8_t which = fib_byte(f) % 8;
    uint64_t at = parts[which] + (which > 5 ? fib_u32(f) % (FIB_ARENA - 256) : fib_u32(f) % 2048);
    fib_bytes(f, l->ours + at, fib_byte(f));
    if (which == 1) l->took_wrong = 1;
    if (which == 1 || which == 4) l->gave_wrong = 1;
    fib_ring(f);
}

/* --- The honest ones --------------------------------------------------------------------------- */

static inline void fib_call_honest(struct fib *f) {
    uint64_t number;
    uint8_t payload[256] = {0}, how = fib_byte(f);
    if (f->calls == FIB_CALLS_MAX || rb_lane_claim(f->honest, how & 1, &number) < 0) return;
    uint32_t n = ++f->calls;
    struct iovec part = {payload, 4 + (size_t)how / 2};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .caller = n,
                                .parts = &part,
                                .count = 1,
                                .role = (const uint8_t *)"echo",
                                .role_bytes = 4,
                                .timeout_ms = RB_LANE_TIMEOUT_DEFAULT};
    rb_put_be32(payload, n);
    f->call_of[rb_lane_slot(number)] = n;
    if (rb_lane_send(f->honest, how & 1, number, &q) < 0) abort();
}
static inline void fib_call_peer(struct fib *f) {
    uint8_t payload[256] = {0}, how = fib_byte(f);
    if (f->calls == FIB_CALLS_MAX) return;
    if (++f->unread % 8 == 0) fib_round(f, 1000); /* a socket holds no more */
    uint32_t n = ++f->calls;
    rb_put_be32(payload, n);
    lab_submit(f->peer, n, payload, 4 + (size_t)how / 2);
}
/* Who is honest is told its number; the liar so many bytes as the program says. */
static inline void fib_work(struct fib *f, uint8_t how, uint32_t size) {
    static uint8_t zeros[FIB_REPLY_MAX];
    struct rb_lab_request q;
    char words[32];
    if (rb_lab_request(f->worker, 0, &q) < 0) return;
    uint32_t n = q.payload_bytes >= 4 ? rb_be32(q.payload) : 0;
    int honest = n > 0 && n <= f->calls;
    snprintf(words, sizeof words, "said %u.", n);
    rb_lab_start(f->worker, 1);
    struct rb_lab_answer a = {.job = q.job,
                              .status = q.cancelled ? RB_STATUS_CANCELLED
                                        : how & 1   ? RB_STATUS_FAILED
                                                    : RB_STATUS_OK,
                              .code = 7,
                              .payload = honest ? (const uint8_t *)words : zeros,
                              .payload_bytes = honest ? (uint32_t)strlen(words) : size};
    if (rb_lab_complete(f->worker, &a) < 0) abort();
    rb_lab_release(f->worker, 1);
}

static inline void fib_step(struct fib *f) {
    enum fib_step step = (enum fib_step)(fib_byte(f) % FIB_STEPS);
    if (step < FIB_HONEST && !f->liar.open) {
        fib_come(f);
        if (!f->liar.open) return;
    }
    switch (step) {
    case FIB_RAW:
    case FIB_TERM:
    case FIB_LARGE: fib_request(f, step); break;
    case FIB_WRONG: fib_wrong(f); break;
    case FIB_PLACE: fib_place(f); break;
    case FIB_CANCEL: fib_cancel(f); break;
    case FIB_GIVE: fib_give_some(f); break;
    case FIB_HEADER: {
        uint8_t at = fib_byte(f) % 128;
        f->liar.ours[RB_LANE_AT_HEADER + at] = fib_byte(f);
        break;
    }
    case FIB_SCRAWL: fib_scrawl(f); break;
    case FIB_TAKE: fib_take(f, fib_byte(f) % 32); break;
    case FIB_HONEST: fib_call_honest(f); break;
    case FIB_PEER: fib_call_peer(f); break;
    case FIB_WORK: {
        uint8_t how = fib_byte(f);
        fib_work(f, how, how & 2 ? fib_byte(f) * 384u : fib_byte(f));
        break;
    }
    case FIB_TIME: {
        uint8_t ms = fib_byte(f);
        f->expired |= ms & 0x80; /* heard of in this round already */
        fib_round(f, (ms & 0x80 ? 500ull : 1ull) * (ms & 0x7f) * 1000000);
        break;
    }
    case FIB_HANG_UP: fib_unmap(f); break;
    default: break;
    }
    uint8_t after = fib_byte(f);
    if (after & 1) fib_round(f, 1000);
    if (after % 64 == 3) fib_audit(f);
}

static inline void fib_open(struct fib *f) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    struct rb_lane_config lane = fib_config(FIB_HONEST_LANE);
    char why[256];
    int pair[2], fds[4];
    config.seed = 1;
    config.monitors_max = FIB_CALLS_MAX * 2;
    config.outgoing_bytes_max = 128 << 10; /* so much waits for room in a lane */
    role.admission.depth_max = FIB_CALLS_MAX;
    f->now = UINT64_C(1000000000000);
    if (rb_lab_open(&f->relay, &config, f->now) < 0 ||
        rb_relay_install_service(f->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_add_role(f->relay, 0, &role) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        rb_relay_adopt(f->relay, 1, pair[0], "peer@host", LAB_FLAGS, NULL, 0) < 0 ||
        rb_relay_open_lane(f->relay, 1, &lane, fds) < 0)
        abort();
    f->peer = pair[1];
    struct rb_lane_fds own = {fds[0], fds[1], fds[2], fds[3]};
    if (rb_lane_attach(&f->honest, &own, why, sizeof why) < 0) abort();
    fib_round(f, 1000);
    if (rb_lab_hire(f->relay, 0, 1, 8, &f->worker) < 0) abort();
    rb_lab_greet(f->worker, "echo");
    fib_round(f, 1000);
    fib_come(f);
}

/* A liar that has kept to what costs a lane its life, and now gives back what it holds, has all its answers. */
static inline void fib_settle(struct fib *f) {
    struct rb_lane_stats s;
    for (int i = 0; i < 4 * FIB_NUMBERS && f->liar.open; i++) {
        fib_take(f, UINT32_MAX);
        for (uint32_t first = 0; first < FIB_BLOCKS && !f->liar.gave_wrong; first++)
            if (f->liar.held[first]) fib_give(f, first * 4096u);
        fib_round(f, 1000);
        if (rb_relay_read_lane(f->relay, f->liar.id, &s) == 0 && !s.open && !s.kept_bytes) break;
    }
    if (!f->liar.open || rb_relay_read_lane(f->relay, f->liar.id, &s) < 0) return;
    if (s.open != 0 || s.requests != s.answered + s.dropped) abort();
    if (!f->liar.gave_wrong && s.kept_bytes != 0) abort();
}

static inline int fuzz_beam(const uint8_t *data, size_t size) {
    static struct fib all;
    struct fib *f = &all;
    memset(f, 0, offsetof(struct fib, in));
    f->at = data;
    f->end = data + size;
    fib_open(f);
    for (int i = 0; i < FIB_STEPS_MAX && f->at < f->end; i++) fib_step(f);
    /* What is left: a round reads the lanes behind its placing, and the worker's ring takes jobs by and by. */
    for (int idle = 0; idle < 4; idle++) {
        fib_round(f, 1000000);
        while (rb_lab_requests(f->worker) > 0) {
            fib_work(f, 0, 100);
            fib_round(f, 1000);
            idle = 0;
        }
    }
    while (fib_round(f, 1000000)) {
    }
    fib_round(f, 61000000000); /* past every deadline */
    fib_round(f, 1000);
    fib_settle(f);
    fib_audit(f);
    for (uint32_t i = 1; i <= f->calls; i++)
        if (f->answers[i] != 1) abort();
    fib_unmap(f);
    fib_round(f, 1000);
    rb_lane_detach(f->honest);
    rb_lab_die(f->worker, 0, 0, 0);
    rb_lab_round(f->relay, f->now += 1000);
    close(f->peer);
    rb_relay_stop(f->relay);
    rb_relay_close(f->relay);
    return 0;
}

#endif
