/* encode.c: the walk over a term, without recursion.
 *
 * A container that is being written is a frame on a stack of our own, which holds a reference to
 * it. Python code can run in between (a finalizer, when the collector is woken by a check of map
 * keys), so lists and dicts are looked at anew for each element, and a size that is no longer the
 * one already written is an error, not a guess. */
#include "etf.h"

enum kind { TUPLE, LIST, IMPROPER, DICT, INDEX };

/* Kinds of key in a dict that can be one term although Python tells them apart. */
enum { KEY_TEXT = 1, KEY_BYTES = 2, KEY_NAMED = 4, KEY_CONSTANT = 8, KEY_OTHER = 16 };

struct frame {
    PyObject *object;  /* strong */
    PyObject *pending; /* strong: the value that follows a key, the tail that follows elements */
    Py_ssize_t next;   /* index, or PyDict_Next's position */
    Py_ssize_t count;  /* elements; of a map, entries to come */
    size_t marks;      /* canonical: where this map's marks begin */
    uint8_t kind;
    uint8_t key_kinds;
    bool pending_is_written; /* or just being written */
};

enum { FRAMES_AT_FIRST = 32 };

struct walk {
    struct rb_writer *out;
    struct frame *frames;
    uint32_t depth, capacity;
    struct rb_mark *marks; /* of all open maps, canonical only */
    size_t marks_used, marks_capacity;
    struct frame first[FRAMES_AT_FIRST];
};

static struct frame *push(struct walk *w, enum kind kind, PyObject *object, Py_ssize_t count) {
    const uint32_t depth_max = w->out->limits.depth_max;
    if (rb_unlikely(w->depth >= depth_max)) {
        rb_encode_error(w->out->canonical ? "key_depth" : "depth",
                        PyLong_FromUnsignedLong(depth_max));
        return NULL;
    }
    if (rb_unlikely(w->depth == w->capacity)) {
        uint32_t capacity = w->capacity * 2;
        struct frame *grown = w->frames == w->first ? NULL : w->frames;
        grown = PyMem_Realloc(grown, capacity * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        if (w->frames == w->first) memcpy(grown, w->first, sizeof w->first);
        w->frames = grown;
        w->capacity = capacity;
    }
    struct frame *f = &w->frames[w->depth++];
    f->object = Py_NewRef(object);
    f->pending = NULL;
    f->next = 0;
    f->count = count;
    f->marks = w->marks_used;
    f->kind = (uint8_t)kind;
    f->key_kinds = 0;
    f->pending_is_written = false;
    return f;
}

/* `count` terms more, of a container whose length field has `size_max` as its largest value. */
static int claim(struct rb_writer *out, uint64_t count, uint64_t size, uint64_t size_max) {
    if (rb_unlikely(size > size_max))
        return rb_encode_error("size", PyLong_FromUnsignedLongLong(size));
    out->terms += count;
    if (rb_unlikely(out->terms > out->limits.terms_max))
        return rb_encode_error("terms", PyLong_FromUnsignedLong(out->limits.terms_max));
    return rb_room(out, 5);
}

static inline void put_head(struct rb_writer *out, unsigned char tag, Py_ssize_t count) {
    out->p[0] = tag; /* claim() has made room */
    rb_put32(out->p + 1, (uint32_t)count);
    out->p += 5;
}

/* Each of the following writes a container's head: 1 when that was all of it, 0 when a frame
 * waits, -1 on error. */

static int begin_tuple(struct walk *w, PyObject *tuple) {
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (claim(w->out, (uint64_t)count, (uint64_t)count, TUPLE_ARITY_MAX) < 0) return -1;
    if (count < 256) {
        w->out->p[0] = SMALL_TUPLE_EXT;
        w->out->p[1] = (unsigned char)count;
        w->out->p += 2;
    } else {
        put_head(w->out, LARGE_TUPLE_EXT, count);
    }
    if (count == 0) return 1;
    return push(w, TUPLE, tuple, count) == NULL ? -1 : 0;
}

/* A list of bytes goes out as STRING_EXT; the first other element undoes the try. 1: done; 0: no
 * such list; -1. */
static int try_string(struct rb_writer *out, PyObject *list, Py_ssize_t count) {
    if (rb_room(out, (size_t)count + 3) < 0) return -1;
    unsigned char *p = out->p + 3;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *element = PyList_GET_ITEM(list, i);
        if (!PyLong_CheckExact(element) && (!PyLong_Check(element) || PyBool_Check(element)))
            return 0;
        int overflow;
        long byte = PyLong_AsLongAndOverflow(element, &overflow);
        if (overflow != 0 || byte < 0 || byte > 255) return 0;
        *p++ = (unsigned char)byte;
    }
    out->p[0] = STRING_EXT;
    rb_put16(out->p + 1, (uint16_t)count);
    out->p = p;
    return 1;
}

static int begin_list(struct walk *w, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (claim(w->out, (uint64_t)count, (uint64_t)count, UINT32_MAX) < 0) return -1;
    if (count == 0) {
        *w->out->p++ = NIL_EXT;
        return 1;
    }
    if (count <= STRING_LENGTH_MAX) {
        int done = try_string(w->out, list, count);
        if (done != 0) return done;
    }
    if (rb_room(w->out, 5) < 0) return -1;
    put_head(w->out, LIST_EXT, count);
    return push(w, LIST, list, count) == NULL ? -1 : 0;
}

static int field_is_forged(PyObject *term) { return rb_refused("field", term); }

static int begin_improper(struct walk *w, PyObject *term) {
    PyObject *elements = *rb_slot(&rb_terms.improper, term, IMPROPER_ELEMENTS);
    PyObject *tail = *rb_slot(&rb_terms.improper, term, IMPROPER_TAIL);
    if (elements == NULL || tail == NULL || !PyTuple_CheckExact(elements) ||
        PyTuple_GET_SIZE(elements) == 0)
        return field_is_forged(term);
    Py_ssize_t count = PyTuple_GET_SIZE(elements);
    if (claim(w->out, (uint64_t)count, (uint64_t)count, UINT32_MAX) < 0) return -1;
    put_head(w->out, LIST_EXT, count);
    struct frame *f = push(w, IMPROPER, elements, count);
    if (f == NULL) return -1;
    f->pending = Py_NewRef(tail);
    return 0;
}

static int begin_map(struct walk *w, PyObject *entries, enum kind kind) {
    Py_ssize_t count = PyDict_GET_SIZE(entries);
    if (claim(w->out, 2 * (uint64_t)count, (uint64_t)count, UINT32_MAX) < 0) return -1;
    put_head(w->out, MAP_EXT, count);
    if (count == 0) return 1;
    return push(w, kind, entries, count) == NULL ? -1 : 0;
}

static int begin_record(struct walk *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.record;
    if (!w->out->record_ok) return rb_refused("record", term);
    PyObject *fields = *rb_slot(t, term, RECORD_FIELDS), *values = *rb_slot(t, term, RECORD_VALUES);
    PyObject *flags = *rb_slot(t, term, RECORD_FLAGS);
    if (fields == NULL || values == NULL || flags == NULL || !PyTuple_CheckExact(fields) ||
        !PyTuple_CheckExact(values) || !PyLong_CheckExact(flags) ||
        PyTuple_GET_SIZE(fields) != PyTuple_GET_SIZE(values))
        return field_is_forged(term);
    Py_ssize_t count = PyTuple_GET_SIZE(values);
    if (claim(w->out, 2 * (uint64_t)count, (uint64_t)count, UINT32_MAX) < 0) return -1;
    put_head(w->out, RECORD_EXT, count);
    if (rb_room(w->out, 1) < 0) return -1;
    *w->out->p++ = (unsigned char)PyLong_AsLong(flags);
    int named = rb_write_name(w->out, *rb_slot(t, term, RECORD_MODULE));
    if (named == 0) named = rb_write_name(w->out, *rb_slot(t, term, RECORD_NAME));
    for (Py_ssize_t i = 0; named == 0 && i < count; i++)
        named = rb_write_name(w->out, PyTuple_GET_ITEM(fields, i));
    if (named < 0) return named == -2 ? field_is_forged(term) : -1;
    if (count == 0) return 1;
    return push(w, TUPLE, values, count) == NULL ? -1 : 0;
}

static int begin(struct walk *w, PyObject *term) {
    if (PyTuple_Check(term)) return begin_tuple(w, term);
    if (PyList_Check(term)) return begin_list(w, term);
    if (PyDict_Check(term)) return begin_map(w, term, DICT);
    if (Py_TYPE(term) == rb_terms.improper.type) return begin_improper(w, term);
    if (Py_TYPE(term) == rb_terms.record.type) return begin_record(w, term);
    PyObject *index = *rb_slot(&rb_terms.map, term, MAP_INDEX);
    if (index == NULL || !PyDict_CheckExact(index)) return field_is_forged(term);
    return begin_map(w, index, INDEX);
}

/* ---- maps */

static inline uint8_t key_kind(PyObject *key) {
    const PyTypeObject *t = Py_TYPE(key);
    if (t == &rb_atom_type) return ((struct rb_atom *)key)->value == key ? 0 : KEY_NAMED;
    if (t == &PyUnicode_Type) return KEY_TEXT;
    if (t == &PyBytes_Type) return KEY_BYTES;
    if (t == &PyBool_Type || key == Py_None) return KEY_CONSTANT;
    if (t == &PyLong_Type || t == &PyFloat_Type || t == rb_terms.pid.type ||
        t == rb_terms.reference.type || t == rb_terms.port.type)
        return 0;
    return KEY_OTHER;
}

static bool keys_may_coincide(uint8_t kinds) {
    return (kinds & KEY_OTHER) || (kinds & (KEY_TEXT | KEY_BYTES)) == (KEY_TEXT | KEY_BYTES) ||
           (kinds & (KEY_NAMED | KEY_CONSTANT)) == (KEY_NAMED | KEY_CONSTANT);
}

static int mark_entry(struct walk *w, size_t key_at) {
    if (w->marks_used == w->marks_capacity) {
        size_t capacity = w->marks_capacity == 0 ? 16 : 2 * w->marks_capacity;
        struct rb_mark *grown = PyMem_Realloc(w->marks, capacity * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        w->marks = grown;
        w->marks_capacity = capacity;
    }
    w->marks[w->marks_used++] = (struct rb_mark){.key = key_at};
    return 0;
}

static int end_of_map(struct walk *w, struct frame *f) {
    if (w->out->canonical) {
        size_t count = w->marks_used - f->marks;
        int result = count < 2 ? 0 : rb_map_sort(w->out, w->marks + f->marks, count);
        w->marks_used = f->marks;
        return result;
    }
    if (f->kind == DICT && keys_may_coincide(f->key_kinds) && PyDict_GET_SIZE(f->object) > 1)
        return rb_map_check_distinct(f->object, &w->out->limits);
    return 0;
}

/* ---- the walk */

/* The frequent small leaves, written without a look at the writer: its fields would have to be
 * loaded and stored for each byte, since bytes may alias anything. The end of what was written, or
 * NULL for everything else. FAST_ROOM bytes are there. */
enum { FAST_ROOM = 64, FAST_BYTES_MAX = 48 };

static inline unsigned char *put_constant(unsigned char *p, const unsigned char *wire, int size) {
    memcpy(p, wire, 8); /* one store; what is too much is overwritten by what follows, or cut off */
    return p + size;
}

static inline unsigned char *put_fast(unsigned char *p, PyObject *term) {
    const PyTypeObject *t = Py_TYPE(term);
    if (t == &rb_atom_type) {
        const struct rb_atom *atom = (const struct rb_atom *)term;
        const Py_ssize_t padded = Py_SIZE(atom);
        if (padded > FAST_ROOM) return NULL;
        for (Py_ssize_t i = 0; i < padded; i += RB_CHUNK) memcpy(p + i, atom->wire + i, RB_CHUNK);
        return p + atom->wire_size;
    }
    if (t == &PyLong_Type) {
        long long value;
        return rb_compact(term, &value) ? rb_put_integer(p, value) : NULL;
    }
    if (t == &PyBytes_Type) {
        const Py_ssize_t size = PyBytes_GET_SIZE(term);
        if (size > FAST_BYTES_MAX) return NULL;
        p[0] = BINARY_EXT;
        rb_put32(p + 1, (uint32_t)size);
        memcpy(p + 5, PyBytes_AS_STRING(term), (size_t)size);
        return p + 5 + size;
    }
    if (t == &PyFloat_Type) {
        uint64_t bits = rb_float_bits(term);
        if (!rb_is_finite(bits)) return NULL;
        p[0] = NEW_FLOAT_EXT;
        rb_put64(p + 1, bits);
        return p + 9;
    }
    if (term == Py_None) return put_constant(p, rb_nil, RB_NIL_SIZE);
    if (term == Py_True) return put_constant(p, rb_true, RB_TRUE_SIZE);
    if (term == Py_False) return put_constant(p, rb_false, RB_FALSE_SIZE);
    return NULL;
}

/* 1: written; 0: a container, not written; -1: an exception. */
static inline int write_leaf(struct rb_writer *out, PyObject *term) {
    if (rb_likely(out->end - out->p >= FAST_ROOM)) {
        unsigned char *p = put_fast(out->p, term);
        if (p != NULL) {
            out->p = p;
            return 1;
        }
    }
    return rb_write_leaf(out, term);
}

/* Each of the following writes elements of the innermost container up to the next one that is
 * itself a container, *inner (borrowed). 0: there is one; 1: the container is complete; -1: an
 * exception. No Python code runs meanwhile. */

static int write_items(struct rb_writer *out, struct frame *f, PyObject *const *items,
                       PyObject **inner) {
    unsigned char *p = out->p;
    while (f->next < f->count) {
        PyObject *item = items[f->next++];
        if (rb_likely(out->end - p >= FAST_ROOM)) {
            unsigned char *end = put_fast(p, item);
            if (rb_likely(end != NULL)) {
                p = end;
                continue;
            }
        }
        out->p = p;
        int written = rb_write_leaf(out, item);
        p = out->p;
        if (written != 1) {
            *inner = item;
            return written;
        }
    }
    out->p = p;
    return 1;
}

static int write_list(struct rb_writer *out, struct frame *f, PyObject **inner) {
    if (PyList_GET_SIZE(f->object) != f->count) {
        rb_refused("changed", f->object);
        return -1;
    }
    int result = write_items(out, f, ((PyListObject *)f->object)->ob_item, inner);
    if (result != 1) return result;
    if (rb_room(out, 1) < 0) return -1;
    *out->p++ = NIL_EXT;
    return 1;
}

static int write_improper(struct rb_writer *out, struct frame *f, PyObject **inner) {
    if (f->pending_is_written) return 1;
    int result = write_items(out, f, &PyTuple_GET_ITEM(f->object, 0), inner);
    if (result != 1) return result;
    f->pending_is_written = true;
    *inner = f->pending;
    return write_leaf(out, f->pending);
}

static int write_entries(struct walk *w, struct frame *f, PyObject **inner) {
    struct rb_writer *out = w->out;
    PyObject *key, *value;
    int written;
    if (f->pending != NULL && f->pending_is_written) Py_CLEAR(f->pending);
    for (;;) {
        if (f->pending != NULL) { /* its key was a container, and is written now */
            f->pending_is_written = true;
            value = f->pending;
        } else {
            if (f->count == 0) return end_of_map(w, f) < 0 ? -1 : 1;
            f->count--;
            if (!PyDict_Next(f->object, &f->next, &key, &value)) goto changed;
            if (f->kind == INDEX) {
                if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != 2) goto changed;
                key = PyTuple_GET_ITEM(value, 0);
                value = PyTuple_GET_ITEM(value, 1);
            } else if (!rb_is_atom(key) || ((struct rb_atom *)key)->value != key) {
                f->key_kinds |= key_kind(key);
            }
            if (out->canonical && mark_entry(w, (size_t)(out->p - out->start)) < 0) return -1;
            written = write_leaf(out, key);
            if (written != 1) {
                if (written == 0) {
                    f->pending = Py_NewRef(value);
                    f->pending_is_written = false;
                    *inner = key;
                }
                return written;
            }
        }
        if (out->canonical) w->marks[w->marks_used - 1].value = (size_t)(out->p - out->start);
        written = write_leaf(out, value);
        if (written != 1) {
            *inner = value;
            return written;
        }
        if (f->pending != NULL) Py_CLEAR(f->pending);
    }
changed:
    rb_refused("changed", f->object);
    return -1;
}

static int write_elements(struct walk *w, struct frame *f, PyObject **inner) {
    switch ((enum kind)f->kind) {
    case TUPLE: return write_items(w->out, f, &PyTuple_GET_ITEM(f->object, 0), inner);
    case LIST: return write_list(w->out, f, inner);
    case IMPROPER: return write_improper(w->out, f, inner);
    case DICT:
    case INDEX: return write_entries(w, f, inner);
    }
    Py_UNREACHABLE();
}

static int write_term(struct rb_writer *out, PyObject *term) {
    int result = write_leaf(out, term);
    if (result != 0) return result;
    struct walk w; /* no initializer: it would clear the first frames each time */
    w.out = out;
    w.frames = w.first;
    w.depth = 0;
    w.capacity = FRAMES_AT_FIRST;
    w.marks = NULL;
    w.marks_used = w.marks_capacity = 0;
    result = begin(&w, term);
    while (result >= 0 && w.depth > 0) {
        struct frame *f = &w.frames[w.depth - 1];
        PyObject *inner = NULL;
        result = write_elements(&w, f, &inner);
        if (result == 0) {
            result = begin(&w, inner);
        } else if (result > 0) {
            w.depth--;
            Py_XDECREF(f->pending);
            Py_DECREF(f->object);
        }
    }
    while (w.depth > 0) {
        struct frame *f = &w.frames[--w.depth];
        Py_XDECREF(f->pending);
        Py_DECREF(f->object);
    }
    if (w.frames != w.first) PyMem_Free(w.frames);
    PyMem_Free(w.marks);
    return result;
}

/* Run a writer whose limits and options are set over `term`. */
static PyObject *run(struct rb_writer out, PyObject *term, bool versioned) {
    unsigned char stack[RB_WRITER_STACK_BYTES];
    out.start = out.p = stack;
    out.end = stack + sizeof stack;
    out.terms = 1;
    if (versioned) *out.p++ = VERSION_MAGIC;
    if (write_term(&out, term) < 0) {
        Py_XDECREF(out.bytes);
        return NULL;
    }
    Py_ssize_t size = out.p - out.start;
    if (out.bytes == NULL) return PyBytes_FromStringAndSize((const char *)stack, size);
    _PyBytes_Resize(&out.bytes, size); /* sets it to NULL on failure */
    return out.bytes;
}

PyObject *rb_encode(PyObject *term, const struct rb_limits *limits, bool versioned,
                    bool record_ok) {
    struct rb_writer out = {.limits = *limits, .record_ok = record_ok};
    return run(out, term, versioned);
}

PyObject *rb_canonical(PyObject *term, const struct rb_limits *limits) {
    struct rb_writer out = {.limits = *limits, .record_ok = true, .canonical = true};
    out.limits.depth_max = limits->key_depth_max;
    return run(out, term, false);
}
