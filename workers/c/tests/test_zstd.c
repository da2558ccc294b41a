/* test_zstd.c: compressed payloads and answers, held against a real worker process. Frames are made by hand (tests/frames.h); what the kit
 * compresses is given back to it. Where the machine has no libzstd.so.1 the kit takes none of it, and says so in its hello. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "expect.h"
#include "tests/frames.h"

enum { LIMIT = 8 << 20 };
static uint8_t *room; /* for a frame */
static uint8_t *same; /* a content that gets small */

static struct peer_options with_zstd(void) {
    struct peer_options options = defaults;
    options.link.features |= RB_FEATURE_ZSTD;
    return options;
}
static uint64_t taken(struct peer *p) { return p->link.hello->features; }
static void start(struct peer *p) {
    struct peer_options options = with_zstd();
    peer_start(p, "rb-echo", &options, 1);
    /* As the relay's Z0, which pairs with Z1 in rb_zstd_unpack(). */
    rb_store_relaxed(&p->link.ours->payload_bytes_max, LIMIT);
}
static uint64_t submit(struct peer *p, const void *bytes, size_t size, uint16_t flags) {
    struct peer_request request = {.payload = bytes, .bytes = (uint32_t)size, .flags = flags};
    uint64_t job = peer_put(p, &request);
    peer_publish(p);
    return job;
}
static uint64_t submit_frame(struct peer *p, enum frame_block kind, const uint8_t *bytes,
                             uint32_t size, uint32_t stated) {
    struct frame f = {.at = room};
    frame_make(&f, kind, bytes, size, stated);
    return submit(p, f.at, f.size, RB_FLAG_ZSTD);
}

static void the_feature_is_taken_where_the_library_is_and_offered(void) {
    struct peer p;
    start(&p);
    CHECK_EQUAL(taken(&p) & RB_FEATURE_ZSTD, RB_FEATURE_ZSTD);
    peer_stop(&p);
    peer_start(&p, "rb-echo", &defaults, 1); /* not offered */
    CHECK_EQUAL(taken(&p) & RB_FEATURE_ZSTD, 0);
    peer_stop(&p);
}

/* Something else by the library's name, before it on the way. */
static void without_the_library_it_is_not_taken_and_jobs_go_on(void) {
    char folder[] = "/tmp/rb-zstd-XXXXXX", file[64];
    struct peer p;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(file, sizeof file, "%s/libzstd.so.1", folder);
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(write(fd, "none", 4) == 4);
    close(fd);
    setenv("PEER_LIBRARY_PATH", folder, 1);
    start(&p);
    unsetenv("PEER_LIBRARY_PATH");
    CHECK_EQUAL(taken(&p) & RB_FEATURE_ZSTD, 0);
    expect_echo(&p, peer_submit(&p, 0, big, 5000), big, 5000, 0);
    peer_stop(&p);
    unlink(file);
    rmdir(folder);
}

static void a_frame_s_content_is_what_the_handler_sees(void) {
    static const uint32_t sizes[] = {
        0, 1, 64, 65, 1000, 4096, 70000, 131072, 131073, 1 << 20, (1 << 20) + 1, LIMIT, 3};
    struct peer p;
    start(&p);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t size = sizes[i];
        expect_echo(&p, submit_frame(&p, FRAME_RAW, big + i, size, size), big + i, size, 0);
        expect_echo(&p, submit_frame(&p, FRAME_RLE, same, size, size), same, size, 0);
        expect_echo(&p, submit(&p, big, size, 0), big, size, 0); /* a plain one between them */
    }
    peer_stop(&p);
}

#define BAD "the payload is no zstd frame for this worker: "
/* In the words of the library, which differ by its version. */
static void expect_bad_frame(struct peer *p) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.code, RB_CODE_BAD_FRAME);
    CHECK(a.completion.payload_bytes > strlen(BAD) + 5);
    CHECK(memcmp(a.payload, BAD, strlen(BAD)) == 0);
    peer_give_back(p, &a);
}

static void a_frame_that_lies_fails_its_job_and_the_worker_lives(void) {
    struct peer p;
    struct frame f = {.at = room};
    start(&p);
    submit(&p, "plain", 5, RB_FLAG_ZSTD);
    expect_failure(&p, RB_CODE_BAD_FRAME, BAD "it does not begin with the magic of a zstd frame");
    /* A bomb: 12 KiB that say and hold more than the role takes. */
    submit_frame(&p, FRAME_RLE, same, 400u << 20, 400u << 20);
    expect_failure(&p, RB_CODE_BAD_FRAME,
                   BAD "its content is larger than the payloads of its role may be");
    submit_frame(&p, FRAME_RLE, same, LIMIT + 1, LIMIT + 1);
    expect_failure(&p, RB_CODE_BAD_FRAME,
                   BAD "its content is larger than the payloads of its role may be");
    /* One that says little and holds much; one that says more than it holds. */
    submit_frame(&p, FRAME_RLE, same, 100000, 1000);
    expect_bad_frame(&p);
    submit_frame(&p, FRAME_RAW, big, 1000, 1001);
    expect_bad_frame(&p);
    /* Two frames, one frame and a half, half a frame. */
    frame_make(&f, FRAME_RAW, big, 1000, 1000);
    memcpy(room + f.size, room, f.size);
    submit(&p, room, 2 * f.size, RB_FLAG_ZSTD);
    expect_failure(&p, RB_CODE_BAD_FRAME, BAD "there are bytes behind it");
    submit(&p, room, f.size + 1, RB_FLAG_ZSTD);
    expect_failure(&p, RB_CODE_BAD_FRAME, BAD "there are bytes behind it");
    submit(&p, room, f.size - 1, RB_FLAG_ZSTD);
    expect_bad_frame(&p);
    submit(&p, room, FRAME_HEAD, RB_FLAG_ZSTD);
    expect_bad_frame(&p);
    frame_head(&f, 10); /* a kind of block that there is not */
    frame_number(&f, 1 | 3 << 1 | 10 << 3, 3);
    submit(&p, room, f.size, RB_FLAG_ZSTD);
    expect_bad_frame(&p);
    expect_echo(&p, submit_frame(&p, FRAME_RAW, big, 900, 900), big, 900, 0);
    peer_stop(&p);
}

static void the_limit_is_the_one_of_now(void) {
    struct peer p;
    start(&p);
    rb_store_relaxed(&p.link.ours->payload_bytes_max, 999);
    submit_frame(&p, FRAME_RLE, same, 1000, 1000);
    expect_failure(&p, RB_CODE_BAD_FRAME,
                   BAD "its content is larger than the payloads of its role may be");
    rb_store_relaxed(&p.link.ours->payload_bytes_max, 1000);
    expect_echo(&p, submit_frame(&p, FRAME_RLE, same, 1000, 1000), same, 1000, 0);
    peer_stop(&p);
}

/* Asks for `bytes` back, compressed if it likes; what comes so is given to the worker again, and has to be the same bytes then. */
static uint32_t there_and_back(struct peer *p, const uint8_t *bytes, uint32_t size) {
    struct peer_answer a;
    submit(p, bytes, size, RB_FLAG_ACCEPTS_ZSTD);
    CHECK(peer_answer(p, &a, 20000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    uint32_t got = a.completion.payload_bytes;
    if (!(a.completion.flags & RB_FLAG_ZSTD)) {
        CHECK(got == size && memcmp(a.payload, bytes, size) == 0);
        peer_give_back(p, &a);
        return size;
    }
    CHECK(got < size);
    memcpy(room, a.payload, got);
    peer_give_back(p, &a);
    expect_echo(p, submit(p, room, got, RB_FLAG_ZSTD), bytes, size, 0);
    return got;
}

static void an_answer_is_compressed_where_that_is_accepted_and_makes_it_smaller(void) {
    struct peer p;
    start(&p);
    CHECK(there_and_back(&p, same, 1 << 20) < 1000);
    CHECK(there_and_back(&p, same, 100000) < 64); /* then it lies in the envelope */
    CHECK(there_and_back(&p, same, 1024) < 1024);
    CHECK_EQUAL(there_and_back(&p, same, 1023), 1023);    /* too small to be worth it */
    CHECK_EQUAL(there_and_back(&p, big, 100000), 100000); /* it gets no smaller */
    CHECK(there_and_back(&p, same, LIMIT) < 4096);
    peer_stop(&p);
}

static void only_the_blocks_of_what_it_became_stay_taken(void) {
    enum { BLOCKS = 16 };
    struct peer_options options = with_zstd();
    struct peer_answer a;
    struct peer p;
    options.link.result_bytes = BLOCKS * 4096;
    peer_start(&p, "rb-echo", &options, 1);
    for (int i = 0; i < 4096 * 6; i++) room[i] = (uint8_t)(i < 5000 ? big[i] : 0);
    for (int i = 0; i < BLOCKS / 2 - 2;
         i++) { /* each took six blocks and keeps two; none is given back */
        submit(&p, room, 4096 * 6, RB_FLAG_ACCEPTS_ZSTD);
        CHECK(peer_answer(&p, &a, 5000));
        CHECK(a.completion.flags & RB_FLAG_ZSTD);
        CHECK(a.completion.payload_bytes > 5000 && a.completion.payload_bytes < 8192);
    }
    peer_stop(&p);
}

static void terms_and_failures_are_not_compressed(void) {
    struct peer p;
    struct peer_answer a;
    start(&p);
    expect_echo(&p, submit(&p, same, 50000, RB_FLAG_TERM | RB_FLAG_ACCEPTS_ZSTD), same, 50000,
                RB_FLAG_TERM);
    struct peer_request request = {
        .payload = same, .bytes = 2000, .opcode = 99, .flags = RB_FLAG_ACCEPTS_ZSTD};
    peer_put(&p, &request);
    peer_publish(&p);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_FAILED);
    CHECK_EQUAL(a.completion.flags & RB_FLAG_ZSTD, 0);
    peer_give_back(&p, &a);
    peer_stop(&p);
}

static void a_cancelled_job_is_not_decompressed(void) {
    struct peer p;
    start(&p);
    struct frame f = {.at = room};
    frame_make(&f, FRAME_RAW, big, 1000, 1001); /* would fail */
    struct peer_request request = {
        .payload = f.at, .bytes = (uint32_t)f.size, .flags = RB_FLAG_ZSTD, .deadline_ns = 1};
    peer_put(&p, &request);
    peer_publish(&p);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    peer_stop(&p);
}

static void a_bridge_that_sends_what_was_not_agreed_to_ends_the_worker(void) {
    struct peer p;
    struct peer_options options = defaults;
    options.stderr_kept = 1;
    peer_start(&p, "rb-echo", &options, 1);
    submit_frame(&p, FRAME_RAW, big, 100, 100);
    CHECK_EQUAL(peer_wait(&p, 5000), 76);
    CHECK(strstr(peer_stderr(&p), "has not agreed to") != NULL);
    peer_close(&p);
}

int main(void) {
    make_pattern();
    room = malloc(BIG_BYTES);
    same = calloc(1, BIG_BYTES);
    RUN(without_the_library_it_is_not_taken_and_jobs_go_on);
    RUN(a_bridge_that_sends_what_was_not_agreed_to_ends_the_worker);
    if (dlopen("libzstd.so.1", RTLD_NOW) == NULL) {
        printf("no libzstd.so.1 on this machine: its tests are left out\n");
        return check_end();
    }
    RUN(the_feature_is_taken_where_the_library_is_and_offered);
    RUN(a_frame_s_content_is_what_the_handler_sees);
    RUN(a_frame_that_lies_fails_its_job_and_the_worker_lives);
    RUN(the_limit_is_the_one_of_now);
    RUN(an_answer_is_compressed_where_that_is_accepted_and_makes_it_smaller);
    RUN(only_the_blocks_of_what_it_became_stay_taken);
    RUN(terms_and_failures_are_not_compressed);
    RUN(a_cancelled_job_is_not_decompressed);
    return check_end();
}
