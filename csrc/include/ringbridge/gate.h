/* gate.h: how one side of a link waits for the other, and how it is woken (FutexGate).
 *
 * Each side writes only its own memory, so a waiter announces itself in its own `park` word and the
 * waker cannot clear it; the waker instead bumps its own `doorbell` word, which is what the
 * waiter's futex compares. Park words carry a sequence, so one parking costs the waker one system
 * call however often it publishes, and a side that is awake costs none.
 *
 *      waker                                       waiter
 *      publish the position        G0 (= R0)       d = load(doorbell)               G3
 *      p = load(park)              G1              store(park, seq << 2 | how)      G4
 *      if parked and p != last woken:              look at the position again       G5
 *          store(doorbell, +1)     G2              if still nothing: futex(doorbell == d),
 *          wake as p says                              or poll(eventfd), or sigtimedwait()
 *                                                  store(park, seq << 2 | awake)    G6
 *
 * G0/G1 against G4/G5, all sequentially consistent: either the waker sees the parking or the waiter
 * sees the position; never neither (store buffering). So what a gate waits for is stored seq_cst
 * before rb_gate_ring() and loaded seq_cst by ready(): the ring's positions are (R0, R1), a control
 * word or a hello must be too. G2 against G3: a doorbell that rang between G3 and the futex makes
 * the futex return at once. An eventfd keeps its count, a socket its bytes and a blocked signal
 * stays pending, so these need no comparison.
 *
 * A waker that must never wait for a hostile waiter rings a socket: an eventfd is one description
 * for both sides, and the waiter could make it blocking and fill it up between any look of the
 * waker's and its write (a write to it can be told not to wait by that shared flag alone). Of a pair
 * of sockets each side has its own, and send() takes MSG_DONTWAIT by the call. Not a pipe: whoever
 * reads one into memory that does not come (userfaultfd, FUSE) holds its lock for so long. */
#ifndef RINGBRIDGE_GATE_H
#define RINGBRIDGE_GATE_H

#include <stdint.h>

#include "ringbridge/atomics.h"
#include "ringbridge/layout.h"

struct rb_gate_waker {
    const uint32_t *park; /* the waiter's word, hostile: any value only costs or saves a wake-up */
    uint32_t *doorbell;   /* ours */
    int bell;             /* our end of a pair of sockets that wakes the waiter; -1: none */
    int eventfd;          /* the same where neither side need fear the other; -1: none */
    int pidfd;            /* of the waiter, for the signal way; -1: none */
    uint32_t woken;       /* park word that was woken last */
    uint64_t wakes;       /* system calls spent */
};

struct rb_gate_waiter {
    uint32_t *park;           /* ours */
    const uint32_t *doorbell; /* the waker's */
    int eventfd; /* for RB_PARK_EVENTFD: an eventfd, or its end of the pair; -1: none */
    uint32_t sequence;
    uint32_t spin;         /* pauses before parking: 0 .. spin_max, by what the last waits found */
    uint32_t spin_max;     /* 0: park at once */
    int64_t rest_until_ns; /* no spin until then: a yield of the last one has cost a time slice */
    uint32_t last; /* RB_PARK_...: how the last wait ended; RB_PARK_AWAKE: the spin was enough */
};

void rb_gate_waker_init(struct rb_gate_waker *w, const uint32_t *park, uint32_t *doorbell,
                        int eventfd, int pidfd);
void rb_gate_waiter_init(struct rb_gate_waiter *w, uint32_t *park, const uint32_t *doorbell,
                         int eventfd, uint32_t spin_max);

/* To be called after the position was published (G0). Costs one load while the waiter is awake.
 * Returns 1 when it rang. */
int rb_gate_ring_slow(struct rb_gate_waker *w, uint32_t park);
static inline int rb_gate_ring(struct rb_gate_waker *w) {
    /* G1: pairs with G4 in rb_gate_announce(); seq_cst with G0, else store buffering would let both
     * sides miss each other. */
    uint32_t park = rb_load_seq_cst(w->park);
    if ((park & 3u) == RB_PARK_AWAKE || park == w->woken) return 0;
    return rb_gate_ring_slow(w, park);
}
/* Makes an eventfd readable, whoever waits there or not. Never waits itself. */
void rb_gate_bump(int eventfd);
/* The same for a bell that is a socket, whatever the other side does with its end. */
void rb_gate_strike(int bell);
/* Reads what rings have left in a bell that is a socket. An honest side's are a few bytes; of one that writes on and on nobody reads for longer
 * than a bounded while: what is left rings again. 0, or -EPIPE: it is no open socket any more. */
int rb_gate_hush(int bell);

/* The waiter's steps by themselves, for a caller with a poll loop of its own (the relay waits on
 * sockets too): announce, look again, then wait for the eventfd, then retract. Returns the
 * doorbell's value (G3) for the futex. */
uint32_t rb_gate_announce(struct rb_gate_waiter *w, uint32_t how);
void rb_gate_retract(struct rb_gate_waiter *w);

/* Where a worker's waits begin; about what a wake-up across cores costs, so that a spin never loses
 * more than it can win. */
#define RB_GATE_SPIN_MAX 1000

/* Waits until ready(arg) is non-zero: bounded adaptive spin, then futex, or eventfd where the futex
 * is refused (ENOSYS, EPERM), or a signal where there is no eventfd. Returns ready()'s value, or 0
 * after `timeout_ns` (negative: none). Spurious wake-ups are absorbed. The signal is
 * RB_WAKE_SIGNAL: the calling thread blocks it here, the process should block it in every thread
 * before the first wait (one that does not may swallow it; the wait then looks again within 100
 * ms). */
int rb_gate_wait(struct rb_gate_waiter *w, int (*ready)(void *arg), void *arg, int64_t timeout_ns);
/* The same by one named way (tests; RB_PARK_...); -ENOSYS when this way is not to be had. */
int rb_gate_wait_by(struct rb_gate_waiter *w, uint32_t how, int (*ready)(void *arg), void *arg,
                    int64_t timeout_ns);

/* The same for a waiter that has a descriptor of its own to hear, beside the gate: returns 1 also when `fd` has one of `events`
 * (poll.h) or has failed. Parks by eventfd alone; without one it looks again every 5 ms. */
int rb_gate_wait_or_fd(struct rb_gate_waiter *w, int fd, short events, int (*ready)(void *arg),
                       void *arg, int64_t timeout_ns);

#endif
