/* kit.h: what the parts of ringbridge_worker._kit share.
 *
 *      module.c    the module, and serve(): the loop around the C kit's turn
 *      answer.c    from what a handler returned or raised to the job's one answer
 *      job.c       the Job object, what a handler may ask and say
 *      channel.c   what goes over the socket beside the link
 *      peer.c      links to other workers
 *      view.c      memory of a job as Python sees it, and what becomes of it when a view outlives the job
 *
 * The kit in C (workers/c/kit) does everything that is about the link. All of this runs with the interpreter's lock held, which is
 * given up where the C kit may wait or has much to copy. */
#ifndef RINGBRIDGE_PYTHON_KIT_H
#define RINGBRIDGE_PYTHON_KIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../../c/kit/kit_pvt.h"

#define RB_PYTHON_KIT_VERSION (1u << 16 | 1u) /* major << 16 | minor */
#define RB_CODE_EXCEPTION 65282               /* a handler raised something else than JobFailed */

/* --- view.c ------------------------------------------------------------------------------------------------------------ */

/* The exporter behind each memoryview of a job's memory. Slices, casts and arrays made of the memoryview all count as exports of
 * it, so `exports == 0` says that no view is left. */
struct rb_view {
    PyObject_HEAD uint8_t *base; /* NULL: the job is answered, nothing is exported any more */
    Py_ssize_t size, exports;
    int writable;
    struct rb_view *next_kept; /* in the list of rooms whose blocks wait for their last view */
    uint32_t first_block, blocks;
    void *mapping; /* private pages that hold what a kept view sees; unmapped with this object */
    size_t mapping_bytes;
    void *owned; /* memory of the C kit's that became this object's: free() */
    uint8_t inline_bytes[RB_INLINE_BYTES_MAX]; /* small payloads and rooms lie here */
};

/* A payload or a room, and the memoryview that was handed out. */
struct rb_seen {
    struct rb_view *view;
    PyObject *memory;
};

extern PyTypeObject rb_view_type;
/* Makes both; `bytes` NULL: `size` bytes inside of the view itself. 0, or -1 with an exception. */
int rb_seen_make(struct rb_seen *seen, const uint8_t *bytes, size_t size, int writable);
/* Ends them: releases the memoryview that was handed out. 1 when other views are left. */
int rb_seen_end(struct rb_seen *seen);
void rb_seen_forget(struct rb_seen *seen);
/* A view of the pool outlives its job: it keeps the bytes that it saw, in private pages at the same address, and the worker maps the
 * pool anew. -1 with an exception when the memory for it cannot be had; then the view must not live on. */
int rb_view_keep_payload(struct rb_job *job, struct rb_view *view);
/* A view of a reservation outlives its job: its blocks stay taken until the last view is gone. */
void rb_view_keep_room(struct rb_view *view, uint32_t first_block, uint32_t blocks);
void rb_view_give_kept_rooms(struct rb_worker *w); /* handler's thread, between jobs */

/* --- job.c ------------------------------------------------------------------------------------------------------------- */

struct rb_py_job {
    PyObject_HEAD struct rb_job *job; /* NULL: the handler has returned */
    struct rb_request request;
    struct rb_seen payload, room;
    unsigned long thread;
};

extern PyTypeObject rb_py_job_type;
PyObject *rb_py_job_new(struct rb_job *job);
/* The bytes of what is said: bytes-like, or a Term, whose bytes are then owned by `owner`. 0, or -1 with an exception. */
int rb_py_bytes_of(PyObject *said, Py_buffer *bytes, PyObject **owner, int *is_term);
/* The C kit's job, or NULL with an exception: it is answered, or this is another thread's business. */
struct rb_job *rb_py_job_of(struct rb_py_job *self);

/* --- peer.c: links to other workers --------------------------------------------------------------------------------------- */

extern PyTypeObject rb_py_peer_type;
PyObject *rb_py_job_open_peer(PyObject *object, PyObject *role);
PyObject *rb_py_job_close_peer(PyObject *object, PyObject *closed);
PyObject *rb_py_job_ask(PyObject *object, PyObject *args);
void rb_py_peers_give_dropped(void); /* handler's thread, between jobs */
void rb_py_peers_after_fork(void);   /* in the child: its copies of the sockets are closed */

/* --- channel.c: methods of Job, and options.save and options.restore of the C kit ---------------------------------------- */

/* Raises ChannelError(errno, reason), or Cancelled; gives NULL. `reason`: external term bytes, or NULL. */
PyObject *rb_py_raise_failed(struct rb_py_job *self, int failed, PyObject *reason);
PyObject *rb_py_job_send(PyObject *object, PyObject *args);
PyObject *rb_py_job_call(PyObject *object, PyObject *args);
PyObject *rb_py_job_checkpoint(PyObject *object, PyObject *args);
PyObject *rb_py_job_load(PyObject *object, PyObject *unused);
PyObject *rb_py_job_await_state(PyObject *object, PyObject *unused);
PyObject *rb_py_job_log(PyObject *object, PyObject *args);
int rb_py_save(struct rb_state *state, enum rb_state_kind wanted, void *user);
int rb_py_restore(enum rb_state_kind kind, const void *bytes, size_t size, void *user);

/* --- answer.c ---------------------------------------------------------------------------------------------------------- */

/* A room that is not the answer, or not any more: ends it. */
void rb_py_room_end(struct rb_py_job *self);
/* Answers with what the handler returned (a new reference, taken), or with the exception that is set where it is NULL. Sets
 * leaving where the exception is to end the worker, and leaves it set. */
void rb_py_answer(struct rb_py_job *self, PyObject *result);

/* --- module.c ---------------------------------------------------------------------------------------------------------- */

/* One worker a process, as the link's descriptors are the process's. */
extern struct rb_py_worker {
    struct rb_worker worker;
    struct rb_worker_options options;
    struct rb_op ops[RB_OPS_MAX];
    int serving, forked;
    PyObject *handler, *save, *restore;
    PyObject *job, *term, *cancelled, *too_large; /* the classes Job, Term, ... */
    PyObject *channel_error, *peer_failed;
    PyObject *describe; /* describe(exception, job id) -> (code, message) */
} rb_py;

#endif
