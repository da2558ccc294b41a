/* test_version.c: who may share a link with whom (ringbridge/version.h), and what a worker declares in its hello (ops.h). */
#define _GNU_SOURCE
#include "ringbridge/version.h"

#include "check.h"
#include "ringbridge/link.h"
#include "ringbridge/ops.h"

static char why[1024];

/* --- Versions ---------------------------------------------------------------------------------------------------------------- */

static struct rb_layout_id id(unsigned major, unsigned minor, uint8_t fill) {
    struct rb_layout_id made = {.version = major << 16 | minor};
    memset(made.digest, fill, sizeof made.digest);
    return made;
}

static void the_newer_side_judges_and_the_older_one_leaves_it_to_the_newer(void) {
    const struct rb_layout_older known[] = {{id(5, 0, 0xa0), "pulse"}, {id(5, 1, 0xa1), "ops"}};
    const struct rb_layout_id ours = id(5, 2, 0xa2);
    const struct {
        struct rb_layout_id theirs;
        enum rb_layout_kin kin;
    } cases[] = {
        {id(5, 2, 0xa2), RB_LAYOUT_SAME},         {id(5, 2, 0xff), RB_LAYOUT_STRANGE},
        {id(5, 1, 0xa1), RB_LAYOUT_OLDER},        {id(5, 0, 0xa0), RB_LAYOUT_OLDER},
        {id(5, 0, 0xa1), RB_LAYOUT_STRANGE}, /* a known digest of another version */
        {id(5, 1, 0xff), RB_LAYOUT_STRANGE},      {id(5, 3, 0xff), RB_LAYOUT_NEWER},
        {id(5, 0xffff, 0), RB_LAYOUT_NEWER},      {id(6, 0, 0xa2), RB_LAYOUT_STRANGE},
        {id(4, 2, 0xa2), RB_LAYOUT_STRANGE},      {id(0, 0, 0), RB_LAYOUT_STRANGE},
        {id(0xffff, 2, 0xa2), RB_LAYOUT_STRANGE},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_EQUAL(rb_layout_judge(&ours, &cases[i].theirs, known, 2), cases[i].kin);
    CHECK_EQUAL(rb_layout_judge(&ours, &known[0].id, NULL, 0), RB_LAYOUT_STRANGE);
}

/* Whatever two sides there are: both go on or neither, where each knows all releases before its own. */
static void both_sides_come_to_the_same_end(void) {
    const struct rb_layout_older all[] = {{id(5, 0, 0), ""}, {id(5, 1, 1), ""}, {id(5, 2, 2), ""}};
    for (unsigned a = 0; a < 3; a++) {
        for (unsigned b = 0; b < 3; b++) {
            enum rb_layout_kin ab = rb_layout_judge(&all[a].id, &all[b].id, all, a);
            enum rb_layout_kin ba = rb_layout_judge(&all[b].id, &all[a].id, all, b);
            CHECK(ab != RB_LAYOUT_STRANGE && ba != RB_LAYOUT_STRANGE);
            CHECK_EQUAL(ab == RB_LAYOUT_NEWER, ba == RB_LAYOUT_OLDER);
        }
    }
}

static void a_mismatch_names_both_versions_both_digests_and_the_way_out(void) {
    const struct {
        uint32_t version;
        const char *words;
    } cases[] = {{RB_LAYOUT_VERSION, "one version with two digests"},
                 {RB_LAYOUT_VERSION + (1 << 16), "majors do not mix"},
                 {RB_LAYOUT_VERSION ^ 0x8000, "build both from one release"}};
    uint8_t digest[RB_LAYOUT_DIGEST_SIZE];
    char version[64];
    memset(digest, 0xab, sizeof digest);
    for (unsigned i = 0; i < 3; i++) {
        rb_layout_mismatch("the worker", cases[i].version, digest, "the bridge", why, sizeof why);
        snprintf(version, sizeof version, "version %u.%u, digest abab", cases[i].version >> 16,
                 cases[i].version & 0xffff);
        CHECK(strstr(why, version) != NULL);
        CHECK(strstr(why, RB_LAYOUT_DIGEST_HEX) != NULL);
        CHECK(strstr(why, cases[i].words) != NULL);
    }
}

/* --- Over a link ------------------------------------------------------------------------------------------------------------- */

struct ends {
    struct rb_link relay;
    struct rb_link_worker worker;
};

static int open_ends(struct ends *e, uint32_t version, uint8_t digest_xor, uint64_t features) {
    struct rb_link_config c = RB_LINK_CONFIG_DEFAULT;
    c.slots = 2;
    c.result_bytes = 4096;
    CHECK_EQUAL(rb_link_create(&e->relay, &c, NULL), 0);
    struct rb_relay_header *h = (void *)e->relay.relay_side;
    h->version = version;
    h->digest[0] ^= digest_xor;
    h->features |= features;
    return rb_link_attach(&e->worker, &e->relay.fds, why, sizeof why);
}

static void a_worker_goes_with_a_relay_of_a_later_minor_and_takes_what_it_knows(void) {
    struct ends e;
    struct rb_worker_header hello;
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION + 1, 0xff, 1u << 20), 0);
    CHECK_EQUAL(e.worker.header.features, RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD);
    rb_link_greet(&e.worker, "c", 1, "echo");
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
    CHECK_EQUAL(hello.features, RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD);
    rb_link_detach(&e.worker);
    rb_link_close(&e.relay);
}

static void a_worker_refuses_another_major_another_digest_and_features_that_its_own_has_not(void) {
    const uint32_t versions[] = {RB_LAYOUT_VERSION + (1 << 16), RB_LAYOUT_VERSION - (1 << 16),
                                 RB_LAYOUT_VERSION};
    struct ends e;
    struct rb_worker_header hello;
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQUAL(open_ends(&e, versions[i], i < 2 ? 0 : 1, 0), -EPROTO);
        CHECK(strstr(why, RB_LAYOUT_DIGEST_HEX) != NULL);
        CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), -EPROTO);
        rb_link_close(&e.relay);
    }
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 1u << 20), -EPROTO);
    CHECK(strstr(why, "features") != NULL);
    rb_link_close(&e.relay);
}

static void a_relay_goes_with_a_worker_of_a_later_minor_unless_that_refuses(void) {
    struct ends e;
    struct rb_worker_header hello;
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 0), 0);
    rb_link_greet(&e.worker, "c", 1, "echo");
    e.worker.hello->version = RB_LAYOUT_VERSION + 1;
    e.worker.hello->digest[0] ^= 1;
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
    e.worker.hello->hello = RB_HELLO_REFUSED;
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), -EPROTO);
    CHECK(strstr(why, RB_LAYOUT_DIGEST_HEX) != NULL);
    e.worker.hello->hello = RB_HELLO_READY;
    e.worker.hello->version = RB_LAYOUT_VERSION + (1 << 16);
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), -EPROTO);
    CHECK(strstr(why, "majors") != NULL);
    rb_link_detach(&e.worker);
    rb_link_close(&e.relay);
}

/* --- Operations -------------------------------------------------------------------------------------------------------------- */

static struct rb_worker_op op(uint16_t opcode, uint16_t takes, const char *name) {
    struct rb_worker_op made = {.opcode = opcode, .takes = takes};
    memcpy(made.name, name, strlen(name) + 1);
    return made;
}

static void a_table_of_operations_is_read_as_it_was_declared(void) {
    struct ends e;
    struct rb_worker_header hello;
    struct rb_worker_op ops[RB_OPS_MAX], told[RB_OPS_MAX];
    const char *rule = NULL;
    char name[28];
    memset(ops, 0, sizeof ops);
    for (int i = 0; i < RB_OPS_MAX; i++) {
        snprintf(name, sizeof name, "operation %d", i);
        ops[i] = op((uint16_t)(1000 - i), RB_TAKES_RAW | RB_TAKES_PARTS, name);
    }
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 0), 0);
    CHECK_EQUAL(rb_link_declare(&e.worker, ops, RB_OPS_MAX, &rule), 0);
    rb_link_greet(&e.worker, "c", 1, "echo");
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
    CHECK_EQUAL(rb_link_ops(&e.relay, &hello, told, why, sizeof why), RB_OPS_MAX);
    CHECK_EQUAL(memcmp(ops, told, sizeof ops), 0);
    CHECK(rb_ops_find(told, RB_OPS_MAX, 937) == &told[63]);
    CHECK(rb_ops_find(told, RB_OPS_MAX, 936) == NULL);
    rb_link_detach(&e.worker);
    rb_link_close(&e.relay);
}

static void a_worker_that_declares_nothing_has_none(void) {
    struct ends e;
    struct rb_worker_header hello;
    struct rb_worker_op told[RB_OPS_MAX];
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 0), 0);
    rb_link_greet(&e.worker, "c", 1, "echo");
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
    CHECK_EQUAL(rb_link_ops(&e.relay, &hello, told, why, sizeof why), 0);
    rb_link_detach(&e.worker);
    rb_link_close(&e.relay);
}

/* What a kit would not declare a liar writes into its header page. */
static void a_table_that_breaks_a_rule_is_refused_on_both_sides(void) {
    struct rb_worker_op two[2], full = op(1, 0, ""), tail = op(1, 0, "x");
    memset(full.name, 'x', sizeof full.name);
    tail.name[5] = 'y';
    const struct {
        struct rb_worker_op first, second;
        uint32_t count;
        const char *words;
    } cases[] = {
        {op(1, 0, "a"), op(1, 0, "b"), 2, "opcode is declared twice"},
        {op(1, 0, "a"), op(2, 0, "a"), 2, "name is declared twice"},
        {op(1, 8, "a"), op(2, 0, "b"), 2, "does not know"},
        {op(1, 0, ""), op(2, 0, "b"), 2, "printable"},
        {op(1, 0, "a\n"), op(2, 0, "b"), 2, "printable"},
        {full, op(2, 0, "b"), 2, "printable"},
        {tail, op(2, 0, "b"), 2, "printable"},
        {op(1, 0, "a"), op(2, 0, "b"), RB_OPS_MAX + 1, "more operations"},
        {op(1, 0, "a"), op(2, 0, "b"), UINT32_MAX, "more operations"},
    };
    struct ends e;
    struct rb_worker_header hello;
    struct rb_worker_op told[RB_OPS_MAX];
    const char *rule;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 0), 0);
        two[0] = cases[i].first;
        two[1] = cases[i].second;
        CHECK_EQUAL(rb_link_declare(&e.worker, two, cases[i].count, &rule), -EINVAL);
        CHECK(strstr(rule, cases[i].words) != NULL);
        memcpy(e.worker.worker_side + RB_AT_OPS, two, sizeof two);
        e.worker.hello->ops = cases[i].count;
        rb_link_greet(&e.worker, "c", 1, "echo");
        CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
        CHECK_EQUAL(rb_link_ops(&e.relay, &hello, told, why, sizeof why), -EPROTO);
        CHECK(strstr(why, cases[i].words) != NULL);
        rb_link_detach(&e.worker);
        rb_link_close(&e.relay);
    }
}

static void what_a_later_minor_takes_besides_is_left_out(void) {
    struct ends e;
    struct rb_worker_header hello;
    struct rb_worker_op told[RB_OPS_MAX], one = op(1, 0x8000 | RB_TAKES_TERM, "a");
    CHECK_EQUAL(open_ends(&e, RB_LAYOUT_VERSION, 0, 0), 0);
    memcpy(e.worker.worker_side + RB_AT_OPS, &one, sizeof one);
    e.worker.hello->ops = 1;
    rb_link_greet(&e.worker, "c", 1, "echo");
    e.worker.hello->version++;
    CHECK_EQUAL(rb_link_hello(&e.relay, &hello, why, sizeof why), 1);
    CHECK_EQUAL(rb_link_ops(&e.relay, &hello, told, why, sizeof why), 1);
    CHECK_EQUAL(told[0].takes, RB_TAKES_TERM);
    rb_link_detach(&e.worker);
    rb_link_close(&e.relay);
}

int main(void) {
    RUN(the_newer_side_judges_and_the_older_one_leaves_it_to_the_newer);
    RUN(both_sides_come_to_the_same_end);
    RUN(a_mismatch_names_both_versions_both_digests_and_the_way_out);
    RUN(a_worker_goes_with_a_relay_of_a_later_minor_and_takes_what_it_knows);
    RUN(a_worker_refuses_another_major_another_digest_and_features_that_its_own_has_not);
    RUN(a_relay_goes_with_a_worker_of_a_later_minor_unless_that_refuses);
    RUN(a_table_of_operations_is_read_as_it_was_declared);
    RUN(a_worker_that_declares_nothing_has_none);
    RUN(a_table_that_breaks_a_rule_is_refused_on_both_sides);
    RUN(what_a_later_minor_takes_besides_is_left_out);
    return check_end();
}
