/* flow.h: how many bytes of a connection wait between the two threads, each way.
 *
 * A flow is a row of a table that both threads keep; each word has one writer. The trio thread opens it before it hands a
 * connection over, and closes it when it has heard that the connection is lost. */
#ifndef RB_RELAY_FLOW_H
#define RB_RELAY_FLOW_H

#include <stdint.h>

struct rb_relay;
struct rb_flow {
    uint32_t connection; /* the trio thread's: 0: free */
    uint64_t handed;     /* the trio thread's: bytes of signals that it handed down */
    uint64_t taken;      /* the relay's: of those, what it has taken */
    uint64_t queued;     /* the relay's: bytes that wait for the socket */
    uint64_t heard; /* the trio thread's: bytes of signals that it took of those that came up */
};

/* On the trio thread. NULL: no such connection, or no row is free. */
struct rb_flow *rb_flow_open(struct rb_relay *r, uint32_t connection);
struct rb_flow *rb_flow_find(struct rb_relay *r, uint32_t connection);
void rb_flow_close(struct rb_flow *f);

#endif
