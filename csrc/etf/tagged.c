/* tagged.c: tuples that begin with a number, as control messages do, straight into objects.
 *
 * A TaggedReader has a row for each number that it knows: the class, which slot each further
 * element goes to and what it must be there. It accepts, or says None; it never says what is
 * wrong. For that there is the slow way (bridge/dist/control.py), which a test holds equal. */
#include "etf.h"

#include <structmember.h>

enum { NUMBERS = 256, ELEMENTS_MAX = 8, DEFAULTS_MAX = 4 };

/* What an element must be. The names are the argument's, see reader_doc. */
enum kind { ANY, PID, REFERENCE, ATOM, PID_OR_ATOM, KINDS };

struct row {
    PyTypeObject *type; /* NULL: no such number here */
    uint8_t arity, defaults;
    bool flag;
    struct {
        Py_ssize_t slot; /* -1: dropped */
        enum kind kind;
    } elements[ELEMENTS_MAX];
    struct {
        Py_ssize_t slot;
        PyObject *value;
    } others[DEFAULTS_MAX]; /* slots that no element goes to */
};

struct reader {
    PyObject_HEAD struct row rows[NUMBERS];
};

static bool is_kind(PyObject *value, enum kind kind) {
    bool bare = value == Py_None || value == Py_True || value == Py_False; /* atoms too */
    switch (kind) {
    case PID: return Py_TYPE(value) == rb_terms.pid.type;
    case REFERENCE: return Py_TYPE(value) == rb_terms.reference.type;
    case ATOM: return bare || rb_is_atom(value);
    case PID_OR_ATOM: return bare || rb_is_atom(value) || Py_TYPE(value) == rb_terms.pid.type;
    default: return true;
    }
}

/* ---- making one */

static Py_ssize_t slot_of(PyTypeObject *type, PyObject *name) {
    PyObject *member = PyObject_GetAttr((PyObject *)type, name);
    if (member == NULL) return -1;
    Py_ssize_t slot = -1;
    if (Py_IS_TYPE(member, &PyMemberDescr_Type) &&
        ((PyMemberDescrObject *)member)->d_member->type == T_OBJECT_EX)
        slot = ((PyMemberDescrObject *)member)->d_member->offset;
    else
        PyErr_Format(PyExc_TypeError, "%s.%U is no slot", type->tp_name, name);
    Py_DECREF(member);
    return slot;
}

/* (class, ((attribute, kind), ...), {attribute: value}, flag) */
static int take_row(struct row *row, PyObject *described) {
    PyObject *type, *elements, *others;
    int flag;
    if (!PyArg_ParseTuple(described, "O!O!O!p", &PyType_Type, &type, &PyTuple_Type, &elements,
                          &PyDict_Type, &others, &flag))
        return -1;
    if (PyTuple_GET_SIZE(elements) > ELEMENTS_MAX || PyDict_GET_SIZE(others) > DEFAULTS_MAX) {
        PyErr_SetString(PyExc_ValueError, "a row is too long");
        return -1;
    }
    row->flag = flag != 0;
    row->type = (PyTypeObject *)Py_NewRef(type);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(elements); i++) {
        PyObject *name;
        int kind;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(elements, i), "Ui", &name, &kind)) return -1;
        if (kind < 0 || kind >= KINDS) {
            PyErr_Format(PyExc_ValueError, "%d is no kind", kind);
            return -1;
        }
        Py_ssize_t slot = -1;
        if (PyUnicode_GET_LENGTH(name) > 0 && (slot = slot_of(row->type, name)) < 0) return -1;
        row->elements[i].slot = slot;
        row->elements[i].kind = (enum kind)kind;
        row->arity++;
    }
    PyObject *name, *value;
    for (Py_ssize_t at = 0; PyDict_Next(others, &at, &name, &value);) {
        Py_ssize_t slot = slot_of(row->type, name);
        if (slot < 0) return -1;
        row->others[row->defaults].slot = slot;
        row->others[row->defaults++].value = Py_NewRef(value);
    }
    return 0;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *table, *number, *described;
    static char *names[] = {"", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!:TaggedReader", names, &PyDict_Type,
                                     &table))
        return NULL;
    struct reader *reader = (struct reader *)type->tp_alloc(type, 0);
    if (reader == NULL) return NULL;
    for (Py_ssize_t at = 0; PyDict_Next(table, &at, &number, &described);) {
        long n = PyLong_AsLong(number);
        if (n < 0 || n >= NUMBERS) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a number is 0..255");
            Py_DECREF(reader);
            return NULL;
        }
        if (take_row(&reader->rows[n], described) < 0) {
            Py_DECREF(reader);
            return NULL;
        }
    }
    return (PyObject *)reader;
}

static void reader_dealloc(PyObject *self) {
    struct reader *reader = (struct reader *)self;
    for (int n = 0; n < NUMBERS; n++) {
        struct row *row = &reader->rows[n];
        Py_XDECREF((PyObject *)row->type);
        for (int i = 0; i < row->defaults; i++) Py_DECREF(row->others[i].value);
    }
    Py_TYPE(self)->tp_free(self);
}

/* ---- reading */

/* The next element into its slot; false, with no exception that anybody should see, when it does
 * not fit. */
static bool take_element(struct rb_reader *r, PyObject *object, Py_ssize_t slot, enum kind kind) {
    PyObject *value = rb_decode_term(r);
    if (value == NULL) return false;
    if (!is_kind(value, kind)) {
        Py_DECREF(value);
        return false;
    }
    if (slot < 0)
        Py_DECREF(value);
    else
        *(PyObject **)(void *)((char *)object + slot) = value;
    return true;
}

static PyObject *read_row(const struct row *row, struct rb_reader *r) {
    PyObject *object = row->type->tp_alloc(row->type, 0);
    if (object == NULL) return NULL;
    for (int i = 0; i < row->defaults; i++)
        *(PyObject **)(void *)((char *)object + row->others[i].slot) =
            Py_NewRef(row->others[i].value);
    bool fits = true;
    for (int i = 0; fits && i < row->arity; i++)
        fits = take_element(r, object, row->elements[i].slot, row->elements[i].kind);
    if (fits && r->p == r->end) return object;
    Py_DECREF(object);
    return NULL;
}

static PyObject *reader_read(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read() takes bytes and a flag");
        return NULL;
    }
    struct rb_reader r = {.start = (const unsigned char *)PyBytes_AS_STRING(args[0])};
    r.p = r.start;
    r.end = r.start + PyBytes_GET_SIZE(args[0]);
    if (!rb_has(&r, 4) || r.p[0] != SMALL_TUPLE_EXT || r.p[2] != SMALL_INTEGER_EXT) Py_RETURN_NONE;
    const struct row *row = &((struct reader *)self)->rows[r.p[3]];
    if (row->type == NULL || r.p[1] != row->arity + 1 || (args[1] == Py_True) != row->flag)
        Py_RETURN_NONE;
    if (rb_limits_read(NULL, &r.limits) < 0) return NULL;
    r.limits.depth_max--; /* the tuple's own level and terms */
    r.terms = 2 + (uint64_t)row->arity;
    r.p += 4;
    PyObject *object = read_row(row, &r);
    if (object != NULL) return object;
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError)) return NULL;
    PyErr_Clear();
    Py_RETURN_NONE;
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_FASTCALL,
     "read(data, flag, /)\n--\n\n"
     "The object of the one bare tuple that data holds, or None: ask who knows why not."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject rb_tagged_reader_type = {
    .ob_base = {PyObject_HEAD_INIT(NULL) 0},
    .tp_name = "bridge.etf._codec.TaggedReader",
    .tp_doc =
        "TaggedReader({number: (class, ((attribute, kind), ...), {attribute: value}, flag)})\n\n"
        "Reads tuples that begin with a number. Kinds: 0 any term, 1 a pid, 2 a reference, 3 an\n"
        "atom, 4 a pid or an atom. An element whose attribute is \"\" is dropped. The class is\n"
        "built slot by slot, its __init__ is not called.",
    .tp_basicsize = sizeof(struct reader),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .tp_new = reader_new,
    .tp_dealloc = reader_dealloc,
    .tp_methods = reader_methods,
};
