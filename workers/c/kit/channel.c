/* channel.c: what a worker says beyond its answers: messages and calls into the cluster, log lines (docs/channel.md).
 *
 * Terms are the worker's own bytes. The kit only puts the tuples of its packets around them, whose tags are few
 * (erl_ext_dist: SMALL_TUPLE_EXT 104, ATOM_UTF8_EXT 118, SMALL_ATOM_UTF8_EXT 119, BINARY_EXT 109, INTEGER_EXT 98). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "channel_pvt.h"

enum { ATOM_BYTES_MAX = 255 * 4, TIMEOUT_MS_MAX = 86400000 };

/* --- the tuples' openings ---------------------------------------------------------------------------------------------- */

struct opening {
    size_t size;
    uint8_t bytes[2 * (3 + ATOM_BYTES_MAX) + 8];
};

static void add_tuple(struct opening *o, uint8_t arity) {
    o->bytes[o->size++] = 104;
    o->bytes[o->size++] = arity;
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static int add_atom(struct opening *o, const char *text) {
    size_t size = strlen(text);
    if (size > ATOM_BYTES_MAX) return -EINVAL;
    if (size > 255) {
        o->bytes[o->size++] = 118;
        o->bytes[o->size++] = (uint8_t)(size >> 8);
    } else {
        o->bytes[o->size++] = 119;
    }
    o->bytes[o->size++] = (uint8_t)size;
    memcpy(o->bytes + o->size, text, size);
    o->size += size;
    return 0;
}

/* {Dest, ... : the opening of a tuple that begins with a destination. */
static int open_towards(struct opening *o, uint8_t arity, const struct rb_dest *to) {
    o->size = 0;
    add_tuple(o, arity);
    if (to->term_bytes != 0) return 0; /* follows as it is */
    if (to->name == NULL) return -EINVAL;
    if (to->node == NULL) return add_atom(o, to->name);
    add_tuple(o, 2);
    int failed = add_atom(o, to->name);
    return failed ? failed : add_atom(o, to->node);
}

static uint64_t id_of(const struct rb_job *job) { return job ? job->request.job : 0; }

/* --- messages and calls ------------------------------------------------------------------------------------------------- */

int rb_send(struct rb_job *job, const struct rb_dest *to, const void *term, size_t size) {
    struct opening o;
    struct rb_packet head = {.kind = RB_PACKET_SEND, .job = id_of(job)};
    int failed = open_towards(&o, 2, to);
    const struct iovec parts[] = {
        {o.bytes, o.size}, {(void *)to->term, to->term_bytes}, {(void *)term, size}};
    return failed ? failed : rb_packet_send(job, &head, parts, 3, 0);
}

static void forget(struct rb_job *job, uint64_t id) {
    struct rb_packet head = {.kind = RB_PACKET_FORGET, .id = id, .job = id_of(job)};
    rb_packet_send(job, &head, NULL, 0, RB_AT_ONCE);
}

int rb_call(struct rb_job *job, const struct rb_dest *to, const void *term, size_t size,
            uint32_t timeout_ms, struct rb_reply *reply) {
    struct opening o;
    struct rb_incoming in;
    struct rb_packet head = {.kind = RB_PACKET_CALL, .job = id_of(job)};
    uint64_t deadline = job ? job->request.deadline_ns : 0, now = rb_now_ns();
    uint8_t timeout[5] = {98};

    *reply = (struct rb_reply){0};
    if (timeout_ms > TIMEOUT_MS_MAX) timeout_ms = TIMEOUT_MS_MAX;
    uint64_t until = now + timeout_ms * 1000000ull;
    if (deadline != 0 && deadline < until) {
        timeout_ms = deadline > now ? (uint32_t)((deadline - now + 999999) / 1000000) : 0;
        until = deadline;
    }
    put_u32(timeout + 1, timeout_ms);
    int failed = open_towards(&o, 3, to);
    if (failed) return failed;
    const struct iovec parts[] = {{o.bytes, o.size},
                                  {(void *)to->term, to->term_bytes},
                                  {(void *)term, size},
                                  {timeout, sizeof timeout}};
    head.id = rb_channel_next_id();
    failed = rb_packet_send(job, &head, parts, 4, until);
    if (failed) return failed;
    failed = rb_packet_await_reply(job, head.id, until, &in);
    if (failed) {
        forget(job, head.id);
        return failed;
    }
    failed = rb_reply_errno(&in);
    size_t skipped = failed ? (in.size < sizeof(uint64_t) ? in.size : sizeof(uint64_t)) : 0;
    *reply = (struct rb_reply){.term = in.body + skipped,
                               .size = in.size - skipped,
                               .memory = in.body,
                               .mapped_bytes = in.mapped ? in.size : 0};
    return failed;
}

void rb_reply_free(struct rb_reply *reply) {
    struct rb_incoming in = {
        .body = reply->memory, .size = reply->mapped_bytes, .mapped = reply->mapped_bytes != 0};
    rb_packet_drop(&in);
    *reply = (struct rb_reply){0};
}

/* --- log lines ---------------------------------------------------------------------------------------------------------- */

static const char *const levels[] = {"debug", "info", "warning", "error"};

static int log_line(const struct rb_job *job, enum rb_log_level level, const char *text,
                    size_t size) {
    struct rb_packet head = {.kind = RB_PACKET_LOG, .job = id_of(job)};
    struct opening o = {0};
    add_tuple(&o, 2);
    add_atom(&o, levels[level]);
    o.bytes[o.size] = 109;
    put_u32(o.bytes + o.size + 1, (uint32_t)size);
    o.size += 5;
    const struct iovec parts[] = {{o.bytes, o.size}, {(void *)text, size}};
    return rb_packet_send(NULL, &head, parts, 2, RB_AT_ONCE);
}

/* How many lines are missing, where some are. */
static int tell_missed(const struct rb_job *job) {
    uint32_t *missed = &rb_channel.lines_missed;
    char text[80];
    /* Relaxed, as the additions to it: a count. Whoever takes it tells it, or puts it back. */
    if (rb_load_relaxed(missed) == 0) return 0;
    uint32_t count = __atomic_exchange_n(missed, 0, __ATOMIC_RELAXED);
    if (count == 0) return 0;
    int size = snprintf(text, sizeof text, "%u log lines are missing here: the channel was full",
                        (unsigned)count);
    int failed = log_line(job, RB_LOG_WARNING, text, (size_t)size);
    if (failed) __atomic_fetch_add(missed, count, __ATOMIC_RELAXED);
    return failed;
}

int rb_log(const struct rb_job *job, enum rb_log_level level, const char *format, ...) {
    char text[RB_LOG_BYTES_MAX];
    va_list arguments;
    if ((unsigned)level > RB_LOG_ERROR) return -EINVAL;
    va_start(arguments, format);
    /* clang-tidy 14 sees this only when it is given several files at once; alone the file is clean.
     * NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0) return -EINVAL;
    if ((size_t)size >= sizeof text) size = sizeof text - 1;
    int failed = tell_missed(job);
    if (!failed) failed = log_line(job, level, text, (size_t)size);
    if (failed == -EAGAIN) __atomic_fetch_add(&rb_channel.lines_missed, 1, __ATOMIC_RELAXED);
    return failed;
}
