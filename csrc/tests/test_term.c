/* Walking terms: what is whole is passed, what is cut asks for more, what cannot be a term is
 * refused. */
#include "terms.h"

struct golden {
    const char *name;
    const char *bytes;
    size_t size;
};
#define GOLDEN(name, text) {name, text, sizeof(text) - 1}

/* As nodes of OTP 25 to 29 write them, and the old forms that they still take. */
static const struct golden golden[] = {
    GOLDEN("RECORD_EXT", "\x43\0\0\0\1\1\x77\1m\x77\1n\x77\1f\x61\1"),
    GOLDEN("NEW_FLOAT_EXT", "\x46\x3f\xf0\0\0\0\0\0\0"),
    GOLDEN("BIT_BINARY_EXT", "\x4d\0\0\0\2\3\xff\xe0"),
    GOLDEN("NEW_PID_EXT", "\x58\x77\3a@b\0\0\0\1\0\0\0\2\0\0\0\3"),
    GOLDEN("NEW_PORT_EXT", "\x59\x77\3a@b\0\0\0\1\0\0\0\3"),
    GOLDEN("NEWER_REFERENCE_EXT, three words", "\x5a\0\3\x77\3a@b\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3"),
    GOLDEN("NEWER_REFERENCE_EXT, five words",
           "\x5a\0\5\x77\3a@b\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5"),
    GOLDEN("SMALL_INTEGER_EXT", "\x61\xff"),
    GOLDEN("INTEGER_EXT", "\x62\xff\xff\xff\xff"),
    GOLDEN("FLOAT_EXT", "\x63"
                        "1.00000000000000000000e+00\0\0\0\0\0"),
    GOLDEN("ATOM_EXT", "\x64\0\2ok"),
    GOLDEN("REFERENCE_EXT", "\x65\x64\0\3a@b\0\0\0\1\0"),
    GOLDEN("PORT_EXT", "\x66\x64\0\3a@b\0\0\0\1\0"),
    GOLDEN("PID_EXT", "\x67\x64\0\3a@b\0\0\0\1\0\0\0\2\0"),
    GOLDEN("SMALL_TUPLE_EXT", "\x68\2\x61\1\x68\0"),
    GOLDEN("LARGE_TUPLE_EXT", "\x69\0\0\0\1\x6a"),
    GOLDEN("NIL_EXT", "\x6a"),
    GOLDEN("STRING_EXT", "\x6b\0\2hi"),
    GOLDEN("LIST_EXT", "\x6c\0\0\0\1\x61\1\x6a"),
    GOLDEN("LIST_EXT, improper, an alias tag",
           "\x6c\0\0\0\1\x77\5"
           "alias\x5a\0\3\x77\3a@b\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3"),
    GOLDEN("LIST_EXT of no elements: its tail", "\x6c\0\0\0\0\x61\1"),
    GOLDEN("BINARY_EXT", "\x6d\0\0\0\2hi"),
    GOLDEN("SMALL_BIG_EXT", "\x6e\5\0\0\0\0\0\1"),
    GOLDEN("LARGE_BIG_EXT", "\x6f\0\0\0\1\1\7"),
    GOLDEN("NEW_FUN_EXT", "\x70\0\0\0\x3b\1"
                          "0123456789abcdef\0\0\0\1\0\0\0\1\x77\1m\x61\1\x62\0\1\0\0"
                          "\x58\x77\3a@b\0\0\0\1\0\0\0\2\0\0\0\3\x61\1"),
    GOLDEN("EXPORT_EXT", "\x71\x77\1m\x77\1f\x61\2"),
    GOLDEN("NEW_REFERENCE_EXT", "\x72\0\2\x64\0\3a@b\0\0\0\0\1\0\0\0\2"),
    GOLDEN("SMALL_ATOM_EXT", "\x73\2ok"),
    GOLDEN("MAP_EXT", "\x74\0\0\0\2\x61\1\x61\2\x61\3\x68\0"),
    GOLDEN("ATOM_UTF8_EXT", "\x76\0\2ok"),
    GOLDEN("SMALL_ATOM_UTF8_EXT", "\x77\2ok"),
    GOLDEN("V4_PORT_EXT", "\x78\x77\3a@b\0\0\0\0\0\0\0\1\0\0\0\3"),
};
enum { GOLDEN_COUNT = sizeof golden / sizeof *golden };

static void every_tag_is_passed_whole(void) {
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        struct bytes b = exactly(golden[i].bytes, golden[i].size);
        struct rb_cursor c = rb_cursor_of(slice_of(&b));
        struct rb_slice term;
        int rc = rb_term_skip(&c, &term);
        if (rc != 0 || c.at != c.end || term.size != b.size) printf("%s: %d\n", golden[i].name, rc);
        CHECK(rc == 0 && c.at == c.end && term.at == b.at && term.size == b.size);
        bytes_free(&b);
    }
}

static void bytes_behind_a_term_are_left(void) {
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        struct bytes b = exactly(golden[i].bytes, golden[i].size);
        PUT(&b, "\xff\x61");
        struct rb_cursor c = rb_cursor_of(slice_of(&b));
        CHECK_EQUAL(rb_term_skip(&c, NULL), 0);
        CHECK_EQUAL(rb_cursor_left(&c), 2);
        bytes_free(&b);
    }
}

static void every_truncation_asks_for_more_and_does_not_move(void) {
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        for (size_t n = 0; n < golden[i].size; n++) {
            struct bytes b = exactly(golden[i].bytes, n);
            struct rb_cursor c = rb_cursor_of(slice_of(&b));
            struct rb_slice term = {NULL, 99};
            CHECK_EQUAL(rb_term_skip(&c, &term), -EAGAIN);
            CHECK(c.at == b.at && term.at == NULL && term.size == 99);
            bytes_free(&b);
        }
    }
}

static void stepping_counts_the_terms_inside(void) {
    struct bytes b = {0};
    put_map(&b, 2);
    put_fun(&b, 5, 0);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    uint64_t inside = 0;
    CHECK_EQUAL(rb_term_step(&c, &inside), 0);
    CHECK_EQUAL(inside, 4);
    CHECK_EQUAL(rb_term_step(&c, &inside), 0);
    CHECK_EQUAL(inside, 9);
    bytes_free(&b);
}

static void unknown_tags_are_refused(void) {
    static const uint8_t known[] = {67,  70,  77,  88,  89,  90,  97,  98,  99,  100,
                                    101, 102, 103, 104, 105, 106, 107, 108, 109, 110,
                                    111, 112, 113, 114, 115, 116, 118, 119, 120};
    for (int tag = 0; tag < 256; tag++) {
        uint8_t bytes[64] = {(uint8_t)tag};
        struct rb_cursor c = {bytes, bytes + sizeof bytes};
        if (memchr(known, tag, sizeof known)) continue;
        CHECK_EQUAL(rb_term_skip(&c, NULL), -EPROTO);
        CHECK(c.at == bytes);
    }
}

static void a_node_that_is_no_atom_and_a_sixth_word_are_refused(void) {
    static const struct golden bad[] = {
        GOLDEN("pid", "\x58\x6d\0\0\0\3a@b\0\0\0\1\0\0\0\2\0\0\0\3"),
        GOLDEN("six words", "\x5a\0\6\x77\3a@b\0\0\0\3"),
        GOLDEN("atom of 1021 bytes", "\x58\x76\3\xfd"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rb_cursor c =
            rb_cursor_of((struct rb_slice){(const uint8_t *)bad[i].bytes, bad[i].size});
        CHECK_EQUAL(rb_term_skip(&c, NULL), -EPROTO);
    }
}

/* 64 claims of 2^32 - 1 terms each, then nothing: more could still make it whole. */
static void claims_beyond_all_bytes_only_ask_for_more(void) {
    struct bytes b = {0};
    for (int i = 0; i < 64; i++) {
        put_map(&b, UINT32_MAX);
        put_list(&b, UINT32_MAX);
    }
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    CHECK_EQUAL(rb_term_skip(&c, NULL), -EAGAIN);
    bytes_free(&b);
}

static void a_million_nested_lists_cost_no_stack(void) {
    struct bytes b = {0};
    for (int i = 0; i < 1000000; i++) put_list(&b, 1);
    put_fill(&b, RB_TAG_NIL, 1000001);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    CHECK_EQUAL(rb_term_skip(&c, NULL), 0);
    CHECK_EQUAL(rb_cursor_left(&c), 0);
    bytes_free(&b);
}

static struct rb_cursor cursor_of(const char *bytes, size_t size) {
    return rb_cursor_of((struct rb_slice){(const uint8_t *)bytes, size});
}
#define CURSOR(text) cursor_of(text, sizeof(text) - 1)

static void unsigned_integers_of_every_form(void) {
    static const struct {
        struct golden term;
        int rc;
        uint64_t value;
    } cases[] = {
        {GOLDEN("", "\x61\xff"), 0, 255},
        {GOLDEN("", "\x62\x7f\xff\xff\xff"), 0, INT32_MAX},
        {GOLDEN("", "\x62\xff\xff\xff\xff"), -ERANGE, 0},
        {GOLDEN("", "\x6e\0\0"), 0, 0},
        {GOLDEN("", "\x6e\10\0\xff\xff\xff\xff\xff\xff\xff\x7f"), 0, INT64_MAX},
        {GOLDEN("", "\x6e\10\0\0\0\0\0\0\0\0\x80"), -ERANGE, 0},
        {GOLDEN("", "\x6e\13\0\1\0\0\0\0\0\0\0\0\0\0"), 0,
         1}, /* leading zeros are taken by a BEAM */
        {GOLDEN("", "\x6e\11\0\0\0\0\0\0\0\0\0\1"), -ERANGE, 0},
        {GOLDEN("", "\x6e\1\1\5"), -ERANGE, 0},
        {GOLDEN("", "\x6f\0\0\1\0\0"), -ERANGE, 0},
        {GOLDEN("", "\x77\2ok"), -EPROTO, 0},
        {GOLDEN("", "\x62\0\0"), -EAGAIN, 0},
        {GOLDEN("", ""), -EAGAIN, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 77;
        struct bytes b = exactly(cases[i].term.bytes, cases[i].term.size);
        struct rb_cursor c = rb_cursor_of(slice_of(&b));
        CHECK_EQUAL(rb_term_unsigned(&c, &value), cases[i].rc);
        CHECK_EQUAL(value, cases[i].rc ? 77 : cases[i].value);
        CHECK(c.at == (cases[i].rc ? b.at : c.end));
        bytes_free(&b);
    }
}

static void atoms_of_the_four_tags_are_text(void) {
    static const struct golden forms[] = {GOLDEN("", "\x64\0\2ok"), GOLDEN("", "\x73\2ok"),
                                          GOLDEN("", "\x76\0\2ok"), GOLDEN("", "\x77\2ok")};
    for (size_t i = 0; i < 4; i++) {
        struct rb_cursor c = cursor_of(forms[i].bytes, forms[i].size);
        struct rb_slice text;
        CHECK_EQUAL(rb_term_atom(&c, &text), 0);
        CHECK(rb_slice_is(text, "ok") && rb_cursor_left(&c) == 0);
    }
}

static void text_is_an_atom_or_a_binary(void) {
    struct rb_slice text;
    struct rb_cursor binary = CURSOR("\x6d\0\0\0\4role"), atom = CURSOR("\x77\4role"),
                     other = CURSOR("\x61\1");
    CHECK_EQUAL(rb_term_text(&binary, &text), 0);
    CHECK(rb_slice_is(text, "role"));
    CHECK_EQUAL(rb_term_text(&atom, &text), 0);
    CHECK(rb_slice_is(text, "role"));
    CHECK_EQUAL(rb_term_text(&other, &text), -EPROTO);
    struct rb_cursor cut = CURSOR("\x6d\0\0\0\5role");
    CHECK_EQUAL(rb_term_text(&cut, &text), -EAGAIN);
    CHECK_EQUAL(rb_cursor_left(&cut), 9);
}

static void heads_of_containers(void) {
    int tail = 7;
    struct rb_cursor tuple = CURSOR("\x68\2"), large = CURSOR("\x69\0\1\0\0"),
                     list = CURSOR("\x6c\0\0\0\3"), nil = CURSOR("\x6a"),
                     map = CURSOR("\x74\0\0\0\4"), head = CURSOR("\x6d\0\1\0\0x");
    CHECK_EQUAL(rb_term_tuple(&tuple), 2);
    CHECK_EQUAL(rb_term_tuple(&large), 65536);
    CHECK_EQUAL(rb_term_list(&list, &tail), 3);
    CHECK_EQUAL(tail, 1);
    CHECK_EQUAL(rb_term_tuple(&nil), -EPROTO);
    CHECK_EQUAL(rb_term_map(&nil), -EPROTO);
    CHECK_EQUAL(rb_term_list(&nil, &tail), 0);
    CHECK_EQUAL(tail, 0);
    CHECK_EQUAL(rb_term_map(&map), 4);
    uint32_t size = 0;
    CHECK_EQUAL(rb_term_binary_head(&head, &size), 0);
    CHECK(size == 65536 && rb_cursor_left(&head) == 1);
}

/* ASan and UBSan are the judges; and whatever happens, a cursor stays inside its bytes. */
static void a_hundred_thousand_mutations_stay_inside_their_bytes(void) {
    uint64_t seed = 20261120;
    int whole = 0;
    for (int i = 0; i < 100000; i++) {
        struct bytes drawn = {0};
        put_random(&drawn, &seed, 3);
        struct rb_cursor c = rb_cursor_of(slice_of(&drawn));
        CHECK(rb_term_skip(&c, NULL) == 0 && c.at == c.end);
        mutate(&drawn, &seed);
        struct bytes b = exactly(drawn.at, drawn.size);
        bytes_free(&drawn);
        c = rb_cursor_of(slice_of(&b));
        int rc = rb_term_skip(&c, NULL);
        CHECK(rc == 0 || rc == -EAGAIN || rc == -EPROTO);
        CHECK(c.at >= b.at && c.at <= b.at + b.size && (rc == 0 || c.at == b.at));
        whole += rc == 0;
        bytes_free(&b);
    }
    CHECK(whole > 1000 && whole < 99000);
}

/* Terms of the usual shape are passed without looking further; steps know no such shortcut. */
static int skip_by_steps(struct rb_cursor *c) {
    struct rb_cursor at = *c;
    for (uint64_t pending = 1, inside; pending > 0; pending += inside - 1) {
        int rc = rb_term_step(&at, &inside);
        if (rc < 0) return rc;
    }
    *c = at;
    return 0;
}

static void what_is_skipped_is_what_steps_pass(void) {
    uint64_t seed = 20261121;
    int broken = 0;
    for (int i = 0; i < 100000; i++) {
        struct bytes drawn = {0};
        put_random(&drawn, &seed, 2);
        if (i % 4) mutate(&drawn, &seed);
        struct bytes b = exactly(drawn.at, i % 2 ? drawn.size : drawn.size * (i % 7) / 7);
        bytes_free(&drawn);
        struct rb_cursor skipped = rb_cursor_of(slice_of(&b)), stepped = skipped;
        int rc = skip_by_steps(&stepped);
        CHECK_EQUAL(rb_term_skip(&skipped, NULL), rc);
        CHECK(skipped.at == stepped.at);
        broken += rc < 0;
        bytes_free(&b);
    }
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        for (size_t n = 0; n <= golden[i].size; n++) {
            struct bytes b = exactly(golden[i].bytes, n);
            struct rb_cursor skipped = rb_cursor_of(slice_of(&b)), stepped = skipped;
            int rc = skip_by_steps(&stepped);
            CHECK_EQUAL(rb_term_skip(&skipped, NULL), rc);
            CHECK(skipped.at == stepped.at);
            bytes_free(&b);
        }
    }
    CHECK(broken > 1000 && broken < 99000);
}

int main(void) {
    RUN(every_tag_is_passed_whole);
    RUN(bytes_behind_a_term_are_left);
    RUN(every_truncation_asks_for_more_and_does_not_move);
    RUN(stepping_counts_the_terms_inside);
    RUN(unknown_tags_are_refused);
    RUN(a_node_that_is_no_atom_and_a_sixth_word_are_refused);
    RUN(claims_beyond_all_bytes_only_ask_for_more);
    RUN(a_million_nested_lists_cost_no_stack);
    RUN(unsigned_integers_of_every_form);
    RUN(atoms_of_the_four_tags_are_text);
    RUN(text_is_an_atom_or_a_binary);
    RUN(heads_of_containers);
    RUN(a_hundred_thousand_mutations_stay_inside_their_bytes);
    RUN(what_is_skipped_is_what_steps_pass);
    return check_end();
}
