/* A link's memory: who can write what, where it faults, whom it refuses, and that nothing of it is
 * left. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <sys/stat.h>

#include "check.h"
#include "leaks.h"
#include "ringbridge/link.h"
#include "ringbridge/telemetry.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static char why[512];

static struct rb_link_config small(void) {
    struct rb_link_config c = RB_LINK_CONFIG_DEFAULT;
    c.slots = 64;
    c.result_bytes = 1 << 20;
    c.worker_id = 4711;
    return c;
}

struct ends {
    struct rb_pool pool;
    struct rb_link relay;
    struct rb_link_worker worker;
};

/* Both ends in one process. */
static int open_ends(struct ends *e) {
    struct rb_link_config c = small();
    CHECK_EQUAL(rb_pool_create(&e->pool, 1 << 20, 4096), 0);
    CHECK_EQUAL(rb_link_create(&e->relay, &c, &e->pool), 0);
    return rb_link_attach(&e->worker, &e->relay.fds, why, sizeof why);
}

static void close_ends(struct ends *e) {
    rb_link_detach(&e->worker);
    rb_link_close(&e->relay);
    rb_pool_close(&e->pool);
}

/* --- sizes ----------------------------------------------------------------------------------- */

static void a_configuration_that_breaks_a_rule_is_refused_and_leaves_nothing(void) {
    int before = open_descriptors();
    struct rb_link link;
    struct rb_link_config wrong[10];
    for (int i = 0; i < 10; i++) wrong[i] = small();
    wrong[0].slots = 0;
    wrong[1].slots = 1;
    wrong[2].slots = 48;
    wrong[3].slots = 131072;
    wrong[4].result_block_bytes = 2048;
    wrong[5].result_block_bytes = 12288;
    wrong[6].result_bytes = 0;
    wrong[7].result_bytes = 3 * 4096;
    wrong[8].result_bytes = UINT64_C(1) << 62;
    wrong[9].features = UINT64_C(1) << 63;
    for (int i = 0; i < 10; i++) CHECK_EQUAL(rb_link_create(&link, &wrong[i], NULL), -EINVAL);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("memfd:ringbridge"), 0);
}

static void closing_both_ends_leaves_no_descriptor_and_no_mapping(void) {
    int before = open_descriptors();
    struct ends e;
    CHECK_EQUAL(open_ends(&e), 0);
    CHECK_EQUAL(open_descriptors(), before + 6);
    CHECK(mappings_of("memfd:ringbridge") > 0);
    close_ends(&e);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("memfd:ringbridge"), 0);
}

static void a_default_link_costs_less_than_two_mebibytes(void) {
    struct rb_link_config c = RB_LINK_CONFIG_DEFAULT;
    struct rb_link link;
    struct rb_link_worker worker;
    struct stat relay_side, worker_side;
    CHECK_EQUAL(rb_link_create(&link, &c, NULL), 0);
    CHECK_EQUAL(rb_link_attach(&worker, &link.fds, why, sizeof why), 0);
    fstat(link.fds.relay_side, &relay_side);
    fstat(link.fds.worker_side, &worker_side);
    CHECK((relay_side.st_blocks + worker_side.st_blocks) * 512 < 2 << 20);
    CHECK(worker_side.st_blocks * 512 >=
          1 << 20); /* the first MiB of results is there in advance */
    CHECK(worker_side.st_size > 64 << 20);
    rb_link_detach(&worker);
    rb_link_close(&link);
}

/* --- who can write what ---------------------------------------------------------------------- */

static int refuses(int fd, int protection) {
    void *p = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return 1;
    munmap(p, 4096);
    return 0;
}

static void only_the_relay_can_write_the_relay_side_and_the_pool(void) {
    struct ends e;
    char byte = 1;
    CHECK_EQUAL(open_ends(&e), 0);
    CHECK(e.relay.seals & F_SEAL_FUTURE_WRITE);
    CHECK(e.pool.seals & F_SEAL_FUTURE_WRITE);
    const int sealed[] = {e.relay.fds.relay_side, e.relay.fds.pool};
    for (int i = 0; i < 2; i++) {
        CHECK(refuses(sealed[i], PROT_READ | PROT_WRITE));
        CHECK(!refuses(sealed[i], PROT_READ));
        CHECK(pwrite(sealed[i], &byte, 1, 0) < 0 && errno == EPERM);
        /* the price: what was used once stays */
        CHECK(fallocate(sealed[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 &&
              errno == EPERM);
    }
    CHECK(mprotect((void *)e.worker.relay_side, 4096, PROT_READ | PROT_WRITE) < 0 &&
          errno == EACCES);
    CHECK(mprotect((void *)e.worker.pool, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
    e.pool.base[5] = 9; /* the relay's own mappings go on working */
    CHECK_EQUAL(e.worker.pool[5], 9);
    close_ends(&e);
}

static void no_side_can_change_its_size_or_its_seals(void) {
    struct ends e;
    CHECK_EQUAL(open_ends(&e), 0);
    const int fds[] = {e.relay.fds.relay_side, e.relay.fds.worker_side, e.relay.fds.pool};
    for (int i = 0; i < 3; i++) {
        struct stat st;
        CHECK_EQUAL(fstat(fds[i], &st), 0);
        CHECK(ftruncate(fds[i], st.st_size + 4096) < 0 && errno == EPERM);
        CHECK(ftruncate(fds[i], st.st_size - 4096) < 0 && errno == EPERM);
        CHECK(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
        CHECK(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    }
    close_ends(&e);
}

static sigjmp_buf after_fault;
static void on_fault(int signal) { siglongjmp(after_fault, signal); }

/* 1 when touching the byte faults. In this process: a sanitizer would make a report of a child's
 * fault. */
static int faults(const volatile uint8_t *byte, int write) {
    struct sigaction act = {.sa_handler = on_fault}, old;
    int fault;
    sigaction(SIGSEGV, &act, &old);
    fault = sigsetjmp(after_fault, 1);
    if (!fault) {
        if (write)
            *(volatile uint8_t *)byte = *byte;
        else
            (void)*byte;
    }
    sigaction(SIGSEGV, &old, NULL);
    return fault == SIGSEGV;
}

/* Both mappings of a side: a guard on the page before each part, the bytes on both borders
 * usable. */
static void guarded(const void *at, uint64_t bytes, int writable) {
    const uint8_t *part = at;
    CHECK(faults(part - 1, 0));
    CHECK(faults(part - 4096, 0));
    CHECK(!faults(part, 0));
    CHECK(!faults(part + bytes - 1, 0));
    CHECK(faults(part + (bytes + 4095) / 4096 * 4096, 0));
    CHECK_EQUAL(faults(part, 1), !writable);
}

static void a_guard_page_stands_between_any_two_parts_on_both_sides(void) {
    struct ends e;
    CHECK_EQUAL(open_ends(&e), 0);
    const struct rb_link *r = &e.relay;
    const struct rb_link_worker *w = &e.worker;
    guarded(r->ours, 4096, 1);
    guarded(r->requests, 64 * 128, 1);
    guarded(r->cancels, 64 * 8, 1);
    guarded(r->demands, 64 * 8, 1);
    guarded(r->givebacks, 256 * 8, 1);
    guarded(r->theirs, 2 * 4096, 0);
    guarded(r->completions, 64 * 128, 0);
    guarded(r->results, 1 << 20, 0);
    guarded(w->theirs, 4096, 0);
    guarded(w->requests, 64 * 128, 0);
    guarded(w->cancels, 64 * 8, 0);
    guarded(w->demands, 64 * 8, 0);
    guarded(w->givebacks, 256 * 8, 0);
    guarded(w->ours, 2 * 4096, 1);
    guarded(w->completions, 64 * 128, 1);
    guarded(w->results, 1 << 20, 1);
    close_ends(&e);
}

/* --- whom a worker refuses ------------------------------------------------------------------- */

/* A relay side whose header was changed by `change` before it was sealed. */
static int forged(const struct rb_link *link, void (*change)(struct rb_relay_header *h),
                  int seals) {
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct rb_relay_header h;
    memcpy(&h, link->relay_side, sizeof h);
    if (change) change(&h);
    if (ftruncate(fd, (off_t)link->relay_side_bytes) < 0 || pwrite(fd, &h, sizeof h, 0) != sizeof h)
        abort();
    if (fcntl(fd, F_ADD_SEALS, seals) < 0) abort();
    return fd;
}

enum { SEALS = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL };

static void no_change(struct rb_relay_header *h) { (void)h; }
static void change_magic(struct rb_relay_header *h) { h->magic ^= 1; }
static void change_digest(struct rb_relay_header *h) { h->digest[31] ^= 0xff; }
static void change_version(struct rb_relay_header *h) { h->version += 1 << 16; }
static void change_slots(struct rb_relay_header *h) { h->slots *= 2; }
static void odd_slots(struct rb_relay_header *h) { h->slots = 63; }
static void change_block(struct rb_relay_header *h) { h->result_block_bytes = 0; }
static void change_results(struct rb_relay_header *h) { h->result_bytes = UINT64_MAX; }
static void change_blocks(struct rb_relay_header *h) { h->result_blocks++; }
static void change_place(struct rb_relay_header *h) { h->givebacks_at -= 4096; }
static void change_pool(struct rb_relay_header *h) { h->pool_bytes *= 2; }
static void change_features(struct rb_relay_header *h) { h->features |= 1u << 20; }
static void change_nonce(struct rb_relay_header *h) { h->nonce = 0; }

static void a_header_that_breaks_a_rule_is_refused_with_the_rule_in_words(void) {
    static const struct {
        void (*change)(struct rb_relay_header *h);
        int seals;
        const char *words;
    } cases[] = {
        {change_magic, SEALS, "no link"},     {change_slots, SEALS, "not where"},
        {odd_slots, SEALS, "size"},           {change_block, SEALS, "size"},
        {change_results, SEALS, "size"},      {change_blocks, SEALS, "blocks"},
        {change_place, SEALS, "not where"},   {change_pool, SEALS, "pool"},
        {change_features, SEALS, "features"}, {change_nonce, SEALS, "nonce"},
        {no_change, F_SEAL_SHRINK, "sealed"}, {no_change, F_SEAL_GROW | F_SEAL_SEAL, "sealed"},
    };
    struct ends e;
    CHECK_EQUAL(open_ends(&e), 0);
    int before = open_descriptors(), mapped = mappings_of("memfd:ringbridge");
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rb_link_fds fds = e.relay.fds;
        struct rb_link_worker w;
        fds.relay_side = forged(&e.relay, cases[i].change, cases[i].seals);
        why[0] = 0;
        CHECK_EQUAL(rb_link_attach(&w, &fds, why, sizeof why), -EPROTO);
        if (!strstr(why, cases[i].words)) printf("case %u: %s\n", i, why);
        CHECK(strstr(why, cases[i].words) != NULL);
        close(fds.relay_side);
    }
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("memfd:ringbridge"), mapped);
    close_ends(&e);
}

static void a_worker_side_that_could_shrink_is_refused(void) {
    struct ends e;
    struct rb_link_worker w;
    CHECK_EQUAL(open_ends(&e), 0);
    struct rb_link_fds fds = e.relay.fds;
    fds.worker_side = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQUAL(ftruncate(fds.worker_side, (off_t)e.relay.worker_side_bytes), 0);
    CHECK_EQUAL(rb_link_attach(&w, &fds, why, sizeof why), -EPROTO);
    close(fds.worker_side);
    fds.worker_side = -1;
    CHECK_EQUAL(rb_link_attach(&w, &fds, why, sizeof why), -EPROTO);
    close_ends(&e);
}

static void another_layout_is_refused_with_both_digests_and_the_relay_is_told(void) {
    void (*const changes[])(struct rb_relay_header *) = {change_digest, change_version};
    for (int i = 0; i < 2; i++) {
        struct rb_link_config c = small();
        struct rb_link link;
        struct rb_link_worker w;
        struct rb_worker_header copy;
        struct rb_relay_header foreign;
        char hex[65];
        uint64_t count;
        CHECK_EQUAL(rb_link_create(&link, &c, NULL), 0);
        struct rb_link_fds fds = link.fds;
        fds.relay_side = forged(&link, changes[i], SEALS);
        CHECK(pread(fds.relay_side, &foreign, sizeof foreign, 0) == sizeof foreign);
        for (int k = 0; k < 32; k++) snprintf(hex + 2 * k, 3, "%02x", foreign.digest[k]);
        CHECK_EQUAL(rb_link_attach(&w, &fds, why, sizeof why), -EPROTO);
        CHECK(strstr(why, "this worker") &&
              strstr(strstr(why, "this worker"), RB_LAYOUT_DIGEST_HEX));
        CHECK(strstr(why, "the bridge") == why && strstr(why, hex) < strstr(why, "this worker"));
        /* The relay of this test has the worker's layout, so it can only say that it was
     * refused. */
        CHECK_EQUAL(rb_link_hello(&link, &copy, why, sizeof why), -EPROTO);
        CHECK(strstr(why, "refused") != NULL);
        CHECK(read(link.fds.wake_relay, &count, sizeof count) == sizeof count);
        close(fds.relay_side);
        rb_link_close(&link);
    }
}

static void a_hello_of_another_layout_is_refused_with_both_digests(void) {
    struct ends e;
    struct rb_worker_header copy;
    char version[32];
    CHECK_EQUAL(open_ends(&e), 0);
    rb_link_greet(&e.worker, "c", 1, "echo");
    memset(e.worker.hello->digest, 0xab, 32);
    CHECK_EQUAL(rb_link_hello(&e.relay, &copy, why, sizeof why), -EPROTO);
    CHECK(strstr(why, RB_LAYOUT_DIGEST_HEX) != NULL);
    CHECK(strstr(why, "abababababababababababababababababababababababababababababababab") != NULL);
    snprintf(version, sizeof version, "version %u.%u", RB_LAYOUT_VERSION >> 16,
             RB_LAYOUT_VERSION & 0xffff);
    CHECK(strstr(why, version) != NULL);
    close_ends(&e);
}

static void a_hello_is_copied_and_checked(void) {
    struct ends e;
    struct rb_worker_header copy;
    CHECK_EQUAL(open_ends(&e), 0);
    CHECK_EQUAL(e.worker.header.worker_id, 4711);
    CHECK_EQUAL(rb_link_hello(&e.relay, &copy, why, sizeof why), 0);
    rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
    rb_link_greet(&e.worker, "a kit whose name is longer than its field", 0x00010002, "simulation");
    uint64_t count;
    CHECK(read(e.relay.fds.wake_relay, &count, sizeof count) == sizeof count);
    rb_gate_retract(&e.relay.waiter);
    CHECK_EQUAL(rb_link_hello(&e.relay, &copy, why, sizeof why), 1);
    CHECK(strcmp((char *)copy.role, "simulation") == 0);
    CHECK_EQUAL(strlen((char *)copy.kit), 31);
    CHECK_EQUAL(copy.kit_version, 0x00010002);
    CHECK_EQUAL(copy.pid, getpid());

    struct rb_worker_header good = *e.worker.hello;
    struct {
        size_t at;
        uint8_t value;
        const char *words;
    } wrong[] = {
        {offsetof(struct rb_worker_header, magic), 0, "magic"},
        {offsetof(struct rb_worker_header, hello), 9, "neither"},
        {offsetof(struct rb_worker_header, nonce), (uint8_t)~good.nonce, "nonce"},
        {offsetof(struct rb_worker_header, features) + 7, 0x80, "features"},
        {offsetof(struct rb_worker_header, kit) + 31, 'x', "kit"},
        {offsetof(struct rb_worker_header, role) + 2, '\n', "role"},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ((uint8_t *)e.worker.hello)[wrong[i].at] = wrong[i].value;
        CHECK_EQUAL(rb_link_hello(&e.relay, &copy, why, sizeof why), -EPROTO);
        CHECK(strstr(why, wrong[i].words) != NULL);
        *e.worker.hello = good;
    }
    CHECK_EQUAL(rb_link_hello(&e.relay, &copy, why, sizeof why), 1);
    close_ends(&e);
}

static void two_links_have_two_nonces(void) {
    struct rb_link_config c = small();
    struct rb_link a, b;
    CHECK_EQUAL(rb_link_create(&a, &c, NULL), 0);
    CHECK_EQUAL(rb_link_create(&b, &c, NULL), 0);
    CHECK(a.nonce != 0 && a.nonce != b.nonce);
    rb_link_close(&a);
    rb_link_close(&b);
}

/* --- across a fork --------------------------------------------------------------------------- */

static int has_requests(void *arg) {
    struct rb_link_worker *w = arg;
    int64_t count = rb_ring_available(&w->request_ring);
    return count < 0 ? (int)count : count > 0;
}

static int has_completions(void *arg) {
    struct rb_link *link = arg;
    int64_t count = rb_ring_available(&link->completion_ring);
    return count < 0 ? (int)count : count > 0;
}

/* Answers one request with its body turned round, by the futex alone: its doorbell lies in memory
 * that it cannot write. */
static int answer_one(const struct rb_link_fds *fds) {
    struct rb_link_worker w;
    int64_t slot;
    if (rb_link_attach(&w, fds, why, sizeof why) < 0) return 1;
    rb_link_greet(&w, "test", 1, "echo");
    if (rb_gate_wait_by(&w.waiter, RB_PARK_FUTEX, has_requests, &w, INT64_C(10000000000)) != 1)
        return 2;
    const struct rb_request *request = &w.requests[rb_ring_slot(&w.request_ring, 0)];
    struct rb_telemetry beat = {.heartbeats = 1, .jobs = request->job};
    slot = rb_ring_claim(&w.completion_ring);
    if (slot < 0) return 3;
    w.completions[slot].job = request->job;
    for (int i = 0; i < 64; i++) w.completions[slot].body[i] = request->body[63 - i];
    rb_ring_release(&w.request_ring, 1);
    rb_telemetry_store(w.telemetry, &beat);
    rb_ring_publish(&w.completion_ring);
    rb_gate_ring(&w.waker);
    rb_link_detach(&w);
    return 0;
}

static void a_request_is_answered_by_a_child_that_sleeps_on_the_relays_doorbell(void) {
    struct rb_link_config c = small();
    struct rb_link link;
    struct rb_telemetry beat;
    pid_t child;
    int64_t slot;
    CHECK_EQUAL(rb_link_create(&link, &c, NULL), 0);
    child = check_fork();
    if (child == 0) _exit(answer_one(&link.fds));
    while ((rb_load_seq_cst(&link.theirs->park) & 3) != RB_PARK_FUTEX) usleep(100);
    slot = rb_ring_claim(&link.request_ring);
    CHECK_EQUAL(slot, 0);
    link.requests[slot] = (struct rb_request){.job = 99};
    for (int i = 0; i < 64; i++) link.requests[slot].body[i] = (uint8_t)i;
    rb_ring_publish(&link.request_ring);
    CHECK_EQUAL(rb_gate_ring(&link.waker), 1);
    CHECK_EQUAL(rb_gate_wait(&link.waiter, has_completions, &link, INT64_C(10000000000)), 1);
    const struct rb_completion *answer = &link.completions[rb_ring_slot(&link.completion_ring, 0)];
    CHECK_EQUAL(answer->job, 99);
    CHECK_EQUAL(answer->body[0], 63);
    CHECK_EQUAL(answer->body[63], 0);
    CHECK_EQUAL(check_reap(child), 0);
    CHECK_EQUAL(rb_link_telemetry(&link, &beat), 0);
    CHECK_EQUAL(beat.jobs, 99);
    rb_link_close(&link);
}

static void hostile_positions_of_a_worker_are_protocol_errors(void) {
    struct ends e;
    CHECK_EQUAL(open_ends(&e), 0);
    e.worker.ours->completion_tail = 65;
    CHECK_EQUAL(rb_ring_available(&e.relay.completion_ring), -EPROTO);
    e.worker.ours->completion_tail = UINT64_MAX;
    CHECK_EQUAL(rb_ring_available(&e.relay.completion_ring), -EPROTO);
    e.worker.ours->request_head = 1;
    CHECK_EQUAL(rb_ring_free(&e.relay.request_ring), -EPROTO);
    e.worker.ours->giveback_head = 1;
    CHECK_EQUAL(rb_ring_free(&e.relay.giveback_ring), -EPROTO);
    close_ends(&e);
}

/* The worker may punch its own memory out under the relay: holes read as zeros, never as a
 * fault. */
static void a_worker_that_punches_its_memory_out_cannot_fault_the_relay(void) {
    struct ends e;
    int64_t slot;
    CHECK_EQUAL(open_ends(&e), 0);
    slot = rb_ring_claim(&e.worker.completion_ring);
    CHECK_EQUAL(slot, 0);
    rb_ring_publish(&e.worker.completion_ring);
    CHECK_EQUAL(rb_ring_available(&e.relay.completion_ring), 1);
    CHECK_EQUAL(fallocate(e.worker.fds.worker_side, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                          (off_t)e.relay.worker_side_bytes),
                0);
    CHECK_EQUAL(rb_ring_available(&e.relay.completion_ring), -EPROTO);
    CHECK(!faults((const void *)e.relay.completions, 0));
    CHECK(!faults(e.relay.results + (1 << 20) - 1, 0));
    close_ends(&e);
}

int main(void) {
    RUN(a_configuration_that_breaks_a_rule_is_refused_and_leaves_nothing);
    RUN(closing_both_ends_leaves_no_descriptor_and_no_mapping);
    RUN(a_default_link_costs_less_than_two_mebibytes);
    RUN(only_the_relay_can_write_the_relay_side_and_the_pool);
    RUN(no_side_can_change_its_size_or_its_seals);
    RUN(a_guard_page_stands_between_any_two_parts_on_both_sides);
    RUN(a_header_that_breaks_a_rule_is_refused_with_the_rule_in_words);
    RUN(a_worker_side_that_could_shrink_is_refused);
    RUN(another_layout_is_refused_with_both_digests_and_the_relay_is_told);
    RUN(a_hello_of_another_layout_is_refused_with_both_digests);
    RUN(a_hello_is_copied_and_checked);
    RUN(two_links_have_two_nonces);
    RUN(a_request_is_answered_by_a_child_that_sleeps_on_the_relays_doorbell);
    RUN(hostile_positions_of_a_worker_are_protocol_errors);
    RUN(a_worker_that_punches_its_memory_out_cannot_fault_the_relay);
    return check_end();
}
