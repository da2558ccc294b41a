/* spread_lab.h: a relay that stands still, with three roles and a worker of each, for jobs that spread over them: fan-outs and maps. */
#ifndef RINGBRIDGE_TESTS_SPREAD_LAB_H
#define RINGBRIDGE_TESTS_SPREAD_LAB_H

#include "relay/relay_pvt.h"
#include "still_lab.h"

enum { ECHO, OTHER, JOIN, SPREAD_ROLES };
static const char *const spread_names[] = {"echo", "other", "join"};

static inline struct rb_role_config spread_role(int role) {
    struct rb_role_config config = lab_role_config();
    config.name = spread_names[role];
    config.admission.depth_max = 64;
    return config;
}

/* The i-th worker is that of the i-th role. */
static inline void spread_hire(struct still *s, int role) {
    if (rb_lab_hire(s->lab.relay, (uint32_t)role, ++s->ids, 16, &s->workers[role]) < 0) abort();
    rb_lab_greet(s->workers[role], spread_names[role]);
    still_round(s, 0);
}
/* `roles`, or NULL: as they are by default. Each worker has done a job, so that its credit is its whole ring. */
static inline void spread_open_with(struct still *s, const struct rb_role_config *roles,
                                    uint64_t outgoing_bytes_max) {
    struct rb_relay_config config = lab_config();
    config.monitors_max = STILL_CALLERS;
    config.seed = 1;
    if (outgoing_bytes_max) config.outgoing_bytes_max = outgoing_bytes_max;
    *s = (struct still){.now = 1000 * STILL_MS, .lab.peer = -1};
    if (rb_lab_open(&s->lab.relay, &config, s->now) < 0) abort();
    lab_record_begin(s->lab.relay);
    if (rb_relay_install_service(s->lab.relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0)
        abort();
    for (int i = 0; i < SPREAD_ROLES; i++) {
        struct rb_role_config role = roles ? roles[i] : spread_role(i);
        if (rb_relay_add_role(s->lab.relay, (uint32_t)i, &role) < 0) abort();
    }
    s->lab.peer = lab_connect(&s->lab);
    still_round(s, 0);
    for (int i = 0; i < SPREAD_ROLES; i++) spread_hire(s, i);
}
static inline void spread_open(struct still *s) { spread_open_with(s, NULL, 0); }

/* More than the socket holds, while the relay reads. */
static inline void still_write(struct still *s, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    while (size > 0) {
        ssize_t n = send(s->lab.peer, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            still_round(s, 0);
        } else {
            abort();
        }
    }
}
/* {Verb, Role, Payload, #{...}}: role, payload and the `count` options as terms. */
static inline uint32_t spread_ask(struct still *s, const char *verb, const char *role,
                                  size_t role_size, const void *payload, size_t size,
                                  const char *options, size_t options_size, uint32_t count) {
    struct lab_bytes b = {.size = 0}, rest = {.size = 0};
    uint32_t caller = ++s->callers;
    lab_monitor(s->lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    PUT(&b, "\x68\4");
    lab_put_atom(&b, verb);
    lab_put(&b, role, role_size);
    PUT(&rest, "\x74");
    lab_put_u32(&rest, count);
    lab_put(&rest, options, options_size);
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)(b.size + size + rest.size) + 3);
    still_write(s, head, sizeof head);
    still_write(s, b.at, b.size);
    still_write(s, payload, size);
    still_write(s, rest.at, rest.size);
    still_round(s, 0);
    return caller;
}
#define ASK_VERB(s, verb, role, payload, options, count)                                 \
    spread_ask((s), verb, role, sizeof(role) - 1, payload, sizeof(payload) - 1, options, \
               sizeof(options) - 1, count)
#define ASK(s, role, payload) ASK_VERB(s, "submit", role, payload, "", 0)
#define ASK_WITH(s, role, payload, options, count) \
    ASK_VERB(s, "submit", role, payload, options, count)

#define ATOM_ECHO "\x77\4echo"
#define ATOM_OTHER "\x77\5other"
#define ATOM_JOIN "\x77\4join"
#define MAP(role) "\x68\2\x77\3map" role
#define STAGES(count) "\x77\6stages\x6c\0\0\0" count
#define BIN(letter) "\x6d\0\0\0\1" letter
#define FAILED_AT(stage, who) "\x68\2\x77\5error\x68\4\x77\5stage\x61" stage who
#define OF_MAP(role, index) "\x68\3\x77\3map" role "\x61" index
#define OF_FAN_OUT(role, index) \
    "\x68\3\x77\7"              \
    "fan_out" role "\x61" index

/* The k-th oldest request of a role's worker, which is answered so; its slot stays taken. */
static inline void answer_nth(struct still *s, int role, uint64_t k, const void *bytes, size_t size,
                              uint32_t status, uint32_t flags) {
    struct rb_lab_request r;
    if (rb_lab_request(s->workers[role], k, &r) < 0) {
        CHECK(!"a job to end");
        return;
    }
    rb_lab_start(s->workers[role], k + 1);
    struct rb_lab_answer a = {.job = r.job,
                              .status = status,
                              .code = status == RB_STATUS_FAILED ? 3 : 0,
                              .flags = flags,
                              .payload = bytes,
                              .payload_bytes = (uint32_t)size};
    if (rb_lab_complete(s->workers[role], &a) < 0) abort();
    still_round(s, 0);
}
#define ANSWER(s, role, k, text) answer_nth(s, role, k, text, sizeof(text) - 1, RB_STATUS_OK, 0)
static inline void release(struct still *s, int role, uint64_t count) {
    rb_lab_release(s->workers[role], count);
    still_round(s, 0);
}
static inline int64_t at_work(struct still *s, int role) {
    return rb_lab_requests(s->workers[role]);
}
/* Does the k-th oldest request say so? */
static inline int asked(struct still *s, int role, uint64_t k, const void *bytes, size_t size,
                        uint32_t term) {
    struct rb_lab_request r;
    return rb_lab_request(s->workers[role], k, &r) == 0 && r.payload_bytes == size &&
           memcmp(r.payload, bytes, size) == 0 && (r.flags & RB_FLAG_TERM) == term;
}
#define ASKED(s, role, k, text) asked(s, role, k, text, sizeof(text) - 1, 0)
#define ASKED_TERM(s, role, k, text) asked(s, role, k, text, sizeof(text) - 1, RB_FLAG_TERM)
static inline int is_stopped(struct still *s, int role, uint64_t k) {
    struct rb_lab_request r;
    return rb_lab_request(s->workers[role], k, &r) == 0 && r.cancelled;
}
/* Workers answer with what they are given until there is nothing more to do; how many answers that were. */
static inline int echo_all(struct still *s) {
    struct rb_lab_request r;
    int answered = 0, before;
    do {
        before = answered;
        for (int i = 0; i < SPREAD_ROLES; i++) {
            while (s->workers[i] && rb_lab_request(s->workers[i], 0, &r) == 0) {
                rb_lab_start(s->workers[i], 1);
                struct rb_lab_answer a = {.job = r.job,
                                          .status =
                                              r.cancelled ? RB_STATUS_CANCELLED : RB_STATUS_OK,
                                          .flags = r.flags & RB_FLAG_TERM,
                                          .payload = r.payload,
                                          .payload_bytes = r.payload_bytes};
                if (r.cancelled) a.payload_bytes = a.flags = 0;
                if (rb_lab_complete(s->workers[i], &a) < 0) abort();
                rb_lab_release(s->workers[i], 1);
                still_round(s, 0);
                answered++;
            }
        }
        still_round(s, 0);
    } while (answered > before);
    return answered;
}
/* Each worker has been measured, and is given as many jobs as its ring takes. */
static inline void warm(struct still *s) {
    for (int i = 0; i < SPREAD_ROLES; i++) {
        struct lab_bytes b = {.size = 0};
        uint32_t caller = ++s->callers;
        lab_monitor(s->lab.peer, 1, caller, caller);
        lab_call_head(&b, caller, caller);
        lab_submit_head(&b, 3, spread_names[i]);
        lab_put_binary(&b, "w", 1);
        lab_frame(s->lab.peer, &b);
        still_round(s, 0);
        ANSWER(s, i, 0, "w");
        release(s, i, 1);
        CHECK(TOLD_OK(s));
    }
}
static inline uint64_t answered(struct still *s, enum rb_reason reason) {
    return still_stats(s).answered[reason];
}
/* What batches and pipelines keep for all connections, bytes. */
static inline uint64_t kept(const struct still *s) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++)
        if (s->lab.relay->conns[i]) bytes += s->lab.relay->conns[i]->gathered;
    return bytes;
}
/* The books, between two steps. */
static inline void even(struct still *s) {
    char why[256] = "";
    CHECK(rb_relay_audit(s->lab.relay, why, sizeof why) == 0);
    if (why[0]) printf("%s: %s\n", check_name, why);
}

#endif
