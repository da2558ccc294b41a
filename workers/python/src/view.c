/* view.c: memory of a job as Python sees it.
 *
 * A payload lies in the role's pool, which the bridge gives to another job as soon as this one is answered; a room lies in the
 * result region, which is the bridge's to read from then on. A handler gets memoryviews of both, without a copy, and they are
 * released before the answer is published. What the handler made of them (slices, arrays) cannot be released: if one is left, it
 * must never see or touch another job's memory. So it keeps what it has:
 *
 *      payload   the pages under the view are replaced, in one step and at the same address, by private ones with the same bytes.
 *                The rest of that mapping goes, and the worker maps the pool anew. The pages go with the last view.
 *                Of a request of another worker, or decompressed: its memory is ours alone, and the view's from then on.
 *      room      its blocks are not given back before the last view is gone; the answer is copied to others. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kit.h"

static struct rb_view *kept_rooms; /* whose last view is gone. Under the interpreter's lock */

static int view_get(PyObject *object, Py_buffer *buffer, int flags) {
    struct rb_view *self = (struct rb_view *)object;
    if (self->base == NULL) {
        PyErr_SetString(PyExc_BufferError, "the job is answered");
        return -1;
    }
    if (PyBuffer_FillInfo(buffer, object, self->base, self->size, !self->writable, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void view_release(PyObject *object, Py_buffer *buffer) {
    struct rb_view *self = (struct rb_view *)object;
    (void)buffer;
    if (--self->exports > 0 || self->blocks == 0) return;
    /* Perhaps another thread than the handler's, whose region it is: left for it. */
    Py_INCREF(object);
    self->next_kept = kept_rooms;
    kept_rooms = self;
}

static void view_free(PyObject *object) {
    struct rb_view *self = (struct rb_view *)object;
    if (self->mapping) munmap(self->mapping, self->mapping_bytes);
    free(self->owned);
    PyObject_Free(self);
}

static PyBufferProcs view_buffer = {.bf_getbuffer = view_get, .bf_releasebuffer = view_release};

PyTypeObject rb_view_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "ringbridge_worker._kit.View",
    .tp_doc = "What owns a job's memory behind a memoryview.",
    .tp_basicsize = sizeof(struct rb_view),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = view_free,
    .tp_as_buffer = &view_buffer,
};

int rb_seen_make(struct rb_seen *seen, const uint8_t *bytes, size_t size, int writable) {
    struct rb_view *view = PyObject_New(struct rb_view, &rb_view_type);
    if (view == NULL) return -1;
    memset((char *)view + sizeof(PyObject), 0, sizeof *view - sizeof(PyObject));
    view->base = bytes ? (uint8_t *)bytes : view->inline_bytes;
    view->size = (Py_ssize_t)size;
    view->writable = writable;
    seen->view = view;
    seen->memory = PyMemoryView_FromObject((PyObject *)view);
    if (seen->memory) return 0;
    Py_CLEAR(seen->view);
    return -1;
}

int rb_seen_end(struct rb_seen *seen) {
    static PyObject *release;
    PyObject *type, *value, *traceback, *done;
    if (seen->view == NULL) return 0;
    PyErr_Fetch(&type, &value, &traceback);
    if (Py_REFCNT(seen->memory) > 1) { /* else the last reference does the same */
        if (release == NULL) release = PyUnicode_InternFromString("release");
        done = release ? PyObject_CallMethodNoArgs(seen->memory, release) : NULL;
        if (done == NULL) PyErr_Clear(); /* an array is made of it: it counts below */
        Py_XDECREF(done);
    }
    Py_CLEAR(seen->memory);
    PyErr_Restore(type, value, traceback);
    return seen->view->exports > 0;
}

void rb_seen_forget(struct rb_seen *seen) {
    if (seen->view == NULL) return;
    if (seen->view->mapping == NULL && seen->view->owned == NULL && seen->view->blocks == 0 &&
        seen->view->base != seen->view->inline_bytes)
        seen->view->base = NULL;
    Py_CLEAR(seen->memory);
    Py_CLEAR(seen->view);
}

int rb_view_keep_payload(struct rb_job *job, struct rb_view *view) {
    struct rb_link_worker *link = &job->worker->link;
    size_t pool_bytes = (size_t)link->header.pool_bytes;
    uint8_t *old = (uint8_t *)link->pool;
    if (view->base == view->inline_bytes) return 0;
    if (job->peer) {
        view->owned = rb_peer_keep_request(job);
        return 0;
    }
    if (view->base == job->worker->content.at) { /* decompressed */
        struct rb_kit_room content = rb_zstd_take_content(job->worker);
        view->mapping = content.at;
        view->mapping_bytes = content.bytes;
        return 0;
    }
    size_t first = (size_t)(view->base - old) & ~(size_t)(RB_PAGE_BYTES - 1);
    size_t end = (size_t)(view->base - old) + (size_t)view->size;
    size_t bytes = (end - first + RB_PAGE_BYTES - 1) & ~(size_t)(RB_PAGE_BYTES - 1);
    uint8_t *again, *pages;

    again = mmap(NULL, pool_bytes, PROT_READ, MAP_SHARED, link->fds.pool, 0);
    if (again == MAP_FAILED) goto fail;
    pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) goto fail_again;
    memcpy(pages, old + first, end - first);
    if (mprotect(pages, bytes, PROT_READ) < 0 ||
        mremap(pages, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, old + first) == MAP_FAILED)
        goto fail_pages;
    if (first > 0) munmap(old, first);
    if (first + bytes < pool_bytes) munmap(old + first + bytes, pool_bytes - first - bytes);
    link->pool = again;
    view->mapping = old + first;
    view->mapping_bytes = bytes;
    return 0;

fail_pages:
    munmap(pages, bytes);
fail_again:
    munmap(again, pool_bytes);
fail:
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

void rb_view_keep_room(struct rb_view *view, uint32_t first_block, uint32_t blocks) {
    view->first_block = first_block;
    view->blocks = blocks;
}

void rb_view_give_kept_rooms(struct rb_worker *w) {
    while (kept_rooms) {
        struct rb_view *view = kept_rooms;
        kept_rooms = view->next_kept;
        if (view->exports == 0) { /* memoryview.obj leads here: there may be a new one */
            /* Our own record says that they are taken, so this cannot fail. */
            rb_region_give(&w->link.result_region, view->first_block, view->blocks);
            view->blocks = 0;
            view->base = NULL;
        }
        Py_DECREF(view);
    }
}
