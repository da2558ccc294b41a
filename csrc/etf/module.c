/* module.c: bridge.etf._codec, the Python functions of the codec and their arguments. */
#include "etf.h"

/* Keyword arguments of a METH_FASTCALL function: values[i] is borrowed, NULL when not given. */
static int take_keywords(const char *function, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords, const char *const *names, PyObject **values) {
    for (Py_ssize_t i = 0; keywords != NULL && i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        int k = 0;
        while (names[k] != NULL && PyUnicode_CompareWithASCIIString(name, names[k]) != 0) k++;
        if (names[k] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() has no argument %R", function, name);
            return -1;
        }
        if (values[k] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got %R twice", function, name);
            return -1;
        }
        values[k] = args[count + i];
    }
    return 0;
}

static int take_flag(PyObject *value, bool *out) {
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    *out = truth > 0;
    return truth < 0 ? -1 : 0;
}

static int check_positional(const char *function, Py_ssize_t count, Py_ssize_t max) {
    if (count >= 1 && count <= max) return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %s, %zd were given", function,
                 max == 1 ? "one positional argument" : "one or two positional arguments", count);
    return -1;
}

static int check_bound(void) {
    if (rb_terms.map.type != NULL && rb_terms.limits_type != NULL) return 0;
    PyErr_SetString(PyExc_RuntimeError, "bridge.etf has not bound its types yet");
    return -1;
}

/* ---- encoding */

static PyObject *encode_with(const char *function, PyObject *const *args, Py_ssize_t count,
                             PyObject *keywords, bool versioned) {
    static const char *const names[] = {"record_ok", "limits", NULL};
    PyObject *values[2] = {NULL, NULL};
    struct rb_limits limits;
    bool record_ok;
    if (check_bound() < 0 || check_positional(function, count, 1) < 0 ||
        take_keywords(function, args, count, keywords, names, values) < 0 ||
        take_flag(values[0], &record_ok) < 0 || rb_limits_read(values[1], &limits) < 0)
        return NULL;
    return rb_encode(args[0], &limits, versioned, record_ok);
}

static PyObject *codec_encode(PyObject *self, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords) {
    (void)self;
    return encode_with("encode", args, count, keywords, true);
}

static PyObject *codec_encode_bare(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                   PyObject *keywords) {
    (void)self;
    return encode_with("encode_bare", args, count, keywords, false);
}

static PyObject *codec_canonical(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                 PyObject *keywords) {
    (void)self;
    static const char *const names[] = {"limits", NULL};
    PyObject *values[1] = {NULL};
    struct rb_limits limits;
    if (check_bound() < 0 || check_positional("canonical", count, 1) < 0 ||
        take_keywords("canonical", args, count, keywords, names, values) < 0 ||
        rb_limits_read(values[0], &limits) < 0)
        return NULL;
    return rb_canonical(args[0], &limits);
}

/* ---- decoding */

/* The atom table as a tuple, NULL in *out when there is none. */
static int take_atoms(PyObject *value, PyObject **out) {
    *out = NULL;
    if (value == NULL || value == Py_None) return 0;
    PyObject *atoms = PySequence_Tuple(value);
    if (atoms == NULL) return -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(atoms); i++) {
        PyObject *atom = PyTuple_GET_ITEM(atoms, i);
        if (!rb_is_atom(atom)) {
            PyErr_Format(PyExc_TypeError, "atoms must hold Atom only, not %.80s",
                         Py_TYPE(atom)->tp_name);
            Py_DECREF(atoms);
            return -1;
        }
    }
    *out = atoms;
    return 0;
}

/* A view of bytes-like `data`. Bytes are the usual case and need no buffer protocol. */
static int take_data(PyObject *data, Py_buffer *view) {
    if (PyBytes_CheckExact(data)) {
        *view = (Py_buffer){.buf = PyBytes_AS_STRING(data), .len = PyBytes_GET_SIZE(data)};
        return 0;
    }
    return PyObject_GetBuffer(data, view, PyBUF_SIMPLE);
}

/* Inflate what follows COMPRESSED at offset 1 and decode that as the one term. */
static PyObject *decode_compressed(const Py_buffer *view, const struct rb_reader *outer) {
    const unsigned char *start = view->buf;
    struct rb_reader r = *outer;
    if (view->len < 6) return rb_truncated(&r, start + 1);
    PyObject *inflated = PyObject_CallFunction(rb_terms.inflate, "y#nkk", view->buf, view->len,
                                               (Py_ssize_t)1, (unsigned long)rb_get32(start + 2),
                                               (unsigned long)r.limits.inflated_bytes_max);
    if (inflated == NULL) return NULL;
    r.start = r.p = (const unsigned char *)PyBytes_AS_STRING(inflated);
    r.end = r.start + PyBytes_GET_SIZE(inflated);
    PyObject *term = rb_decode_term(&r);
    if (term != NULL && r.p != r.end) {
        Py_CLEAR(term);
        rb_broken(&r, "trailing_bytes", r.p, (uint64_t)(r.end - r.p));
    }
    Py_DECREF(inflated);
    return term;
}

static PyObject *decode_whole(struct rb_reader *r, const Py_buffer *view, bool allow_compressed) {
    if (!rb_has(r, 1)) return rb_truncated(r, r->p);
    if (*r->p != VERSION_MAGIC) return rb_broken(r, "version", r->p, *r->p);
    r->p++;
    if (allow_compressed && rb_has(r, 1) && *r->p == COMPRESSED) return decode_compressed(view, r);
    PyObject *term = rb_decode_term(r);
    if (term != NULL && r->p != r->end) {
        Py_DECREF(term);
        return rb_broken(r, "trailing_bytes", r->p, (uint64_t)(r->end - r->p));
    }
    return term;
}

static PyObject *codec_decode(PyObject *self, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords) {
    (void)self;
    static const char *const names[] = {"limits", "allow_compressed", "atoms", NULL};
    PyObject *values[3] = {NULL, NULL, NULL};
    bool allow_compressed;
    struct rb_reader r = {.terms = 1};
    Py_buffer view;
    if (check_bound() < 0 || check_positional("decode", count, 1) < 0 ||
        take_keywords("decode", args, count, keywords, names, values) < 0 ||
        rb_limits_read(values[0], &r.limits) < 0 || take_flag(values[1], &allow_compressed) < 0 ||
        take_atoms(values[2], &r.atoms) < 0)
        return NULL;
    PyObject *term = NULL;
    if (take_data(args[0], &view) == 0) {
        r.start = r.p = view.buf;
        r.end = r.start + view.len;
        term = decode_whole(&r, &view, allow_compressed);
        PyBuffer_Release(&view);
    }
    Py_XDECREF(r.atoms);
    return term;
}

static PyObject *codec_decode_bare(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                   PyObject *keywords) {
    (void)self;
    static const char *const names[] = {"offset", "limits", "atoms", NULL};
    PyObject *values[3] = {count > 1 ? args[1] : NULL, NULL, NULL};
    struct rb_reader r = {.terms = 1};
    Py_buffer view;
    if (check_bound() < 0 || check_positional("decode_bare", count, 2) < 0 ||
        take_keywords("decode_bare", args, count, keywords, names, values) < 0 ||
        rb_limits_read(values[1], &r.limits) < 0)
        return NULL;
    Py_ssize_t offset = values[0] == NULL ? 0 : PyNumber_AsSsize_t(values[0], PyExc_ValueError);
    if (offset == -1 && PyErr_Occurred()) return NULL;
    if (take_atoms(values[2], &r.atoms) < 0) return NULL;
    PyObject *result = NULL;
    if (take_data(args[0], &view) == 0) {
        if (offset < 0 || offset > view.len) {
            PyErr_Format(PyExc_ValueError, "offset %zd is outside of %zd bytes", offset, view.len);
        } else {
            r.start = view.buf;
            r.p = r.start + offset;
            r.end = r.start + view.len;
            PyObject *term = rb_decode_term(&r);
            if (term != NULL) result = Py_BuildValue("Nn", term, (Py_ssize_t)(r.p - r.start));
        }
        PyBuffer_Release(&view);
    }
    Py_XDECREF(r.atoms);
    return result;
}

/* ---- the module */

static PyObject *codec_bind(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *terms, *errors, *limits, *rare;
    if (!PyArg_ParseTuple(args, "OOOO:bind", &terms, &errors, &limits, &rare)) return NULL;
    if (rb_terms_bind(terms, errors, limits, rare) < 0) return NULL;
    Py_RETURN_NONE;
}

#define FASTCALL(name, doc) \
    {#name, (PyCFunction)(void (*)(void))codec_##name, METH_FASTCALL | METH_KEYWORDS, doc}

static PyMethodDef codec_functions[] = {
    FASTCALL(encode, "encode(term, /, *, record_ok=False, limits=None)\n--\n\n"
                     "The term's bytes, 131 first. Raises EncodeError."),
    FASTCALL(encode_bare,
             "encode_bare(term, /, *, record_ok=False, limits=None)\n--\n\n"
             "The term's bytes without 131, as control messages carry it. Raises EncodeError."),
    FASTCALL(decode,
             "decode(data, /, *, limits=None, allow_compressed=False, atoms=None)\n--\n\n"
             "The one term that data holds, 131 first. atoms: what ATOM_CACHE_REF counts into.\n"
             "Raises DecodeError."),
    FASTCALL(decode_bare,
             "decode_bare(data, /, offset=0, *, limits=None, atoms=None)\n--\n\n"
             "The term without 131 at offset, and the offset behind it. Raises DecodeError, and\n"
             "ValueError when offset is outside of data."),
    FASTCALL(
        canonical,
        "canonical(term, /, *, limits=None)\n--\n\n"
        "Bytes that are the same for two terms exactly when the terms are =:= (OTP 27). Raises\n"
        "EncodeError."),
    {"bind", codec_bind, METH_VARARGS,
     "bind(terms, errors, limits, rare, /)\n--\n\nTake the types from these modules of "
     "bridge.etf."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef codec_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "bridge.etf._codec",
    .m_doc = "The term codec in C (docs/terms.md); bridge.etf._reference is the same in Python.",
    .m_size = -1,
    .m_methods = codec_functions,
};

PyMODINIT_FUNC PyInit__codec(void) {
    if (PyType_Ready(&rb_atom_type) < 0 || rb_by_value_ready() < 0) return NULL;
    if (PyDict_GetItemString(rb_atom_type.tp_dict, "__match_args__") == NULL) {
        PyObject *match_args = Py_BuildValue("(s)", "name");
        if (match_args == NULL) return NULL;
        int failed = PyDict_SetItemString(rb_atom_type.tp_dict, "__match_args__", match_args);
        Py_DECREF(match_args);
        if (failed) return NULL;
        PyType_Modified(&rb_atom_type);
    }
    PyObject *module = PyModule_Create(&codec_module);
    if (module == NULL) return NULL;
    if (PyModule_AddObjectRef(module, "Atom", (PyObject *)&rb_atom_type) < 0 ||
        PyModule_AddType(module, &rb_by_value_type) < 0 ||
        PyModule_AddType(module, &rb_tagged_reader_type) < 0)
        Py_CLEAR(module);
    return module;
}
