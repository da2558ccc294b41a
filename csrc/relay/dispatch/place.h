/* place.h: jobs are bound to workers, as late as credit allows. */
#ifndef RB_RELAY_PLACE_H
#define RB_RELAY_PLACE_H

struct rb_relay;
struct rb_worker;

/* Every role that has something to place, as far as its workers have room. Publishes each ring once. */
void rb_roles_place(struct rb_relay *r);
/* The worker may have got room or lost it: its jobs in flight, its credit or its state have changed. */
void rb_place_look(struct rb_worker *w);
/* It is not among the ready ones any more. */
void rb_place_forget(struct rb_worker *w);

#endif
