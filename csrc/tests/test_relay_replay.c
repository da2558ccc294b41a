/* A run that was recorded is made again: the same bytes leave, or the first that does not is told. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "relay/tape/tape.h"
#include "relay_lab.h"
#include "ringbridge/lab.h"

enum { BUFFER = 1 << 24 };
static const uint64_t FILE_MAX = 1ull << 30;
static char path[64];

static void open_recorded(struct lab *lab, uint64_t file_max, uint64_t buffer) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    snprintf(path, sizeof path, "/tmp/rb-replay-%d", (int)getpid());
    unlink(path);
    *lab = (struct lab){.peer = -1};
    if (rb_relay_open(&lab->relay, &config) < 0) abort();
    CHECK_EQUAL(rb_relay_record(lab->relay, path, file_max, buffer), 0);
    if (rb_relay_install_service(lab->relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0)
        abort();
    if (rb_relay_add_role(lab->relay, 0, &role) < 0) abort();
    lab->peer = lab_connect(lab);
}

static struct rb_replay replayed(void) {
    struct rb_replay result;
    int rc = rb_replay(path, &result);
    CHECK_EQUAL(rc, 0);
    if (rc < 0 || result.differs) printf("%s: %s\n", check_name, result.words);
    return result;
}

static void read_answer(int fd, size_t least) {
    static uint8_t body[2 << 20];
    CHECK(lab_read(fd, body, sizeof body, LAB_WAIT_MS) >= (int)least);
}

/* Small and large, inline and through regions, cancelled, crashed, broken, refused. */
static void eventful_run(struct lab *lab) {
    static uint8_t large[300000];
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 13 + i / 257);
    struct lab_worker *w = lab_worker(lab);
    for (uint32_t i = 1; i <= 20; i++) {
        lab_submit(lab->peer, i, "question", 8);
        lab_complete(w, "answer", 6);
        read_answer(lab->peer, 6);
        lab_monitor(lab->peer, 0, i, i);
    }
    lab_submit_option(lab->peer, 30, "timeout", 1);
    read_answer(lab->peer, 8);
    struct lab_bytes b = {.size = 0}; /* 300,000 bytes in one frame: diverted into the pool */
    lab_monitor(lab->peer, 1, 31, 31);
    lab_call_head(&b, 31, 31);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, sizeof large);
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)(b.size + sizeof large + 3));
    lab_write(lab->peer, head, sizeof head);
    lab_write(lab->peer, b.at, b.size);
    lab_write(lab->peer, large, sizeof large);
    const struct rb_request *r = lab_request(w, 1);
    CHECK(r && r->payload_bytes == sizeof large);
    lab_complete(w, "late", 4); /* of the one whose deadline has passed */
    r = lab_request(w, 0);
    CHECK(r != NULL);
    if (r) { /* answered through the region */
        struct rb_completion e = lab_completion(w, r->job, "", 0, 0);
        memcpy(w->link.results, large, 200000);
        e.flags = 0;
        e.payload_bytes = 200000;
        e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
        lab_start(w, 1);
        rb_ring_release(&w->link.request_ring, 1);
        lab_publish(w, &e);
        read_answer(lab->peer, 200000);
    }
    lab_submit(lab->peer, 40, "x", 1);
    CHECK(lab_request(w, 0) != NULL);
    lab_monitor(lab->peer, 0, 40, 40);
    lab_complete(w, "unheard", 7);
    for (uint32_t i = 50; i < 52; i++) lab_submit(lab->peer, i, "x", 1);
    CHECK(lab_request(w, 0) != NULL);
    lab_start(w, 1);
    const struct rb_obituary killed = {RB_OBITUARY_MAGIC, -1, 11, 0};
    lab_worker_end(lab, w, &killed);
    read_answer(lab->peer, 20);
    w = lab_worker(lab);
    CHECK(lab_request(w, 0) != NULL);
    struct rb_completion lie = lab_completion(w, 0xdead, "", 0, 0);
    lab_publish(w, &lie);
    CHECK(lab_event(lab, RB_EVENT_WORKER_BROKE));
    lab_worker_end(lab, w, NULL);
    int other = lab_connect(lab);
    lab_submit(other, 60, "x", 1);
    close(other);
    CHECK(lab_event(lab, RB_EVENT_CONNECTION_LOST));
}

static void a_run_is_made_again_byte_for_byte(void) {
    struct lab lab;
    struct rb_relay_stats was;
    open_recorded(&lab, FILE_MAX, BUFFER);
    eventful_run(&lab);
    rb_relay_stop(lab.relay);
    rb_relay_read_stats(lab.relay, &was);
    lab_close(&lab);
    struct rb_replay again = replayed();
    CHECK(!again.differs);
    CHECK_EQUAL(again.end, RB_RECORD_STOPPED);
    CHECK(again.rounds > 20 && again.items > 100);
    CHECK_EQUAL(again.stats.accepted, was.accepted);
    CHECK_EQUAL(memcmp(again.stats.answered, was.answered, sizeof was.answered), 0);
    CHECK_EQUAL(again.stats.bytes_out, was.bytes_out);
    struct rb_replay twice = replayed();
    CHECK_EQUAL(memcmp(&again, &twice, sizeof twice), 0);
}

/* Changes one byte of the first item of a kind; the data begins `skip` bytes behind its head. */
static void change(uint32_t kind, size_t skip) {
    FILE *f = fopen(path, "r+");
    struct rb_item item;
    if (!f) abort();
    fseek(f, (long)(sizeof(struct rb_tape_head) + (sizeof(struct rb_relay_config) + 7) / 8 * 8),
          SEEK_SET);
    while (fread(&item, sizeof item, 1, f) == 1) {
        long at = ftell(f);
        if (item.kind == kind && item.size > skip) {
            fseek(f, at + (long)skip, SEEK_SET);
            int byte = fgetc(f);
            fseek(f, at + (long)skip, SEEK_SET);
            fputc(byte ^ 1, f);
            break;
        }
        fseek(f, at + (long)((item.size + 7) / 8 * 8), SEEK_SET);
    }
    fclose(f);
}

static void the_first_difference_is_told(void) {
    struct lab lab;
    open_recorded(&lab, FILE_MAX, BUFFER);
    eventful_run(&lab);
    lab_close(&lab);
    change(RB_ITEM_WRITE, 60);
    struct rb_replay r;
    CHECK_EQUAL(rb_replay(path, &r), 0);
    CHECK(r.differs && strstr(r.words, "byte 60 of what leaves on connection 1 is"));
    change(RB_ITEM_WRITE, 60);
    CHECK(!replayed().differs);
    change(RB_ITEM_REQUEST, 120); /* a payload's byte, inline in the envelope */
    CHECK_EQUAL(rb_replay(path, &r), 0);
    CHECK(r.differs && strstr(r.words, "a request to worker of 1: byte 120 is"));
}

static void a_record_ends_where_the_file_is_full(void) {
    const long full =
        (long)sizeof(struct rb_role_config) + 32000; /* the role's is the first item */
    struct lab lab;
    open_recorded(&lab, (uint64_t)full, BUFFER);
    eventful_run(&lab);
    struct rb_record_figures f;
    CHECK_EQUAL(rb_relay_record_figures(lab.relay, &f), 0);
    CHECK(f.over && f.end == RB_RECORD_FILE_FULL);
    lab_close(&lab);
    struct stat s;
    CHECK(stat(path, &s) == 0 && s.st_size <= full + (long)sizeof(struct rb_item));
    CHECK_EQUAL(s.st_mode & 0777, 0600);
    struct rb_replay r = replayed();
    CHECK(!r.differs);
    CHECK_EQUAL(r.end, RB_RECORD_FILE_FULL);
    CHECK(r.rounds > 5);
}

static void a_slow_disk_ends_the_record_and_not_the_relay(void) {
    struct lab lab;
    open_recorded(&lab, FILE_MAX, 1 << 16); /* the run has an item of 200,000 bytes */
    eventful_run(&lab);
    struct rb_record_figures f;
    CHECK_EQUAL(rb_relay_record_figures(lab.relay, &f), 0);
    CHECK(f.over && f.end == RB_RECORD_DISK_SLOW);
    lab_close(&lab);
    struct rb_replay r = replayed();
    CHECK(!r.differs);
    CHECK_EQUAL(r.end, RB_RECORD_DISK_SLOW);
}

static void a_record_can_be_stopped_before_the_relay(void) {
    struct lab lab;
    open_recorded(&lab, FILE_MAX, BUFFER);
    struct lab_worker *w = lab_worker(&lab);
    lab_submit(lab.peer, 1, "x", 1);
    CHECK(lab_request(w, 0) != NULL);
    CHECK_EQUAL(rb_relay_record_stop(lab.relay), 0);
    lab_complete(w, "behind it", 9); /* it goes on with the worker's own memory */
    CHECK(ANSWER_HAS(lab.peer, "behind it"));
    struct rb_record_figures f = {.done = 0};
    for (int ms = 0; ms < LAB_WAIT_MS && !f.done; ms++) {
        usleep(1000);
        CHECK_EQUAL(rb_relay_record_figures(lab.relay, &f), 0);
    }
    CHECK(f.done && f.end == RB_RECORD_STOPPED && f.failed == 0);
    CHECK(!replayed().differs);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_record_begins_with_the_relay(void) {
    struct lab lab;
    lab_open(&lab);
    CHECK_EQUAL(rb_relay_record(lab.relay, "/tmp/rb-never", FILE_MAX, BUFFER), -EBUSY);
    lab_close(&lab);
}

static void what_is_no_record_is_refused(void) {
    struct rb_replay r;
    FILE *f = fopen(path, "w");
    if (!f) abort();
    for (int i = 0; i < 4096; i++) fputc(i, f);
    fclose(f);
    CHECK_EQUAL(rb_replay(path, &r), -EPROTO);
    CHECK_EQUAL(strcmp(r.words, "it is no record"), 0);
    unlink(path);
    CHECK_EQUAL(rb_replay(path, &r), -ENOENT);
}

int main(void) {
    RUN(a_run_is_made_again_byte_for_byte);
    RUN(the_first_difference_is_told);
    RUN(a_record_ends_where_the_file_is_full);
    RUN(a_slow_disk_ends_the_record_and_not_the_relay);
    RUN(a_record_can_be_stopped_before_the_relay);
    RUN(a_record_begins_with_the_relay);
    RUN(what_is_no_record_is_refused);
    return check_end();
}
