/* answer.h: what callers are told, whatever their kind (reply.h). */
#ifndef RB_RELAY_ANSWER_H
#define RB_RELAY_ANSWER_H

#include "relay/service/reply.h"
#include "ringbridge/relay.h"
#include "ringbridge/term.h"

struct rb_job;
struct rb_relay;
struct rb_worker;

void rb_answer_raw(const struct rb_caller *to, const struct rb_job *detail, const uint8_t *bytes,
                   size_t size);
void rb_answer_term(const struct rb_caller *to, const struct rb_job *detail, struct rb_slice term);
void rb_answer_reason(const struct rb_caller *to, enum rb_reason reason); /* the plain atoms */
void rb_answer_retry_after(const struct rb_caller *to, enum rb_reason reason,
                           uint64_t retry_after_ms); /* overloaded, circuit_open */
void rb_answer_too_large(const struct rb_caller *to, uint64_t limit);
void rb_answer_text(const struct rb_caller *to, enum rb_reason reason,
                    const char *text); /* bad_request, worker_broke */
void rb_answer_failed(const struct rb_caller *to, uint16_t code, const uint8_t *message,
                      size_t size);
void rb_answer_crashed(const struct rb_caller *to, const struct rb_worker *w, uint64_t job,
                       int status, int signal, int oom);
void rb_answer_ok(const struct rb_caller *to);                               /* the bare atom ok */
void rb_answer_handle(const struct rb_caller *to, const struct rb_job *job); /* {ok, Ref} */
void rb_answer_unknown_job(const struct rb_caller *to);
void rb_answer_stats(const struct rb_caller *to, const struct rb_relay *r);
void rb_answer_status(const struct rb_caller *to, const struct rb_job *job, uint64_t now);
void rb_answer_jobs(const struct rb_caller *to, struct rb_relay *r, struct rb_slice role);
struct rb_detail { /* of `detail: true` */
    uint64_t job, worker, queue_us, run_us;
};
enum { RB_DETAIL_ROOM = 160 };
struct rb_detail rb_detail_of(const struct rb_job *j);
void rb_detail_write(struct rb_pen *p, const struct rb_detail *d);

/* The code of {job_failed, ..} for an answer that has no room on its way, as the kits say it of one that does not fit into their region. */
enum { RB_CODE_ANSWER_TOO_LARGE = 65280 };
const char *rb_reason_name(enum rb_reason reason);

#endif
