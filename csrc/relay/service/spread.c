/* spread.c: the jobs of the step under way.
 *
 * The first one is judged as any job that comes, and its refusal ends the whole. What comes behind it waits for room in the bridge,
 * where its payload lies already: until one of its siblings is over, or until the time has passed after which a caller would be told to
 * try again. While siblings are under way it begins only where there is room now: it displaces nobody, and is not kept outside a queue
 * for so long that it would be told overloaded. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/operation.h"
#include "relay/service/picture.h"
#include "relay/service/pipeline_pvt.h"
#include "relay/service/schema.h"

enum {
    TURN = 64, /* jobs that one pipeline begins before the others have theirs */
    LOOK_AGAIN_MS = 10,
    LIST_HEAD = 5,
};

/* {ok, Value} and {error, Reason} begin so, as answer.c writes them. */
static const uint8_t ok_head[] = {RB_TAG_SMALL_TUPLE, 2, RB_TAG_SMALL_ATOM_UTF8, 2, 'o', 'k'};
static const uint8_t error_head[] = {
    RB_TAG_SMALL_TUPLE, 2, RB_TAG_SMALL_ATOM_UTF8, 5, 'e', 'r', 'r', 'o', 'r'};

static int is_list(const struct rb_pipeline *p) { return rb_course_step(p)->kind != RB_STEP_ONE; }

/* --- What it keeps ------------------------------------------------------------------------------------------------------- */

static void charge(struct rb_pipeline *p, uint64_t bytes) {
    p->charged_bytes += bytes;
    if (p->charged) p->charged->gathered += bytes;
}

static void discharge(struct rb_pipeline *p, uint64_t bytes) {
    p->charged_bytes -= bytes;
    if (p->charged) p->charged->gathered -= bytes;
}

void rb_spread_mute(struct rb_pipeline *p) {
    if (p->charged) p->charged->gathered -= p->charged_bytes;
    p->charged = NULL;
}

/* Of a caller that has gone, one pipeline may keep as much as all of a connection. */
static int has_room(const struct rb_pipeline *p, uint64_t bytes) {
    uint64_t kept = p->charged ? p->charged->gathered : p->charged_bytes;
    return kept + bytes <= rb_keep_max(&p->relay->config);
}

int rb_spread_charge_record(struct rb_pipeline *p) {
    if (!has_room(p, p->own_bytes)) return -ENOMEM;
    charge(p, p->own_bytes);
    return 0;
}

static void drop_kept(struct rb_pipeline *p) {
    free(p->kept);
    p->kept = NULL;
    discharge(p, p->kept_charged);
    p->kept_charged = 0;
}

static void drop_answers(struct rb_pipeline *p) {
    free(p->answers.at);
    p->answers = (struct rb_buffer){.at = NULL};
}

void rb_spread_forget(struct rb_pipeline *p) {
    rb_spread_mute(p); /* its connection may end before its last job does */
    p->charged_bytes = p->kept_charged = 0;
    drop_kept(p);
    drop_answers(p);
    if (p->branches != &p->only) free(p->branches);
    p->branches = &p->only;
    p->capacity = 1;
    free(p->words);
    p->words = NULL;
}

/* --- Failures ------------------------------------------------------------------------------------------------------------ */

/* The first one counts. */
void rb_spread_fail(struct rb_pipeline *p, uint32_t step, int64_t branch, enum rb_reason reason) {
    if (p->failed) return;
    p->failed = 1;
    p->failed_step = step;
    p->failed_branch = branch;
    p->reason = reason;
}

static void set_words(struct rb_pipeline *p, const struct rb_slice pieces[3], size_t without) {
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    uint8_t *to = p->words = malloc(size);
    if (!to) return; /* its name will do */
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
    p->words_size = size - without;
    memmove(p->words, p->words + without, p->words_size);
}

static void fail_in_words(struct rb_pipeline *p, uint32_t step, int64_t branch,
                          enum rb_reason reason, const struct rb_pen *pen) {
    const struct rb_slice pieces[3] = {rb_pen_written(pen), {NULL, 0}, {NULL, 0}};
    if (p->failed) return;
    rb_spread_fail(p, step, branch, reason);
    set_words(p, pieces, 0);
}

static void fail_no_room(struct rb_pipeline *p, int64_t branch, const char *why) {
    uint8_t room[256];
    struct rb_pen pen = {room, room};
    rb_pen_tuple(&pen, 3);
    rb_pen_atom(&pen, rb_reason_name(RB_REASON_JOB_FAILED));
    rb_pen_unsigned(&pen, RB_CODE_ANSWER_TOO_LARGE);
    rb_pen_text(&pen, why);
    fail_in_words(p, p->at, branch, RB_REASON_JOB_FAILED, &pen);
}

static const char no_memory[] = "the bridge has no memory for what its stages keep";

static void fail_too_much(struct rb_pipeline *p, int64_t branch) {
    char why[160];
    snprintf(why, sizeof why,
             "what batches and stages of a connection keep may be %llu bytes together, and no more",
             (unsigned long long)rb_keep_max(&p->relay->config));
    fail_no_room(p, branch, why);
}

static void fail_too_large(struct rb_pipeline *p, uint32_t step, int64_t branch, uint64_t limit) {
    uint8_t room[64];
    struct rb_pen pen = {room, room};
    rb_pen_tuple(&pen, 2);
    rb_pen_atom(&pen, rb_reason_name(RB_REASON_TOO_LARGE));
    rb_pen_unsigned(&pen, limit);
    fail_in_words(p, step, branch, RB_REASON_TOO_LARGE, &pen);
}

static void fail_bad_request(struct rb_pipeline *p, int64_t branch, const char *why) {
    uint8_t room[RB_WHY_BYTES + 64];
    struct rb_pen pen = {room, room};
    rb_pen_tuple(&pen, 2);
    rb_pen_atom(&pen, rb_reason_name(RB_REASON_BAD_REQUEST));
    rb_pen_text(&pen, why);
    fail_in_words(p, p->at, branch, RB_REASON_BAD_REQUEST, &pen);
}

/* --- Answers ------------------------------------------------------------------------------------------------------------- */

/* Room for one more value of the list, behind its head, with the end of the list behind it; NULL: there is none, and it has failed. */
static uint8_t *room_in_list(struct rb_pipeline *p, uint32_t index, size_t size) {
    size_t head = p->answers.end ? 0 : LIST_HEAD;
    uint64_t list = p->answers.end + head + size + 1;
    if (list > p->list_bytes_max) {
        fail_too_large(p, p->at + 1, p->list_branch, p->list_bytes_max);
        return NULL;
    }
    if (!has_room(p, head + size)) {
        fail_too_much(p, index);
        return NULL;
    }
    uint8_t *to = rb_buffer_room(&p->answers, head + size + 1);
    if (!to) {
        fail_no_room(p, index, no_memory);
        return NULL;
    }
    p->answers.end += head;
    charge(p, head + size);
    return to + head;
}

/* Of one job: the whole, as it was said, for it may be the caller's. */
static uint8_t *room_for_one(struct rb_pipeline *p, size_t size) {
    p->answers = (struct rb_buffer){.at = malloc(size), .capacity = size};
    if (!p->answers.at) fail_no_room(p, RB_BRANCH_NONE, no_memory);
    return p->answers.at;
}

void rb_pipeline_put(struct rb_pipeline *p, uint32_t index, const struct rb_slice pieces[3]) {
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    size_t head = is_list(p) ? sizeof ok_head : 0;
    int ok = pieces[0].size >= sizeof error_head
                 ? memcmp(pieces[0].at, error_head, sizeof error_head) != 0
                 : 1;
    if (!ok) { /* the reason that counts comes with its end */
        rb_spread_fail(p, p->at, index, RB_REASON_OK);
        set_words(p, pieces, sizeof error_head);
        return;
    }
    uint8_t *to = head ? room_in_list(p, index, size - head) : room_for_one(p, size);
    if (!to) return;
    p->branches[index].at = p->answers.end;
    p->branches[index].size = (uint32_t)(size - head);
    p->answers.end += size - head;
    p->in_order &= index == p->next_index;
    p->next_index = index + 1;
    memcpy(to, pieces[0].at + head, pieces[0].size - head);
    to += pieces[0].size - head;
    for (int i = 1; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
}

void rb_spread_gather(struct rb_pipeline *p) {
    struct rb_buffer *b = &p->answers;
    if (!is_list(p)) return;
    if (p->begun == 0) {
        if (!(b->at = malloc(1))) {
            fail_no_room(p, RB_BRANCH_NONE, no_memory);
            return;
        }
        b->capacity = b->end = 1;
        b->at[0] = RB_TAG_NIL;
        return;
    }
    if (!p->in_order) {
        uint8_t *sorted = malloc(b->end + 1), *to;
        if (!sorted) {
            fail_no_room(p, RB_BRANCH_NONE, no_memory);
            return;
        }
        to = sorted + LIST_HEAD;
        for (uint32_t i = 0; i < p->begun; i++) {
            memcpy(to, b->at + p->branches[i].at, p->branches[i].size);
            to += p->branches[i].size;
        }
        free(b->at);
        b->at = sorted;
        b->capacity = b->end + 1;
    }
    b->at[0] = RB_TAG_LIST;
    rb_put_be32(b->at + 1, p->begun);
    b->at[b->end++] = RB_TAG_NIL; /* room_in_list() took room for it */
}

void rb_spread_pass(struct rb_pipeline *p) {
    struct rb_slice value = {p->answers.at, p->answers.end};
    int list = is_list(p);
    if (!list) value = (struct rb_slice){value.at + sizeof ok_head, value.size - sizeof ok_head};
    p->kept = p->answers.at;
    p->kept_charged = p->charged_bytes - p->own_bytes; /* all of it is of the list */
    p->answers = (struct rb_buffer){.at = NULL};
    p->at++;
    rb_spread_set(p, value);
    if (list || !is_list(p)) return;
    if (!has_room(p, value.size)) {
        fail_too_much(p, RB_BRANCH_NONE);
        return;
    }
    charge(p, value.size);
    p->kept_charged = value.size;
}

void rb_spread_keep(struct rb_pipeline *p) {
    int map = rb_course_step(p)->kind == RB_STEP_MAP;
    struct rb_slice rest = p->value, *taken = &p->next_payload;
    if (map) {
        rest.at = taken->at && !p->elements.string ? taken->at : p->elements.at.at;
        rest.size = (size_t)(p->elements.at.end - rest.at);
    }
    if (!has_room(p, rest.size)) {
        fail_too_much(p, RB_BRANCH_NONE);
        return;
    }
    if (!(p->kept = malloc(rest.size))) {
        fail_no_room(p, RB_BRANCH_NONE, no_memory);
        return;
    }
    memcpy(p->kept, rest.at, rest.size);
    charge(p, rest.size);
    p->kept_charged = rest.size;
    const uint8_t *from = rest.at;
    if (taken->at && !(map && p->elements.string)) taken->at = p->kept + (taken->at - from);
    if (map) {
        size_t passed = (size_t)(p->elements.at.at - from);
        p->elements.at = (struct rb_cursor){.at = p->kept + passed, .end = p->kept + rest.size};
    } else {
        p->value = (struct rb_slice){p->kept, rest.size};
    }
}

/* --- Jobs ---------------------------------------------------------------------------------------------------------------- */

static const struct rb_course_role *role_of(const struct rb_pipeline *p, uint32_t branch) {
    const struct rb_course_step *step = rb_course_step(p);
    return &step->roles[step->kind == RB_STEP_MAP ? 0 : branch];
}

enum begun { BEGUN, MUST_WAIT, FAILED };

static enum begun fail(struct rb_pipeline *p, enum rb_reason reason) {
    rb_spread_fail(p, p->at, p->begun, reason);
    return FAILED;
}

static enum begun refused(struct rb_pipeline *p, const struct rb_caller *to,
                          const struct rb_verdict *v) {
    if (v->reason == RB_REASON_OVERLOADED || v->reason == RB_REASON_CIRCUIT_OPEN)
        rb_answer_retry_after(to, v->reason, v->retry_ms);
    fail(p, v->reason);
    p->reason = v->reason;
    p->rule = v->rule;
    return FAILED;
}

/* There is no room for it now, or only in another's place; and it is not the first. */
static int must_wait(struct rb_relay *r, struct rb_pipeline *p, const struct rb_verdict *v) {
    int ousts = v->outcome == RB_ADMIT_DROPPING || (v->outcome == RB_ADMIT_LATER && !v->paced);
    if (p->begun == 0 || (v->outcome != RB_REFUSE && !(p->open && ousts))) return 0;
    uint64_t ms = v->outcome == RB_REFUSE && v->retry_ms ? v->retry_ms : LOOK_AGAIN_MS;
    uint64_t due = r->now + ms * NS_PER_MS, deadline = p->head->request.deadline_ns;
    p->waits = 1;
    rb_job_due(r, p->head, due < deadline ? due : deadline);
    return 1;
}

/* A map leaves room for others. One of its jobs that ends lets the next one in. */
static int has_its_share(const struct rb_pipeline *p, const struct rb_role *role, uint64_t bytes) {
    return rb_course_step(p)->kind == RB_STEP_MAP && p->open &&
           (p->open >= RB_MAP_OPEN_MAX || p->open_bytes + bytes > role->config.pool_bytes / 4);
}

/* 0: there is no room; it has failed where it has had its share. */
static int branch_room(struct rb_pipeline *p) {
    if (p->begun < p->capacity) return 1;
    uint32_t capacity = p->capacity < 16 ? 16 : 2 * p->capacity;
    uint64_t more = (capacity - (p->branches == &p->only ? 0 : p->capacity)) * sizeof *p->branches;
    if (!has_room(p, more)) {
        fail_too_much(p, p->begun);
        return 0;
    }
    struct rb_branch *grown = malloc(capacity * sizeof *grown);
    if (!grown) return 0;
    memcpy(grown, p->branches, p->begun * sizeof *grown);
    if (p->branches != &p->only) free(p->branches);
    p->branches = grown;
    p->capacity = capacity;
    p->own_bytes += more;
    charge(p, more);
    return 1;
}

static enum begun enter(struct rb_relay *r, struct rb_pipeline *p, struct rb_role *role,
                        const struct rb_payload *payload, const struct rb_options *o,
                        struct rb_verdict *v, const struct rb_caller *to) {
    struct rb_job *run = NULL;
    v->rule = RB_RULE_JOBS;
    if (branch_room(p)) run = rb_submit_make(r, role, payload->bytes.size, &v->rule);
    if (p->failed) return FAILED;
    if (!run) {
        v->outcome = RB_REFUSE;
        v->reason = RB_REASON_OVERLOADED;
        v->retry_ms = LOOK_AGAIN_MS;
        return must_wait(r, p, v) ? MUST_WAIT : refused(p, to, v);
    }
    rb_submit_fill(run, payload);
    rb_extra_give(run, p->extra);
    run->kind = RB_CALLER_STAGE;
    run->uncounted = 1;
    run->index = p->begun;
    rb_submit_prepare(r, run, o);
    run->finish = 0;
    run->detail = p->options.detail && rb_course_is_last(p);
    if (p->at == 0 && p->keyed) {
        run->keyed = RB_KEYED;
        run->key = p->key;
    }
    p->branches[p->begun++] = (struct rb_branch){.job = run->id};
    p->open++;
    p->open_bytes += payload->bytes.size;
    rb_admission_enter(r, run, &o->tenant, v);
    return BEGUN;
}

/* As its operation takes it, if it names one. What the look costs is taken from the budget: an atom that is compared with many is about as
 * much as some bytes that are copied. */
static int is_taken(const struct rb_role *role, struct rb_submit *s,
                    const struct rb_payload *payload, struct rb_begin_budget *budget,
                    char why[RB_WHY_BYTES]) {
    struct rb_schema_spent spent = {0};
    const char *verb = rb_verb_name(s->verb);
    if (rb_operation_resolve(role, &s->options, verb, why) < 0) return 0;
    int rc =
        rb_operation_takes(role, &s->options, payload->bytes, payload->is_term, &spent, verb, why);
    uint64_t cost = 16 * ((uint64_t)spent.terms + spent.looks);
    budget->bytes -= cost < budget->bytes ? cost : budget->bytes;
    return rc == 0;
}

static enum begun begin_job(struct rb_relay *r, struct rb_pipeline *p,
                            struct rb_begin_budget *budget) {
    struct rb_caller to = {
        .conn = p->head->conn, .kind = RB_CALLER_STAGE, .extra = p->extra, .index = p->begun};
    const struct rb_course_role *of = role_of(p, p->begun);
    struct rb_payload payload = rb_submit_payload(p->next_payload);
    struct rb_role *role = rb_course_role(r, of);
    struct rb_submit s = {.verb = RB_VERB_CALL, .options = p->options};
    struct rb_verdict v = {.outcome = RB_ADMIT};
    char why[RB_WHY_BYTES];
    uint64_t deadline = p->head->request.deadline_ns;
    if (deadline <= r->now) return fail(p, RB_REASON_DEADLINE_EXCEEDED);
    if (!role) return fail(p, RB_REASON_NO_WORKER);
    if (has_its_share(p, role, payload.bytes.size)) return MUST_WAIT;
    s.options.opcode = of->opcode;
    s.options.has_timeout = 1;
    s.options.timeout_ms = (deadline - r->now + NS_PER_MS - 1) / NS_PER_MS;
    if (rb_submit_names_operation(role, &s) && !is_taken(role, &s, &payload, budget, why)) {
        fail_bad_request(p, p->begun, why);
        return FAILED;
    }
    rb_admission_judge(r, role, to.conn, &s.options.tenant, s.options.priority, &v);
    if (v.outcome == RB_REFUSE && v.reason != RB_REASON_OVERLOADED) return refused(p, &to, &v);
    if (payload.bytes.size > role->config.payload_bytes_max) {
        fail_too_large(p, p->at, p->begun, role->config.payload_bytes_max);
        return FAILED;
    }
    if (must_wait(r, p, &v)) return MUST_WAIT;
    if (v.outcome == RB_REFUSE) return refused(p, &to, &v);
    return enter(r, p, role, &payload, &s.options, &v, &to);
}

/* The payload of the next job. 0: there is none, or it has failed. */
static int take(struct rb_pipeline *p) {
    const struct rb_course_step *step = rb_course_step(p);
    char seen[RB_PICTURE_BYTES], why[RB_WHY_BYTES];
    if (p->next_payload.at) return 1;
    if (step->kind != RB_STEP_MAP) {
        p->all_begun = p->begun == step->count;
        p->next_payload = p->value;
        return !p->all_begun;
    }
    int rc = rb_elements_next(&p->elements, &p->next_payload);
    if (rc == 0) p->all_begun = 1;
    if (rc > 0 && p->begun < RB_MANY_MAX) return 1;
    p->next_payload = (struct rb_slice){NULL, 0};
    if (rc < 0) {
        rb_picture(p->value, seen);
        snprintf(why, sizeof why, "the payload of a map must be a proper list, got %s", seen);
        fail_bad_request(p, RB_BRANCH_NONE, why);
    } else if (rc > 0) {
        snprintf(why, sizeof why, "a map takes at most %d elements", RB_MANY_MAX);
        fail_bad_request(p, RB_BRANCH_NONE, why);
    }
    return 0;
}

int rb_spread_on(struct rb_relay *r, struct rb_pipeline *p, struct rb_begin_budget *budget) {
    uint32_t turn = TURN;
    if (p->waits) {
        p->waits = 0;
        rb_job_due(r, p->head, 0);
    }
    while (!p->failed && !p->all_begun && take(p)) {
        if (!turn || !budget->jobs || !budget->bytes) return 1;
        uint64_t bytes = p->next_payload.size;
        if (begin_job(r, p, budget) != BEGUN) return 0;
        p->next_payload = (struct rb_slice){NULL, 0};
        turn--;
        budget->jobs--;
        budget->bytes -= bytes < budget->bytes ? bytes : budget->bytes;
    }
    if (p->all_begun) drop_kept(p);
    return 0;
}

void rb_spread_set(struct rb_pipeline *p, struct rb_slice value) {
    const struct rb_course_step *next = rb_course_is_last(p) ? NULL : rb_course_step(p) + 1;
    p->value = value;
    p->elements = rb_elements_of(value);
    p->next_payload = (struct rb_slice){NULL, 0};
    p->all_begun = 0;
    p->begun = p->open = p->next_index = 0;
    p->open_bytes = 0;
    p->in_order = 1;
    p->list_bytes_max = UINT64_MAX;
    for (uint32_t i = 0; next && next->kind != RB_STEP_MAP && i < next->count; i++) {
        const struct rb_role *role = rb_course_role(p->relay, &next->roles[i]);
        if (!role || role->config.payload_bytes_max >= p->list_bytes_max) continue;
        p->list_bytes_max = role->config.payload_bytes_max;
        p->list_branch = next->kind == RB_STEP_ONE ? (int64_t)RB_BRANCH_NONE : i;
    }
}

void rb_spread_cancel(struct rb_relay *r, struct rb_pipeline *p, enum rb_reason reason) {
    for (uint32_t i = 0; i < p->begun && p->open; i++) {
        struct rb_job *j = p->branches[i].job ? rb_job_find(r, p->branches[i].job) : NULL;
        if (j) rb_job_cancel(r, j, reason);
    }
}
