/* worker_pvt.h: what the files of a worker's link share: worker, completion, output, death. */
#ifndef RB_RELAY_WORKER_PVT_H
#define RB_RELAY_WORKER_PVT_H

#include "relay/dispatch/worker.h"

void rb_worker_set_state(struct rb_worker *w, uint32_t state);
/* Out of epoll and closed, once. */
void rb_worker_close_watched(struct rb_worker *w, int *fd);
/* What its pipes hold when it has ended. */
void rb_worker_last_output(struct rb_worker *w);

#endif
