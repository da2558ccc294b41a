/* map.c: whether a map becomes a dict or a Map, and that no key is there twice (docs/terms.md,
 * "Map keys").
 *
 * A dict is tried first. Its size shows after each insertion whether Python took the key for one
 * that is already there; only then, or when a key must not be hashed, the entries move to the
 * index of a Map: canonical bytes of the key to (key, value), where equal means equal in Erlang,
 * so a key that is still there twice is the peer's error.
 *
 * A dict whose keys were chosen to be slow to find (probe.c) becomes a Map too: bytes are hashed with
 * a secret. */
#include "etf.h"

/* Kinds of key that a dict finds again as Erlang would, but for keys that compare equal across
 * kinds. */
static bool is_plain(PyObject *key, int depth) {
    const PyTypeObject *t = Py_TYPE(key);
    if (t == &rb_atom_type || t == &PyBytes_Type || t == &PyLong_Type || t == &PyBool_Type ||
        t == &PyFloat_Type || key == Py_None)
        return true;
    if (t == &PyTuple_Type) {
        if (depth == 0) return false;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); i++)
            if (!is_plain(PyTuple_GET_ITEM(key, i), depth - 1)) return false;
        return true;
    }
    return t == rb_terms.pid.type || t == rb_terms.reference.type || t == rb_terms.port.type ||
           t == rb_terms.bits.type || t == rb_terms.export.type || t == rb_terms.fun.type;
}

/* Takes key and value over. */
static int index_put(struct rb_reader *r, PyObject *index, PyObject *key, PyObject *value,
                     const unsigned char *at) {
    int result = -1;
    PyObject *entry = NULL;
    PyObject *bytes = rb_canonical(key, &r->limits);
    if (bytes == NULL) {
        /* What was just decoded can only be too deep: its size is within the limits already. */
        if (PyErr_ExceptionMatches(rb_terms.encode_error)) {
            PyErr_Clear();
            rb_broken(r, "key_depth", at, r->limits.key_depth_max);
        }
        goto done;
    }
    entry = PyTuple_Pack(2, key, value);
    if (entry == NULL) goto done;
    Py_ssize_t before = PyDict_GET_SIZE(index);
    if (PyDict_SetDefault(index, bytes, entry) == NULL) goto done;
    if (PyDict_GET_SIZE(index) == before)
        rb_decode_error("duplicate_key", at - r->start, Py_NewRef(key));
    else
        result = 0;
done:
    Py_XDECREF(entry);
    Py_XDECREF(bytes);
    Py_DECREF(key);
    Py_DECREF(value);
    return result;
}

static int dict_to_index(struct rb_reader *r, PyObject **map, const unsigned char *at) {
    PyObject *index = PyDict_New();
    if (index == NULL) return -1;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (PyDict_Next(*map, &position, &key, &value)) {
        if (index_put(r, index, Py_NewRef(key), Py_NewRef(value), at) < 0) {
            Py_DECREF(index);
            return -1;
        }
    }
    Py_SETREF(*map, index);
    return 0;
}

int rb_map_put(struct rb_reader *r, PyObject **map, struct rb_probes **probes, bool *indexed,
               PyObject *key, PyObject *value, const unsigned char *at) {
    if (!*indexed) {
        if (rb_likely(is_plain(key, PLAIN_KEY_DEPTH_MAX))) {
            Py_ssize_t before = PyDict_GET_SIZE(*map);
            if (PyDict_SetDefault(*map, key, value) == NULL) goto failed;
            if (rb_likely(PyDict_GET_SIZE(*map) != before)) {
                int slow = 0;
                if (rb_unlikely(before >= SAME_HASH_FROM) &&
                    (*probes != NULL || !rb_has_secret_hash(key)))
                    slow = rb_probe(probes, *map, key);
                if (rb_unlikely(slow > 0)) {
                    slow = dict_to_index(r, map, at);
                    *indexed = true;
                }
                Py_DECREF(key);
                Py_DECREF(value);
                return slow;
            }
        }
        if (dict_to_index(r, map, at) < 0) goto failed;
        *indexed = true;
    }
    return index_put(r, *map, key, value, at);
failed:
    Py_DECREF(key);
    Py_DECREF(value);
    return -1;
}

PyObject *rb_map_new(PyObject *index) {
    PyObject *map = rb_term_new(&rb_terms.map);
    if (map == NULL)
        Py_DECREF(index);
    else
        *rb_slot(&rb_terms.map, map, MAP_INDEX) = index;
    return map;
}

int rb_map_check_distinct(PyObject *dict, const struct rb_limits *limits) {
    PyObject *seen = PySet_New(NULL);
    if (seen == NULL) return -1;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    int result = 0;
    while (result == 0 && PyDict_Next(dict, &position, &key, &value)) {
        Py_INCREF(key); /* the set may wake the collector, and a finalizer change the dict */
        PyObject *bytes = rb_canonical(key, limits);
        Py_DECREF(key);
        if (bytes == NULL) {
            result = -1;
        } else {
            result = PySet_Contains(seen, bytes);
            if (result == 0)
                result = PySet_Add(seen, bytes);
            else if (result > 0)
                result = rb_encode_error("duplicate_key", rb_decode_canonical(bytes));
        }
        Py_XDECREF(bytes);
    }
    Py_DECREF(seen);
    return result;
}

/* ---- canonical order */

struct entry {
    const unsigned char *at;
    size_t key_size, size;
};

static int compare_entries(const void *left, const void *right) {
    const struct entry *a = left, *b = right;
    size_t common = a->key_size < b->key_size ? a->key_size : b->key_size;
    int order = memcmp(a->at, b->at, common);
    return order != 0 ? order : (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

int rb_map_sort(struct rb_writer *out, const struct rb_mark *marks, size_t count) {
    const unsigned char *begin = out->start + marks[0].key;
    size_t size = (size_t)(out->p - begin);
    struct entry *entries = PyMem_Malloc(count * sizeof *entries);
    unsigned char *sorted = PyMem_Malloc(size);
    int result = -1;
    if (entries == NULL || sorted == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        size_t end = i + 1 < count ? marks[i + 1].key : (size_t)(out->p - out->start);
        entries[i] = (struct entry){.at = out->start + marks[i].key,
                                    .key_size = marks[i].value - marks[i].key,
                                    .size = end - marks[i].key};
    }
    qsort(entries, count, sizeof *entries, compare_entries);
    unsigned char *p = sorted;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && compare_entries(&entries[i - 1], &entries[i]) == 0) {
            PyObject *key = PyBytes_FromStringAndSize((const char *)entries[i].at,
                                                      (Py_ssize_t)entries[i].key_size);
            if (key != NULL) rb_encode_error("duplicate_key", rb_decode_canonical(key));
            Py_XDECREF(key);
            goto done;
        }
        memcpy(p, entries[i].at, entries[i].size);
        p += entries[i].size;
    }
    memcpy(out->p - size, sorted, size);
    result = 0;
done:
    PyMem_Free(entries);
    PyMem_Free(sorted);
    return result;
}
