/* leaves.c: decoding of the terms that hold no other terms, and of the heads of funs and records.
 *
 * Order of checks, the same in the Python reference because errors are compared too: fixed fields
 * present, then what they say, then the names, then the rest present, then what it says. Names
 * report their own place. */
#include "etf.h"

PyObject *rb_broken(struct rb_reader *r, const char *rule, const unsigned char *at,
                    uint64_t value) {
    return rb_decode_error(rule, at - r->start, PyLong_FromUnsignedLongLong(value));
}

PyObject *rb_truncated(struct rb_reader *r, const unsigned char *at) {
    PyObject *tag = at < r->end ? PyLong_FromLong(*at) : Py_NewRef(Py_None);
    return rb_decode_error("truncated", at - r->start, tag);
}

static PyObject *broken_bytes(struct rb_reader *r, const char *rule, const unsigned char *at,
                              const unsigned char *bytes, Py_ssize_t size) {
    return rb_decode_error(rule, at - r->start,
                           PyBytes_FromStringAndSize((const char *)bytes, size));
}

/* ---- atoms */

static struct rb_atom *atom_failed(struct rb_reader *r, const unsigned char *at,
                                   const unsigned char *text, size_t size) {
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        rb_broken(r, "atom_utf8", at, size);
    } else if (PyErr_ExceptionMatches(PyExc_ValueError)) {
        uint64_t characters = 0;
        for (size_t i = 0; i < size; i++) characters += (text[i] & 0xc0) != 0x80;
        PyErr_Clear();
        rb_broken(r, "atom_length", at, characters);
    }
    return NULL;
}

static struct rb_atom *latin1_atom(struct rb_reader *r, const unsigned char *at,
                                   const unsigned char *text, size_t size) {
    if (size > ATOM_CHARACTERS_MAX) {
        rb_broken(r, "atom_length", at, size);
        return NULL;
    }
    PyObject *name = PyUnicode_DecodeLatin1((const char *)text, (Py_ssize_t)size, NULL);
    if (name == NULL) return NULL;
    struct rb_atom *atom = rb_atom_from_str(name);
    Py_DECREF(name);
    return atom;
}

/* The atom whose tag, one of the five, stands at `at`; r->p stands after it. */
static struct rb_atom *read_atom(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    size_t head = tag == ATOM_EXT || tag == ATOM_UTF8_EXT ? 2 : 1;
    if (!rb_has(r, head)) {
        rb_truncated(r, at);
        return NULL;
    }
    size_t size = head == 2 ? rb_get16(r->p) : r->p[0];
    r->p += head;
    if (tag == ATOM_CACHE_REF) {
        if (r->atoms == NULL || (Py_ssize_t)size >= PyTuple_GET_SIZE(r->atoms)) {
            rb_broken(r, "atom_cache", at, size);
            return NULL;
        }
        r->cache_refs++;
        return (struct rb_atom *)Py_NewRef(PyTuple_GET_ITEM(r->atoms, (Py_ssize_t)size));
    }
    if (!rb_has(r, size)) {
        rb_truncated(r, at);
        return NULL;
    }
    const unsigned char *text = r->p;
    r->p += size;
    if (tag == ATOM_EXT || tag == SMALL_ATOM_EXT) return latin1_atom(r, at, text, size);
    struct rb_atom *atom = rb_atom_from_utf8(text, (Py_ssize_t)size);
    return atom != NULL ? atom : atom_failed(r, at, text, size);
}

struct rb_atom *rb_read_name(struct rb_reader *r) {
    const unsigned char *at = r->p;
    if (!rb_has(r, 1)) {
        rb_truncated(r, at);
        return NULL;
    }
    switch (*at) {
    case SMALL_ATOM_UTF8_EXT:
    case ATOM_UTF8_EXT:
    case SMALL_ATOM_EXT:
    case ATOM_EXT:
    case ATOM_CACHE_REF: r->p++; return read_atom(r, *at, at);
    default: rb_broken(r, "atom_expected", at, *at); return NULL;
    }
}

static PyObject *read_atom_value(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    struct rb_atom *atom = read_atom(r, tag, at);
    if (atom == NULL || atom->value == (PyObject *)atom) return (PyObject *)atom;
    PyObject *value = Py_NewRef(atom->value);
    Py_DECREF(atom);
    return value;
}

/* ---- numbers */

PyObject *rb_read_bignum(struct rb_reader *r, size_t size, const unsigned char *at) {
    if (!rb_has(r, size + 1)) return rb_truncated(r, at);
    if (size > r->limits.integer_bytes_max) return rb_broken(r, "integer_size", at, size);
    bool negative = r->p[0] != 0;
    const unsigned char *digits = r->p + 1;
    r->p += size + 1;
    if (size <= 8) {
        uint64_t magnitude = 0;
        for (size_t i = 0; i < size; i++) magnitude |= (uint64_t)digits[i] << (8 * i);
        if (!negative) return PyLong_FromUnsignedLongLong(magnitude);
        if (magnitude <= INT64_MAX) return PyLong_FromLongLong(-(int64_t)magnitude);
    }
    PyObject *magnitude = _PyLong_FromByteArray(digits, size, 1, 0);
    if (magnitude == NULL || !negative) return magnitude;
    PyObject *number = PyNumber_Negative(magnitude);
    Py_DECREF(magnitude);
    return number;
}

static PyObject *read_big(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    size_t head = tag == SMALL_BIG_EXT ? 1 : 4;
    if (!rb_has(r, head)) return rb_truncated(r, at);
    size_t size = tag == SMALL_BIG_EXT ? r->p[0] : rb_get32(r->p);
    r->p += head;
    return rb_read_bignum(r, size, at);
}

static PyObject *read_float(struct rb_reader *r, const unsigned char *at) {
    if (!rb_has(r, 8)) return rb_truncated(r, at);
    const uint64_t exponent = UINT64_C(0x7ff) << 52;
    uint64_t bits = rb_get64(r->p);
    r->p += 8;
    if ((bits & exponent) == exponent) return broken_bytes(r, "float", at, at + 1, 8);
    double value;
    memcpy(&value, &bits, 8);
    return PyFloat_FromDouble(value);
}

static PyObject *read_text_float(struct rb_reader *r, const unsigned char *at) {
    if (!rb_has(r, 31)) return rb_truncated(r, at);
    r->p += 31;
    PyObject *value = PyObject_CallFunction(rb_terms.text_float, "y#", at + 1, (Py_ssize_t)31);
    if (value != Py_None) return value;
    Py_DECREF(value);
    return broken_bytes(r, "float", at, at + 1, 31);
}

/* A small integer that is part of an export or a fun. Its tag is 97, or also 98 if `wide`. */
static PyObject *read_integer(struct rb_reader *r, bool wide) {
    const unsigned char *at = r->p;
    if (!rb_has(r, 1)) return rb_truncated(r, at);
    if (*at != SMALL_INTEGER_EXT && !(wide && *at == INTEGER_EXT))
        return rb_broken(r, "integer_expected", at, *at);
    size_t size = *at == SMALL_INTEGER_EXT ? 1 : 4;
    r->p++;
    if (!rb_has(r, size)) return rb_truncated(r, at);
    long value = size == 1 ? r->p[0] : (int32_t)rb_get32(r->p);
    r->p += size;
    return PyLong_FromLong(value);
}

/* ---- pids, ports, references, exports, bitstrings */

/* An object of `t` from `count` field values, which it takes over; NULL if one of them is NULL. */
static PyObject *build(const struct rb_type *t, PyObject *const *values, int count) {
    bool complete = true;
    for (int i = 0; i < count; i++) complete = complete && values[i] != NULL;
    PyObject *o = complete ? rb_term_new(t) : NULL;
    for (int i = 0; i < count; i++) {
        if (o != NULL)
            *rb_slot(t, o, i) = values[i];
        else
            Py_XDECREF(values[i]);
    }
    return o;
}

/* Read the node's name, then see that `size` bytes follow, the last of which is the creation: one
 * byte and at most 3 in the old tags, four bytes in the new ones. NULL with an exception. */
static struct rb_atom *read_node(struct rb_reader *r, const unsigned char *at, size_t size,
                                 size_t creation_at, bool short_creation) {
    struct rb_atom *node = rb_read_name(r);
    if (node == NULL) return NULL;
    if (!rb_has(r, size)) {
        rb_truncated(r, at);
    } else if (short_creation && r->p[creation_at] > SHORT_CREATION_MAX) {
        rb_broken(r, "creation", at, r->p[creation_at]);
    } else {
        return node;
    }
    Py_DECREF(node);
    return NULL;
}

static PyObject *read_pid(struct rb_reader *r, bool old, const unsigned char *at) {
    struct rb_atom *node = read_node(r, at, old ? 9 : 12, 8, old);
    if (node == NULL) return NULL;
    const unsigned char *p = r->p;
    r->p += old ? 9 : 12;
    PyObject *fields[] = {
        [PID_NODE] = (PyObject *)node,
        [PID_ID] = PyLong_FromUnsignedLong(rb_get32(p)),
        [PID_SERIAL] = PyLong_FromUnsignedLong(rb_get32(p + 4)),
        [PID_CREATION] = PyLong_FromUnsignedLong(old ? p[8] : rb_get32(p + 8)),
    };
    return build(&rb_terms.pid, fields, 4);
}

static PyObject *read_port(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    bool old = tag == PORT_EXT;
    size_t id_size = tag == V4_PORT_EXT ? 8 : 4, size = id_size + (old ? 1 : 4);
    struct rb_atom *node = read_node(r, at, size, id_size, old);
    if (node == NULL) return NULL;
    const unsigned char *p = r->p;
    r->p += size;
    PyObject *fields[] = {
        [PORT_NODE] = (PyObject *)node,
        [PORT_ID] = PyLong_FromUnsignedLongLong(id_size == 8 ? rb_get64(p) : rb_get32(p)),
        [PORT_CREATION] = PyLong_FromUnsignedLong(old ? p[id_size] : rb_get32(p + id_size)),
    };
    return build(&rb_terms.port, fields, 3);
}

static PyObject *reference_words(const unsigned char *p, size_t count) {
    PyObject *words = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; words != NULL && i < count; i++) {
        PyObject *word = PyLong_FromUnsignedLong(rb_get32(p + 4 * i));
        if (word == NULL)
            Py_CLEAR(words);
        else
            PyTuple_SET_ITEM(words, (Py_ssize_t)i, word);
    }
    return words;
}

static PyObject *read_reference(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    size_t count = 1;
    if (tag != REFERENCE_EXT) {
        if (!rb_has(r, 2)) return rb_truncated(r, at);
        count = rb_get16(r->p);
        r->p += 2;
        if (count < 1 || count > REFERENCE_WORDS_MAX)
            return rb_broken(r, "reference_words", at, count);
    }
    bool old = tag != NEWER_REFERENCE_EXT;
    size_t size = 4 * count + (old ? 1 : 4);
    size_t creation_at = tag == REFERENCE_EXT ? 4 : 0; /* the oldest form has it last */
    struct rb_atom *node = read_node(r, at, size, creation_at, old);
    if (node == NULL) return NULL;
    const unsigned char *p = r->p;
    const unsigned char *words = tag == REFERENCE_EXT ? p : p + (old ? 1 : 4);
    r->p += size;
    PyObject *fields[] = {
        [REFERENCE_NODE] = (PyObject *)node,
        [REFERENCE_CREATION] = PyLong_FromUnsignedLong(old ? p[creation_at] : rb_get32(p)),
        [REFERENCE_WORDS] = reference_words(words, count),
    };
    return build(&rb_terms.reference, fields, 3);
}

static PyObject *read_export(struct rb_reader *r) {
    PyObject *fields[3] = {NULL, NULL, NULL};
    fields[EXPORT_MODULE] = (PyObject *)rb_read_name(r);
    if (fields[EXPORT_MODULE] != NULL) fields[EXPORT_FUNCTION] = (PyObject *)rb_read_name(r);
    if (fields[EXPORT_FUNCTION] != NULL) fields[EXPORT_ARITY] = read_integer(r, false);
    return build(&rb_terms.export, fields, 3);
}

static PyObject *read_bits(struct rb_reader *r, const unsigned char *at) {
    if (!rb_has(r, 5)) return rb_truncated(r, at);
    size_t size = rb_get32(r->p);
    unsigned bits = r->p[4];
    r->p += 5;
    if (!rb_has(r, size)) return rb_truncated(r, at);
    if (size == 0 || bits < 1 || bits > 8) return rb_broken(r, "bits", at, bits);
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (data == NULL) return NULL;
    char *bytes = PyBytes_AS_STRING(data);
    memcpy(bytes, r->p, size);
    r->p += size;
    if (bits == 8) return data;
    /* The bits below say nothing; a BitString has zeros there, so that equal ones compare equal. */
    bytes[size - 1] = (char)(bytes[size - 1] & 0xff << (8 - bits));
    PyObject *fields[] = {[BITS_DATA] = data, [BITS_BITS] = PyLong_FromLong((long)bits)};
    return build(&rb_terms.bits, fields, 2);
}

/* ---- heads of funs and records */

PyObject *rb_read_fun_head(struct rb_reader *r, const unsigned char *at, uint32_t *free_count) {
    /* size u32 (not trusted) | arity u8 | uniq 16 | index u32 | free_count u32
     * | module | old_index | old_uniq | pid */
    if (!rb_has(r, 29)) return rb_truncated(r, at);
    const unsigned char *p = r->p;
    *free_count = rb_get32(p + 25);
    if (*free_count > FREE_VARIABLES_MAX) return rb_broken(r, "free_variables", at, *free_count);
    r->p += 29;
    PyObject *fields[8] = {NULL};
    fields[FUN_RAW] = Py_NewRef(Py_None); /* set when the free variables have been read */
    fields[FUN_ARITY] = PyLong_FromLong(p[4]);
    fields[FUN_UNIQ] = PyBytes_FromStringAndSize((const char *)p + 5, 16);
    fields[FUN_INDEX] = PyLong_FromUnsignedLong(rb_get32(p + 21));
    fields[FUN_MODULE] = (PyObject *)rb_read_name(r);
    if (fields[FUN_MODULE] != NULL) fields[FUN_OLD_INDEX] = read_integer(r, true);
    if (fields[FUN_OLD_INDEX] != NULL) fields[FUN_OLD_UNIQ] = read_integer(r, true);
    if (fields[FUN_OLD_UNIQ] != NULL) {
        const unsigned char *pid_at = r->p;
        if (!rb_has(r, 1)) {
            rb_truncated(r, pid_at);
        } else if (*pid_at != NEW_PID_EXT && *pid_at != PID_EXT) {
            rb_broken(r, "pid_expected", pid_at, *pid_at);
        } else {
            r->p++;
            fields[FUN_PID] = read_pid(r, *pid_at == PID_EXT, pid_at);
        }
    }
    return build(&rb_terms.fun, fields, 8);
}

PyObject *rb_read_record_head(struct rb_reader *r, const unsigned char *at, uint32_t *count) {
    /* count u32 | flags u8 | module | name | count x field | count x value */
    if (!rb_has(r, 5)) return rb_truncated(r, at);
    unsigned char flags = r->p[4];
    *count = rb_get32(r->p);
    r->p += 5;
    if ((uint64_t)*count * 2 > (size_t)(r->end - r->p)) return rb_broken(r, "count", at, *count);
    r->terms += (uint64_t)*count * 2;
    if (r->terms > r->limits.terms_max) return rb_broken(r, "terms", at, r->limits.terms_max);
    PyObject *fields[5] = {NULL};
    fields[RECORD_FLAGS] = PyLong_FromLong(flags);
    fields[RECORD_MODULE] = (PyObject *)rb_read_name(r);
    if (fields[RECORD_MODULE] != NULL) fields[RECORD_NAME] = (PyObject *)rb_read_name(r);
    if (fields[RECORD_NAME] != NULL) fields[RECORD_FIELDS] = PyTuple_New(*count);
    for (uint32_t i = 0; fields[RECORD_FIELDS] != NULL && i < *count; i++) {
        struct rb_atom *field = rb_read_name(r);
        if (field == NULL)
            Py_CLEAR(fields[RECORD_FIELDS]);
        else
            PyTuple_SET_ITEM(fields[RECORD_FIELDS], i, (PyObject *)field);
    }
    if (fields[RECORD_FIELDS] != NULL) fields[RECORD_VALUES] = PyTuple_New(*count);
    return build(&rb_terms.record, fields, 5);
}

PyObject *rb_read_leaf(struct rb_reader *r, unsigned char tag, const unsigned char *at) {
    switch (tag) {
    case NEW_FLOAT_EXT: return read_float(r, at);
    case FLOAT_EXT: return read_text_float(r, at);
    case SMALL_BIG_EXT:
    case LARGE_BIG_EXT: return read_big(r, tag, at);
    case SMALL_ATOM_UTF8_EXT:
    case ATOM_UTF8_EXT:
    case SMALL_ATOM_EXT:
    case ATOM_EXT:
    case ATOM_CACHE_REF: return read_atom_value(r, tag, at);
    case NEW_PID_EXT: return read_pid(r, false, at);
    case PID_EXT: return read_pid(r, true, at);
    case NEW_PORT_EXT:
    case V4_PORT_EXT:
    case PORT_EXT: return read_port(r, tag, at);
    case NEWER_REFERENCE_EXT:
    case NEW_REFERENCE_EXT:
    case REFERENCE_EXT: return read_reference(r, tag, at);
    case EXPORT_EXT: return read_export(r);
    case BIT_BINARY_EXT: return read_bits(r, at);
    case COMPRESSED: return rb_broken(r, "compressed", at, tag);
    default: return rb_broken(r, "tag", at, tag);
    }
}
