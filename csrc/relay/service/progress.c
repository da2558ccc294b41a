/* progress.c: the newest report of each job, kept until its round ends and its socket has room (progress.h). */
#include "relay/service/progress.h"

#include <stdlib.h>

#include "relay/relay_pvt.h"

struct rb_progress {
    struct rb_progress *next; /* of those that have something to tell */
    struct rb_job *job;       /* NULL: nobody hears of it any more */
    int waits;                /* stands in that list */
    int raw;
    uint32_t size;
    uint8_t bytes[RB_PROGRESS_BYTES_MAX];
};

const char *rb_progress_take(struct rb_worker *w, struct rb_job *j, const struct rb_completion *e,
                             const uint8_t *payload) {
    struct rb_relay *r = w->relay;
    if (!(j->request.flags & RB_FLAG_PROGRESS)) return "progress_not_asked";
    if (e->payload_bytes > RB_PROGRESS_BYTES_MAX) return "progress_too_large";
    if (!j->conn) return NULL;
    struct rb_progress *p = j->progress;
    if (!p && !(p = calloc(1, sizeof *p))) return NULL; /* one that may be dropped, is */
    p->job = j;
    j->progress = p;
    p->raw = !(e->flags & RB_FLAG_TERM);
    p->size = e->payload_bytes;
    if (p->size) memcpy(p->bytes, payload, p->size);
    const char *rule;
    if (!p->raw && rb_worker_check_term(w, j, (struct rb_slice){p->bytes, p->size}, &rule) < 0) {
        rb_progress_forget(j);
        return rule;
    }
    if (!p->waits) {
        p->waits = 1;
        p->next = r->progress;
        r->progress = p;
    }
    return NULL;
}

static void tell(const struct rb_progress *p) {
    struct rb_caller to = rb_job_caller(p->job);
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, &to, p->size + 32)) return;
    rb_pen_tuple(&reply.pen, 2);
    rb_pen_atom(&reply.pen, "progress");
    if (p->raw) rb_pen_binary(&reply.pen, p->size);
    rb_pen_bytes(&reply.pen, p->bytes, p->size);
    rb_reply_end(&reply);
}

void rb_progress_flush(struct rb_relay *r) {
    for (struct rb_progress **at = &r->progress, *p; (p = *at);) {
        if (p->job && p->job->conn) {
            if (rb_conn_waiting_bytes(p->job->conn) > r->config.outgoing_low_bytes) {
                at = &p->next;
                continue;
            }
            tell(p);
        }
        *at = p->next;
        p->waits = 0;
        if (!p->job) free(p);
    }
}

void rb_progress_forget(struct rb_job *j) {
    struct rb_progress *p = j->progress;
    j->progress = NULL;
    p->job = NULL;
    if (!p->waits) free(p); /* else the next flush does */
}
