/* wait.h: the thread that makes the rounds. */
#ifndef RB_RELAY_WAIT_H
#define RB_RELAY_WAIT_H

struct rb_relay;

int rb_thread_start(
    struct rb_relay *r); /* 0 or a negative errno; it ends when r->stopping is set */

#endif
