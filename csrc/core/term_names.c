/* term_names.c: which atoms, pids, ports, references and funs may an answer name?
 *
 * A peer keeps every atom for ever, and believes every identity. So an answer may name what its
 * request named, the atoms that its role declares, a few that every BEAM has, and a bounded
 * number of atoms that its worker brings along. */
#include <errno.h>
#include <stdlib.h>

#include "term_check_pvt.h"

enum {
    EFFORT_MAX = 64 << 10, /* bytes walked without an index */
    INDEX_COUNT_MAX = 2
        << 20, /* different names of one request that are looked at: 64 MiB of index */
    INDEX_CAPACITY_MIN = 256,
    LATIN1_BYTES_MAX = 2 * 255,
};

/* Atoms that a BEAM has from its start, or may have for good: the list is short. */
static const char *const everywhere[] = {
    "ok",     "error",        "true",   "false",    "nil",          "undefined",
    "none",   "infinity",     "badarg", "normal",   "shutdown",     "kill",
    "killed", "exit",         "throw",  "timeout",  "noproc",       "value",
    "reason", "noconnection", "name",   "badarith", "system_limit", "__struct__",
};

void rb_atom_budget_fini(struct rb_atom_budget *b) {
    free(b->known);
    *b = (struct rb_atom_budget){0};
}

void rb_names_open(struct rb_names *n, struct rb_slice request, const struct rb_term_rules *rules,
                   struct rb_atom_budget *budget) {
    *n = (struct rb_names){.request = request, .rules = rules, .budget = budget};
}

void rb_names_close(struct rb_names *n) { free(n->index); }

/* --- One name --------------------------------------------------------------------------------- */

struct rb_name rb_name_of_atom(uint8_t tag, struct rb_slice text) {
    struct rb_name name = {text.at, (uint32_t)text.size, RB_NAME_UTF8};
    if (tag == RB_TAG_ATOM || tag == RB_TAG_SMALL_ATOM) {
        for (size_t i = 0; i < text.size; i++) {
            if (text.at[i] > 127) name.kind = RB_NAME_LATIN1;
        }
    }
    return name;
}

/* The text of an atom as UTF-8, or the bytes of an identity. */
static struct rb_slice plain(const struct rb_name *name, uint8_t buffer[LATIN1_BYTES_MAX]) {
    if (name->kind != RB_NAME_LATIN1) return (struct rb_slice){name->at, name->size};
    struct rb_slice text = {buffer, 0};
    uint32_t size = name->size > 255 ? 255 : name->size;
    for (uint32_t i = 0; i < size; i++) {
        uint8_t ch = name->at[i];
        if (ch > 127) {
            buffer[text.size++] = (uint8_t)(0xc0 | ch >> 6);
            buffer[text.size++] = (uint8_t)(0x80 | (ch & 0x3f));
        } else {
            buffer[text.size++] = ch;
        }
    }
    return text;
}

static int same(const struct rb_name *name, struct rb_slice wanted, int identity) {
    uint8_t buffer[LATIN1_BYTES_MAX];
    if ((name->kind == RB_NAME_IDENTITY) != identity) return 0;
    return rb_slice_equal(plain(name, buffer), wanted);
}

/* --- The request's names, one after the other ------------------------------------------------- */

struct names_walk {
    struct rb_cursor at;
    struct rb_cursor node;  /* of the identity just given; empty otherwise */
    const uint8_t *fun_end; /* of the outermost fun that we are in */
};

static int take_atom(struct rb_cursor *c, struct rb_name *name) {
    struct rb_slice text;
    uint8_t tag = *c->at;
    if (rb_term_atom(c, &text) < 0) return 0;
    *name = rb_name_of_atom(tag, text);
    return 1;
}

static struct rb_name identity(const uint8_t *begin, const uint8_t *end) {
    return (struct rb_name){begin, (uint32_t)(end - begin), RB_NAME_IDENTITY};
}

/* 113, module, function, arity. */
static int export_end(struct rb_cursor c, const uint8_t **end) {
    struct rb_slice text;
    c.at++;
    if (rb_term_atom(&c, &text) < 0 || rb_term_atom(&c, &text) < 0 || rb_cursor_left(&c) < 2)
        return 0;
    *end = c.at + 2;
    return 1;
}

/* 1, or 0 at the end. Walks into funs, but gives only the outermost one as an identity: a worker
 * cannot look inside. */
static int walk_next(struct names_walk *w, struct rb_name *name) {
    if (w->node.at < w->node.end) {
        int found = take_atom(&w->node, name);
        w->node = (struct rb_cursor){NULL, NULL};
        if (found) return 1;
    }
    while (w->at.at < w->at.end) {
        struct rb_cursor begin = w->at, whole = w->at;
        uint64_t inside;
        uint8_t tag = *begin.at;
        if (rb_term_step(&w->at, &inside) < 0) return 0;
        switch (tag) {
        case RB_TAG_ATOM:
        case RB_TAG_ATOM_UTF8:
        case RB_TAG_SMALL_ATOM:
        case RB_TAG_SMALL_ATOM_UTF8:
            if (take_atom(&begin, name)) return 1;
            break;
        case RB_TAG_NEW_PID:
        case RB_TAG_PID:
        case RB_TAG_NEW_PORT:
        case RB_TAG_PORT:
        case RB_TAG_V4_PORT:
        case RB_TAG_REFERENCE:
        case RB_TAG_NEW_REFERENCE:
        case RB_TAG_NEWER_REFERENCE: {
            int counted = tag == RB_TAG_NEW_REFERENCE || tag == RB_TAG_NEWER_REFERENCE;
            *name = identity(begin.at, w->at.at);
            w->node = (struct rb_cursor){begin.at + (counted ? 3 : 1), w->at.at};
            return 1;
        }
        case RB_TAG_EXPORT: {
            const uint8_t *end;
            if (!export_end(begin, &end)) break;
            *name = identity(begin.at, end);
            return 1;
        }
        case RB_TAG_NEW_FUN:
            if (w->fun_end && begin.at < w->fun_end) break;
            if (rb_term_skip(&whole, NULL) < 0) return 0;
            w->fun_end = whole.at;
            *name = identity(begin.at, whole.at);
            return 1;
        default: break;
        }
    }
    return 0;
}

/* --- The index -------------------------------------------------------------------------------- */

static uint32_t index_hash(const struct rb_names *n, struct rb_slice plain_bytes,
                           enum rb_name_kind kind) {
    return ((uint32_t)(rb_hash(n->seed, plain_bytes.at, plain_bytes.size) >> 32) & ~3u) |
           (uint32_t)kind;
}

/* Where it is, or the free entry where it belongs. Atoms are equal by their text, whatever their
 * kind. */
static struct rb_name_entry *index_find(const struct rb_names *n, const struct rb_name *name,
                                        uint32_t *hash) {
    uint8_t buffer[LATIN1_BYTES_MAX];
    struct rb_slice bytes = plain(name, buffer);
    int is_identity = name->kind == RB_NAME_IDENTITY;
    *hash = index_hash(n, bytes, name->kind);
    /* The kind is no part of the place: it differs between the two forms of one atom. */
    for (uint32_t at = *hash >> 2 & (n->capacity - 1);; at = (at + 1) & (n->capacity - 1)) {
        struct rb_name_entry *e = &n->index[at];
        if (!e->at) return e;
        if ((e->hash ^ *hash) & ~3u) continue;
        struct rb_name there = {e->at, e->size, (enum rb_name_kind)(e->hash & 3)};
        if (same(&there, bytes, is_identity)) return e;
    }
}

static int index_grow(struct rb_names *n) {
    struct rb_name_entry *before = n->index;
    uint32_t capacity = n->capacity;
    n->capacity = capacity ? capacity * 2 : INDEX_CAPACITY_MIN;
    n->index = calloc(n->capacity, sizeof *n->index);
    if (!n->index) {
        n->index = before;
        n->capacity = capacity;
        return -ENOMEM;
    }
    for (uint32_t i = 0; before && i < capacity; i++) {
        if (!before[i].at) continue;
        uint32_t at = before[i].hash >> 2 & (n->capacity - 1);
        while (n->index[at].at) at = (at + 1) & (n->capacity - 1);
        n->index[at] = before[i];
    }
    free(before);
    return 0;
}

static int index_add(struct rb_names *n, const struct rb_name *name) {
    uint32_t hash;
    if (n->count >= INDEX_COUNT_MAX) return 0;
    int full = !n->index || 2 * (n->count + 1) > n->capacity;
    if (full && index_grow(n) < 0) return -ENOMEM;
    struct rb_name_entry *e = index_find(n, name, &hash);
    if (e->at) return 0;
    *e = (struct rb_name_entry){name->at, name->size, hash};
    n->count++;
    return 0;
}

/* 0; -ENOMEM; or -EAGAIN: not whole yet. Each name counts as a term, whatever stands between two of them. */
static int index_request(struct rb_names *n) {
    struct names_walk walk = {.at = n->to_index, .fun_end = n->to_index_fun};
    struct rb_name name;
    if (!n->index) {
        n->seed = rb_hash_seed();
        if (index_grow(n) < 0) return -ENOMEM;
        walk = (struct names_walk){.at = rb_cursor_of(n->request)};
        n->indexing = 1;
    }
    for (;;) {
        const uint8_t *before = walk.at.at;
        if (*n->left == 0 && walk.node.at == walk.node.end) {
            n->to_index = walk.at;
            n->to_index_fun = walk.fun_end;
            return -EAGAIN;
        }
        if (!walk_next(&walk, &name)) break;
        if (index_add(n, &name) < 0) return -ENOMEM;
        uint64_t cost = 1 + (uint64_t)(walk.at.at - before) / RB_EFFORT_BYTES;
        *n->left -= cost < *n->left ? cost : *n->left;
    }
    n->indexing = 0;
    return 0;
}

/* --- Where an atom may come from -------------------------------------------------------------- */

static int is_everywhere(struct rb_slice text) {
    for (size_t i = 0; i < sizeof everywhere / sizeof *everywhere; i++) {
        if (rb_slice_is(text, everywhere[i])) return 1;
    }
    return 0;
}

static int is_declared(struct rb_names *n, struct rb_slice text) {
    n->effort += n->rules->atoms_count;
    for (uint32_t i = 0; i < n->rules->atoms_count; i++) {
        if (rb_slice_equal(n->rules->atoms[i], text)) return 1;
    }
    return 0;
}

static int is_paid_for(struct rb_names *n, struct rb_slice text) {
    const struct rb_atom_budget *b = n->budget;
    n->effort += b->known_bytes / 4;
    for (size_t at = 0; at + 2 <= b->known_bytes;) {
        uint16_t size;
        memcpy(&size, b->known + at, sizeof size);
        if (rb_slice_equal((struct rb_slice){b->known + at + 2, size}, text)) return 1;
        at += 2u + size;
    }
    return 0;
}

/* 1 when it could be paid for, 0 when the budget is spent, or -ENOMEM. */
static int pay(struct rb_atom_budget *b, struct rb_slice text) {
    uint16_t size = (uint16_t)text.size;
    if (b->left == 0) return 0;
    uint8_t *known = realloc(b->known, b->known_bytes + 2 + text.size);
    if (!known) return -ENOMEM;
    memcpy(known + b->known_bytes, &size, sizeof size);
    if (size) memcpy(known + b->known_bytes + 2, text.at, size);
    b->known = known;
    b->known_bytes += 2 + text.size;
    b->left--;
    return 1;
}

static int in_request(struct rb_names *n, const struct rb_name *name, struct rb_slice bytes) {
    struct names_walk walk = {.at = rb_cursor_of(n->request)};
    struct rb_name there;
    n->effort += n->request.size;
    while (walk_next(&walk, &there)) {
        if (same(&there, bytes, name->kind == RB_NAME_IDENTITY)) return 1;
    }
    return 0;
}

int rb_names_allow(struct rb_names *n, const struct rb_name *name) {
    uint8_t buffer[LATIN1_BYTES_MAX];
    struct rb_slice bytes = plain(name, buffer);
    int is_atom = name->kind != RB_NAME_IDENTITY;
    uint32_t hash;
    if (n->index && !n->indexing && index_find(n, name, &hash)->at) return 1;
    if (is_atom && is_everywhere(bytes)) return 1;

    int found = is_atom && (is_declared(n, bytes) || is_paid_for(n, bytes));
    if (!n->index || n->indexing) {
        if (!n->indexing && !found && n->effort + n->request.size <= EFFORT_MAX)
            found = in_request(n, name, bytes);
        if (n->indexing || n->effort > EFFORT_MAX ||
            (!found && n->effort + n->request.size > EFFORT_MAX)) {
            int rc = index_request(n);
            if (rc < 0) return rc;
            found = found || index_find(n, name, &hash)->at != NULL;
        }
    }
    if (!found && is_atom) {
        found = pay(n->budget, bytes);
        if (found < 0) return found;
    }
    /* Each name is looked for at length only once. */
    if (found && n->index && index_add(n, name) < 0) return -ENOMEM;
    return found;
}
