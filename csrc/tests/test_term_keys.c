/* Keys of maps in an answer: two equal ones close the connection, whatever they are written like.
 */
#include "term_verdict.h"

static void a_key_twice_is_refused(void) {
    REFUSED("term_map_key", KEYS("\x61\1", "\x61\1"));
    REFUSED("term_map_key", KEYS("\x77\2ok", "\x77\2ok"));
    REFUSED("term_map_key", KEYS("\x68\2\x61\1\x6a", "\x68\2\x61\1\x6a"));
    REFUSED("term_map_key", "\x68\1" KEYS("\x61\1", "\x61\1"));
    ACCEPTED(KEYS("\x61\1", "\x46\x3f\xf0\0\0\0\0\0\0")); /* 1 and 1.0 are two keys */
    ACCEPTED("\x74\0\0\0\2\x61\1\x61\7\x61\2\x61\7");     /* values may be equal */
    /* In one map only: an inner map has keys of its own. */
    ACCEPTED(KEYS("\x61\1", "\x61\2") "");
    ACCEPTED("\x74\0\0\0\2\x61\1" KEYS("\x61\1", "\x61\2") "\x61\2" KEYS("\x61\1", "\x61\2"));
    REFUSED("term_map_key",
            "\x74\0\0\0\2\x61\1" KEYS("\x61\1", "\x61\2") "\x61\1" KEYS("\x61\1", "\x61\2"));
    REFUSED("term_map_key",
            "\x74\0\0\0\2\x61\1" KEYS("\x61\1", "\x61\2") "\x61\2" KEYS("\x61\2", "\x61\2"));
}

static void a_key_has_the_one_form_that_a_beam_writes(void) {
    static const struct rb_slice right[] = {
        TEXT("\x61\xff"),
        TEXT("\x62\0\0\1\0"),
        TEXT("\x62\xff\xff\xff\xff"),
        TEXT("\x62\x80\0\0\0"),
        TEXT("\x6e\4\0\0\0\0\x80"), /* 2^31 */
        TEXT("\x6e\4\1\1\0\0\x80"), /* -2^31 - 1 */
        TEXT("\x77\2ok"),
        TEXT("\x64\0\2ok"),
        TEXT("\x73\2ok"),
        TEXT("\x6b\0\2hi"),
        TEXT("\x6c\0\0\0\2\x61\1\x62\0\0\1\0\x6a"),
        TEXT("\x6c\0\0\0\1\x61\1\x61\2"),
        TEXT("\x6a"),
        TEXT("\x68\1\x61\1"),
        TEXT("\x6d\0\0\0\1x"),
        TEXT("\x4d\0\0\0\1\1\x80"),
        TEXT("\x74\0\0\0\0"),
        TEXT(KEY("\x61\1")),
        TEXT("\x46\0\0\0\0\0\0\0\0"),
    };
    static const struct rb_slice wrong[] = {
        TEXT("\x62\0\0\0\1"),
        TEXT("\x62\0\0\0\xff"),
        TEXT("\x6e\0\0"),
        TEXT("\x6e\1\0\1"),
        TEXT("\x6e\4\0\xff\xff\xff\x7f"),
        TEXT("\x6e\4\1\0\0\0\x80"),
        TEXT("\x6e\5\0\0\0\0\0\0"),
        TEXT("\x6e\5\2\0\0\0\0\1"),
        TEXT("\x6f\0\0\0\5\0\0\0\0\0\1"),
        TEXT("\x76\0\2ok"),
        TEXT("\x6b\0\0"),
        TEXT("\x6c\0\0\0\2\x61\1\x61\2\x6a"),
        TEXT("\x6c\0\0\0\0\x6a"),
        TEXT("\x6c\0\0\0\0\x61\1"),
        TEXT("\x6c\0\0\0\1\x77\2ok\x6b\0\1x"),
        TEXT("\x6c\0\0\0\1\x77\2ok\x6c\0\0\0\1\x77\2ok\x6a"),
        TEXT("\x69\0\0\0\1\x61\1"),
        TEXT("\x4d\0\0\0\1\1\xc0"),
        TEXT("\x74\0\0\0\2\x61\1\x6a\x61\2\x6a"), /* two orders, one map */
        TEXT("\x46\x80\0\0\0\0\0\0\0"),           /* one key until OTP 26, two from 27 */
    };
    struct bytes b = {0};
    for (size_t i = 0; i < sizeof right / sizeof *right + sizeof wrong / sizeof *wrong; i++) {
        int is_right = i < sizeof right / sizeof *right;
        struct rb_slice key = is_right ? right[i] : wrong[i - sizeof right / sizeof *right];
        /* by itself, deep in a key, and as a value: there all forms are right */
        put_map(&b, 1);
        put(&b, key.at, key.size);
        put_nil(&b);
        CHECK(expect(slice_of(&b), NOTHING, is_right ? NULL : "term_map_key") ||
              !printf("%zu\n", i));
        bytes_free(&b);
        put_map(&b, 1);
        put_tuple(&b, 2);
        put_map(&b, 1);
        put_nil(&b);
        put(&b, key.at, key.size);
        put_nil(&b);
        put_nil(&b);
        CHECK(expect(slice_of(&b), NOTHING, is_right ? NULL : "term_map_key") ||
              !printf("%zu\n", i));
        bytes_free(&b);
        put_map(&b, 1);
        put_nil(&b);
        put(&b, key.at, key.size);
        CHECK(expect(slice_of(&b), NOTHING, NULL));
        bytes_free(&b);
    }
}

static void one_atom_form_and_one_port_form_in_all_keys(void) {
    REFUSED("term_map_key", KEYS("\x77\2ok", "\x64\0\2ok"));
    REFUSED("term_map_key", KEYS("\x77\2ok", "\x73\5"
                                             "error"));
    REFUSED("term_map_key", KEYS("\x64\0\2ok", "\x73\5"
                                               "error"));
    ACCEPTED(KEYS("\x64\0\2ok", "\x64\0\5"
                                "error"));
    /* What Latin-1 has no letters for is UTF-8 beside it. */
    ACCEPTED_BY("\x77\3\xe2\x82\xac", KEYS("\x64\0\2ok", "\x77\3\xe2\x82\xac"));
    ACCEPTED_BY(
        "\x68\2\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3\x78" NODE "\0\0\0\0\0\0\0\2\0\0\0\3",
        KEYS("\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3", "\x78" NODE "\0\0\0\0\0\0\0\2\0\0\0\3"));
    REFUSED_BY("\x68\2\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3\x59" NODE "\0\0\0\1\0\0\0\3",
               "term_map_key",
               KEYS("\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3", "\x59" NODE "\0\0\0\1\0\0\0\3"));
}

static void identities_in_keys_that_could_be_equal_are_refused(void) {
    struct bytes b = {0}, fun = {0};
    /* Trailing zero words do not count when references are compared. */
    static const struct rb_slice wrong[] = {
        TEXT("\x5a\0\5" NODE "\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\0\0\0\0\0"),
        TEXT("\x5a\0\2" NODE "\0\0\0\3\0\0\0\1\0\0\0\2"),
        TEXT("\x5a\0\4" NODE "\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4"),
        TEXT("\x67" NODE "\0\0\0\1\0\0\0\2\3"),
        TEXT("\x66" NODE "\0\0\0\1\3"),
        TEXT("\x72\0\1" NODE "\3\0\0\0\1"),
        TEXT("\x59" NODE "\x10\0\0\0\0\0\0\3"),
        TEXT("\x58\x76\0\3a@b\0\0\0\1\0\0\0\2\0\0\0\3"),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_map(&b, 1);
        put(&b, wrong[i].at, wrong[i].size);
        put_nil(&b);
        CHECK(expect(slice_of(&b), wrong[i], "term_map_key"));
        bytes_free(&b);
    }
    /* Funs are equal by module, uniq and environment, whatever pid made them. */
    put_fun(&fun, 0, 0);
    put_map(&b, 1);
    put(&b, fun.at, fun.size);
    put_nil(&b);
    CHECK(expect(slice_of(&b), slice_of(&fun), "term_map_key"));
    bytes_free(&b);
    bytes_free(&fun);
}

static void maps_of_any_size_are_searched(void) {
    static const uint32_t sizes[] = {2, 15, 16, 17, 18, 31, 32, 33, 64, 65, 1000, 20000};
    struct rb_term_rules wide = rules;
    struct rb_atom_budget budget = {0};
    uint64_t seed = 4711;
    wide.terms_max = 1000000;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct bytes b = {0};
        uint32_t n = sizes[s];
        put_tuple(&b, 2); /* so that key offsets of an inner map come after those of an outer one */
        put_nil(&b);
        put_map(&b, n);
        size_t *at = malloc(n * sizeof *at);
        for (uint32_t i = 0; i < n; i++) {
            at[i] = b.size;
            put_u8(&b, RB_TAG_INTEGER);
            put_u32(&b, 1000 + i * 7919);
            put_map(&b, 2);
            put_integer(&b, 1);
            put_nil(&b);
            put_integer(&b, 2);
            put_nil(&b);
        }
        CHECK(verdict_of(slice_of(&b), NOTHING, &wide, &budget) == NULL);
        for (int round = 0; round < 20; round++) {
            uint32_t one = (uint32_t)(check_random(&seed) % n),
                     two = (uint32_t)(check_random(&seed) % (n - 1));
            uint8_t kept[5];
            if (two >= one) two++;
            memcpy(kept, b.at + at[two], 5);
            memcpy(b.at + at[two], b.at + at[one], 5);
            const char *got = verdict_of(slice_of(&b), NOTHING, &wide, &budget);
            CHECK(got && strcmp(got, "term_map_key") == 0);
            memcpy(b.at + at[two], kept, 5);
        }
        free(at);
        bytes_free(&b);
    }
}

int main(void) {
    RUN(a_key_twice_is_refused);
    RUN(a_key_has_the_one_form_that_a_beam_writes);
    RUN(one_atom_form_and_one_port_form_in_all_keys);
    RUN(identities_in_keys_that_could_be_equal_are_refused);
    RUN(maps_of_any_size_are_searched);
    return check_end();
}
