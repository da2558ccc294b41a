/* decode.c: the walk over received bytes, without recursion.
 *
 * A container whose elements are still to come is a frame on a stack of our own. Each turn of the
 * loop reads one term; a term that is complete is put into the innermost frame, which may complete
 * that one, and so on outwards. A count is believed only as far as bytes remain for it and
 * terms_max allows, before anything is allocated for it. */
#include "etf.h"

enum kind {
    TUPLE,       /* into next[] */
    LIST,        /* into next[], then the tail */
    LIST_APPEND, /* a LIST_EXT was the tail of a LIST_EXT: one list, longer than first claimed */
    LIST_TAIL,   /* a tail that is no list */
    MAP_KEY,
    MAP_VALUE,
    FUN,
    RECORD
};

struct frame {
    PyObject *object;         /* the container, or the tuple of a fun's free variables */
    PyObject **next;          /* TUPLE, LIST, FUN, RECORD: where the next term goes */
    PyObject *extra;          /* MAP_VALUE: the key; FUN, RECORD: the term itself */
    struct rb_probes *probes; /* maps: how its keys are found (probe.c), or NULL */
    const unsigned char *at;  /* its tag */
    uint64_t cache_refs;      /* FUN: read before it */
    uint32_t left;            /* terms to come; map entries */
    uint8_t kind;
    bool indexed; /* a map that no dict can hold (map.c) */
};

enum { FRAMES_AT_FIRST = 32 };

struct walk {
    struct rb_reader *r;
    struct frame *frames;
    uint32_t depth, capacity;
    struct frame first[FRAMES_AT_FIRST];
};

static struct frame *push_slow(struct walk *w, const unsigned char *at) {
    struct rb_reader *r = w->r;
    if (w->depth >= r->limits.depth_max) {
        rb_broken(r, "depth", at, r->limits.depth_max);
        return NULL;
    }
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
    return &w->frames[w->depth++];
}

/* A frame for `object`, which it takes over, NULL included. NULL with an exception, and then
 * nothing is kept. */
static inline struct frame *push(struct walk *w, enum kind kind, PyObject *object, uint32_t left,
                                 const unsigned char *at) {
    if (object == NULL) return NULL;
    struct frame *f;
    if (rb_likely(w->depth < w->capacity && w->depth < w->r->limits.depth_max)) {
        f = &w->frames[w->depth++];
    } else if ((f = push_slow(w, at)) == NULL) {
        Py_DECREF(object);
        return NULL;
    }
    f->object = object;
    f->extra = NULL;
    f->probes = NULL;
    f->at = at;
    f->left = left;
    f->kind = (uint8_t)kind;
    f->indexed = false;
    return f;
}

/* Believe a claim of `count` terms that need at least `bytes`? */
static inline bool claim(struct rb_reader *r, uint64_t count, uint64_t bytes, uint64_t claimed,
                         const unsigned char *at) {
    if (rb_unlikely(bytes > (size_t)(r->end - r->p))) {
        rb_broken(r, "count", at, claimed);
        return false;
    }
    r->terms += count;
    if (rb_unlikely(r->terms > r->limits.terms_max)) {
        rb_broken(r, "terms", at, r->limits.terms_max);
        return false;
    }
    return true;
}

/* STRING_EXT's integers: a list, or appended to `list`. NULL with an exception. */
static PyObject *read_string(struct rb_reader *r, PyObject *list, const unsigned char *at) {
    if (!rb_has(r, 2)) return rb_truncated(r, at);
    Py_ssize_t size = rb_get16(r->p);
    r->p += 2;
    if (!rb_has(r, (size_t)size)) return rb_truncated(r, at);
    if (!claim(r, (uint64_t)size, 0, 0, at)) return NULL;
    const unsigned char *bytes = r->p;
    r->p += size;
    if (list != NULL) {
        for (Py_ssize_t i = 0; i < size; i++)
            if (PyList_Append(list, rb_terms.bytes_as_ints[bytes[i]]) < 0) return NULL;
        return list;
    }
    list = PyList_New(size);
    for (Py_ssize_t i = 0; list != NULL && i < size; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(rb_terms.bytes_as_ints[bytes[i]]));
    return list;
}

/* All elements of a list have been read. 1: *out is the list; 0: a frame waits for more; -1: an
 * exception. */
static int end_of_list(struct walk *w, struct frame *f, PyObject **out) {
    struct rb_reader *r = w->r;
    for (;;) {
        const unsigned char *at = r->p;
        if (!rb_has(r, 1)) return rb_truncated(r, at), -1;
        switch (*at) {
        case NIL_EXT: r->p++; break;
        case STRING_EXT:
            r->p++;
            if (read_string(r, f->object, at) == NULL) return -1;
            break;
        case LIST_EXT: {
            r->p++;
            if (!rb_has(r, 4)) return rb_truncated(r, at), -1;
            uint32_t count = rb_get32(r->p);
            r->p += 4;
            if (!claim(r, count, (uint64_t)count + 1, count, at)) return -1;
            if (count == 0) continue; /* just another tail */
            f->kind = LIST_APPEND;
            f->left = count;
            return 0;
        }
        default: f->kind = LIST_TAIL; return 0;
        }
        *out = f->object;
        w->depth--;
        return 1;
    }
}

/* The tail (taken over) of an improper list, whose elements are in f->object. */
static PyObject *improper_list(struct frame *f, PyObject *tail) {
    if (PyList_GET_SIZE(f->object) == 0) return tail; /* [ | tail] is just the tail */
    PyObject *elements = PyList_AsTuple(f->object);
    PyObject *o = elements == NULL ? NULL : rb_term_new(&rb_terms.improper);
    if (o == NULL) {
        Py_XDECREF(elements);
        Py_DECREF(tail);
        return NULL;
    }
    *rb_slot(&rb_terms.improper, o, IMPROPER_ELEMENTS) = elements;
    *rb_slot(&rb_terms.improper, o, IMPROPER_TAIL) = tail;
    return o;
}

/* The fun, whose bytes end at r->p, gets them. Takes `fun` over. */
static PyObject *finish_fun(struct rb_reader *r, PyObject *fun, PyObject *free_variables,
                            const unsigned char *at, bool cache_refs) {
    PyObject *raw;
    if (!cache_refs)
        raw = PyBytes_FromStringAndSize((const char *)at, r->p - at);
    else
        raw = PyObject_CallFunctionObjArgs(rb_terms.fun_bytes, fun, free_variables, NULL);
    if (raw == NULL) {
        Py_DECREF(fun);
        return NULL;
    }
    Py_SETREF(*rb_slot(&rb_terms.fun, fun, FUN_RAW), raw);
    return fun;
}

/* Begin a fun or a record. 1: *out is complete; 0: a frame waits; -1: an exception. */
static int begin_fun(struct walk *w, const unsigned char *at, PyObject **out) {
    struct rb_reader *r = w->r;
    uint64_t cache_refs = r->cache_refs;
    uint32_t count = 0;
    PyObject *fun = rb_read_fun_head(r, at, &count);
    if (fun == NULL) return -1;
    PyObject *free_variables =
        claim(r, count, count, count, at) ? PyTuple_New((Py_ssize_t)count) : NULL;
    if (free_variables == NULL) goto failed;
    if (count == 0) {
        *out = finish_fun(r, fun, free_variables, at, r->cache_refs != cache_refs);
        Py_DECREF(free_variables);
        return *out == NULL ? -1 : 1;
    }
    struct frame *f = push(w, FUN, free_variables, count, at);
    if (f == NULL) goto failed;
    f->next = &PyTuple_GET_ITEM(f->object, 0);
    f->extra = fun;
    f->cache_refs = cache_refs;
    return 0;

failed:
    Py_DECREF(fun);
    return -1;
}

static int begin_record(struct walk *w, const unsigned char *at, PyObject **out) {
    uint32_t count = 0;
    PyObject *record = rb_read_record_head(w->r, at, &count);
    if (record == NULL) return -1;
    if (count == 0) {
        *out = record;
        return 1;
    }
    PyObject *values = Py_NewRef(*rb_slot(&rb_terms.record, record, RECORD_VALUES));
    struct frame *f = push(w, RECORD, values, count, at);
    if (f == NULL) {
        Py_DECREF(record);
        return -1;
    }
    f->next = &PyTuple_GET_ITEM(f->object, 0);
    f->extra = record;
    return 0;
}

static inline PyObject *dict_for(uint32_t count) {
#if PY_VERSION_HEX < 0x030D0000
    enum { PRESIZED_MAX = 1 << 16 }; /* a claim costs at most 3 MiB before its entries are seen */
    return _PyDict_NewPresized(count < PRESIZED_MAX ? (Py_ssize_t)count : PRESIZED_MAX);
#else
    (void)count;
    return PyDict_New();
#endif
}

PyObject *rb_decode_term(struct rb_reader *r) {
    struct walk w; /* no initializer: it would clear the first frames each time */
    w.r = r;
    w.frames = w.first;
    w.depth = 0;
    w.capacity = FRAMES_AT_FIRST;
    const unsigned char *p = r->p, *at; /* r->p is brought up to date before anyone else reads it */
    const unsigned char *const end = r->end;
    struct frame *f;
    PyObject *v;
    uint32_t count;

next_term:
    at = p;
    if (rb_unlikely(p >= end)) goto truncated;
    switch (*p++) {
    case SMALL_INTEGER_EXT:
        if (rb_unlikely(p >= end)) goto truncated;
        v = Py_NewRef(rb_terms.bytes_as_ints[*p++]);
        goto put;
    case INTEGER_EXT:
        if (rb_unlikely(end - p < 4)) goto truncated;
        v = PyLong_FromLong((int32_t)rb_get32(p));
        p += 4;
        break;
    case SMALL_ATOM_UTF8_EXT: {
        if (rb_unlikely(p >= end)) goto truncated;
        const size_t size = *p;
        if (rb_unlikely((size_t)(end - p) <= size)) goto truncated;
        struct rb_atom *atom = rb_atom_cached(p + 1, size);
        if (rb_unlikely(atom == NULL)) goto leaf;
        v = Py_NewRef(atom->value);
        p += 1 + size;
        goto put;
    }
    case BINARY_EXT: {
        if (rb_unlikely(end - p < 4)) goto truncated;
        size_t size = rb_get32(p);
        p += 4;
        if (rb_unlikely((size_t)(end - p) < size)) goto truncated;
        v = PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)size);
        p += size;
        break;
    }
    case SMALL_TUPLE_EXT:
        if (rb_unlikely(p >= end)) goto truncated;
        count = *p++;
        goto tuple;
    case LARGE_TUPLE_EXT:
        if (rb_unlikely(end - p < 4)) goto truncated;
        count = rb_get32(p);
        p += 4;
        if (rb_unlikely(count > TUPLE_ARITY_MAX)) {
            rb_broken(r, "arity", at, count);
            goto failed;
        }
    tuple:
        r->p = p;
        if (!claim(r, count, count, count, at)) goto failed;
        v = PyTuple_New((Py_ssize_t)count);
        if (count == 0) break;
        if ((f = push(&w, TUPLE, v, count, at)) == NULL) goto failed;
        f->next = &PyTuple_GET_ITEM(v, 0);
        goto next_term;
    case NIL_EXT: v = PyList_New(0); break;
    case LIST_EXT:
        if (rb_unlikely(end - p < 4)) goto truncated;
        count = rb_get32(p);
        r->p = p += 4;
        if (!claim(r, count, (uint64_t)count + 1, count, at)) goto failed;
        v = PyList_New((Py_ssize_t)count);
        if ((f = push(&w, LIST, v, count, at)) == NULL) goto failed;
        f->next = ((PyListObject *)v)->ob_item;
        if (count == 0) goto list_end;
        goto next_term;
    case STRING_EXT:
        r->p = p;
        v = read_string(r, NULL, at);
        p = r->p;
        break;
    case MAP_EXT:
        if (rb_unlikely(end - p < 4)) goto truncated;
        count = rb_get32(p);
        r->p = p += 4;
        if (!claim(r, (uint64_t)count * 2, (uint64_t)count * 2, count, at)) goto failed;
        v = dict_for(count);
        if (count == 0) break;
        if (push(&w, MAP_KEY, v, count, at) == NULL) goto failed;
        goto next_term;
    case NEW_FUN_EXT:
    case RECORD_EXT: {
        r->p = p;
        int complete = *at == RECORD_EXT ? begin_record(&w, at, &v) : begin_fun(&w, at, &v);
        p = r->p;
        if (complete < 0) goto failed;
        if (complete == 0) goto next_term;
        goto put;
    }
    default:
    leaf:
        r->p = p;
        v = rb_read_leaf(r, *at, at);
        p = r->p;
        break;
    }
    if (rb_unlikely(v == NULL)) goto failed;

put:
    if (w.depth == 0) {
        r->p = p;
        if (w.frames != w.first) PyMem_Free(w.frames);
        return v;
    }
    f = &w.frames[w.depth - 1];
    switch ((enum kind)f->kind) {
    case TUPLE:
        *f->next++ = v;
        if (--f->left > 0) goto next_term;
        v = f->object;
        break;
    case LIST:
        *f->next++ = v;
        if (--f->left > 0) goto next_term;
        goto list_end;
    case LIST_APPEND: {
        int failed = PyList_Append(f->object, v);
        Py_DECREF(v);
        if (failed) goto failed;
        if (--f->left > 0) goto next_term;
    }
    list_end:
        if (rb_likely(p < end && *p == NIL_EXT)) {
            p++;
            v = f->object;
            break;
        }
        r->p = p;
        switch (end_of_list(&w, f, &v)) {
        case 0: p = r->p; goto next_term;
        case 1: p = r->p; goto put;
        default: goto failed;
        }
    case LIST_TAIL:
        v = improper_list(f, v);
        if (v == NULL) goto failed;
        Py_DECREF(f->object);
        break;
    case MAP_KEY:
        f->extra = v;
        f->kind = MAP_VALUE;
        goto next_term;
    case MAP_VALUE: {
        PyObject *key = f->extra;
        f->extra = NULL;
        f->kind = MAP_KEY;
        if (rb_map_put(r, &f->object, &f->probes, &f->indexed, key, v, f->at) < 0) goto failed;
        if (--f->left > 0) goto next_term;
        PyMem_Free(f->probes);
        f->probes = NULL;
        v = f->indexed ? rb_map_new(f->object) : f->object;
        f->object = NULL;
        if (v == NULL) goto failed;
        break;
    }
    case FUN:
        *f->next++ = v;
        if (--f->left > 0) goto next_term;
        r->p = p;
        v = finish_fun(r, f->extra, f->object, f->at, r->cache_refs != f->cache_refs);
        f->extra = NULL;
        if (v == NULL) goto failed;
        Py_DECREF(f->object);
        break;
    case RECORD:
        *f->next++ = v;
        if (--f->left > 0) goto next_term;
        v = f->extra;
        Py_DECREF(f->object);
        break;
    }
    w.depth--;
    goto put;

truncated:
    rb_truncated(r, at);
failed:
    while (w.depth > 0) {
        f = &w.frames[--w.depth];
        Py_XDECREF(f->object);
        Py_XDECREF(f->extra);
        PyMem_Free(f->probes);
    }
    if (w.frames != w.first) PyMem_Free(w.frames);
    return NULL;
}

PyObject *rb_decode_canonical(PyObject *bytes) {
    const unsigned char *start = (const unsigned char *)PyBytes_AS_STRING(bytes);
    struct rb_reader r = {
        .start = start,
        .end = start + PyBytes_GET_SIZE(bytes),
        .p = start,
        .limits = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
    };
    return rb_decode_term(&r);
}
