/* What a worker may answer: rule by rule, then at random. (Map keys: test_term_keys.c.) */
#include "term_verdict.h"

static void plain_terms_are_accepted(void) {
    ACCEPTED("\x61\1");
    ACCEPTED("\x62\xff\xff\xff\xff");
    ACCEPTED("\x46\x3f\xf0\0\0\0\0\0\0");
    ACCEPTED("\x46\x80\0\0\0\0\0\0\0"); /* -0.0 */
    ACCEPTED("\x6a");
    ACCEPTED("\x6b\0\2hi");
    ACCEPTED("\x6d\0\0\0\2hi");
    ACCEPTED("\x6d\0\0\0\0");
    ACCEPTED("\x4d\0\0\0\1\1\x80");
    ACCEPTED("\x68\2\x77\2ok\x6d\0\0\0\2hi");
    ACCEPTED("\x68\0");
    ACCEPTED("\x69\0\0\0\1\x6a");
    ACCEPTED("\x6c\0\0\0\2\x61\1\x61\2\x6a");
    ACCEPTED("\x6c\0\0\0\1\x61\1\x61\2");
    ACCEPTED("\x6c\0\0\0\0\x61\2");
    ACCEPTED("\x74\0\0\0\0");
    ACCEPTED(KEYS("\x61\1", "\x61\2"));
    ACCEPTED("\x6e\0\0");
    ACCEPTED("\x6f\0\0\0\1\1\7");
}

static void a_term_cut_anywhere_is_term_cut_short(void) {
    static const struct rb_slice whole[] = {
        TEXT("\x68\2\x77\2ok\x6d\0\0\0\2hi"),
        TEXT("\x6c\0\0\0\2\x61\1\x62\0\0\1\0\x6a"),
        TEXT(KEYS("\x46\x3f\xf0\0\0\0\0\0\0", "\x6e\5\0\0\0\0\0\1")),
        TEXT("\x68\4\x58" PID "\x5a\0\3" NODE "\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3"
             "\x71\x77\1m\x77\1f\x61\2\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3"),
        TEXT("\x6f\0\0\0\1\1\7"),
        TEXT("\x4d\0\0\0\2\1\x80\x80"),
        TEXT("\x6b\0\2hi"),
        TEXT("\x76\0\2ok"),
        TEXT("\x64\0\2ok"),
        TEXT("\x69\0\0\0\1\x6a"),
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        CHECK(expect(whole[i], whole[i], NULL));
        for (size_t n = 0; n < whole[i].size; n++)
            CHECK(expect((struct rb_slice){whole[i].at, n}, whole[i], "term_cut_short"));
    }
}

static void counts_are_held_against_the_bytes_left(void) {
    REFUSED("term_cut_short", "\x69\0\xff\xff\xff\x6a");
    REFUSED("term_cut_short", "\x6c\xff\xff\xff\xff\x6a\x6a");
    REFUSED("term_cut_short", "\x74\xff\xff\xff\xff\x6a\x6a");
    REFUSED("term_cut_short", "\x74\x80\0\0\0\x6a\x6a");
    REFUSED("term_cut_short", "\x6d\xff\xff\xff\xffx");
    REFUSED("term_cut_short", "\x4d\xff\xff\xff\xff\1x");
    REFUSED("term_tuple", "\x69\1\0\0\0\x6a");
}

static void bytes_behind_the_term_are_refused(void) {
    REFUSED("term_trailing_bytes", "\x61\1\0");
    REFUSED("term_trailing_bytes", "\x68\0\x68\0");
    REFUSED("term_trailing_bytes", "\x68\1\x6a\x6a");
}

static void tags_that_no_peer_may_see_are_refused(void) {
    static const uint8_t taken[] = {70,  77,  88,  89,  90,  97,  98,  100, 101,
                                    102, 103, 104, 105, 106, 107, 108, 109, 110,
                                    111, 112, 113, 114, 115, 116, 118, 119, 120};
    for (int tag = 0; tag < 256; tag++) {
        uint8_t bytes[40] = {(uint8_t)tag};
        if (memchr(taken, tag, sizeof taken)) continue;
        CHECK(expect((struct rb_slice){bytes, sizeof bytes}, NOTHING, "term_tag"));
    }
    REFUSED("term_tag", "\x68\1\x83\x61\1"); /* a second version byte */
    REFUSED("term_tag", "\x43\0\0\0\0\0\x77\2ok\x77\2ok");
    REFUSED("term_tag", "\x58\x61\1\0\0\0\1\0\0\0\2\0\0\0\3"); /* a node that is no atom */
}

static void depth_is_bounded(void) {
    struct bytes b = {0};
    for (uint32_t i = 0; i < rules.depth_max; i++) put_tuple(&b, 1);
    put_nil(&b);
    CHECK(expect(slice_of(&b), NOTHING, NULL));
    bytes_free(&b);
    for (uint32_t i = 0; i <= rules.depth_max; i++) put_list(&b, 1);
    put_fill(&b, RB_TAG_NIL, rules.depth_max + 2);
    CHECK(expect(slice_of(&b), NOTHING, "term_depth"));
    bytes_free(&b);
    /* A limit above what the walk has room for is that room. */
    struct rb_term_rules deep = rules;
    struct rb_atom_budget budget = {0};
    deep.depth_max = UINT32_MAX;
    for (int i = 0; i < 1000; i++) put_tuple(&b, 1);
    put_nil(&b);
    CHECK(verdict_of(slice_of(&b), NOTHING, &deep, &budget) == NULL);
    bytes_free(&b);
    for (int i = 0; i < 1001; i++) put_tuple(&b, 1);
    put_nil(&b);
    CHECK(verdict_of(slice_of(&b), NOTHING, &deep, &budget) != NULL);
    bytes_free(&b);
}

static void terms_are_counted_each_byte_of_a_string_too(void) {
    struct rb_term_rules few = rules;
    struct rb_atom_budget budget = {0};
    few.terms_max = 4;
    CHECK(verdict_of(TEXT("\x68\3\x6a\x6a\x6a"), NOTHING, &few, &budget) == NULL);
    CHECK(strcmp(verdict_of(TEXT("\x68\4\x6a\x6a\x6a\x6a"), NOTHING, &few, &budget),
                 "term_count") == 0);
    CHECK(verdict_of(TEXT("\x6b\0\3abc"), NOTHING, &few, &budget) == NULL);
    CHECK(strcmp(verdict_of(TEXT("\x6b\0\4abcd"), NOTHING, &few, &budget), "term_count") == 0);
}

static void numbers_that_a_beam_has_not_are_refused(void) {
    REFUSED("term_float", "\x46\x7f\xf0\0\0\0\0\0\0");
    REFUSED("term_float", "\x46\xff\xf0\0\0\0\0\0\0");
    REFUSED("term_float", "\x46\x7f\xf8\0\0\0\0\0\1");
    struct bytes b = {0};
    put_u8(&b, RB_TAG_LARGE_BIG);
    put_u32(&b, 524280);
    put_u8(&b, 0);
    put_fill(&b, 1, 524280);
    CHECK(expect(slice_of(&b), NOTHING, NULL));
    bytes_free(&b);
    put_u8(&b, RB_TAG_LARGE_BIG);
    put_u32(&b, 524281);
    put_u8(&b, 0);
    put_fill(&b, 1, 524281);
    CHECK(expect(slice_of(&b), NOTHING, "term_bignum"));
    bytes_free(&b);
}

static void a_bitstring_has_1_to_7_bits_in_its_last_byte(void) {
    REFUSED("term_bits", "\x4d\0\0\0\0\0");
    REFUSED("term_bits", "\x4d\0\0\0\0\1");
    REFUSED("term_bits", "\x4d\0\0\0\1\0x");
    REFUSED("term_bits", "\x4d\0\0\0\1\10x");
    REFUSED("term_bits", "\x4d\0\0\0\1\xffx");
    ACCEPTED("\x4d\0\0\0\1\7\xff");
}

/* --- Atoms ------------------------------------------------------------------------------------ */

static void atom_of(struct bytes *b, unsigned tag, const char *character, size_t count) {
    size_t size = strlen(character);
    put_u8(b, tag);
    put_u16(b, (unsigned)(size * count));
    for (size_t i = 0; i < count; i++) put(b, character, size);
}

static void an_atom_has_at_most_255_characters_of_strict_utf8(void) {
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xff",
                                      "\xf5\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xe2\x82",
                                      "\xf0\x9f\x98",
                                      "\xe2(\x82"};
    static const char *const good[] = {"a",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    struct bytes b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        atom_of(&b, RB_TAG_ATOM_UTF8, bad[i], 1);
        CHECK(expect(slice_of(&b), slice_of(&b), "term_atom_text"));
        bytes_free(&b);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        atom_of(&b, RB_TAG_ATOM_UTF8, good[i], 255);
        CHECK(expect(slice_of(&b), slice_of(&b), NULL));
        bytes_free(&b);
        atom_of(&b, RB_TAG_ATOM_UTF8, good[i], 256);
        CHECK(expect(slice_of(&b), slice_of(&b), "term_atom_text"));
        bytes_free(&b);
    }
    atom_of(&b, RB_TAG_ATOM, "\xe9", 255);
    CHECK(expect(slice_of(&b), slice_of(&b), NULL));
    bytes_free(&b);
    atom_of(&b, RB_TAG_ATOM, "\xe9", 256);
    CHECK(expect(slice_of(&b), slice_of(&b), "term_atom_text"));
    bytes_free(&b);
    REFUSED("term_atom_text", "\x76\3\xfd");
}

static void atoms_come_from_the_request_the_role_or_every_beam(void) {
    ACCEPTED("\x77\2ok");
    ACCEPTED("\x64\0\5"
             "false");
    ACCEPTED("\x73\11undefined");
    ACCEPTED("\x77\10"
             "declared");
    REFUSED("term_atom_new", "\x77\3new");
    REFUSED("term_atom_new", "\x77\0");
    REFUSED("term_atom_new", "\x77\7"
                             "declare");
    ACCEPTED_BY("\x68\2\x61\1\x77\3new", "\x77\3new");
    ACCEPTED_BY("\x77\3new", "\x64\0\3new");
    ACCEPTED_BY("\x64\0\3new", "\x77\3new");
    ACCEPTED_BY("\x58" PID, "\x77\3a@b");
    ACCEPTED_BY("\x71\x77\1m\x77\1f\x61\2", "\x77\1f");
    /* What only looks like an atom, inside a binary, is none. */
    REFUSED_BY("\x6d\0\0\0\5\x77\3new", "term_atom_new", "\x77\3new");
}

static void latin_1_atoms_are_compared_by_their_text(void) {
    ACCEPTED("\x64\0\1\xe9");
    ACCEPTED_BY("\x77\4\xc3\xbc\xc3\xbc", "\x73\2\xfc\xfc");
    ACCEPTED_BY("\x64\0\2\xfc\xfc", "\x77\4\xc3\xbc\xc3\xbc");
    REFUSED_BY("\x77\2\xfc\xfc", "term_atom_new", "\x73\2\xfc\xfc"); /* no UTF-8 in the request */
    REFUSED_BY("\x77\2\xc3\xbc", "term_atom_new", "\x64\0\2\xc3\xbc");
}

static void a_budget_pays_once_for_each_new_atom_and_lasts_for_a_life(void) {
    struct rb_atom_budget budget = {.left = 2};
#define WITH_BUDGET(text) verdict_of(TEXT(text), NOTHING, &rules, &budget)
    CHECK(WITH_BUDGET("\x68\3\x77\1"
                      "a\x77\1"
                      "a\x77\2ok") == NULL);
    CHECK_EQUAL(budget.left, 1);
    CHECK(WITH_BUDGET("\x64\0\2\xfc\xfc") == NULL);
    CHECK_EQUAL(budget.left, 0);
    CHECK(WITH_BUDGET("\x68\2\x77\1"
                      "a\x77\4\xc3\xbc\xc3\xbc") == NULL);
    CHECK(strcmp(WITH_BUDGET("\x77\1"
                             "b"),
                 "term_atom_new") == 0);
    rb_atom_budget_fini(&budget);
    CHECK(budget.known == NULL && budget.known_bytes == 0);
}

/* --- Identities ------------------------------------------------------------------------------- */

static void identities_must_be_those_of_the_request(void) {
    static const struct rb_slice identities[] = {
        TEXT("\x58" PID),
        TEXT("\x59" NODE "\0\0\0\1\0\0\0\3"),
        TEXT("\x78" NODE "\0\0\0\0\0\0\0\1\0\0\0\3"),
        TEXT("\x5a\0\3" NODE "\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3"),
        TEXT("\x5a\0\5" NODE "\0\0\0\3\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5"),
        TEXT("\x71\x77\1m\x77\1f\x61\2"),
        TEXT("\x67\x64\0\3a@b\0\0\0\1\0\0\0\2\3"),
        TEXT("\x66\x64\0\3a@b\0\0\0\1\3"),
        TEXT("\x65\x64\0\3a@b\0\0\0\1\3"),
        TEXT("\x72\0\2\x64\0\3a@b\3\0\0\0\1\0\0\0\2"),
        TEXT("\x70\0\0\0\x3b\1"
             "0123456789abcdef\0\0\0\1\0\0\0\1\x77\1m\x61\1\x62\0\1\0\0\x58" PID "\x61\1"),
    };
    for (size_t i = 0; i < sizeof identities / sizeof *identities; i++) {
        struct rb_slice id = identities[i];
        struct bytes request = {0}, answer = {0};
        put_tuple(&request, 3);
        put_integer(&request, 1);
        put(&request, id.at, id.size);
        put_atom(&request, "m");
        put_list(&answer, 2);
        put(&answer, id.at, id.size);
        put(&answer, id.at, id.size);
        put_nil(&answer);
        CHECK(expect(id, slice_of(&request), NULL));
        CHECK(expect(slice_of(&answer), slice_of(&request), NULL));
        CHECK(expect(id, NOTHING, "term_identity"));
        /* A last number that differs: another identity. (Of an export: its arity; of a fun: its
         * variable.) */
        request.at[2 + 2 + id.size - 1] ^= 1;
        CHECK(expect(id, slice_of(&request), "term_identity"));
        /* The same bytes inside a binary are no identity. */
        bytes_free(&request);
        put_binary(&request, id.at, (uint32_t)id.size);
        CHECK(expect(id, slice_of(&request), "term_identity"));
        bytes_free(&request);
        bytes_free(&answer);
    }
}

static void malformed_identities_are_refused_even_when_the_request_had_them(void) {
#define BAD(text) REFUSED_BY(text, "term_identity", text)
    BAD("\x5a\0\0" NODE "\0\0\0\3");
    BAD("\x67\x64\0\3a@b\0\0\0\1\0\0\0\2\4");
    BAD("\x66\x64\0\3a@b\0\0\0\1\4");
    BAD("\x65\x64\0\3a@b\0\0\0\1\4");
    BAD("\x72\0\1\x64\0\3a@b\4\0\0\0\1");
    BAD("\x71\x77\1m\x77\1f\x62\0\0\0\2");
    REFUSED("term_identity", "\x5a\0\6" NODE "\0\0\0\3");
    /* A fun whose fixed children are not of their kind. */
    BAD("\x70\0\0\0\x38\1"
        "0123456789abcdef\0\0\0\1\0\0\0\0\x61\1\x61\1\x62\0\1\0\0\x58" PID);
    BAD("\x70\0\0\0\x26\1"
        "0123456789abcdef\0\0\0\1\0\0\0\0\x77\1m\x61\1\x61\1\x61\1");
}

static void a_fun_is_walked_and_its_names_are_the_requests(void) {
    struct bytes fun = {0}, inside = {0};
    put_map(&inside, 2);
    put_atom(&inside, "own");
    put_pid(&inside, "x@y", 1);
    put_atom(&inside, "other");
    put_float(&inside, 1.5);
    put_fun(&fun, 1, (uint32_t)inside.size);
    put(&fun, inside.at, inside.size);
    CHECK(expect(slice_of(&fun), slice_of(&fun), NULL));
    /* Atoms and pids inside it may be used by themselves... */
    ACCEPTED_BY("\x6a", "\x6a");
    CHECK(expect(TEXT("\x77\3own"), slice_of(&fun), NULL));
    CHECK(expect(inside.size ? slice_of(&inside) : NOTHING, slice_of(&fun), NULL));
    /* ... and what the peer would not take is refused, wherever it stands. */
    fun.at[fun.size - 8] = 0x7f;
    fun.at[fun.size - 7] = 0xf0;
    CHECK(expect(slice_of(&fun), slice_of(&fun), "term_float"));
    /* More free variables, or bytes, than there are. */
    struct bytes claims = exactly(fun.at, fun.size);
    claims.at[1] = 1;
    CHECK(expect(slice_of(&claims), slice_of(&claims), "term_cut_short"));
    bytes_free(&claims);
    claims = exactly(fun.at, fun.size);
    claims.at[28] = 1; /* 256 + 1 */
    CHECK(expect(slice_of(&claims), slice_of(&claims), "term_identity"));
    bytes_free(&claims);
    bytes_free(&fun);
    bytes_free(&inside);
}

static void after_a_fun_names_are_looked_for_again(void) {
    struct bytes request = {0}, answer = {0};
    put_fun(&request, 1, 1);
    put_nil(&request);
    put_tuple(&answer, 2);
    put(&answer, request.at, request.size);
    put_pid(&answer, "x@y", 5);
    CHECK(expect(slice_of(&answer), slice_of(&request), "term_identity"));
    answer.size -= 18;
    put_atom(&answer, "strange");
    CHECK(expect(slice_of(&answer), slice_of(&request), "term_atom_new"));
    bytes_free(&request);
    bytes_free(&answer);
}

/* Past a fixed effort the request is indexed; the answers stay the same. */
static void large_requests_and_answers_give_the_same_verdicts(void) {
    struct bytes request = {0}, answer = {0};
    enum { COUNT = 20000 };
    char text[32];
    put_list(&request, 3 * COUNT);
    put_list(&answer, 3 * COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "atom%u", i);
        put_atom(&request, text);
        put_pid(&request, "a@b", i);
        put_fun(&request, 1, 5);
        put_u8(&request, RB_TAG_INTEGER);
        put_u32(&request, i + 1000);
        snprintf(text, sizeof text, "atom%u", COUNT - 1 - i);
        put_atom(&answer, text);
        put_pid(&answer, "a@b", i);
        put_fun(&answer, 1, 5);
        put_u8(&answer, RB_TAG_INTEGER);
        put_u32(&answer, i + 1000);
    }
    put_nil(&request);
    put_nil(&answer);
    struct rb_term_rules wide = rules;
    struct rb_atom_budget budget = {0};
    wide.terms_max = 1000000;
    CHECK(verdict_of(slice_of(&answer), slice_of(&request), &wide, &budget) == NULL);
    answer.size--;
    put_atom(&answer, "atom20000");
    CHECK(strcmp(verdict_of(slice_of(&answer), slice_of(&request), &wide, &budget),
                 "term_atom_new") == 0);
    answer.size -= 11;
    put_pid(&answer, "a@b", COUNT);
    CHECK(strcmp(verdict_of(slice_of(&answer), slice_of(&request), &wide, &budget),
                 "term_identity") == 0);
    /* Few names again and again, against a small request. */
    bytes_free(&request);
    bytes_free(&answer);
    put_tuple(&request, 2);
    put_pid(&request, "a@b", 1);
    put_atom(&request, "only");
    put_list(&answer, 4 * COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        put_pid(&answer, "a@b", 1);
        put_atom(&answer, "only");
        put_atom(&answer, "declared");
        put_u8(&answer, RB_TAG_ATOM);
        put_u16(&answer, 1);
        put_u8(&answer, 0xfc);
    }
    put_nil(&answer);
    budget.left = 1;
    CHECK(verdict_of(slice_of(&answer), slice_of(&request), &wide, &budget) == NULL);
    CHECK_EQUAL(budget.left, 0);
    rb_atom_budget_fini(&budget);
    bytes_free(&request);
    bytes_free(&answer);
}

/* --- At random -------------------------------------------------------------------------------- */

static void an_echo_of_any_well_formed_request_is_accepted(void) {
    uint64_t seed = 99;
    for (int i = 0; i < 20000; i++) {
        struct bytes b = {0};
        put_random(&b, &seed, 4);
        CHECK(expect(slice_of(&b), slice_of(&b), NULL));
        bytes_free(&b);
    }
}

/* ASan and UBSan are the judges. What is accepted must at least be whole. */
static void a_hundred_thousand_mutations_get_a_verdict(void) {
    uint64_t seed = 20261121;
    int accepted = 0;
    for (int i = 0; i < 100000; i++) {
        struct bytes request = {0};
        struct rb_atom_budget budget = {.left = (uint32_t)i % 3};
        put_random(&request, &seed, 3);
        struct bytes answer = exactly(request.at, request.size);
        mutate(&answer, &seed);
        if (i % 4 == 0) mutate(&request, &seed);
        if (verdict_of(slice_of(&answer), slice_of(&request), &rules, &budget) == NULL) {
            struct rb_cursor c = rb_cursor_of(slice_of(&answer));
            CHECK(rb_term_skip(&c, NULL) == 0 && c.at == c.end);
            accepted++;
        }
        rb_atom_budget_fini(&budget);
        bytes_free(&request);
        bytes_free(&answer);
    }
    CHECK(accepted > 1000 && accepted < 90000);
}

int main(void) {
    RUN(plain_terms_are_accepted);
    RUN(a_term_cut_anywhere_is_term_cut_short);
    RUN(counts_are_held_against_the_bytes_left);
    RUN(bytes_behind_the_term_are_refused);
    RUN(tags_that_no_peer_may_see_are_refused);
    RUN(depth_is_bounded);
    RUN(terms_are_counted_each_byte_of_a_string_too);
    RUN(numbers_that_a_beam_has_not_are_refused);
    RUN(a_bitstring_has_1_to_7_bits_in_its_last_byte);
    RUN(an_atom_has_at_most_255_characters_of_strict_utf8);
    RUN(atoms_come_from_the_request_the_role_or_every_beam);
    RUN(latin_1_atoms_are_compared_by_their_text);
    RUN(a_budget_pays_once_for_each_new_atom_and_lasts_for_a_life);
    RUN(identities_must_be_those_of_the_request);
    RUN(malformed_identities_are_refused_even_when_the_request_had_them);
    RUN(a_fun_is_walked_and_its_names_are_the_requests);
    RUN(after_a_fun_names_are_looked_for_again);
    RUN(large_requests_and_answers_give_the_same_verdicts);
    RUN(an_echo_of_any_well_formed_request_is_accepted);
    RUN(a_hundred_thousand_mutations_get_a_verdict);
    return check_end();
}
