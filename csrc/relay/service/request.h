/* request.h: what a message to the JobDispatcher asks for. Shapes of DESIGN.md, section 3; nothing is copied. */
#ifndef RB_RELAY_REQUEST_H
#define RB_RELAY_REQUEST_H

#include "relay/service/options.h"

/* Who is to be answered, and by which way (dist-protocol, "What BEAM calls put on the wire"). */
struct rb_from {
    struct rb_slice pid;
    struct rb_slice tag;   /* echoed as it is, never otherwise relied on */
    struct rb_slice alias; /* reference to answer to; empty: answer to the pid */
    struct rb_slice
        monitor; /* reference in the tag that may be a monitor held for the call; empty: none */
};

enum rb_message_kind {
    RB_MESSAGE_OTHER, /* nothing that a GenServer would answer */
    RB_MESSAGE_CALL,  /* '$gen_call': the cursor stands at the request */
    RB_MESSAGE_CAST,
    RB_MESSAGE_SYSTEM, /* sys: suspend, get_state, ... */
};
/* Moves to the request of a call. Returns an rb_message_kind, or -EAGAIN when more bytes are needed to tell. */
int rb_message_kind(struct rb_cursor *c, struct rb_from *from);

enum rb_request_kind {
    RB_REQUEST_SUBMIT, /* the cursor stands at the payload; submit->verb says which */
    RB_REQUEST_STATS,
    RB_REQUEST_STATUS,
    RB_REQUEST_STATUS_REF, /* submit->ref */
    RB_REQUEST_CANCEL,
    RB_REQUEST_CANCEL_REF, /* submit->ref */
    RB_REQUEST_JOBS,       /* submit->role: of this role only; `all`: of every one */
    RB_REQUEST_BAD,        /* why[] says what is wrong with it */
};
enum rb_verb {
    RB_VERB_CALL,  /* submit: the answer is the call's */
    RB_VERB_ASYNC, /* submit_async: the call's answer is {ok, Ref}, the job's follows as a message */
    RB_VERB_MANY,  /* submit_many: a list of payloads, a list of answers */
    RB_VERB_STREAM, /* no call: the `job` of a subscription (stage.h) */
};
const char *rb_verb_name(enum rb_verb verb);

struct rb_submit {
    enum rb_verb verb;
    unsigned arity; /* 3: no options; 4 */
    struct rb_slice role;
    struct rb_slice step; /* in the role's place, a term that step.h knows; empty: a role */
    struct rb_slice ref;
    struct rb_options options;
};
/* Parses {submit.., Role, | Payload ...} up to the payload, or one of the short requests (`job` is then their argument).
 * -EAGAIN when more bytes are needed. */
int rb_request_kind(struct rb_cursor *c, struct rb_submit *submit, uint64_t *job,
                    char why[RB_WHY_BYTES]);
/* Parses what follows the payload. 0, or -EINVAL with `why`; -EAGAIN when cut. */
int rb_submit_options(struct rb_cursor *c, struct rb_submit *submit, char why[RB_WHY_BYTES]);

#endif
