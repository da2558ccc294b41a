/* answer.c: from what a handler returned or raised to the job's one answer.
 *
 * First the answer is written down (into room of the result region, or as a code and a message), and with that everything of the
 * handler is let go: its result, or its exception with all frames. Then the views of the payload are ended. Only then is the answer
 * published, since with it the payload's memory goes back to the bridge. */
#include <errno.h>

#include "kit.h"

enum what { KIT_ANSWERS, OK, OK_TERM, DONE, CANCELLED, FAILED, LEAVING };

struct plan {
    enum what what;
    size_t size; /* of what lies in the reservation */
    unsigned code;
    PyObject *message; /* bytes */
};

/* --- room ---------------------------------------------------------------------------------------------------------------- */

/* The blocks of the reservation become the view's, if other views of it are left. */
static int keep_if_seen(struct rb_py_job *self) {
    struct rb_job *job = self->job;
    struct rb_view *view = self->room.view;
    int left = rb_seen_end(&self->room);
    if (!left || view->base == view->inline_bytes) return 0;
    if (job->peer) {
        view->owned = rb_peer_keep_room(job);
        return 1;
    }
    rb_view_keep_room(view, (uint32_t)job->first_block,
                      rb_region_blocks_for(&job->worker->link.result_region, job->reserved));
    job->state = RB_JOB_OPEN;
    return 1;
}

void rb_py_room_end(struct rb_py_job *self) {
    if (self->room.view == NULL) return;
    keep_if_seen(self);
    rb_seen_forget(&self->room);
}

static uint8_t *reserve(struct rb_job *job, size_t size) {
    uint8_t *room;
    if (size <= RB_INLINE_BYTES_MAX) return rb_result_reserve(job, size); /* never waits */
    Py_BEGIN_ALLOW_THREADS;
    room = rb_result_reserve(job, size);
    Py_END_ALLOW_THREADS;
    return room;
}

static void copy(uint8_t *to, const void *from, size_t size) {
    if (size <= 4096) {
        memcpy(to, from, size);
        return;
    }
    Py_BEGIN_ALLOW_THREADS;
    memcpy(to, from, size);
    Py_END_ALLOW_THREADS;
}

/* The answer is the room, or its front: it is where it should be, unless somebody keeps a view of it. */
static int take_room(struct rb_py_job *self, const void *bytes, size_t size) {
    struct rb_job *job = self->job;
    struct rb_view *view = self->room.view;
    int kept;
    uint8_t *room;
    if (bytes != view->base) memmove(view->base, bytes, size);
    Py_INCREF(view);
    kept = keep_if_seen(self);
    if (view->base == view->inline_bytes) {
        memcpy(job->inline_bytes, view->base, size);
    } else if (kept) {
        room = reserve(job, size);
        if (room) copy(room, view->base, size);
        kept = room == NULL ? -1 : 0;
    }
    Py_DECREF(view);
    rb_seen_forget(&self->room);
    return kept < 0 ? -1 : 0;
}

/* --- what is answered ---------------------------------------------------------------------------------------------------- */

/* Of bytes-like `result`. Where there is no room the C kit answers, which knows why. */
static struct plan plan_bytes(struct rb_py_job *self, PyObject *result, enum what what) {
    struct plan plan = {.what = what};
    const struct rb_view *room = self->room.view;
    Py_buffer bytes;
    if (PyObject_GetBuffer(result, &bytes, PyBUF_SIMPLE) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError,
                         "a handler returns a bytes-like object, a Term, or None, not %.100s",
                         Py_TYPE(result)->tp_name);
        return (struct plan){.what = LEAVING};
    }
    const uint8_t *from = bytes.buf;
    plan.size = (size_t)bytes.len;
    if (room && from >= room->base && from + bytes.len <= room->base + room->size) {
        PyBuffer_Release(&bytes);
        Py_DECREF(result);
        if (take_room(self, from, plan.size) < 0) plan.what = KIT_ANSWERS;
        return plan;
    }
    rb_py_room_end(self);
    uint8_t *to = reserve(self->job, plan.size);
    if (to)
        copy(to, from, plan.size);
    else
        plan.what = KIT_ANSWERS;
    PyBuffer_Release(&bytes);
    Py_DECREF(result);
    return plan;
}

/* LEAVING: an exception is set, and `result` is gone. */
static struct plan plan_result(struct rb_py_job *self, PyObject *result) {
    if (result == Py_None) {
        Py_DECREF(result);
        return (struct plan){.what = self->request.flags & RB_FLAG_PARTS ? DONE : KIT_ANSWERS};
    }
    enum what what = OK;
    if (Py_IS_TYPE(result, (PyTypeObject *)rb_py.term)) {
        PyObject *encoded = PyObject_CallMethod(result, "encode", NULL);
        Py_DECREF(result);
        if (encoded == NULL) return (struct plan){.what = LEAVING};
        result = encoded;
        what = OK_TERM;
    }
    struct plan plan = plan_bytes(self, result, what);
    if (plan.what == LEAVING) Py_DECREF(result);
    return plan;
}

/* Of the exception that is set. It is gone afterwards, unless it ends the worker. */
static struct plan plan_exception(struct rb_py_job *self) {
    struct plan plan = {.what = FAILED, .code = RB_CODE_EXCEPTION};
    PyObject *type, *value, *traceback, *told;
    if (PyErr_ExceptionMatches(rb_py.cancelled)) {
        PyErr_Clear();
        return (struct plan){.what = CANCELLED};
    }
    if (PyErr_ExceptionMatches(rb_py.too_large)) {
        PyErr_Clear();
        return (struct plan){.what = KIT_ANSWERS};
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return (struct plan){.what = LEAVING};
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    told =
        PyObject_CallFunction(rb_py.describe, "OK", value, (unsigned long long)self->request.job);
    if (told == NULL || !PyArg_ParseTuple(told, "IS", &plan.code, &plan.message)) {
        PyErr_WriteUnraisable(rb_py.describe);
        plan.message = NULL;
    }
    Py_XINCREF(plan.message);
    Py_XDECREF(told);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return plan;
}

/* --- answering ------------------------------------------------------------------------------------------------------------ */

static void carry_out(struct rb_job *job, const struct plan *plan) {
    const char *message = plan->message ? PyBytes_AS_STRING(plan->message) : "an exception";
    int size = plan->message ? (int)PyBytes_GET_SIZE(plan->message) : 12;
    switch (plan->what) {
    case OK: rb_complete(job, plan->size); break;
    case OK_TERM: rb_complete_term(job, plan->size); break;
    case DONE: rb_done(job); break;
    case CANCELLED: rb_cancelled(job); break;
    case FAILED: rb_fail(job, (uint16_t)plan->code, "%.*s", size, message); break;
    default: break; /* the C kit answers, or nobody */
    }
}

void rb_py_answer(struct rb_py_job *self, PyObject *result) {
    struct rb_job *job = self->job;
    struct rb_worker *w = job->worker;
    struct plan plan = {.what = LEAVING};
    if (result) plan = plan_result(self, result);
    if (plan.what == LEAVING) plan = plan_exception(self);
    rb_py_room_end(self);
    if (rb_seen_end(&self->payload) && rb_view_keep_payload(job, self->payload.view) < 0)
        plan.what = LEAVING;
    rb_seen_forget(&self->payload);
    self->job = NULL;
    if (plan.what == LEAVING) {
        w->leaving = 1;
    } else if (plan.size <= RB_INLINE_BYTES_MAX && plan.message == NULL &&
               rb_ring_free(&w->link.completion_ring) > 0) {
        carry_out(job, &plan);
    } else { /* much to sum, or perhaps to wait for */
        Py_BEGIN_ALLOW_THREADS;
        carry_out(job, &plan);
        Py_END_ALLOW_THREADS;
    }
    Py_XDECREF(plan.message);
}
