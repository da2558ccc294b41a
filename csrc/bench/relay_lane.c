/* bench/relay_lane.c: the ceiling of a lane: calls by a C client in place of a BEAM, through a real relay to a real worker process.
 *
 *      relay_lane WORKER raw|term CALLERS BYTES SECONDS       WORKER: build/bin/rb-echo
 *
 * So many callers ask again as soon as they are answered; one thread submits for all, drains what is there, and sleeps as a BEAM does
 * when nothing is. Prints calls a second; the CPU time of a call in the client and in the relay, which a loaded machine changes less;
 * and how both have waited. */
#define _GNU_SOURCE
#include "../tests/lane_lab.h"

enum { SLOTS = 1024 };

static uint64_t ns_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* The kit's program in a process of its own, as a shepherd would start it. */
static pid_t hire(struct lab *lab, const char *program) {
    int fds[5], ends[2], channel[2];
    if (rb_relay_create_link(lab->relay, 0, 1, SLOTS, 64 << 20, 4096, 0, fds) < 0) abort();
    if (pipe2(ends, O_CLOEXEC) < 0) abort();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0) abort();
    pid_t pid = fork();
    if (pid == 0) {
        int high[6];
        for (int i = 0; i < 5; i++) high[i] = fcntl(fds[i], F_DUPFD, 100);
        high[5] = fcntl(channel[1], F_DUPFD, 100);
        for (int i = 0; i < 6; i++) dup2(high[i], 3 + i);
        setenv("RINGBRIDGE_LINK_FD", "3", 1);
        setenv("RINGBRIDGE_WORKER_ID", "1", 1);
        setenv("RINGBRIDGE_ROLE", "echo", 1);
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    if (rb_relay_add_worker(lab->relay, 1, -1, ends[0], -1, -1) < 0) abort();
    if (!lab_event(lab, RB_EVENT_WORKER_READY)) abort();
    return pid;
}

static struct lane *lane;
static struct rb_lane_request request;
static uint64_t answered, wrong;
static int stopping;

static void ask(void) {
    uint64_t number;
    uint32_t ring = (uint32_t)answered & 1;
    if (rb_lane_claim(lane->beam, ring, &number) < 0) abort();
    request.caller = (uint32_t)number;
    if (rb_lane_send(lane->beam, ring, number, &request) < 0) abort();
}
static uint64_t owed; /* requests to be made again: not within the drain */
static int take(void *arg, const struct rb_lane_answer *a) {
    const struct iovec *payload = arg;
    wrong += a->kind != RB_LANE_ANSWER_RAW || a->size != payload->iov_len;
    answered++;
    owed++;
    return RB_LANE_TAKEN;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int callers = atoi(argv[3]);
    size_t size = (size_t)atol(argv[4]);
    double seconds = atof(argv[5]);
    struct lab lab;
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    config.busy_sleep_us = getenv("BUSY_US") ? (uint32_t)atoi(getenv("BUSY_US")) : 50;
    config.spin_us = 50;
    config.arrange_cpus = 1;
    role.admission.depth_max = 4096;
    role.pool_bytes = 64 << 20;
    role.payload_bytes_max = 16 << 20;
    lab_open_relay(&lab, &config);
    if (rb_relay_add_role(lab.relay, 0, &role) < 0) return 1;
    lab.peer = lab_connect(&lab);
    pid_t worker = hire(&lab, argv[1]);
    struct rb_lane_config memory = lane_config(7);
    memory.slots = SLOTS;
    memory.arena_bytes = 64 << 20;
    memory.result_bytes = 64 << 20;
    lane = lane_open_as(&lab, &memory);

    uint8_t *bytes = malloc(size + 64);
    memset(bytes, 7, size + 64); /* untouched, all of it would be one page of zeros */
    struct lab_bytes head = {.size = 0};
    struct iovec payload = {bytes, size}, term[2] = {{head.at, 0}, {bytes, size}};
    lab_submit_head(&head, 3, "echo");
    lab_put_binary(&head, "", 0);
    rb_put_be32(head.at + head.size - 4, (uint32_t)size);
    term[0].iov_len = head.size;
    int raw = strcmp(argv[2], "raw") == 0;
    request = (struct rb_lane_request){.form = raw ? RB_LANE_RAW : RB_LANE_TERM,
                                       .parts = raw ? &payload : term,
                                       .count = raw ? 1 : 2,
                                       .role = (const uint8_t *)"echo",
                                       .role_bytes = 4,
                                       .timeout_ms = 5000};
    for (int i = 0; i < callers; i++) ask();
    uint64_t own = ns_of(CLOCK_THREAD_CPUTIME_ID), all = ns_of(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t from = ns_of(CLOCK_MONOTONIC), until = from + (uint64_t)(seconds * 1e9), sleeps = 0;
    while (!stopping) {
        int n = rb_lane_drain(lane->beam, take, &payload, 64);
        if (n < 0) return 1;
        for (; owed; owed--) ask();
        stopping = ns_of(CLOCK_MONOTONIC) > until;
        if (n > 0) continue;
        sched_yield();
        if (rb_lane_waiting(lane->beam)) continue;
        sleeps++;
        lane_sleep(lane);
    }
    own = ns_of(CLOCK_THREAD_CPUTIME_ID) - own;
    all = ns_of(CLOCK_PROCESS_CPUTIME_ID) - all;
    double took = (double)(ns_of(CLOCK_MONOTONIC) - from) / 1e9;
    struct rb_relay_stats stats;
    struct rb_lane_stats of_lane;
    struct rb_lane_figures figures;
    rb_relay_read_stats(lab.relay, &stats);
    rb_relay_read_lane(lab.relay, 7, &of_lane);
    rb_lane_read_figures(lane->beam, &figures);
    printf("%s, %d callers, %zu bytes: %.0f calls/s; cpu of a call: client %llu ns, relay %llu ns; "
           "wrong %llu\n",
           argv[2], callers, size, (double)answered / took, (unsigned long long)(own / answered),
           (unsigned long long)((all - own) / answered), (unsigned long long)wrong);
    printf("  relay: %.1f calls a round, %llu sleeps, %llu parks; client: %llu sleeps, %llu rings "
           "heard, %llu rung\n",
           (double)answered / (double)stats.rounds, (unsigned long long)stats.sleeps,
           (unsigned long long)stats.parks, (unsigned long long)sleeps,
           (unsigned long long)of_lane.wakes, (unsigned long long)figures.wakes);
    kill(worker, SIGKILL);
    lane_detach(lane);
    rb_relay_close(lab.relay);
    return wrong != 0;
}
