#include "relay/service/batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/beam.h"
#include "relay/service/elements.h"
#include "relay/service/encoding.h"
#include "relay/service/operation.h"
#include "relay/service/schema.h"

/* --- A batch ------------------------------------------------------------------------------------------------------------- */

struct slot {
    uint64_t job; /* 0: over, or never accepted */
    size_t at;    /* its answer, in `answers` */
    uint32_t size;
    uint32_t too_large; /* there was no room for what its worker answered */
};

struct rb_batch {
    struct rb_job *head;
    struct rb_conn *charged; /* on whose account the answers wait; NULL: nobody waits for them */
    uint32_t count, left;    /* elements; those that are still to be answered */
    uint32_t next_index;     /* of the answer that would keep them in order */
    int in_order;            /* as they lie in `answers` */
    struct rb_buffer answers;
    size_t own_bytes; /* of this record: one that waits for its last job keeps its rows too */
    struct slot slots[];
};

struct rb_relay *rb_batch_relay(const struct rb_batch *b) {
    return b->charged ? b->charged->relay : NULL;
}

uint64_t rb_batch_gathered(const struct rb_batch *b) {
    return b->charged ? b->own_bytes + b->answers.end : 0;
}

static void forget_answers(struct rb_batch *b) {
    if (b->charged) b->charged->gathered -= rb_batch_gathered(b);
    free(b->answers.at);
    b->answers = (struct rb_buffer){.at = NULL};
    b->charged = NULL;
}

void rb_batch_mute(struct rb_batch *b) { forget_answers(b); }

void rb_batch_free(struct rb_batch *b) {
    forget_answers(b);
    free(b);
}

/* {error, {job_failed, 65280, Why}}, as a kit says it of an answer that does not fit into its region. */
static struct rb_slice no_room(uint8_t *room, size_t most) {
    struct rb_pen p = {room, room};
    char why[96];
    snprintf(why, sizeof why, "the answers of a batch may be %llu bytes together, and no more",
             (unsigned long long)most);
    rb_pen_tuple(&p, 2);
    rb_pen_atom(&p, "error");
    rb_pen_tuple(&p, 3);
    rb_pen_atom(&p, rb_reason_name(RB_REASON_JOB_FAILED));
    rb_pen_unsigned(&p, RB_CODE_ANSWER_TOO_LARGE);
    rb_pen_text(&p, why);
    return rb_pen_written(&p);
}

enum {
    SMALL_BYTES = 192
}; /* of an element's answer that is always taken: what stands for one without room is no longer */

/* Of the whole list where it cannot be told otherwise: over a lane, whose region bounds an answer. Room for small answers of all elements is kept
 * free, so that it is an element that has no room, and told and counted so, and not the list with all that was done for it. */
static size_t list_max(const struct rb_batch *b) {
    const size_t most = b->head ? rb_beam_answer_max(b->head) : SIZE_MAX;
    const size_t small = 32 + (size_t)b->count * SMALL_BYTES; /* with {ok, [..]} around it */
    return most == SIZE_MAX ? most : most > small ? most - small : 0;
}

void rb_batch_put(struct rb_batch *b, uint32_t index, const struct rb_slice pieces[3]) {
    struct slot *slot = &b->slots[index];
    struct rb_conn *c = b->charged;
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    /* All batches of a connection together; what says so always fits, within the bound on elements. */
    size_t most = rb_keep_max(&c->relay->config);
    size_t list = list_max(b);
    uint8_t room[SMALL_BYTES];
    struct rb_slice instead[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    if (size > sizeof room && (c->gathered + size > most || b->answers.end + size > list)) {
        slot->too_large = 1;
        instead[0] = no_room(room, list < most ? list : most);
        pieces = instead;
        size = instead[0].size;
    }
    uint8_t *to = rb_buffer_room(&b->answers, size);
    if (!to) {
        rb_conn_fail(c, "no_memory");
        return;
    }
    slot->at = b->answers.end;
    slot->size = (uint32_t)size;
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
    b->answers.end += size;
    c->gathered += size;
    b->in_order &= index == b->next_index;
    b->next_index = index + 1;
}

/* {ok, [Answer]} in order. */
static void answer(struct rb_batch *b) {
    struct rb_caller to = rb_job_caller(b->head);
    struct rb_reply reply;
    struct rb_pen *p = &reply.pen;
    uint8_t nil = RB_TAG_NIL;
    if (!rb_reply_begin(&reply, &to, 32 + (b->in_order ? 0 : b->answers.end))) return;
    rb_pen_tuple(p, 2);
    rb_pen_atom(p, "ok");
    if (b->count) rb_pen_list(p, b->count);
    if (b->in_order) {
        rb_reply_end_with(&reply, (struct rb_slice){b->answers.at, b->answers.end},
                          (struct rb_slice){&nil, 1});
        return;
    }
    for (uint32_t i = 0; i < b->count; i++)
        rb_pen_bytes(p, b->answers.at + b->slots[i].at, b->slots[i].size);
    rb_pen_nil(p);
    rb_reply_end(&reply);
}

/* None was accepted: the first one's refusal is the answer of the whole. */
static void answer_refused(struct rb_batch *b) {
    struct rb_caller to = rb_job_caller(b->head);
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, &to, b->slots[0].size)) return;
    rb_pen_bytes(&reply.pen, b->answers.at + b->slots[0].at, b->slots[0].size);
    rb_reply_end(&reply);
}

/* The head, and with its last element the batch, is over. */
static void finish(struct rb_relay *r, struct rb_batch *b) {
    struct rb_job *head = b->head;
    b->head = NULL;
    forget_answers(b);
    rb_job_free(r, head);
}

enum rb_reason rb_batch_answered(struct rb_relay *r, struct rb_job *element,
                                 enum rb_reason reason) {
    struct rb_batch *b = element->extra->batch;
    struct slot *slot = &b->slots[element->index];
    if (b->charged && !slot->size) { /* it ended without a word */
        struct rb_caller to = rb_job_caller(element);
        rb_answer_reason(&to, reason);
    }
    if (slot->too_large) reason = RB_REASON_JOB_FAILED;
    slot->job = 0;
    if (--b->left == 0 && b->head) {
        if (b->charged) answer(b);
        finish(r, b);
    }
    return reason;
}

void rb_batch_cancel(struct rb_relay *r, struct rb_job *head, enum rb_reason reason) {
    struct rb_batch *b = head->extra->batch;
    b->head = NULL;
    forget_answers(b);
    for (uint32_t i = 0; i < b->count && b->left; i++) {
        struct rb_job *j = b->slots[i].job ? rb_job_find(r, b->slots[i].job) : NULL;
        if (j) rb_job_cancel(r, j, reason);
    }
    rb_job_free(r, head);
}

/* --- From the request ---------------------------------------------------------------------------------------------------- */

static int refusal(int64_t count, const struct rb_submit *s, char why[RB_WHY_BYTES]) {
    if (count < 0)
        snprintf(why, RB_WHY_BYTES, "submit_many: payloads must be a proper list");
    else if (count > RB_MANY_MAX)
        snprintf(why, RB_WHY_BYTES, "submit_many: at most %d payloads, got %lld", RB_MANY_MAX,
                 (long long)count);
    else if (s->options.dedupe.kind)
        snprintf(why, RB_WHY_BYTES,
                 "submit_many: dedupe names one job; its payloads are to be submitted one by one");
    else if (s->options.stages.size)
        snprintf(why, RB_WHY_BYTES, "submit_many: stages are of submit and submit_async");
    else
        return 0;
    return -EINVAL;
}

/* A head with its batch; NULL: there is no room for it. */
static struct rb_job *begin(struct rb_relay *r, struct rb_conn *charged, int64_t count,
                            const struct rb_submit *s) {
    size_t own = sizeof(struct rb_batch) + (size_t)count * sizeof(struct slot);
    if (charged->gathered + own > rb_keep_max(&r->config)) return NULL;
    struct rb_extra *e = rb_extra_new(r);
    struct rb_job *head = e ? rb_job_new(r) : NULL;
    if (!head) {
        if (e) rb_extra_release(r, e);
        return NULL;
    }
    rb_extra_give(head, e);
    rb_extra_release(r, e); /* the head holds it */
    e->batch = calloc(1, own);
    if (!e->batch) {
        rb_job_free(r, head);
        return NULL;
    }
    e->batch->head = head;
    e->batch->charged = charged;
    e->batch->own_bytes = own;
    charged->gathered += own;
    e->batch->count = (uint32_t)count;
    e->batch->in_order = 1;
    head->state = RB_JOB_WAITING;
    head->finish = s->options.finish;
    head->uncounted = 1;
    return head;
}

static void submit_element(struct rb_relay *r, struct rb_batch *b, struct rb_extra *e,
                           uint32_t index, struct rb_role *role, struct rb_slice term,
                           const struct rb_submit *s, struct rb_schema_spent *spent) {
    struct rb_caller element = {
        .conn = b->charged, .kind = RB_CALLER_ELEMENT, .extra = e, .index = index};
    struct rb_payload payload = rb_submit_payload(term);
    struct rb_verdict v;
    char why[RB_WHY_BYTES];
    if (role->config.ops.table_count &&
        rb_operation_takes(role, &s->options, payload.bytes, payload.is_term, spent, "submit_many",
                           why) < 0) {
        rb_submit_refuse(&element, why);
        return;
    }
    if (s->options.encoded && !rb_encoding_admits(role, &element, s, &payload)) return;
    struct rb_job *j = rb_submit_admit(r, &element, role, payload.bytes.size, &s->options, &v);
    if (!j) return;
    rb_submit_fill(j, &payload);
    rb_extra_give(j, e);
    j->kind = RB_CALLER_ELEMENT;
    j->index = index;
    b->slots[index].job = j->id;
    b->left++;
    rb_submit_accept(r, j, s, &v);
}

int rb_batch_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                    struct rb_cursor *at, struct rb_submit *s) {
    struct rb_relay *r = c->relay;
    char why[RB_WHY_BYTES];
    struct rb_slice list, term;
    if (rb_term_skip(at, &list) < 0) return rb_service_fail(c, "bad_payload");
    int rc = rb_submit_options(at, s, why);
    int64_t count = rb_elements_count(list);
    if (rc == 0) rc = refusal(count, s, why);
    if (rc == -EINVAL) return rb_submit_refuse(to, why), 0;
    if (rc < 0) return rb_service_fail(c, "bad_payload");
    if (!to->conn) return 0;
    struct rb_role *role = rb_submit_role(r, to, s->role);
    if (!role || !rb_submit_may_retry(role, to, s)) return 0;
    if (rb_submit_names_operation(role, s) && rb_submit_operation(role, s, NULL, why) < 0)
        return rb_submit_refuse(to, why), 0;
    struct rb_job *head = begin(r, to->conn, count, s);
    if (!head) return rb_admission_refuse_room(r, role, to, RB_RULE_JOBS), 0;
    if (rb_submit_bind(c, head, to, from) < 0) {
        rb_job_free(r, head);
        return rb_service_fail(c, "reply_tag_too_large");
    }
    struct rb_extra *e = head->extra;
    struct rb_batch *b = e->batch;
    struct rb_elements payloads = rb_elements_of(list);
    struct rb_schema_spent spent = {.of_many = 1};
    for (uint32_t i = 0; rb_elements_next(&payloads, &term) > 0; i++)
        submit_element(r, b, e, i, role, term, s, &spent);
    if (b->left) return 0;
    if (b->count)
        answer_refused(b);
    else
        answer(b);
    finish(r, b);
    return 0;
}
