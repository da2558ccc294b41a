/* queue_reference.h: the queue's rules (relay/dispatch/queue.h) once more, naively: one array, and every
 * question answered by looking at all of it. No lines, no heaps, no rows that are used again. */
#ifndef RINGBRIDGE_TESTS_QUEUE_REFERENCE_H
#define RINGBRIDGE_TESTS_QUEUE_REFERENCE_H

#include "check.h"
#include "relay/dispatch/job.h"
#include "relay/dispatch/queue.h"
#include "relay/dispatch/tenant.h"

enum { REFERENCE_JOBS = 512, REFERENCE_TENANTS = 8 };

struct reference_job {
    struct rb_job *job;
    unsigned band, tenant; /* tenant 0: none */
    uint64_t since, urgency;
};

struct reference {
    uint64_t aging, patience; /* ns; 0: none */
    struct reference_job jobs[REFERENCE_JOBS];
    unsigned count;
    uint64_t weight[REFERENCE_TENANTS];
    uint64_t tag[RB_BANDS][REFERENCE_TENANTS], began[RB_BANDS][REFERENCE_TENANTS];
    /* The weight that counts: as it was when the tenant began to wait, or had its last turn. */
    uint64_t counted[RB_BANDS][REFERENCE_TENANTS];
    uint64_t clock[RB_BANDS], begins;
};

static inline unsigned reference_waiting(const struct reference *m, unsigned band,
                                         unsigned tenant) {
    unsigned n = 0;
    for (unsigned i = 0; i < m->count; i++)
        n += m->jobs[i].band == band && m->jobs[i].tenant == tenant;
    return n;
}

static inline void reference_stand(struct reference *m, struct reference_job one) {
    unsigned b = one.band, t = one.tenant;
    if (reference_waiting(m, b, t) == 0) {
        if (m->tag[b][t] < m->clock[b]) m->tag[b][t] = m->clock[b];
        m->began[b][t] = ++m->begins;
        m->counted[b][t] = m->weight[t];
    }
    m->jobs[m->count++] = one;
}

static inline unsigned reference_find(const struct reference *m, const struct rb_job *j) {
    for (unsigned i = 0; i < m->count; i++)
        if (m->jobs[i].job == j) return i;
    abort();
}

static inline void reference_remove(struct reference *m, const struct rb_job *j) {
    m->jobs[reference_find(m, j)] = m->jobs[m->count - 1];
    m->count--;
}

static inline void reference_push(struct reference *m, struct rb_job *j, unsigned tenant,
                                  uint64_t now) {
    struct reference_job one = {j, j->request.priority, tenant, j->accepted_ns, UINT64_MAX};
    if (m->patience) one.urgency = j->accepted_ns + m->patience;
    if (j->due_ns && j->due_ns < one.urgency) one.urgency = j->due_ns;
    while (m->aging && one.band > 0 && one.since + m->aging <= now) {
        one.band--;
        one.since += m->aging;
    }
    reference_stand(m, one);
}

/* Of a band, who has been there for longest, or count. */
static inline unsigned reference_longest(const struct reference *m, unsigned band) {
    unsigned best = m->count;
    for (unsigned i = 0; i < m->count; i++) {
        const struct reference_job *one = &m->jobs[i], *other = &m->jobs[best];
        if (one->band != band) continue;
        if (best == m->count || one->since < other->since ||
            (one->since == other->since && one->job->id < other->job->id))
            best = i;
    }
    return best;
}

static inline struct rb_job *reference_oldest(const struct reference *m) {
    for (unsigned band = RB_BANDS; band-- > 0;) {
        unsigned i = reference_longest(m, band);
        if (i < m->count) return m->jobs[i].job;
    }
    return NULL;
}

static inline void reference_age(struct reference *m, uint64_t now) {
    for (unsigned band = RB_BANDS; m->aging && --band > 0;) {
        for (;;) {
            unsigned i = reference_longest(m, band);
            if (i == m->count || m->jobs[i].since + m->aging > now) break;
            struct reference_job one = m->jobs[i];
            reference_remove(m, one.job);
            one.band--;
            one.since += m->aging;
            reference_stand(m, one);
        }
    }
}

/* Whose turn it is in a band that is not empty. */
static inline unsigned reference_turn(const struct reference *m, unsigned b) {
    unsigned best = REFERENCE_TENANTS;
    for (unsigned t = 0; t < REFERENCE_TENANTS; t++) {
        if (reference_waiting(m, b, t) == 0) continue;
        if (best == REFERENCE_TENANTS || m->tag[b][t] < m->tag[b][best] ||
            (m->tag[b][t] == m->tag[b][best] && m->began[b][t] < m->began[b][best]))
            best = t;
    }
    return best;
}

static inline struct rb_job *reference_first(struct reference *m, uint64_t now) {
    unsigned band = RB_BANDS, best = m->count;
    reference_age(m, now);
    for (unsigned i = 0; i < m->count; i++)
        if (m->jobs[i].band < band) band = m->jobs[i].band;
    if (band == RB_BANDS) return NULL;
    unsigned tenant = reference_turn(m, band);
    for (unsigned i = 0; i < m->count; i++) {
        const struct reference_job *one = &m->jobs[i], *other = &m->jobs[best];
        if (one->band != band || one->tenant != tenant) continue;
        if (best == m->count || one->urgency < other->urgency ||
            (one->urgency == other->urgency && one->job->id < other->job->id))
            best = i;
    }
    return m->jobs[best].job;
}

static inline void reference_take(struct reference *m, const struct rb_job *j) {
    const struct reference_job *one = &m->jobs[reference_find(m, j)];
    unsigned b = one->band, t = one->tenant;
    uint64_t weights = 0, others = 0;
    if (m->clock[b] < m->tag[b][t]) m->clock[b] = m->tag[b][t];
    for (unsigned i = 0; i < REFERENCE_TENANTS; i++) {
        if (i != t && reference_waiting(m, b, i)) weights += m->counted[b][i], others++;
    }
    if (others) {
        m->counted[b][t] = m->weight[t];
        weights += m->counted[b][t];
        m->clock[b] += RB_SHARE_UNIT / weights;
        m->tag[b][t] += RB_SHARE_UNIT / m->counted[b][t];
    }
    reference_remove(m, j);
}

#endif
