/* etf.h: what the codec's files share: the term types, limits, errors, big-endian bytes.
 *
 * module.c   the Python functions and their arguments
 * decode.c   the walk over received bytes; leaves.c: the terms that hold no other terms
 * encode.c   the walk over a term; write.c: the terms that hold no other terms
 * probe.c    keys that were chosen to be slow to find
 * map.c      dict or Map, refusing keys that are there twice, canonical order
 * atom.c     the Atom type and its bounded table
 * terms.c    the other types: their slots; limits, errors
 * byvalue.c  equality and hash of pids, ports and references
 * tagged.c   tuples that begin with a number, straight into objects
 *
 * All functions need the GIL. Those that return PyObject * give a new reference, or NULL with an
 * exception set; those that return int give 0, or -1 with an exception set, unless they say
 * otherwise. */
#ifndef RINGBRIDGE_ETF_H
#define RINGBRIDGE_ETF_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tags.h"

/* Calls between our own files need no jump table, and our names are no one else's business. */
#pragma GCC visibility push(hidden)

#define rb_likely(x) __builtin_expect(!!(x), 1)
#define rb_unlikely(x) __builtin_expect(!!(x), 0)

/* ---- atom.c */

enum { RB_CHUNK = 16 }; /* wire forms of atoms are compared and copied in pieces of this size */

struct rb_atom {
    PyObject_VAR_HEAD /* ob_size: bytes of wire, its padding included */
        Py_hash_t hash;
    PyObject *name;       /* str */
    PyObject *value;      /* borrowed: True, False or None for their atoms, else this atom itself */
    Py_ssize_t wire_size; /* without the padding */
    unsigned char
        wire[]; /* tag, length, UTF-8 text: what is sent; zeros up to a multiple of RB_CHUNK */
};

extern PyTypeObject rb_atom_type;

#define rb_is_atom(o) (Py_TYPE(o) == &rb_atom_type)

/* The atom of `size` bytes of UTF-8. NULL with UnicodeDecodeError, or with ValueError when above
 * 255 characters. */
struct rb_atom *rb_atom_from_utf8(const unsigned char *text, Py_ssize_t size);
struct rb_atom *rb_atom_from_str(PyObject *name);

enum { RB_ATOM_TABLE_SLOTS = 2048 };

extern struct rb_atom *rb_atom_table[RB_ATOM_TABLE_SLOTS];

static inline uint64_t rb_word(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* 1 to 8 bytes as one number, without reading past them and without a loop. */
static inline uint64_t rb_short_word(const unsigned char *p, size_t size) {
    if (size == 8) return rb_word(p);
    if (size >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + size - 4, 4);
        return (uint64_t)high << 32 | low;
    }
    return size == 0 ? 0 : (uint64_t)p[0] << 16 | (uint64_t)p[size >> 1] << 8 | p[size - 1];
}

/* The slot of a text of 0 to 255 bytes. A multiply per eight bytes, as in wyhash: only the spread
 * depends on it. */
static inline struct rb_atom **rb_atom_slot(const unsigned char *text, size_t size) {
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = size * odd;
    for (; size > 8; text += 8, size -= 8) {
        h = (h ^ rb_word(text)) * odd;
        h ^= h >> 32;
    }
    h = (h ^ rb_short_word(text, size)) * odd;
    return &rb_atom_table[(h >> 32) % RB_ATOM_TABLE_SLOTS];
}

static inline bool rb_same_text(const unsigned char *a, const unsigned char *b, size_t size) {
    for (; size > 8; a += 8, b += 8, size -= 8)
        if (rb_word(a) != rb_word(b)) return false;
    return rb_short_word(a, size) == rb_short_word(b, size);
}

/* The same atom from those seen lately, a borrowed reference; NULL (no exception) when it is not
 * there. size <= 255. */
static inline struct rb_atom *rb_atom_cached(const unsigned char *text, size_t size) {
    struct rb_atom *atom = *rb_atom_slot(text, size);
    if (atom == NULL || (size_t)atom->wire_size != size + 2) return NULL;
    return rb_same_text(atom->wire + 2, text, size) ? atom : NULL;
}

/* ---- terms.c: the Python types of bridge/etf/terms.py, built and read through the offsets of
 * their slots */

enum { SLOTS_MAX = 8 };

struct rb_type {
    PyTypeObject *type;
    Py_ssize_t slots[SLOTS_MAX]; /* offsets, in the order of the enums below */
};

enum { PID_NODE, PID_ID, PID_SERIAL, PID_CREATION };
enum { PORT_NODE, PORT_ID, PORT_CREATION };
enum { REFERENCE_NODE, REFERENCE_CREATION, REFERENCE_WORDS };
enum { FUN_RAW, FUN_MODULE, FUN_ARITY, FUN_UNIQ, FUN_INDEX, FUN_OLD_INDEX, FUN_OLD_UNIQ, FUN_PID };
enum { EXPORT_MODULE, EXPORT_FUNCTION, EXPORT_ARITY };
enum { IMPROPER_ELEMENTS, IMPROPER_TAIL };
enum { BITS_DATA, BITS_BITS };
enum { RECORD_MODULE, RECORD_NAME, RECORD_FLAGS, RECORD_FIELDS, RECORD_VALUES };
enum { MAP_INDEX };

struct rb_terms {
    struct rb_type pid, port, reference, fun, export, improper, bits, record, map;
    PyObject *atom_repr;                        /* terms._atom_repr */
    PyObject *text_float, *inflate, *fun_bytes; /* bridge/etf/_rare.py */
    PyObject *decode_error, *encode_error, *limits_type;
    PyObject *bytes_as_ints[256]; /* CPython's own small integers */
};

extern struct rb_terms rb_terms;

int rb_terms_bind(PyObject *terms, PyObject *errors, PyObject *limits, PyObject *rare);

/* A new object of `t` with empty slots; rb_slot_take() fills one and takes over the reference. */
PyObject *rb_term_new(const struct rb_type *t);

static inline PyObject **rb_slot(const struct rb_type *t, PyObject *o, int slot) {
    return (PyObject **)(void *)((char *)o + t->slots[slot]);
}

/* Limits of one call; NULL or None as `limits` gives the defaults. */
struct rb_limits {
    uint32_t depth_max, terms_max, key_depth_max, integer_bytes_max, inflated_bytes_max;
};

int rb_limits_read(PyObject *limits, struct rb_limits *out);

/* ---- the two errors. They set the exception, steal `value` (NULL: out of memory is set already,
 * or None is meant by Py_None), and return NULL or -1. */
PyObject *rb_decode_error(const char *rule, Py_ssize_t offset, PyObject *value);
int rb_encode_error(const char *rule, PyObject *value);
/* The same with the name of the term's type as the value. */
int rb_refused(const char *rule, PyObject *term);

/* ---- big-endian bytes */

static inline uint16_t rb_get16(const unsigned char *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t rb_get32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

static inline uint64_t rb_get64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

static inline void rb_put16(unsigned char *p, uint16_t v) {
    p[0] = (unsigned char)(v >> 8);
    p[1] = (unsigned char)v;
}

static inline void rb_put32(unsigned char *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

static inline void rb_put64(unsigned char *p, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the codec is written for little-endian machines"
#endif

/* ---- decode.c */

struct rb_writer;

struct rb_reader {
    const unsigned char *start, *end; /* offsets in errors count from start */
    const unsigned char *p;           /* the next byte */
    struct rb_limits limits;
    uint64_t terms;      /* so far, elements of open containers included */
    PyObject *atoms;     /* tuple of Atom for ATOM_CACHE_REF, or NULL */
    uint64_t cache_refs; /* how many were read: a fun that holds some is written anew */
};

/* One bare term from r->p on, which moves past it. */
PyObject *rb_decode_term(struct rb_reader *r);
/* The term of bytes that rb_canonical() made, for showing it. */
PyObject *rb_decode_canonical(PyObject *bytes);

/* ---- leaves.c: `at` is the tag's place, r->p stands after the tag. */

PyObject *rb_read_leaf(struct rb_reader *r, unsigned char tag, const unsigned char *at);
PyObject *rb_read_bignum(struct rb_reader *r, size_t size, const unsigned char *at);
/* An atom in any tag where only a name may stand; r->p stands at its tag. */
struct rb_atom *rb_read_name(struct rb_reader *r);
PyObject *rb_read_atom(struct rb_reader *r, unsigned char tag,
                       const unsigned char *at); /* as a value */
/* The parts of NEW_FUN_EXT before its free variables, of RECORD_EXT before its values. */
PyObject *rb_read_fun_head(struct rb_reader *r, const unsigned char *at, uint32_t *free_count);
PyObject *rb_read_record_head(struct rb_reader *r, const unsigned char *at, uint32_t *count);

PyObject *rb_truncated(struct rb_reader *r, const unsigned char *at);
PyObject *rb_broken(struct rb_reader *r, const char *rule, const unsigned char *at, uint64_t value);

static inline bool rb_has(const struct rb_reader *r, size_t size) {
    return (size_t)(r->end - r->p) >= size;
}

/* ---- probe.c */

struct rb_probes;

/* Of a term that may be a dict's key: is it hashed with a secret? */
static inline bool rb_has_secret_hash(PyObject *key) {
    const PyTypeObject *t = Py_TYPE(key);
    return t == &rb_atom_type || t == &PyBytes_Type || t == &PyBool_Type || key == Py_None;
}
/* The dict has just taken the key. *probes, NULL at first, is the caller's to free (PyMem_Free).
 * 1: its keys were chosen to be slow to find; 0; -1. */
int rb_probe(struct rb_probes **probes, PyObject *dict, PyObject *key);

/* ---- map.c: a map while it is decoded */

/* Put key and value (both references taken over) into *map, which is a dict, or once a key asks
 * for it the index of a Map (*indexed). *probes, NULL at first, is the caller's to free. `at`: the
 * map's tag. */
int rb_map_put(struct rb_reader *r, PyObject **map, struct rb_probes **probes, bool *indexed,
               PyObject *key, PyObject *value, const unsigned char *at);
/* The Map of an index; takes it over. */
PyObject *rb_map_new(PyObject *index);
/* -1 with EncodeError if two keys of the dict are one term. */
int rb_map_check_distinct(PyObject *dict, const struct rb_limits *limits);

/* Where in the output an entry's key and value begin. */
struct rb_mark {
    size_t key, value;
};

/* Put the last `count` entries written, a whole map's, into the order of their keys' bytes. -1
 * with EncodeError if two keys are one term. */
int rb_map_sort(struct rb_writer *out, const struct rb_mark *marks, size_t count);

/* ---- encode.c */

struct rb_writer {
    unsigned char *start, *p, *end; /* p: the next byte */
    PyObject *bytes;                /* owns start..end, or NULL while they are the caller's stack */
    struct rb_limits limits;
    uint64_t terms;
    bool record_ok;
    bool canonical; /* map entries in the order of their keys' bytes, ports in one form */
};

enum { RB_WRITER_STACK_BYTES = 2048 };

/* The bytes of `term`, with VERSION_MAGIC first if `versioned`. */
PyObject *rb_encode(PyObject *term, const struct rb_limits *limits, bool versioned, bool record_ok);
/* Bytes that are the same for the same term. Nested key_depth_max deep at most: maps are put in
 * order at each level. */
PyObject *rb_canonical(PyObject *term, const struct rb_limits *limits);

/* ---- write.c */

int rb_writer_grow(struct rb_writer *w, size_t size);

static inline int rb_room(struct rb_writer *w, size_t size) {
    return rb_likely((size_t)(w->end - w->p) >= size) ? 0 : rb_writer_grow(w, size);
}

/* INTEGER_EXT or SMALL_INTEGER_EXT at p, at most 5 bytes; their end, or NULL when the value needs
 * more. */
static inline unsigned char *rb_put_integer(unsigned char *p, long long value) {
    if (value >= 0 && value <= 255) {
        p[0] = SMALL_INTEGER_EXT;
        p[1] = (unsigned char)value;
        return p + 2;
    }
    if (value != (int32_t)value) return NULL;
    p[0] = INTEGER_EXT;
    rb_put32(p + 1, (uint32_t)value);
    return p + 5;
}

static inline uint64_t rb_float_bits(PyObject *number) {
    uint64_t bits;
    double value = PyFloat_AS_DOUBLE(number);
    memcpy(&bits, &value, 8);
    return bits;
}

static inline bool rb_is_finite(uint64_t bits) {
    const uint64_t exponent = UINT64_C(0x7ff) << 52;
    return (bits & exponent) != exponent;
}

/* The constants on the wire, padded so that one load and one store copy them. */
enum { RB_NIL_SIZE = 5, RB_TRUE_SIZE = 6, RB_FALSE_SIZE = 7 };
static const unsigned char rb_nil[8] = {SMALL_ATOM_UTF8_EXT, 3, 'n', 'i', 'l'};
static const unsigned char rb_true[8] = {SMALL_ATOM_UTF8_EXT, 4, 't', 'r', 'u', 'e'};
static const unsigned char rb_false[8] = {SMALL_ATOM_UTF8_EXT, 5, 'f', 'a', 'l', 's', 'e'};

/* The value of an int that CPython keeps in one digit; false when it has more. */
static inline bool rb_compact(PyObject *number, long long *value) {
#if PY_VERSION_HEX < 0x030C0000
    Py_ssize_t digits = Py_SIZE(number);
    if (digits < -1 || digits > 1) return false;
    *value = digits * (long long)((PyLongObject *)number)->ob_digit[0];
#else
    if (!PyUnstable_Long_IsCompact((PyLongObject *)number)) return false;
    *value = PyUnstable_Long_CompactValue((PyLongObject *)number);
#endif
    return true;
}

/* 1: written; 0: a container, not written; -1: an exception is set. */
int rb_write_leaf(struct rb_writer *w, PyObject *term);
/* -2, without an exception, when it is no Atom. */
int rb_write_name(struct rb_writer *w, PyObject *atom);

/* ---- byvalue.c, tagged.c: types of the module */

extern PyTypeObject rb_by_value_type, rb_tagged_reader_type;

int rb_by_value_ready(void);

#pragma GCC visibility pop

#endif
