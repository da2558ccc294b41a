/* role.h: a role: what waits for it, and who is ready for it. */
#ifndef RB_RELAY_ROLE_H
#define RB_RELAY_ROLE_H

#include "relay/dispatch/admission.h"
#include "relay/dispatch/choose.h"
#include "relay/dispatch/health.h"
#include "relay/dispatch/queue.h"
#include "relay/dispatch/row.h"
#include "ringbridge/link.h"
#include "ringbridge/relay.h"
#include "ringbridge/term_check.h"

struct rb_job;
struct rb_relay;
struct rb_worker;

/* Jobs that are passed on, or told, at once: a deep queue does not hold up a round, and the rest comes in the next ones. */
enum { RB_MOVES_A_ROUND = 1024 };

struct rb_role {
    uint32_t id;
    char name[64];
    struct rb_role_config config;
    struct rb_term_rules rules; /* of its answers */
    struct rb_slice atoms[RB_ROLE_ATOMS_MAX];
    struct rb_pool pool;
    uint32_t state;
    uint32_t jobs; /* that have this role, from admission until they are freed: */
    struct rb_job *first_job, *last_job; /* by next_of_role, as they came */
    uint32_t
        open; /* of these, accepted work that is not over; those who wait for another's run are none */
    int leaving;                /* removed: found by no caller, gone with its last job */
    struct rb_queue queue;      /* of jobs that any worker may take */
    uint32_t queued;            /* jobs that wait, wherever */
    struct rb_worker **workers; /* ready ones */
    uint32_t ready, capacity;
    uint32_t zstd_ready;   /* of these, those that take compressed payloads; */
    struct rb_queue apart; /* of jobs that only they may take, while others are ready beside them */
    struct rb_choice choice;      /* of these, those with room */
    uint32_t ramping;             /* of these, with less than a whole share */
    uint64_t ramped_ns;           /* when shares were last looked at */
    struct rb_affinity *affinity; /* NULL before the first job with a key */
    struct rb_rows rows;          /* of an ordered role */
    struct rb_worker
        *parting; /* those without keys for whom jobs wait that have not been passed on yet */
    struct rb_worker *late; /* of these, those that hold slots of jobs that they have answered */
    int dirty;              /* has something to place */
    struct rb_role_health health;
    struct rb_role_admission admission;
    struct rb_role_stats stats; /* read by the other thread, word by word */
};

void rb_role_init(struct rb_role *role, const struct rb_role_config *config);
/* From here on the role works by `config`, whose name and pool size are its own. */
void rb_role_configure(struct rb_relay *r, struct rb_role *role,
                       const struct rb_role_config *config);
void rb_role_leave(struct rb_relay *r, struct rb_role *role); /* removed: see `leaving` */
void rb_roles_leave(struct rb_relay *r); /* at the end of a round: those without a job are gone */
void rb_role_free(struct rb_role *role); /* on the other thread, or when there is none any more */
void rb_role_push(struct rb_relay *r, struct rb_role *role, struct rb_job *j);
void rb_role_unlink(struct rb_role *role, struct rb_job *j); /* it waits no more */
void rb_role_take(struct rb_role *role, struct rb_job *j);   /* the same: it goes to a worker */
/* A job of an ordered role is over: the next one of its key comes forward. */
void rb_role_over(struct rb_relay *r, struct rb_role *role, struct rb_job *j);
/* Jobs that wait for workers without keys are passed on, RB_MOVES_A_ROUND at most. 1: there are more. */
int rb_role_part(struct rb_relay *r, struct rb_role *role);
/* A job that waits in the role's queue and has a home by now: it goes there. 1 if so. */
int rb_role_home(struct rb_relay *r, struct rb_role *role, struct rb_job *j);
/* A job that stands in a queue whose worker may not take it: it waits apart, for one that may. */
void rb_role_set_apart(struct rb_relay *r, struct rb_role *role, struct rb_job *j);
/* Not every ready worker may take it: a compressed payload, and workers that differ. */
int rb_role_is_choosy(const struct rb_role *role, const struct rb_job *j);
void rb_role_weigh(struct rb_worker *w, uint32_t weight);
/* It is to be given `share` of RB_CHOICE_WHOLE of what it would get; its breaker has changed (health.h). */
void rb_role_trust(struct rb_worker *w, uint32_t share);
void rb_role_ramp(struct rb_relay *r, struct rb_role *role); /* shares grow with time */
void rb_role_add_ready(struct rb_role *role, struct rb_worker *w);
void rb_role_remove_ready(struct rb_role *role, struct rb_worker *w);
void rb_role_give_up(struct rb_relay *r, struct rb_role *role, enum rb_reason reason,
                     uint64_t retry_ms); /* answers what is queued, in some rounds */
/* Of those that stand in a queue, the one to give up: of the lowest band, the oldest. Who is behind one comes forward when that is
 * over. NULL: none. */
struct rb_job *rb_role_oldest(const struct rb_role *role);
/* Answers one that waits. */
void rb_role_tell(struct rb_relay *r, struct rb_job *j, enum rb_reason reason, uint64_t retry_ms);
void rb_role_clear(struct rb_relay *r, struct rb_role *role); /* frees what waits, unanswered */
struct rb_role *rb_role_named(struct rb_relay *r, struct rb_slice name);

#endif
