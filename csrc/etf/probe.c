/* probe.c: how far a dict looks for keys that a peer has chosen (docs/terms.md, "Map keys").
 *
 * A dict tries one place after the other, in an order that follows from the key's hash, until one
 * is free. Python's hash of numbers, and of what is made of them, is known to all: a peer could
 * send keys each of which meets most of those before it, whether their hashes are alike (20,000
 * keys: 5 s) or not (34,000: 2 s). So the places of such a map's keys are kept here beside the
 * dict, found in the order of Objects/dictobject.c, and the tries are counted. Keys that were not
 * chosen take two or three; multiples of a high power of two, as some numbering schemes have them,
 * up to fifteen. What has a secret in its hash, atoms and binaries, cannot be chosen: a map of
 * nothing else is not looked at. */
#include "etf.h"

struct rb_probes {
    size_t mask;
    size_t keys;
    uint64_t tries;
    Py_hash_t *in_order; /* hashes of the keys, as they came */
    Py_hash_t place[];   /* of the key that is there; -1, which is no hash: free */
};

/* Keys before a dict is looked at because of this one. Integers below 2^60 are many maps' keys, and
 * only probed; keys that can have one hash are compared with each other, which takes longer. */
static size_t looked_at_from(PyObject *key) {
    const PyTypeObject *t = Py_TYPE(key);
    long long value;
    if (rb_has_secret_hash(key)) return SIZE_MAX;
    if (t != &PyLong_Type) return SAME_HASH_FROM;
    return rb_compact(key, &value) || _PyLong_NumBits(key) <= 60 ? TRIES_FROM : SAME_HASH_FROM;
}

/* A dict of so many places grows when it holds more keys than this. */
static size_t usable(size_t places) { return 2 * places / 3; }

static struct rb_probes *probes_for(size_t keys) {
    size_t places = 8;
    while (usable(places) < keys) places *= 2;
    size_t hashes = places + usable(places);
    struct rb_probes *t = PyMem_Malloc(sizeof *t + hashes * sizeof *t->place);
    if (t == NULL) return (struct rb_probes *)PyErr_NoMemory();
    t->mask = places - 1;
    t->keys = t->tries = 0;
    t->in_order = t->place + places;
    memset(t->place, 0xff, places * sizeof *t->place);
    return t;
}

/* Were too many tries needed? */
static int take_place(struct rb_probes *t, Py_hash_t hash) {
    size_t rest = (size_t)hash, at = rest & t->mask;
    uint64_t tries = 1;
    int same = 1;
    for (; t->place[at] != -1; tries++) {
        if (t->place[at] == hash && ++same > SAME_HASH_MAX) return 1;
        rest >>= 5;
        at = (at * 5 + rest + 1) & t->mask;
    }
    t->place[at] = hash;
    t->in_order[t->keys++] = hash;
    t->tries += tries;
    return t->tries > TRIES_A_KEY_MAX * t->keys + TRIES_MORE;
}

static Py_hash_t hash_of(PyObject *key) {
    long long value;
    if (Py_TYPE(key) == &PyLong_Type && rb_compact(key, &value)) return value == -1 ? -2 : value;
    return PyObject_Hash(key);
}

static int take_all_places(struct rb_probes **probes, PyObject *dict) {
    Py_ssize_t position = 0;
    PyObject *key;
    if ((*probes = probes_for((size_t)PyDict_GET_SIZE(dict))) == NULL) return -1;
    while (PyDict_Next(dict, &position, &key, NULL)) {
        Py_hash_t hash = hash_of(key);
        if (hash == -1) return -1;
        if (take_place(*probes, hash)) return 1;
    }
    return 0;
}

/* The dict has grown: each key has a new place. */
static int take_places_anew(struct rb_probes **probes) {
    struct rb_probes *before = *probes, *t = probes_for(before->keys + 1);
    if (t == NULL) return -1;
    int slow = 0;
    for (size_t i = 0; i < before->keys && !slow; i++) slow = take_place(t, before->in_order[i]);
    PyMem_Free(before);
    *probes = t;
    return slow;
}

int rb_probe(struct rb_probes **probes, PyObject *dict, PyObject *key) {
    if (*probes == NULL) {
        if ((size_t)PyDict_GET_SIZE(dict) <= looked_at_from(key)) return 0;
        return take_all_places(probes, dict);
    }
    Py_hash_t hash = hash_of(key);
    if (hash == -1) return -1;
    if ((*probes)->keys == usable((*probes)->mask + 1)) {
        int slow = take_places_anew(probes);
        if (slow) return slow;
    }
    return take_place(*probes, hash);
}
