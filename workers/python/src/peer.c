/* peer.c: links to other workers (docs/links.md), for Python: opened, asked, given back.
 *
 * A Peer is kept by the worker for later jobs, so it can be dropped anywhere, by any thread: the link then goes back to the bridge
 * before the next job. What a peer answers lies in memory of the C kit's that is Python's from then on: a memoryview shows it without a
 * copy, for as long as anybody keeps it. */
#include <errno.h>
#include <stdlib.h>

#include "../../c/kit/peer_pvt.h"
#include "kit.h"

struct rb_py_peer {
    PyObject_HEAD struct rb_peer *peer; /* NULL: given back */
    PyObject *role;
    struct rb_py_peer *before, *behind; /* in the list of those that are open */
};

/* Both under the interpreter's lock. */
static struct rb_py_peer *open_peers;
static struct dropped {
    struct rb_peer *peer;
    struct dropped *next;
} *dropped_peers;

/* --- the object ----------------------------------------------------------------------------------------------------------- */

static struct rb_peer *take_out(struct rb_py_peer *self) {
    struct rb_peer *peer = self->peer;
    if (peer == NULL) return NULL;
    *(self->before ? &self->before->behind : &open_peers) = self->behind;
    if (self->behind) self->behind->before = self->before;
    self->peer = NULL;
    return peer;
}

static void peer_free(PyObject *object) {
    struct rb_py_peer *self = (struct rb_py_peer *)object;
    struct rb_peer *peer = take_out(self);
    struct dropped *dropped = peer ? malloc(sizeof *dropped) : NULL;
    if (dropped) { /* perhaps another thread than the handlers', whose channel it is */
        *dropped = (struct dropped){peer, dropped_peers};
        dropped_peers = dropped;
    }
    Py_XDECREF(self->role);
    PyObject_Free(object);
}

static PyObject *get_role(PyObject *object, void *unused) {
    (void)unused;
    return Py_NewRef(((struct rb_py_peer *)object)->role);
}

static PyObject *peer_repr(PyObject *object) {
    struct rb_py_peer *self = (struct rb_py_peer *)object;
    return PyUnicode_FromFormat("<Peer of role %R%s>", self->role,
                                self->peer ? "" : ", given back");
}

static PyGetSetDef peer_members[] = {
    {"role", get_role, NULL, "The role of the worker at its other end.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject rb_py_peer_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "ringbridge_worker._kit.Peer",
    .tp_doc = "A link to one worker of another role, from Job.open_peer().",
    .tp_basicsize = sizeof(struct rb_py_peer),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = peer_free,
    .tp_repr = peer_repr,
    .tp_getset = peer_members,
};

void rb_py_peers_give_dropped(void) {
    while (dropped_peers) {
        struct dropped *dropped = dropped_peers;
        dropped_peers = dropped->next;
        rb_peer_abandon(dropped->peer, 1);
        free(dropped);
    }
}

void rb_py_peers_after_fork(void) {
    while (open_peers) rb_peer_abandon(take_out(open_peers), 0);
    while (dropped_peers) {
        struct dropped *dropped = dropped_peers;
        dropped_peers = dropped->next;
        rb_peer_abandon(dropped->peer, 0);
        free(dropped);
    }
    rb_peers_end();
}

/* --- what a handler does with it ------------------------------------------------------------------------------------------ */

PyObject *rb_py_job_open_peer(PyObject *object, PyObject *role) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    const char *name = job ? PyUnicode_AsUTF8(role) : NULL;
    struct rb_peer *peer = NULL;
    int failed;
    if (name == NULL) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_peer_open(job, name, &peer);
    Py_END_ALLOW_THREADS;
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    struct rb_py_peer *made = PyObject_New(struct rb_py_peer, &rb_py_peer_type);
    if (made == NULL) {
        rb_peer_abandon(peer, 1);
        return NULL;
    }
    made->peer = peer;
    made->role = Py_NewRef(role);
    made->before = NULL;
    made->behind = open_peers;
    if (open_peers) open_peers->before = made;
    open_peers = made;
    return (PyObject *)made;
}

static struct rb_py_peer *peer_of(PyObject *object) {
    if (!Py_IS_TYPE(object, &rb_py_peer_type)) {
        PyErr_Format(PyExc_TypeError, "a Peer of Job.open_peer(), not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    struct rb_py_peer *peer = (struct rb_py_peer *)object;
    if (peer->peer) return peer;
    PyErr_SetString(PyExc_ValueError, "the link was given back");
    return NULL;
}

PyObject *rb_py_job_close_peer(PyObject *object, PyObject *closed) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    struct rb_py_peer *peer = job ? peer_of(closed) : NULL;
    int failed;
    if (peer == NULL) return NULL;
    struct rb_peer *taken = take_out(peer);
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_peer_close(job, taken);
    Py_END_ALLOW_THREADS;
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    Py_RETURN_NONE;
}

/* A memoryview of the answer, whose memory becomes the view's. */
static PyObject *shown(struct rb_peer_answer *answer) {
    struct rb_seen seen;
    if (rb_seen_make(&seen, answer->bytes, answer->size, 0) < 0) return NULL;
    seen.view->owned = answer->memory;
    answer->memory = NULL;
    Py_DECREF(seen.view); /* the memoryview has it */
    return seen.memory;
}

/* -EREMOTEIO: PeerFailed(code, message). */
static PyObject *raise_peer_failed(const struct rb_peer_answer *answer) {
    PyObject *error = PyObject_CallFunction(rb_py.peer_failed, "Iy#", (unsigned)answer->code,
                                            (const char *)answer->bytes, (Py_ssize_t)answer->size);
    if (error) PyErr_SetObject(rb_py.peer_failed, error);
    Py_XDECREF(error);
    return NULL;
}

/* (memoryview, is it a term) */
static PyObject *outcome(struct rb_py_job *self, int failed, struct rb_peer_answer *answer) {
    if (failed == -EREMOTEIO) return raise_peer_failed(answer);
    if (failed) return rb_py_raise_failed(self, failed, NULL);
    int is_term = answer->is_term;
    PyObject *bytes = shown(answer);
    return bytes ? Py_BuildValue("(NO)", bytes, is_term ? Py_True : Py_False) : NULL;
}

PyObject *rb_py_job_ask(PyObject *object, PyObject *args) {
    struct rb_py_job *self = (struct rb_py_job *)object;
    struct rb_job *job = rb_py_job_of(self);
    struct rb_peer_answer answer;
    struct rb_py_peer *peer;
    PyObject *to, *request, *owner;
    Py_buffer bytes;
    unsigned opcode, timeout_ms;
    int is_term, failed;
    if (job == NULL || !PyArg_ParseTuple(args, "OOII", &to, &request, &opcode, &timeout_ms))
        return NULL;
    peer = peer_of(to);
    if (peer == NULL) return NULL;
    if (opcode > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "opcode: from 0 to 65535");
        return NULL;
    }
    if (rb_py_bytes_of(request, &bytes, &owner, &is_term) < 0) return NULL;
    /* The caller holds the Peer, and only this thread gives one back: it stays. */
    Py_BEGIN_ALLOW_THREADS;
    failed = rb_peer_call(job, peer->peer, (uint16_t)opcode, bytes.buf, (size_t)bytes.len, is_term,
                          timeout_ms, &answer);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&bytes);
    Py_XDECREF(owner);
    PyObject *told = outcome(self, failed, &answer);
    rb_peer_answer_free(&answer);
    return told;
}
