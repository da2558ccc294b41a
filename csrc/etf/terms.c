/* terms.c: the Python types that the codec builds and reads (bridge/etf/terms.py), limits, and the
 * two errors.
 *
 * The types are dataclasses with slots. A slot is a pointer at a fixed offset of the object; the
 * class's member descriptors give the offsets, so objects are built and read without a call into
 * Python. Their __post_init__ checks are not run for decoded objects: the decoder has checked the
 * same rules on the bytes. */
#include "etf.h"

#include <structmember.h>

struct rb_terms rb_terms;

static int bind_type(struct rb_type *t, PyObject *module, const char *name,
                     const char *const *slots) {
    PyObject *type = PyObject_GetAttrString(module, name);
    if (type == NULL) return -1;
    t->type = (PyTypeObject *)type; /* kept for good: the module is never unloaded */
    for (int i = 0; slots[i] != NULL; i++) {
        PyObject *member = PyObject_GetAttrString(type, slots[i]);
        if (member == NULL) return -1;
        if (!Py_IS_TYPE(member, &PyMemberDescr_Type) ||
            ((PyMemberDescrObject *)member)->d_member->type != T_OBJECT_EX) {
            PyErr_Format(PyExc_TypeError, "%s.%s is no slot", name, slots[i]);
            Py_DECREF(member);
            return -1;
        }
        t->slots[i] = ((PyMemberDescrObject *)member)->d_member->offset;
        Py_DECREF(member);
    }
    return 0;
}

#define BIND_TYPE(field, name, ...) \
    bind_type(&rb_terms.field, terms, name, (const char *const[]){__VA_ARGS__, NULL})

static int bind_object(PyObject **out, PyObject *module, const char *name) {
    PyObject *old = *out;
    *out = PyObject_GetAttrString(module, name);
    Py_XDECREF(old);
    return *out == NULL ? -1 : 0;
}

int rb_terms_bind(PyObject *terms, PyObject *errors, PyObject *limits, PyObject *rare) {
    for (int i = 0; i < 256; i++) {
        if (rb_terms.bytes_as_ints[i] == NULL) rb_terms.bytes_as_ints[i] = PyLong_FromLong(i);
        if (rb_terms.bytes_as_ints[i] == NULL) return -1;
    }
    if (BIND_TYPE(pid, "Pid", "node", "id", "serial", "creation") < 0 ||
        BIND_TYPE(port, "Port", "node", "id", "creation") < 0 ||
        BIND_TYPE(reference, "Reference", "node", "creation", "words") < 0 ||
        BIND_TYPE(fun, "Fun", "raw", "module", "arity", "uniq", "index", "old_index", "old_uniq",
                  "pid") < 0 ||
        BIND_TYPE(export, "Export", "module", "function", "arity") < 0 ||
        BIND_TYPE(improper, "ImproperList", "elements", "tail") < 0 ||
        BIND_TYPE(bits, "BitString", "data", "bits") < 0 ||
        BIND_TYPE(record, "Record", "module", "name", "flags", "fields", "values") < 0 ||
        BIND_TYPE(map, "Map", "_index") < 0)
        return -1;
    if (bind_object(&rb_terms.atom_repr, terms, "_atom_repr") < 0 ||
        bind_object(&rb_terms.text_float, rare, "text_float") < 0 ||
        bind_object(&rb_terms.inflate, rare, "inflate") < 0 ||
        bind_object(&rb_terms.fun_bytes, rare, "fun_bytes") < 0 ||
        bind_object(&rb_terms.decode_error, errors, "DecodeError") < 0 ||
        bind_object(&rb_terms.encode_error, errors, "EncodeError") < 0 ||
        bind_object(&rb_terms.limits_type, limits, "Limits") < 0)
        return -1;
    return 0;
}

PyObject *rb_term_new(const struct rb_type *t) { return t->type->tp_alloc(t->type, 0); }

/* ---- limits */

static int read_limit(PyObject *limits, const char *name, uint32_t *out) {
    PyObject *value = PyObject_GetAttrString(limits, name);
    if (value == NULL) return -1;
    unsigned long number = PyLong_AsUnsignedLong(value);
    Py_DECREF(value);
    if (number == (unsigned long)-1 && PyErr_Occurred()) return -1;
    *out = (uint32_t)number; /* Limits allows 1..2^32-1 */
    return 0;
}

int rb_limits_read(PyObject *limits, struct rb_limits *out) {
    /* As in bridge/etf/limits.py; a test compares them. */
    static const struct rb_limits defaults = {10000, 10000000, 100, 524280, 64 << 20};
    static PyObject *last; /* strong, so that its address is not used again; Limits are frozen */
    static struct rb_limits last_read;

    if (limits == NULL || limits == Py_None) {
        *out = defaults;
        return 0;
    }
    if (limits != last) {
        struct rb_limits read;
        if (rb_terms.limits_type == NULL ||
            Py_TYPE(limits) != (PyTypeObject *)rb_terms.limits_type) {
            PyErr_Format(PyExc_TypeError, "limits must be Limits or None, not %.80s",
                         Py_TYPE(limits)->tp_name);
            return -1;
        }
        if (read_limit(limits, "depth_max", &read.depth_max) < 0 ||
            read_limit(limits, "terms_max", &read.terms_max) < 0 ||
            read_limit(limits, "key_depth_max", &read.key_depth_max) < 0 ||
            read_limit(limits, "integer_bytes_max", &read.integer_bytes_max) < 0 ||
            read_limit(limits, "inflated_bytes_max", &read.inflated_bytes_max) < 0)
            return -1;
        PyObject *old = last;
        Py_INCREF(limits);
        last = limits;
        last_read = read;
        Py_XDECREF(old);
    }
    *out = last_read;
    return 0;
}

/* ---- errors */

PyObject *rb_decode_error(const char *rule, Py_ssize_t offset, PyObject *value) {
    if (value == NULL) return NULL;
    PyObject *error = PyObject_CallFunction(rb_terms.decode_error, "snO", rule, offset, value);
    Py_DECREF(value);
    if (error != NULL) {
        PyErr_SetObject(rb_terms.decode_error, error);
        Py_DECREF(error);
    }
    return NULL;
}

int rb_encode_error(const char *rule, PyObject *value) {
    if (value == NULL) return -1;
    PyObject *error = PyObject_CallFunction(rb_terms.encode_error, "sO", rule, value);
    Py_DECREF(value);
    if (error != NULL) {
        PyErr_SetObject(rb_terms.encode_error, error);
        Py_DECREF(error);
    }
    return -1;
}
