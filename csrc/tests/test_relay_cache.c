/* Signals whose atoms are cache references give what the same signals give with whole atoms: in any portions, in fragments, in
 * any order that senders may choose. */
#include "atom_writer.h"
#include "intake_run.h"

/* --- One stream, written with references or without -------------------------------------------- */

struct stream {
    struct bytes bytes;
    struct atom_sender *sender; /* NULL: whole atoms */
};
struct signal {
    struct bytes terms;
    struct atoms_named atoms;
};

static void begin_signal(const struct stream *s) {
    if (s->sender) begin_references();
}
static void end_signal(const struct stream *s, struct signal *signal) {
    signal->atoms = s->sender ? end_references() : (struct atoms_named){.count = 0};
}

static struct signal signal_to(const struct stream *s, const char *to, uint32_t payload,
                               uint32_t options) {
    struct signal signal = {.terms = {0}};
    begin_signal(s);
    put_signal(&signal.terms, to, payload, options, 0);
    end_signal(s, &signal);
    return signal;
}

static void references(struct stream *s, struct bytes *body, const struct signal *signal) {
    if (s->sender)
        put_references(body, s->sender, &signal->atoms);
    else
        put_u8(body, 0);
}

static void whole(struct stream *s, struct signal *signal) {
    struct bytes body = {0};
    PUT(&body, "\x83\x44");
    references(s, &body, signal);
    put(&body, signal->terms.at, signal->terms.size);
    put_frame(&s->bytes, &body);
    bytes_free(&body);
    bytes_free(&signal->terms);
}

static void whole_to(struct stream *s, const char *to, uint32_t payload, uint32_t options) {
    struct signal signal = signal_to(s, to, payload, options);
    whole(s, &signal);
}

/* Fragment i of n, an equal share each. */
static void part(struct stream *s, const struct signal *signal, uint64_t sequence, unsigned i,
                 unsigned n) {
    struct bytes body = {0};
    size_t from = signal->terms.size * i / n, to = signal->terms.size * (i + 1) / n;
    put_u8(&body, RB_TAG_VERSION);
    put_u8(&body, i == 0 ? 69 : 70);
    put_u64(&body, sequence);
    put_u64(&body, n - i);
    if (i == 0) references(s, &body, signal);
    put(&body, signal->terms.at + from, to - from);
    put_frame(&s->bytes, &body);
    bytes_free(&body);
}

/* {6, From, '', plain} and a random term; pids, references, exports, funs and long atoms among it. */
static void random_to(struct stream *s, uint64_t seed) {
    struct signal signal = {.terms = {0}};
    begin_signal(s);
    put_tuple(&signal.terms, 4);
    put_integer(&signal.terms, RB_OP_REG_SEND);
    put_pid(&signal.terms, "a@b", 3);
    put_atom(&signal.terms, "");
    put_atom(&signal.terms, "plain");
    put_random(&signal.terms, &seed, 5);
    end_signal(s, &signal);
    whole(s, &signal);
}

static void medley_into(struct stream *s) {
    whole_to(s, "plain", 20, 3);
    struct signal one = signal_to(s, "job", 400, 9), two = signal_to(s, "plain", 60, 0),
                  three = signal_to(s, "slow", 900, 40), four = signal_to(s, "gone", 90, 0);
    part(s, &one, 5, 0, 5);
    put_u32(&s->bytes, 0);
    for (uint64_t seed = 1; seed < 40; seed++) random_to(s, seed * 77);
    part(s, &two, 6, 0, 2);
    part(s, &three, 7, 0, 9);
    whole_to(s, "job", 33, 5);
    for (unsigned i = 1; i < 5; i++) part(s, &one, 5, i, 5);
    part(s, &four, 5, 0, 2);
    whole_to(s, "other", 12, 5);
    part(s, &two, 6, 1, 2);
    for (unsigned i = 1; i < 9; i++) part(s, &three, 7, i, 9);
    part(s, &four, 5, 1, 2);
    whole_to(s, "plain", 7, 0);
    bytes_free(&one.terms);
    bytes_free(&two.terms);
    bytes_free(&three.terms);
    bytes_free(&four.terms);
}

static void large_into(struct stream *s) {
    static const struct {
        const char *to;
        uint32_t payload, options;
    } signals[] = {{"job", 20000, 10},  {"plain", 40000, 0},   {"slow", 70000, 300},
                   {"gone", 50000, 50}, {"job", 600000, 0},    {"job", 10, 20000},
                   {"job", 5, 65000},   {"job", 30000, 100000}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        whole_to(s, signals[i].to, signals[i].payload, signals[i].options);
        random_to(s, i + 5);
        struct signal a = signal_to(s, signals[i].to, signals[i].payload, signals[i].options);
        for (unsigned k = 0; k < 7; k++) {
            part(s, &a, 9, k, 7);
            random_to(s, i * 9 + k);
        }
        bytes_free(&a.terms);
    }
}

/* Both ways of writing give the same log, however the second is cut. */
static void same_in_any_portions(void (*into)(struct stream *), unsigned slots, int long_atoms,
                                 int every_cut) {
    static struct atom_sender sender;
    memset(&sender, 0, sizeof sender);
    sender.slots = slots;
    sender.long_atoms = long_atoms;
    struct stream plain = {.sender = NULL}, cached = {.sender = &sender};
    into(&plain);
    into(&cached);
    struct outcome wanted = run_all(&plain.bytes, HEADER, WHOLE, 0);
    CHECK_EQUAL(wanted.rc, 0);
    CHECK(lines_of(wanted.log) > 8);
    static const size_t chunks[] = {1,    2,     3,     7,     31,     100,     1000,
                                    4096, 16383, 16389, 65536, 262144, SIZE_MAX};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        same_as(&wanted, run_all(&cached.bytes, HEADER | CACHE, chunks[i], 0), "chunks", chunks[i]);
        same_as(&wanted, run_all(&cached.bytes, HEADER | CACHE, chunks[i], 1), "first piece",
                chunks[i]);
    }
    for (size_t at = 0; every_cut && at <= cached.bytes.size; at++) {
        struct rb_slice left = {cached.bytes.at, at},
                        right = {cached.bytes.at + at, cached.bytes.size - at};
        same_as(&wanted, run(left, right, HEADER | CACHE, WHOLE, 0), "split at", at);
    }
    free(wanted.log);
    bytes_free(&plain.bytes);
    bytes_free(&cached.bytes);
}

static void references_are_whole_atoms_downstream(void) {
    same_in_any_portions(medley_into, 2048, 0, 1);
}
static void a_fragmented_signal_keeps_its_own_list(void) {
    same_in_any_portions(medley_into, 3, 0, 1);
}
static void long_atoms_have_lengths_of_two_bytes(void) {
    same_in_any_portions(medley_into, 7, 1, 1);
}
static void large_signals_are_expanded_as_they_come(void) {
    same_in_any_portions(large_into, 5, 0, 0);
}

/* --- Bounds ------------------------------------------------------------------------------------ */

/* What a connection that cached `atoms` gets when it then sends one frame of `body`. */
static const char *closed_by(const void *body, size_t size) {
    struct bytes b = {0}, frame = {0};
    put(&frame, body, size);
    put_frame(&b, &frame);
    struct outcome got = run_all(&b, HEADER | CACHE, 1, 0);
    struct outcome at_once = run_all(&b, HEADER | CACHE, WHOLE, 0);
    const char *why = got.rc < 0 ? got.why : "taken";
    CHECK(strcmp(why, at_once.rc < 0 ? at_once.why : "taken") == 0);
    free(got.log);
    free(at_once.log);
    bytes_free(&b);
    bytes_free(&frame);
    return why;
}
#define CLOSED_BY(text) closed_by(text, sizeof(text) - 1)

static void what_breaks_a_rule_of_the_header_closes(void) {
    /* {1, 'a', 'a'} in these: 104 3, 97 1, 82 0, 82 0 */
#define TERM "h\3a\1R\0R\0"
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\1a" TERM), "taken") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x18\5\0\1a" TERM), "taken") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x00\5" TERM), "bad_atom_cache_header") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\1a"
                           "h\3a\1R\0R\1"),
                 "bad_term") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\1a"
                           "h\3a\1R\0"),
                 "bad_control_message") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\1a"
                           "h\3a\1R\0\1"),
                 "bad_term") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\0" TERM), "bad_control_message") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1"), "bad_atom_cache_header") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5"), "bad_atom_cache_header") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\4a"), "bad_atom_cache_header") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x18\5\xff\xff"), "bad_atom_cache_header") == 0);
    CHECK(strcmp(CLOSED_BY("\x83\x44\xff\0\0"), "bad_atom_cache_header") == 0);
    /* A pid whose node is no atom. */
    CHECK(strcmp(CLOSED_BY("\x83\x44\1\x08\5\1a"
                           "h\3a\1Xa\1R\0"),
                 "bad_term") == 0);
}

/* Two bytes may stand for a thousand: what they become counts. */
static void an_expanded_signal_is_bounded(void) {
    for (int fragments = 0; fragments < 2; fragments++) {
        struct bytes body = {0}, b = {0};
        PUT(&body, "\x83");
        put_u8(&body, fragments ? 69 : 68);
        if (fragments) put_u64(&body, 1), put_u64(&body, 1);
        PUT(&body, "\1\x18\5");
        put_u16(&body, 1000);
        put_fill(&body, 'x', 1000);
        PUT(&body, "h\4a\6");
        put_pid(&body, "a@b", 3);
        PUT(&body, "w\0w\5plain");
        put_list(&body, 6000);
        for (int i = 0; i < 6000; i++) PUT(&body, "R\0");
        put_nil(&body);
        put_frame(&b, &body);
        struct rb_intake in;
        struct owner o;
        owner_open(&o, &in, HEADER | CACHE, FRAME_MAX, 1 << 20);
        CHECK(give(&in, b.at, b.size, WHOLE, 0) < 0);
        CHECK(in.why && strcmp(in.why, "signal_too_large") == 0);
        CHECK(owner_close(&o));
        CHECK_EQUAL(in.heap.used, 0);
        bytes_free(&body);
        bytes_free(&b);
    }
}

/* A list may be all that keeps its atoms, so sequences that are never finished count them. */
static void lists_of_open_sequences_are_bounded(void) {
    struct rb_intake in;
    struct owner o;
    int rc = 0;
    uint64_t sequence = 0;
    owner_open(&o, &in, HEADER | CACHE, FRAME_MAX, 1 << 20);
    while (rc == 0 && sequence < 1000) {
        struct bytes body = {0}, b = {0};
        put_u8(&body, RB_TAG_VERSION);
        put_u8(&body, 69);
        put_u64(&body, ++sequence);
        put_u64(&body, 2);
        put_u8(&body, 255);
        put_fill(&body, 0x88, 127);
        put_u8(&body, 0x18);
        for (int i = 0; i < 255; i++) {
            put_u8(&body, (unsigned)i);
            put_u16(&body, 1000);
            put_fill(&body, (unsigned)sequence & 127, 1000);
        }
        put_frame(&b, &body);
        rc = give(&in, b.at, b.size, WHOLE, 0);
        CHECK(in.heap.used <= in.heap.max);
        bytes_free(&body);
        bytes_free(&b);
    }
    CHECK(rc < 0 && strcmp(in.why, "signal_too_large") == 0);
    CHECK(sequence > 2 && sequence < 6);
    CHECK(owner_close(&o));
}

/* Atoms that take turns in one slot, as a BEAM's may: no memory after the first turns. LSan is the judge of what is left. */
/* Funs within funs, more than the expander keeps places for: it keeps no more. */
static void funs_nested_deeply_take_no_place_that_is_not_there(void) {
    struct rb_atom_list none = {.count = 0};
    struct rb_expander e = {.atoms = &none};
    struct rb_budget budget = {.max = 1 << 20};
    struct rb_bytes out = {.at = NULL};
    uint8_t head[30] = {RB_TAG_NEW_FUN};
    for (int i = 0; i < 2 * RB_EXPAND_FUNS; i++)
        CHECK_EQUAL(rb_expand(&e, head, sizeof head, &out, &budget), 0);
    CHECK_EQUAL(e.funs, RB_EXPAND_FUNS);
    CHECK_EQUAL(out.size, 2 * RB_EXPAND_FUNS * sizeof head);
    rb_bytes_free(&out, &budget);
}

static void atoms_that_take_turns_cost_no_memory(void) {
    static struct rb_atom_cache cache;
    struct rb_atom_list list = {.count = 0};
    const struct rb_cached_atom *first = NULL;
    for (int i = 0; i < 100; i++) {
        uint8_t header[] = {1, 8, 5, 4, 'a', 'b', 'c', (uint8_t)('a' + i % 2)};
        CHECK_EQUAL(rb_cache_header(&cache, &list, header, sizeof header, 100), sizeof header);
        CHECK(list.atom[0]->term[5] == 'a' + i % 2);
        if (!first) first = list.atom[0];
        CHECK(list.atom[0] == first);
        rb_atom_list_clear(&list);
    }
    free(cache.slot[5]);
}

static void mutations_give_signals_or_a_reason(void) {
    static struct atom_sender sender = {.slots = 9};
    struct stream cached = {.sender = &sender};
    uint64_t seed = 31;
    int closed = 0, taken = 0;
    medley_into(&cached);
    for (int i = 0; i < 5000; i++) {
        struct bytes m = exactly(cached.bytes.at, cached.bytes.size);
        mutate(&m, &seed);
        struct outcome got =
            run_all(&m, HEADER | CACHE, (size_t)(check_random(&seed) % 300) + 1, i & 1);
        closed += got.rc < 0;
        taken += got.rc == 0;
        free(got.log);
        bytes_free(&m);
    }
    CHECK(closed > 100 && taken > 100);
    bytes_free(&cached.bytes);
}

int main(void) {
    RUN(references_are_whole_atoms_downstream);
    RUN(a_fragmented_signal_keeps_its_own_list);
    RUN(long_atoms_have_lengths_of_two_bytes);
    RUN(large_signals_are_expanded_as_they_come);
    RUN(what_breaks_a_rule_of_the_header_closes);
    RUN(an_expanded_signal_is_bounded);
    RUN(lists_of_open_sequences_are_bounded);
    RUN(funs_nested_deeply_take_no_place_that_is_not_there);
    RUN(atoms_that_take_turns_cost_no_memory);
    RUN(mutations_give_signals_or_a_reason);
    return check_end();
}
