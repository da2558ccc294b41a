/* What a bridge tells BEAMs of its workers: each part is of one moment, whatever its writer does, and no writer can hold a reader up. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "lane_ends.h"
#include "leaks.h"
#include "ringbridge/lane_telemetry.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { READS = 300, WRITES = 100 };
#else
enum { READS = 20000, WRITES = 2000 };
#endif

enum { ROOM = 512 << 10 };
static uint8_t room[ROOM] __attribute__((aligned(8)));

struct told {
    struct rb_lane_telemetry bridge;
    const uint8_t *beam;
};

static void begin(struct told *t) {
    const char *rule = NULL;
    CHECK_EQUAL(rb_lane_telemetry_create(&t->bridge), 0);
    CHECK_EQUAL(rb_lane_telemetry_map(t->bridge.fd, &t->beam, &rule), 0);
    if (!t->beam) abort();
}
static void end(struct told *t) {
    rb_lane_telemetry_unmap(t->beam);
    rb_lane_telemetry_close(&t->bridge);
}

/* Every figure of the n-th writing tells n; so many roles and workers as n says. */
static void write_figures(struct rb_lane_telemetry *t, uint32_t n) {
    struct rb_lane_telemetry_role role = {.queued = n, .refused = n};
    struct rb_lane_telemetry_worker worker = {.worker = n, .pulses = n, .waiting = n, .unready = n};
    struct rb_lane_telemetry_figures head = {
        .at_ns = n, .os_pid = n, .roles = n % 5, .workers = n % 40};
    rb_lane_figures_begin(t);
    for (uint32_t i = 0; i < head.roles; i++) rb_lane_figures_role(t, i, &role);
    for (uint32_t i = 0; i < head.workers; i++) rb_lane_figures_worker(t, i, &worker);
    rb_lane_figures_end(t, &head);
}
/* The list has one writing a call: those of a place tell n. */
static void write_place(struct rb_lane_telemetry *t, uint32_t place, uint32_t n) {
    struct rb_lane_telemetry_place p = {
        .worker = n, .state = n ? 1 + n % 8 : 0, .index = n, .os_pid = n, .restarts = n};
    memset(p.kit, (int)(n & 0x7f), sizeof p.kit);
    rb_lane_list_place(t, place, &p);
}

struct shown {
    struct rb_lane_telemetry_figures figures;
    const struct rb_lane_telemetry_role *roles;
    const struct rb_lane_telemetry_worker *workers;
    struct rb_lane_telemetry_list list;
    const struct rb_lane_telemetry_error *errors;
    const struct rb_lane_telemetry_place *places;
    size_t bytes;
};

static struct shown parts_of(const uint8_t *copy) {
    struct shown s;
    memcpy(&s.figures, copy, sizeof s.figures);
    s.roles = (const void *)(copy + sizeof s.figures);
    s.workers = (const void *)(s.roles + s.figures.roles);
    const uint8_t *list = (const uint8_t *)(s.workers + s.figures.workers);
    memcpy(&s.list, list, sizeof s.list);
    s.errors = (const void *)(list + sizeof s.list);
    s.places = (const void *)(s.errors + s.list.errors);
    s.bytes = (size_t)((const uint8_t *)(s.places + s.list.places) - copy);
    return s;
}

static int is_of_one_moment(const struct shown *s) {
    uint32_t n = (uint32_t)s->figures.at_ns;
    if (s->figures.os_pid != n || s->figures.roles != n % 5 || s->figures.workers != n % 40)
        return 0;
    for (uint32_t i = 0; i < s->figures.roles; i++)
        if (s->roles[i].queued != n || s->roles[i].refused != n) return 0;
    for (uint32_t i = 0; i < s->figures.workers; i++) {
        const struct rb_lane_telemetry_worker *w = &s->workers[i];
        if (w->worker != n || w->pulses != n || w->waiting != n || w->unready != n) return 0;
    }
    for (uint32_t i = 0; i < s->list.places; i++) {
        const struct rb_lane_telemetry_place *p = &s->places[i];
        if (p->worker != p->index || p->os_pid != p->index || p->restarts != p->index ||
            p->kit[0] != (p->index & 0x7f) || p->kit[31] != p->kit[0])
            return 0;
    }
    return 1;
}

/* --- One after the other ------------------------------------------------------------------------------------------------------ */

static void what_was_never_written_is_empty(void) {
    struct told t;
    begin(&t);
    CHECK_EQUAL(rb_lane_telemetry_size(t.beam), 128);
    CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, ROOM), 128);
    struct shown s = parts_of(room);
    CHECK_EQUAL(s.figures.at_ns, 0);
    CHECK_EQUAL(s.figures.workers + s.figures.roles + s.list.errors + s.list.places, 0);
    end(&t);
}

static void what_was_written_is_read(void) {
    struct rb_lane_telemetry_error errors[2] = {{.worker = 9, .bytes = 3, .why = "one"},
                                                {.worker = 8, .bytes = 3, .why = "two"}};
    struct told t;
    begin(&t);
    write_figures(&t.bridge, 4 * 40 + 3);
    write_place(&t.bridge, 0, 11);
    write_place(&t.bridge, 2, 13);
    rb_lane_list_errors(&t.bridge, errors, 2);
    rb_lane_list_hidden(&t.bridge, 6);
    int64_t bytes = rb_lane_telemetry_size(t.beam);
    CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, (size_t)bytes), bytes);
    struct shown s = parts_of(room);
    CHECK_EQUAL(s.bytes, bytes);
    CHECK(is_of_one_moment(&s));
    CHECK_EQUAL(s.figures.workers, 3);
    CHECK_EQUAL(s.list.places, 3);
    CHECK_EQUAL(s.places[1].state, RB_LANE_WORKER_NONE);
    CHECK_EQUAL(s.places[2].worker, 13);
    CHECK_EQUAL(s.list.hidden, 6);
    CHECK(s.list.errors == 2 && s.errors[1].worker == 8 && !memcmp(s.errors[1].why, "two", 3));
    CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, (size_t)bytes - 1), -ENOSPC);
    CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, 0), -ENOSPC);
    end(&t);
}

static void all_rooms_can_be_filled(void) {
    struct rb_lane_telemetry_figures head = {.roles = RB_LANE_TELEMETRY_ROLES_MAX,
                                             .workers = RB_LANE_TELEMETRY_WORKERS_MAX,
                                             .workers_hidden = 7};
    struct rb_lane_telemetry_worker worker = {.worker = 5};
    struct rb_lane_telemetry_role role = {.queued = 5};
    struct rb_lane_telemetry_error errors[RB_LANE_TELEMETRY_ERRORS_MAX] = {{.worker = 1}};
    struct told t;
    begin(&t);
    rb_lane_figures_begin(&t.bridge);
    for (uint32_t i = 0; i < head.roles; i++) rb_lane_figures_role(&t.bridge, i, &role);
    for (uint32_t i = 0; i < head.workers; i++) rb_lane_figures_worker(&t.bridge, i, &worker);
    rb_lane_figures_end(&t.bridge, &head);
    for (uint32_t i = 0; i < RB_LANE_TELEMETRY_WORKERS_MAX; i++) write_place(&t.bridge, i, i + 1);
    rb_lane_list_errors(&t.bridge, errors, RB_LANE_TELEMETRY_ERRORS_MAX);
    CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) == rb_lane_telemetry_size(t.beam));
    struct shown s = parts_of(room);
    CHECK_EQUAL(s.workers[RB_LANE_TELEMETRY_WORKERS_MAX - 1].worker, 5);
    CHECK_EQUAL(s.places[RB_LANE_TELEMETRY_WORKERS_MAX - 1].worker, RB_LANE_TELEMETRY_WORKERS_MAX);
    CHECK_EQUAL(s.figures.workers_hidden, 7);
    end(&t);
}

static void places_end_with_the_last_that_somebody_has(void) {
    struct told t;
    begin(&t);
    for (uint32_t i = 0; i < 4; i++) write_place(&t.bridge, i, i + 1);
    write_place(&t.bridge, 2, 0);
    CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) > 0);
    CHECK_EQUAL(parts_of(room).list.places, 4);
    write_place(&t.bridge, 3, 0);
    CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) > 0);
    CHECK_EQUAL(parts_of(room).list.places, 2);
    write_place(&t.bridge, 0, 0);
    write_place(&t.bridge, 1, 0);
    CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) > 0);
    CHECK_EQUAL(parts_of(room).list.places, 0);
    end(&t);
}

/* --- What cannot be trusted ---------------------------------------------------------------------------------------------------- */

static void a_writer_that_died_inside_is_told_of_after_some_tries(void) {
    static const uint32_t parts[] = {RB_LANE_TELEMETRY_AT_FIGURES, RB_LANE_TELEMETRY_AT_LIST};
    struct told t;
    begin(&t);
    write_figures(&t.bridge, 7);
    write_place(&t.bridge, 0, 3);
    for (int i = 0; i < 2; i++) {
        uint64_t *sequence = (void *)(t.bridge.base + parts[i]);
        *sequence += 1;
        CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, ROOM), -EAGAIN);
        *sequence += 1;
        CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) > 0);
    }
    end(&t);
}

static void a_count_for_which_there_is_no_room_is_not_believed(void) {
    static const struct {
        size_t at;
        uint32_t most;
    } counts[] = {
        {RB_LANE_TELEMETRY_AT_FIGURES + offsetof(struct rb_lane_telemetry_figures, roles),
         RB_LANE_TELEMETRY_ROLES_MAX},
        {RB_LANE_TELEMETRY_AT_FIGURES + offsetof(struct rb_lane_telemetry_figures, workers),
         RB_LANE_TELEMETRY_WORKERS_MAX},
        {RB_LANE_TELEMETRY_AT_LIST + offsetof(struct rb_lane_telemetry_list, errors),
         RB_LANE_TELEMETRY_ERRORS_MAX},
        {RB_LANE_TELEMETRY_AT_LIST + offsetof(struct rb_lane_telemetry_list, places),
         RB_LANE_TELEMETRY_WORKERS_MAX},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct told t;
        begin(&t);
        uint32_t *count = (void *)(t.bridge.base + counts[i].at);
        *count = counts[i].most;
        CHECK(rb_lane_telemetry_size(t.beam) > 0);
        CHECK(rb_lane_telemetry_copy(t.beam, room, ROOM) > 0);
        *count = counts[i].most + 1;
        CHECK_EQUAL(rb_lane_telemetry_size(t.beam), -EPROTO);
        CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, ROOM), -EPROTO);
        *count = UINT32_MAX;
        CHECK_EQUAL(rb_lane_telemetry_copy(t.beam, room, ROOM), -EPROTO);
        end(&t);
    }
}

static void nobody_else_can_map_it_writable(void) {
    struct told t;
    begin(&t);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, t.bridge.fd, 0) == MAP_FAILED);
    CHECK(mprotect((void *)(uintptr_t)t.beam, 4096, PROT_READ | PROT_WRITE) < 0);
    end(&t);
}

static void memory_that_is_something_else_is_refused_with_its_rule(void) {
    static const struct {
        size_t at;
        const char *why;
    } wrong[] = {{offsetof(struct rb_lane_telemetry_header, magic), "no telemetry"},
                 {offsetof(struct rb_lane_telemetry_header, version), "another version"},
                 {offsetof(struct rb_lane_telemetry_header, digest), "another digest"}};
    const uint8_t *beam = NULL;
    const char *rule = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rb_lane_telemetry bridge;
        CHECK_EQUAL(rb_lane_telemetry_create(&bridge), 0);
        bridge.base[wrong[i].at] ^= 1;
        CHECK_EQUAL(rb_lane_telemetry_map(bridge.fd, &beam, &rule), -EPROTO);
        CHECK(!beam && strstr(rule, wrong[i].why));
        rb_lane_telemetry_close(&bridge);
    }
    int stranger = memfd_create("stranger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQUAL(ftruncate(stranger, RB_LANE_TELEMETRY_BYTES), 0);
    CHECK_EQUAL(rb_lane_telemetry_map(stranger, &beam, &rule), -EPROTO); /* it may be cut short */
    CHECK(!beam && strstr(rule, "another size"));
    close(stranger);
}

/* --- On a lane ----------------------------------------------------------------------------------------------------------------- */

static void a_lane_shows_it_until_it_ends(void) {
    struct rb_lane_config config = ends_config();
    struct rb_lane_telemetry bridge;
    struct ends e;
    char why[256] = "";
    int before = open_descriptors();
    CHECK_EQUAL(rb_lane_telemetry_create(&bridge), 0);
    write_figures(&bridge, 3);
    CHECK_EQUAL(rb_lane_link_create(&e.relay, &config), 0);
    struct rb_lane_fds fds = ends_fds(&e.relay);
    fds.telemetry = dup(bridge.fd);
    CHECK_EQUAL(rb_lane_attach(&e.beam, &fds, why, sizeof why), 0);
    rb_lane_link_handed_over(&e.relay);
    CHECK_EQUAL(rb_lane_read_telemetry(e.beam, room, ROOM), rb_lane_telemetry_bytes(e.beam));
    CHECK_EQUAL(parts_of(room).figures.workers, 3);
    rb_lane_link_end(&e.relay);
    CHECK_EQUAL(rb_lane_telemetry_bytes(e.beam), -EPIPE);
    CHECK_EQUAL(rb_lane_read_telemetry(e.beam, room, ROOM), -EPIPE);
    ends_close(&e);
    rb_lane_telemetry_close(&bridge);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("ringbridge-telemetry"), 0);
}

static void a_lane_without_any_says_so(void) {
    struct ends e;
    ends_open(&e);
    CHECK_EQUAL(rb_lane_telemetry_bytes(e.beam), -ENOENT);
    CHECK_EQUAL(rb_lane_read_telemetry(e.beam, room, ROOM), -ENOENT);
    ends_close(&e);
}

static void a_lane_with_something_else_for_it_is_refused(void) {
    struct rb_lane_config config = ends_config();
    struct rb_lane_link link;
    struct rb_lane_client *beam = NULL;
    char why[256] = "";
    int before = open_descriptors();
    CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
    struct rb_lane_fds fds = ends_fds(&link);
    fds.telemetry = dup(link.relay_side_fd);
    CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), -EPROTO);
    CHECK(!beam && strstr(why, "telemetry"));
    ends_close_fds(&fds);
    close(fds.telemetry);
    rb_lane_link_close(&link);
    CHECK_EQUAL(open_descriptors(), before);
}

/* --- While it is written ------------------------------------------------------------------------------------------------------- */

static struct told shared;
static int enough;

static void *write_figures_on(void *arg) {
    (void)arg;
    for (uint32_t n = 1; !rb_load_relaxed(&enough); n++) {
        write_figures(&shared.bridge, n);
        for (int wait = (int)(n % 64); wait; wait--) rb_pause();
    }
    return NULL;
}
static void *write_list_on(void *arg) {
    (void)arg;
    for (uint32_t n = 1; !rb_load_relaxed(&enough); n++)
        write_place(&shared.bridge, n % 16, n % 7 ? n : 0);
    return NULL;
}
/* Whatever a bridge that has gone mad may write, where anything is read from. */
static void *scribble_on(void *arg) {
    uint64_t x = 88172645463325252u, *words = (void *)shared.bridge.base;
    static const uint32_t parts[] = {RB_LANE_TELEMETRY_AT_FIGURES, RB_LANE_TELEMETRY_AT_LIST};
    (void)arg;
    while (!rb_load_relaxed(&enough)) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint64_t value = x % 3 ? x >> (x % 60) : (x & 3) << 32 | (x >> 8 & 63);
        rb_store_relaxed(&words[(parts[x & 1] + 8 * (x >> 40 & 7)) / 8], value);
    }
    return NULL;
}

/* Read through the writers' own mapping: ThreadSanitizer does not know two mappings of one page for the same memory. */
static void a_copy_under_both_writers_is_of_one_moment_and_never_older(void) {
    pthread_t figures, list;
    uint64_t before = 0;
    int whole = 0;
    begin(&shared);
    enough = 0;
    pthread_create(&figures, NULL, write_figures_on, NULL);
    pthread_create(&list, NULL, write_list_on, NULL);
    while (whole < READS || before < WRITES) {
        if (rb_lane_telemetry_copy(shared.bridge.base, room, ROOM) < 0) {
            sched_yield();
            continue;
        }
        struct shown s = parts_of(room);
        CHECK(is_of_one_moment(&s));
        CHECK(s.figures.at_ns >= before);
        before = s.figures.at_ns;
        whole++;
    }
    rb_store_relaxed(&enough, 1);
    pthread_join(figures, NULL);
    pthread_join(list, NULL);
    end(&shared);
}

static void a_lying_writer_holds_no_reader_up_and_leads_none_astray(void) {
    pthread_t liar;
    int outcomes[3] = {0};
    begin(&shared);
    enough = 0;
    pthread_create(&liar, NULL, scribble_on, NULL);
    for (int i = 0; i < READS || outcomes[1] == 0 || outcomes[2] == 0; i++) {
        int64_t size = rb_lane_telemetry_size(shared.bridge.base);
        int64_t bytes = rb_lane_telemetry_copy(shared.bridge.base, room, ROOM);
        CHECK(size == -EPROTO || (size >= 128 && size <= RB_LANE_TELEMETRY_BYTES));
        CHECK(bytes == -EPROTO || bytes == -EAGAIN || bytes >= 128);
        if (bytes > 0) CHECK_EQUAL(parts_of(room).bytes, bytes); /* what it says is there */
        outcomes[bytes > 0 ? 0 : bytes == -EAGAIN ? 1 : 2]++;
    }
    rb_store_relaxed(&enough, 1);
    pthread_join(liar, NULL);
    end(&shared);
}

int main(void) {
    RUN(what_was_never_written_is_empty);
    RUN(what_was_written_is_read);
    RUN(all_rooms_can_be_filled);
    RUN(places_end_with_the_last_that_somebody_has);
    RUN(a_writer_that_died_inside_is_told_of_after_some_tries);
    RUN(a_count_for_which_there_is_no_room_is_not_believed);
    RUN(nobody_else_can_map_it_writable);
    RUN(memory_that_is_something_else_is_refused_with_its_rule);
    RUN(a_lane_shows_it_until_it_ends);
    RUN(a_lane_without_any_says_so);
    RUN(a_lane_with_something_else_for_it_is_refused);
    RUN(a_copy_under_both_writers_is_of_one_moment_and_never_older);
    RUN(a_lying_writer_holds_no_reader_up_and_leads_none_astray);
    return check_end();
}
