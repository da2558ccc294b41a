/* peer.c: the bridge's side of a link, for tests (peer.h). */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ringbridge/envelope.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define NEED(condition)                                                              \
    do {                                                                             \
        if (!(condition)) {                                                          \
            printf("%s:%d: needed: %s (errno %s)\n", __FILE__, __LINE__, #condition, \
                   strerror(errno));                                                 \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

uint64_t peer_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

enum { DESCRIPTORS = 6 };

/* --- the process ------------------------------------------------------------------------------------------------------- */

/* Between fork and exec: async-signal-safe calls only. The descriptors go high first, so that none is overwritten. */
static void exec_in_child(const char *program, char *const environment[],
                          const int fds[DESCRIPTORS], int stderr_fd) {
    int high[DESCRIPTORS];
    char *argv[] = {(char *)program, NULL};
    for (int i = 0; i < DESCRIPTORS; i++) {
        high[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD, 100);
        if (fds[i] >= 0 && high[i] < 0) _exit(120);
    }
    for (int i = 0; i < DESCRIPTORS; i++) {
        if (high[i] < 0)
            close(3 + i);
        else if (dup2(high[i], 3 + i) < 0)
            _exit(121);
        if (high[i] >= 0) close(high[i]);
    }
    if (stderr_fd >= 0) dup2(stderr_fd, 2);
    execve(program, argv, environment);
    _exit(122);
}

static int hello_ready(void *arg) {
    struct peer *p = arg;
    return rb_load_seq_cst(&p->link.hello->hello) != RB_HELLO_NONE;
}

void peer_start(struct peer *p, const char *program, const struct peer_options *options,
                int hello) {
    char path[512], libraries[512];
    char *environment[] = {"RINGBRIDGE_LINK_FD=3",
                           "RINGBRIDGE_WORKER_ID=7",
                           "RINGBRIDGE_ROLE=test",
                           libraries,
                           getenv("ASAN_OPTIONS") ? "ASAN_OPTIONS=detect_leaks=1:handle_abort=0"
                                                  : NULL,
                           NULL,
                           NULL};
    const char *library_path = getenv("PEER_LIBRARY_PATH"); /* where it finds libraries first */
    snprintf(libraries, sizeof libraries, "LD_LIBRARY_PATH=%s", library_path ? library_path : "");
    int used = 0;
    while (environment[used] != NULL) used++;
    if (options->chaos) environment[used] = "RINGBRIDGE_CHAOS=1";
    int pipe_fds[2] = {-1, -1};
    const char *bin = getenv("WORKERS_BIN");

    *p = (struct peer){.stderr_fd = -1, .channel = -1, .next_job = 1};
    snprintf(path, sizeof path, "%s%s%s", program[0] == '/' ? "" : bin,
             program[0] == '/' ? "" : "/", program);
    if (options->pool_bytes) NEED(rb_pool_create(&p->pool, options->pool_bytes, 4096) == 0);
    NEED(rb_link_create(&p->link, &options->link, options->pool_bytes ? &p->pool : NULL) == 0);
    p->pool_blocks = calloc(options->link.slots, sizeof *p->pool_blocks);
    p->pool_counts = calloc(options->link.slots, sizeof *p->pool_counts);
    if (options->stderr_kept) NEED(pipe2(pipe_fds, O_CLOEXEC) == 0);

    int ends[2] = {-1, -1};
    if (options->channel) {
        NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        p->channel = ends[0];
    }

    int fds[DESCRIPTORS] = {
        p->link.fds.relay_side,  p->link.fds.worker_side, options->pool_bytes ? p->pool.fd : -1,
        p->link.fds.wake_worker, p->link.fds.wake_relay,  ends[1]};
    fflush(stdout);
    p->pid = fork();
    NEED(p->pid >= 0);
    if (p->pid == 0) exec_in_child(path, environment, fds, pipe_fds[1]);
    if (ends[1] >= 0) close(ends[1]);
    if (options->stderr_kept) {
        close(pipe_fds[1]);
        p->stderr_fd = pipe_fds[0];
    }
    if (hello) {
        struct rb_worker_header copy;
        char why[512];
        NEED(rb_gate_wait(&p->link.waiter, hello_ready, p, 5000000000));
        NEED(rb_link_hello(&p->link, &copy, why, sizeof why) == 1);
    }
}

int peer_wait(struct peer *p, int ms) {
    struct pollfd poll_fd = {.fd = (int)syscall(SYS_pidfd_open, p->pid, 0), .events = POLLIN};
    int status = 0;
    NEED(poll_fd.fd >= 0);
    int found = poll(&poll_fd, 1, ms);
    close(poll_fd.fd);
    if (found != 1) return -1000;
    NEED(waitpid(p->pid, &status, 0) == p->pid);
    p->pid = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void peer_close(struct peer *p) {
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    if (p->stderr_fd >= 0) close(p->stderr_fd);
    if (p->channel >= 0) close(p->channel);
    free(p->pool_blocks);
    free(p->pool_counts);
    rb_link_close(&p->link);
    if (p->pool.base) rb_pool_close(&p->pool);
}

void peer_stop(struct peer *p) {
    peer_control(p, RB_CONTROL_STOP);
    NEED(peer_wait(p, 5000) == 0);
    peer_close(p);
}

const char *peer_stderr(struct peer *p) {
    static char text[4096];
    size_t size = 0;
    ssize_t got;
    while (size < sizeof text - 1 &&
           (got = read(p->stderr_fd, text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)got;
    text[size] = '\0';
    return text;
}

/* --- requests ---------------------------------------------------------------------------------------------------------- */

/* A worker releases slots after it has published their answers: an instant later, on a busy machine more. */
static int64_t claim_request(struct peer *p) {
    uint64_t end = peer_now_ns() + 5000000000u;
    const struct timespec pause = {.tv_nsec = 100000};
    int64_t slot;
    while ((slot = rb_ring_claim(&p->link.request_ring)) == -EAGAIN && peer_now_ns() < end)
        nanosleep(&pause, NULL);
    return slot;
}

uint64_t peer_put(struct peer *p, const struct peer_request *request) {
    int64_t slot = claim_request(p);
    struct rb_request e = {.job = p->next_job++,
                           .opcode = request->opcode,
                           .flags = request->flags,
                           .deadline_ns = request->deadline_ns,
                           .payload_bytes = request->bytes,
                           .priority = 2};
    const uint8_t *payload = NULL;
    NEED(slot >= 0);
    p->pool_blocks[slot] = -1;
    if (request->bytes <= RB_INLINE_BYTES_MAX) {
        e.flags |= RB_FLAG_INLINE;
        if (request->bytes) memcpy(e.body, request->payload, request->bytes);
    } else {
        int64_t first = rb_region_take(&p->pool.region, request->bytes);
        NEED(first >= 0);
        e.payload_at = (uint64_t)first * p->pool.region.block_bytes;
        memcpy(p->pool.base + e.payload_at, request->payload, request->bytes);
        payload = p->pool.base + e.payload_at;
        p->pool_blocks[slot] = first;
        p->pool_counts[slot] = rb_region_blocks_for(&p->pool.region, request->bytes);
    }
    e.crc = rb_request_crc(&e, payload, p->link.config.features);
    p->link.requests[slot] = e;
    return e.job;
}

void peer_publish(struct peer *p) {
    if (rb_ring_publish(&p->link.request_ring) > 0) rb_gate_ring(&p->link.waker);
}

uint64_t peer_submit(struct peer *p, uint16_t opcode, const void *payload, uint32_t bytes) {
    struct peer_request request = {.payload = payload, .bytes = bytes, .opcode = opcode};
    uint64_t job = peer_put(p, &request);
    peer_publish(p);
    return job;
}

uint64_t peer_submit_text(struct peer *p, uint16_t opcode, const char *text) {
    return peer_submit(p, opcode, text, (uint32_t)strlen(text));
}

void peer_cancel(struct peer *p, uint64_t job) {
    /* Job ids count requests here. As the relay's C0, which pairs with C1 in rb_is_cancelled(). */
    rb_store_seq_cst(&p->link.cancels[(job - 1) & (p->link.config.slots - 1)], job);
}

void peer_demand(struct peer *p, uint64_t job, uint32_t parts) {
    /* As the relay's D0, which pairs with D1 in rb_demand(). */
    rb_store_seq_cst(&p->link.demands[(job - 1) & (p->link.config.slots - 1)],
                     rb_demand_word(job - 1, parts));
    rb_gate_ring(&p->link.waker);
}

void peer_control(struct peer *p, uint32_t control) {
    rb_store_seq_cst(&p->link.ours->control, control);
    rb_gate_ring(&p->link.waker);
}

uint64_t peer_await_started(struct peer *p, uint64_t at_least) {
    uint64_t end = peer_now_ns() + 5000000000u, started;
    const struct timespec pause = {.tv_nsec = 100000};
    while ((started = rb_load_acquire(&p->link.theirs->started)) < at_least && peer_now_ns() < end)
        nanosleep(&pause, NULL);
    return started;
}

/* --- answers ----------------------------------------------------------------------------------------------------------- */

static int answer_ready(void *arg) {
    struct peer *p = arg;
    return rb_ring_available(&p->link.completion_ring) != 0;
}

int peer_answer(struct peer *p, struct peer_answer *answer, int ms) {
    struct rb_completion c;
    uint32_t slot;
    if (!rb_gate_wait(&p->link.waiter, answer_ready, p, (int64_t)ms * 1000000)) return 0;
    NEED(rb_ring_available(&p->link.completion_ring) > 0);
    c = p->link.completions[rb_ring_slot(&p->link.completion_ring, 0)];
    rb_ring_release(&p->link.completion_ring, 1);

    NEED(c.job >= 1 && c.job < p->next_job);
    NEED((c.flags & ~(RB_FLAG_INLINE | RB_FLAG_TERM | RB_FLAG_ZSTD)) == 0 && c.reserved == 0);
    answer->completion = c;
    if (c.flags & RB_FLAG_INLINE) {
        NEED(c.payload_bytes <= RB_INLINE_BYTES_MAX && c.payload_at == 0);
        answer->payload = answer->completion.body;
    } else {
        NEED(c.payload_bytes > RB_INLINE_BYTES_MAX &&
             c.payload_at % p->link.config.result_block_bytes == 0);
        NEED(c.payload_at < p->link.config.result_bytes);
        NEED(c.payload_bytes <= p->link.config.result_bytes - c.payload_at);
        answer->payload = p->link.results + c.payload_at;
    }
    NEED(c.crc == rb_completion_crc(&c, answer->payload, p->link.config.features));
    slot = (uint32_t)((c.job - 1) & (p->link.config.slots - 1));
    if (p->pool_blocks[slot] >= 0)
        NEED(rb_region_give(&p->pool.region, (uint32_t)p->pool_blocks[slot],
                            p->pool_counts[slot]) == 0);
    p->pool_blocks[slot] = -1;
    return 1;
}

void peer_give_back(struct peer *p, const struct peer_answer *answer) {
    const struct rb_completion *c = &answer->completion;
    uint32_t block = p->link.config.result_block_bytes;
    int64_t slot;
    if (c->flags & RB_FLAG_INLINE) return;
    slot = rb_ring_claim(&p->link.giveback_ring);
    NEED(slot >= 0);
    p->link.givebacks[slot] = (struct rb_giveback){.first = (uint32_t)(c->payload_at / block),
                                                   .count = (c->payload_bytes + block - 1) / block};
    rb_ring_publish(&p->link.giveback_ring);
    rb_gate_ring(&p->link.waker);
}
