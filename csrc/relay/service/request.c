#include "relay/service/request.h"

#include <errno.h>
#include <stdio.h>

#include "relay/service/picture.h"
#include "relay/service/step.h"

#define KNOWN                                                                                   \
    "known: {:submit | :submit_async, role, payload}, {.., opts}, {:submit_many, role, "        \
    "payloads}, {.., opts}, {:cancel, ref | job_id}, {:status, job_id}, {:jobs, role | :all}, " \
    ":stats"

static const char *const verbs[] = {"submit", "submit_async", "submit_many"};
const char *rb_verb_name(enum rb_verb verb) {
    return verb == RB_VERB_STREAM ? "subscribe" : verbs[verb];
}

/* [alias|R], an improper list. Past it; `reference` stays empty where the term is another one. */
static void alias_cell(struct rb_cursor *c, struct rb_slice *reference) {
    struct rb_cursor at = *c;
    struct rb_slice text, part;
    int tail;
    if (rb_term_list(&at, &tail) != 1 || rb_term_atom(&at, &text) < 0 ||
        !rb_slice_is(text, "alias"))
        return;
    if (rb_term_tag(&at) != RB_TAG_NEWER_REFERENCE || rb_term_skip(&at, &part) < 0) return;
    *reference = part;
    *c = at;
}

/* The references inside a reply tag: [alias|R]; [[alias|A]|R] (multi_call since 27); a bare R (a local-style tag). */
static void tag_references(struct rb_from *from) {
    struct rb_cursor c = rb_cursor_of(from->tag);
    struct rb_slice part;
    int tail;
    if (rb_term_tag(&c) == RB_TAG_NEWER_REFERENCE) {
        from->monitor = from->tag;
        return;
    }
    alias_cell(&c, &from->alias);
    from->monitor = from->alias;
    if (from->alias.size || rb_term_list(&c, &tail) != 1) return;
    alias_cell(&c, &from->alias);
    if (!from->alias.size || rb_term_tag(&c) != RB_TAG_NEWER_REFERENCE) return;
    if (rb_term_skip(&c, &part) == 0) from->monitor = part;
}

int rb_message_kind(struct rb_cursor *c, struct rb_from *from) {
    struct rb_cursor at = *c;
    struct rb_slice text;
    int64_t arity = rb_term_tuple(&at);
    if (arity == -EAGAIN) return -EAGAIN;
    if (arity < 2 || arity > 3) return RB_MESSAGE_OTHER;
    int rc = rb_term_atom(&at, &text);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0) return RB_MESSAGE_OTHER;
    if (arity == 2) return rb_slice_is(text, "$gen_cast") ? RB_MESSAGE_CAST : RB_MESSAGE_OTHER;
    if (rb_slice_is(text, "system")) return RB_MESSAGE_SYSTEM;
    if (!rb_slice_is(text, "$gen_call")) return RB_MESSAGE_OTHER;

    memset(from, 0, sizeof *from);
    int64_t pair = rb_term_tuple(&at);
    if (pair == -EAGAIN) return -EAGAIN;
    if (pair != 2) return RB_MESSAGE_OTHER;
    int tag = rb_term_tag(&at);
    if (tag == -EAGAIN) return -EAGAIN;
    if (tag != RB_TAG_NEW_PID) return RB_MESSAGE_OTHER;
    if ((rc = rb_term_skip(&at, &from->pid)) < 0 || (rc = rb_term_skip(&at, &from->tag)) < 0)
        return rc == -EAGAIN ? -EAGAIN : RB_MESSAGE_OTHER;
    tag_references(from);
    *c = at;
    return RB_MESSAGE_CALL;
}

/* More of what may stand there, for who seems to have meant that. */
static const char *wants_step(enum rb_verb verb, const struct rb_slice *got) {
    if (got->at[0] != RB_TAG_LIST && got->at[0] != RB_TAG_SMALL_TUPLE) return "";
    return verb == RB_VERB_MANY
               ? "; stages are of submit and submit_async, {:map, role} among them"
               : "; or {role, opcode}, [role | {role, opcode}, ...] (1 to 16), {:map, role | "
                 "{role, opcode}}";
}

/* What is neither atom nor binary in the role's place: a step (step.h), past which the cursor moves; or it says what is wrong. */
static int not_a_role(struct rb_cursor *at, enum rb_verb verb, struct rb_submit *submit,
                      char why[RB_WHY_BYTES]) {
    struct rb_slice whole;
    struct rb_step step;
    char seen[RB_PICTURE_BYTES];
    int rc = rb_term_skip(at, &whole);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0) {
        snprintf(why, RB_WHY_BYTES, "unknown request: a malformed term; " KNOWN);
        return RB_REQUEST_BAD;
    }
    if (verb != RB_VERB_MANY && rb_step_read(whole, &step) == 0) {
        submit->step = whole;
        return RB_REQUEST_SUBMIT;
    }
    rb_picture(whole, seen);
    snprintf(why, RB_WHY_BYTES, "%s: role must be an atom or a binary, got %s%s", verbs[verb], seen,
             wants_step(verb, &whole));
    return RB_REQUEST_BAD;
}

/* Behind the verb of a tuple of `arity`. */
static int submit_kind(struct rb_cursor *c, struct rb_cursor *at, int64_t arity, enum rb_verb verb,
                       struct rb_submit *submit, char why[RB_WHY_BYTES]) {
    const char *name = verbs[verb];
    if (arity != 3 && arity != 4) {
        snprintf(why, RB_WHY_BYTES,
                 "%s takes {:%s, role, payload%s} or {:%s, role, payload%s, opts}; this tuple has "
                 "%lld elements",
                 name, name, verb == RB_VERB_MANY ? "s" : "", name, verb == RB_VERB_MANY ? "s" : "",
                 (long long)arity);
        return RB_REQUEST_BAD;
    }
    submit->verb = verb;
    submit->arity = (unsigned)arity;
    submit->step = (struct rb_slice){NULL, 0};
    rb_options_default(&submit->options);
    int rc = rb_term_text(at, &submit->role);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0 && (rc = not_a_role(at, verb, submit, why)) != RB_REQUEST_SUBMIT) return rc;
    if (rb_term_tag(at) < 0) return -EAGAIN;
    *c = *at;
    return RB_REQUEST_SUBMIT;
}

int rb_request_kind(struct rb_cursor *c, struct rb_submit *submit, uint64_t *job,
                    char why[RB_WHY_BYTES]) {
    struct rb_cursor at = *c;
    struct rb_slice name, whole;
    char seen[RB_PICTURE_BYTES];
    int rc;

    struct rb_cursor atom = at;
    rc = rb_term_atom(&atom, &name);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc == 0) {
        if (rb_slice_is(name, "stats")) return RB_REQUEST_STATS;
        snprintf(why, RB_WHY_BYTES, "unknown request :%.*s; " KNOWN, rb_picture_size(name),
                 (const char *)name.at);
        return RB_REQUEST_BAD;
    }
    int64_t arity = rb_term_tuple(&at);
    if (arity == -EAGAIN) return -EAGAIN;
    if (arity < 1) goto unknown;
    rc = rb_term_atom(&at, &name);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0) goto unknown;

    for (unsigned verb = 0; verb < sizeof verbs / sizeof *verbs; verb++) {
        if (rb_slice_is(name, verbs[verb])) return submit_kind(c, &at, arity, verb, submit, why);
    }
    if (rb_slice_is(name, "jobs") && arity == 2) {
        struct rb_cursor argument = at;
        if (rb_term_text(&at, &submit->role) == 0) return RB_REQUEST_JOBS;
        if ((rc = rb_term_skip(&argument, &whole)) == -EAGAIN) return -EAGAIN;
        if (rc < 0) goto unknown;
        rb_picture(whole, seen);
        snprintf(why, RB_WHY_BYTES, "jobs takes a role (an atom or a binary) or :all, got %s",
                 seen);
        return RB_REQUEST_BAD;
    }
    int status = rb_slice_is(name, "status"), cancel = rb_slice_is(name, "cancel");
    if ((status || cancel) && arity == 2) {
        struct rb_cursor argument = at;
        rc = rb_term_unsigned(&at, job);
        if (rc == 0) return status ? RB_REQUEST_STATUS : RB_REQUEST_CANCEL;
        if ((rc = rb_term_skip(&argument, &whole)) == -EAGAIN) return -EAGAIN;
        if (rc < 0) goto unknown;
        if (whole.at[0] == RB_TAG_NEWER_REFERENCE) {
            submit->ref = whole;
            return status ? RB_REQUEST_STATUS_REF : RB_REQUEST_CANCEL_REF;
        }
        rb_picture(whole, seen);
        snprintf(
            why, RB_WHY_BYTES,
            "%s takes a job id (a positive integer) or the reference of a submit_async, got %s",
            status ? "status" : "cancel", seen);
        return RB_REQUEST_BAD;
    }
    snprintf(why, RB_WHY_BYTES, "unknown request {:%.*s, ...} of %lld elements; " KNOWN,
             rb_picture_size(name), (const char *)name.at, (long long)arity);
    return RB_REQUEST_BAD;

unknown:
    at = *c;
    if ((rc = rb_term_skip(&at, &whole)) == -EAGAIN) return -EAGAIN;
    if (rc == 0)
        rb_picture(whole, seen);
    else
        snprintf(seen, sizeof seen, "a malformed term");
    snprintf(why, RB_WHY_BYTES, "unknown request: %s; " KNOWN, seen);
    return RB_REQUEST_BAD;
}

int rb_submit_options(struct rb_cursor *c, struct rb_submit *s, char why[RB_WHY_BYTES]) {
    return s->arity == 3 ? 0 : rb_options_read(c, &s->options, rb_verb_name(s->verb), why);
}
