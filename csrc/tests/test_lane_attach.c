/* A lane is made and attached to (lane_link.h, lane.h), or refused with the rule that was broken: its sizes, the headers of either side,
 * memory that is not sealed, a bell that is no socket pair; and nothing is left of one that was let go of. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/lane_client.h"
#include "lane_ends.h"
#include "leaks.h"

static void a_size_that_breaks_a_rule_is_refused_and_leaves_nothing(void) {
    int before = open_descriptors();
    struct rb_lane_link link;
    struct rb_lane_config wrong[11];
    for (int i = 0; i < 11; i++) wrong[i] = ends_config();
    wrong[0].rings = 1;
    wrong[1].rings = RB_LANE_RINGS_MAX + 1;
    wrong[2].slots = 0;
    wrong[3].slots = 48;
    wrong[4].slots = 131072;
    wrong[5].arena_bytes = 0;
    wrong[6].arena_bytes = 4097;
    wrong[7].result_block_bytes = 2048;
    wrong[8].result_bytes = 0;
    wrong[9].result_bytes = 3 * 4096;
    wrong[10].result_bytes = UINT64_C(1) << 62;
    for (int i = 0; i < 11; i++) CHECK_EQUAL(rb_lane_link_create(&link, &wrong[i]), -EINVAL);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("ringbridge-lane"), 0);
}

static void nothing_is_left_of_a_lane_that_both_sides_have_let_go_of(void) {
    int before = open_descriptors();
    struct ends e;
    ends_open(&e);
    CHECK(mappings_of("ringbridge-lane") > 0);
    ends_close(&e);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(mappings_of("ringbridge-lane"), 0);
}

static uint64_t allocated(int fd) {
    struct stat s;
    CHECK_EQUAL(fstat(fd, &s), 0);
    return (uint64_t)s.st_blocks * 512;
}
static void a_lane_of_many_schedulers_begins_with_little_memory(void) {
    struct rb_lane_config config = ends_config();
    struct rb_lane_link link;
    struct rb_lane_client *beam;
    char why[256] = "";
    config.rings = 65;
    config.slots = 1024;
    CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
    struct rb_lane_fds fds = ends_fds(&link);
    CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), 0);
    uint64_t bytes = allocated(fds.relay_side) + allocated(fds.beam_side);
    CHECK(bytes < 4 << 20);
    /* What the first calls touch is there: none of them waits for a page. */
    CHECK(bytes > 65 * (32 << 10));
    rb_lane_detach(beam);
    rb_lane_link_close(&link);
}

static void the_relay_side_cannot_be_mapped_writable(void) {
    struct ends e;
    ends_open(&e);
    struct rb_lane_config config = ends_config();
    struct rb_lane_link fresh;
    CHECK_EQUAL(rb_lane_link_create(&fresh, &config), 0);
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fresh.relay_side_fd, 0);
    CHECK(p == MAP_FAILED);
    rb_lane_link_close(&fresh);
    ends_close(&e);
}

/* Each field that a stranger's or an edited header would have otherwise. */
static void a_header_that_does_not_fit_is_refused_with_its_rule(void) {
    static const struct {
        size_t at;
        const char *why;
    } wrong[] = {
        {offsetof(struct rb_lane_relay_header, magic), "no lane"},
        {offsetof(struct rb_lane_relay_header, version), "another version"},
        {offsetof(struct rb_lane_relay_header, digest), "two digests"},
        {offsetof(struct rb_lane_relay_header, rings), "does not fit"},
        {offsetof(struct rb_lane_relay_header, slots), "breaks its rule"},
        {offsetof(struct rb_lane_relay_header, completion_slots), "does not fit"},
        {offsetof(struct rb_lane_relay_header, arena_bytes), "breaks its rule"},
        {offsetof(struct rb_lane_relay_header, result_bytes), "breaks its rule"},
        {offsetof(struct rb_lane_relay_header, result_blocks), "does not fit"},
        {offsetof(struct rb_lane_relay_header, relay_side_bytes), "another size"},
        {offsetof(struct rb_lane_relay_header, beam_side_bytes), "another size"},
        {offsetof(struct rb_lane_relay_header, heads_at), "not where"},
        {offsetof(struct rb_lane_relay_header, completions_at), "not where"},
        {offsetof(struct rb_lane_relay_header, results_at), "not where"},
        {offsetof(struct rb_lane_relay_header, tails_at), "not where"},
        {offsetof(struct rb_lane_relay_header, cancels_at), "not where"},
        {offsetof(struct rb_lane_relay_header, givebacks_at), "not where"},
        {offsetof(struct rb_lane_relay_header, submissions_at), "not where"},
        {offsetof(struct rb_lane_relay_header, arenas_at), "not where"},
    };
    struct rb_lane_config config = ends_config();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rb_lane_link link;
        struct rb_lane_client *beam = NULL;
        char why[256] = "";
        CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
        link.relay_side[wrong[i].at] ^= 1;
        struct rb_lane_fds fds = ends_fds(&link);
        int before = open_descriptors();
        CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), -EPROTO);
        CHECK(!beam && strstr(why, wrong[i].why));
        CHECK_EQUAL(open_descriptors(), before); /* they are the caller's still */
        ends_close_fds(&fds);
        rb_lane_link_close(&link);
    }
}

static void memory_that_is_not_sealed_is_refused(void) {
    struct rb_lane_config config = ends_config();
    struct rb_lane_link link;
    struct rb_lane_client *beam = NULL;
    char why[256] = "";
    CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
    struct rb_lane_fds fds = ends_fds(&link);
    close(fds.relay_side);
    fds.relay_side = memfd_create("stranger", MFD_CLOEXEC);
    CHECK_EQUAL(ftruncate(fds.relay_side, 1 << 20), 0);
    CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), -EPROTO);
    CHECK(strstr(why, "not sealed"));
    ends_close_fds(&fds);
    rb_lane_link_close(&link);
}

/* A scheduler of the BEAM writes to it: whatever else it is could hold that write up. */
static void a_bell_that_is_no_socket_pair_is_refused(void) {
    struct rb_lane_config config = ends_config();
    enum { PIPE, EVENTFD, DATAGRAMS, TCP, BELLS };
    for (int kind = 0; kind < BELLS; kind++) {
        struct rb_lane_link link;
        struct rb_lane_client *beam = NULL;
        char why[256] = "";
        int ends[2] = {-1, -1};
        CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
        struct rb_lane_fds fds = ends_fds(&link);
        close(fds.bell);
        if (kind == PIPE) CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
        if (kind == EVENTFD) ends[1] = eventfd(0, EFD_CLOEXEC);
        if (kind == DATAGRAMS) CHECK_EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
        if (kind == TCP) ends[1] = socket(AF_INET, SOCK_STREAM, 0);
        fds.bell = ends[1];
        CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), -EPROTO);
        CHECK(!beam && strstr(why, "no socket pair"));
        ends_close_fds(&fds);
        if (ends[0] >= 0) close(ends[0]);
        rb_lane_link_close(&link);
    }
}

static void a_hello_is_believed_only_if_all_of_it_fits(void) {
    struct ends e;
    const char *rule = NULL;
    uint32_t pid = 0;
    ends_open(&e);
    CHECK_EQUAL(rb_lane_link_hello(&e.relay, &pid, &rule), 1);
    CHECK_EQUAL(pid, getpid());
    ends_close(&e);

    struct rb_lane_config config = ends_config();
    static const struct {
        size_t at;
        const char *rule;
    } wrong[] = {{offsetof(struct rb_lane_beam_header, magic), "hello_magic"},
                 {offsetof(struct rb_lane_beam_header, version), "hello_version"},
                 {offsetof(struct rb_lane_beam_header, hello), "hello_value"},
                 {offsetof(struct rb_lane_beam_header, digest), "hello_digest"},
                 {offsetof(struct rb_lane_beam_header, nonce), "hello_nonce"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rb_lane_link link;
        struct rb_lane_client *beam = NULL;
        char why[256];
        CHECK_EQUAL(rb_lane_link_create(&link, &config), 0);
        CHECK_EQUAL(rb_lane_link_hello(&link, &pid, &rule), 0); /* nobody is there yet */
        struct rb_lane_fds fds = ends_fds(&link);
        CHECK_EQUAL(rb_lane_attach(&beam, &fds, why, sizeof why), 0);
        uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, link.beam_side_fd, 0);
        page[wrong[i].at] ^= 2;
        CHECK_EQUAL(rb_lane_link_hello(&link, &pid, &rule), -EPROTO);
        CHECK_EQUAL(strcmp(rule, wrong[i].rule), 0);
        munmap(page, 4096);
        rb_lane_detach(beam);
        rb_lane_link_close(&link);
    }
}

int main(void) {
    RUN(a_size_that_breaks_a_rule_is_refused_and_leaves_nothing);
    RUN(nothing_is_left_of_a_lane_that_both_sides_have_let_go_of);
    RUN(a_lane_of_many_schedulers_begins_with_little_memory);
    RUN(the_relay_side_cannot_be_mapped_writable);
    RUN(a_header_that_does_not_fit_is_refused_with_its_rule);
    RUN(memory_that_is_not_sealed_is_refused);
    RUN(a_bell_that_is_no_socket_pair_is_refused);
    RUN(a_hello_is_believed_only_if_all_of_it_fits);
    return check_end();
}
