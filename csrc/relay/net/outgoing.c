/* outgoing.c: see outgoing.h. Atoms are packed when a signal is put on its way to the wire, never while it waits. */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "relay/relay_pvt.h"

enum {
    WRITE_THROUGH_MIN = 16 << 10, /* so large a body goes from where it lies to the socket */
    HEAD_MAX = 16 << 10,          /* of a large signal so much is looked at for atoms */
    PUMP_BYTES = 4 << 20, /* of fragments in one round: one peer must not starve the others */
    BATCH = 8,            /* fragments in one call */
    FRAGMENT_HEAD = 4 + 2 + 8 + 8,
};

int rb_outgoing_open(struct rb_conn *c) {
    c->outgoing.streams_end = &c->outgoing.streams;
    c->outgoing.waiting_end = &c->outgoing.waiting;
    if (!(c->flags & RB_DFLAG_DIST_HDR_ATOM_CACHE)) return 0;
    c->outgoing.taught = calloc(1, sizeof *c->outgoing.taught);
    return c->outgoing.taught ? 0 : -ENOMEM;
}

void rb_outgoing_free(struct rb_conn *c) {
    while (c->outgoing.streams) {
        struct rb_stream *s = c->outgoing.streams;
        c->outgoing.streams = s->next;
        free(s->own);
        free(s);
    }
    while (c->outgoing.waiting) {
        struct rb_waiting *w = c->outgoing.waiting;
        c->outgoing.waiting = w->next;
        free(w->own);
        free(w);
    }
    rb_taught_free(c->outgoing.taught);
}

static int no_memory(struct rb_conn *c) {
    rb_conn_fail(c, "no_memory");
    return -1;
}

/* --- Whose it is --------------------------------------------------------------------------------------------------------- */

/* Who sends: signals of one key keep their order. 0: not known, so it keeps its order with all. The relay's own service speaks to
 * each caller by itself; an answer to one need not wait for another's. */
static uint64_t key_of(const struct rb_leaving *s) {
    struct rb_slice who = s->with;
    if (!who.size) {
        struct rb_cursor c = {s->head.at, s->head.at + s->control};
        uint64_t op;
        struct rb_slice element[4] = {{0, 0}};
        if (s->control && *c.at == RB_TAG_VERSION) c.at++;
        int64_t arity = rb_term_tuple(&c);
        if (arity < 2 || rb_term_unsigned(&c, &op) < 0) return 0;
        for (int i = 0; i < 4 && i < arity - 1; i++) {
            if (rb_term_skip(&c, &element[i]) < 0) return 0;
        }
        /* {29, ReqId, From, ...}, {35 | 36, Id, From, To}, {37, Flags, From, To}: the second; {31, ReqId, To, Flags, Result}: the new
         * process is the sender. A send that does not name its sender has '' there. */
        int at = op == 29 || op == 35 || op == 36 || op == RB_OP_ALTACT_SIG_SEND ? 1
                 : op == 31                                                      ? 3
                                                                                 : 0;
        who = element[at];
        if (!who.size || who.at[0] != RB_TAG_NEW_PID || op == RB_OP_SEND || op == RB_OP_SEND_TT)
            return 0;
    }
    return (s->with.size ? 1ull << 32 : 2ull << 32) | rb_monitor_hash(who);
}

/* Must a signal of this key wait? `large`: it would be a stream. */
static int must_wait(const struct rb_outgoing *o, uint64_t key, int large) {
    if (!o->streams && !o->waiting) return 0;
    if (key == 0 || o->waiting_for_all || o->waiting_by_key[key % RB_WAITING_BUCKETS]) return 1;
    if (large && o->stream_count == RB_STREAMS_MAX) return 1;
    for (const struct rb_stream *s = o->streams; s; s = s->next) {
        if (s->key == key || s->key == 0) return 1;
    }
    return 0;
}

/* --- Frames -------------------------------------------------------------------------------------------------------------- */

/* The head with its atoms as references, and the header's references. NULL: no memory. */
static struct rb_slice pack(struct rb_conn *c, struct rb_slice head, struct rb_slice *references) {
    struct rb_relay *r = c->relay;
    *references = (struct rb_slice){(const uint8_t *)"", 1}; /* none */
    if (!c->outgoing.taught) return head;
    r->packed.begin = r->packed.end = 0;
    uint8_t *out = rb_buffer_room(&r->packed, head.size);
    if (!out) return (struct rb_slice){NULL, 0};
    size_t size = rb_pack(c->outgoing.taught, &r->packing, head.at, head.size, HEAD_MAX, out);
    *references = (struct rb_slice){r->packing.header, r->packing.size};
    return (struct rb_slice){out, size};
}

static void put(uint8_t **at, struct rb_slice s) {
    if (s.size) memcpy(*at, s.at, s.size);
    *at += s.size;
}

static int leave_whole(struct rb_conn *c, const struct rb_leaving *s) {
    struct rb_slice references, head = pack(c, s->head, &references);
    int through = s->body.size >= WRITE_THROUGH_MIN;
    size_t kind = 2, here = head.size + (through ? 0 : s->body.size + s->tail.size);
    if (!rb_conn_with_header(c)) references.size = 0;
    uint8_t *begin = head.at ? rb_buffer_room(&c->out, 4 + kind + references.size + here) : NULL;
    if (!begin) return no_memory(c);
    uint8_t *at = begin + 4;
    put(&at, (struct rb_slice){(const uint8_t *)(rb_conn_with_header(c) ? "\x83\x44" : "\x70\x83"),
                               kind});
    put(&at, references);
    put(&at, head);
    if (!through) {
        put(&at, s->body);
        put(&at, s->tail);
    }
    uint64_t length = (uint64_t)(at - begin) - 4 + (through ? s->body.size + s->tail.size : 0);
    if (length > INT32_MAX) { /* a BEAM takes no longer frame (packet_parser.c) */
        rb_conn_fail(c, "frame_too_large_to_send");
        return -1;
    }
    rb_put_be32(begin, (uint32_t)length);
    c->out.end += (size_t)(at - begin);
    rb_conn_dirty(c);
    if (!through) return 0;
    if (rb_conn_write_through(c, s->body.at, s->body.size) < 0) return -1;
    return s->tail.size && rb_buffer_put(&c->out, s->tail.at, s->tail.size) < 0 ? no_memory(c) : 0;
}

/* --- Fragments ----------------------------------------------------------------------------------------------------------- */

/* The next `n` bytes of a stream as pieces; it moves past them. */
static int take(struct rb_stream *s, size_t n, struct iovec *iov) {
    int pieces = 0;
    for (int i = 0; i < 2 && n > 0; i++) {
        size_t part = s->part[i].size < n ? s->part[i].size : n;
        if (part == 0) continue;
        iov[pieces++] = (struct iovec){(void *)(uintptr_t)s->part[i].at, part};
        s->part[i].at += part;
        s->part[i].size -= part;
        n -= part;
    }
    return pieces;
}

static size_t left_of(const struct rb_stream *s) { return s->part[0].size + s->part[1].size; }

/* Sends what is left of a turn of BATCH fragments. What has begun goes to `out` to its end. Returns whether the socket took them all, or -1. */
static int send_batch(struct rb_conn *c, struct rb_stream *s, size_t *sent_bytes) {
    uint8_t heads[BATCH][FRAGMENT_HEAD];
    struct iovec iov[BATCH * 3] = {{NULL, 0}};
    struct rb_stream after[BATCH]; /* how the stream stands behind each */
    int first[BATCH + 1], count = 0, pieces = 0;
    struct rb_stream at = *s;
    for (; count < BATCH - (int)s->turn && at.left > 0; count++) {
        size_t n = left_of(&at) < RB_FRAGMENT_BYTES ? left_of(&at) : RB_FRAGMENT_BYTES;
        uint8_t *h = heads[count];
        rb_put_be32(h, (uint32_t)(FRAGMENT_HEAD - 4 + n));
        h[4] = RB_TAG_VERSION;
        h[5] = 70;
        rb_put_be64(h + 6, at.sequence);
        rb_put_be64(h + 14, at.left);
        first[count] = pieces;
        iov[pieces++] = (struct iovec){h, FRAGMENT_HEAD};
        pieces += take(&at, n, &iov[pieces]);
        at.left--;
        after[count] = at;
    }
    first[count] = pieces;
    ssize_t sent = rb_conn_transmit(c, iov, pieces);
    if (sent < 0) return -1;
    size_t before = left_of(s);
    int all = 1;
    for (int i = 0; i < count; i++) {
        size_t of_this = 0;
        for (int k = first[i]; k < first[i + 1]; k++) {
            size_t n = iov[k].iov_len, gone = (size_t)sent < n ? (size_t)sent : n;
            sent -= (ssize_t)gone;
            of_this += gone;
            if (gone == n) continue;
            all = 0;
            if (of_this == 0) goto settled; /* not begun: it stays */
            if (rb_buffer_put(&c->out, (const uint8_t *)iov[k].iov_base + gone, n - gone) < 0)
                return no_memory(c);
        }
        s->left = after[i].left;
        memcpy(s->part, after[i].part, sizeof s->part);
    }
settled:
    *sent_bytes += before - left_of(s);
    return all;
}

/* A large signal begins. Its head, with the control message, is the first fragment; as much of the rest as the socket takes goes
 * from where it lies, and what does not is kept. */
static int leave_in_fragments(struct rb_conn *c, const struct rb_leaving *s, uint64_t key) {
    struct rb_outgoing *o = &c->outgoing;
    struct rb_slice references, head = pack(c, s->head, &references);
    uint8_t *begin =
        head.at ? rb_buffer_room(&c->out, FRAGMENT_HEAD + references.size + head.size) : NULL;
    if (!begin) return no_memory(c);
    struct rb_stream stream = {.key = key, .sequence = ++o->sequence, .part = {s->body, s->tail}};
    stream.left = (left_of(&stream) + RB_FRAGMENT_BYTES - 1) / RB_FRAGMENT_BYTES;
    uint8_t *at = begin + 4;
    *at++ = RB_TAG_VERSION;
    *at++ = 69;
    rb_put_be64(at, stream.sequence);
    rb_put_be64(at + 8, stream.left + 1);
    at += 16;
    put(&at, references);
    put(&at, head);
    rb_put_be32(begin, (uint32_t)(at - begin) - 4);
    c->out.end += (size_t)(at - begin);
    rb_conn_dirty(c);

    size_t sent = 0;
    int all = o->streams ? 0 : 1;
    while (all > 0 && stream.left > 0 && sent < PUMP_BYTES) all = send_batch(c, &stream, &sent);
    if (all < 0) return -1;
    if (stream.left == 0) return 0;

    struct rb_stream *kept = malloc(sizeof *kept);
    size_t left = left_of(&stream);
    if (!kept) return no_memory(c);
    *kept = stream;
    if (s->owner && *s->owner) {
        kept->own = *s->owner;
        *s->owner = NULL;
    } else {
        uint8_t *copy = kept->own = malloc(left);
        if (!copy) {
            free(kept);
            return no_memory(c);
        }
        memcpy(copy, stream.part[0].at, stream.part[0].size);
        if (stream.part[1].size)
            memcpy(copy + stream.part[0].size, stream.part[1].at, stream.part[1].size);
        kept->part[0] = (struct rb_slice){copy, left};
        kept->part[1] = (struct rb_slice){copy, 0};
    }
    kept->next = NULL;
    *o->streams_end = kept;
    o->streams_end = &kept->next;
    o->stream_count++;
    o->bytes += left;
    return 0;
}

/* --- Waiting ------------------------------------------------------------------------------------------------------------- */

static size_t size_of(const struct rb_leaving *s) {
    return s->head.size + s->body.size + s->tail.size;
}

static int is_large(const struct rb_conn *c, const struct rb_leaving *s) {
    return !s->whole && (c->flags & RB_DFLAG_FRAGMENTS) && size_of(s) > RB_FRAGMENT_BYTES &&
           s->head.size <= RB_FRAGMENT_BYTES;
}

static int leave_now(struct rb_conn *c, const struct rb_leaving *s, uint64_t key) {
    return is_large(c, s) ? leave_in_fragments(c, s, key) : leave_whole(c, s);
}

static int leave_later(struct rb_conn *c, const struct rb_leaving *s, uint64_t key) {
    struct rb_outgoing *o = &c->outgoing;
    struct rb_waiting *w = malloc(sizeof *w);
    if (!w) return no_memory(c);
    *w = (struct rb_waiting){.key = key, .signal = *s};
    w->signal.with.size = 0;
    if (s->owner && *s->owner) {
        w->own = *s->owner;
        *s->owner = NULL;
    } else {
        uint8_t *copy = w->own = malloc(size_of(s) + 1);
        if (!copy) {
            free(w);
            return no_memory(c);
        }
        uint8_t *at = copy;
        put(&at, s->head);
        put(&at, s->body);
        put(&at, s->tail);
        w->signal.head.at = copy;
        w->signal.body.at = copy + s->head.size;
        w->signal.tail.at = w->signal.body.at + s->body.size;
    }
    *o->waiting_end = w;
    o->waiting_end = &w->next;
    if (key == 0)
        o->waiting_for_all++;
    else
        o->waiting_by_key[key % RB_WAITING_BUCKETS]++;
    o->bytes += size_of(s) + sizeof *w;
    rb_conn_dirty(c);
    return 0;
}

/* A stream has ended: those that waited for it alone leave, in order. */
static void let_leave(struct rb_conn *c) {
    struct rb_outgoing *o = &c->outgoing;
    struct rb_waiting *list = o->waiting;
    o->waiting = NULL;
    o->waiting_end = &o->waiting;
    memset(o->waiting_by_key, 0, sizeof o->waiting_by_key);
    o->waiting_for_all = 0;
    while (list) {
        struct rb_waiting *w = list;
        list = w->next;
        w->next = NULL;
        if (c->failed || must_wait(o, w->key, is_large(c, &w->signal))) {
            *o->waiting_end = w;
            o->waiting_end = &w->next;
            if (w->key == 0)
                o->waiting_for_all++;
            else
                o->waiting_by_key[w->key % RB_WAITING_BUCKETS]++;
            continue;
        }
        o->bytes -= size_of(&w->signal) + sizeof *w;
        w->signal.owner = &w->own;
        leave_now(c, &w->signal, w->key);
        free(w->own);
        free(w);
    }
}

void rb_outgoing_pump(struct rb_conn *c) {
    struct rb_outgoing *o = &c->outgoing;
    size_t sent = 0;
    while (o->streams && !c->failed && sent < PUMP_BYTES) {
        struct rb_stream *s = o->streams;
        size_t before = sent;
        uint64_t fragments = s->left;
        int all = send_batch(c, s, &sent);
        if (all < 0) return;
        o->bytes -= sent - before;
        /* A turn is a count of fragments, however often the socket was full in it. */
        s->turn += (uint32_t)(fragments - s->left);
        if (s->left > 0 && s->turn < BATCH) return;
        s->turn = 0;
        o->streams = s->next;
        if (!o->streams) o->streams_end = &o->streams;
        s->next = NULL;
        if (s->left > 0) { /* behind the others */
            *o->streams_end = s;
            o->streams_end = &s->next;
        } else {
            o->stream_count--;
            free(s->own);
            free(s);
            let_leave(c);
        }
        if (!all) return;
    }
}

int rb_leave(struct rb_conn *c, struct rb_leaving *s) {
    if (!c || c->failed) return -1;
    /* Between two rounds much can gather; the bound of what waits holds inside a round too. */
    if (rb_conn_waiting_bytes(c) > c->relay->config.outgoing_bytes_max) rb_conn_flush(c);
    if (c->failed) return -1;
    if (!s->whole && (c->flags & RB_DFLAG_FRAGMENTS) && size_of(s) > RB_FRAGMENT_BYTES &&
        s->head.size > HEAD_MAX && !s->body.size && s->control < RB_FRAGMENT_BYTES) {
        size_t head = s->control < HEAD_MAX ? HEAD_MAX : s->control;
        s->body = (struct rb_slice){s->head.at + head, s->head.size - head};
        s->head.size = head;
    }
    int large = is_large(c, s);
    if (!large && !c->outgoing.streams && !c->outgoing.waiting) return leave_whole(c, s);
    uint64_t key = key_of(s);
    return must_wait(&c->outgoing, key, large) ? leave_later(c, s, key) : leave_now(c, s, key);
}
