/* rb-conformance: the conformance job language (docs/workers-conformance.md), for the battery that holds every kit to the
 * same rules. One small function an opcode; all of them are ordinary handlers. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ringbridge_worker.h"

enum opcode {
    ECHO = 0,
    FAIL = 1,
    SLEEP = 2,
    EMIT = 3,
    PROGRESS = 4,
    LARGE = 5,
    END = 6,
    HOLD = 7,
    TERM = 8,
    CHECKPOINT = 9,
    CALL = 10,
    SEND = 11,
    LOG = 12,
    PULSE = 13,
    READY = 14,
    ABOUT = 15,
    STATE = 16,
    PEER_OPEN = 17,
    PEER_CALL = 18,
    PEER_CLOSE = 19
};
enum { CODE_BAD_PAYLOAD = 1, CODE_REFUSED = 2, CODE_UNKNOWN_OPCODE = 3 };
enum { PATTERN = 251, PART_BYTES_MAX = 4 << 20, BINARY_EXT = 109 };

/* --- payloads: little-endian fields, read where they lie --------------------------------------------------------------- */

struct payload {
    const uint8_t *bytes;
    size_t size;
};

static struct payload payload_of(const struct rb_job *job) {
    struct payload p;
    p.bytes = rb_job_payload(job, &p.size);
    return p;
}

static uint64_t number(const uint8_t *bytes, size_t size) {
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

static void put(uint8_t **at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) *(*at)++ = (uint8_t)(value >> 8 * i);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- the operations: each is given a payload that is as long as it needs at least ------------------------------------- */

static void echo(struct rb_job *job, struct payload p) {
    if (rb_job_payload_is_term(job))
        rb_complete_term_bytes(job, p.bytes, p.size);
    else
        rb_complete_bytes(job, p.bytes, p.size);
}

static void fail(struct rb_job *job, struct payload p) {
    rb_fail(job, (uint16_t)number(p.bytes, 2), "%.*s", (int)(p.size - 2),
            (const char *)p.bytes + 2);
}

static void sleep_for(struct rb_job *job, struct payload p) {
    if (rb_job_sleep(job, number(p.bytes, 4) * 1000000))
        rb_cancelled(job);
    else
        rb_done(job);
}

/* Part or report number i, in memory of ours; returns its size on the wire. */
static size_t make_part(uint8_t *part, uint32_t i, uint32_t bytes, int as_term) {
    size_t head = 0;
    if (as_term) {
        const uint8_t tag[5] = {BINARY_EXT, (uint8_t)(bytes >> 24), (uint8_t)(bytes >> 16),
                                (uint8_t)(bytes >> 8), (uint8_t)bytes};
        memcpy(part, tag, sizeof tag);
        head = sizeof tag;
    }
    memset(part + head, (int)(i % PATTERN), bytes);
    return head + bytes;
}

typedef int (*say)(struct rb_job *job, const void *bytes, size_t size);

/* Says `count` times; how often the kit did not drop it, or -1 when the job has its answer. */
static int64_t say_often(struct rb_job *job, struct payload p, say say_raw, say say_term) {
    static uint8_t part[PART_BYTES_MAX + 5];
    uint32_t count = (uint32_t)number(p.bytes, 4), bytes = (uint32_t)number(p.bytes + 4, 4);
    int as_term = p.bytes[8] != 0;
    int64_t kept = 0;
    if (bytes > PART_BYTES_MAX) {
        rb_fail(job, CODE_BAD_PAYLOAD, "parts of %u bytes are more than this worker makes", bytes);
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t size = make_part(part, i, bytes, as_term);
        int failed = as_term ? say_term(job, part, size) : say_raw(job, part, size);
        if (failed == -ECANCELED || rb_is_cancelled(job)) {
            rb_cancelled(job);
            return -1;
        }
        if (failed != 0 && failed != -EAGAIN) {
            rb_fail(job, CODE_REFUSED, "number %u: %s", i, strerror(-failed));
            return -1;
        }
        kept += failed == 0;
    }
    return kept;
}

static void emit(struct rb_job *job, struct payload p) {
    if (say_often(job, p, rb_emit, rb_emit_term) >= 0) rb_done(job);
}

static void progress(struct rb_job *job, struct payload p) {
    int64_t kept = say_often(job, p, rb_progress, rb_progress_term);
    uint8_t answer[4], *at = answer;
    put(&at, (uint64_t)kept, 4);
    if (kept >= 0) rb_complete_bytes(job, answer, sizeof answer);
}

static void large(struct rb_job *job, struct payload p) {
    size_t size = (size_t)number(p.bytes, 8);
    uint8_t *room = rb_result_reserve(job, size), value = (uint8_t)(p.bytes[8] % PATTERN);
    if (room == NULL) return; /* the kit answers */
    for (size_t i = 0; i < size; i++) {
        room[i] = value++;
        if (value == PATTERN) value = 0;
    }
    rb_complete(job, size);
}

static void end(struct rb_job *job, struct payload p) {
    switch (p.bytes[0]) {
    case 0: _exit(p.bytes[1]);
    case 1:
        /* Its default meaning, whatever a sanitizer or a parent has made of it. */
        signal(p.bytes[1], SIG_DFL);
        raise(p.bytes[1]);
        break;
    case 2: return;
    case 3: abort();
    default: break;
    }
    rb_fail(job, CODE_BAD_PAYLOAD, "end %u %u does not end a process", p.bytes[0], p.bytes[1]);
}

static void hold(struct rb_job *job, struct payload p) {
    uint64_t until = now_ns() + number(p.bytes, 4) * 1000000;
    while (now_ns() < until) {
    }
    rb_done(job);
}

static void term(struct rb_job *job, struct payload p) {
    static const uint8_t ok_and[] = {104, 2, 119, 2, 'o', 'k'}; /* {ok, ...} */
    uint8_t *room;
    if (!rb_job_payload_is_term(job)) {
        rb_fail(job, CODE_BAD_PAYLOAD, "the payload must be a term, got %zu raw bytes", p.size);
        return;
    }
    room = rb_result_reserve(job, sizeof ok_and + p.size);
    if (room == NULL) return;
    memcpy(room, ok_and, sizeof ok_and);
    memcpy(room + sizeof ok_and, p.bytes, p.size);
    rb_complete_term(job, sizeof ok_and + p.size);
}

/* --- over the channel --------------------------------------------------------------------------------------------------- */

static void answer_as_told(struct rb_job *job, int failed) {
    if (failed == -ECANCELED)
        rb_cancelled(job);
    else if (failed)
        rb_fail(job, CODE_REFUSED, "%s", strerror(-failed));
    else
        rb_done(job);
}

struct loaded {
    uint8_t *bytes;
    size_t size;
};

static int keep(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    struct loaded *l = user;
    uint8_t *grown = realloc(l->bytes, l->size + size + 1);
    (void)kind;
    if (grown == NULL) return -ENOMEM;
    memcpy(grown + l->size, bytes, size);
    l->bytes = grown;
    l->size += size;
    return 0;
}

static void checkpoint(struct rb_job *job, struct payload p) {
    struct loaded l = {NULL, 0};
    int failed;
    if (p.bytes[0] < 2) {
        answer_as_told(job,
                       rb_checkpoint(job, (enum rb_state_kind)p.bytes[0], p.bytes + 1, p.size - 1));
        return;
    }
    failed = rb_checkpoint_load(job, keep, &l);
    if (failed || l.size == 0)
        answer_as_told(job, failed);
    else
        rb_complete_bytes(job, l.bytes, l.size);
    free(l.bytes);
}

static int splits(struct rb_job *job, struct payload p, size_t head, uint64_t dest) {
    if (dest <= p.size - head) return 1;
    rb_fail(job, CODE_BAD_PAYLOAD, "a destination of %llu bytes in a payload of %zu",
            (unsigned long long)dest, p.size);
    return 0;
}

static void call(struct rb_job *job, struct payload p) {
    uint64_t size = number(p.bytes + 4, 4);
    struct rb_dest to = RB_DEST(p.bytes + 8, size);
    struct rb_reply reply;
    int failed;
    if (!splits(job, p, 8, size)) return;
    failed = rb_call(job, &to, p.bytes + 8 + size, p.size - 8 - size, (uint32_t)number(p.bytes, 4),
                     &reply);
    if (failed)
        answer_as_told(job, failed);
    else
        rb_complete_term_bytes(job, reply.term, reply.size);
    rb_reply_free(&reply);
}

static void send_message(struct rb_job *job, struct payload p) {
    uint64_t size = number(p.bytes, 4);
    struct rb_dest to = RB_DEST(p.bytes + 4, size);
    if (splits(job, p, 4, size))
        answer_as_told(job, rb_send(job, &to, p.bytes + 4 + size, p.size - 4 - size));
}

static void log_text(struct rb_job *job, struct payload p) {
    answer_as_told(job, rb_log(job, (enum rb_log_level)p.bytes[0], "%.*s", (int)(p.size - 1),
                               (const char *)p.bytes + 1));
}

/* --- state that outlives the process, in the role that keeps one ------------------------------------------------------- */

static struct {
    uint8_t *bytes;
    size_t size;
    size_t saved;  /* the bridge has these, from the front on */
    int new_whole; /* replaced since, or never saved at all: no increment can tell it */
} state = {.new_whole = 1};

static int add_state(const void *bytes, size_t size) {
    uint8_t *grown = realloc(state.bytes, state.size + size + 1);
    if (grown == NULL) return -ENOMEM;
    memcpy(grown + state.size, bytes, size);
    state.bytes = grown;
    state.size += size;
    return 0;
}

static int replace_state(const void *bytes, size_t size) {
    state.size = 0;
    state.new_whole = 1;
    return add_state(bytes, size);
}

static int save(struct rb_state *to, enum rb_state_kind wanted, void *user) {
    enum rb_state_kind kind = state.new_whole ? RB_STATE_FULL : wanted;
    size_t from = kind == RB_STATE_FULL ? 0 : state.saved;
    (void)user;
    if (state.size == 0) return -ENOTSUP;
    int failed = rb_state_write(to, state.bytes + from, state.size - from);
    if (failed) return failed;
    state.saved = state.size;
    state.new_whole = 0;
    return (int)kind;
}

static int restore(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    enum { REFUSED = 255 };
    (void)user;
    if (size > 0 && *(const uint8_t *)bytes == REFUSED) return -EINVAL;
    int failed = kind == RB_STATE_FULL ? replace_state(bytes, size) : add_state(bytes, size);
    state.saved = state.size;
    state.new_whole = 0;
    return failed;
}

static void keep_state(struct rb_job *job, struct payload p) {
    switch (p.bytes[0]) {
    case 0: answer_as_told(job, replace_state(p.bytes + 1, p.size - 1)); break;
    case 1: answer_as_told(job, add_state(p.bytes + 1, p.size - 1)); break;
    case 3:
        if (rb_await_state(job) == -ECANCELED) {
            rb_cancelled(job);
            break;
        }
        /* fall through */
    case 2: rb_complete_bytes(job, state.bytes ? state.bytes : p.bytes, state.size); break;
    default: rb_fail(job, CODE_BAD_PAYLOAD, "state %u is nothing to do with it", p.bytes[0]);
    }
}

/* --- other workers ------------------------------------------------------------------------------------------------------ */

enum { LINKS_MAX = 16 };
static struct rb_peer *links[LINKS_MAX];
static unsigned links_count;

static void peer_open(struct rb_job *job, struct payload p) {
    char role[256 + 1];
    uint8_t answer[4], *at = answer;
    if (p.size >= sizeof role || links_count == LINKS_MAX) {
        rb_fail(job, CODE_BAD_PAYLOAD, "a role of %zu bytes, or more than %d links", p.size,
                LINKS_MAX);
        return;
    }
    memcpy(role, p.bytes, p.size);
    role[p.size] = '\0';
    int failed = rb_peer_open(job, role, &links[links_count]);
    if (failed) {
        answer_as_told(job, failed);
        return;
    }
    put(&at, links_count++, 4);
    rb_complete_bytes(job, answer, sizeof answer);
}

/* The link that a payload begins with. NULL: the job has its answer. */
static struct rb_peer **link_of(struct rb_job *job, struct payload p) {
    uint64_t link = number(p.bytes, 4);
    if (link < links_count && links[link] != NULL) return &links[link];
    rb_fail(job, CODE_BAD_PAYLOAD, "no link %llu is open", (unsigned long long)link);
    return NULL;
}

static void peer_call(struct rb_job *job, struct payload p) {
    enum { HEAD = 11, ANSWER_HEAD = 4 };
    static const int outcomes[] = {0, -EREMOTEIO, -ECONNABORTED, -EPIPE, -EPROTO, -ETIMEDOUT};
    enum { OUTCOMES = sizeof outcomes / sizeof *outcomes };
    struct rb_peer **peer = link_of(job, p);
    struct rb_peer_answer answer;
    uint8_t *room, how = 0;
    if (peer == NULL) return;
    int failed =
        rb_peer_call(job, *peer, (uint16_t)number(p.bytes + 8, 2), p.bytes + HEAD, p.size - HEAD,
                     p.bytes[10], (uint32_t)number(p.bytes + 4, 4), &answer);
    while (how < OUTCOMES && outcomes[how] != failed) how++;
    if (how == OUTCOMES)
        answer_as_told(job, failed);
    else if ((room = rb_result_reserve(job, ANSWER_HEAD + answer.size)) != NULL) {
        uint8_t *at = room;
        put(&at, how, 1);
        put(&at, answer.is_term != 0, 1);
        put(&at, answer.code, 2);
        if (answer.size > 0) memcpy(at, answer.bytes, answer.size);
        rb_complete(job, ANSWER_HEAD + answer.size);
    }
    rb_peer_answer_free(&answer);
}

static void peer_close(struct rb_job *job, struct payload p) {
    struct rb_peer **peer = link_of(job, p);
    if (peer == NULL) return;
    answer_as_told(job, rb_peer_close(job, *peer));
    *peer = NULL;
}

/* --- how it is ------------------------------------------------------------------------------------------------------ */

static void pulse(struct rb_job *job, struct payload p) {
    for (uint64_t n = number(p.bytes, 4); n > 0; n--) rb_pulse(job);
    rb_done(job);
}

static void ready(struct rb_job *job, struct payload p) {
    rb_set_ready(p.bytes[0]);
    rb_done(job);
}

static void about(struct rb_job *job, struct payload p) {
    uint8_t answer[46], *at = answer;
    struct rb_trace trace;
    (void)p;
    rb_job_trace(job, &trace);
    put(&at, rb_job_id(job), 8);
    put(&at, rb_job_deadline_ns(job), 8);
    put(&at, rb_demand(job), 4);
    put(&at, (uint64_t)(rb_job_wants_parts(job) | rb_job_wants_progress(job) << 1), 1);
    memcpy(at, trace.trace_id, sizeof trace.trace_id);
    at += sizeof trace.trace_id;
    memcpy(at, trace.span_id, sizeof trace.span_id);
    at += sizeof trace.span_id;
    *at = trace.flags;
    rb_complete_bytes(job, answer, sizeof answer);
}

/* --- which is which ---------------------------------------------------------------------------------------------------- */

static const struct operation {
    void (*run)(struct rb_job *job, struct payload p);
    size_t size_min;
    const char *name;
    uint16_t takes;
} operations[] = {
    [ECHO] = {echo, 0, "echo", 0},
    [FAIL] = {fail, 2, "fail", RB_TAKES_RAW},
    [SLEEP] = {sleep_for, 4, "sleep", RB_TAKES_RAW},
    [EMIT] = {emit, 9, "emit", RB_TAKES_RAW | RB_TAKES_PARTS},
    [PROGRESS] = {progress, 9, "progress", RB_TAKES_RAW},
    [LARGE] = {large, 9, "large", RB_TAKES_RAW},
    [END] = {end, 2, "end", RB_TAKES_RAW},
    [HOLD] = {hold, 4, "hold", RB_TAKES_RAW},
    [TERM] = {term, 0, "term", RB_TAKES_TERM},
    [CHECKPOINT] = {checkpoint, 1, "checkpoint", RB_TAKES_RAW},
    [CALL] = {call, 8, "call", RB_TAKES_RAW},
    [SEND] = {send_message, 4, "send", RB_TAKES_RAW},
    [LOG] = {log_text, 1, "log", RB_TAKES_RAW},
    [PULSE] = {pulse, 4, "pulse", RB_TAKES_RAW},
    [READY] = {ready, 1, "ready", RB_TAKES_RAW},
    [ABOUT] = {about, 0, "about", RB_TAKES_RAW},
    [STATE] = {keep_state, 1, "state", RB_TAKES_RAW},
    [PEER_OPEN] = {peer_open, 1, "peer_open", RB_TAKES_RAW},
    [PEER_CALL] = {peer_call, 11, "peer_call", RB_TAKES_RAW},
    [PEER_CLOSE] = {peer_close, 4, "peer_close", RB_TAKES_RAW},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static void handle(struct rb_job *job, void *user) {
    unsigned opcode = rb_job_opcode(job);
    struct payload p = payload_of(job);
    (void)user;
    if (opcode >= OPERATIONS || operations[opcode].run == NULL)
        rb_fail(job, CODE_UNKNOWN_OPCODE, "opcode %u is not served", opcode);
    else if (p.size < operations[opcode].size_min)
        rb_fail(job, CODE_BAD_PAYLOAD, "opcode %u takes %zu bytes or more, got %zu", opcode,
                operations[opcode].size_min, p.size);
    else
        operations[opcode].run(job, p);
}

int main(int argc, char **argv) {
    struct rb_op declared[OPERATIONS];
    const char *role = getenv("RINGBRIDGE_ROLE");
    struct rb_worker_options options = {.handler = handle, .ops = declared};
    if (role != NULL && strcmp(role, "conformance-state") == 0) {
        options.save = save;
        options.restore = restore;
    }
    options.serves_peers =
        role != NULL && strncmp(role, "conformance-links", strlen("conformance-links")) == 0;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        if (operations[i].run == NULL) continue;
        declared[options.ops_count++] =
            (struct rb_op){(uint16_t)i, operations[i].takes, operations[i].name};
    }
    return rb_worker_main(argc, argv, &options);
}
