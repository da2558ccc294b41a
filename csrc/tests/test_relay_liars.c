/* What a worker may lie about, as a table: each lie, the rule that it breaks, and what it was asked.
 *
 * Every row is told beside an honest worker and two callers. The liar is fenced by the rule's name and its own caller is told so;
 * the other's answer arrives, later calls go to the honest one, and the books are even. A lie with no rule breaks none: what it says
 * decides nothing, and the job goes on as if it had not been told. */
#define _GNU_SOURCE
#include "liar.h"
#include "ringbridge/telemetry.h"

enum asked { CALL, TERM, ASYNC, STREAM };

struct lie {
    const char *what, *rule;
    void (*tell)(struct liar *);
    enum asked asked;
};

/* --- How it is written ------------------------------------------------------------------------ */

static struct rb_completion envelope(struct liar *l, const void *bytes, size_t size, int flags) {
    struct rb_completion e;
    memset(&e, 0, sizeof e);
    e.job = l->job.job;
    e.flags = (uint16_t)(RB_FLAG_INLINE | flags);
    e.payload_bytes = (uint32_t)size;
    if (size <= sizeof e.body) memcpy(e.body, bytes, size);
    return e;
}
/* As it is. */
static void publish(struct liar *l, const struct rb_completion *e) {
    int64_t slot = rb_ring_claim(&l->link->completion_ring);
    if (slot < 0) abort();
    l->link->completions[slot] = *e;
    rb_ring_publish(&l->link->completion_ring);
    rb_gate_ring(&l->link->waker);
}
/* With a CRC that is right, where there is anything that it could be of. */
static void say(struct liar *l, struct rb_completion e) {
    const uint8_t *payload = e.flags & RB_FLAG_INLINE ? e.body : l->link->results + e.payload_at;
    if (e.payload_bytes <= (e.flags & RB_FLAG_INLINE ? sizeof e.body : 1u << 20))
        e.crc = rb_completion_crc(&e, payload, l->link->header.features);
    publish(l, &e);
}
#define SAY_TERM(l, literal) \
    say_bytes((l), (literal), sizeof(literal) - 1, RB_STATUS_OK, RB_FLAG_TERM)

/* --- Envelopes -------------------------------------------------------------------------------- */

static void with_job(struct liar *l, uint64_t job) {
    struct rb_completion e = envelope(l, "y", 1, 0);
    e.job = job;
    say(l, e);
}
static void of_no_job(struct liar *l) { with_job(l, 0); }
static void of_a_job_to_come(struct liar *l) { with_job(l, l->job.job + 7); }
static void of_anothers_job(struct liar *l) { with_job(l, l->others.job); }
static void of_a_job_without_bounds(struct liar *l) { with_job(l, UINT64_MAX); }
static void with_place(struct liar *l, uint64_t at, uint32_t size) {
    struct rb_completion e = envelope(l, "", 0, 0);
    e.flags = 0;
    e.payload_at = at;
    e.payload_bytes = size;
    publish(l, &e);
}
static void past_the_region(struct liar *l) { with_place(l, 1 << 20, 1); }
static void far_past_the_region(struct liar *l) { with_place(l, UINT64_MAX & ~4095ull, 4096); }
static void within_a_block(struct liar *l) { with_place(l, 4097, 1); }
static void over_the_regions_end(struct liar *l) { with_place(l, (1 << 20) - 4096, 4097); }
static void of_all_lengths(struct liar *l) { with_place(l, 0, UINT32_MAX); }
static void inline_and_too_long(struct liar *l) {
    struct rb_completion e = envelope(l, "", 0, 0);
    e.payload_bytes = RB_INLINE_BYTES_MAX + 1;
    publish(l, &e);
}
static void with_status(struct liar *l, uint16_t status) {
    struct rb_completion e = envelope(l, "y", 1, 0);
    e.status = status;
    say(l, e);
}
static void of_the_next_status(struct liar *l) { with_status(l, RB_STATUS_PROGRESS + 1); }
static void of_the_last_status(struct liar *l) { with_status(l, UINT16_MAX); }
static void torn(struct liar *l) {
    struct rb_completion e = envelope(l, "y", 1, 0);
    e.crc = rb_completion_crc(&e, e.body, l->link->header.features) ^ 1;
    publish(l, &e);
}
static void torn_in_the_region(struct liar *l) {
    static uint8_t bytes[1000];
    struct rb_completion e = envelope(l, "", 0, 0);
    e.flags = 0;
    e.payload_bytes = sizeof bytes;
    e.crc = rb_completion_crc(&e, bytes, l->link->header.features);
    l->link->results[999] = 1;
    publish(l, &e);
}
static void twice(struct liar *l) {
    say_bytes(l, "once", 4, RB_STATUS_OK, 0);
    say_bytes(l, "once", 4, RB_STATUS_OK, 0);
}
static void run_for_ever(struct liar *l) {
    struct rb_completion e = envelope(l, "ok", 2, 0);
    e.run_ns = e.queue_ns = UINT64_MAX;
    e.reserved = UINT16_MAX;
    memset(e.reserved2, 255, sizeof e.reserved2);
    say(l, e);
}

/* --- Positions -------------------------------------------------------------------------------- */

static void move(struct liar *l, uint64_t *word, uint64_t to) {
    rb_store_seq_cst(word, to);
    rb_gate_ring(&l->link->waker);
}
static void tail_backwards(struct liar *l) { move(l, &l->link->ours->completion_tail, UINT64_MAX); }
static void tail_over_the_ring(struct liar *l) { move(l, &l->link->ours->completion_tail, 17); }
static void tail_without_bounds(struct liar *l) {
    move(l, &l->link->ours->completion_tail, 1ull << 63);
}
static void tail_over_old_slots(struct liar *l) { move(l, &l->link->ours->completion_tail, 1); }
static void started_without_bounds(struct liar *l) { move(l, &l->link->ours->started, UINT64_MAX); }
static void giveback_head(struct liar *l) { move(l, &l->link->ours->giveback_head, 1000); }
static void park_and_doorbell(struct liar *l) {
    rb_store_seq_cst(&l->link->ours->park, UINT32_MAX);
    rb_store_seq_cst(&l->link->ours->doorbell, UINT32_MAX);
}

/* --- Pages that describe it -------------------------------------------------------------------- */

static void another_hello(struct liar *l) { memset(l->link->hello, 0xee, sizeof *l->link->hello); }
static void a_refusal_afterwards(struct liar *l) {
    rb_store_release(&l->link->hello->hello, RB_HELLO_REFUSED);
}
static void telemetry_of_nonsense(struct liar *l) {
    memset(l->link->telemetry, 0xee, sizeof *l->link->telemetry);
}
static void telemetry_never_whole(struct liar *l) {
    rb_store_release(&l->link->telemetry->sequence, 1);
}

/* --- Parts and progress ------------------------------------------------------------------------ */

static void part(struct liar *l, uint32_t size) {
    static uint8_t bytes[RB_PART_BYTES_MAX];
    say_bytes(l, bytes, size, RB_STATUS_PART, 0);
}
static void a_part(struct liar *l) { part(l, 4); }
static void three_parts_for_two(struct liar *l) {
    for (int i = 0; i < 3; i++) part(l, 4);
}
static void a_part_too_large(struct liar *l) {
    struct rb_completion e = envelope(l, "", 0, 0);
    e.flags = 0;
    e.status = RB_STATUS_PART;
    e.payload_bytes = (1 << 20) + 1; /* of a region that is larger */
    publish(l, &e);
}
static void a_part_after_the_end(struct liar *l) {
    say_bytes(l, "", 0, RB_STATUS_OK, 0);
    part(l, 4);
}
static void a_part_of_anothers(struct liar *l) {
    l->job.job = l->others.job;
    part(l, 4);
}
static void a_part_that_is_no_term(struct liar *l) {
    say_bytes(l, "\x68\x02", 2, RB_STATUS_PART, RB_FLAG_TERM);
}
static void progress(struct liar *l) { say_bytes(l, "half", 4, RB_STATUS_PROGRESS, 0); }
static void progress_too_long(struct liar *l) {
    static uint8_t bytes[RB_PROGRESS_BYTES_MAX + 1];
    say_bytes(l, bytes, sizeof bytes, RB_STATUS_PROGRESS, 0);
}
static void progress_that_is_no_term(struct liar *l) {
    say_bytes(l, "\x68\x02", 2, RB_STATUS_PROGRESS, RB_FLAG_TERM);
}
static void progress_with_a_pid(struct liar *l) {
    SAY_TERM(l, "\x58\x77\1a\0\0\0\1\0\0\0\0\0\0\0\1");
}

/* --- Terms ------------------------------------------------------------------------------------- */

static void nothing(struct liar *l) { say_bytes(l, "", 0, RB_STATUS_OK, RB_FLAG_TERM); }
static void cut_short(struct liar *l) { SAY_TERM(l, "\x68\x02\x61\x01"); }
static void a_list_of_all(struct liar *l) { SAY_TERM(l, "\x6c\xff\xff\xff\xff\x61\x01"); }
static void a_binary_of_all(struct liar *l) { SAY_TERM(l, "\x6d\xff\xff\xff\xff"); }
static void two_terms(struct liar *l) { SAY_TERM(l, "\x61\x01\x61\x02"); }
static void with_a_version(struct liar *l) { SAY_TERM(l, "\x83\x61\x01"); }
static void compressed(struct liar *l) { SAY_TERM(l, "\x50\0\0\0\2\x78\x9c\x4b\x64\x04\0\1"); }
static void of_a_cache_reference(struct liar *l) { SAY_TERM(l, "\x52\x00"); }
static void local(struct liar *l) { SAY_TERM(l, "\x79\0\0\0\0\0\0\0\0\x61\x01"); }
static void too_deep(struct liar *l) {
    static uint8_t bytes[2 * 513 + 1];
    for (int i = 0; i < 513; i++) memcpy(bytes + (ptrdiff_t)2 * i, "\x68\x01", 2);
    bytes[sizeof bytes - 1] = RB_TAG_NIL;
    say_bytes(l, bytes, sizeof bytes, RB_STATUS_OK, RB_FLAG_TERM);
}
static void a_million_atoms(struct liar *l) {
    enum { ATOM = 2 + 7, FITS = 100000 };
    static uint8_t bytes[5 + FITS * ATOM + 1];
    bytes[0] = RB_TAG_LIST;
    rb_put_be32(bytes + 1, FITS);
    for (int i = 0; i < FITS; i++) {
        char text[16];
        snprintf(text, sizeof text, "n%06d", i);
        bytes[5 + i * ATOM] = RB_TAG_SMALL_ATOM_UTF8;
        bytes[6 + i * ATOM] = 7;
        memcpy(bytes + 7 + (ptrdiff_t)i * ATOM, text, 7);
    }
    bytes[sizeof bytes - 1] = RB_TAG_NIL;
    say_bytes(l, bytes, sizeof bytes, RB_STATUS_OK, RB_FLAG_TERM);
}
static void a_long_atom(struct liar *l) {
    static uint8_t bytes[3 + 300] = "\x76\x01\x2c";
    memset(bytes + 3, 'a', 300);
    say_bytes(l, bytes, sizeof bytes, RB_STATUS_OK, RB_FLAG_TERM);
}
static void an_atom_that_is_no_text(struct liar *l) { SAY_TERM(l, "\x77\x02\xff\xfe"); }
static void a_pid(struct liar *l) { SAY_TERM(l, "\x58\x77\1a\0\0\0\1\0\0\0\0\0\0\0\1"); }
static void the_callers_pid_changed(struct liar *l) {
    uint8_t bytes[64];
    size_t size = l->job.payload_bytes;
    if (size > sizeof bytes) abort();
    memcpy(bytes, l->job.payload, size);
    bytes[size - 1] ^= 1; /* {Pid}: its creation */
    say_bytes(l, bytes, (uint32_t)size, RB_STATUS_OK, RB_FLAG_TERM);
}
static void a_port(struct liar *l) { SAY_TERM(l, "\x59\x77\1a\0\0\0\1\0\0\0\1"); }
static void a_reference(struct liar *l) { SAY_TERM(l, "\x5a\0\1\x77\1a\0\0\0\1\0\0\0\1"); }
static void a_fun(struct liar *l) {
    SAY_TERM(l, "\x70\0\0\0\x34\0" /* 16 bytes of uniq, index, free variables */
                "0123456789abcdef\0\0\0\0\0\0\0\0\x77\1m\x61\0\x61\0\x58\x77\1a\0\0\0\1\0\0\0\0\0\0"
                "\0\1");
}
static void an_export(struct liar *l) { SAY_TERM(l, "\x71\x77\2os\x77\3cmd\x61\1"); }
static void a_key_twice(struct liar *l) { SAY_TERM(l, "\x74\0\0\0\2\x61\1\x61\1\x61\1\x61\2"); }
static void no_number(struct liar *l) { SAY_TERM(l, "\x46\x7f\xf8\0\0\0\0\0\0"); }
static void no_bits(struct liar *l) { SAY_TERM(l, "\x4d\0\0\0\1\0\xff"); }
static void a_number_without_end(struct liar *l) { SAY_TERM(l, "\x6f\xff\xff\xff\xff\0"); }

static const struct lie lies[] = {
    {"a completion of job 0", "completion_of_no_job_here", of_no_job, CALL},
    {"of a job that was never given", "completion_of_no_job_here", of_a_job_to_come, CALL},
    {"of another worker's job", "completion_of_no_job_here", of_anothers_job, CALL},
    {"of job 2^64 - 1", "completion_of_no_job_here", of_a_job_without_bounds, CALL},
    {"the same twice", "completion_of_no_job_here", twice, CALL},
    {"an offset past the region", "completion_payload_out_of_range", past_the_region, CALL},
    {"an offset near 2^64", "completion_payload_out_of_range", far_past_the_region, CALL},
    {"an offset within a block", "completion_payload_out_of_range", within_a_block, CALL},
    {"a length over its end", "completion_payload_out_of_range", over_the_regions_end, CALL},
    {"a length of 2^32 - 1", "completion_payload_out_of_range", of_all_lengths, CALL},
    {"an inline length of 65", "completion_payload_out_of_range", inline_and_too_long, CALL},
    {"a status that is none", "completion_status", of_the_next_status, CALL},
    {"status 65535", "completion_status", of_the_last_status, CALL},
    {"a torn envelope", "completion_crc", torn, CALL},
    {"a torn payload", "completion_crc", torn_in_the_region, CALL},
    {"times of 2^64 - 1 ns", NULL, run_for_ever, CALL},
    {"a tail that runs backwards", "completion_tail_out_of_range", tail_backwards, CALL},
    {"a tail a ring ahead", "completion_tail_out_of_range", tail_over_the_ring, CALL},
    {"a tail at 2^63", "completion_tail_out_of_range", tail_without_bounds, CALL},
    {"a tail over an empty slot", "completion_of_no_job_here", tail_over_old_slots, CALL},
    {"everything is started", NULL, started_without_bounds, CALL},
    {"blocks taken that were never given", NULL, giveback_head, CALL},
    {"park and doorbell of nonsense", NULL, park_and_doorbell, CALL},
    {"another hello", NULL, another_hello, CALL},
    {"a refusal after the greeting", NULL, a_refusal_afterwards, CALL},
    {"telemetry of nonsense", NULL, telemetry_of_nonsense, CALL},
    {"telemetry that is never whole", NULL, telemetry_never_whole, CALL},
    {"a part of a plain job", "part_not_asked", a_part, CALL},
    {"a part without demand", "part_without_demand", three_parts_for_two, STREAM},
    {"a part over 1 MiB", "completion_payload_out_of_range", a_part_too_large, STREAM},
    {"a part after the end", "completion_of_no_job_here", a_part_after_the_end, STREAM},
    {"a part of another's job", "completion_of_no_job_here", a_part_of_anothers, STREAM},
    {"a part that is no term", "term_cut_short", a_part_that_is_no_term, STREAM},
    {"progress of a plain job", "progress_not_asked", progress, CALL},
    {"progress over 4 KiB", "progress_too_large", progress_too_long, ASYNC},
    {"progress that is no term", "term_cut_short", progress_that_is_no_term, ASYNC},
    {"an asynchronous answer with a pid", "term_identity", progress_with_a_pid, ASYNC},
    {"a term of no bytes", "term_cut_short", nothing, CALL},
    {"a tuple cut short", "term_cut_short", cut_short, TERM},
    {"a list of 2^32 - 1", "term_cut_short", a_list_of_all, TERM},
    {"a binary of 2^32 - 1", "term_cut_short", a_binary_of_all, TERM},
    {"two terms", "term_trailing_bytes", two_terms, TERM},
    {"a version byte", "term_tag", with_a_version, TERM},
    {"a compressed term", "term_tag", compressed, TERM},
    {"a cache reference", "term_tag", of_a_cache_reference, TERM},
    {"a local term", "term_tag", local, TERM},
    {"513 deep", "term_depth", too_deep, TERM},
    {"atoms without end", "term_atom_new", a_million_atoms, TERM},
    {"an atom of 300 characters", "term_atom_text", a_long_atom, TERM},
    {"an atom that is no UTF-8", "term_atom_text", an_atom_that_is_no_text, TERM},
    {"a pid", "term_identity", a_pid, TERM},
    {"the caller's pid, of another life", "term_identity", the_callers_pid_changed, TERM},
    {"a port", "term_identity", a_port, TERM},
    {"a reference", "term_identity", a_reference, TERM},
    {"a fun", "term_identity", a_fun, TERM},
    {"an exported fun", "term_identity", an_export, TERM},
    {"a map with a key twice", "term_map_key", a_key_twice, TERM},
    {"a float that is no number", "term_float", no_number, TERM},
    {"a bit string of no bits", "term_bits", no_bits, TERM},
    {"an integer of 2^32 - 1 bytes", "term_bignum", a_number_without_end, TERM},
};

/* --- How each is told ---------------------------------------------------------------------------- */

static void stream_head(struct lab_bytes *b, const char *verb, uint8_t arity) {
    PUT(b, "\x68\x04\x61\x06");
    lab_put_pid(b, "peer@host", 900);
    lab_put_atom(b, "");
    lab_put_atom(b, "streams");
    PUT(b, "\x68\x03");
    lab_put_atom(b, "$gen_producer");
    PUT(b, "\x68\x02");
    lab_put_pid(b, "peer@host", 900);
    lab_put_ref(b, 900);
    uint8_t tuple[2] = {RB_TAG_SMALL_TUPLE, arity};
    lab_put(b, tuple, 2);
    lab_put_atom(b, verb);
}
/* A stream with a demand of 2. */
static void subscribe(int peer) {
    struct lab_bytes b = {.size = 0}, ask = {.size = 0};
    stream_head(&b, "subscribe", 3);
    lab_put_atom(&b, "nil");
    PUT(&b, "\x6c\x00\x00\x00\x01\x68\x02");
    lab_put_atom(&b, "job");
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, "echo");
    lab_put_binary(&b, "go", 2);
    PUT(&b, "\x6a");
    lab_frame(peer, &b);
    stream_head(&ask, "ask", 2);
    PUT(&ask, "\x61\x02");
    lab_frame(peer, &ask);
}
static void ask(struct liar *l, enum asked how) {
    struct lab_bytes b = {.size = 0};
    if (how == CALL) {
        crew_submit(&l->c, 1, "for the liar", 12);
    } else if (how == STREAM) {
        subscribe(l->c.lab.peer);
    } else {
        uint32_t ref = ++l->c.refs;
        lab_monitor(l->c.lab.peer, 1, 1, ref);
        lab_call_head(&b, 1, ref);
        lab_verb_head(&b, 3, how == ASYNC ? "submit_async" : "submit", "echo");
        PUT(&b, "\x68\x01");
        lab_put_pid(&b, "peer@host", 1);
        lab_frame(l->c.lab.peer, &b);
    }
    crew_round(&l->c);
}

static void the_lie(const struct lie *lie) {
    static struct liar all;
    struct liar *l = &all;
    struct rb_role_config role = crew_role();
    crew_open(&l->c, 1, &role);
    if (rb_relay_install_service(l->c.lab.relay, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0)
        abort();
    ask(l, lie->asked);
    crew_hire(&l->c, HONEST); /* the liar has its job: the next one is this one's */
    uint32_t other = crew_submit(&l->c, 2, "for the honest one", 18);
    crew_round(&l->c);
    CHECK(rb_lab_request(l->c.workers[LIAR], 0, &l->job) == 0);
    CHECK(rb_lab_request(l->c.workers[HONEST], 0, &l->others) == 0);
    l->link = rb_lab_link(l->c.workers[LIAR]);
    rb_lab_start(l->c.workers[LIAR], 1);
    listen_to(l);
    CHECK(!told(l, RB_EVENT_WORKER_BROKE, NULL));

    lie->tell(l);
    listen_to(l);
    CHECK_EQUAL(told(l, RB_EVENT_WORKER_BROKE, lie->rule), lie->rule != NULL);
    CHECK_EQUAL(has("worker_broke"),
                lie->rule && lie->tell != twice && lie->tell != a_part_after_the_end);
    if (has("worker_broke")) CHECK(has(lie->rule));
    if (!lie->rule) {
        if (lie->tell != run_for_ever) say_bytes(l, "ok", 2, RB_STATUS_OK, 0);
        rb_lab_release(l->c.workers[LIAR], 1);
        if (lie->tell != run_for_ever) listen_to(l);
        CHECK(has("\x77\x02ok\x6d\0\0\0\2ok") || has("\x77\x02ok\x6d"));
    }

    /* Nothing else has moved. */
    struct rb_lab_answer a = {
        .job = l->others.job, .payload = (const uint8_t *)"honest", .payload_bytes = 6};
    rb_lab_start(l->c.workers[HONEST], 1);
    CHECK(rb_lab_complete(l->c.workers[HONEST], &a) == 0);
    rb_lab_release(l->c.workers[HONEST], 1);
    listen_to(l);
    CHECK(has("honest"));
    (void)other;
    crew_die(&l->c, LIAR);
    crew_submit(&l->c, 3, "again", 5);
    crew_round(&l->c);
    crew_run_dry(&l->c, NULL);
    listen_to(l);
    CHECK(has("again"));
    struct rb_role_stats stats = crew_stats(&l->c);
    int broke = lie->rule && lie->tell != twice && lie->tell != a_part_after_the_end;
    CHECK_EQUAL(stats.answered[RB_REASON_WORKER_BROKE], broke);
    CHECK_EQUAL(crew_answered(&l->c), 3);
    CHECK_EQUAL(stats.answered[RB_REASON_OK], 3 - broke);
    crew_close(&l->c);
}

int main(void) {
    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
        check_name = lies[i].what;
        check_breaches = 0;
        alarm(30);
        the_lie(&lies[i]);
        alarm(0);
        if (check_breaches)
            check_failed++;
        else
            check_passed++;
    }
    return check_end();
}
