/* channel.c: what goes over the socket beside the link (docs/channel.md), for Python: messages, calls, log lines, state.
 *
 * Terms are bytes here; the Python side of the kit encodes and decodes them. */
#include <errno.h>

#include "kit.h"

PyObject *rb_py_raise_failed(struct rb_py_job *self, int failed, PyObject *reason) {
    PyObject *error;
    if (failed == -ECANCELED)
        return PyErr_Format(rb_py.cancelled, "job %llu", (unsigned long long)self->request.job);
    error = PyObject_CallFunction(rb_py.channel_error, "iO", -failed, reason ? reason : Py_None);
    if (error) PyErr_SetObject(rb_py.channel_error, error);
    Py_XDECREF(error);
    return NULL;
}

/* A destination is (name, node or None), or the bytes of a term. */
static int destination(PyObject *to, struct rb_dest *dest) {
    if (PyBytes_Check(to)) {
        *dest = RB_DEST(PyBytes_AS_STRING(to), (size_t)PyBytes_GET_SIZE(to));
        return 0;
    }
    *dest = (struct rb_dest){0};
    return PyArg_ParseTuple(to, "sz", &dest->name, &dest->node) ? 0 : -1;
}

PyObject *rb_py_job_send(PyObject *object, PyObject *args) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    struct rb_dest dest;
    PyObject *to;
    const char *term;
    Py_ssize_t size;
    int failed;
    if (job == NULL || !PyArg_ParseTuple(args, "Oy#", &to, &term, &size) ||
        destination(to, &dest) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_send(job, &dest, term, (size_t)size);
    Py_END_ALLOW_THREADS;
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    Py_RETURN_NONE;
}

PyObject *rb_py_job_call(PyObject *object, PyObject *args) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    struct rb_reply reply = {0};
    struct rb_dest dest;
    PyObject *to, *answer;
    const char *term;
    Py_ssize_t size;
    unsigned timeout_ms;
    int failed;
    if (job == NULL || !PyArg_ParseTuple(args, "Oy#I", &to, &term, &size, &timeout_ms) ||
        destination(to, &dest) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_call(job, &dest, term, (size_t)size, timeout_ms, &reply);
    Py_END_ALLOW_THREADS;
    answer = reply.term ? PyBytes_FromStringAndSize(reply.term, (Py_ssize_t)reply.size) : NULL;
    rb_reply_free(&reply);
    if (failed == 0) return answer ? answer : PyErr_NoMemory();
    PyErr_Clear();
    rb_py_raise_failed(self, failed, answer);
    Py_XDECREF(answer);
    return NULL;
}

PyObject *rb_py_job_checkpoint(PyObject *object, PyObject *args) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    Py_buffer state;
    int increment, failed;
    if (job == NULL || !PyArg_ParseTuple(args, "y*p", &state, &increment)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_checkpoint(job, increment ? RB_STATE_INCREMENT : RB_STATE_FULL, state.buf,
                           (size_t)state.len);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&state);
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    Py_RETURN_NONE;
}

/* Appends (bytes, is it an increment) to the list `user`; the lock is taken, since whoever loads has given it up. */
static int append_part(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *part = Py_BuildValue("(y#O)", (const char *)bytes, (Py_ssize_t)size,
                                   kind == RB_STATE_INCREMENT ? Py_True : Py_False);
    int failed = part == NULL || PyList_Append(user, part) < 0;
    Py_XDECREF(part);
    if (failed) PyErr_Clear();
    PyGILState_Release(lock);
    return failed ? -ENOMEM : 0;
}

PyObject *rb_py_job_load(PyObject *object, PyObject *unused) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    PyObject *parts = job ? PyList_New(0) : NULL;
    int failed;
    (void)unused;
    if (parts == NULL) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_checkpoint_load(job, append_part, parts);
    Py_END_ALLOW_THREADS;
    if (!failed) return parts;
    Py_DECREF(parts);
    return rb_py_raise_failed(self, failed, NULL);
}

PyObject *rb_py_job_await_state(PyObject *object, PyObject *unused) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    int failed;
    (void)unused;
    if (job == NULL) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_await_state(job);
    Py_END_ALLOW_THREADS;
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    Py_RETURN_NONE;
}

PyObject *rb_py_job_log(PyObject *object, PyObject *args) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    const char *text;
    int level, failed;
    /* Any thread, as is_cancelled(): it never waits. */
    if (!PyArg_ParseTuple(args, "is", &level, &text)) return NULL;
    if (self->job == NULL || rb_py.forked) {
        PyErr_SetString(PyExc_ValueError, "the job's handler has returned");
        return NULL;
    }
    failed = rb_log(self->job, (enum rb_log_level)level, "%s", text);
    return PyBool_FromLong(failed == 0);
}

/* --- state that outlives the process ------------------------------------------------------------------------------------- */

/* What save() raised is told on stderr; the bridge hears that there is no state. */
int rb_py_save(struct rb_state *state, enum rb_state_kind wanted, void *user) {
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *made =
        PyObject_CallFunction(rb_py.save, "O", wanted == RB_STATE_INCREMENT ? Py_True : Py_False);
    Py_buffer bytes;
    int increment, saved = -ENOTSUP;
    (void)user;
    if (made && made != Py_None && PyArg_ParseTuple(made, "y*p", &bytes, &increment)) {
        saved = rb_state_write(state, bytes.buf, (size_t)bytes.len);
        PyBuffer_Release(&bytes);
        if (saved == 0) saved = increment ? RB_STATE_INCREMENT : RB_STATE_FULL;
    }
    if (PyErr_Occurred()) PyErr_WriteUnraisable(rb_py.save);
    Py_XDECREF(made);
    PyGILState_Release(lock);
    return saved;
}

int rb_py_restore(enum rb_state_kind kind, const void *bytes, size_t size, void *user) {
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *done =
        PyObject_CallFunction(rb_py.restore, "y#O", (const char *)bytes, (Py_ssize_t)size,
                              kind == RB_STATE_INCREMENT ? Py_True : Py_False);
    int failed = done == NULL ? -EIO : 0;
    (void)user;
    if (done == NULL) PyErr_WriteUnraisable(rb_py.restore);
    Py_XDECREF(done);
    PyGILState_Release(lock);
    return failed;
}
