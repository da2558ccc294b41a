#include "relay/service/encoding.h"

#include <errno.h>
#include <stdio.h>

#include "relay/relay_pvt.h"
#include "ringbridge/zstd_frame.h"

int rb_encoding_worker_takes(const struct rb_worker *w) {
    return (w->link.config.features & RB_FEATURE_ZSTD) != 0;
}

void rb_encoding_tell_limit(const struct rb_worker *w) {
    /* Z0: pairs with Z1 in the kit's rb_zstd_unpack(). Relaxed: a job's publication (R0) comes behind it, and says nothing
     * of it: who sees the limit before holds the job to that. */
    rb_store_relaxed(&w->link.ours->payload_bytes_max, w->role->config.payload_bytes_max);
}

/* A role whose workers are starting takes what it may be able to run: jobs wait for them. */
static int some_worker_takes(const struct rb_role *role) {
    return role->ready == 0 || role->zstd_ready > 0;
}

static int say_that_none_takes(const struct rb_role *role, const char *verb,
                               char why[RB_WHY_BYTES]) {
    snprintf(why, RB_WHY_BYTES,
             "%s: encoding: :zstd, but none of the %u ready workers of role %s takes compressed "
             "payloads (encodings in the registry's :list); send it plain",
             verb, role->ready, role->name);
    return -EINVAL;
}

int rb_encoding_check(const struct rb_role *role, const struct rb_options *o,
                      const struct rb_payload *payload, const char *verb, char why[RB_WHY_BYTES]) {
    uint64_t content_bytes;
    const char *rule;
    if (!o->encoded) return 0;
    if (payload->is_term) {
        snprintf(why, RB_WHY_BYTES,
                 "%s: encoding: :zstd is for a payload that is a binary; a term goes as it is",
                 verb);
        return -EINVAL;
    }
    if (rb_zstd_frame(payload->bytes.at, payload->bytes.size, &content_bytes, &rule) < 0) {
        snprintf(why, RB_WHY_BYTES,
                 "%s: encoding: :zstd, but the payload is no zstd frame for a link: %s", verb,
                 rule);
        return -EINVAL;
    }
    if (!some_worker_takes(role)) return say_that_none_takes(role, verb, why);
    return content_bytes > role->config.payload_bytes_max ? -EMSGSIZE : 0;
}

int rb_encoding_admits(struct rb_role *role, const struct rb_caller *to, const struct rb_submit *s,
                       const struct rb_payload *payload) {
    char why[RB_WHY_BYTES];
    int rc = rb_encoding_check(role, &s->options, payload, rb_verb_name(s->verb), why);
    if (rc == 0) return 1;
    if (rc == -EMSGSIZE)
        rb_submit_too_large(role, to);
    else
        rb_submit_refuse(to, why);
    return 0;
}

void rb_encoding_refuse(struct rb_relay *r, struct rb_job *j) {
    struct rb_caller to = rb_job_caller(j);
    char why[RB_WHY_BYTES];
    say_that_none_takes(j->role, "submit", why);
    rb_answer_text(&to, RB_REASON_BAD_REQUEST, why);
    rb_job_answered(r, j, RB_REASON_BAD_REQUEST);
}

const char *rb_encoding_rule(const struct rb_job *j, const struct rb_completion *e) {
    if (!(e->flags & RB_FLAG_ZSTD)) return NULL;
    if (!(j->request.flags & RB_FLAG_ACCEPTS_ZSTD)) return "encoding_not_accepted";
    return e->status == RB_STATUS_OK && !(e->flags & RB_FLAG_TERM) ? NULL
                                                                   : "encoding_of_no_raw_answer";
}
