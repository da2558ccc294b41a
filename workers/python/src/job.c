/* job.c: what a handler may ask of its job, and say before its answer. */
#include <errno.h>

#include "kit.h"

/* While a handler waits, Python's signal handlers run this often. */
static const int64_t SIGNALS_EVERY_NS = 50000000;

PyObject *rb_py_job_new(struct rb_job *job) {
    PyTypeObject *type =
        (PyTypeObject *)rb_py.job; /* a subclass, with what is easier said in Python */
    struct rb_py_job *self = (struct rb_py_job *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->job = job;
    self->request = job->request;
    self->payload = self->room = (struct rb_seen){NULL, NULL};
    self->thread = PyThread_get_thread_ident();
    return (PyObject *)self;
}

static void job_free(PyObject *object) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    rb_seen_forget(&self->payload);
    rb_seen_forget(&self->room);
    Py_TYPE(object)->tp_free(object);
}

struct rb_job *rb_py_job_of(struct rb_py_job *self) {
    if (self->job == NULL) {
        PyErr_SetString(PyExc_ValueError, "the job's handler has returned");
        return NULL;
    }
    if (self->thread != PyThread_get_thread_ident() || rb_py.forked) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a job is its handler's thread's; others may ask is_cancelled()");
        return NULL;
    }
    return self->job;
}

/* --- what it is: known for as long as the object lives ------------------------------------------------------------------ */

#define SELF ((struct rb_py_job *)object)
static PyObject *get_id(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(SELF->request.job);
}
static PyObject *get_opcode(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromLong(SELF->request.opcode);
}
static PyObject *get_flag(PyObject *object, void *flag) {
    return PyBool_FromLong(SELF->request.flags & (uint16_t)(uintptr_t)flag);
}
static PyObject *get_deadline(PyObject *object, void *unused) {
    (void)unused;
    if (SELF->request.deadline_ns == 0) Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(SELF->request.deadline_ns);
}

static PyObject *get_traceparent(PyObject *object, void *unused) {
    const struct rb_request *q = &SELF->request;
    char text[2 + 1 + 32 + 1 + 16 + 1 + 2 + 1], *at = text;
    uint8_t any = 0;
    (void)unused;
    at += sprintf(at, "00-");
    for (size_t i = 0; i < sizeof q->trace_id; i++) {
        any |= q->trace_id[i];
        at += sprintf(at, "%02x", q->trace_id[i]);
    }
    at += sprintf(at, "-");
    for (size_t i = 0; i < sizeof q->span_id; i++) at += sprintf(at, "%02x", q->span_id[i]);
    at += sprintf(at, "-%02x", q->trace_flags);
    if (!any) Py_RETURN_NONE;
    return PyUnicode_FromStringAndSize(text, at - text);
}

static PyObject *get_payload(PyObject *object, void *unused) {
    struct rb_py_job *self = SELF;
    (void)unused;
    if (self->payload.memory == NULL) {
        struct rb_job *job = rb_py_job_of(self);
        size_t size;
        if (job == NULL) return NULL;
        const uint8_t *bytes = rb_job_payload(job, &size);
        int is_inline = (job->request.flags & RB_FLAG_INLINE) != 0 || size == 0;
        if (rb_seen_make(&self->payload, is_inline ? NULL : bytes, size, 0) < 0) return NULL;
        /* What is in the envelope lies on the C kit's stack. */
        if (is_inline) memcpy(self->payload.view->inline_bytes, bytes, size);
    }
    return Py_NewRef(self->payload.memory);
}

static PyObject *get_demand(PyObject *object, void *unused) {
    struct rb_job *job = rb_py_job_of(SELF);
    (void)unused;
    return job ? PyLong_FromUnsignedLong(rb_demand(job)) : NULL;
}

static PyGetSetDef job_members[] = {
    {"id", get_id, NULL, "The bridge's number for it, as in its logs.", NULL},
    {"opcode", get_opcode, NULL, "The caller's opcode, 0 to 65535; 0 unless given.", NULL},
    {"is_term", get_flag, NULL, "The payload is external term bytes, for term().",
     (void *)RB_FLAG_TERM},
    {"wants_parts", get_flag, NULL, "It belongs to a stream: emit() is how it is answered.",
     (void *)RB_FLAG_PARTS},
    {"wants_progress", get_flag, NULL, "The caller hears of progress().", (void *)RB_FLAG_PROGRESS},
    {"deadline_ns", get_deadline, NULL, "As of time.monotonic_ns(), or None.", NULL},
    {"traceparent", get_traceparent, NULL, "W3C trace context, or None.", NULL},
    {"payload", get_payload, NULL,
     "A read-only memoryview of the payload where it lies; released when the answer is given.",
     NULL},
    {"demand", get_demand, NULL, "How many parts can be sent now without waiting.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* --- cancelling --------------------------------------------------------------------------------------------------------- */

static PyObject *raise_cancelled(struct rb_py_job *self) {
    PyErr_Format(rb_py.cancelled, "job %llu", (unsigned long long)self->request.job);
    return NULL;
}

/* Any thread: the interpreter's lock keeps the job where it is. */
static int is_cancelled(struct rb_py_job *self) {
    return self->job == NULL || rb_py.forked || rb_is_cancelled(self->job);
}

static PyObject *job_is_cancelled(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(is_cancelled(SELF));
}

static PyObject *job_check(PyObject *object, PyObject *unused) {
    (void)unused;
    if (is_cancelled(SELF)) return raise_cancelled(SELF);
    Py_RETURN_NONE;
}

static PyObject *job_sleep(PyObject *object, PyObject *seconds) {
    struct rb_job *job = rb_py_job_of(SELF);
    double wanted = job ? PyFloat_AsDouble(seconds) : -1;
    if (job == NULL || (wanted == -1 && PyErr_Occurred())) return NULL;
    if (!(wanted >= 0 && wanted < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "seconds: from 0 to a thousand million");
        return NULL;
    }
    uint64_t end = rb_now_ns() + (uint64_t)(wanted * 1e9);
    for (;;) {
        uint64_t now = rb_now_ns(), left = end > now ? end - now : 0;
        int cancelled;
        Py_BEGIN_ALLOW_THREADS;
        cancelled = rb_job_sleep(
            job, left < (uint64_t)SIGNALS_EVERY_NS ? left : (uint64_t)SIGNALS_EVERY_NS);
        Py_END_ALLOW_THREADS;
        if (PyErr_CheckSignals() < 0) return NULL;
        if (cancelled) return raise_cancelled(SELF);
        if (left <= (uint64_t)SIGNALS_EVERY_NS) Py_RETURN_NONE;
    }
}

/* --- before the answer --------------------------------------------------------------------------------------------------- */

int rb_py_bytes_of(PyObject *said, Py_buffer *bytes, PyObject **owner, int *is_term) {
    *owner = NULL;
    *is_term = Py_IS_TYPE(said, (PyTypeObject *)rb_py.term);
    if (*is_term) {
        said = *owner = PyObject_CallMethod(said, "encode", NULL);
        if (said == NULL) return -1;
    }
    if (PyObject_GetBuffer(said, bytes, PyBUF_SIMPLE) == 0) return 0;
    Py_CLEAR(*owner);
    return -1;
}

static int ready_for_part(void *arg) { return rb_demand(arg) > 0 || rb_is_cancelled(arg); }

/* Until the consumer asks, or nobody wants the job: then rb_emit() does not wait for it. -1: a signal handler raised. */
static int wait_for_demand(struct rb_job *job) {
    while (rb_job_wants_parts(job) && !ready_for_part(job)) {
        Py_BEGIN_ALLOW_THREADS;
        rb_kit_publish(job->worker); /* who asks for more has to see what there was */
        rb_gate_wait(&job->worker->link.waiter, ready_for_part, job, SIGNALS_EVERY_NS);
        Py_END_ALLOW_THREADS;
        if (PyErr_CheckSignals() < 0) return -1;
    }
    return 0;
}

static PyObject *job_emit(PyObject *object, PyObject *part) {
    struct rb_job *job = rb_py_job_of(SELF);
    Py_buffer bytes;
    PyObject *owner;
    int is_term, failed;
    if (job == NULL || rb_py_bytes_of(part, &bytes, &owner, &is_term) < 0) return NULL;
    failed = wait_for_demand(job);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        failed = is_term ? rb_emit_term(job, bytes.buf, (size_t)bytes.len)
                         : rb_emit(job, bytes.buf, (size_t)bytes.len);
        Py_END_ALLOW_THREADS;
        if (failed == -ECANCELED) raise_cancelled(SELF);
        if (failed == -EMSGSIZE)
            PyErr_Format(PyExc_ValueError, "a part of %zd bytes: at most %d go", bytes.len,
                         RB_PART_BYTES_MAX);
        if (failed == -ENOTSUP)
            PyErr_SetString(PyExc_ValueError, "nobody wants parts of this job (wants_parts)");
    }
    PyBuffer_Release(&bytes);
    Py_XDECREF(owner);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *job_progress(PyObject *object, PyObject *report) {
    struct rb_job *job = rb_py_job_of(SELF);
    Py_buffer bytes;
    PyObject *owner;
    int is_term, failed;
    if (job == NULL || rb_py_bytes_of(report, &bytes, &owner, &is_term) < 0) return NULL;
    failed = is_term ? rb_progress_term(job, bytes.buf, (size_t)bytes.len)
                     : rb_progress(job, bytes.buf, (size_t)bytes.len);
    if (failed == -EMSGSIZE)
        PyErr_Format(PyExc_ValueError, "a report of %zd bytes: at most %d go", bytes.len,
                     RB_PROGRESS_BYTES_MAX);
    PyBuffer_Release(&bytes);
    Py_XDECREF(owner);
    return failed == -EMSGSIZE ? NULL : PyBool_FromLong(failed == 0);
}

/* Any thread, as is_cancelled(). */
static PyObject *job_pulse(PyObject *object, PyObject *unused) {
    (void)unused;
    if (SELF->job != NULL && !rb_py.forked) rb_pulse(SELF->job);
    Py_RETURN_NONE;
}

static PyObject *job_reserve(PyObject *object, PyObject *size) {
    struct rb_job *job = rb_py_job_of(SELF);
    size_t bytes = job ? PyLong_AsSize_t(size) : 0;
    uint8_t *room;
    if (job == NULL || (bytes == (size_t)-1 && PyErr_Occurred())) return NULL;
    rb_py_room_end(SELF);
    Py_BEGIN_ALLOW_THREADS;
    room = rb_result_reserve(job, bytes);
    Py_END_ALLOW_THREADS;
    if (room == NULL && job->refused == ECANCELED) return raise_cancelled(SELF);
    if (room == NULL)
        return PyErr_Format(rb_py.too_large, "an answer of %zu bytes does not fit: %llu may", bytes,
                            job->peer ? (unsigned long long)RB_PEER_BYTES_MAX
                                      : (unsigned long long)job->worker->link.header.result_bytes);
    /* A small room is the kit's, on its stack, but of a peer's request: the view has one of its own, copied with the answer. */
    int own = bytes <= RB_INLINE_BYTES_MAX && job->peer == NULL;
    if (rb_seen_make(&SELF->room, own ? NULL : room, bytes, 1) < 0) return NULL;
    return Py_NewRef(SELF->room.memory);
}

/* --- the type ------------------------------------------------------------------------------------------------------------ */

static PyObject *job_repr(PyObject *object) {
    return PyUnicode_FromFormat("<Job %llu, opcode %d, %u bytes>",
                                (unsigned long long)SELF->request.job, SELF->request.opcode,
                                SELF->request.payload_bytes);
}

static PyMethodDef job_methods[] = {
    {"is_cancelled", job_is_cancelled, METH_NOARGS,
     "Does nobody want the answer any more? Any thread may ask."},
    {"check", job_check, METH_NOARGS, "Raise Cancelled if nobody wants the answer any more."},
    {"sleep", job_sleep, METH_O, "Sleep for so many seconds; a cancel raises Cancelled."},
    {"emit", job_emit, METH_O, "Send one part, once the consumer has asked for it."},
    {"progress", job_progress, METH_O, "Say how far the job is; False where it was dropped."},
    {"pulse", job_pulse, METH_NOARGS, "It gets on: a sign for the role's progress_timeout_ms."},
    {"reserve", job_reserve, METH_O,
     "Room for an answer of so many bytes, as a writable memoryview: return it, or its front."},
    {"_send", rb_py_job_send, METH_VARARGS, NULL},
    {"_call", rb_py_job_call, METH_VARARGS, NULL},
    {"open_peer", rb_py_job_open_peer, METH_O,
     "A link to one worker of a role. Raises ChannelError."},
    {"close_peer", rb_py_job_close_peer, METH_O, "Give a link back. Raises ChannelError."},
    {"_ask", rb_py_job_ask, METH_VARARGS, NULL},
    {"_log", rb_py_job_log, METH_VARARGS, NULL},
    {"_checkpoint", rb_py_job_checkpoint, METH_VARARGS, NULL},
    {"_load_state", rb_py_job_load, METH_NOARGS, NULL},
    {"await_state", rb_py_job_await_state, METH_NOARGS,
     "Wait for the state that a move has promised, and have it restored; at once when none is."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject rb_py_job_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "ringbridge_worker._kit.Job",
    .tp_doc = "The native part of a job.",
    .tp_basicsize = sizeof(struct rb_py_job),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = job_free,
    .tp_repr = job_repr,
    .tp_getset = job_members,
    .tp_methods = job_methods,
};
