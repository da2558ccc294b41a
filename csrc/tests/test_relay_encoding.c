/* Compressed payloads and answers as the relay sees them: flags of envelopes between callers that ask for them and workers that have taken
 * the feature. The relay stands still between two steps; frames are made by hand (frames.h), and no worker here decompresses any. */
#define _GNU_SOURCE
#include "frames.h"
#include "still_lab.h"

static uint8_t room[64 << 10];

/* Worker `i` begins with the feature, or as one of an older kit. */
static void hire(struct still *s, int i, int zstd) {
    if (rb_lab_hire(s->lab.relay, 0, ++s->ids, 16, &s->workers[i]) < 0) abort();
    if (zstd && !rb_link_take(rb_lab_link(s->workers[i]), RB_FEATURE_ZSTD)) abort();
    rb_lab_greet(s->workers[i], "echo");
    still_round(s, 0);
}
static void begin(struct still *s, const char *workers) {
    struct rb_role_config role = lab_role_config();
    role.admission.depth_max = 10000;
    role.choice.credit_us = 0; /* one job at a time */
    role.payload_bytes_max = 1 << 20;
    still_open(s, &role, 0);
    for (int i = 0; workers[i]; i++) hire(s, i, workers[i] == 'z');
}

/* {submit, echo, Payload, Opts}: a whole call, its options made of atoms. */
struct call {
    const void *payload;
    size_t size;
    const char *options[3][2];
    int term; /* the payload is that, as it lies there */
    const char *verb;
};
static void put_options(struct lab_bytes *b, const struct call *c) {
    int count = 0;
    while (count < 3 && c->options[count][0]) count++;
    uint8_t map[5] = {RB_TAG_MAP, 0, 0, 0, (uint8_t)count};
    lab_put(b, map, sizeof map);
    for (int i = 0; i < count; i++) {
        lab_put_atom(b, c->options[i][0]);
        lab_put_atom(b, c->options[i][1]);
    }
}
static void ask(struct still *s, const struct call *c) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->callers;
    lab_monitor(s->lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_verb_head(&b, 4, c->verb ? c->verb : "submit", "echo");
    if (c->term)
        lab_put(&b, c->payload, c->size);
    else
        lab_put_binary(&b, c->payload, c->size);
    put_options(&b, c);
    lab_frame(s->lab.peer, &b);
    still_round(s, 0);
}
static struct frame a_frame(uint32_t content) {
    struct frame f = {.at = room};
    frame_make(&f, FRAME_RLE, (const uint8_t *)"a", content, content);
    return f;
}
static void ask_frame(struct still *s, uint32_t content) {
    struct frame f = a_frame(content);
    ask(s, &(struct call){f.at, f.size, .options = {{"encoding", "zstd"}}});
}
static struct rb_lab_request request_of(struct still *s, int i) {
    struct rb_lab_request q = {.job = 0};
    rb_lab_request(s->workers[i], 0, &q);
    return q;
}
static void complete(struct still *s, int i, uint32_t status, uint32_t flags, const void *bytes,
                     size_t size) {
    struct rb_lab_request q = request_of(s, i);
    struct rb_lab_answer a = {.job = q.job,
                              .status = status,
                              .flags = flags,
                              .payload = bytes,
                              .payload_bytes = (uint32_t)size};
    rb_lab_start(s->workers[i], 1);
    if (rb_lab_complete(s->workers[i], &a) < 0) abort();
    rb_lab_release(s->workers[i], 1);
    still_round(s, 0);
}

/* --- To the worker ------------------------------------------------------------------------------- */

static void a_frame_goes_to_its_worker_as_it_is_with_the_flag(void) {
    struct still s;
    begin(&s, "z");
    CHECK_EQUAL(rb_lab_link(s.workers[0])->theirs->payload_bytes_max, 1 << 20);
    for (uint32_t content = 10; content <= 1 << 20; content *= 100) {
        struct frame f = a_frame(content);
        ask_frame(&s, content);
        struct rb_lab_request q = request_of(&s, 0);
        CHECK(q.flags & RB_FLAG_ZSTD);
        CHECK(!(q.flags & RB_FLAG_ACCEPTS_ZSTD));
        CHECK(q.payload_bytes == f.size && memcmp(q.payload, f.at, f.size) == 0);
        complete(&s, 0, RB_STATUS_OK, 0, "y", 1);
        CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x6d\x00\x00\x00\x01y"));
    }
    ask(&s, &(struct call){"plain", 5, .options = {{"encoding", "identity"}}});
    CHECK_EQUAL(request_of(&s, 0).flags & RB_FLAG_ZSTD, 0);
    complete(&s, 0, RB_STATUS_OK, 0, "y", 1);
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void what_is_no_frame_for_a_link_is_refused_by_its_rule(void) {
    static const char cut[] = "\x28\xb5\x2f\xfd\xa0\x00";
    static const char unsized[] = "\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00";
    static const char dictionary[] = "\x28\xb5\x2f\xfd\x21\x01\x07\x01\x00\x00";
    const struct {
        struct call call;
        const char *words;
    } cases[] = {
        {{"plain bytes", 11, .options = {{"encoding", "zstd"}}}, "magic of a zstd frame"},
        {{"", 0, .options = {{"encoding", "zstd"}}}, "magic of a zstd frame"},
        {{cut, sizeof cut - 1, .options = {{"encoding", "zstd"}}}, "cut short"},
        {{unsized, sizeof unsized - 1, .options = {{"encoding", "zstd"}}}, "does not state"},
        {{dictionary, sizeof dictionary - 1, .options = {{"encoding", "zstd"}}}, "dictionary"},
        {{"\x61\x01", 2, .options = {{"encoding", "zstd"}}, .term = 1},
         "a payload that is a binary"},
        {{"x", 1, .options = {{"encoding", "gzip"}}},
         "encoding must be :zstd or :identity, got :gzip"},
        {{"x", 1, .options = {{"accept", "lz4"}}}, "accept must be :zstd or :identity, got :lz4"},
    };
    struct still s;
    begin(&s, "z");
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask(&s, &cases[i].call);
        CHECK(still_told(&s, cases[i].words, strlen(cases[i].words)));
        CHECK(!still_has_job(&s, 0));
    }
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_BAD_REQUEST], sizeof cases / sizeof *cases);
    ask_frame(&s, (1 << 20) + 1); /* small as it comes, too large as it is meant */
    CHECK(TOLD(&s, "too_large\x62\x00\x10\x00\x00"));
    CHECK_EQUAL(still_stats(&s).accepted, 0);
    still_close(&s);
}

static void a_batch_s_elements_are_looked_at_one_by_one(void) {
    struct still s;
    begin(&s, "zz");
    struct frame f = a_frame(1000);
    struct lab_bytes list = {.size = 0};
    PUT(&list, "\x6c\x00\x00\x00\x03");
    lab_put_binary(&list, f.at, f.size);
    lab_put_binary(&list, "no frame", 8);
    lab_put_binary(&list, f.at, f.size);
    PUT(&list, "\x6a");
    ask(&s,
        &(struct call){list.at, list.size, .options = {{"encoding", "zstd"}, {"accept", "zstd"}},
                       .term = 1, .verb = "submit_many"});
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(request_of(&s, i).flags & ~RB_FLAG_INLINE, RB_FLAG_ZSTD | RB_FLAG_ACCEPTS_ZSTD);
        complete(&s, i, RB_STATUS_OK, i ? RB_FLAG_ZSTD : 0, "y", 1);
    }
    static uint8_t body[8192];
    int n = lab_read(s.lab.peer, body, sizeof body, 0);
    CHECK(n > 0 && memmem(body, (size_t)n, "\x77\x08identity\x6d\x00\x00\x00\x01y", 16));
    CHECK(n > 0 && memmem(body, (size_t)n, "\x77\x04zstd\x6d\x00\x00\x00\x01y", 12));
    CHECK(n > 0 && memmem(body, (size_t)n, "no zstd frame", 13));
    still_close(&s);
}

static void an_operation_that_checks_its_payload_takes_no_frame(void) {
    struct still s;
    struct rb_role_config role = lab_role_config();
    role.ops.table_count = role.ops.nodes_count = 2;
    role.ops.table[0] = (struct rb_op_config){.name = "any", .opcode = 0, .schema = 0};
    role.ops.table[1] = (struct rb_op_config){.name = "text", .opcode = 1, .schema = 1};
    role.ops.nodes[0].kind = RB_SCHEMA_ANY;
    role.ops.nodes[1].kind = RB_SCHEMA_BINARY;
    role.ops.nodes[1].high = 1 << 20;
    still_open(&s, &role, 0);
    hire(&s, 0, 1);
    struct frame f = a_frame(1000);
    ask(&s, &(struct call){f.at, f.size, .options = {{"op", "text"}, {"encoding", "zstd"}}});
    CHECK(TOLD(&s, "op text: its payload is checked before it comes in"));
    CHECK(!still_has_job(&s, 0));
    ask(&s, &(struct call){f.at, f.size, .options = {{"op", "any"}, {"encoding", "zstd"}}});
    CHECK(request_of(&s, 0).flags & RB_FLAG_ZSTD);
    still_close(&s);
}

/* --- To the caller ------------------------------------------------------------------------------- */

static void an_answer_says_how_it_comes_to_who_accepts_both(void) {
    struct still s;
    begin(&s, "z");
    const struct call call = {"x", 1, .options = {{"accept", "zstd"}}};
    ask(&s, &call);
    CHECK_EQUAL(request_of(&s, 0).flags & ~RB_FLAG_INLINE, RB_FLAG_ACCEPTS_ZSTD);
    complete(&s, 0, RB_STATUS_OK, RB_FLAG_ZSTD, "frame", 5);
    CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x68\x02\x77\x04zstd\x6d\x00\x00\x00\x05"
                   "frame"));
    ask(&s, &call);
    complete(&s, 0, RB_STATUS_OK, 0, "plain", 5);
    CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x68\x02\x77\x08identity\x6d\x00\x00\x00\x05plain"));
    ask(&s, &call);
    complete(&s, 0, RB_STATUS_OK, RB_FLAG_TERM, "\x61\x07", 2);
    CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x68\x02\x77\x08identity\x61\x07"));
    ask(&s, &call);
    complete(&s, 0, RB_STATUS_FAILED, 0, "no", 2);
    CHECK(TOLD(&s, "\x68\x03\x77\x0ajob_failed"));
    ask(&s, &(struct call){"x", 1, .options = {{"accept", "zstd"}, {"detail", "true"}}});
    complete(&s, 0, RB_STATUS_OK, RB_FLAG_ZSTD, "frame", 5);
    CHECK(TOLD(&s, "\x68\x03\x77\x02ok\x68\x02\x77\x04zstd\x6d\x00\x00\x00\x05"
                   "frame\x74\x00\x00\x00\x04"));
    memset(room, 'f', sizeof room); /* so large that its bytes are sent from where they lie */
    ask(&s, &(struct call){"x", 1, .options = {{"accept", "zstd"}, {"detail", "true"}}});
    complete(&s, 0, RB_STATUS_OK, RB_FLAG_ZSTD, room, sizeof room);
    CHECK(TOLD(&s, "\x68\x03\x77\x02ok\x68\x02\x77\x04zstd\x6d\x00\x01\x00\x00"
                   "ffff"));
    ask(&s, &(struct call){"x", 1, .options = {{"accept", "identity"}}});
    CHECK_EQUAL(request_of(&s, 0).flags & RB_FLAG_ACCEPTS_ZSTD, 0);
    complete(&s, 0, RB_STATUS_OK, 0, "plain", 5);
    CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x6d\x00\x00\x00\x05plain"));
    still_close(&s);
}

static void accepting_is_a_wish_that_a_worker_without_it_is_not_told(void) {
    struct still s;
    begin(&s, "-");
    ask(&s, &(struct call){"x", 1, .options = {{"accept", "zstd"}}});
    CHECK_EQUAL(request_of(&s, 0).flags & RB_FLAG_ACCEPTS_ZSTD, 0);
    complete(&s, 0, RB_STATUS_OK, 0, "plain", 5);
    CHECK(TOLD(&s, "\x68\x02\x77\x02ok\x68\x02\x77\x08identity\x6d\x00\x00\x00\x05plain"));
    still_close(&s);
}

static void a_worker_that_encodes_what_nobody_accepts_is_fenced(void) {
    static const struct {
        uint32_t status, flags;
        const char *accept, *rule;
    } lies[] = {
        {RB_STATUS_OK, RB_FLAG_ZSTD, "identity", "encoding_not_accepted"},
        {RB_STATUS_OK, RB_FLAG_ZSTD | RB_FLAG_TERM, "zstd", "encoding_of_no_raw_answer"},
        {RB_STATUS_FAILED, RB_FLAG_ZSTD, "zstd", "encoding_of_no_raw_answer"},
        {RB_STATUS_CANCELLED, RB_FLAG_ZSTD, "zstd", "encoding_of_no_raw_answer"},
        {RB_STATUS_PROGRESS, RB_FLAG_ZSTD, "zstd", "encoding_of_no_raw_answer"},
    };
    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct still s;
        begin(&s, "z");
        ask(&s, &(struct call){"x", 1, .options = {{"accept", lies[i].accept}}});
        complete(&s, 0, lies[i].status, lies[i].flags, "y", 1);
        CHECK(still_told(&s, lies[i].rule, strlen(lies[i].rule)));
        still_close(&s);
    }
}

/* --- Workers that differ ------------------------------------------------------------------------- */

static void a_role_whose_workers_all_lack_it_refuses_and_says_the_way_out(void) {
    struct still s;
    begin(&s, "--");
    ask_frame(&s, 1000);
    CHECK(TOLD(&s, "none of the 2 ready workers of role echo takes compressed payloads"));
    CHECK_EQUAL(still_stats(&s).accepted, 0);
    still_close(&s);
}

static void
before_any_worker_is_ready_a_frame_waits_and_is_refused_when_those_that_come_lack_it(void) {
    struct still s;
    begin(&s, "");
    ask_frame(&s, 1000);
    ask_frame(&s, 1000);
    CHECK(still_quiet(&s));
    hire(&s, 0, 1);
    CHECK(request_of(&s, 0).flags & RB_FLAG_ZSTD);
    still_crash(&s, 0);
    CHECK(TOLD(&s, "worker_crashed"));
    CHECK(still_quiet(&s)); /* the other one waits again */
    hire(&s, 1, 0);
    CHECK(TOLD(&s, "none of the 1 ready workers"));
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_BAD_REQUEST], 1);
    still_close(&s);
}

static void of_workers_that_differ_only_those_with_it_get_frames_and_nobody_waits_behind_one(void) {
    struct still s;
    begin(&s, "-z-");
    ask_frame(&s, 1000);
    CHECK(still_has_job(&s, 1));
    ask_frame(&s, 1000); /* waits for worker 1 */
    CHECK(!still_has_job(&s, 0) && !still_has_job(&s, 2));
    still_submit(&s);
    still_submit(&s); /* pass it, as they may go elsewhere */
    CHECK(still_has_job(&s, 0) && still_has_job(&s, 2));
    CHECK_EQUAL(still_role(&s).queued, 1);
    still_submit(&s);
    still_answer(&s, 1, RB_STATUS_OK); /* its room is for who came first */
    CHECK(TOLD_OK(&s));
    CHECK(request_of(&s, 1).flags & RB_FLAG_ZSTD);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    CHECK_EQUAL(request_of(&s, 0).flags & RB_FLAG_ZSTD, 0);
    CHECK(still_has_job(&s, 0));
    still_close(&s);
}

/* Nothing comes back to the queue with it, and nothing else happens: its end alone is what tells them. */
static void who_waits_for_a_frame_s_last_worker_is_told_as_it_goes(void) {
    for (int drained = 0; drained < 2; drained++) {
        struct still s;
        begin(&s, "z-");
        ask_frame(&s, 1000);
        ask_frame(&s, 1000); /* waits for worker 0 */
        CHECK_EQUAL(still_role(&s).queued, 1);
        if (drained) {
            rb_lab_start(s.workers[0], 1);
            CHECK_EQUAL(rb_relay_drain_worker(s.lab.relay, s.ids - 1), 0); /* the first of two */
            still_round(&s, 0);
        } else {
            still_crash(&s, 0);
            CHECK(TOLD(&s, "worker_crashed"));
        }
        CHECK(TOLD(&s, "none of the 1 ready workers"));
        CHECK_EQUAL(still_role(&s).queued, 0);
        still_close(&s);
    }
}

static void what_was_queued_for_all_goes_to_those_that_are_left_with_it(void) {
    struct still s;
    begin(&s, "zz");
    for (int i = 0; i < 6; i++) ask_frame(&s, 1000);
    hire(&s, 2, 0); /* the role is rolled back, worker by worker */
    hire(&s, 3, 0);
    CHECK(!still_has_job(&s, 2) && !still_has_job(&s, 3));
    still_crash(&s, 1);
    CHECK(TOLD(&s, "worker_crashed"));
    for (int i = 0; i < 4; i++) {
        CHECK(request_of(&s, 0).flags & RB_FLAG_ZSTD);
        still_answer(&s, 0, RB_STATUS_OK);
        CHECK(TOLD_OK(&s));
    }
    still_crash(&s, 0);
    CHECK(TOLD(&s, "worker_crashed"));
    CHECK_EQUAL(still_role(&s).queued, 0);
    ask_frame(&s, 1000);
    CHECK(TOLD(&s, "none of the 2 ready workers"));
    still_close(&s);
}

/* By keys: a job's own worker may be one without it, and jobs are stolen. */
static void keys_lead_no_frame_to_a_worker_without_it(void) {
    struct still s;
    struct rb_role_config role = lab_role_config();
    role.admission.depth_max = 10000;
    role.choice.credit_us = 0;
    role.choice.policy = RB_CHOICE_CONSISTENT_HASH;
    role.choice.steal = 1;
    still_open(&s, &role, 0);
    hire(&s, 0, 1);
    hire(&s, 1, 1);
    for (uint32_t i = 0; i < 40; i++) ask_frame(&s, 1000 + i);
    hire(&s, 2, 0);
    hire(&s, 3, 0);
    still_crash(&s, 1);
    for (uint32_t i = 0; i < 40; i++) {
        if (i % 2) ask_frame(&s, 2000 + i);
        for (int w = 0; w < 4; w++) {
            if (w == 1 || !still_has_job(&s, w)) continue;
            CHECK(w == 0 || !(request_of(&s, w).flags & RB_FLAG_ZSTD));
            still_answer(&s, w, RB_STATUS_OK);
        }
    }
    while (still_has_job(&s, 0)) still_answer(&s, 0, RB_STATUS_OK);
    CHECK_EQUAL(still_role(&s).queued, 0);
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_OK], 40 + 20 - 1);
    still_close(&s);
}

static void a_job_that_runs_again_elsewhere_is_told_what_that_worker_may(void) {
    struct still s;
    begin(&s, "z");
    ask(&s, &(struct call){"x", 1, .options = {{"accept", "zstd"}}});
    CHECK(request_of(&s, 0).flags & RB_FLAG_ACCEPTS_ZSTD);
    rb_lab_die(s.workers[0], -1, 9, 0); /* before it began */
    s.workers[0] = NULL;
    still_round(&s, 0);
    hire(&s, 1, 0);
    CHECK_EQUAL(request_of(&s, 1).flags & RB_FLAG_ACCEPTS_ZSTD, 0);
    still_answer(&s, 1, RB_STATUS_OK);
    CHECK(TOLD(&s, "identity"));
    still_close(&s);
}

static void a_key_for_one_piece_of_work_knows_how_it_is_encoded(void) {
    struct still s;
    begin(&s, "zz");
    struct frame f = a_frame(1000);
    ask(&s, &(struct call){f.at, f.size, .options = {{"dedupe", "k"}, {"encoding", "zstd"}}});
    ask(&s, &(struct call){f.at, f.size, .options = {{"dedupe", "k"}}});
    CHECK(TOLD(&s, "another payload, opcode, encoding or accept"));
    ask(&s, &(struct call){f.at, f.size,
                           .options = {{"dedupe", "k"}, {"encoding", "zstd"}, {"accept", "zstd"}}});
    CHECK(TOLD(&s, "another payload, opcode, encoding or accept"));
    ask(&s, &(struct call){f.at, f.size,
                           .options = {{"dedupe", "k"}, {"encoding", "zstd"}}}); /* joins */
    CHECK(!still_has_job(&s, 1));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s) && TOLD_OK(&s));
    ask(&s, &(struct call){"x", 1,
                           .options = {{"dedupe", "m"}, {"accept", "zstd"}, {"detail", "true"}}});
    complete(&s, still_has_job(&s, 0) ? 0 : 1, RB_STATUS_OK, RB_FLAG_ZSTD, "frame", 5);
    CHECK(TOLD(&s, "\x68\x03\x77\x02ok\x68\x02\x77\x04zstd\x6d\x00\x00\x00\x05"
                   "frame\x74"));
    still_close(&s);
}

int main(void) {
    RUN(a_frame_goes_to_its_worker_as_it_is_with_the_flag);
    RUN(what_is_no_frame_for_a_link_is_refused_by_its_rule);
    RUN(a_batch_s_elements_are_looked_at_one_by_one);
    RUN(an_operation_that_checks_its_payload_takes_no_frame);
    RUN(an_answer_says_how_it_comes_to_who_accepts_both);
    RUN(accepting_is_a_wish_that_a_worker_without_it_is_not_told);
    RUN(a_worker_that_encodes_what_nobody_accepts_is_fenced);
    RUN(a_role_whose_workers_all_lack_it_refuses_and_says_the_way_out);
    RUN(before_any_worker_is_ready_a_frame_waits_and_is_refused_when_those_that_come_lack_it);
    RUN(of_workers_that_differ_only_those_with_it_get_frames_and_nobody_waits_behind_one);
    RUN(who_waits_for_a_frame_s_last_worker_is_told_as_it_goes);
    RUN(what_was_queued_for_all_goes_to_those_that_are_left_with_it);
    RUN(keys_lead_no_frame_to_a_worker_without_it);
    RUN(a_job_that_runs_again_elsewhere_is_told_what_that_worker_may);
    RUN(a_key_for_one_piece_of_work_knows_how_it_is_encoded);
    return check_end();
}
