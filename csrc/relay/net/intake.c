#include "relay/net/intake.h"

#include <errno.h>
#include <stdlib.h>

enum {
    HEAD_MAX = 16 << 10,       /* a head that shows nothing by then is ordinary traffic */
    STREAM_MIN = 16 << 10,     /* shorter frames are waited for, longer ones are streamed */
    SEQUENCES_MAX = 1024,      /* dist-protocol: open sequences on one connection */
    FRAGMENT_HEAD = 2 + 8 + 8, /* 131, 69 or 70, sequence, count */
    EXPANDED_KEEP = 64 << 10,  /* of the room for an expanded signal */
    /* Read into the buffer at once: what of it is payload is copied a second time. The second, where the head of a payload's next frame is due. */
    READ_MOST = 64 << 10,
    READ_HEAD = 1 << 10,
    HEAD_STEP = 4 << 10, /* so much of an unfinished signal is expanded before it is looked at */
};
_Static_assert(4 + FRAGMENT_HEAD + RB_CACHE_HEADER_MAX <= RB_INTAKE_BUFFER_BYTES,
               "a header waits whole");

#define WITH_HEADER (RB_DFLAG_FRAGMENTS | RB_DFLAG_DIST_HDR_ATOM_CACHE)

struct rb_assembly {
    struct rb_assembly *next;
    uint64_t sequence;
    uint64_t fragments_left; /* after the frame that is being fed; 0: it is the last */
    enum { HEAD, HEAP, DIVERTED, DROPPED } state;
    struct rb_bytes bytes; /* HEAD, HEAP: the signal so far; DIVERTED: what followed the payload */
    struct rb_atom_list *atoms; /* that its terms refer to; NULL: none */
    uint64_t atoms_bytes;
    struct rb_expander expander;
    size_t looked; /* HEAD: how much of it its owner has seen */
    uint8_t *dest;
    size_t dest_left;
    int tail_cut;
    void *token;
};

static int fail(struct rb_intake *in, const char *why) {
    in->why = why;
    return -EPROTO;
}

int rb_intake_open(struct rb_intake *in, const struct rb_intake_owner *owner, uint64_t flags,
                   uint64_t frame_bytes_max, uint64_t heap_bytes_max) {
    *in = (struct rb_intake){.owner = owner,
                             .flags = flags,
                             .frame_bytes_max = frame_bytes_max,
                             .heap.max = heap_bytes_max,
                             .capacity = RB_INTAKE_BUFFER_BYTES};
    in->buffer = malloc(in->capacity);
    if (flags & RB_DFLAG_DIST_HDR_ATOM_CACHE) in->cache = calloc(1, sizeof *in->cache);
    if (in->buffer && (in->cache || !(flags & RB_DFLAG_DIST_HDR_ATOM_CACHE))) return 0;
    free(in->buffer);
    free(in->cache);
    return -ENOMEM;
}

static void forget_bytes(struct rb_intake *in, struct rb_assembly *a) {
    rb_bytes_free(&a->bytes, &in->heap);
}

static void forget_atoms(struct rb_intake *in, struct rb_assembly *a) {
    rb_atom_list_free(a->atoms);
    a->atoms = NULL;
    in->heap.used -= a->atoms_bytes;
    a->atoms_bytes = 0;
}

static void assembly_free(struct rb_intake *in, struct rb_assembly *a) {
    for (struct rb_assembly **p = &in->open; *p; p = &(*p)->next) {
        if (*p == a) {
            *p = a->next;
            in->open_count--;
            break;
        }
    }
    forget_bytes(in, a);
    forget_atoms(in, a);
    free(a);
}

void rb_intake_close(struct rb_intake *in) {
    while (in->open) {
        if (in->open->state == DIVERTED) in->owner->abort_large(in->owner->user, in->open->token);
        assembly_free(in, in->open);
    }
    rb_bytes_free(&in->expanded, &in->heap);
    rb_atom_list_clear(&in->atoms);
    rb_cache_free(in->cache);
    free(in->buffer);
    in->buffer = NULL;
    in->cache = NULL;
}

/* --- Assemblies ---------------------------------------------------------------------------------------------------------- */

/* The header's list becomes the assembly's own, and counts: it may be all that keeps its atoms. */
static int take_atoms(struct rb_intake *in, struct rb_assembly *a) {
    if (in->atoms.count == 0) return 0;
    uint64_t bytes = sizeof in->atoms;
    for (uint32_t i = 0; i < in->atoms.count; i++) bytes += in->atoms.atom[i]->size;
    if (bytes > in->heap.max - in->heap.used) return fail(in, "signal_too_large");
    a->atoms = rb_atom_list_move(&in->atoms);
    if (!a->atoms) return fail(in, "no_memory");
    in->heap.used += a->atoms_bytes = bytes;
    a->expander.atoms = a->atoms;
    return 0;
}

static struct rb_assembly *assembly_begin(struct rb_intake *in, uint64_t sequence) {
    if (in->open_count == SEQUENCES_MAX) return fail(in, "too_many_open_sequences"), NULL;
    struct rb_assembly *a = calloc(1, sizeof *a);
    if (!a) return fail(in, "no_memory"), NULL;
    a->sequence = sequence;
    a->next = in->open;
    in->open = a;
    in->open_count++;
    return take_atoms(in, a) < 0 ? NULL : a;
}

static int failed_to_keep(struct rb_intake *in, int rc) {
    return fail(in, rc == -EMSGSIZE ? "signal_too_large"
                    : rc == -ENOMEM ? "no_memory"
                                    : "bad_term");
}

/* Takes bytes as they are, or with their atoms put in. */
static int append(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    int rc = a->atoms ? rb_expand(&a->expander, p, n, &a->bytes, &in->heap)
                      : rb_bytes_put(&a->bytes, &in->heap, p, n);
    return rc < 0 ? failed_to_keep(in, rc) : 0;
}

/* What follows a payload is kept up to a bound. */
static int feed_tail(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n,
                     int expanded) {
    if (n == 0 || a->tail_cut) return 0;
    if (a->bytes.size + n > RB_TAIL_MAX) {
        a->tail_cut = 1;
        return 0;
    }
    int rc = expanded ? rb_bytes_put(&a->bytes, &in->heap, p, n) : append(in, a, p, n);
    if (rc < 0) return in->why ? rc : failed_to_keep(in, rc);
    a->tail_cut = a->bytes.size > RB_TAIL_MAX;
    return 0;
}

static void went_direct(struct rb_assembly *a, size_t n) {
    a->dest += n;
    a->dest_left -= n;
    if (a->atoms) rb_expand_pass(&a->expander, n);
}

static int feed_diverted(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    size_t direct = n < a->dest_left ? n : a->dest_left;
    memcpy(a->dest, p, direct);
    in->copied_bytes += direct;
    went_direct(a, direct);
    return feed_tail(in, a, p + direct, n - direct, 0);
}

/* The owner has named a place: what of the payload came with the head goes there. `head` may lie in the assembly's own bytes, which
 * become those of the tail. */
static int divert(struct rb_intake *in, struct rb_assembly *a, struct rb_slice head,
                  const struct rb_diversion *d) {
    struct rb_bytes own = a->bytes;
    size_t come = head.size - d->head_bytes, direct = come < d->dest_bytes ? come : d->dest_bytes;
    a->bytes = (struct rb_bytes){NULL, 0, 0};
    a->state = DIVERTED;
    a->dest = d->dest + direct;
    a->dest_left = d->dest_bytes - direct;
    a->token = d->token;
    a->expander.funs = 0; /* their places were in the head */
    memcpy(d->dest, head.at + d->head_bytes, direct);
    in->copied_bytes += direct;
    int rc = feed_tail(in, a, head.at + d->head_bytes + direct, come - direct, 1);
    rb_bytes_free(&own, &in->heap);
    return rc;
}

/* The first bytes usually show everything: they are looked at where they lie, before anything is copied, unless their atoms must be
 * put in first. Returns how many of the bytes it has taken. */
static int64_t feed_head(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    struct rb_slice head = {p, n};
    int rc;
    if (a->atoms && n > HEAD_STEP) n = HEAD_STEP;
    if (a->bytes.size > 0 || a->atoms) {
        if ((rc = append(in, a, p, n)) < 0) return rc;
        head = (struct rb_slice){a->bytes.at, a->bytes.size};
    }
    /* Again when it has grown by a half: a peer may send it byte by byte. */
    if (head.size <= HEAD_MAX && head.size < a->looked + a->looked / 2) return (int64_t)n;
    a->looked = head.size;
    struct rb_diversion d;
    switch (in->owner->begin_large(in->owner->user, head, &d)) {
    case RB_LARGE_DROP:
        a->state = DROPPED;
        forget_bytes(in, a);
        forget_atoms(in, a);
        return (int64_t)n;
    case RB_LARGE_DIVERT: rc = divert(in, a, head, &d); return rc < 0 ? rc : (int64_t)n;
    case RB_LARGE_KEEP: a->state = HEAP; break;
    case RB_LARGE_MORE:
        if (head.size > HEAD_MAX) a->state = HEAP;
        break;
    }
    if (!a->atoms && a->bytes.size == 0 && (rc = append(in, a, p, n)) < 0) return rc;
    return (int64_t)n;
}

static int feed(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    while (a->state == HEAD) {
        int64_t taken = feed_head(in, a, p, n);
        if (taken < 0) return (int)taken;
        p += taken;
        n -= (size_t)taken;
        if (n == 0) return 0;
    }
    if (a->state == DROPPED) return 0;
    return a->state == DIVERTED ? feed_diverted(in, a, p, n) : append(in, a, p, n);
}

int rb_intake_message(const struct rb_intake *in, struct rb_cursor *c, const struct rb_signal *s) {
    if (!s->has_message || (in->flags & WITH_HEADER)) return 0;
    if (rb_cursor_left(c) == 0) return -EAGAIN;
    if (*c->at != RB_TAG_VERSION) return -EPROTO;
    c->at++;
    return 0;
}

static int deliver(struct rb_intake *in, struct rb_slice signal) {
    struct rb_cursor c = rb_cursor_of(signal);
    struct rb_signal s;
    if (rb_signal_parse(&c, &s) < 0) return fail(in, "bad_control_message");
    if (rb_intake_message(in, &c, &s) < 0 || (s.has_message && rb_cursor_left(&c) == 0))
        return fail(in, "payload_missing");
    struct rb_slice message = {c.at, s.has_message ? rb_cursor_left(&c) : 0};
    return in->owner->signal(in->owner->user, &s, message);
}

/* A signal that lies whole in the buffer. */
static int deliver_whole(struct rb_intake *in, struct rb_slice signal) {
    if (in->atoms.count == 0) return deliver(in, signal);
    struct rb_expander e = {.atoms = &in->atoms};
    in->expanded.size = 0;
    int rc = rb_expand(&e, signal.at, signal.size, &in->expanded, &in->heap);
    rb_atom_list_clear(&in->atoms);
    if (rc < 0) return failed_to_keep(in, rc);
    rc = deliver(in, (struct rb_slice){in->expanded.at, in->expanded.size});
    if (in->expanded.capacity > EXPANDED_KEEP) rb_bytes_free(&in->expanded, &in->heap);
    return rc;
}

static int assembly_end(struct rb_intake *in, struct rb_assembly *a) {
    int rc = 0;
    if (a->state == DIVERTED) {
        if (a->dest_left > 0) return fail(in, "payload_cut_short"); /* aborted by close */
        void *token = a->token;
        a->state = DROPPED; /* end_large takes the token whatever it returns */
        rc = in->owner->end_large(in->owner->user, token,
                                  (struct rb_slice){a->bytes.at, a->bytes.size}, a->tail_cut);
    } else if (a->state != DROPPED) {
        rc = deliver(in, (struct rb_slice){a->bytes.at, a->bytes.size});
    }
    assembly_free(in, a);
    return rc;
}

/* --- Frames -------------------------------------------------------------------------------------------------------------- */

static struct rb_assembly *assembly_find(struct rb_intake *in, uint64_t sequence) {
    for (struct rb_assembly *a = in->open; a; a = a->next) {
        if (a->sequence == sequence) return a;
    }
    return NULL;
}

/* The references of a header whose count is at `p`. Bytes used, 0: wait for more, or fails. */
static int64_t references(struct rb_intake *in, const uint8_t *p, size_t have, uint64_t length) {
    if (!in->cache) return p[0] ? fail(in, "atom_cache_was_not_negotiated") : 1;
    int64_t used = rb_cache_header(in->cache, &in->atoms, p, have, length);
    if (used == -ENOMEM) return fail(in, "no_memory");
    return used < 0 ? fail(in, "bad_atom_cache_header") : used;
}

/* A frame whose body begins at `p` with `have` of its `length` bytes here. Returns the bytes used (0: wait for more), or fails. After a
 * non-zero return with frame_left set, the rest of the frame streams. */
static int64_t begin_frame(struct rb_intake *in, const uint8_t *p, uint64_t length, size_t have) {
    int whole = have >= length;
    uint64_t skip = in->flags & WITH_HEADER ? 3 : 2;
    /* `have` may reach into the frames behind this one. */
    if (length < skip) return fail(in, "frame_cut_short");
    if (have < skip) return 0;
    int kind;
    if (in->flags & WITH_HEADER) {
        if (p[0] != RB_TAG_VERSION) return fail(in, "not_a_distribution_header");
        kind = p[1];
    } else {
        if (p[0] != 112 || p[1] != RB_TAG_VERSION) return fail(in, "not_a_pass_through_frame");
        kind = 68;
    }
    if (kind == 68) {
        if (!whole && length < STREAM_MIN) return 0;
        if (in->flags & WITH_HEADER) {
            int64_t used = references(in, p + 2, have - 2, length - 2);
            if (used <= 0) return used;
            skip = 2 + (uint64_t)used;
        }
        if (whole) {
            int rc = deliver_whole(in, (struct rb_slice){p + skip, (size_t)(length - skip)});
            return rc < 0 ? rc : (int64_t)length;
        }
        /* Sequence 0 is ours: senders count from 1 (a BEAM uses the address of its process). */
        struct rb_assembly *a = assembly_begin(in, 0);
        if (!a) return -EPROTO;
        in->streaming = a;
        in->frame_left = length - skip;
        return (int64_t)skip;
    }
    if (kind != 69 && kind != 70) return fail(in, "unknown_frame_kind");

    size_t head = kind == 69 ? FRAGMENT_HEAD + 1 : FRAGMENT_HEAD;
    if (length < head) return fail(in, "frame_cut_short");
    if (have < head) return 0;
    uint64_t sequence = rb_be64(p + 2), count = rb_be64(p + 10);
    if (sequence == 0 || count == 0) return fail(in, "fragment_numbers_begin_at_1");
    struct rb_assembly *a = assembly_find(in, sequence);
    if (kind == 69) {
        if (a) return fail(in, "sequence_already_open");
        int64_t used =
            references(in, p + FRAGMENT_HEAD, have - FRAGMENT_HEAD, length - FRAGMENT_HEAD);
        if (used <= 0) return used;
        head = FRAGMENT_HEAD + (size_t)used;
        a = assembly_begin(in, sequence);
        if (!a) return -EPROTO;
    } else {
        if (!a) return fail(in, "fragment_of_no_open_sequence");
        if (a->fragments_left != count) return fail(in, "fragment_out_of_order");
    }
    a->fragments_left = count - 1;
    in->streaming = a;
    in->frame_left = length - head;
    return (int64_t)head;
}

static int end_streamed_frame(struct rb_intake *in) {
    struct rb_assembly *a = in->streaming;
    in->streaming = NULL;
    return a->fragments_left == 0 ? assembly_end(in, a) : 0;
}

static struct rb_assembly *diverted(const struct rb_intake *in, const void *token) {
    struct rb_assembly *a = in->open;
    while (a && (a->state != DIVERTED || a->token != token)) a = a->next;
    return a;
}

uint64_t rb_intake_left(const struct rb_intake *in, const void *token) {
    const struct rb_assembly *a = diverted(in, token);
    return a ? a->dest_left : 0;
}

void rb_intake_drop(struct rb_intake *in, const void *token) {
    struct rb_assembly *a = diverted(in, token);
    if (!a) return;
    a->state = DROPPED;
    forget_bytes(in, a);
    forget_atoms(in, a);
}

static int process(struct rb_intake *in) {
    for (;;) {
        const uint8_t *p = in->buffer + in->begin;
        size_t have = in->end - in->begin;
        int rc;
        if (in->streaming) {
            size_t n = have < in->frame_left ? have : (size_t)in->frame_left;
            if (n > 0 && (rc = feed(in, in->streaming, p, n)) < 0) return rc;
            in->begin += n;
            in->frame_left -= n;
            if (in->frame_left > 0) return 0;
            if ((rc = end_streamed_frame(in)) < 0) return rc;
            continue;
        }
        if (have < 4) return 0;
        uint64_t length = rb_be32(p);
        if (length == 0) {
            in->begin += 4;
            continue;
        }
        if (length > in->frame_bytes_max) return fail(in, "frame_too_large");
        int64_t used = begin_frame(in, p + 4, length, have - 4);
        if (used < 0) return (int)used;
        if (used == 0) return 0;
        in->begin += 4 + (size_t)used;
    }
}

/* Is a payload on its way that continues in a later frame? */
static int expects_fragment(const struct rb_intake *in) {
    const struct rb_assembly *a = in->open;
    while (a && (a->state != DIVERTED || a->dest_left == 0)) a = a->next;
    return a != NULL;
}

int rb_intake_room(struct rb_intake *in, struct rb_room room[2]) {
    size_t most = READ_MOST;
    if (in->begin == in->end) {
        in->begin = in->end = 0;
    } else if (in->begin > 0 && in->capacity - in->end < STREAM_MIN + 4) {
        memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    int pieces = 0;
    struct rb_assembly *a = in->streaming;
    if (a && a->state == DIVERTED && a->dest_left > 0 && in->begin == in->end) {
        size_t n = a->dest_left < in->frame_left ? a->dest_left : (size_t)in->frame_left;
        room[pieces++] = (struct rb_room){a->dest, n};
        most = READ_HEAD;
    } else if (in->begin == in->end && expects_fragment(in)) {
        most = READ_HEAD;
    }
    if (most > in->capacity - in->end) most = in->capacity - in->end;
    room[pieces++] = (struct rb_room){in->buffer + in->end, most};
    return pieces;
}

int rb_intake_took(struct rb_intake *in, size_t size) {
    struct rb_assembly *a = in->streaming;
    if (a && a->state == DIVERTED && a->dest_left > 0 && in->begin == in->end) {
        size_t n = a->dest_left < in->frame_left ? a->dest_left : (size_t)in->frame_left;
        if (n > size) n = size;
        went_direct(a, n);
        in->frame_left -= n;
        size -= n;
    }
    in->end += size;
    return process(in);
}
