/* chaos.c: trouble on purpose (docs/chaos.md): the hooks that a bridge may switch on in a worker whose environment allows it.
 *
 * Off, they cost nothing: a hook that concerns jobs takes the place of the handler in the worker's options, so no job of a worker
 * without one passes a line of this file. One hook at a time; the next one takes its place.
 *
 * The body of a RB_PACKET_CHAOS is text: a hook's name, a value, and for how many jobs (docs/channel.md, "Hooks"). */
#define _GNU_SOURCE
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "channel_pvt.h"
#include "ringbridge/envelope.h"

enum { NAME_BYTES_MAX = 15, BODY_BYTES_MAX = 64, SLICE_MS = 10 };

struct hook {
    const char *name;
    void (*at_job)(struct rb_job *job,
                   unsigned long value); /* before the handler; NULL: not there */
    void (*after_job)(struct rb_job *job);
    void (*at_once)(struct rb_worker *w, unsigned long ms);
    unsigned long value_max;
};

static struct {
    const struct rb_worker_options *usual; /* of the worker, while `troubled` has their place */
    struct rb_worker_options troubled;
    const struct hook *hook;
    unsigned long value, jobs;
} chaos;

static void nap(unsigned long ms) {
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

/* --- hooks of jobs ------------------------------------------------------------------------------------------------------ */

/* Gets nowhere and hears nothing, while the heartbeat goes on. */
static void stall(struct rb_job *job, unsigned long ms) {
    (void)job;
    nap(ms);
}

static void crash(struct rb_job *job, unsigned long number) {
    (void)job;
    kill(getpid(), (int)number);
    pause(); /* a signal to oneself may still be on its way in another thread */
}

/* An answer of more bytes than the link has room for. */
static void oversize(struct rb_job *job, unsigned long bytes) {
    (void)rb_result_reserve(job, job->worker->link.header.result_bytes + bytes);
    rb_kit_answer_unanswered(job);
}

/* Completions that no kit makes, which the relay has to see through. */
static void lie(struct rb_job *job, const struct rb_completion *c) {
    *rb_kit_claim(job) = *c;
    job->state = RB_JOB_ANSWERED;
    rb_kit_publish(job->worker);
}

static void corrupt(struct rb_job *job, unsigned long bits) {
    struct rb_completion c = {
        .job = job->request.job, .status = RB_STATUS_OK, .flags = RB_FLAG_INLINE};
    c.crc = rb_completion_crc(&c, NULL, job->worker->link.header.features) ^ (uint32_t)bits;
    lie(job, &c);
}

static void overrun(struct rb_job *job, unsigned long bytes) {
    const struct rb_relay_header *h = &job->worker->link.header;
    struct rb_completion c = {.job = job->request.job,
                              .status = RB_STATUS_OK,
                              .payload_at = h->result_bytes - h->result_block_bytes,
                              .payload_bytes = (uint32_t)(h->result_block_bytes + bytes)};
    lie(job, &c);
}

/* The relay looks awake, so nobody rings: it finds the answer when it next looks by itself. */
static const uint32_t looks_awake = RB_PARK_AWAKE;
static const uint32_t *relay_park;

static void mute(struct rb_job *job, unsigned long value) {
    (void)value;
    rb_kit_publish(job->worker);
    relay_park = job->worker->link.waker.park;
    job->worker->link.waker.park = &looks_awake;
}

static void unmute(struct rb_job *job) {
    rb_kit_publish(job->worker);
    job->worker->link.waker.park = relay_park;
}

/* The handler can open nothing: a new descriptor is the lowest that is free. No lower limit than that, as poll() refuses more
 * descriptors than the limit (poll(2), EINVAL), and the answer's ring would be lost with it. */
static struct rlimit files;

static void exhaust(struct rb_job *job, unsigned long value) {
    (void)job, (void)value;
    getrlimit(RLIMIT_NOFILE, &files);
    int lowest = dup(STDERR_FILENO);
    struct rlimit none = {.rlim_cur = lowest < 0 ? files.rlim_cur : (rlim_t)lowest,
                          .rlim_max = files.rlim_max};
    if (lowest >= 0) close(lowest);
    setrlimit(RLIMIT_NOFILE, &none);
}

static void recover(struct rb_job *job) {
    (void)job;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* --- hooks of the worker ------------------------------------------------------------------------------------------------- */

/* Takes nothing from its ring, however full that is, until the time is over or the worker is to leave. */
static void hold(struct rb_worker *w, unsigned long ms) {
    for (; ms > 0 && rb_kit_control(w) == RB_CONTROL_RUN; ms -= ms < SLICE_MS ? ms : SLICE_MS)
        nap(ms < SLICE_MS ? ms : SLICE_MS);
}

struct silence {
    struct rb_worker *worker;
    unsigned long ms;
    sem_t begun;
};

/* Who holds the heart's lock holds the heart. It ends early when the worker does: that joins the heart, which needs the lock. */
static void *hold_heart(void *arg) {
    struct silence *given = arg;
    struct silence s = {.worker = given->worker, .ms = given->ms};
    pthread_mutex_lock(&s.worker->heartbeat.lock);
    sem_post(&given->begun);
    hold(s.worker, s.ms);
    pthread_mutex_unlock(&s.worker->heartbeat.lock);
    return NULL;
}

static void silence(struct rb_worker *w, unsigned long ms) {
    struct silence s = {.worker = w, .ms = ms};
    sigset_t all, before;
    pthread_t thread;
    sem_init(&s.begun, 0, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, hold_heart, &s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) {
        pthread_detach(thread);
        while (sem_wait(&s.begun) < 0) {
        }
    }
    sem_destroy(&s.begun);
}

static const struct hook hooks[] = {
    {.name = "stall", .at_job = stall, .value_max = 3600000},
    {.name = "crash", .at_job = crash, .value_max = 64},
    {.name = "oversize", .at_job = oversize, .value_max = 1ul << 30},
    {.name = "corrupt", .at_job = corrupt, .value_max = UINT32_MAX},
    {.name = "overrun", .at_job = overrun, .value_max = 1 << 30},
    {.name = "lost_wake", .at_job = mute, .after_job = unmute, .value_max = 1},
    {.name = "no_files", .at_job = exhaust, .after_job = recover, .value_max = 1},
    {.name = "hold", .at_once = hold, .value_max = 3600000},
    {.name = "silence", .at_once = silence, .value_max = 3600000},
};

/* --- switching them ------------------------------------------------------------------------------------------------------ */

static void troubled(struct rb_job *job, void *user) {
    struct rb_worker *w = job->worker;
    const struct hook *hook = chaos.hook;
    if (job->peer != NULL) { /* another worker's, which has no place in the bridge's rings */
        chaos.usual->handler(job, user);
        return;
    }
    if (--chaos.jobs == 0) w->options = chaos.usual;
    hook->at_job(job, chaos.value);
    if (job->state != RB_JOB_ANSWERED) chaos.usual->handler(job, user);
    if (!w->leaving) rb_kit_answer_unanswered(job);
    if (hook->after_job) hook->after_job(job);
}

static void arm(struct rb_worker *w, const struct hook *hook, unsigned long value,
                unsigned long jobs) {
    if (chaos.usual == NULL) chaos.usual = w->options;
    chaos.troubled = *chaos.usual;
    chaos.troubled.handler = troubled;
    chaos.hook = hook;
    chaos.value = value;
    chaos.jobs = jobs;
    w->options = jobs > 0 ? &chaos.troubled : chaos.usual;
}

/* "NAME VALUE JOBS": the hook, or NULL. */
static const struct hook *read_hook(const struct rb_incoming *in, unsigned long *value,
                                    unsigned long *jobs) {
    char text[BODY_BYTES_MAX + 1], name[NAME_BYTES_MAX + 1], more;
    if (in->size > BODY_BYTES_MAX) return NULL;
    memcpy(text, in->body, in->size);
    text[in->size] = '\0';
    if (strlen(text) != in->size) return NULL;
    if (sscanf(text, "%15s %10lu %10lu%c", name, value, jobs, &more) != 3) return NULL;
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++)
        if (strcmp(hooks[i].name, name) == 0)
            return *value <= hooks[i].value_max ? &hooks[i] : NULL;
    return NULL;
}

void rb_chaos_open(void) {
    const char *allowed = getenv("RINGBRIDGE_CHAOS");
    if (allowed != NULL && strcmp(allowed, "1") == 0 && rb_channel_fd() >= 0)
        rb_channel.listens = rb_channel.troubled = 1;
}

void rb_chaos_take(struct rb_worker *w, const struct rb_incoming *in) {
    struct rb_packet reply = {.kind = RB_PACKET_REPLY, .id = in->head.id};
    unsigned long value, jobs;
    if (!rb_channel.troubled) {
        rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_UNAVAILABLE, "chaos is not allowed here");
        return;
    }
    const struct hook *hook = read_hook(in, &value, &jobs);
    if (hook == NULL) {
        rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_BAD_REQUEST, "this kit has no such hook");
        return;
    }
    if (hook->at_job) arm(w, hook, value, jobs);
    if (reply.id != 0) rb_packet_send(NULL, &reply, NULL, 0, 0);
    if (hook->at_once) hook->at_once(w, value);
}
