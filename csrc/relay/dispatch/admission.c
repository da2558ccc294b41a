/* admission.c: the rules of taking a job in, what happens to one that breaks a rule, and those that wait for theirs. */
#include "relay/dispatch/admission.h"

#include <errno.h>

#include "relay/relay_pvt.h"
#include "relay/service/pipeline.h"

enum {
    DRAIN_WINDOW_NS = 100000000, /* a role's drain is measured over at least so long */
    DRAIN_STALE_NS = 2000000000, /* longer ago says nothing of now */
    RETRY_MS_MAX = 10000,
    RETRY_MS_UNKNOWN = 1000, /* no worker, or none that has done a job */
};
_Static_assert((int)RB_ACCOUNT_ROLES == (int)ROLES_MAX, "an account counts by role");

struct parties { /* whose job it is, besides its role's; NULL: nobody's that counts */
    struct rb_account *node, *tenant;
};

int rb_admission_check(const struct rb_admission_config *config) {
    if (config->on_full > RB_ADMISSION_DEFER) return -EINVAL;
    if (config->on_full == RB_ADMISSION_DEFER && (!config->defer_max || !config->defer_ms))
        return -EINVAL;
    int rc = rb_rate_check(&config->rate);
    return rc < 0 ? rc : rb_adaptive_check(&config->adaptive);
}

/* --- When to come back ------------------------------------------------------------------------------------------------------- */

/* How long one job takes to leave the queue: measured from refusal to refusal, since nobody asks otherwise; else as the workers'
 * service time has it. */
static uint64_t drain_each_ns(const struct rb_relay *r, struct rb_role *role) {
    struct rb_role_admission *a = &role->admission;
    uint64_t served = role->stats.placed - a->served, passed = r->now - a->served_ns;
    if (passed >= DRAIN_WINDOW_NS && (served > 0 || passed >= DRAIN_STALE_NS)) {
        uint64_t each = served ? passed / served : 0;
        int stale = passed >= DRAIN_STALE_NS || a->served_ns == 0;
        a->each_ns = stale ? 0 : a->each_ns ? (3 * a->each_ns + each) / 4 : each;
        a->served = role->stats.placed;
        a->served_ns = r->now;
    }
    if (a->each_ns) return a->each_ns;
    uint64_t service_ns = role->ready ? role->workers[0]->service_ns / role->ready : 0;
    return service_ns ? service_ns : RETRY_MS_UNKNOWN * NS_PER_MS / (role->queued + 1);
}

static uint64_t clamped_ms(uint64_t ms) {
    return ms < 1 ? 1 : ms > RETRY_MS_MAX ? RETRY_MS_MAX : ms;
}

/* When what waits now will have left the queue. */
static uint64_t drain_ms(const struct rb_relay *r, struct rb_role *role) {
    return clamped_ms((role->queued + 1) * drain_each_ns(r, role) / NS_PER_MS);
}

/* When what broke this rule may come again: at a rate, when that lets the next job begin. */
static uint64_t retry_ms(const struct rb_relay *r, struct rb_role *role,
                         const struct rb_verdict *v) {
    return v->wait_ns ? clamped_ms((v->wait_ns + NS_PER_MS - 1) / NS_PER_MS) : drain_ms(r, role);
}

/* --- Rules ------------------------------------------------------------------------------------------------------------------- */

static int broken(struct rb_verdict *v, enum rb_rule rule, struct rb_backlog *behind) {
    v->rule = rule;
    v->behind = behind;
    v->wait_ns = 0;
    v->paced = 0;
    return 1;
}

static int depth_of_account(const struct rb_relay *r, const struct rb_role *role,
                            const struct rb_account *a, uint32_t of_role_max) {
    if (!a) return 0;
    uint32_t most = rb_account_config(&r->accounts, a)->depth_max;
    return (of_role_max && a->waiting_of[role->id] >= of_role_max) || (most && a->waiting >= most);
}

static uint64_t in_flight(const struct rb_role *role) { return role->open - role->admission.kept; }

/* Of its node, of its tenant. */
static int breaks_depth_of_caller(struct rb_relay *r, struct rb_role *role,
                                  const struct parties *who, struct rb_verdict *v) {
    const struct rb_admission_config *config = &role->config.admission;
    if (depth_of_account(r, role, who->node, config->node_depth_max))
        return broken(v, RB_RULE_NODE_DEPTH, &who->node->backlog);
    if (depth_of_account(r, role, who->tenant, config->tenant_depth_max))
        return broken(v, RB_RULE_TENANT_DEPTH, &who->tenant->backlog);
    return 0;
}

static int breaks_depth(struct rb_relay *r, struct rb_role *role, const struct parties *who,
                        struct rb_verdict *v) {
    const struct rb_admission_config *config = &role->config.admission;
    struct rb_role_admission *a = &role->admission;
    if (role->queued >= config->depth_max) return broken(v, RB_RULE_ROLE_DEPTH, &a->backlog);
    if (breaks_depth_of_caller(r, role, who, v)) return 1;
    if (config->adaptive.limit_max &&
        in_flight(role) >= rb_adaptive_limit(&a->adaptive, &config->adaptive))
        return broken(v, RB_RULE_ADAPTIVE, &a->backlog);
    return 0;
}

static int breaks_rate(const struct rb_relay *r, struct rb_limiter *l,
                       const struct rb_rate_config *rate, enum rb_rule rule,
                       struct rb_backlog *behind, struct rb_verdict *v) {
    if (rate->kind == RB_RATE_NONE) return 0;
    uint64_t wait_ns = rb_limiter_wait_ns(l, rate, r->now);
    if (wait_ns == 0) return 0;
    broken(v, rule, behind);
    v->wait_ns = wait_ns;
    v->paced = rate->kind == RB_RATE_LEAKY_BUCKET && behind->count < rate->burst;
    return 1;
}

static int breaks_rate_of(const struct rb_relay *r, struct rb_account *a, enum rb_rule rule,
                          struct rb_verdict *v) {
    return a && breaks_rate(r, &a->limiter, &rb_account_config(&r->accounts, a)->rate, rule,
                            &a->backlog, v);
}

static int breaks_any_rate(struct rb_relay *r, struct rb_role *role, const struct parties *who,
                           struct rb_verdict *v) {
    return breaks_rate(r, &role->admission.limiter, &role->config.admission.rate, RB_RULE_ROLE_RATE,
                       &role->admission.backlog, v) ||
           breaks_rate_of(r, who->node, RB_RULE_NODE_RATE, v) ||
           breaks_rate_of(r, who->tenant, RB_RULE_TENANT_RATE, v);
}

static int breaks_one(struct rb_relay *r, struct rb_role *role, const struct parties *who,
                      struct rb_verdict *v) {
    return breaks_depth(r, role, who, v) || breaks_any_rate(r, role, who, v);
}

/* A job that is dropped makes room in its role, and for none of these rules. */
static int breaks_besides(struct rb_relay *r, struct rb_role *role, const struct parties *who,
                          struct rb_verdict *v) {
    return breaks_depth_of_caller(r, role, who, v) || breaks_any_rate(r, role, who, v);
}

static void take(struct rb_relay *r, struct rb_role *role, const struct parties *who) {
    rb_limiter_take(&role->admission.limiter, &role->config.admission.rate, r->now);
    if (who->node)
        rb_limiter_take(&who->node->limiter, &rb_account_config(&r->accounts, who->node)->rate,
                        r->now);
    if (who->tenant)
        rb_limiter_take(&who->tenant->limiter, &rb_account_config(&r->accounts, who->tenant)->rate,
                        r->now);
}

/* --- What becomes of a job that breaks one ----------------------------------------------------------------------------------- */

/* Who would be dropped for a job of this band, or NULL: those that wait go before it. */
static struct rb_job *to_drop(const struct rb_role *role, uint32_t priority) {
    struct rb_job *oldest = rb_role_oldest(role);
    return oldest && oldest->queued.band >= priority ? oldest : NULL;
}

/* `behind`: others wait for the same rule already, maybe from before the policy was changed. They are not overtaken. */
static void decide(struct rb_relay *r, struct rb_role *role, const struct parties *who,
                   uint32_t priority, int behind, struct rb_verdict *v) {
    const struct rb_admission_config *config = &role->config.admission;
    int of_role = v->rule == RB_RULE_ROLE_DEPTH || v->rule == RB_RULE_ADAPTIVE;
    int drops = config->on_full == RB_ADMISSION_DROP_OLDEST && of_role && !behind &&
                to_drop(role, priority);
    if (drops && breaks_besides(r, role, who, v)) drops = 0; /* it is that rule's now */
    int later =
        config->on_full == RB_ADMISSION_DEFER && role->admission.deferred < config->defer_max;
    v->outcome = RB_REFUSE;
    v->reason = RB_REASON_OVERLOADED;
    if (v->paced || later)
        v->outcome = RB_ADMIT_LATER;
    else if (drops)
        v->outcome = RB_ADMIT_DROPPING;
    else
        v->retry_ms = retry_ms(r, role, v);
}

/* Nobody who arrives overtakes those that wait for the same. */
static int is_behind(struct rb_role *role, const struct parties *who, struct rb_verdict *v) {
    const struct rb_rate_config *rate = &role->config.admission.rate;
    if (role->admission.backlog.count)
        broken(v, rate->kind ? RB_RULE_ROLE_RATE : RB_RULE_ROLE_DEPTH, &role->admission.backlog);
    else if (who->node && who->node->backlog.count)
        broken(v, RB_RULE_NODE_RATE, &who->node->backlog);
    else if (who->tenant && who->tenant->backlog.count)
        broken(v, RB_RULE_TENANT_RATE, &who->tenant->backlog);
    else
        return 0;
    return 1;
}

static int paces(const struct rb_relay *r, const struct rb_role *role, const struct parties *who,
                 enum rb_rule rule, const struct rb_backlog *behind) {
    const struct rb_rate_config *rate =
        rule == RB_RULE_NODE_RATE     ? &rb_account_config(&r->accounts, who->node)->rate
        : rule == RB_RULE_TENANT_RATE ? &rb_account_config(&r->accounts, who->tenant)->rate
                                      : &role->config.admission.rate;
    return rate->kind == RB_RATE_LEAKY_BUCKET && behind->count < rate->burst;
}

/* Is a calling node, or a tenant, anybody's business for this role? */
static struct rb_account *account_of_node(struct rb_relay *r, const struct rb_role *role,
                                          struct rb_conn *c) {
    if (!r->accounts.limiting[RB_ACCOUNT_NODE] && !role->config.admission.node_depth_max)
        return NULL;
    if (!c) return NULL; /* a stage of a job whose caller has gone, and which goes on */
    if (!c->account) c->account = rb_account_hold(&r->accounts, RB_ACCOUNT_NODE, c->peer_text);
    return c->account;
}
static int counts_tenants(const struct rb_relay *r, const struct rb_role *role) {
    return r->accounts.limiting[RB_ACCOUNT_TENANT] || role->config.admission.tenant_depth_max;
}

void rb_admission_judge(struct rb_relay *r, struct rb_role *role, struct rb_conn *c,
                        const struct rb_slice *tenant, uint32_t priority, struct rb_verdict *v) {
    /* A role without bounds of its own, in a relay without any: what nobody asked for costs a few comparisons. */
    int bounded = role->admission.bounded || r->backlogs.count ||
                  r->accounts.limiting[RB_ACCOUNT_NODE] || r->accounts.limiting[RB_ACCOUNT_TENANT];
    if (!bounded && role->state == RB_ROLE_RUNNING && rb_health_is_whole(&role->health) &&
        role->queued < role->config.admission.depth_max) {
        v->outcome = RB_ADMIT;
        v->bounded = 0;
        return;
    }
    *v = (struct rb_verdict){.outcome = RB_ADMIT, .from = c, .bounded = 1};
    if (role->state != RB_ROLE_RUNNING) {
        v->outcome = RB_REFUSE;
        v->reason = role->state == RB_ROLE_DRAINING ? RB_REASON_DRAINING : RB_REASON_NO_WORKER;
        return;
    }
    if (rb_health_refuses(r, role, &v->retry_ms)) {
        v->outcome = RB_REFUSE;
        v->reason = RB_REASON_CIRCUIT_OPEN;
        return;
    }
    struct parties who = {.node = account_of_node(r, role, c)};
    if (tenant && tenant->size && counts_tenants(r, role))
        who.tenant = rb_account_find(&r->accounts, RB_ACCOUNT_TENANT, *tenant);
    int waits = r->backlogs.count && is_behind(role, &who, v);
    if (waits) v->paced = paces(r, role, &who, v->rule, v->behind);
    if (!waits && !breaks_one(r, role, &who, v)) return;
    decide(r, role, &who, priority, waits, v);
}

/* --- Refusals ----------------------------------------------------------------------------------------------------------------- */

static void count_overloaded(struct rb_relay *r, struct rb_role *role, enum rb_rule rule,
                             uint32_t told) {
    COUNT(r->stats.overloaded_by[rule], told);
    COUNT(role->stats.overloaded_by[rule], told);
}

void rb_admission_count_rule(struct rb_relay *r, struct rb_role *role, enum rb_rule rule) {
    count_overloaded(r, role, rule, 1);
}

void rb_admission_refuse(struct rb_relay *r, struct rb_role *role, const struct rb_caller *to,
                         const struct rb_verdict *v) {
    COUNT(r->stats.refused[v->reason], 1);
    COUNT(role->stats.refused[v->reason], 1);
    if (v->reason == RB_REASON_OVERLOADED) count_overloaded(r, role, v->rule, 1);
    if (v->reason == RB_REASON_OVERLOADED || v->reason == RB_REASON_CIRCUIT_OPEN)
        rb_answer_retry_after(to, v->reason, v->retry_ms);
    else
        rb_answer_reason(to, v->reason);
}

void rb_admission_refuse_room(struct rb_relay *r, struct rb_role *role, const struct rb_caller *to,
                              enum rb_rule rule) {
    struct rb_verdict v = {
        .reason = RB_REASON_OVERLOADED, .rule = rule, .retry_ms = drain_ms(r, role)};
    rb_admission_refuse(r, role, to, &v);
}

/* One that was accepted, by now in no queue or about to leave it. */
static void tell_overloaded(struct rb_relay *r, struct rb_job *j, enum rb_rule rule,
                            uint64_t retry) {
    struct rb_caller to = rb_job_caller(j);
    int shared = j->kind == RB_CALLER_SHARED; /* all of its callers are told */
    if (j->kind == RB_CALLER_STAGE)           /* its caller may have several, and is told once */
        rb_pipeline_overloaded(j->extra->pipeline, rule);
    else
        count_overloaded(r, j->role, rule, shared ? rb_shared_callers(j->extra->shared) : 1);
    rb_answer_retry_after(&to, RB_REASON_OVERLOADED, retry);
    rb_job_answered(r, j, RB_REASON_OVERLOADED);
}

/* --- Backlogs ------------------------------------------------------------------------------------------------------------------ */

static void list_backlog(struct rb_relay *r, struct rb_backlog *b) {
    if (b->listed) return;
    b->listed = 1;
    b->next = NULL;
    b->prev = r->backlogs.last;
    *(r->backlogs.last ? &r->backlogs.last->next : &r->backlogs.first) = b;
    r->backlogs.last = b;
    r->backlogs.count++;
}

static void unlist_backlog(struct rb_relay *r, struct rb_backlog *b) {
    if (!b->listed) return;
    *(b->prev ? &b->prev->next : &r->backlogs.first) = b->next;
    *(b->next ? &b->next->prev : &r->backlogs.last) = b->prev;
    r->backlogs.count--;
    b->listed = 0;
}

static void count_kept(struct rb_job *j, int32_t change) {
    struct rb_role *role = j->role;
    role->admission.kept += (uint32_t)change;
    if (!j->paced) role->admission.deferred += (uint32_t)change;
    GAUGE(role->stats.deferred, role->admission.kept);
}

static void wait_behind(struct rb_relay *r, struct rb_job *j, struct rb_backlog *b, int paced) {
    j->backlog = b;
    j->paced = (uint8_t)paced;
    j->later = NULL;
    j->earlier = b->last;
    *(b->last ? &b->last->later : &b->first) = j;
    b->last = j;
    b->count++;
    count_kept(j, 1);
    list_backlog(r, b);
    /* A policy keeps it for so long; a leaky bucket, which knows when its turn comes, until the deadline. */
    uint64_t until = r->now + j->role->config.admission.defer_ms * NS_PER_MS;
    rb_job_due(r, j, paced || until > j->request.deadline_ns ? j->request.deadline_ns : until);
}

void rb_admission_forget(struct rb_relay *r, struct rb_job *j) {
    struct rb_backlog *b = j->backlog;
    *(j->earlier ? &j->earlier->later : &b->first) = j->later;
    *(j->later ? &j->later->earlier : &b->last) = j->earlier;
    j->backlog = NULL;
    count_kept(j, -1);
    if (--b->count == 0) unlist_backlog(r, b);
}

void rb_admission_expire(struct rb_relay *r, struct rb_job *j) {
    struct parties who = {j->node, j->purse};
    struct rb_verdict v = {.wait_ns = 0};
    breaks_one(r, j->role, &who, &v);
    tell_overloaded(r, j, RB_RULE_DEFERRED, retry_ms(r, j->role, &v));
}

/* --- In ------------------------------------------------------------------------------------------------------------------------ */

static void drop_for(struct rb_relay *r, struct rb_role *role, uint32_t priority) {
    struct rb_job *oldest = to_drop(role, priority);
    if (oldest) tell_overloaded(r, oldest, RB_RULE_DROPPED, drain_ms(r, role));
}

static void hold_accounts(struct rb_relay *r, struct rb_job *j, const struct rb_slice *tenant,
                          struct rb_conn *from) {
    if ((j->node = account_of_node(r, j->role, from))) j->node->held++;
    if (tenant->size && counts_tenants(r, j->role))
        j->purse = rb_account_hold(&r->accounts, RB_ACCOUNT_TENANT, *tenant);
}

void rb_admission_enter(struct rb_relay *r, struct rb_job *j, const struct rb_slice *tenant,
                        const struct rb_verdict *v) {
    if (!v->bounded) {
        rb_job_accept(r, j);
        rb_job_queue(r, j);
        return;
    }
    hold_accounts(r, j, tenant, v->from);
    if (v->outcome == RB_ADMIT_LATER) {
        rb_job_accept(r, j);
        wait_behind(r, j, v->behind, v->paced);
        return;
    }
    struct parties who = {j->node, j->purse};
    if (v->outcome == RB_ADMIT_DROPPING) drop_for(r, j->role, j->request.priority);
    take(r, j->role, &who);
    rb_job_accept(r, j);
    rb_job_queue(r, j);
}

/* The first of a backlog. 1: it went to its queue; 0: it stays; -1: it waits elsewhere, or was told. */
static int try_first(struct rb_relay *r, struct rb_backlog *b) {
    struct rb_job *j = b->first;
    struct rb_role *role = j->role;
    struct parties who = {j->node, j->purse};
    struct rb_verdict v = {.outcome = RB_ADMIT};
    int was_deferred = !j->paced;
    if (breaks_one(r, role, &who, &v)) {
        if (v.behind != b) {
            role->admission.deferred -= (uint32_t)was_deferred; /* not in its own way */
            decide(r, role, &who, j->request.priority, 0, &v);
            role->admission.deferred += (uint32_t)was_deferred;
        }
        if (v.behind == b) {
            if (v.wait_ns && r->now + v.wait_ns < r->backlog_due_ns)
                r->backlog_due_ns = r->now + v.wait_ns;
            return 0;
        }
    }
    if (v.outcome == RB_REFUSE) {
        tell_overloaded(r, j, v.rule, v.retry_ms);
        return -1;
    }
    uint64_t due_ns = j->due_ns;
    rb_admission_forget(r, j);
    if (v.outcome == RB_ADMIT_LATER) {
        wait_behind(r, j, v.behind, v.paced);
        if (was_deferred && !v.paced) rb_job_due(r, j, due_ns); /* not anew for each rule */
        return -1;
    }
    if (v.outcome == RB_ADMIT_DROPPING) drop_for(r, role, j->request.priority);
    take(r, role, &who);
    rb_job_due(r, j, j->request.deadline_ns);
    rb_job_queue(r, j);
    return 1;
}

int rb_admission_round(struct rb_relay *r) {
    int entered = 0;
    r->backlog_due_ns = UINT64_MAX;
    for (uint32_t lists = r->backlogs.count; lists > 0 && r->backlogs.first; lists--) {
        struct rb_backlog *b = r->backlogs.first;
        unlist_backlog(r, b);
        int done = -1;
        for (uint32_t jobs = b->count; jobs > 0 && b->count > 0 && done != 0; jobs--) {
            done = try_first(r, b);
            entered += done > 0;
        }
        if (b->count) list_backlog(r, b);
    }
    return entered;
}

void rb_admission_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason,
                          uint64_t retry_ms) {
    struct rb_backlog *b = r->backlogs.first, *next;
    for (; b && role->admission.kept; b = next) {
        next = b->next;
        for (struct rb_job *j = b->first, *later; j; j = later) {
            later = j->later;
            if (j->role == role) rb_role_tell(r, j, reason, retry_ms);
        }
    }
}

/* --- Counts and changes ---------------------------------------------------------------------------------------------------------- */

void rb_admission_count(const struct rb_job *j, int32_t change) {
    struct rb_account *both[2] = {j->node, j->purse};
    for (int i = 0; i < 2; i++) {
        if (!both[i]) continue;
        both[i]->waiting += (uint32_t)change;
        both[i]->waiting_of[j->role->id] += (uint32_t)change;
    }
}

void rb_admission_ended(struct rb_relay *r, const struct rb_job *j) {
    struct rb_role *role = j->role;
    const struct rb_adaptive_config *config = &role->config.admission.adaptive;
    uint64_t count = in_flight(role);
    rb_adaptive_ended(&role->admission.adaptive, config, r->now - j->entered_ns,
                      count > UINT32_MAX ? UINT32_MAX : (uint32_t)count, r->now);
    GAUGE(role->stats.adaptive_limit, rb_adaptive_limit(&role->admission.adaptive, config));
}

void rb_admission_init(struct rb_role *role) {
    const struct rb_admission_config *config = &role->config.admission;
    role->admission.bounded = config->node_depth_max || config->tenant_depth_max ||
                              config->adaptive.limit_max || config->rate.kind != RB_RATE_NONE;
}

void rb_admission_configured(struct rb_relay *r, struct rb_role *role,
                             const struct rb_admission_config *before) {
    const struct rb_admission_config *after = &role->config.admission;
    rb_admission_init(role);
    rb_limiter_change(&role->admission.limiter, &before->rate, &after->rate, r->now);
    if (memcmp(&before->adaptive, &after->adaptive, sizeof after->adaptive) != 0)
        role->admission.adaptive = (struct rb_adaptive){0};
    GAUGE(role->stats.adaptive_limit,
          after->adaptive.limit_max ? rb_adaptive_limit(&role->admission.adaptive, &after->adaptive)
                                    : 0);
}
