/* What is asked of the JobDispatcher: each shape, each bad one with its text, and never a verdict
 * on half a message. */
#include "relay/service/request.h"
#include "terms.h"

/* --- Requests --------------------------------------------------------------------------------- */

struct parsed {
    int kind;
    struct rb_submit submit;
    uint64_t job;
    size_t left; /* behind where the cursor ends */
    char why[RB_WHY_BYTES];
};

static struct parsed parse(struct rb_slice request) {
    struct parsed p = {.job = 77, .why = "untouched"};
    struct bytes b = exactly(request.at, request.size);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    p.kind = rb_request_kind(&c, &p.submit, &p.job, p.why);
    p.left = rb_cursor_left(&c);
    /* The slice lies in a copy that is freed here: kept by its text only. */
    int has_role = p.kind == RB_REQUEST_SUBMIT || p.kind == RB_REQUEST_JOBS;
    p.submit.role.at = request.at + (has_role ? p.submit.role.at - b.at : 0);
    bytes_free(&b);
    return p;
}

/* Cut anywhere, a request asks for more; `needs`: the bytes by which it shows what it is. */
static void expect_more_before(struct rb_slice request, size_t needs) {
    for (size_t n = 0; n < needs; n++) {
        struct parsed p = parse((struct rb_slice){request.at, n});
        if (p.kind != -EAGAIN) printf("at %zu of %zu: %d %s\n", n, needs, p.kind, p.why);
        CHECK_EQUAL(p.kind, -EAGAIN);
        CHECK(strcmp(p.why, "untouched") == 0);
    }
}

static void requests_of_every_shape(void) {
    struct rb_slice submit3 = BYTES("\x68\3\x77\6submit\x77\4role\x6d\0\0\0\2hi");
    struct rb_slice submit4 = BYTES("\x68\4\x77\6submit\x6d\0\0\0\4role\x77\2hi\x74\0\0\0\0");
    struct rb_slice stats = BYTES("\x77\5stats");
    struct rb_slice status = BYTES("\x68\2\x77\6status\x6e\6\0\1\0\0\0\0\1");
    struct rb_slice cancel = BYTES("\x69\0\0\0\2\x64\0\6"
                                   "cancel\x61\7");
    struct rb_slice jobs = BYTES("\x68\2\x77\4jobs\x77\3all");
    struct parsed p = parse(submit3);
    CHECK_EQUAL(p.kind, RB_REQUEST_SUBMIT);
    CHECK(p.submit.arity == 3 && rb_slice_is(p.submit.role, "role") &&
          p.submit.options.priority == 2 && !p.submit.options.has_timeout);
    CHECK_EQUAL(p.left, 7);
    expect_more_before(submit3, submit3.size - 6); /* the payload's tag decides how it is taken */
    p = parse(submit4);
    CHECK_EQUAL(p.kind, RB_REQUEST_SUBMIT);
    CHECK(p.submit.arity == 4 && rb_slice_is(p.submit.role, "role"));
    CHECK_EQUAL(p.left, 4 + 5);
    expect_more_before(submit4, submit4.size - 8);
    CHECK_EQUAL(parse(stats).kind, RB_REQUEST_STATS);
    expect_more_before(stats, stats.size);
    p = parse(status);
    CHECK(p.kind == RB_REQUEST_STATUS && p.job == ((UINT64_C(1) << 40) | 1));
    expect_more_before(status, status.size);
    p = parse(cancel);
    CHECK(p.kind == RB_REQUEST_CANCEL && p.job == 7);
    expect_more_before(cancel, cancel.size);
    p = parse(jobs);
    CHECK(p.kind == RB_REQUEST_JOBS && rb_slice_is(p.submit.role, "all"));
    expect_more_before(jobs, jobs.size);
}

#define KNOWN                                                                                   \
    "known: {:submit | :submit_async, role, payload}, {.., opts}, {:submit_many, role, "        \
    "payloads}, {.., opts}, {:cancel, ref | job_id}, {:status, job_id}, {:jobs, role | :all}, " \
    ":stats"

static void bad_requests_say_what_is_wrong(void) {
    static const struct {
        struct rb_slice bytes;
        size_t shown_by; /* bytes that show it */
        const char *why;
    } bad[] = {
        {BYTES("\x77\4stat"), 6, "unknown request :stat; " KNOWN},
        {BYTES("\x68\1\x77\4jobs"), 8, "unknown request {:jobs, ...} of 1 elements; " KNOWN},
        {BYTES("\x68\2\x77\4jobs\x61\1"), 10,
         "jobs takes a role (an atom or a binary) or :all, got 1"},
        {BYTES("\x68\2\x77\6submit\x77\4role"), 10,
         "submit takes {:submit, role, payload} or {:submit, role, payload, opts}; this tuple has "
         "2 elements"},
        {BYTES("\x68\3\x77\6submit\x61\5\x6a"), 12,
         "submit: role must be an atom or a binary, got 5"},
        {BYTES("\x68\3\x77\6submit\x6b\0\2hi\x6a"), 15,
         "submit: role must be an atom or a binary, got a charlist"},
        {BYTES("\x68\2\x77\6status\x77\4"
               "some"),
         16,
         "status takes a job id (a positive integer) or the reference of a submit_async, got "
         ":some"},
        {BYTES("\x68\2\x77\6"
               "cancel\x62\xff\xff\xff\xff"),
         15,
         "cancel takes a job id (a positive integer) or the reference of a submit_async, got -1"},
        {BYTES("\x68\2\x77\6status\x6e\t\0\0\0\0\0\0\0\0\0\1"), 22,
         "status takes a job id (a positive integer) or the reference of a submit_async, got a "
         "bignum"},
        {BYTES("\x68\3\x77\6status\x61\1\x61\1"), 10,
         "unknown request {:status, ...} of 3 elements; " KNOWN},
        {BYTES("\x68\0"), 2, "unknown request: a tuple; " KNOWN},
        {BYTES("\x68\1\x61\1"), 4, "unknown request: a tuple; " KNOWN},
        {BYTES("\x6d\0\0\0\2hi"), 7, "unknown request: a binary of 2 bytes; " KNOWN},
        {BYTES("\x6a"), 1, "unknown request: []; " KNOWN},
        {BYTES("\x61\x2a"), 2, "unknown request: 42; " KNOWN},
        {BYTES("\x46\0\0\0\0\0\0\0\0"), 9, "unknown request: a float; " KNOWN},
        {BYTES("\x74\0\0\0\0"), 5, "unknown request: a map; " KNOWN},
        {BYTES("\x58\x77\3a@b\0\0\0\1\0\0\0\2\0\0\0\3"), 18, "unknown request: a pid; " KNOWN},
        {BYTES("\x6c\0\0\0\1\x6a\x6a"), 7, "unknown request: a list; " KNOWN},
        {BYTES("\xff"), 1, "unknown request: a malformed term; " KNOWN},
        {BYTES("\x68\2\x77\6status\xff"), 11, "unknown request: a malformed term; " KNOWN},
        {BYTES("\x68\3\x77\6submit\xff\x6a"), 11, "unknown request: a malformed term; " KNOWN},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct parsed p = parse(bad[i].bytes);
        CHECK_EQUAL(p.kind, RB_REQUEST_BAD);
        if (strcmp(p.why, bad[i].why) != 0) printf("got    %s\nwanted %s\n", p.why, bad[i].why);
        CHECK(strcmp(p.why, bad[i].why) == 0);
        expect_more_before(bad[i].bytes, bad[i].shown_by);
    }
}

static void long_texts_are_cut_between_characters_and_within_bounds(void) {
    struct bytes b = {0};
    put_tuple(&b, 200);
    put_u8(&b, RB_TAG_ATOM_UTF8);
    put_u16(&b, 301);
    PUT(&b, "x");
    for (int i = 0; i < 100; i++) PUT(&b, "\xe2\x82\xac");
    struct parsed p = parse(slice_of(&b));
    CHECK_EQUAL(p.kind, RB_REQUEST_BAD);
    char *text = strstr(p.why, "{:x");
    CHECK(text != NULL);
    for (int i = 0; text && i < 13; i++) CHECK(memcmp(text + 3 + 3 * i, "\xe2\x82\xac", 3) == 0);
    CHECK(text && memcmp(text + 3 + 39, ", ...}", 6) == 0);
    CHECK(strstr(p.why, ":stats") != NULL);
    bytes_free(&b);
}

/* --- Options ---------------------------------------------------------------------------------- */

static int options(struct rb_slice opts, struct rb_submit *s, char why[RB_WHY_BYTES]) {
    struct bytes b = exactly(opts.at, opts.size);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    *s = (struct rb_submit){.arity = 4, .options = {.priority = 2}};
    snprintf(why, RB_WHY_BYTES, "untouched");
    int rc = rb_submit_options(&c, s, why);
    if (rc == 0) CHECK(c.at == c.end);
    /* Cut anywhere, it is nothing yet. */
    for (size_t n = 0; n < opts.size; n++) {
        struct rb_submit cut_submit = {.arity = 4};
        struct rb_cursor cut = {b.at, b.at + n};
        char cut_why[RB_WHY_BYTES];
        CHECK_EQUAL(rb_submit_options(&cut, &cut_submit, cut_why), -EAGAIN);
    }
    bytes_free(&b);
    return rc;
}

/* An option in each of the forms that options come in: a map, a keyword list, a list in cells. */
static struct bytes in_form(int form, const char *key, struct rb_slice value) {
    struct bytes b = {0};
    if (form == 0) {
        put_map(&b, 1);
    } else {
        put_list(&b, 1);
        put_tuple(&b, 2);
    }
    put_atom(&b, key);
    put(&b, value.at, value.size);
    if (form == 1) put_nil(&b);
    if (form == 2) {
        put_list(&b, 1);
        put_tuple(&b, 2);
        put_atom(&b, "trace");
        put_atom(&b, "nil");
        put_list(&b, 0);
        put_nil(&b);
    }
    return b;
}

#define TRACE "00-0123456789abcdef0123456789abcdef-00f067aa0ba902b7-01"

static void good_options_in_every_form(void) {
    for (int form = 0; form < 3; form++) {
        static const struct {
            const char *key;
            struct rb_slice value;
        } good[] = {
            {"opcode", BYTES("\x62\0\0\xff\xff")},
            {"timeout", BYTES("\x61\0")},
            {"timeout", BYTES("\x77\x08infinity")},
            {"priority", BYTES("\x77\x08"
                               "critical")},
            {"priority", BYTES("\x77\3low")},
            {"detail", BYTES("\x77\4true")},
            {"detail", BYTES("\x77\5"
                             "false")},
            {"trace", BYTES("\x77\3nil")},
            {"trace", BYTES("\x6d\0\0\0\x37" TRACE)},
            {"trace", BYTES("\x6d\0\0\0\x3a"
                            "01"
                            "-0123456789abcdef0123456789abcdef-00f067aa0ba902b7-01"
                            "-xy")},
            {"timeout", BYTES("\x6e\7\0\xff\xff\xff\xff\xff\xff\x7f")},
        };
        struct rb_submit s[sizeof good / sizeof *good];
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
            struct bytes b = in_form(form, good[i].key, good[i].value);
            char why[RB_WHY_BYTES];
            int rc = options(slice_of(&b), &s[i], why);
            if (rc) printf("case %zu: %s\n", i, why);
            CHECK_EQUAL(rc, 0);
            CHECK(strcmp(why, "untouched") == 0);
            bytes_free(&b);
        }
        CHECK_EQUAL(s[0].options.opcode, 65535);
        CHECK(s[1].options.has_timeout && s[1].options.timeout_ms == 0 &&
              !s[0].options.has_timeout);
        CHECK(s[2].options.timeout_ms == UINT64_MAX &&
              s[10].options.timeout_ms == UINT64_C(0x7fffffffffffff));
        CHECK(s[3].options.priority == 0 && s[4].options.priority == 3 &&
              s[5].options.priority == 2);
        CHECK(s[5].options.detail && !s[6].options.detail);
        CHECK(s[8].options.trace_id[0] == 0x01 && s[8].options.trace_id[15] == 0xef &&
              s[8].options.span_id[1] == 0xf0 && s[8].options.trace_flags == 1);
    }
}

static void no_options_are_fine_in_every_form(void) {
    struct rb_submit s = {.arity = 3};
    char why[RB_WHY_BYTES];
    struct rb_cursor nothing = {NULL, NULL};
    CHECK_EQUAL(rb_submit_options(&nothing, &s, why), 0);
    CHECK_EQUAL(options((struct rb_slice)BYTES("\x74\0\0\0\0"), &s, why), 0);
    CHECK_EQUAL(options((struct rb_slice)BYTES("\x6a"), &s, why), 0);
}

static void of_a_key_given_twice_the_first_counts(void) {
    struct rb_submit s;
    char why[RB_WHY_BYTES];
    struct bytes b = {0};
    put_list(&b, 2);
    for (int i = 1; i <= 2; i++) {
        put_tuple(&b, 2);
        put_atom(&b, "timeout");
        put_integer(&b, i);
    }
    put_nil(&b);
    CHECK_EQUAL(options(slice_of(&b), &s, why), 0);
    CHECK_EQUAL(s.options.timeout_ms, 1);
    bytes_free(&b);
}

#define UNKNOWN_OPTION(key)                                                                     \
    "submit: unknown option :" key                                                              \
    "; known: opcode, op, timeout, priority, detail, trace, key, tenant, retry, orphan, meta, " \
    "dedupe, ttl, encoding, accept, stages"
#define OF_OPCODE "submit: opcode must be an integer of 0..65535, got "
#define OF_TIMEOUT "submit: timeout must be milliseconds (0 or more) or :infinity, got "
#define OF_PRIORITY "submit: priority must be :critical, :high, :normal or :low, got "
#define OF_TRACE \
    "submit: trace must be a W3C traceparent binary (\"00-<32 hex>-<16 hex>-<2 hex>\"), got "

static void bad_options_say_what_is_wrong(void) {
    static const struct {
        const char *key;
        struct rb_slice value;
        const char *why;
    } bad[] = {
        {"opcode", BYTES("\x62\0\1\0\0"), OF_OPCODE "65536"},
        {"opcode", BYTES("\x62\xff\xff\xff\xff"), OF_OPCODE "-1"},
        {"opcode", BYTES("\x77\4some"), OF_OPCODE ":some"},
        {"timeout", BYTES("\x62\xff\xff\xff\xfb"), OF_TIMEOUT "-5"},
        {"timeout", BYTES("\x77\3nil"), OF_TIMEOUT ":nil"},
        {"timeout", BYTES("\x46\x3f\xf0\0\0\0\0\0\0"), OF_TIMEOUT "a float"},
        {"priority", BYTES("\x77\6urgent"), OF_PRIORITY ":urgent"},
        {"priority", BYTES("\x61\1"), OF_PRIORITY "1"},
        {"detail", BYTES("\x77\3yes"), "submit: detail must be true or false, got :yes"},
        {"detail", BYTES("\x61\1"), "submit: detail must be true or false, got 1"},
        {"trace", BYTES("\x77\4none"), OF_TRACE ":none"},
        {"trace", BYTES("\x6d\0\0\0\2hi"), OF_TRACE "a binary of 2 bytes"},
        {"trace", BYTES("\x6d\0\0\0\x38" TRACE "x"), OF_TRACE "a binary of 56 bytes"},
        {"trace", BYTES("\x6d\0\0\0\x37zz-0123456789abcdef0123456789abcdef-00f067aa0ba902b7-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"trace",
         BYTES("\x6d\0\0\0\x37"
               "ff-0123456789abcdef0123456789abcdef-00f067aa0ba902b7-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"trace",
         BYTES("\x6d\0\0\0\x37"
               "00-0123456789ABCDEF0123456789abcdef-00f067aa0ba902b7-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"trace",
         BYTES("\x6d\0\0\0\x37"
               "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"trace",
         BYTES("\x6d\0\0\0\x37"
               "00-0123456789abcdef0123456789abcdef-0000000000000000-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"trace",
         BYTES("\x6d\0\0\0\x37"
               "00-0123456789abcdef0123456789abcdef_00f067aa0ba902b7-01"),
         OF_TRACE "a binary of 55 bytes"},
        {"retries", BYTES("\x61\1"), UNKNOWN_OPTION("retries")},
        {"", BYTES("\x61\1"), UNKNOWN_OPTION("")},
    };
    for (int form = 0; form < 3; form++) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            struct bytes b = in_form(form, bad[i].key, bad[i].value);
            struct rb_submit s;
            char why[RB_WHY_BYTES];
            CHECK_EQUAL(options(slice_of(&b), &s, why), -EINVAL);
            if (strcmp(why, bad[i].why) != 0) printf("got    %s\nwanted %s\n", why, bad[i].why);
            CHECK(strcmp(why, bad[i].why) == 0);
            bytes_free(&b);
        }
    }
}

static void options_of_another_shape_say_so(void) {
    static const struct {
        struct rb_slice bytes;
        const char *why;
    } bad[] = {
        {BYTES("\x61\1"), "submit: opts must be a map or a keyword list, got 1"},
        {BYTES("\x6b\0\2hi"), "submit: opts must be a map or a keyword list, got a charlist"},
        {BYTES("\x77\3nil"), "submit: opts must be a map or a keyword list, got :nil"},
        {BYTES("\x6c\0\0\0\1\x77\6"
               "detail\x6a"),
         "submit: opts is a list, but its element 0 is no {key, value} pair"},
        {BYTES("\x6c\0\0\0\2\x68\2\x77\6opcode\x61\1\x68\3\x6a\x6a\x6a\x6a"),
         "submit: opts is a list, but its element 1 is no {key, value} pair"},
        {BYTES("\x6c\0\0\0\1\x68\2\x77\6opcode\x61\1\x6c\0\0\0\1\x6a\x6a"),
         "submit: opts is a list, but its element 1 is no {key, value} pair"},
        {BYTES("\x6c\0\0\0\1\x68\2\x77\6opcode\x61\1\x61\1"),
         "submit: opts is an improper list; a keyword list ends in []"},
        {BYTES("\x74\0\0\0\1\x6d\0\0\0\6opcode\x61\1"),
         "submit: an option's key must be an atom, got a binary of 6 bytes"},
        {BYTES("\x6c\0\0\0\1\x68\2\x61\1\x61\1\x6a"),
         "submit: an option's key must be an atom, got 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rb_submit s;
        char why[RB_WHY_BYTES];
        CHECK_EQUAL(options(bad[i].bytes, &s, why), -EINVAL);
        if (strcmp(why, bad[i].why) != 0) printf("got    %s\nwanted %s\n", why, bad[i].why);
        CHECK(strcmp(why, bad[i].why) == 0);
    }
}

/* --- At random -------------------------------------------------------------------------------- */

/* A verdict on a beginning is the verdict on the whole. ASan and UBSan judge the rest. */
static void a_verdict_never_changes_when_more_bytes_come(void) {
    uint64_t seed = 8;
    for (int i = 0; i < 20000; i++) {
        struct bytes tag = {0}, request = {0}, b = {0};
        put_alias(&tag, 3);
        put_tuple(&request, 4);
        put_atom(&request, "submit");
        put_atom(&request, "role");
        put_random(&request, &seed, 2);
        put_map(&request, 2);
        put_atom(&request, "timeout");
        put_random(&request, &seed, 1);
        put_atom(&request, "priority");
        put_atom(&request, "low");
        call_of(&b, &tag, &request);
        if (i % 3) mutate(&b, &seed);
        int before = -EAGAIN;
        char said[RB_WHY_BYTES] = {0};
        for (size_t n = 0; n <= b.size; n += i % 16 ? b.size : 1) {
            struct bytes cut = exactly(b.at, n);
            struct rb_cursor c = rb_cursor_of(slice_of(&cut));
            struct rb_from from;
            struct rb_submit s;
            uint64_t job;
            char why[RB_WHY_BYTES] = {0};
            int kind = rb_message_kind(&c, &from);
            if (kind == RB_MESSAGE_CALL) kind = 100 + rb_request_kind(&c, &s, &job, why);
            if (kind == 100 - EAGAIN) kind = -EAGAIN;
            CHECK(before == -EAGAIN || (kind == before && strcmp(said, why) == 0));
            before = kind;
            memcpy(said, why, sizeof said);
            if (kind == 100 + RB_REQUEST_SUBMIT && rb_term_skip(&c, NULL) == 0)
                rb_submit_options(&c, &s, why);
            bytes_free(&cut);
            if (b.size == 0) break;
        }
        bytes_free(&tag);
        bytes_free(&request);
        bytes_free(&b);
    }
}

int main(void) {
    RUN(requests_of_every_shape);
    RUN(bad_requests_say_what_is_wrong);
    RUN(long_texts_are_cut_between_characters_and_within_bounds);
    RUN(good_options_in_every_form);
    RUN(no_options_are_fine_in_every_form);
    RUN(of_a_key_given_twice_the_first_counts);
    RUN(bad_options_say_what_is_wrong);
    RUN(options_of_another_shape_say_so);
    RUN(a_verdict_never_changes_when_more_bytes_come);
    return check_end();
}
