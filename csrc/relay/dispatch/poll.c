/* poll.c: whom a round looks at.
 *
 * Looking at a worker costs some 100 ns, mostly for a word that lies in a page of its own: with a thousand at work it would be all that
 * the relay does. So a round looks only at those that were given a job, or gave one back, a moment ago. To one from which nothing
 * has come for BELL_AFTER_NS the relay announces itself as if it slept (gate.h, G4), looks once more (G5), and leaves it: its next
 * completion rings, which costs it a system call for a job of a millisecond or more. Each job thus keeps its worker in the rounds of a
 * millisecond at most, however many workers there are.
 *
 * A bell that is not rung, by a kit with a fault or a liar, costs its own jobs a second: the relay looks once in a while all the same. */
#include "relay/relay_pvt.h"

enum { BELL_AFTER_NS = 1000000 };

static void answer_the_bell(struct rb_worker *w) {
    if (!w->called_by_bell) return;
    w->called_by_bell = 0;
    rb_gate_retract(&w->link.waiter); /* G6 */
}

void rb_worker_stirs(struct rb_worker *w) {
    struct rb_relay *r = w->relay;
    w->stirred_ns = r->now;
    answer_the_bell(w);
    if (w->polled) return;
    w->polled = 1;
    w->next_polled = r->polled_workers;
    r->polled_workers = w;
}

/* Who rings for nothing (for what was found meanwhile, or before it publishes) is looked at for a while, and gets a new announcement. */
void rb_worker_rang(struct rb_worker *w) {
    if (rb_worker_poll(w) == 0) rb_vitals_heard(w);
    if (w->called_by_bell) rb_worker_stirs(w);
}

void rb_worker_look_again(struct rb_worker *w) {
    if (w->called_by_bell) rb_worker_poll(w);
}

/* 1: nothing came now either, and its bell will tell. */
static int leave_to_bell(struct rb_worker *w) {
    rb_gate_announce(&w->link.waiter, RB_PARK_EVENTFD); /* G4 */
    w->called_by_bell = 1;
    rb_worker_poll(w); /* G5; if anything came, it stirs */
    if (w->held) answer_the_bell(w);
    return w->called_by_bell;
}

int rb_workers_poll(struct rb_relay *r) {
    int count = 0;
    for (struct rb_worker **p = &r->polled_workers; *p;) {
        struct rb_worker *w = *p;
        int taken = rb_worker_poll(w);
        count += taken;
        int leaves = w->in_flight == 0 || w->state == RB_WORKER_FENCED;
        /* One whose part waits for a socket has said what it has to say: the rounds look for the room. */
        if (!leaves && taken == 0 && !w->held && r->now - w->stirred_ns >= BELL_AFTER_NS)
            leaves = leave_to_bell(w);
        if (leaves) {
            w->polled = 0;
            *p = w->next_polled;
        } else {
            p = &w->next_polled;
        }
    }
    return count;
}
