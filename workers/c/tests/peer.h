/* peer.h: the bridge's side of a link, played by a test: makes the link, starts a worker on it, submits, collects, gives back.
 *
 * It checks of each completion what the relay would check; a breach ends the test program, as there is nothing to go on with. */
#ifndef RINGBRIDGE_WORKERS_TESTS_PEER_H
#define RINGBRIDGE_WORKERS_TESTS_PEER_H

#include <stdint.h>
#include <sys/types.h>

#include "ringbridge/link.h"

struct peer_options {
    struct rb_link_config link;
    uint64_t pool_bytes; /* 0: no pool */
    int stderr_kept;     /* 1: peer_stderr() has what the worker wrote there */
    int channel;         /* 1: it has a channel; peer.channel is the bridge's end */
    int chaos;           /* 1: it may be sent hooks */
};
#define PEER_DEFAULT {.link = RB_LINK_CONFIG_DEFAULT, .pool_bytes = 80u << 20}

struct peer {
    struct rb_link link;
    struct rb_pool pool;
    pid_t pid;
    int stderr_fd;
    int channel; /* -1: none */
    uint64_t next_job;
    int64_t *pool_blocks; /* first block of the payload in each request slot; -1: inline */
    uint32_t *pool_counts;
};

/* One answer: a private copy of the completion, and its payload where it lies until peer_give_back(). */
struct peer_answer {
    struct rb_completion completion;
    const uint8_t *payload;
};

/* Starts build/bin/<program> or a path, waits for its hello unless `hello` is 0. */
void peer_start(struct peer *p, const char *program, const struct peer_options *options, int hello);
/* How it ended: its exit status, or minus its signal; -1000 when it still lives after `ms`. */
int peer_wait(struct peer *p, int ms);
/* Tells the worker to stop, waits, checks that it left with 0, frees everything. */
void peer_stop(struct peer *p);
/* Frees everything; the worker has ended by itself, or is killed. */
void peer_close(struct peer *p);
const char *peer_stderr(struct peer *p);

struct peer_request {
    const void *payload;
    uint32_t bytes;
    uint16_t opcode, flags; /* RB_FLAG_TERM, RB_FLAG_ZSTD, RB_FLAG_ACCEPTS_ZSTD */
    uint64_t deadline_ns;
};
/* Puts a request into the ring without publishing it; returns its job id. The ring and the pool have room. */
uint64_t peer_put(struct peer *p, const struct peer_request *request);
void peer_publish(struct peer *p);
/* Both, for raw bytes. */
uint64_t peer_submit(struct peer *p, uint16_t opcode, const void *payload, uint32_t bytes);
uint64_t peer_submit_text(struct peer *p, uint16_t opcode, const char *text);
/* The next answer, or 0 when none came within `ms`. */
int peer_answer(struct peer *p, struct peer_answer *answer, int ms);
void peer_give_back(struct peer *p, const struct peer_answer *answer);
void peer_cancel(struct peer *p, uint64_t job);
/* How many parts of a job are wanted, from its beginning on. */
void peer_demand(struct peer *p, uint64_t job, uint32_t parts);
void peer_control(struct peer *p, uint32_t control);
/* Looks until `started` is at least this, for 5 s at most; returns what it is. */
uint64_t peer_await_started(struct peer *p, uint64_t at_least);
uint64_t peer_now_ns(void);

#endif
