/* byvalue.c: the base of the identifiers that are keys of tables: Pid, Port, Reference.
 *
 * The same equality and hash that a dataclass makes of its fields (bridge/etf/terms.py), without a
 * call into Python: a node looks several of them up for each signal. */
#include "etf.h"

static const struct rb_type *type_of(PyObject *o, int *slots) {
    PyTypeObject *type = Py_TYPE(o);
    *slots = type == rb_terms.pid.type ? PID_CREATION + 1 : 3;
    if (type == rb_terms.pid.type) return &rb_terms.pid;
    if (type == rb_terms.reference.type) return &rb_terms.reference;
    if (type == rb_terms.port.type) return &rb_terms.port;
    PyErr_Format(PyExc_TypeError, "%s is not compared by value", type->tp_name);
    return NULL;
}

/* A field that was never set can be seen only from __post_init__, or from a hand that unpickles. */
static PyObject *field(const struct rb_type *t, PyObject *o, int slot) {
    PyObject *value = *rb_slot(t, o, slot);
    if (value == NULL) PyErr_Format(PyExc_AttributeError, "%s lacks a field", t->type->tp_name);
    return value;
}

static Py_hash_t hash_fields(PyObject *self) {
    int slots;
    const struct rb_type *t = type_of(self, &slots);
    if (t == NULL) return -1;
    uint64_t h = (uint64_t)slots;
    for (int i = 0; i < slots; i++) {
        PyObject *value = field(t, self, i);
        Py_hash_t part = value == NULL ? -1 : PyObject_Hash(value);
        if (part == -1) return -1;
        h = (h ^ (uint64_t)part) * UINT64_C(0x9e3779b97f4a7c15); /* as atoms are spread */
        h ^= h >> 32;
    }
    return (Py_hash_t)h == -1 ? -2 : (Py_hash_t)h;
}

static PyObject *compare_fields(PyObject *self, PyObject *other, int op) {
    int slots, same = 1;
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(self) != Py_TYPE(other)) Py_RETURN_NOTIMPLEMENTED;
    const struct rb_type *t = type_of(self, &slots);
    if (t == NULL) return NULL;
    for (int i = slots - 1; self != other && same == 1 && i >= 0; i--) { /* numbers first */
        PyObject *a = field(t, self, i), *b = a == NULL ? NULL : field(t, other, i);
        if (b == NULL) return NULL;
        same = a == b ? 1 : PyObject_RichCompareBool(a, b, Py_EQ);
    }
    if (same < 0) return NULL;
    return PyBool_FromLong(same == (op == Py_EQ));
}

PyTypeObject rb_by_value_type = {
    .ob_base = {PyObject_HEAD_INIT(NULL) 0},
    .tp_name = "bridge.etf._codec.ByValue",
    .tp_doc = "Base of Pid, Port and Reference: equal and hashed by type and fields.",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .tp_hash = hash_fields,
    .tp_richcompare = compare_fields,
};

int rb_by_value_ready(void) {
    /* object's own, which a static type would not inherit: subclasses are made as if of object. */
    rb_by_value_type.tp_new = PyBaseObject_Type.tp_new;
    return PyType_Ready(&rb_by_value_type);
}
