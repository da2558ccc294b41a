/* encoding.h: payloads that come as zstd frames, and whether they may come in.
 *
 * The relay neither compresses nor decompresses: it passes frames on, as flags of the envelopes, between callers that ask for it and
 * workers that have taken RB_FEATURE_ZSTD in their hello. Of a frame it reads the head and no more. */
#ifndef RB_RELAY_ENCODING_H
#define RB_RELAY_ENCODING_H

#include "relay/service/submit.h"
#include "ringbridge/layout.h"

/* The worker has taken it. */
int rb_encoding_worker_takes(const struct rb_worker *w);
/* Tells it how large a content may be: the role's payload_bytes_max, which a reload may change. */
void rb_encoding_tell_limit(const struct rb_worker *w);
/* Whether a request that gives `encoding` or `accept` may come in with this payload, and at this moment: 0; -EINVAL with `why`;
 * -EMSGSIZE: its content is larger than the role takes. For one that gives neither it is always 0. */
int rb_encoding_check(const struct rb_role *role, const struct rb_options *o,
                      const struct rb_payload *payload, const char *verb, char why[RB_WHY_BYTES]);
/* The same, and the caller is told. 1: it may come in. */
int rb_encoding_admits(struct rb_role *role, const struct rb_caller *to, const struct rb_submit *s,
                       const struct rb_payload *payload);
/* A job that waits, and that no ready worker of its role takes any more: its caller is told so. */
void rb_encoding_refuse(struct rb_relay *r, struct rb_job *j);
/* The rule that a completion's flags break; NULL: none. */
const char *rb_encoding_rule(const struct rb_job *j, const struct rb_completion *e);

#endif
