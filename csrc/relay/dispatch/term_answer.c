/* term_answer.c: a worker's term answer, on a private copy, walked in portions (term_answer.h). */
#include "relay/dispatch/term_answer.h"

#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

/* An answer that is walked at once lies in the relay's own scratch, which all workers' share. */
static int at_once(struct rb_worker *w, const struct rb_job *j, const uint8_t *bytes, size_t size,
                   struct rb_slice *term, const char **rule) {
    struct rb_relay *r = w->relay;
    if (size > r->scratch_capacity) {
        uint8_t *scratch = realloc(r->scratch, size);
        if (!scratch) return *rule = "no_memory", -ENOMEM;
        r->scratch = scratch;
        r->scratch_capacity = size;
    }
    r->scratch_used = 1;
    if (size) memcpy(r->scratch, bytes, size);
    *term = (struct rb_slice){r->scratch, size};
    return rb_worker_check_term(w, j, *term, rule);
}

int rb_term_answer_begin(struct rb_worker *w, const struct rb_job *j, const struct rb_completion *e,
                         const uint8_t *payload, uint64_t *effort, struct rb_slice *term,
                         const char **rule) {
    struct rb_term_answer *k = &w->answering;
    struct rb_slice request = rb_worker_term_request(j);
    if (e->payload_bytes <= RB_WALK_WHOLE_BYTES && request.size <= RB_WALK_WHOLE_BYTES)
        return at_once(w, j, payload, e->payload_bytes, term, rule);
    k->copy = malloc(e->payload_bytes ? e->payload_bytes : 1);
    if (!k->copy) return *rule = "no_memory", -ENOMEM;
    if (e->payload_bytes) memcpy(k->copy, payload, e->payload_bytes);
    k->size = e->payload_bytes;
    k->envelope = *e;
    *term = (struct rb_slice){k->copy, k->size};
    if (j->is_term && rb_slice_equal(*term, request)) return 0; /* an echo */
    k->walk = rb_term_walk_open(*term, request, &w->role->rules, &w->atoms);
    if (!k->walk) return *rule = "no_memory", -ENOMEM;
    return rb_term_answer_on(w, effort, term, rule);
}

int rb_term_answer_on(struct rb_worker *w, uint64_t *effort, struct rb_slice *term,
                      const char **rule) {
    *term = (struct rb_slice){w->answering.copy, w->answering.size};
    return rb_term_walk_on(w->answering.walk, effort, rule);
}

void rb_term_answer_end(struct rb_worker *w) {
    rb_term_walk_close(w->answering.walk);
    free(w->answering.copy);
    w->answering = (struct rb_term_answer){.walk = NULL};
}
