/* What the bridge tells BEAMs with a lane of its workers and roles (service/beam_telemetry.c, face_list.c), by a relay's own clock. */
#define _GNU_SOURCE
#include "core/lane_client.h"
#include "leaks.h"
#include "ringbridge/lane_telemetry.h"
#include "ringbridge/telemetry.h"
#include "still_lab.h"

static struct still s;
static struct rb_lane_client *lane;
static uint8_t room[RB_LANE_TELEMETRY_BYTES] __attribute__((aligned(8)));

static struct rb_lane_client *lane_of(uint64_t id) {
    struct rb_lane_config config = {.lane = id,
                                    .rings = 2,
                                    .slots = 2,
                                    .arena_bytes = 4096,
                                    .result_bytes = 4096,
                                    .result_block_bytes = 4096};
    struct rb_lane_client *made = NULL;
    char why[256] = "";
    int fds[4];
    CHECK_EQUAL(rb_relay_open_lane(s.lab.relay, s.lab.connections, &config, fds), 0);
    struct rb_lane_fds own = {fds[0], fds[1], fds[2], fds[3]};
    CHECK_EQUAL(rb_lane_attach(&made, &own, why, sizeof why), 0);
    if (!made) abort();
    return made;
}
/* Nobody is judged in it, so that nothing but a lane has the relay look at workers. */
static void begin(int workers) {
    struct rb_role_config role = lab_role_config();
    still_open(&s, &role, workers);
    lane = lane_of(7);
    still_round(&s, 0);
}
static void finish(void) {
    if (lane) rb_lane_detach(lane);
    still_close(&s);
    CHECK_EQUAL(mappings_of("ringbridge-telemetry"), 0);
}

static struct rb_lane_telemetry_figures figures;
static const struct rb_lane_telemetry_role *roles;
static const struct rb_lane_telemetry_worker *workers;
static struct rb_lane_telemetry_list list;
static const struct rb_lane_telemetry_error *errors;
static const struct rb_lane_telemetry_place *places;

static void read_lane(const struct rb_lane_client *from) {
    int64_t bytes = rb_lane_read_telemetry(from, room, sizeof room);
    CHECK(bytes > 0);
    if (bytes < 0) abort();
    memcpy(&figures, room, sizeof figures);
    roles = (const void *)(room + sizeof figures);
    workers = (const void *)(roles + figures.roles);
    memcpy(&list, workers + figures.workers, sizeof list);
    errors = (const void *)((const uint8_t *)(workers + figures.workers) + sizeof list);
    places = (const void *)(errors + list.errors);
    CHECK_EQUAL((const uint8_t *)(places + list.places) - room, bytes);
}

/* --- Figures ----------------------------------------------------------------------------------------------------------------- */

static void a_lane_reads_them_from_its_first_round_on(void) {
    begin(2);
    read_lane(lane);
    CHECK_EQUAL(figures.at_ns, s.now);
    CHECK_EQUAL(figures.os_pid, getpid());
    CHECK(figures.roles == 1 && figures.workers == 2);
    CHECK_EQUAL(figures.roles_hidden + figures.workers_hidden, 0);
    CHECK(!strcmp((const char *)roles[0].name, "echo") && roles[0].workers_ready == 2);
    CHECK(roles[0].depth_max == LAB_DEPTH && roles[0].state == RB_LANE_ROLE_RUNNING);
    CHECK(workers[0].worker == 1 && workers[1].worker == 2);
    finish();
}

static void they_are_of_the_last_look_at_the_workers(void) {
    begin(1);
    rb_lab_beat(s.workers[0], 0);
    still_submit(&s);
    still_round(&s, 499);
    read_lane(lane);
    CHECK_EQUAL(workers[0].in_flight, 0); /* as it was told before */
    still_round(&s, 1);
    read_lane(lane);
    CHECK_EQUAL(figures.at_ns, s.now);
    CHECK(workers[0].in_flight == 1 && roles[0].placed == 1 && roles[0].accepted == 1);
    still_answer(&s, 0, RB_STATUS_FAILED);
    rb_lab_beat(s.workers[0], 1);
    still_round(&s, 500);
    read_lane(lane);
    CHECK(workers[0].done == 1 && workers[0].in_flight == 0 && workers[0].unready == 1);
    CHECK_EQUAL(roles[0].answered, 1);
    struct rb_worker_stats stats;
    CHECK_EQUAL(rb_relay_read_worker(s.lab.relay, 1, &stats), 0);
    CHECK_EQUAL(workers[0].heartbeat_ns, stats.heartbeat_ns);
    CHECK(workers[0].service_ns == stats.service_ns && workers[0].credit == stats.credit);
    finish();
}

static void who_is_refused_and_who_waits_is_counted(void) {
    begin(1);
    rb_lab_beat(s.workers[0], 1);
    still_round(&s, 500);
    for (int i = 0; i < LAB_DEPTH + 2; i++) still_submit(&s);
    still_round(&s, 500);
    read_lane(lane);
    CHECK_EQUAL(roles[0].queued, LAB_DEPTH);
    CHECK(roles[0].accepted == LAB_DEPTH && roles[0].refused == 2);
    finish();
}

static void a_worker_that_is_gone_is_shown_no_more(void) {
    begin(2);
    still_crash(&s, 0);
    still_round(&s, 500);
    read_lane(lane);
    CHECK(figures.workers == 1 && workers[0].worker == 2);
    CHECK_EQUAL(still_hire(&s, 0), 3);
    still_round(&s, 0); /* who has greeted is looked at at once */
    read_lane(lane);
    CHECK(figures.workers == 2 && workers[1].worker == 3);
    finish();
}

static void without_a_lane_nothing_is_written_and_nobody_wakes_for_it(void) {
    begin(1);
    const uint8_t *telemetry = lane->telemetry;
    CHECK_EQUAL(rb_lab_due(s.lab.relay), s.now + 500 * STILL_MS);
    struct rb_lane_client *other = lane_of(8); /* shares the memory, and keeps it */
    still_round(&s, 0);
    CHECK(other->telemetry != telemetry);
    rb_lane_detach(lane);
    rb_relay_close_lane(s.lab.relay, 7, "test");
    rb_relay_close_lane(s.lab.relay, 8, "test");
    still_round(&s, 500);
    still_round(&s, 500);
    CHECK_EQUAL(rb_lab_due(s.lab.relay), 0);
    uint64_t last = s.now - 500 * STILL_MS;
    CHECK(rb_lane_telemetry_copy(other->telemetry, room, sizeof room) > 0);
    memcpy(&figures, room, sizeof figures);
    CHECK(figures.at_ns <= last);
    CHECK_EQUAL(rb_lane_read_telemetry(other, room, sizeof room), -EPIPE);
    rb_lane_detach(other);
    lane = NULL;
    finish();
}

static void all_lanes_read_the_same(void) {
    begin(1);
    struct rb_lane_client *other = lane_of(8);
    still_round(&s, 500);
    read_lane(other);
    CHECK_EQUAL(figures.at_ns, s.now);
    read_lane(lane);
    CHECK_EQUAL(figures.at_ns, s.now);
    rb_lane_detach(other);
    finish();
}

static void a_worker_that_lies_of_itself_tells_numbers_and_no_more(void) {
    begin(1);
    struct rb_telemetry lie = {.heartbeats = UINT64_MAX, .failed = UINT64_MAX, .unready = 7};
    lie.heartbeat_ns = lie.run_ns = UINT64_MAX;
    lie.queued = lie.last_code = UINT32_MAX;
    struct rb_link_worker *worker = rb_lab_link(s.workers[0]);
    rb_telemetry_store(worker->telemetry, &lie);
    still_round(&s, 500);
    read_lane(lane);
    CHECK(workers[0].failed == UINT64_MAX && workers[0].waiting == UINT32_MAX);
    CHECK_EQUAL(workers[0].unready, 1);
    worker->telemetry->sequence |= 1; /* and is torn for good: as it was, and the relay goes on */
    lie.failed = 5;
    worker->telemetry->failed = 5;
    still_round(&s, 500);
    read_lane(lane);
    CHECK(workers[0].failed == UINT64_MAX && figures.at_ns == s.now);
    finish();
}

/* --- The list ---------------------------------------------------------------------------------------------------------------- */

static void the_list_is_what_the_other_thread_says_at_once(void) {
    struct rb_listed_worker one = {
        .worker = 5, .state = RB_LISTED_READY, .index = 2, .os_pid = 77, .restarts = 1};
    struct rb_listed_error wrong[2] = {{.worker = 4, .why = "signal 9"}, {.worker = 3}};
    memset(wrong[1].why, 'x', sizeof wrong[1].why);
    strcpy(one.kit, "c");
    strcpy(one.role, "echo");
    begin(0);
    CHECK_EQUAL(rb_relay_list_worker(s.lab.relay, 1, &one), 0);
    CHECK_EQUAL(rb_relay_list_errors(s.lab.relay, wrong, 2), 0);
    CHECK_EQUAL(rb_relay_list_hidden(s.lab.relay, 9), 0);
    read_lane(lane);
    CHECK(list.places == 2 && list.hidden == 9 && list.errors == 2);
    CHECK_EQUAL(places[0].state, RB_LANE_WORKER_NONE);
    CHECK(places[1].worker == 5 && places[1].state == RB_LANE_WORKER_READY);
    CHECK(places[1].index == 2 && places[1].os_pid == 77 && places[1].restarts == 1);
    CHECK(!strcmp((const char *)places[1].kit, "c") &&
          !strcmp((const char *)places[1].role, "echo"));
    CHECK(errors[0].bytes == 8 && !memcmp(errors[0].why, "signal 9", 8));
    CHECK(errors[1].bytes == RB_LISTED_WHY_BYTES && errors[1].why[RB_LISTED_WHY_BYTES - 1] == 'x');
    CHECK_EQUAL(rb_relay_list_errors(s.lab.relay, wrong, 1), 0);
    read_lane(lane);
    CHECK(list.errors == 1 && list.places == 2);
    finish();
}

static void what_has_no_place_is_refused(void) {
    struct rb_listed_worker one = {.worker = 5, .state = RB_LISTED_STOPPED};
    struct rb_listed_error wrong[RB_LISTED_ERRORS_MAX + 1] = {{.worker = 1}};
    begin(0);
    CHECK_EQUAL(rb_relay_list_worker(s.lab.relay, RB_LISTED_MAX, &one), -EINVAL);
    CHECK_EQUAL(rb_relay_list_worker(s.lab.relay, RB_LISTED_MAX - 1, &one), 0);
    one.state++;
    CHECK_EQUAL(rb_relay_list_worker(s.lab.relay, 0, &one), -EINVAL);
    CHECK_EQUAL(rb_relay_list_errors(s.lab.relay, wrong, RB_LISTED_ERRORS_MAX + 1), -EINVAL);
    finish();
}

static void who_was_listed_before_the_first_lane_is_read_by_it(void) {
    struct rb_role_config role = lab_role_config();
    struct rb_listed_worker one = {.worker = 5, .state = RB_LISTED_STARTING};
    still_open(&s, &role, 0);
    CHECK_EQUAL(rb_relay_list_worker(s.lab.relay, 0, &one), 0);
    lane = lane_of(7);
    read_lane(lane); /* before any round: no figures yet */
    CHECK(figures.at_ns == 0 && list.places == 1 && places[0].worker == 5);
    finish();
}

int main(void) {
    unsetenv("RINGBRIDGE_REPLAY"); /* no lane is opened beside a recording */
    RUN(a_lane_reads_them_from_its_first_round_on);
    RUN(they_are_of_the_last_look_at_the_workers);
    RUN(who_is_refused_and_who_waits_is_counted);
    RUN(a_worker_that_is_gone_is_shown_no_more);
    RUN(without_a_lane_nothing_is_written_and_nobody_wakes_for_it);
    RUN(all_lanes_read_the_same);
    RUN(a_worker_that_lies_of_itself_tells_numbers_and_no_more);
    RUN(the_list_is_what_the_other_thread_says_at_once);
    RUN(what_has_no_place_is_refused);
    RUN(who_was_listed_before_the_first_lane_is_read_by_it);
    return check_end();
}
