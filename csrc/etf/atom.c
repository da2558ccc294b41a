/* atom.c: the Atom type, and the bounded table of atoms seen lately.
 *
 * An atom carries its wire form and its hash, so that encoding copies bytes and dict lookups call
 * no Python. The table is direct-mapped: a new atom takes over the slot of an old one, so whatever
 * peers invent it holds at most RB_ATOM_TABLE_SLOTS atoms of at most 255 bytes. Being in the table
 * is no part of an atom's meaning: two Atom objects of one text may exist and are equal. Atom has
 * no cycle collector support on purpose: it holds one str, and dicts and tuples of atoms stay out
 * of the collector's way. */
#include "etf.h"

struct rb_atom *rb_atom_table[RB_ATOM_TABLE_SLOTS];

static PyObject *value_of(struct rb_atom *atom) {
    static const struct {
        const char *text;
        PyObject *value;
    } special[] = {{"true", Py_True}, {"false", Py_False}, {"nil", Py_None}};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        if (PyUnicode_CompareWithASCIIString(atom->name, special[i].text) == 0)
            return special[i].value;
    }
    return (PyObject *)atom;
}

/* `name` is taken over. */
static struct rb_atom *atom_new(PyObject *name, const unsigned char *text, Py_ssize_t size) {
    if (PyUnicode_GET_LENGTH(name) > ATOM_CHARACTERS_MAX) {
        PyErr_Format(PyExc_ValueError, "an atom has at most %d characters, not %zd",
                     ATOM_CHARACTERS_MAX, PyUnicode_GET_LENGTH(name));
        Py_DECREF(name);
        return NULL;
    }
    Py_hash_t hash = PyObject_Hash(name);
    Py_ssize_t head = size <= 255 ? 2 : 3;
    Py_ssize_t padded = (head + size + RB_CHUNK - 1) / RB_CHUNK * RB_CHUNK;
    struct rb_atom *atom =
        hash == -1 ? NULL : PyObject_NewVar(struct rb_atom, &rb_atom_type, padded);
    if (atom == NULL) {
        Py_DECREF(name);
        return NULL;
    }
    hash ^=
        0x61746f6d; /* else a dict of str and Atom keys of the same texts would collide each time */
    atom->hash = hash == -1 ? -2 : hash;
    atom->name = name;
    atom->value = value_of(atom);
    if (head == 2) {
        atom->wire[0] = SMALL_ATOM_UTF8_EXT;
        atom->wire[1] = (unsigned char)size;
    } else {
        atom->wire[0] = ATOM_UTF8_EXT;
        rb_put16(atom->wire + 1, (uint16_t)size);
    }
    memcpy(atom->wire + head, text, (size_t)size);
    atom->wire_size = head + size;
    memset(atom->wire + atom->wire_size, 0, (size_t)(padded - atom->wire_size));
    if (head == 2) {
        struct rb_atom **slot = rb_atom_slot(text, (size_t)size);
        struct rb_atom *old = *slot;
        Py_INCREF(atom);
        *slot = atom;
        Py_XDECREF(old);
    }
    return atom;
}

struct rb_atom *rb_atom_from_utf8(const unsigned char *text, Py_ssize_t size) {
    if (size <= 255) {
        struct rb_atom *known = rb_atom_cached(text, (size_t)size);
        if (known != NULL) {
            Py_INCREF(known);
            return known;
        }
    }
    PyObject *name = PyUnicode_DecodeUTF8((const char *)text, size, NULL);
    return name == NULL ? NULL : atom_new(name, text, size);
}

struct rb_atom *rb_atom_from_str(PyObject *name) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == NULL) return NULL;
    if (size <= 255) {
        struct rb_atom *known = rb_atom_cached((const unsigned char *)text, (size_t)size);
        if (known != NULL) {
            Py_INCREF(known);
            return known;
        }
    }
    if (PyUnicode_CheckExact(name)) {
        Py_INCREF(name);
    } else { /* a StrEnum member, for instance: keep the text only */
        name = PyUnicode_FromObject(name);
        if (name == NULL) return NULL;
        text = PyUnicode_AsUTF8AndSize(name, &size);
        if (text == NULL) {
            Py_DECREF(name);
            return NULL;
        }
    }
    return atom_new(name, (const unsigned char *)text, size);
}

/* ---- the type */

static PyObject *atom_from_argument(PyObject *name) {
    if (!PyUnicode_Check(name))
        return PyErr_Format(PyExc_TypeError, "Atom takes a str, not %.80s", Py_TYPE(name)->tp_name);
    return (PyObject *)rb_atom_from_str(name);
}

static PyObject *atom_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)type;
    PyObject *name;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Atom takes no keyword arguments");
        return NULL;
    }
    return PyArg_ParseTuple(args, "O:Atom", &name) ? atom_from_argument(name) : NULL;
}

static PyObject *atom_vectorcall(PyObject *type, PyObject *const *args, size_t flags,
                                 PyObject *keywords) {
    (void)type;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != 1 || (keywords != NULL && PyTuple_GET_SIZE(keywords) > 0))
        return PyErr_Format(PyExc_TypeError, "Atom takes one str and no keyword arguments");
    return atom_from_argument(args[0]);
}

static void atom_dealloc(PyObject *self) {
    Py_DECREF(((struct rb_atom *)self)->name);
    PyObject_Free(self);
}

static Py_hash_t atom_hash(PyObject *self) { return ((struct rb_atom *)self)->hash; }

static PyObject *atom_compare(PyObject *left, PyObject *right, int op) {
    if (!rb_is_atom(left) || !rb_is_atom(right)) Py_RETURN_NOTIMPLEMENTED;
    const struct rb_atom *a = (struct rb_atom *)left, *b = (struct rb_atom *)right;
    if (op == Py_EQ || op == Py_NE) {
        bool same = a == b || (a->hash == b->hash && a->wire_size == b->wire_size &&
                               memcmp(a->wire, b->wire, (size_t)a->wire_size) == 0);
        return PyBool_FromLong(same == (op == Py_EQ));
    }
    int order = PyUnicode_Compare(a->name, b->name); /* by code points, as Erlang does */
    if (order == -1 && PyErr_Occurred()) return NULL;
    Py_RETURN_RICHCOMPARE(order, 0, op);
}

static PyObject *atom_str(PyObject *self) {
    PyObject *name = ((struct rb_atom *)self)->name;
    Py_INCREF(name);
    return name;
}

static PyObject *atom_repr(PyObject *self) {
    PyObject *name = ((struct rb_atom *)self)->name;
    if (rb_terms.atom_repr == NULL) return PyUnicode_FromFormat(":%R", name);
    return PyObject_CallOneArg(rb_terms.atom_repr, name);
}

static PyObject *atom_get_name(PyObject *self, void *closure) {
    (void)closure;
    return atom_str(self);
}

static PyObject *atom_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    return Py_BuildValue("O(O)", &rb_atom_type, ((struct rb_atom *)self)->name);
}

static PyGetSetDef atom_attributes[] = {
    {"name", atom_get_name, NULL, "the text", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef atom_methods[] = {
    {"__reduce__", atom_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject rb_atom_type = {
    .ob_base = {PyObject_HEAD_INIT(NULL) 0},
    .tp_name = "bridge.etf.Atom",
    .tp_doc = "Atom(text): an Erlang atom. Not equal to a str; ordered by its text, as in Erlang.",
    .tp_basicsize = offsetof(struct rb_atom, wire),
    .tp_itemsize = 1,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .tp_new = atom_tp_new,
    .tp_vectorcall = atom_vectorcall,
    .tp_dealloc = atom_dealloc,
    .tp_hash = atom_hash,
    .tp_richcompare = atom_compare,
    .tp_str = atom_str,
    .tp_repr = atom_repr,
    .tp_getset = atom_attributes,
    .tp_methods = atom_methods,
};
