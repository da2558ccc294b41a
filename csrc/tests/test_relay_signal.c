/* Control messages taken apart by shape, and the messages and reply tags of a BEAM's calls. */
#include "relay/net/signal.h"
#include "relay/service/request.h"
#include "terms.h"

static int holds(struct rb_slice s, const struct bytes *b) {
    return rb_slice_equal(s, slice_of(b));
}

/* --- Control messages ------------------------------------------------------------------------- */

static void signals_of_each_op_are_taken_apart(void) {
    static const struct {
        unsigned op, arity, from, to, ref; /* elements; 0: none */
        int message;
    } ops[] = {{2, 3, 0, 2, 0, 1},  {6, 4, 1, 3, 0, 1},  {12, 4, 0, 2, 0, 1}, {16, 5, 1, 3, 0, 1},
               {19, 4, 1, 2, 3, 0}, {20, 4, 1, 2, 3, 0}, {21, 5, 1, 2, 3, 0}, {22, 3, 1, 2, 0, 1},
               {23, 4, 1, 2, 0, 1}, {28, 4, 1, 2, 3, 1}, {24, 3, 0, 0, 0, 1}, {33, 3, 0, 0, 0, 1},
               {1, 3, 0, 0, 0, 0},  {29, 6, 0, 0, 0, 1}, {35, 4, 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        for (unsigned arity = 1; arity < 12; arity++) {
            struct bytes b = {0}, element[12] = {{0}};
            put_tuple(&b, arity);
            put_integer(&b, ops[i].op);
            for (unsigned e = 1; e < arity; e++) {
                put_pid(&element[e], "a@b", e);
                put(&b, element[e].at, element[e].size);
            }
            struct bytes exact = exactly(b.at, b.size);
            struct rb_cursor c = rb_cursor_of(slice_of(&exact));
            struct rb_signal s;
            int rc = rb_signal_parse(&c, &s);
            /* Only what the relay serves itself is held to its arity; the rest goes up whole. */
            int any = !ops[i].from && !ops[i].to;
            CHECK_EQUAL(rc, any || arity == ops[i].arity ? 0 : -EPROTO);
            if (rc == 0) {
                CHECK(s.op == ops[i].op && s.arity == arity && s.has_message == ops[i].message);
                CHECK(holds(s.control, &b) && c.at == c.end);
                CHECK(holds(s.from, &element[ops[i].from]) && holds(s.to, &element[ops[i].to]));
                CHECK(holds(s.ref, &element[ops[i].ref]));
            }
            for (size_t n = 0; rc == 0 && n < b.size; n++) {
                struct rb_cursor cut = {exact.at, exact.at + n};
                CHECK_EQUAL(rb_signal_parse(&cut, &s), -EAGAIN);
                CHECK(cut.at == exact.at);
            }
            bytes_free(&b);
            bytes_free(&exact);
            for (unsigned e = 1; e < arity; e++) bytes_free(&element[e]);
        }
    }
}

/* dist.c of OTP 28: flags may be a bignum with bits that we do not know, and the tuple may grow. */
static void altact_takes_flags_and_more_elements_than_it_knows(void) {
    struct bytes b = {0};
    put_tuple(&b, 6);
    put_integer(&b, 37);
    put_integer(&b, INT64_C(1) << 40 | RB_ALTACT_NAME);
    put_pid(&b, "a@b", 1);
    put_atom(&b, "name");
    put_nil(&b);
    put_nil(&b);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    struct rb_signal s;
    CHECK_EQUAL(rb_signal_parse(&c, &s), 0);
    CHECK(s.altact == RB_ALTACT_NAME && s.has_message && s.to.size == 6 && c.at == c.end);
    b.at[1] = 3;
    c = rb_cursor_of(slice_of(&b));
    CHECK_EQUAL(rb_signal_parse(&c, &s), -EPROTO);
    bytes_free(&b);
}

static void what_is_no_control_message_is_refused(void) {
    static const struct rb_slice bad[] = {BYTES("\x6a"),
                                          BYTES("\x68\0"),
                                          BYTES("\x68\1\x6a"),
                                          BYTES("\x68\1\x62\0\0\1\0"),
                                          BYTES("\x68\1\x62\xff\xff\xff\xff"),
                                          BYTES("\x68\1\x6e\t\0\0\0\0\0\0\0\0\0\1"),
                                          BYTES("\x68\2\x61\5\xff"),
                                          BYTES("\xff")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rb_cursor c = rb_cursor_of(bad[i]);
        struct rb_signal s;
        CHECK_EQUAL(rb_signal_parse(&c, &s), -EPROTO);
    }
}

/* --- Messages and reply tags ------------------------------------------------------------------ */

/* Of a tag: the alias to answer to and the monitor, by their count of words; 0: none. */
static void expect_tag(const struct bytes *tag, unsigned alias_words, unsigned monitor_words) {
    struct bytes b = {0}, request = {0}, pid = {0}, alias = {0}, monitor = {0};
    struct rb_from from;
    put_atom(&request, "stats");
    put_pid(&pid, "a@b", 4);
    if (alias_words) put_reference(&alias, "a@b", alias_words);
    if (monitor_words) put_reference(&monitor, "a@b", monitor_words);
    call_of(&b, tag, &request);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    CHECK_EQUAL(rb_message_kind(&c, &from), RB_MESSAGE_CALL);
    CHECK_EQUAL(rb_cursor_left(&c), request.size);
    CHECK(holds(from.pid, &pid) && holds(from.tag, tag));
    CHECK(holds(from.alias, &alias) && holds(from.monitor, &monitor));
    bytes_free(&b);
    bytes_free(&request);
    bytes_free(&pid);
    bytes_free(&alias);
    bytes_free(&monitor);
}

static void tags_of_each_release_name_alias_and_monitor(void) {
    struct bytes tag = {0};
    put_alias(&tag, 3); /* GenServer.call of 25; 26 and later have five words */
    expect_tag(&tag, 3, 3);
    bytes_free(&tag);
    put_alias(&tag, 5);
    expect_tag(&tag, 5, 5);
    bytes_free(&tag);
    put_list(&tag, 1); /* multi_call of 27: [[alias|A]|R] */
    put_alias(&tag, 5);
    put_reference(&tag, "a@b", 3);
    expect_tag(&tag, 5, 3);
    bytes_free(&tag);
    put_tuple(&tag, 2); /* multi_call of 25: {R, Node} */
    put_reference(&tag, "a@b", 3);
    put_atom(&tag, "c@d");
    expect_tag(&tag, 0, 0);
    bytes_free(&tag);
    put_reference(&tag, "a@b", 3); /* a bare reference */
    expect_tag(&tag, 0, 3);
    bytes_free(&tag);
}

static void any_other_term_is_a_tag_too(void) {
    static const struct rb_slice tags[] = {BYTES("\x77\2ok"),
                                           BYTES("\x6a"),
                                           BYTES("\x6b\0\2hi"),
                                           BYTES("\x61\1"),
                                           BYTES("\x6c\0\0\0\1\x77\5"
                                                 "alias\x6a"),
                                           BYTES("\x6c\0\0\0\2\x77\5"
                                                 "alias\x61\1\x6a"),
                                           BYTES("\x6c\0\0\0\1\x77\5"
                                                 "other\x61\1"),
                                           BYTES("\x6c\0\0\0\1\x6c\0\0\0\1\x77\5"
                                                 "alias\x6a\x61\1")};
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        struct bytes tag = exactly(tags[i].at, tags[i].size);
        expect_tag(&tag, 0, 0);
        bytes_free(&tag);
    }
}

/* Nothing recurses over what a caller sent, and it is looked at once. */
static void a_tag_of_a_million_nested_lists_is_just_a_tag(void) {
    struct bytes tag = {0};
    for (int i = 0; i < 1000000; i++) put_list(&tag, 1);
    put_fill(&tag, RB_TAG_NIL, 1000001);
    expect_tag(&tag, 0, 0);
    bytes_free(&tag);
}

static void messages_that_are_no_calls(void) {
    static const struct {
        struct rb_slice bytes;
        int kind;
    } messages[] = {
        {BYTES("\x68\2\x77\x09$gen_cast\x6a"), RB_MESSAGE_CAST},
        {BYTES("\x68\3\x77\6system\x6a\x6a"), RB_MESSAGE_SYSTEM},
        {BYTES("\x77\2hi"), RB_MESSAGE_OTHER},
        {BYTES("\x68\1\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\4\x6a\x6a\x6a\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\2\x77\x09$gen_call\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x6a\x6a\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x77\x09$gen_call\x6a\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x77\x09$gen_call\x68\3\x6a\x6a\x6a\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x77\x09$gen_call\x68\2\x77\2me\x6a\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x77\x09$gen_call\x68\2\x58\x6a"), RB_MESSAGE_OTHER},
        {BYTES("\x68\3\x77\x04"
               "DOWN\x6a\x6a"),
         RB_MESSAGE_OTHER},
    };
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        struct rb_cursor c = rb_cursor_of(messages[i].bytes);
        struct rb_from from;
        CHECK_EQUAL(rb_message_kind(&c, &from), messages[i].kind);
        CHECK(c.at == messages[i].bytes.at);
    }
}

int main(void) {
    RUN(signals_of_each_op_are_taken_apart);
    RUN(altact_takes_flags_and_more_elements_than_it_knows);
    RUN(what_is_no_control_message_is_refused);
    RUN(tags_of_each_release_name_alias_and_monitor);
    RUN(any_other_term_is_a_tag_too);
    RUN(a_tag_of_a_million_nested_lists_is_just_a_tag);
    RUN(messages_that_are_no_calls);
    return check_end();
}
