#include "relay/service/extra.h"

#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/pipeline.h"
#include "relay/service/shared.h"

struct rb_extra *rb_extra_new(struct rb_relay *r) {
    struct rb_extra *e = r->free_extras;
    if (e) {
        r->free_extras = e->next;
    } else {
        if (r->extra_count == RB_EXTRAS_MAX || !(e = malloc(sizeof *e))) return NULL;
        r->extra_count++;
    }
    e->next = NULL;
    e->held = 1;
    e->batch = NULL;
    e->shared = NULL;
    e->pipeline = NULL;
    e->meta_size = 0;
    return e;
}

void rb_extra_release(struct rb_relay *r, struct rb_extra *e) {
    if (--e->held) return;
    if (e->batch) rb_batch_free(e->batch);
    e->batch = NULL;
    if (e->pipeline) rb_pipeline_release(e->pipeline);
    e->pipeline = NULL;
    e->next = r->free_extras;
    r->free_extras = e;
}

void rb_extra_give(struct rb_job *j, struct rb_extra *e) {
    e->held++;
    j->extra = e;
}

void rb_extra_note(struct rb_relay *r, struct rb_job *j, struct rb_slice meta) {
    if (!j->extra) j->extra = rb_extra_new(r);
    struct rb_extra *e = j->extra;
    if (!e || e->meta_size)
        return; /* no memory: the note is lost, not the job; or it is the batch's, and there already */
    e->meta_size = (uint16_t)meta.size;
    memcpy(e->meta, meta.at, meta.size);
}

void rb_extras_fini(struct rb_relay *r) {
    while (r->free_extras) {
        struct rb_extra *e = r->free_extras;
        r->free_extras = e->next;
        free(e);
    }
}

enum rb_reason rb_extra_answered(struct rb_relay *r, struct rb_job *j, enum rb_reason reason) {
    if (j->kind == RB_CALLER_ELEMENT) return rb_batch_answered(r, j, reason);
    if (j->kind == RB_CALLER_SHARED) rb_shared_over(r, j, reason);
    if (j->kind == RB_CALLER_STAGE) rb_pipeline_over(r, j, reason);
    return reason;
}

void rb_extra_cancel(struct rb_relay *r, struct rb_job *j, enum rb_reason reason) {
    if (j->extra->batch)
        rb_batch_cancel(r, j, reason);
    else if (j->extra->pipeline)
        rb_pipeline_leave(r, j, reason);
    else
        rb_shared_leave(r, j, reason);
}

int rb_extra_is_over(const struct rb_job *j) {
    const struct rb_extra *e = j->extra;
    return j->state == RB_JOB_WAITING && e && e->shared && rb_shared_is_over(e->shared);
}

int rb_extra_due(struct rb_relay *r, struct rb_job *j) {
    if (!j->extra || !j->extra->pipeline) return 0;
    rb_pipeline_due(r, j);
    return 1;
}

void rb_extra_orphaned(struct rb_job *j) {
    if (j->state == RB_JOB_WAITING && j->extra->batch) rb_batch_mute(j->extra->batch);
    if (j->state == RB_JOB_WAITING && j->extra->pipeline) rb_pipeline_mute(j->extra->pipeline);
}
