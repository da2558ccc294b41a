/* loopback.c: the relay's end of lanes without a relay, for tests of the NIF: what it is asked it answers by itself, and some of its
 * roles are lies.
 *
 *      lane-loopback SOCKET [SLOTS [RESULT_MIB]]     SOCKET: an abstract one, without the leading 0
 *
 *      echo             the payload
 *      sleep            the same after so many milliseconds
 *      hold             nothing, until it is cancelled
 *      drop             as if nobody waited for it
 *      term             {ok, <<0:N>>} as a term, of N bytes (in decimal)
 *      tell             the telemetry from now on: "well": two roles, three workers, and one that has ended; "hidden": one more is not
 *                   shown; "full": as many workers as there is room for; "old"; and lies: "torn", "many", "word", "noise"
 *      end              the lane ends; exit: the program does, without a word
 *      lie_number lie_generation lie_status lie_place lie_bytes lie_twice lie_tail lie_back lie_term lie_noise
 *                       rules broken, each as its name says
 *
 * Every TERM request is answered {ok, <<"term">>}. A lane that breaks a rule, or hangs up, is closed. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ringbridge/lane.h"
#include "ringbridge/lane_link.h"
#include "ringbridge/lane_telemetry.h"

enum { LANES = 64, ROUND_MS = 1 };

struct job {
    struct job *next;
    uint64_t number;
    int64_t due_ms; /* -1: never */
    size_t size;
    uint8_t bytes[];
};

struct end {
    struct rb_lane_link link;
    struct job *jobs;
    int used;
};

static struct end ends[LANES];
static struct rb_lane_config config = {.slots = 1024,
                                       .arena_bytes = 4 << 20,
                                       .result_bytes = 64 << 20,
                                       .result_block_bytes = 4096,
                                       .rings = 9};
static struct rb_lane_telemetry telemetry; /* of all lanes */
static uint64_t noise = 88172645463325252u;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t next_noise(void) {
    noise ^= noise << 13;
    noise ^= noise >> 7;
    noise ^= noise << 17;
    return noise;
}

/* --- Answers ------------------------------------------------------------------------------------------------------------- */

static int put(struct end *e, uint64_t number, uint32_t status, const void *bytes, size_t size) {
    struct rb_lane_piece piece = {bytes, size};
    rb_lane_link_reclaim(&e->link);
    return rb_lane_link_put(&e->link, number, status, &piece, size ? 1 : 0);
}

/* {ok, <<0:N>>} */
static int put_term(struct end *e, uint64_t number, size_t n) {
    uint8_t *term = calloc(1, n + 11);
    static const uint8_t head[] = {104, 2, 119, 2, 'o', 'k', 109};
    memcpy(term, head, sizeof head);
    for (int i = 0; i < 4; i++) term[7 + i] = (uint8_t)(n >> (24 - 8 * i));
    int rc = put(e, number, RB_LANE_STATUS_TERM, term, n + 11);
    free(term);
    return rc;
}

/* The last completion that was put, which nobody has seen yet. */
static struct rb_lane_completion *last(struct end *e) {
    struct rb_ring_producer *ring = &e->link.completion_ring;
    return &e->link.completions[(ring->claimed - 1) & (ring->slots - 1)];
}

static int lie(struct end *e, uint64_t number, const char *role, const uint8_t *bytes,
               size_t size) {
    int rc = put(e, number, RB_LANE_STATUS_RAW, bytes, size);
    if (rc < 0) return rc;
    struct rb_lane_completion *c = last(e);
    if (!strcmp(role, "lie_number")) c->request = number + 1;
    if (!strcmp(role, "lie_generation")) c->request = number + (UINT64_C(1) << 32);
    if (!strcmp(role, "lie_status")) c->status = 77;
    if (!strcmp(role, "lie_place"))
        c->flags = 0, c->at = config.result_bytes - 4096, c->bytes = 8192;
    if (!strcmp(role, "lie_bytes")) c->flags = RB_LANE_FLAG_INLINE, c->bytes = 4096;
    if (!strcmp(role, "lie_twice")) put(e, number, RB_LANE_STATUS_RAW, bytes, size);
    if (!strcmp(role, "lie_tail")) e->link.completion_ring.claimed += 1 << 20;
    if (!strcmp(role, "lie_back")) e->link.completion_ring.claimed -= 2;
    /* Not an answer at all: its caller has to refuse it. */
    if (!strcmp(role, "lie_term")) c->status = RB_LANE_STATUS_TERM;
    if (!strcmp(role, "lie_noise"))
        for (size_t i = 0; i < sizeof *c / 8; i++)
            if (next_noise() % 3 == 0)
                ((uint64_t *)(void *)c)[i] = next_noise() >> (next_noise() % 64);
    return 0;
}

static void finish(struct end *e, struct job *job) {
    put(e, job->number, RB_LANE_STATUS_RAW, job->bytes, job->size);
}

static void keep(struct end *e, uint64_t number, int64_t due_ms, const uint8_t *bytes,
                 size_t size) {
    struct job *job = malloc(sizeof *job + size);
    *job = (struct job){.next = e->jobs, .number = number, .due_ms = due_ms, .size = size};
    memcpy(job->bytes, bytes, size);
    e->jobs = job;
}

/* --- Telemetry ----------------------------------------------------------------------------------------------------------- */

static void tell_role(uint32_t i, const char *name, uint32_t state) {
    struct rb_lane_telemetry_role role = {.role = i,
                                          .state = state,
                                          .queued = 3,
                                          .deferred = 1,
                                          .workers_ready = 2,
                                          .depth_max = 4096,
                                          .accepted = 20,
                                          .answered = 17,
                                          .refused = 5};
    memcpy(role.name, name, strlen(name));
    rb_lane_figures_role(&telemetry, i, &role);
}

/* Worker 1 runs a job, worker 2 waits for some, worker 3 has a link and has not greeted. */
static void tell_figures(uint64_t at_ns, uint32_t workers) {
    struct rb_lane_telemetry_figures head = {
        .at_ns = at_ns, .os_pid = 4711, .roles = 2, .workers = workers};
    rb_lane_figures_begin(&telemetry);
    tell_role(0, "echo", RB_LANE_ROLE_RUNNING);
    tell_role(1, "sleep", RB_LANE_ROLE_GIVEN_UP);
    for (uint32_t i = 0; i < 3; i++) {
        struct rb_lane_telemetry_worker w = {.worker = i + 1, .credit = 8};
        if (i < 2) {
            w.heartbeat_ns = at_ns - 250000000;
            w.in_flight = 1 - i;
            w.done = 7, w.lost = 2, w.failed = 1, w.last_code = 13, w.pulses = 4;
            w.service_ns = 12345, w.run_ns = 67890, w.still_ns = 5000000, w.waiting = 6;
            w.unready = i;
            w.breaker = i ? RB_LANE_BREAKER_HALF_OPEN : RB_LANE_BREAKER_CLOSED;
        }
        rb_lane_figures_worker(&telemetry, i, &w);
    }
    rb_lane_figures_end(&telemetry, &head);
}

static void tell_list(uint32_t state) {
    static const struct {
        uint32_t state, os_pid, restarts;
        const char *kit, *role;
    } who[] = {{RB_LANE_WORKER_READY, 101, 0, "c", "echo"},
               {RB_LANE_WORKER_READY, 102, 3, "rust", "echo"},
               {RB_LANE_WORKER_STARTING, 103, 0, "", "echo"},
               {RB_LANE_WORKER_NONE, 0, 0, "", ""},
               {RB_LANE_WORKER_GIVEN_UP, 0, 5, "c", "sleep"}};
    struct rb_lane_telemetry_error error = {.worker = 5, .bytes = 8};
    memcpy(error.why, "signal 9", 8);
    rb_lane_list_errors(&telemetry, &error, 1);
    for (uint32_t i = 0; i < sizeof who / sizeof *who; i++) {
        struct rb_lane_telemetry_place p = {.worker = who[i].state ? i + 1 : 0,
                                            .state = i ? who[i].state : state,
                                            .index = i < 3 ? i : 0,
                                            .os_pid = who[i].os_pid,
                                            .restarts = who[i].restarts};
        memcpy(p.kit, who[i].kit, strlen(who[i].kit));
        memcpy(p.role, who[i].role, strlen(who[i].role));
        rb_lane_list_place(&telemetry, i, &p);
    }
}

/* Workers without figures, and with the longest words. */
static void tell_full(void) {
    for (uint32_t i = 0; i < RB_LANE_TELEMETRY_WORKERS_MAX; i++) {
        struct rb_lane_telemetry_place p = {
            .worker = i + 1, .state = RB_LANE_WORKER_READY, .index = i, .os_pid = 200 + i};
        memset(p.kit, 'k', sizeof p.kit);
        memset(p.role, 'r', sizeof p.role);
        rb_lane_list_place(&telemetry, i, &p);
    }
}

/* What has no meaning, where nobody counts on one. The numbers of the seqlocks stay: a reader would not come past them. */
static void tell_noise(void) {
    static const uint32_t parts[] = {RB_LANE_TELEMETRY_AT_FIGURES, RB_LANE_TELEMETRY_AT_LIST};
    for (int i = 0; i < 64; i++) {
        uint8_t *part = telemetry.base + parts[i % 2];
        part[8 + next_noise() % 2048] = (uint8_t)next_noise();
    }
}

static void tell(const char *how) {
    uint64_t *figures = (void *)(telemetry.base + RB_LANE_TELEMETRY_AT_FIGURES);
    uint64_t now_ns = (uint64_t)now_ms() * 1000000;
    *figures &= ~UINT64_C(1);
    struct rb_lane_telemetry_place nobody = {.state = RB_LANE_WORKER_NONE};
    for (uint32_t i = RB_LANE_TELEMETRY_WORKERS_MAX; i-- > 5;)
        rb_lane_list_place(&telemetry, i, &nobody);
    tell_list(strcmp(how, "word") ? RB_LANE_WORKER_READY : 77);
    rb_lane_list_hidden(&telemetry, !strcmp(how, "hidden"));
    tell_figures(strcmp(how, "old") ? now_ns : now_ns - UINT64_C(60000000000),
                 strcmp(how, "many") ? 3 : RB_LANE_TELEMETRY_WORKERS_MAX + 1);
    if (!strcmp(how, "torn")) *figures |= 1;
    if (!strcmp(how, "noise")) tell_noise();
    if (!strcmp(how, "full")) tell_full();
}

/* --- Requests ------------------------------------------------------------------------------------------------------------ */

static int is_cancelled(const struct end *e, uint64_t number) {
    return rb_load_seq_cst(&e->link.cancels[rb_lane_slot(number)].request) == number;
}

static int ask(struct end *e, const struct rb_lane_submission *s, const uint8_t *bytes) {
    char role[256] = "";
    size_t size = s->bytes - s->role_bytes;
    if (s->form != RB_LANE_FORM_RAW) return put_term(e, s->request, 4);
    if (s->role_bytes > s->bytes) return -EPROTO;
    memcpy(role, bytes, s->role_bytes);
    bytes += s->role_bytes;
    if (is_cancelled(e, s->request)) return put(e, s->request, RB_LANE_STATUS_DROPPED, NULL, 0);
    if (!strcmp(role, "drop")) return put(e, s->request, RB_LANE_STATUS_DROPPED, NULL, 0);
    if (!strcmp(role, "exit")) _exit(0);
    if (!strcmp(role, "end")) {
        rb_lane_link_end(&e->link);
        return 0;
    }
    if (!strncmp(role, "lie_", 4)) return lie(e, s->request, role, bytes, size);
    if (!strcmp(role, "hold")) {
        keep(e, s->request, -1, bytes, size);
        return 0;
    }
    char text[32] = "";
    memcpy(text, bytes, size < 31 ? size : 31);
    if (!strcmp(role, "tell")) tell(text);
    if (!strcmp(role, "sleep") || !strcmp(role, "term")) {
        if (role[0] == 't') return put_term(e, s->request, strtoul(text, NULL, 10));
        keep(e, s->request, now_ms() + atoll(text), bytes, size);
        return 0;
    }
    return put(e, s->request, RB_LANE_STATUS_RAW, bytes, size);
}

static int take(struct end *e, uint32_t ring) {
    struct rb_ring_consumer *c = &e->link.submission_rings[ring];
    int64_t count = rb_ring_available(c);
    if (count < 0) return -EPROTO;
    for (int64_t i = 0; i < count; i++) {
        struct rb_lane_submission s = *rb_lane_link_submission(&e->link, ring, (uint64_t)i);
        const uint8_t *bytes = rb_lane_link_bytes(&e->link, ring, &s);
        int rc = bytes ? ask(e, &s, bytes) : -EPROTO;
        /* No room in the region: what binaries hold comes back some time. */
        if (rc == -ENOSPC) {
            keep(e, s.request, now_ms() + ROUND_MS, bytes + s.role_bytes, s.bytes - s.role_bytes);
            rc = 0;
        }
        if (rc < 0 && rc != -EMSGSIZE) return rc;
    }
    if (count > 0) rb_ring_release(c, (uint64_t)count);
    return 0;
}

static void ripen(struct end *e) {
    int64_t now = now_ms();
    struct job **link = &e->jobs;
    while (*link) {
        struct job *job = *link;
        int cancelled = is_cancelled(e, job->number);
        if (!cancelled && (job->due_ms < 0 || job->due_ms > now)) {
            link = &job->next;
            continue;
        }
        if (cancelled)
            put(e, job->number, RB_LANE_STATUS_DROPPED, NULL, 0);
        else
            finish(e, job);
        *link = job->next;
        free(job);
    }
}

/* --- Lanes --------------------------------------------------------------------------------------------------------------- */

static void hang_up(struct end *e) {
    while (e->jobs) {
        struct job *next = e->jobs->next;
        free(e->jobs);
        e->jobs = next;
    }
    rb_lane_link_close(&e->link);
    e->used = 0;
}

static void hand_over(int fd, struct end *e) {
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } control;
    int all[4] = {e->link.relay_side_fd, e->link.beam_side_fd, e->link.beam_bell, telemetry.fd};
    struct iovec word = {.iov_base = "", .iov_len = 1};
    struct msghdr m = {.msg_iov = &word,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof all);
    memcpy(CMSG_DATA(c), all, sizeof all);
    if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0) perror("sendmsg");
    rb_lane_link_handed_over(&e->link);
}

static void greet(int listener) {
    char token[RB_LANE_TOKEN_BYTES + 1];
    struct end *e = ends;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) return;
    while (e < ends + LANES && e->used) e++;
    /* A token of zeros is refused, in words. */
    if (recv(fd, token, sizeof token, 0) != RB_LANE_TOKEN_BYTES || token[0] == 0)
        send(fd, "no such token", 13, MSG_NOSIGNAL);
    else if (e == ends + LANES || rb_lane_link_create(&e->link, &config) < 0)
        send(fd, "no more lanes", 13, MSG_NOSIGNAL);
    else {
        e->used = 1;
        hand_over(fd, e);
    }
    close(fd);
}

static int hung_up(const struct end *e) {
    struct pollfd p = {.fd = e->link.bell, .events = POLLIN};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static int serve(struct end *e) {
    int rc = 0;
    for (uint32_t ring = 0; ring < config.rings && rc == 0; ring++) rc = take(e, ring);
    if (rc == 0) ripen(e);
    rb_lane_link_publish(&e->link);
    return rc < 0 || hung_up(e) ? -1 : 0;
}

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (argc < 2 || strlen(argv[1]) > 90) return 2;
    if (argc > 2) config.slots = (uint32_t)atoi(argv[2]);
    if (argc > 3) config.result_bytes = (uint64_t)atoi(argv[3]) << 20;
    memcpy(at.sun_path + 1, argv[1], strlen(argv[1]));
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[1]));
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 64) < 0) return 1;
    if (rb_lane_telemetry_create(&telemetry) < 0) return 1;
    tell("well");
    puts("ready");
    fflush(stdout);
    for (;;) {
        /* On the clock: this end never sleeps on its bells, and ends with whoever started it. */
        struct pollfd p[2] = {{.fd = listener, .events = POLLIN},
                              {.fd = STDIN_FILENO, .events = POLLIN}};
        int busy = 0;
        for (int i = 0; i < LANES; i++)
            if (ends[i].used && (busy = 1) && serve(&ends[i]) < 0) hang_up(&ends[i]);
        if (poll(p, 2, busy ? ROUND_MS : -1) < 0) continue;
        if (p[1].revents) return 0;
        if (p[0].revents) greet(listener);
    }
}
