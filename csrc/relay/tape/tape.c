/* tape.c: the crossings, each way: written down, or given and held against what was. */
#include "relay/tape/tape.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "relay/duct.h"
#include "relay/net/tls.h"
#include "relay/relay_pvt.h"
#include "relay/tape/tape_pvt.h"
#include "ringbridge/crc32c.h"

static void put(struct rb_tape *t, enum rb_item_kind kind, uint64_t id, int64_t a, uint64_t b,
                const void *at, size_t size) {
    rb_tape_put(t, kind, id, a, b, &(struct rb_part){at, size}, 1);
}

void rb_tape_round(struct rb_relay *r, const struct epoll_event *ready, int count) {
    if (r->tape->replaying) return; /* it was given from there */
    put(r->tape, RB_ITEM_ROUND, 0, (int64_t)r->now, 0, ready, (size_t)count * sizeof *ready);
    r->tape->rounds++;
}

struct rb_note *rb_tape_note(struct rb_relay *r) {
    struct rb_tape *t = r->tape;
    struct rb_item item;
    if (!t->replaying) {
        struct rb_note *note = rb_duct_take(&r->down);
        if (note) rb_note_tape(t, note);
        return note;
    }
    if (!rb_replay_next_is(t, RB_ITEM_NOTE, UINT64_MAX)) return NULL;
    const uint8_t *data = rb_replay_take(t, RB_ITEM_NOTE, UINT64_MAX, &item);
    if (rb_note_untape(r, (uint32_t)item.id, data, item.size) < 0) {
        rb_replay_differs(t, "a note of kind %u cannot be given again", (unsigned)item.id);
        return NULL;
    }
    return rb_duct_take(&r->down);
}

struct rb_note *rb_tape_note_early(struct rb_relay *r) {
    struct rb_tape *t = r->tape;
    struct rb_note *note = rb_tape_note(r);
    if (note) return note;
    if (!t->replaying)
        t->skipped++;
    else if (t->skipped)
        t->skipped--;
    return NULL;
}

uint64_t rb_tape_clock(struct rb_relay *r) {
    struct rb_tape *t = r->tape;
    struct rb_item item;
    if (t->replaying) return rb_replay_take(t, RB_ITEM_CLOCK, 0, &item) ? (uint64_t)item.a : r->now;
    uint64_t now = r->still ? r->now : rb_clock_ns();
    put(t, RB_ITEM_CLOCK, 0, (int64_t)now, 0, NULL, 0);
    return now;
}

/* --- Sockets ------------------------------------------------------------------------------------------------------------------- */

static uint64_t flags_of(const struct rb_wire *w) {
    return (w->drained ? RB_WIRE_DRAINED : 0) | (w->unsent ? RB_WIRE_UNSENT : 0);
}
static void set_flags(struct rb_wire *w, uint64_t flags) {
    w->drained = (flags & RB_WIRE_DRAINED) != 0;
    w->unsent = (flags & RB_WIRE_UNSENT) != 0;
}

/* The first `size` bytes of the pieces, as parts; how many. */
static int parts_of(const struct iovec *iov, int pieces, size_t size, struct rb_part *parts) {
    int count = 0;
    for (int i = 0; i < pieces && size > 0; i++) {
        size_t n = iov[i].iov_len < size ? iov[i].iov_len : size;
        parts[count++] = (struct rb_part){iov[i].iov_base, n};
        size -= n;
    }
    return count;
}

enum { PIECES_MAX = 64 }; /* more than any caller has */

/* What a call that broke TLS goes on the tape with: its words, which the connection's end will say. A write meets what was wrong
 * with the bytes of a read before it, where that gave those in front of it. */
static int words_of(const struct rb_wire *w, struct rb_part *part) {
    const char *why = rb_wire_why(w);
    *part = (struct rb_part){why, strlen(why)};
    return 1;
}
static void take_words(struct rb_wire *w, const struct rb_item *item, const uint8_t *data) {
    if (item->a != -EPROTO || !w->tls) return;
    size_t n = item->size < sizeof w->tls->why.text ? item->size : sizeof w->tls->why.text - 1;
    memcpy(w->tls->why.text, data, n);
    w->tls->why.text[n] = 0;
}

ssize_t rb_tape_read(struct rb_wire *w, struct iovec *iov, int pieces) {
    struct rb_tape *t = w->tape;
    struct rb_part parts[PIECES_MAX];
    struct rb_item item;
    if (!t->replaying) {
        ssize_t n = rb_wire_read_untaped(w, iov, pieces);
        int count = n > 0 ? parts_of(iov, pieces, (size_t)n, parts) : 0;
        if (n == -EPROTO) count = words_of(w, parts);
        rb_tape_put(t, RB_ITEM_READ, w->connection, n, flags_of(w), parts, count);
        return n;
    }
    const uint8_t *data = rb_replay_take(t, RB_ITEM_READ, w->connection, &item);
    if (!data) return -EAGAIN;
    set_flags(w, item.b);
    size_t left = item.a > 0 ? (size_t)item.size : 0;
    for (int i = 0; i < pieces && left > 0; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
        memcpy(iov[i].iov_base, data, n);
        data += n;
        left -= n;
    }
    if (left) rb_replay_differs(t, "connection %u reads %zu bytes fewer", w->connection, left);
    take_words(w, &item, data);
    return (ssize_t)item.a;
}

/* Byte for byte, as far as the socket took them. */
static void compare_written(struct rb_tape *t, const struct rb_wire *w, const struct iovec *iov,
                            int pieces, const uint8_t *data, uint64_t size) {
    uint64_t at = 0;
    for (int i = 0; i < pieces && at < size; i++) {
        const uint8_t *ours = iov[i].iov_base;
        for (size_t k = 0; k < iov[i].iov_len && at < size; k++, at++) {
            if (ours[k] == data[at]) continue;
            rb_replay_differs(t, "byte %llu of what leaves on connection %u is %02x, not %02x",
                              (unsigned long long)at, w->connection, ours[k], data[at]);
            return;
        }
    }
    if (at < size)
        rb_replay_differs(t, "connection %u sends %llu bytes fewer than the %llu of the record",
                          w->connection, (unsigned long long)(size - at), (unsigned long long)size);
}

ssize_t rb_tape_write(struct rb_wire *w, struct iovec *iov, int pieces) {
    struct rb_tape *t = w->tape;
    struct rb_part parts[PIECES_MAX];
    struct rb_item item;
    if (!t->replaying) {
        ssize_t n = rb_wire_write_untaped(w, iov, pieces);
        int count = n > 0 ? parts_of(iov, pieces, (size_t)n, parts) : 0;
        if (n == -EPROTO) count = words_of(w, parts);
        rb_tape_put(t, RB_ITEM_WRITE, w->connection, n, flags_of(w), parts, count);
        return n;
    }
    const uint8_t *data = rb_replay_take(t, RB_ITEM_WRITE, w->connection, &item);
    if (!data) return -EAGAIN;
    set_flags(w, item.b);
    if (item.a > 0) compare_written(t, w, iov, pieces, data, item.size);
    take_words(w, &item, data);
    return t->differs ? -EAGAIN : (ssize_t)item.a;
}

int rb_tape_flush(struct rb_wire *w) {
    struct rb_item item;
    if (w->tape->replaying) {
        if (!rb_replay_take(w->tape, RB_ITEM_FLUSH, w->connection, &item)) return -EAGAIN;
        set_flags(w, item.b);
        return (int)item.a;
    }
    int rc = rb_wire_flush_untaped(w);
    put(w->tape, RB_ITEM_FLUSH, w->connection, rc, flags_of(w), NULL, 0);
    return rc;
}

int rb_tape_has_room(struct rb_conn *c, int has_room) {
    struct rb_tape *t = c->relay->tape;
    struct rb_item item;
    if (!t->replaying) {
        if (has_room)
            t->skipped++;
        else
            put(t, RB_ITEM_FULL, c->id, 0, 0, NULL, 0);
        return has_room;
    }
    if (t->skipped) return t->skipped--, 1;
    (void)rb_replay_take(t, RB_ITEM_FULL, c->id, &item);
    return 0;
}

/* --- Pipes of workers ---------------------------------------------------------------------------------------------------------- */

static ssize_t read_pipe(struct rb_worker *w, enum rb_item_kind kind, int which, int fd, void *at,
                         size_t size) {
    struct rb_tape *t = w->relay->tape;
    struct rb_item item;
    if (!t->replaying) {
        ssize_t n = rb_worker_read(fd, at, size);
        put(t, kind, w->id, n, (uint64_t)which, at, n > 0 ? (size_t)n : 0);
        return n;
    }
    const uint8_t *data = rb_replay_take(t, kind, w->id, &item);
    if (!data || item.size > size) return -EAGAIN;
    memcpy(at, data, item.size);
    return (ssize_t)item.a;
}

ssize_t rb_tape_obituary(struct rb_worker *w, void *at, size_t size) {
    return read_pipe(w, RB_ITEM_OBITUARY, 0, w->obituary_fd, at, size);
}

ssize_t rb_tape_output(struct rb_worker *w, int which, int fd, void *at, size_t size) {
    return read_pipe(w, RB_ITEM_OUTPUT, which, fd, at, size);
}

int rb_tape_is_replayed(const struct rb_tape *t) { return t->replaying; }

/* --- What leaves ---------------------------------------------------------------------------------------------------------------- */

void rb_tape_out(struct rb_relay *r, enum rb_item_kind kind, uint64_t id, int64_t a, const void *at,
                 size_t size) {
    struct rb_tape *t = r->tape;
    struct rb_item item;
    if (!t->replaying) {
        put(t, kind, id, a, 0, at, size);
        return;
    }
    const uint8_t *data = rb_replay_take(t, kind, id, &item), *ours = at;
    if (!data) return;
    if (item.a != a)
        rb_replay_differs(t, "%s of %llu: %lld, not %lld", rb_item_name(kind),
                          (unsigned long long)id, (long long)a, (long long)item.a);
    for (size_t i = 0; i < size && i < item.size; i++) {
        if (ours[i] == data[i]) continue;
        rb_replay_differs(t, "%s of %llu: byte %zu is %02x, not %02x", rb_item_name(kind),
                          (unsigned long long)id, i, ours[i], data[i]);
        return;
    }
    if (size != item.size)
        rb_replay_differs(t, "%s of %llu: %zu bytes, not %llu", rb_item_name(kind),
                          (unsigned long long)id, size, (unsigned long long)item.size);
}

void rb_tape_event(struct rb_relay *r, const struct rb_taped_event *e, struct rb_part data,
                   struct rb_part more) {
    struct rb_taped_event taped = *e;
    taped.size = data.size + more.size;
    if (data.size) taped.crc = rb_crc32c(0, data.at, data.size);
    if (more.size) taped.crc = rb_crc32c(taped.crc, more.at, more.size);
    rb_tape_out(r, RB_ITEM_EVENT, e->connection ? e->connection : e->worker, 0, &taped,
                sizeof taped);
}
