#include "intake.h"

#include <errno.h>
#include <stdlib.h>

enum {
    HEAD_MAX = 16 << 10,       /* a head that shows nothing by then is ordinary traffic */
    STREAM_MIN = 16 << 10,     /* shorter frames are waited for, longer ones are streamed */
    SEQUENCES_MAX = 1024,      /* dist-protocol: open sequences on one connection */
    FRAGMENT_HEAD = 2 + 8 + 8, /* 131, 69 or 70, sequence, count */
};

#define WITH_HEADER (RB_DFLAG_FRAGMENTS | RB_DFLAG_DIST_HDR_ATOM_CACHE)

struct rb_assembly {
    struct rb_assembly *next;
    uint64_t sequence;
    uint64_t fragments_left; /* after the frame that is being fed; 0: it is the last */
    enum { HEAD, HEAP, DIVERTED, DROPPED } state;
    uint8_t *bytes; /* HEAD, HEAP: the signal so far; DIVERTED: what followed the payload */
    size_t size, capacity;
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
                             .heap_bytes_max = heap_bytes_max,
                             .capacity = RB_INTAKE_BUFFER_BYTES};
    in->buffer = malloc(in->capacity);
    return in->buffer ? 0 : -ENOMEM;
}

static void forget_bytes(struct rb_intake *in, struct rb_assembly *a) {
    in->heap_bytes -= a->capacity;
    free(a->bytes);
    a->bytes = NULL;
    a->size = a->capacity = 0;
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
    free(a);
}

void rb_intake_close(struct rb_intake *in) {
    while (in->open) {
        if (in->open->state == DIVERTED) in->owner->abort_large(in->owner->user, in->open->token);
        assembly_free(in, in->open);
    }
    free(in->buffer);
    in->buffer = NULL;
}

/* --- Assemblies ---------------------------------------------------------------------------------------------------------- */

static struct rb_assembly *assembly_begin(struct rb_intake *in, uint64_t sequence) {
    if (in->open_count == SEQUENCES_MAX) return fail(in, "too_many_open_sequences"), NULL;
    struct rb_assembly *a = calloc(1, sizeof *a);
    if (!a) return fail(in, "no_memory"), NULL;
    a->sequence = sequence;
    a->next = in->open;
    in->open = a;
    in->open_count++;
    return a;
}

static int append(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    if (a->size + n > a->capacity) {
        size_t grown = a->capacity ? a->capacity * 2 : 4096;
        if (grown < a->size + n) grown = a->size + n;
        if (in->heap_bytes + (grown - a->capacity) > in->heap_bytes_max) {
            grown = a->size + n;
            if (in->heap_bytes + (grown - a->capacity) > in->heap_bytes_max)
                return fail(in, "signal_too_large");
        }
        uint8_t *bytes = realloc(a->bytes, grown);
        if (!bytes) return fail(in, "no_memory");
        in->heap_bytes += grown - a->capacity;
        a->bytes = bytes;
        a->capacity = grown;
    }
    memcpy(a->bytes + a->size, p, n);
    a->size += n;
    return 0;
}

/* Past the payload: keeps what follows up to a bound. */
static int feed_diverted(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    size_t direct = n < a->dest_left ? n : a->dest_left;
    memcpy(a->dest, p, direct);
    a->dest += direct;
    a->dest_left -= direct;
    n -= direct;
    if (n == 0) return 0;
    if (a->size + n > RB_TAIL_MAX) {
        a->tail_cut = 1;
        return 0;
    }
    return append(in, a, p + direct, n);
}

static int feed(struct rb_intake *in, struct rb_assembly *a, const uint8_t *p, size_t n) {
    switch (a->state) {
    case DROPPED: return 0;
    case DIVERTED: return feed_diverted(in, a, p, n);
    case HEAP: return append(in, a, p, n);
    case HEAD: break;
    }
    /* The first bytes usually show everything: they are looked at where they lie, before anything is copied. */
    struct rb_slice head = {p, n};
    int rc;
    if (a->size > 0) {
        if ((rc = append(in, a, p, n)) < 0) return rc;
        head = (struct rb_slice){a->bytes, a->size};
    }
    struct rb_diversion d;
    switch (in->owner->begin_large(in->owner->user, head, &d)) {
    case RB_LARGE_DROP:
        a->state = DROPPED;
        forget_bytes(in, a);
        return 0;
    case RB_LARGE_DIVERT: {
        a->state = DIVERTED;
        a->dest = d.dest;
        a->dest_left = d.dest_bytes;
        a->token = d.token;
        /* What of the payload came with the head. In the appended case it lies in our own bytes: moved out before they become the tail. */
        uint8_t *own = a->bytes;
        size_t capacity = a->capacity;
        int appended = a->size > 0;
        if (appended) {
            a->bytes = NULL;
            a->size = a->capacity = 0;
        }
        rc = feed_diverted(in, a, head.at + d.head_bytes, head.size - d.head_bytes);
        if (appended) {
            in->heap_bytes -= capacity;
            free(own);
        }
        return rc;
    }
    case RB_LARGE_KEEP: a->state = HEAP; break;
    case RB_LARGE_MORE:
        if (head.size > HEAD_MAX) a->state = HEAP;
        break;
    }
    return a->size > 0 ? 0 : append(in, a, p, n);
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

static int assembly_end(struct rb_intake *in, struct rb_assembly *a) {
    int rc = 0;
    if (a->state == DIVERTED) {
        if (a->dest_left > 0) return fail(in, "payload_cut_short"); /* aborted by close */
        void *token = a->token;
        a->state = DROPPED; /* end_large takes the token whatever it returns */
        rc = in->owner->end_large(in->owner->user, token, (struct rb_slice){a->bytes, a->size},
                                  a->tail_cut);
    } else if (a->state != DROPPED) {
        rc = deliver(in, (struct rb_slice){a->bytes, a->size});
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

/* A frame whose body begins at `p` with `have` of its `length` bytes here. Returns the bytes used (0: wait for more), or fails. After a
 * non-zero return with frame_left set, the rest of the frame streams. */
static int64_t begin_frame(struct rb_intake *in, const uint8_t *p, uint64_t length, size_t have) {
    int whole = have >= length;
    const uint64_t skip = in->flags & WITH_HEADER ? 3 : 2;
    /* `have` may reach into the frames behind this one. */
    if (length < skip) return fail(in, "frame_cut_short");
    if (have < skip) return 0;
    int kind;
    if (in->flags & WITH_HEADER) {
        if (p[0] != RB_TAG_VERSION) return fail(in, "not_a_distribution_header");
        kind = p[1];
        if (kind == 68 && p[2] != 0) return fail(in, "atom_cache_was_not_negotiated");
    } else {
        if (p[0] != 112 || p[1] != RB_TAG_VERSION) return fail(in, "not_a_pass_through_frame");
        kind = 68;
    }
    if (kind == 68) {
        if (whole) {
            int rc = deliver(in, (struct rb_slice){p + skip, (size_t)(length - skip)});
            return rc < 0 ? rc : (int64_t)length;
        }
        if (length < STREAM_MIN) return 0;
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
        if (p[FRAGMENT_HEAD] != 0) return fail(in, "atom_cache_was_not_negotiated");
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

int rb_intake_room(struct rb_intake *in, struct rb_room room[2]) {
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
    }
    room[pieces++] = (struct rb_room){in->buffer + in->end, in->capacity - in->end};
    return pieces;
}

int rb_intake_took(struct rb_intake *in, size_t size) {
    struct rb_assembly *a = in->streaming;
    if (a && a->state == DIVERTED && a->dest_left > 0 && in->begin == in->end) {
        size_t n = a->dest_left < in->frame_left ? a->dest_left : (size_t)in->frame_left;
        if (n > size) n = size;
        a->dest += n;
        a->dest_left -= n;
        in->frame_left -= n;
        size -= n;
    }
    in->end += size;
    return process(in);
}
