/* write.c: the output buffer, and encoding of the terms that hold no other terms.
 *
 * No function here runs Python code before its last look at a term: elements are borrowed from
 * containers that a finalizer or another thread could change as soon as Python runs. (Raising an
 * error does run some; nothing is looked at after that.) */
#include "etf.h"

/* CPython 3.13 added a parameter. */
#if PY_VERSION_HEX >= 0x030D0000
#define long_to_bytes(number, bytes, size) \
    _PyLong_AsByteArray((PyLongObject *)(number), bytes, size, 1, 1, 1)
#else
#define long_to_bytes(number, bytes, size) \
    _PyLong_AsByteArray((PyLongObject *)(number), bytes, size, 1, 1)
#endif

int rb_writer_grow(struct rb_writer *w, size_t size) {
    size_t used = (size_t)(w->p - w->start);
    /* A large binary takes what it needs, small additions double. */
    size_t capacity = used + size + (size > used ? 256 : used);
    if (capacity > PY_SSIZE_T_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    if (w->bytes == NULL) {
        w->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
        if (w->bytes == NULL) return -1;
        memcpy(PyBytes_AS_STRING(w->bytes), w->start, used);
    } else if (_PyBytes_Resize(&w->bytes, (Py_ssize_t)capacity) < 0) {
        return -1;
    }
    w->start = (unsigned char *)PyBytes_AS_STRING(w->bytes);
    w->p = w->start + used;
    w->end = w->start + capacity;
    return 0;
}

int rb_refused(const char *rule, PyObject *term) {
    return rb_encode_error(rule, PyType_GetName(Py_TYPE(term)));
}

static int write_tag(struct rb_writer *w, unsigned char tag) {
    if (rb_room(w, 1) < 0) return -1;
    *w->p++ = tag;
    return 0;
}

static int write_bytes(struct rb_writer *w, const void *data, size_t size) {
    if (rb_room(w, size) < 0) return -1;
    memcpy(w->p, data, size);
    w->p += size;
    return 0;
}

/* ---- numbers */

/* Any int; two's complement first, which needs no second object for negative ones. */
static int write_bignum(struct rb_writer *w, PyObject *number) {
    size_t bits = _PyLong_NumBits(number);
    if (bits == (size_t)-1 && PyErr_Occurred()) return -1;
    size_t size = (bits + 7) / 8;
    if (size > w->limits.integer_bytes_max)
        return rb_encode_error("integer_size", PyLong_FromSize_t(size));
    if (rb_room(w, size + 7) < 0) return -1;
    unsigned char *p = w->p;
    if (size < 256) {
        *p++ = SMALL_BIG_EXT;
        *p++ = (unsigned char)size;
    } else {
        *p++ = LARGE_BIG_EXT;
        rb_put32(p, (uint32_t)size);
        p += 4;
    }
    unsigned char *digits = p + 1;
    if (long_to_bytes(number, digits, size + 1) < 0) return -1;
    bool negative = (digits[size] & 0x80) != 0;
    *p = negative;
    if (negative) {
        unsigned carry = 1;
        for (size_t i = 0; i < size; i++) {
            carry += digits[i] ^ 0xffu;
            digits[i] = (unsigned char)carry;
            carry >>= 8;
        }
    }
    w->p = digits + size;
    return 0;
}

static int write_long(struct rb_writer *w, PyObject *number) {
    int overflow = 0;
    long long value;
    if (!rb_compact(number, &value)) {
        value = PyLong_AsLongLongAndOverflow(number, &overflow);
        if (overflow != 0) return write_bignum(w, number);
    }
    if (rb_room(w, 11) < 0) return -1;
    unsigned char *p = rb_put_integer(w->p, value);
    if (p != NULL) {
        w->p = p;
        return 0;
    }
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    size_t size = (size_t)(71 - __builtin_clzll(magnitude)) / 8;
    if (size > w->limits.integer_bytes_max)
        return rb_encode_error("integer_size", PyLong_FromSize_t(size));
    p = w->p;
    p[0] = SMALL_BIG_EXT;
    p[1] = (unsigned char)size;
    p[2] = value < 0;
    memcpy(p + 3, &magnitude, 8);
    w->p = p + 3 + size;
    return 0;
}

static int write_float(struct rb_writer *w, PyObject *term) {
    uint64_t bits = rb_float_bits(term);
    if (!rb_is_finite(bits))
        return rb_encode_error("float", PyFloat_FromDouble(PyFloat_AS_DOUBLE(term)));
    if (rb_room(w, 9) < 0) return -1;
    *w->p = NEW_FLOAT_EXT;
    rb_put64(w->p + 1, bits);
    w->p += 9;
    return 0;
}

/* ---- binaries */

static int write_binary(struct rb_writer *w, const void *data, Py_ssize_t size) {
    if ((uint64_t)size > UINT32_MAX) return rb_encode_error("size", PyLong_FromSsize_t(size));
    if (rb_room(w, (size_t)size + 5) < 0) return -1;
    w->p[0] = BINARY_EXT;
    rb_put32(w->p + 1, (uint32_t)size);
    memcpy(w->p + 5, data, (size_t)size);
    w->p += 5 + size;
    return 0;
}

static int write_str(struct rb_writer *w, PyObject *term) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(term, &size);
    if (text != NULL) return write_binary(w, text, size);
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
    PyErr_Clear();
    return rb_encode_error("text", Py_NewRef(term));
}

static int write_memoryview(struct rb_writer *w, PyObject *term) {
    Py_buffer view;
    if (PyObject_GetBuffer(term, &view, PyBUF_SIMPLE) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) return -1;
        PyErr_Clear();
        return rb_refused("buffer", term);
    }
    int result = write_binary(w, view.buf, view.len);
    PyBuffer_Release(&view);
    return result;
}

/* ---- bridge.etf.terms; their constructors have checked the fields, but a slot can be empty or
 * forged */

static PyObject *slot(const struct rb_type *t, PyObject *o, int index) {
    return *rb_slot(t, o, index); /* borrowed; NULL if empty */
}

static int field_is_forged(PyObject *term) {
    PyErr_Clear();
    return rb_refused("field", term);
}

static int get_unsigned(PyObject *number, uint64_t max, uint64_t *out) {
    if (number == NULL || !PyLong_CheckExact(number)) return -1;
    *out = PyLong_AsUnsignedLongLong(number);
    return (*out == (uint64_t)-1 && PyErr_Occurred()) || *out > max ? -1 : 0;
}

int rb_write_name(struct rb_writer *w, PyObject *atom) {
    if (atom == NULL || !rb_is_atom(atom)) return -2;
    return write_bytes(w, ((struct rb_atom *)atom)->wire,
                       (size_t)((struct rb_atom *)atom)->wire_size);
}

static int write_pid(struct rb_writer *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.pid;
    uint64_t id, serial, creation;
    if (get_unsigned(slot(t, term, PID_ID), UINT32_MAX, &id) < 0 ||
        get_unsigned(slot(t, term, PID_SERIAL), UINT32_MAX, &serial) < 0 ||
        get_unsigned(slot(t, term, PID_CREATION), UINT32_MAX, &creation) < 0)
        return field_is_forged(term);
    if (write_tag(w, NEW_PID_EXT) < 0) return -1;
    int named = rb_write_name(w, slot(t, term, PID_NODE));
    if (named < 0) return named == -2 ? field_is_forged(term) : -1;
    if (rb_room(w, 12) < 0) return -1;
    rb_put32(w->p, (uint32_t)id);
    rb_put32(w->p + 4, (uint32_t)serial);
    rb_put32(w->p + 8, (uint32_t)creation);
    w->p += 12;
    return 0;
}

static int write_port(struct rb_writer *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.port;
    uint64_t id, creation;
    if (get_unsigned(slot(t, term, PORT_ID), UINT64_MAX, &id) < 0 ||
        get_unsigned(slot(t, term, PORT_CREATION), UINT32_MAX, &creation) < 0)
        return field_is_forged(term);
    bool wide = w->canonical || id >> NEW_PORT_ID_BITS != 0;
    if (write_tag(w, wide ? V4_PORT_EXT : NEW_PORT_EXT) < 0) return -1;
    int named = rb_write_name(w, slot(t, term, PORT_NODE));
    if (named < 0) return named == -2 ? field_is_forged(term) : -1;
    if (rb_room(w, 12) < 0) return -1;
    if (wide) {
        rb_put64(w->p, id);
        w->p += 8;
    } else {
        rb_put32(w->p, (uint32_t)id);
        w->p += 4;
    }
    rb_put32(w->p, (uint32_t)creation);
    w->p += 4;
    return 0;
}

static int write_reference(struct rb_writer *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.reference;
    PyObject *words = slot(t, term, REFERENCE_WORDS);
    uint64_t creation, numbers[REFERENCE_WORDS_MAX];
    if (words == NULL || !PyTuple_CheckExact(words) || PyTuple_GET_SIZE(words) < 1 ||
        PyTuple_GET_SIZE(words) > REFERENCE_WORDS_MAX ||
        get_unsigned(slot(t, term, REFERENCE_CREATION), UINT32_MAX, &creation) < 0)
        return field_is_forged(term);
    size_t count = (size_t)PyTuple_GET_SIZE(words);
    for (size_t i = 0; i < count; i++)
        if (get_unsigned(PyTuple_GET_ITEM(words, (Py_ssize_t)i), UINT32_MAX, &numbers[i]) < 0)
            return field_is_forged(term);
    if (rb_room(w, 3) < 0) return -1;
    w->p[0] = NEWER_REFERENCE_EXT;
    rb_put16(w->p + 1, (uint16_t)count);
    w->p += 3;
    int named = rb_write_name(w, slot(t, term, REFERENCE_NODE));
    if (named < 0) return named == -2 ? field_is_forged(term) : -1;
    if (rb_room(w, 4 + 4 * count) < 0) return -1;
    rb_put32(w->p, (uint32_t)creation);
    w->p += 4;
    for (size_t i = 0; i < count; i++, w->p += 4) rb_put32(w->p, (uint32_t)numbers[i]);
    return 0;
}

static int write_fun(struct rb_writer *w, PyObject *term) {
    PyObject *raw = slot(&rb_terms.fun, term, FUN_RAW);
    if (raw == NULL || !PyBytes_CheckExact(raw) || PyBytes_GET_SIZE(raw) < 1 ||
        (unsigned char)PyBytes_AS_STRING(raw)[0] != NEW_FUN_EXT)
        return field_is_forged(term);
    return write_bytes(w, PyBytes_AS_STRING(raw), (size_t)PyBytes_GET_SIZE(raw));
}

static int write_export(struct rb_writer *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.export;
    uint64_t arity;
    if (get_unsigned(slot(t, term, EXPORT_ARITY), 255, &arity) < 0) return field_is_forged(term);
    if (write_tag(w, EXPORT_EXT) < 0) return -1;
    int named = rb_write_name(w, slot(t, term, EXPORT_MODULE));
    if (named == 0) named = rb_write_name(w, slot(t, term, EXPORT_FUNCTION));
    if (named < 0) return named == -2 ? field_is_forged(term) : -1;
    const unsigned char tail[] = {SMALL_INTEGER_EXT, (unsigned char)arity};
    return write_bytes(w, tail, sizeof tail);
}

static int write_bits(struct rb_writer *w, PyObject *term) {
    const struct rb_type *t = &rb_terms.bits;
    PyObject *data = slot(t, term, BITS_DATA);
    uint64_t bits;
    if (get_unsigned(slot(t, term, BITS_BITS), 7, &bits) < 0 || bits == 0 || data == NULL ||
        !PyBytes_CheckExact(data) || PyBytes_GET_SIZE(data) == 0)
        return field_is_forged(term);
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    if ((uint64_t)size > UINT32_MAX) return rb_encode_error("size", PyLong_FromSsize_t(size));
    if (rb_room(w, 6) < 0) return -1;
    w->p[0] = BIT_BINARY_EXT;
    rb_put32(w->p + 1, (uint32_t)size);
    w->p[5] = (unsigned char)bits;
    w->p += 6;
    return write_bytes(w, PyBytes_AS_STRING(data), (size_t)size);
}

int rb_write_leaf(struct rb_writer *w, PyObject *term) {
    const PyTypeObject *t = Py_TYPE(term);
    const unsigned long containers =
        Py_TPFLAGS_TUPLE_SUBCLASS | Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS;
    int result;
    if (t->tp_flags & containers) return 0;
    if (PyLong_Check(term) && !PyBool_Check(term)) {
        result = write_long(w, term);
    } else if (PyBytes_Check(term)) {
        result = write_binary(w, PyBytes_AS_STRING(term), PyBytes_GET_SIZE(term));
    } else if (PyUnicode_Check(term)) {
        result = write_str(w, term);
    } else if (PyFloat_Check(term)) {
        result = write_float(w, term);
    } else if (rb_is_atom(term)) {
        result = rb_write_name(w, term);
    } else if (term == Py_None) {
        result = write_bytes(w, rb_nil, RB_NIL_SIZE);
    } else if (term == Py_True) {
        result = write_bytes(w, rb_true, RB_TRUE_SIZE);
    } else if (term == Py_False) {
        result = write_bytes(w, rb_false, RB_FALSE_SIZE);
    } else if (t == rb_terms.pid.type) {
        result = write_pid(w, term);
    } else if (t == rb_terms.reference.type) {
        result = write_reference(w, term);
    } else if (t == rb_terms.improper.type || t == rb_terms.map.type || t == rb_terms.record.type) {
        return 0;
    } else if (t == rb_terms.port.type) {
        result = write_port(w, term);
    } else if (t == rb_terms.bits.type) {
        result = write_bits(w, term);
    } else if (t == rb_terms.fun.type) {
        result = write_fun(w, term);
    } else if (t == rb_terms.export.type) {
        result = write_export(w, term);
    } else if (PyByteArray_Check(term)) {
        result = write_binary(w, PyByteArray_AS_STRING(term), PyByteArray_GET_SIZE(term));
    } else if (PyMemoryView_Check(term)) {
        result = write_memoryview(w, term);
    } else {
        result = rb_refused("type", term);
    }
    return result < 0 ? -1 : 1;
}
