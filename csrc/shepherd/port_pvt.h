/* port_pvt.h: the shepherd of a bridge whose owner is a BEAM (`ringbridge-shepherd port`).
 *
 *   BEAM ==port: stdin, stdout==> shepherd --fork--> bridge ==> the shepherds of its workers
 *
 * It is smaller than a worker's shepherd, because less is left to it: the bridge is trusted, and whatever it starts
 * ends by itself when it ends (each worker has a shepherd that hears of it). So there is no namespace, no init, and
 * nothing is swept: an epmd that the bridge started is everybody's, as one that a BEAM started is.
 *
 * Who ends the bridge
 *   the BEAM ends                  end of file on stdin: TERM, a short grace, KILL
 *   the BEAM ends, we are stopped  PDEATHSIG=SIGCONT: a port's parent is erl_child_setup, which ends with the BEAM
 *   we end                         the bridge's PDEATHSIG=SIGKILL; both of us have one thread that matters
 *   somebody asks us (TERM, INT)   as STOP
 *
 * Rules
 *   - The bridge's output never waits: a BEAM that does not read (stopped, or busy) loses log lines, and is told how
 *     many bytes. A bridge that blocks on a log line would stall its whole control plane.
 *   - STARTED, READY, EXITED and ERROR are never lost: room is kept for them.
 *   - EXITED comes after all output that was there.
 *
 *              START          STOP, owner gone         grace over
 *     IDLE ----------> ALIVE -------------> ENDING ----------------> KILLED
 *       |                |                     |                        |
 *       |                +---------------------+---- program ended -----+
 *       | refused                              v
 *       +--------------------------------> FLUSHING ----> OVER
 */
#ifndef RINGBRIDGE_PORT_PVT_H
#define RINGBRIDGE_PORT_PVT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ringbridge/port_protocol.h"

#define RB_PORT_OUTBOX_BYTES \
    (1 << 18) /* a burst of log lines while the BEAM collects its garbage */
#define RB_PORT_KEPT_BYTES \
    1024 /* of it, for what is never lost; the bridge's one line of READY is 100 bytes */

enum rb_port_state { IDLE, ALIVE, ENDING, KILLED, FLUSHING, OVER, PORT_STATES };

enum rb_port_event {
    ORDER,      /* START */
    HALT,       /* STOP */
    MISTAKE,    /* a frame that breaks the rules */
    OWNER_GONE, /* end of file on stdin */
    WISH,       /* SIGTERM, SIGINT or SIGHUP to the shepherd itself */
    ENDED,      /* the program was reaped */
    ALARM,
    PORT_EVENTS
};

/* Frames in: bytes until one is whole. */
struct rb_port_inbox {
    unsigned char bytes[4 + RB_PORT_FRAME_MAX];
    size_t size;
};

/* Frames out: a queue of bytes that the BEAM has not taken yet. */
struct rb_port_outbox {
    unsigned char bytes[RB_PORT_OUTBOX_BYTES];
    size_t start, size;
    uint32_t lost; /* bytes of output that found no room since the last one that did */
};

/* What START asked for. The strings stay in the frame. */
struct rb_port_order {
    uint32_t grace_ms;
    uint32_t argc, envc, stdin_bytes;
    const char *directory, *argv, *env, *input;
};

struct rb_port {
    enum rb_port_state state;
    pid_t pid; /* 0 = none, or reaped: then it may be another's */
    int signals, output, ready;
    uint32_t grace_ms;
    int64_t deadline_ms; /* of ALARM; 0 = none */
    int wait_status;
    struct rb_port_inbox *in;
    struct rb_port_outbox *out;
};

struct rb_port_frame {
    unsigned char type;
    const unsigned char *body;
    size_t size;
    const char *rule; /* MISTAKE: which one was broken */
};

/* port_frames.c -------------------------------------------------------------------------------- */

/* Read what there is. Returns 1, or 0 at end of file. */
int rb_port_fill(struct rb_port_inbox *in, int fd);

/* The next whole frame, whose body stays valid until rb_port_taken(). Returns 1; 0 = none yet; -1 = its length
 * cannot be, and so nothing behind it can be read. */
int rb_port_next(const struct rb_port_inbox *in, struct rb_port_frame *frame);
void rb_port_taken(struct rb_port_inbox *in);

/* Queue a frame. One of OUTPUT that finds no room is lost, and counted. */
void rb_port_tell(struct rb_port_outbox *out, unsigned char type, const void *body, size_t size);

/* Write what the reader takes. Returns 0, or -errno when nobody reads any more. */
int rb_port_flush(struct rb_port_outbox *out, int fd);

/* NULL, and `order` filled; or the rule that START broke. */
const char *rb_port_parse(const struct rb_port_frame *frame, struct rb_port_order *order);

/* A number of START, STOP and the rest. */
uint32_t rb_port_number(const unsigned char *at, size_t bytes);
void rb_port_put_number(unsigned char *at, uint32_t value);

/* port_birth.c --------------------------------------------------------------------------------- */

/* Start the program: its input written, its output and its READY as ends that do not block. Returns when its exec has
 * succeeded: 0; or -errno and what was being done, with nothing left. */
int rb_port_give_birth(const struct rb_port_order *order, struct rb_port *port, const char **step);

/* port.c --------------------------------------------------------------------------------------- */

int rb_port_run(void);

#endif
