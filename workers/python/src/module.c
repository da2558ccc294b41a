/* module.c: ringbridge_worker._kit, and serve(): the loop around the C kit's turn.
 *
 *      wait (lock given up) ──> a batch of handlers (lock held) ──> publish ──> Python's signal handlers ──┐
 *       ^                                                                                                   │
 *       └───────────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * The heart beats from the C kit's own thread, which knows nothing of Python: a handler that holds the lock for an hour is a worker
 * that lives. */
#include <sys/mman.h>
#include <unistd.h>

#include "../../c/kit/peer_pvt.h"
#include "kit.h"
#include "ringbridge/ops.h"

/* A signal that comes just between the look for it and the sleep is seen after so long. */
static const int64_t SIGNALS_WITHIN_NS = 1000000000;

struct rb_py_worker rb_py;

/* The C kit's handler. An exception that is set afterwards ends the worker. */
static void run_handler(struct rb_job *job, void *user) {
    (void)user;
    PyObject *object = rb_py_job_new(job);
    if (object == NULL) {
        PyErr_Clear(); /* no memory for it: the C kit says that there was no answer */
        return;
    }
    PyObject *result = PyObject_CallOneArg(rb_py.handler, object);
    if (rb_py.forked) { /* a child that came back out of the handler: there is no link here */
        if (result == NULL) PyErr_Print(); /* SystemExit: exits as it says */
        _exit(result == NULL ? 1 : 0);
    }
    rb_py_answer((struct rb_py_job *)object, result);
    Py_DECREF(object);
    rb_view_give_kept_rooms(job->worker);
    rb_py_peers_give_dropped();
}

/* A child that is forked must neither hold the link's memory nor be able to write it. The pool it may read on. */
static void keep_from_children(const struct rb_link_worker *link) {
    madvise((void *)link->relay_side, (size_t)link->header.relay_side_bytes, MADV_DONTFORK);
    madvise(link->worker_side, (size_t)link->header.worker_side_bytes, MADV_DONTFORK);
}

static PyObject *kit_after_fork(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (rb_py.serving && !rb_py.forked) {
        const struct rb_link_fds *fds = &rb_py.worker.link.fds;
        const int all[] = {fds->relay_side, fds->worker_side,
                           fds->pool,       fds->wake_worker,
                           fds->wake_relay, fds->relay_side + RB_FD_CHANNEL - RB_FD_RELAY_SIDE};
        rb_py.forked = 1;
        for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i] >= 0) close(all[i]);
        rb_py_peers_after_fork();
    }
    Py_RETURN_NONE;
}

/* The list of (opcode, name, takes) of options.ops; the names are the tuples', which are kept. -1: ValueError, by the relay's own
 * rules. */
static int declare(PyObject *declared) {
    struct rb_worker_op ops[RB_OPS_MAX] = {0};
    Py_ssize_t count = PyList_Size(declared);
    const char *rule = NULL;
    if (count < 0) return -1;
    if (count > RB_OPS_MAX) rule = "there are too many of them";
    for (Py_ssize_t i = 0; rule == NULL && i < count; i++) {
        const char *name;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(declared, i), "HsH", &ops[i].opcode, &name,
                              &ops[i].takes))
            return -1;
        strncpy((char *)ops[i].name, name, sizeof ops[i].name);
        rb_py.ops[i] = (struct rb_op){.opcode = ops[i].opcode, .takes = ops[i].takes, .name = name};
    }
    if (rule == NULL) rule = rb_ops_rule(ops, (uint32_t)count);
    if (rule) {
        PyErr_Format(PyExc_ValueError, "its operations cannot be declared: %s", rule);
        return -1;
    }
    rb_py.options.ops = rb_py.ops;
    rb_py.options.ops_count = (unsigned)count;
    Py_INCREF(declared);
    return 0;
}

static PyObject *kit_set_ready(PyObject *module, PyObject *ready) {
    int truth = PyObject_IsTrue(ready);
    (void)module;
    if (truth < 0) return NULL;
    if (!rb_py.forked) rb_set_ready(truth);
    Py_RETURN_NONE;
}

/* -1: an exception is set. */
static int serve_until_told(struct rb_worker *w) {
    for (;;) {
        enum rb_kit_turn turn = rb_kit_turn(w);
        if (w->leaving || PyErr_CheckSignals() < 0) return -1;
        if (turn == RB_KIT_LEAVE) return 0;
        if (turn == RB_KIT_IDLE) {
            Py_BEGIN_ALLOW_THREADS;
            rb_kit_wait_for_work(w, SIGNALS_WITHIN_NS);
            Py_END_ALLOW_THREADS;
            rb_view_give_kept_rooms(w);
            rb_py_peers_give_dropped();
        }
    }
}

static PyObject *kit_serve(PyObject *module, PyObject *args) {
    const char *program;
    PyObject *ops;
    int failed;
    (void)module;
    if (rb_py.describe == NULL || rb_py.serving) {
        PyErr_SetString(PyExc_RuntimeError, "one worker a process");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OspOOOp", &rb_py.handler, &program, &rb_py.options.short_jobs,
                          &rb_py.save, &rb_py.restore, &ops, &rb_py.options.serves_peers) ||
        declare(ops) < 0)
        return NULL;
    rb_py.options.handler = run_handler;
    rb_py.options.save = rb_py.save == Py_None ? NULL : rb_py_save;
    rb_py.options.restore = rb_py.restore == Py_None ? NULL : rb_py_restore;
    rb_py.worker.options = &rb_py.options;
    rb_py.serving = 1;
    Py_INCREF(rb_py.handler);
    Py_INCREF(rb_py.save);
    Py_INCREF(rb_py.restore);
    failed = rb_kit_open(&rb_py.worker, program, "python", RB_PYTHON_KIT_VERSION);
    if (failed) return PyLong_FromLong(failed);
    keep_from_children(&rb_py.worker.link);
    failed = serve_until_told(&rb_py.worker);
    /* As rb_kit_close(), but the mapping stays: an object of the last job may still be about. It goes with the process. */
    if (!failed) rb_channel_leave(&rb_py.worker);
    rb_peers_end();
    rb_heartbeat_stop(&rb_py.worker);
    return failed ? NULL : PyLong_FromLong(0);
}

static PyObject *kit_bind(PyObject *module, PyObject *args) {
    PyObject **const bound[] = {&rb_py.job,       &rb_py.term,          &rb_py.cancelled,
                                &rb_py.too_large, &rb_py.channel_error, &rb_py.peer_failed,
                                &rb_py.describe};
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOOOOO", bound[0], bound[1], bound[2], bound[3], bound[4],
                          bound[5], bound[6]))
        return NULL;
    for (unsigned i = 0; i < sizeof bound / sizeof *bound; i++) Py_INCREF(*bound[i]);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"serve", kit_serve, METH_VARARGS, "Serve until told to leave; the exit status."},
    {"set_ready", kit_set_ready, METH_O, "Whether jobs are wanted."},
    {"bind", kit_bind, METH_VARARGS, "The Python classes and functions that C code uses."},
    {"after_fork", kit_after_fork, METH_NOARGS, "In a forked child: let go of the link."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "ringbridge_worker._kit",
                                        .m_doc = "The native part of the worker kit.", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__kit(void);
PyMODINIT_FUNC PyInit__kit(void) {
    PyObject *module;
    if (PyType_Ready(&rb_view_type) < 0 || PyType_Ready(&rb_py_job_type) < 0 ||
        PyType_Ready(&rb_py_peer_type) < 0)
        return NULL;
    module = PyModule_Create(&definition);
    if (module && (PyModule_AddIntConstant(module, "CODE_EXCEPTION", RB_CODE_EXCEPTION) < 0 ||
                   PyModule_AddIntConstant(module, "MESSAGE_BYTES_MAX", RB_MESSAGE_BYTES_MAX) < 0 ||
                   PyModule_AddObjectRef(module, "Job", (PyObject *)&rb_py_job_type) < 0 ||
                   PyModule_AddObjectRef(module, "Peer", (PyObject *)&rb_py_peer_type) < 0))
        Py_CLEAR(module);
    return module;
}
