/* Bytes of a connection in, signals out: however they are split, the same signals. */
#include "intake_run.h"

/* --- Streams ---------------------------------------------------------------------------------- */

static void small_signal(struct bytes *b, const char *to, uint32_t payload, uint32_t options,
                         int pass_through) {
    struct bytes s = {0};
    put_signal(&s, to, payload, options, pass_through);
    put_whole(b, &s, pass_through);
    bytes_free(&s);
}

static void tick(struct bytes *b) { put_u32(b, 0); }

/* Signals of every kind, small enough to be cut everywhere: ticks, monitors, fragments of four
 * senders among whole signals. */
static struct bytes medley(void) {
    struct bytes b = {0}, s = {0}, one = {0}, two = {0}, three = {0}, four = {0};
    tick(&b);
    small_signal(&b, "plain", 20, 3, 0);
    put_tuple(&s, 4);
    put_integer(&s, RB_OP_MONITOR_P);
    put_pid(&s, "a@b", 3);
    put_atom(&s, "job");
    put_reference(&s, "a@b", 3);
    put_whole(&b, &s, 0);
    tick(&b);
    tick(&b);
    small_signal(&b, "job", 33, 5, 0);
    put_signal(&one, "job", 150, 9, 0);
    put_signal(&two, "plain", 60, 0, 0);
    put_signal(&three, "gone", 80, 4, 0);
    put_signal(&four, "slow", 700, 50, 0);
    put_fragment(&b, 1, 0x1234567890, 4, one.at,
                 30); /* ends inside the control term: the intake is not strict */
    put_fragment(&b, 1, 7, 2, two.at, two.size - 1);
    tick(&b);
    put_fragment(&b, 0, 0x1234567890, 3, one.at + 30, 0); /* empty */
    put_fragment(&b, 1, 9, 3, three.at, 70);
    small_signal(&b, "job", 0, 0, 0);
    put_fragment(&b, 1, 8, 3, four.at, 100);
    put_fragment(&b, 0, 0x1234567890, 2, one.at + 30, 60); /* ends inside the payload */
    put_fragment(&b, 0, 7, 1, two.at + two.size - 1, 1);
    put_fragment(&b, 0, 8, 2, four.at + 100, 500);
    put_fragment(&b, 0, 9, 2, three.at + 70, 10);
    put_fragment(&b, 0, 0x1234567890, 1, one.at + 90, one.size - 90);
    put_fragment(&b, 0, 9, 1, three.at + 80, three.size - 80);
    put_fragment(&b, 0, 8, 1, four.at + 600, four.size - 600);
    put_fragment(&b, 1, 7, 1, two.at, two.size); /* one fragment, and a number used before */
    tick(&b);
    bytes_free(&s);
    bytes_free(&one);
    bytes_free(&two);
    bytes_free(&three);
    bytes_free(&four);
    return b;
}

/* Frames that do not wait to be whole; payloads beyond the buffer; tails up to and past what is
 * kept. */
static struct bytes large_medley(int pass_through) {
    static const struct {
        const char *to;
        uint32_t payload, options;
    } signals[] = {{"job", 20000, 10},      {"plain", 40000, 0}, {"slow", 70000, 300},
                   {"gone", 50000, 50000},  {"job", 600000, 0},  {"job", 10, 20000},
                   {"plain", 300000, 1000}, {"job", 5, 65000},   {"job", 30000, 100000},
                   {"slow", 500, 16500},    {"other", 16300, 0}, {"job", 16300, 2}};
    struct bytes b = {0};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        small_signal(&b, signals[i].to, signals[i].payload, signals[i].options, pass_through);
        if (i % 3 == 0) tick(&b);
        small_signal(&b, "plain", (uint32_t)i, 0, pass_through);
    }
    return b;
}

/* A large job in fragments of 65536, as a BEAM cuts it, two senders in turn. */
static struct bytes fragments_of_two(void) {
    struct bytes b = {0}, one = {0}, two = {0};
    put_signal(&one, "job", 400000, 100, 0);
    put_signal(&two, "slow", 400000, 50, 0);
    uint64_t count = (one.size + 65535) / 65536;
    for (uint64_t i = 0; i < count; i++) {
        size_t at = (size_t)i * 65536, n = one.size - at < 65536 ? one.size - at : 65536;
        put_fragment(&b, i == 0, 1, count - i, one.at + at, n);
        n = i + 1 == count ? two.size - at : 65536;
        put_fragment(&b, i == 0, 2, count - i, two.at + at, n);
    }
    bytes_free(&one);
    bytes_free(&two);
    return b;
}

/* --- Any split, same signals ------------------------------------------------------------------ */

static void the_medley_cut_anywhere_gives_the_same_signals(void) {
    struct bytes b = medley();
    struct outcome whole = run_all(&b, HEADER, WHOLE, 0);
    CHECK_EQUAL(whole.rc, 0);
    CHECK_EQUAL(lines_of(whole.log), 8);
    CHECK(whole.counts.diverted == 2 && whole.counts.dropped == 1 && whole.counts.kept == 2);
    CHECK(whole.counts.more > 0 && whole.counts.aborted == 0);
    for (size_t chunk = 1; chunk < 40; chunk++) {
        same_as(&whole, run_all(&b, HEADER, chunk, 0), "chunks of", chunk);
        same_as(&whole, run_all(&b, HEADER, chunk, 1), "first piece, chunks of", chunk);
    }
    for (size_t at = 0; at <= b.size; at++) {
        struct rb_slice left = {b.at, at}, right = {b.at + at, b.size - at};
        same_as(&whole, run(left, right, HEADER, WHOLE, 0), "split at", at);
    }
    free(whole.log);
    bytes_free(&b);
}

static void bytes_behind_the_last_frame_wait(void) {
    struct bytes b = medley();
    struct outcome whole = run_all(&b, HEADER, WHOLE, 0);
    size_t size = b.size;
    small_signal(&b, "plain", 50, 0, 0);
    for (size_t n = size; n < b.size; n++) {
        struct bytes cut = exactly(b.at, n);
        same_as(&whole, run_all(&cut, HEADER, WHOLE, 0), "trailing to", n);
        bytes_free(&cut);
    }
    free(whole.log);
    bytes_free(&b);
}

static void large_signals_in_any_portions(struct bytes b, uint64_t flags, int signals) {
    static const size_t chunks[] = {1,     7,     1000,  1460,  4096,   16383,  16384,
                                    16387, 16388, 16389, 65536, 131072, 262144, 262145};
    uint64_t seed = 5;
    struct outcome whole = run_all(&b, flags, WHOLE, 0);
    CHECK_EQUAL(whole.rc, 0);
    CHECK_EQUAL(lines_of(whole.log), signals);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        same_as(&whole, run_all(&b, flags, chunks[i], 0), "chunks of", chunks[i]);
        same_as(&whole, run_all(&b, flags, chunks[i], 1), "first piece, chunks of", chunks[i]);
    }
    for (int i = 0; i < 60; i++) {
        size_t at = (size_t)(check_random(&seed) % b.size),
               chunk = (size_t)(check_random(&seed) % 70000) + 100;
        struct rb_slice left = {b.at, at}, right = {b.at + at, b.size - at};
        same_as(&whole, run(left, right, flags, chunk, i & 1), "split at", at);
    }
    free(whole.log);
    bytes_free(&b);
}

static void large_frames_in_any_portions(void) {
    large_signals_in_any_portions(large_medley(0), HEADER, 23);
}
static void large_pass_through_frames_in_any_portions(void) {
    large_signals_in_any_portions(large_medley(1), PASS_THROUGH, 23);
}
static void fragments_of_two_senders_in_any_portions(void) {
    large_signals_in_any_portions(fragments_of_two(), HEADER, 2);
}

/* Around each edge of the first large frames every single cut. */
static void large_frames_cut_at_each_byte_of_their_heads(void) {
    struct bytes b = {0}, s = {0};
    small_signal(&b, "job", 20000, 40, 0);
    small_signal(&b, "plain", 5, 0, 0);
    put_signal(&s, "job", 18000, 40, 0);
    put_fragment(&b, 1, 5, 2, s.at, 17000);
    put_fragment(&b, 0, 5, 1, s.at + 17000, s.size - 17000);
    struct outcome whole = run_all(&b, HEADER, WHOLE, 0);
    CHECK_EQUAL(lines_of(whole.log), 3);
    for (size_t at = 0; at < b.size; at++) {
        if (at > 200 && at < 19900) at = 19900;
        if (at > 20600 && at < 37000) at = 37000;
        struct rb_slice left = {b.at, at}, right = {b.at + at, b.size - at};
        same_as(&whole, run(left, right, HEADER, WHOLE, 0), "split at", at);
    }
    free(whole.log);
    bytes_free(&b);
    bytes_free(&s);
}

/* --- Diversion -------------------------------------------------------------------------------- */

/* What the kernel writes into room[0] is never copied again, and is not written past. */
static void a_diverted_payload_is_read_into_its_place(void) {
    struct bytes b = {0};
    struct rb_intake in;
    struct owner o;
    struct rb_room room[2];
    small_signal(&b, "job", 100000, 12, 0);
    tick(&b);
    owner_open(&o, &in, HEADER, FRAME_MAX, HEAP_MAX);
    CHECK_EQUAL(give(&in, b.at, 1000, WHOLE, 0), 0);
    CHECK(o.diverted == 1 && in.begin == in.end);
    CHECK_EQUAL(rb_intake_room(&in, room), 2);
    size_t head = b.size - 4 - (5 + 12) - 100000, direct = 100000 - (1000 - head);
    CHECK_EQUAL(room[0].size, direct);
    CHECK(room[1].at == in.buffer && room[1].size == 1024);
    /* The rest of the payload, and with it all that follows, in one read. */
    memcpy(room[0].at, b.at + 1000, direct);
    memcpy(room[1].at, b.at + 1000 + direct, b.size - 1000 - direct);
    CHECK_EQUAL(rb_intake_took(&in, b.size - 1000), 0);
    CHECK_EQUAL(o.ended, 1);
    CHECK_EQUAL(rb_intake_room(&in, room), 1);
    CHECK_EQUAL(room[0].size, 65536);
    CHECK(owner_close(&o));
    bytes_free(&b);
}

/* Of a fragmented payload only what the frame still holds may go there: after it comes another
 * frame's head. */
static void a_fragments_room_ends_with_its_frame(void) {
    struct bytes b = {0}, s = {0};
    struct rb_intake in;
    struct owner o;
    struct rb_room room[2];
    put_signal(&s, "job", 50000, 0, 0);
    put_fragment(&b, 1, 3, 2, s.at, 30000);
    owner_open(&o, &in, HEADER, FRAME_MAX, HEAP_MAX);
    CHECK_EQUAL(give(&in, b.at, 10000, WHOLE, 0), 0);
    CHECK_EQUAL(rb_intake_room(&in, room), 2);
    CHECK_EQUAL(room[0].size, b.size - 10000);
    CHECK_EQUAL(give(&in, b.at + 10000, b.size - 10000, WHOLE, 0), 0);
    CHECK_EQUAL(rb_intake_room(&in, room), 1); /* between its fragments: heads first, */
    CHECK_EQUAL(room[0].size, 1024);           /* and of what follows them little */
    CHECK(owner_close(&o) && o.aborted == 1);
    bytes_free(&b);
    bytes_free(&s);
}

/* The kernel writes a payload where workers read it. What came to the buffer first, with the heads of frames, is copied once more: the
 * beginning, and with each further fragment a little. However much is there to be read at once. */
static void nearly_all_of_a_large_payload_is_copied_once(void) {
    enum { SIZE = 1 << 20, FRAGMENT = 65536, FRAGMENTS = SIZE / FRAGMENT + 1 };
    struct bytes b = {0}, s = {0};
    struct rb_intake in;
    struct owner o;
    put_signal(&s, "job", SIZE, 20, 0);
    for (uint64_t i = 0; i < FRAGMENTS; i++) {
        size_t at = (size_t)i * FRAGMENT, n = s.size - at < FRAGMENT ? s.size - at : FRAGMENT;
        put_fragment(&b, i == 0, 5, FRAGMENTS - i, s.at + at, n);
        if (i % 4 == 3) small_signal(&b, "plain", 50, 0, 0); /* other senders go on */
    }
    owner_open(&o, &in, HEADER, FRAME_MAX, HEAP_MAX);
    CHECK_EQUAL(give(&in, b.at, b.size, WHOLE, 0), 0);
    CHECK(o.ended == 1 && o.signals == FRAGMENTS / 4);
    CHECK(in.copied_bytes > 0 && in.copied_bytes <= FRAGMENT + FRAGMENTS * 1024);
    CHECK(owner_close(&o));
    bytes_free(&b);
    bytes_free(&s);
}

static void a_tail_is_kept_up_to_its_bound_and_told_as_cut_beyond(void) {
    static const struct {
        uint32_t options;
        int cut;
    } cases[] = {{0, 0}, {RB_TAIL_MAX - 5, 0}, {RB_TAIL_MAX - 4, 1}, {500000, 1}};
    for (size_t i = 0; i < 4; i++) {
        struct bytes b = {0};
        small_signal(&b, "job", 20000, cases[i].options, 0);
        struct outcome got = run_all(&b, HEADER, 1000, 0);
        CHECK_EQUAL(got.rc, 0);
        CHECK_EQUAL(got.counts.ended, 1);
        CHECK((strstr(got.log, "more") != NULL) == cases[i].cut);
        free(got.log);
        bytes_free(&b);
    }
}

static void a_dropped_signal_of_any_size_costs_no_memory(void) {
    struct bytes b = {0};
    struct rb_intake in;
    struct owner o;
    small_signal(&b, "gone", 3000000, 0, 0);
    owner_open(&o, &in, HEADER, FRAME_MAX, 100000);
    CHECK_EQUAL(give(&in, b.at, b.size - 1, 13, 0), 0);
    CHECK(o.dropped == 1 && o.signals == 0);
    CHECK_EQUAL(in.heap.used, 0);
    CHECK_EQUAL(in.open_count, 1);
    CHECK_EQUAL(give(&in, b.at + b.size - 1, 1, 1, 0), 0);
    CHECK_EQUAL(in.open_count, 0);
    CHECK(owner_close(&o));
    bytes_free(&b);
}

static void a_payload_longer_than_its_signal_closes_and_is_aborted(void) {
    struct bytes b = {0}, s = {0};
    put_signal(&s, "job", 50000, 0, 0);
    s.size -= 1000;
    put_whole(&b, &s, 0);
    struct outcome got = run_all(&b, HEADER, 1000, 0);
    CHECK(got.rc < 0 && strcmp(got.why, "payload_cut_short") == 0);
    CHECK_EQUAL(got.counts.aborted, 1);
    free(got.log);
    bytes_free(&b);
    bytes_free(&s);
}

/* A byte a fragment: the head is looked at when it has grown by a good part, else each byte would cost a look at all of them. */
static void a_head_that_comes_in_crumbs_is_looked_at_a_few_times(void) {
    struct bytes signal = {0}, b = {0};
    put_signal(&signal, "slow", 700, 50, 0);
    for (size_t i = 0; i < signal.size; i++)
        put_fragment(&b, i == 0, 1, signal.size - i, signal.at + i, 1);
    struct outcome got = run_all(&b, HEADER, WHOLE, 0);
    CHECK_EQUAL(got.rc, 0);
    CHECK_EQUAL(got.counts.diverted, 1);
    CHECK(got.counts.more > 0 && got.counts.more < 30);
    CHECK_EQUAL(lines_of(got.log), 1);
    free(got.log);
    bytes_free(&b);
    bytes_free(&signal);
}

static void an_owner_that_refuses_is_asked_no_more(void) {
    struct bytes b = {0};
    for (int large = 0; large < 2; large++) {
        struct rb_intake in;
        struct owner o;
        small_signal(&b, "job", large ? 50000 : 50, 0, 0);
        small_signal(&b, "plain", 50, 0, 0);
        owner_open(&o, &in, HEADER, FRAME_MAX, HEAP_MAX);
        o.refuse = 1;
        CHECK(give(&in, b.at, b.size, 1000, 0) < 0);
        CHECK(strcmp(in.why, "refused") == 0);
        CHECK_EQUAL(o.signals + o.ended, 1);
        CHECK(owner_close(&o) && o.aborted == 0);
        bytes_free(&b);
    }
}

/* --- What closes a connection ----------------------------------------------------------------- */

#define FRAGMENT_NUMBERS(seq, n) "\0\0\0\0\0\0\0" seq "\0\0\0\0\0\0\0" n
#define FIRST(seq, n) "\0\0\0\x14\x83\x45" FRAGMENT_NUMBERS(seq, n) "\0h"
#define NEXT(seq, n) "\0\0\0\x13\x83\x46" FRAGMENT_NUMBERS(seq, n) "h"

static void what_breaks_a_rule_closes_with_its_name(void) {
    static const struct {
        const char *why;
        uint64_t flags;
        const char *bytes;
        size_t size;
    } cases[] = {
#define CASE(why, flags, text) {why, flags, text, sizeof(text) - 1}
        CASE("frame_too_large", HEADER, "\xff\xff\xff\xff"),
        CASE("frame_too_large", HEADER, "\4\0\0\1"),
        CASE("frame_cut_short", HEADER, "\0\0\0\1\x83"),
        CASE("frame_cut_short", HEADER, "\0\0\0\2\x83\x44"),
        CASE("frame_cut_short", HEADER, "\0\0\0\2\x83\x45"),
        CASE("frame_cut_short", HEADER, "\0\0\0\x12\x83\x45" FRAGMENT_NUMBERS("\1", "\1")),
        CASE("frame_cut_short", HEADER, "\0\0\0\x11\x83\x46" FRAGMENT_NUMBERS("\1", "\1")),
        CASE("frame_cut_short", PASS_THROUGH, "\0\0\0\1\x70"),
        /* What follows a frame that is too short is not part of it, even where it looks like it. */
        CASE("frame_cut_short", HEADER, "\0\0\0\1\x83\x44\0\0\0\x83\x44\0\x68\1\x61\5"),
        CASE("frame_cut_short", HEADER, "\0\0\0\2\x83\x44\0\0\0\6\x83\x44\0\x68\1\x61\5"),
        CASE("frame_cut_short", PASS_THROUGH, "\0\0\0\1\x70\x83\0\0\0\x70\x83\x68\1\x61\5"),
        CASE("not_a_distribution_header", HEADER, "\0\0\0\4\x70\x83\x68\0"),
        CASE("not_a_pass_through_frame", PASS_THROUGH, "\0\0\0\4\x83\x44\0\x68"),
        CASE("not_a_pass_through_frame", PASS_THROUGH, "\0\0\0\4\x70\x84\x68\1"),
        CASE("atom_cache_was_not_negotiated", HEADER, "\0\0\0\4\x83\x44\1\x68"),
        CASE("atom_cache_was_not_negotiated", HEADER,
             "\0\0\0\x14\x83\x45" FRAGMENT_NUMBERS("\1", "\1") "\1h"),
        CASE("unknown_frame_kind", HEADER, "\0\0\0\4\x83\x47\0\x68"),
        CASE("unknown_frame_kind", HEADER, "\0\0\0\4\x83\x50\0\x68"),
        CASE("bad_control_message", HEADER, "\0\0\0\3\x83\x44\0"),
        CASE("bad_control_message", HEADER, "\0\0\0\4\x83\x44\0\x6a"),
        CASE("bad_control_message", HEADER, "\0\0\0\5\x83\x44\0\x68\0"),
        CASE("bad_control_message", HEADER, "\0\0\0\6\x83\x44\0\x68\2\x61"),
        CASE("bad_control_message", PASS_THROUGH, "\0\0\0\2\x70\x83"),
        CASE("payload_missing", HEADER, "\0\0\0\x09\x83\x44\0\x68\3\x61\2\x6a\x6a"),
        CASE("payload_missing", PASS_THROUGH, "\0\0\0\x08\x70\x83\x68\3\x61\2\x6a\x6a"),
        CASE("payload_missing", PASS_THROUGH, "\0\0\0\x09\x70\x83\x68\3\x61\2\x6a\x6a\x83"),
        CASE("payload_missing", PASS_THROUGH, "\0\0\0\x09\x70\x83\x68\3\x61\2\x6a\x6a\x6a"),
        CASE("fragment_numbers_begin_at_1", HEADER, FIRST("\0", "\2")),
        CASE("fragment_numbers_begin_at_1", HEADER, FIRST("\1", "\0")),
        CASE("fragment_numbers_begin_at_1", HEADER, NEXT("\1", "\0")),
        CASE("fragment_of_no_open_sequence", HEADER, NEXT("\1", "\1")),
        CASE("fragment_of_no_open_sequence", HEADER, FIRST("\1", "\2") NEXT("\2", "\1")),
        CASE("sequence_already_open", HEADER, FIRST("\1", "\2") FIRST("\1", "\1")),
        CASE("fragment_out_of_order", HEADER, FIRST("\1", "\3") NEXT("\1", "\1")),
        CASE("fragment_out_of_order", HEADER, FIRST("\1", "\3") NEXT("\1", "\3")),
        CASE("bad_control_message", HEADER, FIRST("\1", "\1")),
        CASE("bad_control_message", HEADER, "\0\0\0\x13\x83\x45" FRAGMENT_NUMBERS("\1", "\1") "\0"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes b = exactly(cases[i].bytes, cases[i].size);
        for (size_t chunk = 1; chunk <= b.size; chunk++) {
            struct outcome got = run_all(&b, cases[i].flags, chunk, 0);
            int as_wanted = got.rc < 0 && strcmp(got.why, cases[i].why) == 0;
            if (!as_wanted)
                printf("case %zu in %zu: %s, not %s\n", i, chunk, got.why ? got.why : "ok",
                       cases[i].why);
            CHECK(as_wanted);
            free(got.log);
        }
        bytes_free(&b);
    }
}

static void open_sequences_are_bounded(void) {
    struct rb_intake in;
    struct owner o;
    struct bytes s = {0};
    put_signal(&s, "plain", 10, 0, 0);
    owner_open(&o, &in, HEADER, FRAME_MAX, HEAP_MAX);
    for (uint64_t seq = 1; seq <= 1025; seq++) {
        struct bytes b = {0};
        put_fragment(&b, 1, seq, 2, s.at, s.size);
        int rc = give(&in, b.at, b.size, WHOLE, 0);
        CHECK_EQUAL(rc, seq <= 1024 ? 0 : -EPROTO);
        bytes_free(&b);
    }
    CHECK(in.why && strcmp(in.why, "too_many_open_sequences") == 0);
    CHECK(owner_close(&o));
    CHECK_EQUAL(in.open_count, 0);
    bytes_free(&s);
}

/* All assemblies together, not each by itself; nothing is taken on the word of a count. */
static void assemblies_are_bounded_together(void) {
    struct rb_intake in;
    struct owner o;
    struct bytes s = {0};
    int rc = 0;
    uint64_t seq = 0;
    put_signal(&s, "plain", 30000, 0, 0);
    owner_open(&o, &in, HEADER, FRAME_MAX, 1000000);
    while (rc == 0 && seq < 1000) {
        struct bytes b = {0};
        put_fragment(&b, 1, ++seq, UINT64_MAX, s.at, s.size);
        rc = give(&in, b.at, b.size, 5000, 0);
        CHECK(in.heap.used <= 1000000);
        bytes_free(&b);
    }
    CHECK(rc == -EPROTO && strcmp(in.why, "signal_too_large") == 0);
    CHECK(seq > 20 && seq < 40);
    CHECK(owner_close(&o));
    CHECK_EQUAL(in.heap.used, 0);
    bytes_free(&s);
}

/* LSan is the judge. */
static void closing_at_any_byte_frees_and_aborts_all(void) {
    struct bytes b = medley();
    unsigned aborted = 0;
    for (size_t n = 0; n <= b.size; n++) {
        struct bytes cut = exactly(b.at, n);
        struct outcome got = run_all(&cut, HEADER, WHOLE, 0);
        CHECK_EQUAL(got.rc, 0);
        aborted += got.counts.aborted;
        free(got.log);
        bytes_free(&cut);
    }
    CHECK(aborted > 100);
    bytes_free(&b);
}

static void mutations_give_signals_or_a_reason(void) {
    struct bytes b = medley();
    uint64_t seed = 31;
    int closed = 0, whole = 0;
    for (int i = 0; i < 5000; i++) {
        struct bytes m = exactly(b.at, b.size);
        mutate(&m, &seed);
        struct outcome got = run_all(&m, HEADER, (size_t)(check_random(&seed) % 300) + 1, i & 1);
        closed += got.rc < 0;
        whole += got.rc == 0;
        free(got.log);
        bytes_free(&m);
    }
    CHECK(closed > 100 && whole > 100);
    bytes_free(&b);
}

int main(void) {
    RUN(the_medley_cut_anywhere_gives_the_same_signals);
    RUN(bytes_behind_the_last_frame_wait);
    RUN(large_frames_in_any_portions);
    RUN(large_pass_through_frames_in_any_portions);
    RUN(fragments_of_two_senders_in_any_portions);
    RUN(large_frames_cut_at_each_byte_of_their_heads);
    RUN(a_diverted_payload_is_read_into_its_place);
    RUN(a_fragments_room_ends_with_its_frame);
    RUN(nearly_all_of_a_large_payload_is_copied_once);
    RUN(a_tail_is_kept_up_to_its_bound_and_told_as_cut_beyond);
    RUN(a_dropped_signal_of_any_size_costs_no_memory);
    RUN(a_payload_longer_than_its_signal_closes_and_is_aborted);
    RUN(a_head_that_comes_in_crumbs_is_looked_at_a_few_times);
    RUN(an_owner_that_refuses_is_asked_no_more);
    RUN(what_breaks_a_rule_closes_with_its_name);
    RUN(open_sequences_are_bounded);
    RUN(assemblies_are_bounded_together);
    RUN(closing_at_any_byte_frees_and_aborts_all);
    RUN(mutations_give_signals_or_a_reason);
    return check_end();
}
