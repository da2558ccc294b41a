/* The worker's end of a link as who plays it for a BEAM has it (ringbridge/proxy.h), beside a relay that writes whatever it likes: nothing is
 * read outside of the link and its pool, and what cannot be is told. SEED=n: that one again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "check.h"
#include "leaks.h"
#include "ringbridge/link.h"
#include "ringbridge/proxy.h"

enum { SLOTS = 16, BLOCK = 4096, RESULT_BYTES = 16 * BLOCK, POOL_BYTES = 64 << 10, MOVES = 1000 };

struct ends {
    struct rb_pool pool;
    struct rb_link relay;
    struct rb_proxy *proxy;
};

static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return below ? seed % below : seed;
}

static void open_wide(struct ends *e, uint64_t features, uint64_t result_bytes) {
    struct rb_link_config config = {.slots = SLOTS,
                                    .result_block_bytes = BLOCK,
                                    .result_bytes = result_bytes,
                                    .features = features,
                                    .worker_id = 7};
    char why[256] = "";
    CHECK_EQUAL(rb_pool_create(&e->pool, POOL_BYTES, BLOCK), 0);
    CHECK_EQUAL(rb_link_create(&e->relay, &config, &e->pool), 0);
    const struct rb_link_fds *f = &e->relay.fds;
    const int fds[] = {f->relay_side, f->worker_side, f->pool, f->wake_worker, f->wake_relay};
    CHECK_EQUAL(rb_proxy_open(fds, &e->proxy, why, sizeof why), 0);
    CHECK_EQUAL(rb_proxy_greet(e->proxy, "test", 1 << 16, "echo", NULL, 0, why, sizeof why), 0);
}

static void open_ends(struct ends *e, uint64_t features) { open_wide(e, features, RESULT_BYTES); }

static void close_ends(struct ends *e) {
    rb_proxy_close(e->proxy);
    rb_link_close(&e->relay);
    rb_pool_close(&e->pool);
}

/* A number that a checked one may be taken for: near a bound, near its wrap, or any. */
static uint64_t odd(uint64_t bound) {
    switch (draw(5)) {
    case 0: return draw(bound + 2);
    case 1: return bound - draw(3);
    case 2: return UINT64_MAX - draw(bound + 1);
    case 3: return UINT32_MAX - draw(3);
    default: return draw(0);
    }
}

static void write_request(struct ends *e) {
    struct rb_request *r = (void *)(e->relay.requests + draw(SLOTS));
    r->job = draw(0);
    r->flags = (uint16_t)(draw(2) ? draw(0) : draw(2) ? RB_FLAG_INLINE : 0);
    r->payload_at = odd(POOL_BYTES);
    r->payload_bytes = (uint32_t)odd(draw(2) ? POOL_BYTES : RB_INLINE_BYTES_MAX);
    r->deadline_ns = draw(0);
    r->crc = draw(2) ? 0 : (uint32_t)draw(0);
}

/* Mostly what goes on: a position that is nonsense ends all that hangs on it, and so does a block that was never taken. */
static void write_anything(struct ends *e) {
    struct rb_relay_positions *ours = e->relay.ours;
    const struct rb_worker_positions *theirs = e->relay.theirs;
    int nonsense = draw(2000) == 0;
    switch (draw(8)) {
    case 0:
        if (nonsense)
            rb_store_release(&ours->request_tail, odd(SLOTS));
        else if (ours->request_tail - theirs->request_head < SLOTS)
            rb_store_release(&ours->request_tail, ours->request_tail + 1);
        break;
    case 1:
        rb_store_release(&ours->completion_head, nonsense ? odd(SLOTS) : theirs->completion_tail);
        break;
    case 2:
        if (nonsense)
            rb_store_release(&ours->giveback_tail, odd(RESULT_BYTES / BLOCK));
        else if (draw(100) == 0 &&
                 ours->giveback_tail - theirs->giveback_head < RESULT_BYTES / BLOCK)
            rb_store_release(&ours->giveback_tail, ours->giveback_tail + 1);
        break;
    case 3:
        e->relay.givebacks[draw(RESULT_BYTES / BLOCK)] =
            (struct rb_giveback){.first = (uint32_t)(draw(2) ? draw(16) : odd(16)),
                                 .count = (uint32_t)(draw(2) ? 1 + draw(3) : odd(16))};
        break;
    case 4: rb_store_release(&ours->control, (uint32_t)draw(4)); break;
    case 5: e->relay.cancels[draw(SLOTS)] = draw(0); break;
    default: write_request(e);
    }
}

static uint64_t taken, answered;
static volatile uint64_t sum;

/* As the NIF does: what was taken is read whole, and answered in its order. */
static void use(struct ends *e, struct rb_proxy_request *job, int *open) {
    static uint8_t bytes[RESULT_BYTES + BLOCK];
    struct rb_proxy_answer a = {.job = job->job, .payload = bytes};
    switch (draw(6)) {
    case 0:
        if (!*open && rb_proxy_take(e->proxy, job) == 1) {
            for (uint32_t i = 0; i < job->payload_bytes; i++) sum += job->payload[i];
            rb_proxy_start(e->proxy);
            taken++;
            *open = 1;
        }
        break;
    case 1: sum += (uint64_t)rb_proxy_next_bytes(e->proxy); break;
    case 2: sum += (uint64_t)rb_proxy_waiting(e->proxy); break;
    case 3:
        sum += (uint64_t)rb_proxy_cancelled(e->proxy, job->position, job->job) +
               rb_proxy_demand(e->proxy, job->position, (uint32_t)draw(9));
        break;
    case 4:
        rb_proxy_beat(e->proxy, (uint32_t)draw(2));
        rb_proxy_trim(e->proxy, draw(RESULT_BYTES));
        break;
    default:
        if (!*open) break;
        a.status = (uint32_t)draw(5);
        a.payload_bytes = (uint32_t)draw(draw(2) ? 100 : sizeof bytes);
        if (rb_proxy_answer(e->proxy, &a) != 0) break;
        answered++;
        if (a.status <= RB_STATUS_CANCELLED) *open = 0;
    }
}

static void whatever_the_relay_writes_is_read_within_its_bounds(void) {
    const char *given = getenv("SEED");
    int before = open_descriptors();
    for (uint64_t n = 1; n <= 1000; n++) {
        struct ends e;
        struct rb_proxy_request job = {0};
        int open = 0;
        seed = given ? strtoull(given, NULL, 0) : n * 0x9e3779b97f4a7c15u;
        /* Without sums nothing but the bounds stands between. */
        open_ends(&e, n % 4 ? 0 : RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD);
        for (int i = 0; i < MOVES; i++) {
            if (draw(2))
                write_anything(&e);
            else
                use(&e, &job, &open);
        }
        close_ends(&e);
    }
    CHECK_EQUAL(open_descriptors(), before);
    /* Most of it was within the rules, or nothing was tried. */
    CHECK(taken > 1000);
    CHECK(answered > 1000);
}

static void an_envelope_that_breaks_a_rule_is_told(void) {
    static const struct {
        uint16_t flags;
        uint64_t at;
        uint32_t bytes;
        int expect;
    } cases[] = {
        {RB_FLAG_INLINE, 0, RB_INLINE_BYTES_MAX, 1},
        {RB_FLAG_INLINE, 0, RB_INLINE_BYTES_MAX + 1, -EPROTO},
        {0, 0, POOL_BYTES, 1},
        {0, 1, POOL_BYTES, -EPROTO},
        {0, POOL_BYTES, 0, 1},
        {0, POOL_BYTES + 1, 0, -EPROTO},
        {0, UINT64_MAX, 2, -EPROTO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ends e;
        struct rb_proxy_request job;
        open_ends(&e, 0);
        struct rb_request *r = (void *)e.relay.requests;
        r->flags = cases[i].flags;
        r->payload_at = cases[i].at;
        r->payload_bytes = cases[i].bytes;
        rb_store_release(&e.relay.ours->request_tail, 1);
        CHECK_EQUAL(rb_proxy_take(e.proxy, &job), cases[i].expect);
        close_ends(&e);
    }
}

/* The relay makes its end as wide as it may, and fills it: that keeps nobody reading, and hides its end from nobody for ever. */
static void a_relay_that_rings_on_and_on_keeps_nobody_reading(void) {
    struct ends e;
    static char rings[64 << 10];
    const int most = 1 << 20;
    int before, after, looks = 0;
    open_ends(&e, 0);
    struct pollfd bell = {.fd = rb_proxy_bell(e.proxy), .events = POLLIN};
    CHECK_EQUAL(setsockopt(e.relay.bell, SOL_SOCKET, SO_SNDBUF, &most, sizeof most), 0);
    CHECK_EQUAL(send(e.relay.bell, rings, sizeof rings, MSG_DONTWAIT), sizeof rings);
    CHECK_EQUAL(ioctl(bell.fd, FIONREAD, &before), 0);
    rb_proxy_park(e.proxy);
    CHECK_EQUAL(rb_proxy_unpark(e.proxy), 0);
    CHECK_EQUAL(ioctl(bell.fd, FIONREAD, &after), 0);
    CHECK(before - after <= 512);
    CHECK_EQUAL(poll(&bell, 1, 0), 1); /* what is left rings again */
    rb_link_handed_over(&e.relay);
    shutdown(e.relay.bell, SHUT_RDWR);
    while (rb_proxy_unpark(e.proxy) == 0 && looks < 1000) looks++;
    CHECK_EQUAL(rb_proxy_unpark(e.proxy), -EPIPE);
    close_ends(&e);
}

/* The relay fills the eventfd by which it is woken, and clears the flag that they share: a beat that has something new to say does not wait
 * for it to be read. */
static void a_relay_that_never_reads_keeps_no_beat_waiting(void) {
    struct ends e;
    const uint64_t full = UINT64_MAX - 1;
    open_ends(&e, 0);
    int fd = e.relay.fds.wake_relay;
    struct pollfd bell = {.fd = fd, .events = POLLIN | POLLOUT};
    uint64_t rings;
    if (read(fd, &rings, sizeof rings) < 0) CHECK_EQUAL(errno, EAGAIN);
    CHECK_EQUAL(write(fd, &full, sizeof full), sizeof full);
    CHECK_EQUAL(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
    rb_proxy_beat(e.proxy, 1);
    rb_proxy_beat(e.proxy, 0);
    CHECK_EQUAL(poll(&bell, 1, 0), 1);
    CHECK_EQUAL(bell.revents, POLLIN);
    close_ends(&e);
}

/* Nor does any of its rings go where the relay shares a flag, if it rings at its end of the pair; that one never waits. */
static void who_rings_at_the_bell_writes_no_eventfd(void) {
    enum { RINGS = 1 << 12 };
    struct ends e;
    char why[256] = "";
    uint64_t rings;
    open_ends(&e, 0);
    int fd = e.relay.fds.wake_relay;
    struct pollfd bell = {.fd = e.relay.bell, .events = POLLIN};
    while (read(fd, &rings, sizeof rings) > 0) {
    }
    CHECK_EQUAL(poll(&bell, 1, 0), 0);
    rb_proxy_ring_at_bell(e.proxy);
    rb_store_seq_cst(&e.relay.ours->park, 1 << 2 | RB_PARK_EVENTFD);
    CHECK_EQUAL(rb_proxy_greet(e.proxy, "test", 1, "echo", NULL, 0, why, sizeof why), 0);
    CHECK_EQUAL(poll(&bell, 1, 0), 1);
    CHECK_EQUAL(rb_gate_hush(e.relay.bell), 0);
    rb_proxy_beat(e.proxy, 1);
    CHECK_EQUAL(poll(&bell, 1, 0), 1);
    for (uint32_t i = 0; i < RINGS; i++) rb_proxy_beat(e.proxy, i & 1); /* nobody reads */
    CHECK(read(fd, &rings, sizeof rings) < 0);
    close_ends(&e);
}

/* A size that was looked at before the request was taken is no promise: who may not copy more says so as it takes. */
static void a_payload_that_grew_since_it_was_looked_at_is_not_taken(void) {
    struct ends e;
    struct rb_proxy_request job;
    open_ends(&e, 0);
    struct rb_request *r = (void *)e.relay.requests;
    *r = (struct rb_request){.job = 1, .payload_bytes = 10};
    rb_store_release(&e.relay.ours->request_tail, 1);
    CHECK_EQUAL(rb_proxy_next_bytes(e.proxy), 10);
    r->payload_bytes = POOL_BYTES;
    CHECK_EQUAL(rb_proxy_take_up_to(e.proxy, 1000, &job), -E2BIG);
    CHECK_EQUAL(rb_proxy_waiting(e.proxy), 1);
    CHECK_EQUAL(rb_proxy_take_up_to(e.proxy, POOL_BYTES, &job), 1);
    CHECK_EQUAL(job.payload_bytes, POOL_BYTES);
    close_ends(&e);
}

/* A block that was never lent is no room: the answer that looks for some says so, and goes no further. */
static void a_block_that_was_never_lent_is_not_given_back(void) {
    struct ends e;
    uint8_t answer[BLOCK] = {0};
    struct rb_proxy_request job;
    open_ends(&e, 0);
    struct rb_request *r = (void *)e.relay.requests;
    *r = (struct rb_request){.job = 1, .flags = RB_FLAG_INLINE};
    rb_store_release(&e.relay.ours->request_tail, 1);
    CHECK_EQUAL(rb_proxy_take(e.proxy, &job), 1);
    e.relay.givebacks[0] = (struct rb_giveback){.first = 0, .count = 1};
    rb_store_release(&e.relay.ours->giveback_tail, 1);
    struct rb_proxy_answer a = {.job = 1, .payload = answer, .payload_bytes = sizeof answer};
    CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), -EPROTO);
    CHECK_EQUAL(rb_load_acquire(&e.relay.theirs->completion_tail), 0);
    close_ends(&e);
}

/* More blocks than are looked at at once, each lent, and all of them given back between two answers. */
static void a_relay_that_gives_back_much_keeps_nobody_looking(void) {
    enum { BLOCKS = 1 << 11, MOST = 1024 };
    struct ends e;
    uint8_t answer[BLOCK] = {0};
    struct rb_proxy_request job;
    open_wide(&e, 0, (uint64_t)BLOCKS * BLOCK);
    struct rb_request *r = (void *)e.relay.requests;
    *r = (struct rb_request){.job = 1, .flags = RB_FLAG_INLINE};
    rb_store_release(&e.relay.ours->request_tail, 1);
    CHECK_EQUAL(rb_proxy_take(e.proxy, &job), 1);
    struct rb_proxy_answer a = {
        .job = 1, .status = RB_STATUS_PART, .payload = answer, .payload_bytes = sizeof answer};
    for (uint32_t i = 0; i < BLOCKS; i++) {
        CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), 0);
        rb_store_release(&e.relay.ours->completion_head, (uint64_t)i + 1);
        e.relay.givebacks[i] = (struct rb_giveback){.first = i, .count = 1};
    }
    CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), -ENOSPC);
    rb_store_release(&e.relay.ours->giveback_tail, BLOCKS);
    CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), 0);
    CHECK_EQUAL(rb_load_acquire(&e.relay.theirs->giveback_head), MOST);
    close_ends(&e);
}

static uint64_t held_bytes(const struct ends *e) {
    struct stat s;
    CHECK_EQUAL(fstat(e->relay.fds.worker_side, &s), 0);
    return (uint64_t)s.st_blocks * 512;
}

/* A beat is short, whatever was answered; what large answers took goes back in bites, and not while a job is open. */
static void pages_of_large_answers_go_back_in_bites(void) {
    enum { KEPT = 1 << 20, BITE = 256 << 10, LARGE = KEPT + 4 * BITE };
    static uint8_t bytes[LARGE];
    struct ends e;
    struct rb_proxy_request job;
    struct rb_request *r;
    open_wide(&e, 0, 2 * LARGE);
    for (int i = 0; i < 2; i++) {
        r = (void *)(e.relay.requests + i);
        *r = (struct rb_request){.job = (uint64_t)i + 1, .flags = RB_FLAG_INLINE};
    }
    rb_store_release(&e.relay.ours->request_tail, 1);
    CHECK_EQUAL(rb_proxy_take(e.proxy, &job), 1);
    memset(bytes, 1, sizeof bytes);
    struct rb_proxy_answer a = {.job = 1, .payload = bytes, .payload_bytes = LARGE};
    CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), 0);
    uint64_t full = held_bytes(&e);
    CHECK_EQUAL(rb_proxy_trim(e.proxy, BITE), 0); /* the relay reads it still */
    CHECK_EQUAL(held_bytes(&e), full);
    e.relay.givebacks[0] = (struct rb_giveback){.first = 0, .count = LARGE / BLOCK};
    rb_store_release(&e.relay.ours->giveback_tail, 1);
    rb_store_release(&e.relay.ours->request_tail, 2);
    CHECK_EQUAL(rb_proxy_take(e.proxy, &job), 1);
    CHECK_EQUAL(rb_proxy_trim(e.proxy, BITE), 0); /* the next job is open */
    CHECK_EQUAL(held_bytes(&e), full);
    a = (struct rb_proxy_answer){.job = 2, .payload = bytes};
    CHECK_EQUAL(rb_proxy_answer(e.proxy, &a), 0);
    rb_proxy_beat(e.proxy, 0);
    CHECK_EQUAL(held_bytes(&e), full);
    for (uint64_t bite = 1; bite <= 4; bite++) {
        CHECK_EQUAL(rb_proxy_trim(e.proxy, BITE), bite < 4);
        CHECK_EQUAL(held_bytes(&e), full - bite * BITE);
    }
    CHECK_EQUAL(rb_proxy_trim(e.proxy, BITE), 0);
    close_ends(&e);
}

int main(void) {
    RUN(pages_of_large_answers_go_back_in_bites);
    RUN(a_payload_that_grew_since_it_was_looked_at_is_not_taken);
    RUN(a_block_that_was_never_lent_is_not_given_back);
    RUN(a_relay_that_gives_back_much_keeps_nobody_looking);
    RUN(a_relay_that_never_reads_keeps_no_beat_waiting);
    RUN(who_rings_at_the_bell_writes_no_eventfd);
    RUN(a_relay_that_rings_on_and_on_keeps_nobody_reading);
    RUN(an_envelope_that_breaks_a_rule_is_told);
    RUN(whatever_the_relay_writes_is_read_within_its_bounds);
    return check_end();
}
