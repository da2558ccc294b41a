/* relay_lab.h: a relay with a peer and a worker, both played by the test in its own process.
 *
 * The peer's end of a socket pair stands for a BEAM: frames are written and read by hand, with the distribution header. The worker attaches
 * to its link as a kit would, and takes, starts and completes requests when the test says so. */
#ifndef RINGBRIDGE_TESTS_RELAY_LAB_H
#define RINGBRIDGE_TESTS_RELAY_LAB_H

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "check.h"
#include "relay/net/signal.h"
#include "ringbridge/envelope.h"
#include "ringbridge/lab.h"
#include "ringbridge/link.h"
#include "ringbridge/obituary.h"
#include "ringbridge/relay.h"

#define LAB_FLAGS (RB_DFLAG_FRAGMENTS | RB_DFLAG_SEND_SENDER | RB_DFLAG_EXIT_PAYLOAD)
enum { LAB_WAIT_MS = 60000, LAB_PAYLOAD_MAX = 1 << 20, LAB_DEPTH = 4 };

static uint32_t lab_arrival_ms = 60000; /* for the next relay */

struct lab_worker {
    uint64_t id;
    struct rb_link_worker link;
    struct rb_link_fds fds; /* the worker's own copies */
    int obituary;           /* write end */
};

struct lab {
    struct rb_relay *relay;
    struct rb_event event; /* the last one taken */
    int peer;
    uint32_t connections;
    uint64_t workers;
};

/* --- Bytes ------------------------------------------------------------------------------------ */

struct lab_bytes {
    uint8_t at[8192];
    size_t size;
};
static inline void lab_put(struct lab_bytes *b, const void *bytes, size_t size) {
    if (b->size + size > sizeof b->at) abort();
    memcpy(b->at + b->size, bytes, size);
    b->size += size;
}
#define PUT(b, literal) lab_put((b), (literal), sizeof(literal) - 1)
static inline void lab_put_atom(struct lab_bytes *b, const char *text) {
    uint8_t head[2] = {RB_TAG_SMALL_ATOM_UTF8, (uint8_t)strlen(text)};
    lab_put(b, head, 2);
    lab_put(b, text, strlen(text));
}
static inline void lab_put_u32(struct lab_bytes *b, uint32_t v) {
    uint8_t be[4];
    rb_put_be32(be, v);
    lab_put(b, be, 4);
}
static inline void lab_put_pid(struct lab_bytes *b, const char *node, uint32_t id) {
    PUT(b, "\x58");
    lab_put_atom(b, node);
    lab_put_u32(b, id);
    lab_put_u32(b, 0);
    lab_put_u32(b, 7);
}
static inline void lab_put_ref(struct lab_bytes *b, uint32_t number) {
    PUT(b, "\x5a\x00\x03");
    lab_put_atom(b, "peer@host");
    lab_put_u32(b, 7);
    lab_put_u32(b, number);
    lab_put_u32(b, 0);
    lab_put_u32(b, 0);
}
static inline void lab_put_binary(struct lab_bytes *b, const void *bytes, size_t size) {
    PUT(b, "\x6d");
    lab_put_u32(b, (uint32_t)size);
    lab_put(b, bytes, size);
}

/* --- The peer --------------------------------------------------------------------------------- */

static inline void lab_write(int fd, const void *bytes, size_t size) {
    const uint8_t *p = bytes;
    while (size > 0) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0) return; /* the relay has closed: the test will see that */
        p += n;
        size -= (size_t)n;
    }
}
static inline void lab_frame(int fd, const struct lab_bytes *b) {
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)b->size + 3);
    lab_write(fd, head, sizeof head);
    lab_write(fd, b->at, b->size);
}
/* {19 | 20, Caller, job_dispatcher, Ref} */
static inline void lab_monitor(int fd, int on, uint32_t caller, uint32_t ref) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61");
    lab_put(&b, on ? "\x13" : "\x14", 1);
    lab_put_pid(&b, "peer@host", caller);
    lab_put_atom(&b, "job_dispatcher");
    lab_put_ref(&b, ref);
    lab_frame(fd, &b);
}
/* {6, Sender, '', job_dispatcher} and {'$gen_call', {Caller, ; the tag and the request follow. A sender of peer@host forwards a call when the
 * caller is another. */
static inline void lab_call_of(struct lab_bytes *b, uint32_t sender, const char *node,
                               uint32_t caller) {
    PUT(b, "\x68\x04\x61\x06");
    lab_put_pid(b, "peer@host", sender);
    lab_put_atom(b, "");
    lab_put_atom(b, "job_dispatcher");
    PUT(b, "\x68\x03");
    lab_put_atom(b, "$gen_call");
    PUT(b, "\x68\x02");
    lab_put_pid(b, node, caller);
}
/* [alias | Ref] */
static inline void lab_alias_tag(struct lab_bytes *b, uint32_t ref) {
    PUT(b, "\x6c\x00\x00\x00\x01");
    lab_put_atom(b, "alias");
    lab_put_ref(b, ref);
}
/* A caller's own call, up to its request. */
static inline void lab_call_head(struct lab_bytes *b, uint32_t caller, uint32_t ref) {
    lab_call_of(b, caller, "peer@host", caller);
    lab_alias_tag(b, ref);
}
static inline void lab_verb_head(struct lab_bytes *b, int arity, const char *verb,
                                 const char *role) {
    uint8_t tuple[2] = {RB_TAG_SMALL_TUPLE, (uint8_t)arity};
    lab_put(b, tuple, 2);
    lab_put_atom(b, verb);
    lab_put_atom(b, role);
}
static inline void lab_submit_head(struct lab_bytes *b, int arity, const char *role) {
    lab_verb_head(b, arity, "submit", role);
}
/* A whole call as a BEAM makes it: monitor, then {submit, echo, Payload}. */
static inline void lab_submit(int fd, uint32_t caller, const void *payload, size_t size) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 3, "echo");
    lab_put_binary(&b, payload, size);
    lab_frame(fd, &b);
}
/* The same with one option, of an integer value. */
static inline void lab_submit_option(int fd, uint32_t caller, const char *key, uint8_t value) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 4, "echo");
    lab_put_binary(&b, "payload", 7);
    PUT(&b, "\x74\x00\x00\x00\x01");
    lab_put_atom(&b, key);
    uint8_t number[2] = {RB_TAG_SMALL_INTEGER, value};
    lab_put(&b, number, 2);
    lab_frame(fd, &b);
}
/* For a name that is not the relay's: it goes up to the interpreter. */
static inline void lab_to_somebody_else(int fd, const void *message, size_t size) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "somebody_else");
    lab_put(&b, message, size);
    lab_frame(fd, &b);
}

/* Reads one frame that is no tick; its body without the header. Returns the size, 0 when the relay has closed, -1 after `wait_ms`. */
static inline int lab_read(int fd, uint8_t *body, size_t room, int wait_ms) {
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, wait_ms) <= 0) return -1;
        uint8_t head[4];
        ssize_t n = recv(fd, head, 4, MSG_WAITALL);
        if (n <= 0) return 0;
        uint32_t length = rb_be32(head);
        if (length == 0) continue;
        if (length > room || recv(fd, body, length, MSG_WAITALL) != (ssize_t)length) return 0;
        if (length < 3 || memcmp(body, "\x83\x44\x00", 3) != 0) return 0;
        memmove(body, body + 3, length - 3);
        return (int)length - 3;
    }
}
/* Is `wanted` somewhere in the next frame? */
static inline int lab_answer_has(int fd, const void *wanted, size_t size) {
    static uint8_t body[2 << 20];
    int n = lab_read(fd, body, sizeof body, LAB_WAIT_MS);
    return n > 0 && memmem(body, (size_t)n, wanted, size) != NULL;
}
#define ANSWER_HAS(fd, literal) lab_answer_has((fd), (literal), sizeof(literal) - 1)

/* --- The relay --------------------------------------------------------------------------------- */

/* Takes events until one of `kind`. 1, or 0 when none came in time. */
static inline int lab_event(struct lab *lab, uint32_t kind) {
    for (;;) {
        rb_relay_hush(lab->relay);
        while (rb_relay_take(lab->relay, &lab->event)) {
            if (lab->event.kind == kind) return 1;
        }
        struct pollfd p = {.fd = rb_relay_event_fd(lab->relay), .events = POLLIN};
        if (poll(&p, 1, LAB_WAIT_MS) <= 0) return 0;
    }
}
static inline int lab_event_says(const struct lab *lab, const char *text) {
    return lab->event.size == strlen(text) && memcmp(lab->event.data, text, lab->event.size) == 0;
}
static inline int lab_connect(struct lab *lab) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
    if (rb_relay_adopt(lab->relay, ++lab->connections, pair[0], "peer@host", LAB_FLAGS, NULL, 0) <
        0)
        abort();
    return pair[1];
}
/* `pidfd`: of the process that it passes for, or -1. */
static inline struct lab_worker *lab_worker_as(struct lab *lab, int pidfd) {
    struct lab_worker *w = calloc(1, sizeof *w);
    int fds[5], pipe_ends[2];
    char why[256];
    w->id = ++lab->workers;
    if (rb_relay_create_link(lab->relay, 0, w->id, 16, 1 << 20, 4096,
                             RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD, fds) < 0)
        abort();
    w->fds = (struct rb_link_fds){dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&w->link, &w->fds, why, sizeof why) < 0) abort();
    rb_link_greet(&w->link, "lab", 1 << 16, "echo");
    if (pipe2(pipe_ends, O_CLOEXEC) < 0) abort();
    w->obituary = pipe_ends[1];
    if (rb_relay_add_worker(lab->relay, w->id, pidfd, pipe_ends[0], -1, -1) < 0) abort();
    if (!lab_event(lab, RB_EVENT_WORKER_READY)) abort();
    return w;
}
static inline struct lab_worker *lab_worker(struct lab *lab) { return lab_worker_as(lab, -1); }
/* Lets go of the worker's end; with `o`, its death is told first. */
static inline void lab_worker_end(struct lab *lab, struct lab_worker *w,
                                  const struct rb_obituary *o) {
    if (o && write(w->obituary, o, sizeof *o) != sizeof *o) abort();
    close(w->obituary);
    (void)lab;
    rb_link_detach(&w->link);
    free(w);
}
static inline struct rb_relay_config lab_config(void) {
    return (struct rb_relay_config){.node = "bridge@host",
                                    .creation = 5,
                                    .tick_ms = 60000,
                                    .silence_ms = 300000,
                                    .frame_bytes_max = INT32_MAX,
                                    .signal_bytes_max = 4 << 20,
                                    .upward_bytes_max = 1 << 20,
                                    .upward_total_max = 4 << 20,
                                    .outgoing_bytes_max = 8 << 20,
                                    .outgoing_low_bytes = 256 << 10,
                                    .arrival_ms = lab_arrival_ms,
                                    .kept_bytes_max = 64 << 10,
                                    .monitors_max = 64,
                                    .busy_sleep_us = 20,
                                    .spin_us = 20};
}
static inline struct rb_role_config lab_role_config(void) {
    return (struct rb_role_config){.name = "echo",
                                   .payload_bytes_max = LAB_PAYLOAD_MAX,
                                   .pool_bytes = 4 << 20,
                                   .admission.depth_max = LAB_DEPTH,
                                   .choice.credit_us = 200,
                                   .timeout_default_ms = 60000,
                                   .timeout_max_ms = 60000,
                                   .cancel_term_ms = 60000,
                                   .cancel_kill_ms = 60000};
}
/* With RINGBRIDGE_REPLAY set, whatever a test has done is written down, and at its end made again: the same bytes must leave. */
static char lab_record[64];
static inline void lab_record_begin(struct rb_relay *relay) {
    static int number;
    lab_record[0] = 0;
    if (!getenv("RINGBRIDGE_REPLAY")) return;
    snprintf(lab_record, sizeof lab_record, "/tmp/rb-lab-%d-%d", (int)getpid(), number++);
    if (rb_relay_record(relay, lab_record, 64 << 20, 16 << 20) < 0) abort();
}
static inline void lab_record_end(void) {
    struct rb_replay again;
    if (!lab_record[0]) return;
    if (rb_replay(lab_record, &again) < 0 || again.differs) {
        printf("again, %s: %s (%s)\n", check_name, again.words, lab_record);
        check_breaches++;
    } else {
        unlink(lab_record);
    }
    lab_record[0] = 0;
}
/* The relay and its service; no role and no peer yet. */
static inline void lab_open_relay(struct lab *lab, const struct rb_relay_config *config) {
    *lab = (struct lab){.peer = -1};
    if (rb_relay_open(&lab->relay, config) < 0) abort();
    lab_record_begin(lab->relay);
    if (rb_relay_install_service(lab->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0)
        abort();
}
/* A relay without its thread (ringbridge/lab.h), its service, one role and its peer; `now`: ns of its clock. */
static inline void lab_open_still(struct lab *lab, const struct rb_relay_config *config,
                                  const struct rb_role_config *role, uint64_t now) {
    *lab = (struct lab){.peer = -1};
    if (rb_lab_open(&lab->relay, config, now) < 0) abort();
    if (rb_relay_install_service(lab->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0)
        abort();
    if (rb_relay_add_role(lab->relay, 0, role) < 0) abort();
    lab->peer = lab_connect(lab);
}
static inline void lab_open(struct lab *lab) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    lab_open_relay(lab, &config);
    if (rb_relay_add_role(lab->relay, 0, &role) < 0) abort();
    lab->peer = lab_connect(lab);
}
/* Whatever a test has done, the books are even at its end. */
static inline void lab_close_relay(struct rb_relay *relay) {
    char why[256] = "";
    rb_relay_stop(relay);
    if (rb_relay_audit(relay, why, sizeof why) < 0 && check_breaches++ < 10)
        printf("at the end of %s: %s\n", check_name ? check_name : "the run", why);
    rb_relay_close(relay);
    lab_record_end();
}
static inline void lab_close(struct lab *lab) {
    close(lab->peer);
    lab_close_relay(lab->relay);
}

/* --- The worker --------------------------------------------------------------------------------- */

/* The i-th waiting request (0: the oldest), waited for. NULL when none came. */
static inline const struct rb_request *lab_request(struct lab_worker *w, int64_t i) {
    for (int ms = 0; ms < LAB_WAIT_MS; ms++) {
        if (rb_ring_available(&w->link.request_ring) > i)
            return &w->link.requests[rb_ring_slot(&w->link.request_ring, (uint64_t)i)];
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
    }
    return NULL;
}
static inline const uint8_t *lab_payload(const struct lab_worker *w, const struct rb_request *r) {
    return r->flags & RB_FLAG_INLINE ? r->body : w->link.pool + r->payload_at;
}
static inline void lab_start(struct lab_worker *w, uint64_t count) {
    rb_store_release(&w->link.ours->started, w->link.request_ring.head + count);
}
/* Publishes a completion as it is, true or not. */
static inline void lab_publish(struct lab_worker *w, const struct rb_completion *e) {
    int64_t slot = rb_ring_claim(&w->link.completion_ring);
    if (slot < 0) abort();
    w->link.completions[slot] = *e;
    rb_ring_publish(&w->link.completion_ring);
    rb_gate_ring(&w->link.waker);
}
static inline struct rb_completion lab_completion(const struct lab_worker *w, uint64_t job,
                                                  const void *bytes, size_t size, int flags) {
    struct rb_completion e;
    memset(&e, 0, sizeof e);
    e.job = job;
    e.flags = (uint16_t)(RB_FLAG_INLINE | flags);
    e.payload_bytes = (uint32_t)size;
    memcpy(e.body, bytes, size);
    e.crc = rb_completion_crc(&e, e.body, w->link.header.features);
    return e;
}
/* The honest way: start, answer, release the oldest request. */
static inline void lab_complete(struct lab_worker *w, const void *bytes, size_t size) {
    const struct rb_request *r = lab_request(w, 0);
    if (!r) return;
    lab_start(w, 1);
    struct rb_completion e = lab_completion(w, r->job, bytes, size, 0);
    rb_ring_release(&w->link.request_ring, 1);
    lab_publish(w, &e);
}

#endif
