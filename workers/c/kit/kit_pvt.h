/* kit_pvt.h: what the kit's parts share: the worker, the job being run, the counters.
 *
 *      main.c       opens the link, says hello, serves, ends
 *      process.c    what the process was started with, its ends when a rule is broken
 *      serve.c      the loop: wait, take a batch, run each job, release slots
 *      job.c        what a handler may ask of its job
 *      answer.c     room for answers, completions, give-backs
 *      part.c       what a job says before its answer: parts, progress
 *      zstd.c       payloads and answers that are compressed
 *      heartbeat.c  the thread that tells the bridge that we live
 *      packet.c, channel.c, state.c, chaos.c   the socket beside the link (channel_pvt.h)
 *      peer_wire.c, peer.c, peer_serve.c, peer_asked.c   links to other workers (peer_pvt.h) */
#ifndef RINGBRIDGE_KIT_PVT_H
#define RINGBRIDGE_KIT_PVT_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "ringbridge/link.h"
#include "ringbridge_worker.h"

enum {
    RB_EXIT_USAGE = 64,
    RB_EXIT_DATAERR = 65,
    RB_EXIT_OSERR = 71,
    RB_EXIT_PROTOCOL = 76,
    RB_EXIT_CONFIG = 78
}; /* sysexits.h */

/* Written by the handler's thread, read by the heartbeat's: all relaxed, since each word says something by itself and one beat
 * may well be a job behind. */
struct rb_kit_counters {
    uint64_t jobs, failed, run_ns;
    uint64_t started; /* requests whose handler has been entered, as the shared word */
    uint32_t last_code, gate;
};

struct rb_heartbeat {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int ending; /* under the lock, as the next */
    int now;    /* a beat is wanted at once */
    uint64_t beats;
};

enum { RB_ROOM_KEPT_BYTES = 1 << 20 }; /* between two jobs */
struct rb_kit_room {                   /* a mapping of our own; bytes 0: none */
    uint8_t *at;
    size_t bytes;
};

struct rb_worker {
    struct rb_link_worker link;
    const struct rb_worker_options *options;
    uint64_t unreleased;     /* request slots whose job is answered, not yet released */
    uint64_t unpublished_ns; /* when the oldest unpublished completion was made; 0: none */
    uint64_t now_ns; /* the clock at the end of the last job, which is the start of the next */
    int leaving; /* set by a handler: its job is left without an answer, and no other is begun */
    struct rb_kit_room content, frame; /* of a payload, decompressed; of an answer, compressed */
    struct rb_kit_counters counters;
    struct rb_heartbeat heartbeat;
};

enum rb_job_state { RB_JOB_OPEN, RB_JOB_RESERVED, RB_JOB_ANSWERED };

struct rb_peer_asked;

struct rb_job {
    struct rb_worker *worker;
    struct rb_peer_asked
        *peer; /* NULL: a job of the bridge's; else asked over a link by another worker */
    struct rb_request request; /* private copy */
    const uint8_t *payload;
    uint64_t slot, position; /* in the request ring */
    uint32_t parts;          /* sent, since the job began; runs freely */
    uint64_t drained_ns, start_ns;
    enum rb_job_state state;
    int refused;         /* errno of the last rb_result_reserve() that failed */
    uint64_t wanted;     /* its size */
    uint64_t reserved;   /* bytes */
    int64_t first_block; /* -1: the answer lies in inline_bytes */
    uint64_t
        summed; /* the first so many bytes of the reservation were summed as they were copied; 0: none */
    uint32_t sum; /* their CRC */
    uint8_t inline_bytes[RB_INLINE_BYTES_MAX];
};

static inline uint64_t rb_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The bridge broke a rule of the link: nothing in it can be trusted. A line on stderr, exit status 76. */
void rb_kit_broken(const struct rb_worker *w, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* The worker called the kit wrongly: a line on stderr, abort(). */
void rb_kit_misused(const struct rb_job *job, const char *what) __attribute__((noreturn));

/* The same of the channel beside it. */
void rb_kit_channel_broken(const char *what) __attribute__((noreturn));
int rb_kit_first_descriptor(void); /* of the link, or -1 */

/* rb_worker_main() in its parts, for a kit of another language that is built upon this one and runs handlers in a loop of its own
 * (workers/python). Opens the link and says hello: 0, or the exit status of a process that cannot, its reason on stderr. */
int rb_kit_open(struct rb_worker *w, const char *program, const char *kit, uint32_t kit_version);
void rb_kit_close(struct rb_worker *w);
void rb_kit_serve(struct rb_worker *w); /* returns when told to drain or stop */
enum rb_kit_turn { RB_KIT_LEAVE, RB_KIT_RAN, RB_KIT_IDLE };
/* Runs what is in the ring as one batch. RB_KIT_IDLE: there was nothing; RB_KIT_LEAVE: told to drain or stop, and done with it. */
enum rb_kit_turn rb_kit_turn(struct rb_worker *w);
/* Waits for work or a control word; with `slice_ns` at most so long, and a wake-up that brings neither (a signal) ends it too.
 * slice_ns: -1: without end, and signals do not end it. */
void rb_kit_wait_for_work(struct rb_worker *w, int64_t slice_ns);
static inline int rb_kit_control(const struct rb_worker *w) {
    /* seq_cst: a gate waits for it (gate.h: G0 and G5). Pairs with the relay's store of drain or stop. */
    return (int)rb_load_seq_cst(&w->link.theirs->control);
}

void rb_kit_publish(struct rb_worker *w); /* completions, then the slots of their requests */
void rb_kit_take_givebacks(struct rb_worker *w);
/* First block of room for `size` bytes in the result region; waits for give-backs. -EMSGSIZE or -ECANCELED. */
int64_t rb_kit_take_blocks(struct rb_job *job, uint64_t size);
/* A slot of the completion ring; waits for one. It is published by rb_kit_publish(). */
struct rb_completion *rb_kit_claim(struct rb_job *job);
/* After a completion was made at `now`: publishes, unless options.short_jobs lets it wait a little. */
void rb_kit_publish_soon(struct rb_worker *w, uint64_t now);
void rb_kit_answer_unanswered(
    struct rb_job *job); /* what a handler that returned without an answer has meant */

/* --- compressed payloads (zstd.c) --------------------------------------------------------------------------------------- */

void rb_zstd_offer(struct rb_worker *w); /* before the hello: takes the feature where it can */
/* Of a request with RB_FLAG_ZSTD. NULL: the job is as if its payload had come plain; else the rule that its frame breaks. */
const char *rb_zstd_unpack(struct rb_job *job);
/* Compresses the first `size` bytes of the reservation in their place, if its caller accepts that and they get smaller: how many they
 * are then. */
size_t rb_zstd_pack(struct rb_job *job, size_t size);
void rb_zstd_let_go(struct rb_worker *w);
/* At the end of every job. */
static inline void rb_zstd_job_done(struct rb_worker *w) {
    if ((w->content.bytes | w->frame.bytes) > RB_ROOM_KEPT_BYTES) rb_zstd_let_go(w);
}
/* The room in which the job's payload lies, for who keeps it beyond the job. */
struct rb_kit_room rb_zstd_take_content(struct rb_worker *w);

/* --- of a job that another worker asked for (peer_asked.c) -------------------------------------------------------------- */

void *rb_peer_room(struct rb_job *job, size_t size); /* as rb_result_reserve() */
void rb_peer_drop_room(struct rb_peer_asked *asked);
void rb_peer_answer(struct rb_job *job, struct rb_completion *c); /* whose bytes lie in its room */
/* Memory that outlives the job: what rb_result_reserve() gave, which is then no reservation any more; and what holds the payload. The
 * caller's to free(). */
void *rb_peer_keep_room(struct rb_job *job);
void *rb_peer_keep_request(struct rb_job *job);
int rb_peer_is_cancelled(const struct rb_job *job);

int rb_heartbeat_start(
    struct rb_worker *w); /* the first beat is made before it returns; 0 or negative errno */
void rb_heartbeat_stop(struct rb_worker *w); /* after a last beat */

#endif
