/* link_loopback.c: the relay's end of workers' links without a relay, for tests of the NIF: it gives jobs, and holds each answer against
 * its job.
 *
 *      link-loopback SOCKET [SEED]           SOCKET: an abstract one, without the leading 0
 *
 * The first byte of the token that is shown says what there is to be had:
 *
 *      q       a quiet link: echo jobs of 16 bytes, one after the other, and nothing else
 *      h       an honest one: jobs of every size and kind; now and then a cancel, a drain, a stop, or an end without a word
 *      l       a relay that lies: it writes whatever it likes wherever it may
 *      t       one job of 8 MiB; the link is let go of, and the payload's place another's, as soon as the job is begun
 *      f       a quiet one whose bell is a file, which rings always
 *      w       descriptors that are none of a link's: others, too few, too many, in another order
 *      s       nothing at all, for as long as it waits
 *      k       the program is killed, and all links with it
 *
 * An answer is the job's payload, or bytes that all are the low one of the job's number. What else breaks a rule on a link that does not
 * lie is a line "wrong: ..." on stdout. A byte on stdin asks for a line of figures; its end ends the program. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nif/tests/link_lies.h"
#include "ringbridge/envelope.h"
#include "ringbridge/lane.h"
#include "ringbridge/link.h"

enum { LINKS = 64, SLOTS = 16, CREDIT = 4, ROUND_MS = 1, PATIENCE_MS = 60000, STOPPED_MS = 50 };
enum { BLOCK = 4096, RESULT_BLOCKS = 1024, RESULT_BYTES = RESULT_BLOCKS * BLOCK };
enum { POOL_BYTES = 32 << 20, LARGE_BYTES = 2 << 20, QUIET_BYTES = 16, TORN_BYTES = 8 << 20 };

struct job {
    uint64_t id, position;
    int64_t given_ms, first; /* first block in the pool; -1: it lies in its envelope */
    uint32_t bytes, flags, asked, sent;
    int cancelled, told;
};

struct end {
    struct rb_link link;
    char kind; /* 0: free */
    int greeted;
    uint64_t given, answered, stopped; /* stopped: how many had been begun when it was told to */
    int64_t stopped_ms;
    struct job jobs[SLOTS];
    uint8_t lent[RESULT_BLOCKS]; /* at a first block: so many follow it; 255: more than that */
    uint8_t held[RESULT_BLOCKS]; /* an answer's */
};

static struct end ends[LINKS];
static struct rb_pool pool;
static int file; /* neither sealed nor a socket */
static uint64_t last_job;
static uint64_t links, given, answered, cancelled, drains, stops, wrongs;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void wrong(const struct end *e, const char *what) {
    wrongs++;
    printf("wrong: %s (link %c%d, %llu given, %llu answered)\n", what, e->kind, (int)(e - ends),
           (unsigned long long)e->given, (unsigned long long)e->answered);
}

/* --- Jobs ---------------------------------------------------------------------------------------------------------------- */

static uint32_t some_bytes(const struct end *e) {
    if (e->kind == 'q') return QUIET_BYTES;
    if (e->kind == 't') return TORN_BYTES;
    switch (draw(20)) {
    case 0: return 0;
    case 1:
    case 2: return (uint32_t)draw(LARGE_BYTES);
    case 3:
    case 4: return (uint32_t)draw(200000);
    default: return (uint32_t)draw(100);
    }
}

/* A term is a binary: what a worker gets is one that it can decode. */
static void fill(uint8_t *to, const struct job *job) {
    memset(to, (int)draw(256), job->bytes);
    if (!(job->flags & RB_FLAG_TERM)) return;
    uint32_t size = job->bytes - 5;
    to[0] = 109;
    for (int i = 0; i < 4; i++) to[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

static const uint8_t *payload_of(const struct end *e, const struct job *job) {
    return job->first < 0 ? e->link.requests[job->position & (SLOTS - 1)].body
                          : pool.base + (uint64_t)job->first * BLOCK;
}

static void let_go(struct job *job) {
    if (job->first >= 0)
        rb_region_give(&pool.region, (uint32_t)job->first,
                       rb_region_blocks_for(&pool.region, job->bytes));
    job->first = -1;
}

static void give(struct end *e) {
    struct job job = {.first = -1, .position = e->given, .given_ms = now_ms()};
    if (e->given - e->answered >= (e->kind == 'h' ? CREDIT : 1)) return;
    int64_t slot = rb_ring_claim(&e->link.request_ring);
    if (slot == -EPROTO) wrong(e, "it releases what it was never given");
    if (slot < 0) return;
    job.bytes = some_bytes(e);
    if (e->kind == 'h') {
        if (job.bytes >= 5 && draw(3) == 0) job.flags |= RB_FLAG_TERM;
        if (draw(4) == 0) job.flags |= RB_FLAG_PARTS;
        if (draw(4) == 0) job.flags |= RB_FLAG_PROGRESS;
        job.asked = (uint32_t)draw(4);
    }
    if (job.bytes > RB_INLINE_BYTES_MAX)
        job.first = rb_region_take(&pool.region, job.bytes);
    else
        job.flags |= RB_FLAG_INLINE;
    if (job.bytes > RB_INLINE_BYTES_MAX && job.first < 0) {
        e->link.request_ring.claimed--; /* the pool is full: another time */
        return;
    }
    job.id = ++last_job;
    struct rb_request *r = &e->link.requests[slot];
    *r = (struct rb_request){.job = job.id,
                             .flags = (uint16_t)job.flags,
                             .payload_bytes = job.bytes,
                             .priority = (uint8_t)draw(4),
                             .payload_at = job.first < 0 ? 0 : (uint64_t)job.first * BLOCK};
    if (e->kind == 'h' && draw(20) == 0) {
        r->deadline_ns = (uint64_t)now_ms() * 1000000 + draw(20000000) - 10000000;
        job.cancelled = 1;
    }
    if (draw(2)) r->trace_id[3] = r->span_id[4] = 7;
    fill((uint8_t *)payload_of(e, &job), &job);
    r->crc = rb_request_crc(r, payload_of(e, &job), e->link.config.features);
    e->link.demands[slot] = rb_demand_word(job.position, job.asked);
    e->jobs[slot] = job;
    rb_ring_publish(&e->link.request_ring);
    e->given++, given++;
}

static void cancel_one(struct end *e) {
    struct job *job = &e->jobs[(e->answered + draw(CREDIT)) & (SLOTS - 1)];
    if (job->position < e->answered || job->position >= e->given) return;
    job->cancelled = 1;
    cancelled++;
    rb_store_seq_cst(&e->link.cancels[job->position & (SLOTS - 1)], job->id);
}

static void ask_for_more(struct end *e) {
    struct job *job = &e->jobs[e->answered & (SLOTS - 1)];
    if (e->answered == e->given || !(job->flags & RB_FLAG_PARTS)) return;
    job->asked += 1 + (uint32_t)draw(3);
    rb_store_seq_cst(&e->link.demands[job->position & (SLOTS - 1)],
                     rb_demand_word(job->position, job->asked));
}

/* --- Answers ------------------------------------------------------------------------------------------------------------- */

static int all_are(const uint8_t *bytes, uint32_t size, uint8_t value) {
    for (uint32_t i = 0; i < size; i++)
        if (bytes[i] != value) return 0;
    return 1;
}

/* Where its bytes lie, which nobody has but this answer; NULL: it lies. */
static const uint8_t *bytes_of(struct end *e, const struct rb_completion *c) {
    if (c->flags & RB_FLAG_INLINE) return c->payload_bytes <= RB_INLINE_BYTES_MAX ? c->body : NULL;
    uint32_t count = (uint32_t)((c->payload_bytes + UINT64_C(4095)) / BLOCK);
    uint64_t first = c->payload_at / BLOCK;
    if (c->payload_bytes == 0 || c->payload_at % BLOCK || first + count > RESULT_BLOCKS)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        if (e->held[first + i]++) return NULL;
    e->lent[first] = (uint8_t)(count < 255 ? count : 255);
    return e->link.results + c->payload_at;
}

static void judge(struct end *e, const struct rb_completion *c) {
    struct job *job = &e->jobs[e->answered & (SLOTS - 1)];
    const uint8_t *bytes = bytes_of(e, c);
    if (e->answered == e->given || c->job != job->id) {
        wrong(e, "an answer to what is not under way");
        return;
    }
    if (!bytes || rb_completion_crc(c, bytes, e->link.config.features) != c->crc) {
        wrong(e, "an answer whose bytes are not there");
        return;
    }
    if (rb_load_acquire(&e->link.theirs->started) <= job->position)
        wrong(e, "an answer to what was not begun");
    if (e->stopped_ms && job->position >= e->stopped)
        wrong(e, "an answer to what was begun after the end");
    int is_echo = c->payload_bytes == job->bytes &&
                  (c->flags & RB_FLAG_TERM) == (job->flags & RB_FLAG_TERM) &&
                  memcmp(bytes, payload_of(e, job), job->bytes) == 0;
    if (!is_echo &&
        ((c->flags & RB_FLAG_TERM) || !all_are(bytes, c->payload_bytes, (uint8_t)c->job)))
        wrong(e, "an answer of other bytes");
    switch (c->status) {
    case RB_STATUS_PART:
        if (!(job->flags & RB_FLAG_PARTS) || ++job->sent > job->asked)
            wrong(e, "a part that nobody has asked for");
        return;
    case RB_STATUS_PROGRESS: return;
    case RB_STATUS_CANCELLED:
        if (!job->cancelled) wrong(e, "a cancel that nobody has said");
        break;
    default: break;
    }
    let_go(job);
    e->answered++, answered++;
}

static void take_answers(struct end *e) {
    int64_t count = rb_ring_available(&e->link.completion_ring);
    if (count < 0) wrong(e, "its answers run backwards");
    for (int64_t i = 0; i < count; i++) {
        struct rb_completion c =
            e->link.completions[rb_ring_slot(&e->link.completion_ring, (uint64_t)i)];
        judge(e, &c);
    }
    if (count > 0) rb_ring_release(&e->link.completion_ring, (uint64_t)count);
}

/* In any order, and not all at once: room in the region comes and goes. */
static void give_back(struct end *e) {
    uint32_t from = (uint32_t)draw(RESULT_BLOCKS), most = (uint32_t)draw(4);
    for (uint32_t i = 0; i < RESULT_BLOCKS && most > 0; i++) {
        uint32_t first = (from + i) % RESULT_BLOCKS, count = e->lent[first];
        if (count == 0) continue;
        if (count == 255) /* up to the next one's, or to what is not held */
            while (first + count < RESULT_BLOCKS && e->held[first + count] &&
                   !e->lent[first + count])
                count++;
        memset(e->held + first, 0, count);
        e->lent[first] = 0;
        int64_t slot = rb_ring_claim(&e->link.giveback_ring);
        if (slot < 0) {
            wrong(e, "it takes back what was not given");
            return;
        }
        e->link.givebacks[slot] = (struct rb_giveback){first, count};
        most--;
    }
    rb_ring_publish(&e->link.giveback_ring);
}

/* --- Links --------------------------------------------------------------------------------------------------------------- */

/* The pool's blocks are other jobs' from here on: whose worker cannot be killed is told so first. */
static void hang_up(struct end *e) {
    if (e->kind != 'l') rb_store_seq_cst(&e->link.ours->control, RB_CONTROL_STOP);
    for (uint64_t i = e->answered; i < e->given; i++) let_go(&e->jobs[i & (SLOTS - 1)]);
    rb_link_close(&e->link);
    memset(e, 0, sizeof *e);
}

static void stop(struct end *e) {
    rb_store_seq_cst(&e->link.ours->control, RB_CONTROL_STOP);
    /* S0 of its pair (proxy.c, K0 and K1): after the word, so that what is begun later is begun by nobody. */
    e->stopped = rb_load_seq_cst(&e->link.theirs->started);
    e->stopped_ms = now_ms();
    stops++;
}

/* As the relay: first the word, then the place is given to others. */
static void let_go_at_its_begin(struct end *e) {
    struct job *job = &e->jobs[0];
    for (int64_t until = now_ms() + PATIENCE_MS; now_ms() < until;) {
        struct pollfd p = {.fd = e->link.bell, .events = POLLIN};
        rb_gate_ring(&e->link.waker);
        if (rb_load_seq_cst(&e->link.theirs->started) > 0) break;
        if (poll(&p, 1, 0) > 0) return; /* it has gone */
    }
    stop(e);
    memset(pool.base + (uint64_t)job->first * BLOCK, 255, job->bytes);
}

/* A link's next moment; 0: it is over. */
static int live(struct end *e) {
    struct rb_worker_header hello;
    char why[640];
    uint32_t control = rb_load_relaxed(&e->link.ours->control); /* we alone write it */
    if (!e->greeted) {
        int rc = rb_link_hello(&e->link, &hello, why, sizeof why);
        e->greeted = rc > 0;
        return rc >= 0;
    }
    take_answers(e);
    give_back(e);
    if (e->stopped_ms) return now_ms() - e->stopped_ms < STOPPED_MS;
    if (control == RB_CONTROL_RUN)
        for (int i = 0; i < CREDIT; i++) give(e);
    else if (e->answered == e->given)
        return 0; /* drained */
    if (e->kind == 't' && e->given > 0) let_go_at_its_begin(e);
    if (e->kind == 'h') {
        if (draw(50) == 0) cancel_one(e);
        if (draw(4) == 0) ask_for_more(e);
        if (control == RB_CONTROL_RUN && draw(500) == 0) {
            rb_store_seq_cst(&e->link.ours->control, RB_CONTROL_DRAIN);
            drains++;
        } else if (draw(500) == 0) {
            stop(e);
        } else if (draw(500) == 0) {
            return 0;
        }
    }
    struct job *job = &e->jobs[e->answered & (SLOTS - 1)];
    if (e->answered < e->given && now_ms() - job->given_ms > PATIENCE_MS && !job->told++)
        wrong(e, "a job without an answer");
    return 1;
}

static int serve(struct end *e) {
    struct pollfd p = {.fd = e->link.bell, .events = POLLIN};
    int on = 1;
    if (e->kind == 'l')
        for (int i = (int)draw(8); i > 0; i--) lie(&e->link, POOL_BYTES);
    else
        on = live(e);
    rb_gate_ring(&e->link.waker);
    if (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR))) {
        if (e->kind != 'l' && e->greeted) take_answers(e); /* its last words */
        on = 0;
    }
    return on;
}

static struct pollfd waiting[LINKS];
static uint64_t waiters;

static void keep_waiting(int fd) {
    if (waiters < LINKS)
        waiting[waiters++].fd = fd;
    else
        close(fd);
}

static void forget_those_who_left(void) {
    if (waiters == 0 || poll(waiting, waiters, 0) <= 0) return;
    for (uint64_t i = waiters; i-- > 0;) {
        if (!(waiting[i].revents & POLLHUP)) continue;
        close(waiting[i].fd);
        waiting[i] = waiting[--waiters];
    }
}

static void greet(int listener) {
    char token[RB_LANE_TOKEN_BYTES + 1];
    struct end *e = ends;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    while (e < ends + LINKS && e->kind) e++;
    struct rb_link_config config = {.slots = SLOTS,
                                    .result_block_bytes = BLOCK,
                                    .result_bytes = RESULT_BYTES,
                                    .features = RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD,
                                    .worker_id = ++links};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 1000) != 1 || recv(fd, token, sizeof token, 0) != RB_LANE_TOKEN_BYTES)
        token[0] = 0;
    if (token[0] == 'k') raise(SIGKILL);
    if (token[0] == 's') {
        keep_waiting(fd);
        return;
    } else if (token[0] == 0 || !strchr("fqhltw", token[0])) {
        send(fd, "no such token", 13, MSG_NOSIGNAL);
    } else {
        if (token[0] == 'l' && draw(2))
            config.features = 0; /* a sum that is wrong ends it at once */
        if (e == ends + LINKS || rb_link_create(&e->link, &config, &pool) < 0) {
            send(fd, "no more links", 13, MSG_NOSIGNAL);
        } else {
            const struct rb_link_fds *f = &e->link.fds;
            const int all[] = {f->relay_side, f->worker_side, f->pool, f->wake_worker,
                               f->wake_relay};
            e->kind = token[0];
            if (token[0] == 'w') {
                hand_over_nonsense(fd, &e->link, file);
                hang_up(e);
            } else if (token[0] == 'f') {
                /* Its end of the socket in the other bell's place: it tells of its end still. */
                const int with_file[] = {all[0], all[1], all[2], file, all[3]};
                hand_over(fd, with_file, 5);
                rb_link_handed_over(&e->link);
            } else {
                hand_over(fd, all, 5);
                rb_link_handed_over(&e->link);
            }
        }
    }
    if (fd >= 0) close(fd);
}

static void tell(void) {
    int open = 0;
    for (int i = 0; i < LINKS; i++) open += ends[i].kind != 0;
    printf(
        "open %d links %llu given %llu answered %llu cancelled %llu drains %llu stops %llu wrong "
        "%llu pool %u waiting %llu\n",
        open, (unsigned long long)links, (unsigned long long)given, (unsigned long long)answered,
        (unsigned long long)cancelled, (unsigned long long)drains, (unsigned long long)stops,
        (unsigned long long)wrongs, pool.region.taken, (unsigned long long)waiters);
}

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char asked;
    if (argc < 2 || strlen(argv[1]) > 90) return 2;
    if (argc > 2) noise ^= strtoull(argv[2], NULL, 0) << 20;
    memcpy(at.sun_path + 1, argv[1], strlen(argv[1]));
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[1]));
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 64) < 0) return 1;
    if (rb_pool_create(&pool, POOL_BYTES, BLOCK) < 0) return 1;
    file = memfd_create("no bell", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, 1 << 20) < 0) return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        /* On the clock: this end never sleeps at its bells, and ends with whoever started it. */
        struct pollfd p[2] = {{.fd = listener, .events = POLLIN},
                              {.fd = STDIN_FILENO, .events = POLLIN}};
        int busy = 0;
        for (int i = 0; i < LINKS; i++)
            if (ends[i].kind && (busy = 1) && !serve(&ends[i])) hang_up(&ends[i]);
        if (poll(p, 2, busy ? ROUND_MS : -1) < 0) continue;
        forget_those_who_left();
        if (p[1].revents) {
            if (read(STDIN_FILENO, &asked, 1) != 1) return 0;
            tell();
        }
        if (p[0].revents) greet(listener);
    }
}
