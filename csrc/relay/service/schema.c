#include "relay/service/schema.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "relay/service/picture.h"

/* --- Is the program sound? -------------------------------------------------------------------------------------------------- */

static int has_children(uint32_t kind) {
    return kind == RB_SCHEMA_ATOM || kind >= RB_SCHEMA_LIST; /* and TEXT is a leaf */
}

static int node_is_sound(const struct rb_ops_config *ops, uint32_t i) {
    const struct rb_schema_node *n = &ops->nodes[i];
    if (n->kind >= RB_SCHEMA_KINDS) return 0;
    if (n->text_at > ops->text_count || n->text_bytes > ops->text_count - n->text_at) return 0;
    if (!has_children(n->kind)) return n->count == 0;
    if (n->count > ops->nodes_count || n->first > ops->nodes_count - n->count) return 0;
    if (n->count > 0 && n->first <= i) return 0;
    if (n->kind == RB_SCHEMA_LIST && n->count != 1) return 0;
    if (n->kind == RB_SCHEMA_ONE_OF && n->count == 0) return 0;
    if (n->kind == RB_SCHEMA_MAP && n->count > RB_SCHEMA_KEYS_MAX) return 0;
    for (uint32_t k = 0; k < n->count; k++) {
        uint32_t kind = ops->nodes[n->first + k].kind;
        if ((n->kind == RB_SCHEMA_ATOM) != (kind == RB_SCHEMA_TEXT)) return 0;
        if (n->kind == RB_SCHEMA_ONE_OF && kind == RB_SCHEMA_ONE_OF) return 0;
    }
    return 1;
}

/* Children are behind their parents, so one pass from the end knows each one's depth: frames that its walk holds at once. */
static int depths_are_sound(const struct rb_ops_config *ops) {
    uint8_t depth[RB_SCHEMA_NODES_MAX];
    for (uint32_t i = ops->nodes_count; i-- > 0;) {
        const struct rb_schema_node *n = &ops->nodes[i];
        depth[i] = 0;
        if (n->kind < RB_SCHEMA_LIST) continue;
        for (uint32_t k = 0; k < n->count; k++)
            if (depth[n->first + k] > depth[i]) depth[i] = depth[n->first + k];
        depth[i] = (uint8_t)(depth[i] + (n->kind != RB_SCHEMA_ONE_OF));
        if (depth[i] > RB_SCHEMA_DEPTH_MAX) return 0;
    }
    return 1;
}

int rb_schema_sound(const struct rb_ops_config *ops) {
    if (ops->table_count > RB_SCHEMA_OPS_MAX || ops->nodes_count > RB_SCHEMA_NODES_MAX ||
        ops->text_count > RB_SCHEMA_TEXT_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < ops->table_count; i++) {
        const struct rb_op_config *op = &ops->table[i];
        if (op->name[0] == 0 || !memchr(op->name, 0, sizeof op->name)) return -EINVAL;
        if (op->opcode > UINT16_MAX || op->schema >= ops->nodes_count) return -EINVAL;
        if (ops->nodes[op->schema].kind == RB_SCHEMA_TEXT) return -EINVAL;
        for (uint32_t k = 0; k < i; k++)
            if (ops->table[k].opcode == op->opcode || strcmp(ops->table[k].name, op->name) == 0)
                return -EINVAL;
    }
    for (uint32_t i = 0; i < ops->nodes_count; i++)
        if (!node_is_sound(ops, i)) return -EINVAL;
    return depths_are_sound(ops) ? 0 : -EINVAL;
}

/* --- The walk ---------------------------------------------------------------------------------------------------------------- */

struct frame {
    const struct rb_schema_node *node;
    uint64_t index, left;  /* of elements: that is next; that are left, of this cell of a list */
    uint64_t seen;         /* of a map's children: whose keys there were */
    struct rb_slice key;   /* of a map: whose value is next */
    const uint8_t *string; /* a list in the form of a string: its next byte; NULL */
};

struct walk {
    const struct rb_ops_config *ops;
    struct rb_cursor at;
    uint32_t depth;
    struct rb_schema_spent *spent;
    struct frame frames[RB_SCHEMA_DEPTH_MAX];
    char *why;
};

static struct rb_slice text_of(const struct walk *w, const struct rb_schema_node *n) {
    return (struct rb_slice){w->ops->text + n->text_at, n->text_bytes};
}

static double bits_as_double(int64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static int add(char *to, int at, int room, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int add(char *to, int at, int room, const char *format, ...) {
    if (at >= room - 1) return at;
    va_list words;
    va_start(words, format);
    int n = vsnprintf(to + at, (size_t)(room - at), format, words);
    va_end(words);
    return n < 0 ? at : at + n < room ? at + n : room - 1;
}

static int add_text(char *to, int at, int room, struct rb_slice text) {
    return add(to, at, room, "%.*s", rb_picture_size(text), (const char *)text.at);
}

/* Where the walk is: payload.q[3]. */
static int path(const struct walk *w, char *to, int room) {
    int n = add(to, 0, room, "payload");
    for (uint32_t d = 0; d < w->depth; d++) {
        const struct frame *f = &w->frames[d];
        if (f->node->kind == RB_SCHEMA_MAP) {
            n = add(to, n, room, ".");
            n = add_text(to, n, room, f->key);
        } else {
            n = add(to, n, room, f->node->kind == RB_SCHEMA_LIST ? "[%llu]" : "{%llu}",
                    (unsigned long long)f->index - 1);
        }
    }
    return n;
}

static int bounds(char *to, int n, int room, const char *of, int64_t low, int64_t high,
                  const char *unit) {
    if (low <= 0 && high == INT64_MAX) return add(to, n, room, "%s", of);
    if (high == INT64_MAX)
        return add(to, n, room, "%s of at least %lld%s", of, (long long)low, unit);
    return add(to, n, room, "%s of %lld to %lld%s", of, (long long)low, (long long)high, unit);
}

static int wanted(const struct walk *w, const struct rb_schema_node *node, char *to, int n,
                  int room) {
    switch ((enum rb_schema_kind)node->kind) {
    case RB_SCHEMA_INTEGER:
        if (node->low == INT64_MIN && node->high == INT64_MAX)
            return add(to, n, room, "an integer");
        if (node->low == INT64_MIN)
            return add(to, n, room, "an integer of at most %lld", (long long)node->high);
        if (node->high == INT64_MAX)
            return add(to, n, room, "an integer of at least %lld", (long long)node->low);
        return add(to, n, room, "an integer of %lld to %lld", (long long)node->low,
                   (long long)node->high);
    case RB_SCHEMA_FLOAT:
    case RB_SCHEMA_NUMBER:
        if (isinf(bits_as_double(node->low)) && isinf(bits_as_double(node->high)))
            return add(to, n, room, "a %s", node->kind == RB_SCHEMA_FLOAT ? "float" : "number");
        return add(to, n, room, "a %s of %g to %g",
                   node->kind == RB_SCHEMA_FLOAT ? "float" : "number", bits_as_double(node->low),
                   bits_as_double(node->high));
    case RB_SCHEMA_BINARY: return bounds(to, n, room, "a binary", node->low, node->high, " bytes");
    case RB_SCHEMA_LIST: return bounds(to, n, room, "a list", node->low, node->high, " elements");
    case RB_SCHEMA_TUPLE: return add(to, n, room, "a tuple of %u elements", node->count);
    case RB_SCHEMA_MAP: return add(to, n, room, "a map");
    case RB_SCHEMA_ATOM:
        if (node->count == 0) return add(to, n, room, "an atom");
        n = add(to, n, room, "one of");
        for (uint32_t i = 0; i < node->count; i++) {
            n = add(to, n, room, " :");
            n = add_text(to, n, room, text_of(w, &w->ops->nodes[node->first + i]));
        }
        return n;
    case RB_SCHEMA_ONE_OF:
        for (uint32_t i = 0; i < node->count; i++) {
            if (i) n = add(to, n, room, " or ");
            n = wanted(w, &w->ops->nodes[node->first + i], to, n, room);
        }
        return n;
    default: return add(to, n, room, "a term");
    }
}

static int fails(const struct walk *w, const struct rb_schema_node *node, struct rb_slice got) {
    char seen[RB_PICTURE_BYTES];
    int n = path(w, w->why, RB_SCHEMA_WHY_BYTES);
    n = add(w->why, n, RB_SCHEMA_WHY_BYTES, " must be ");
    n = wanted(w, node, w->why, n, RB_SCHEMA_WHY_BYTES);
    rb_picture(got, seen);
    add(w->why, n, RB_SCHEMA_WHY_BYTES, ", got %s", seen);
    return -EINVAL;
}

/* A term that is not well-formed is told as such, by rb_schema_check(). */
static int fails_at(const struct walk *w, const struct rb_schema_node *node, struct rb_cursor at) {
    struct rb_slice got;
    return rb_term_skip(&at, &got) < 0 ? -EINVAL : fails(w, node, got);
}

static int is_integer(int tag) {
    return tag == RB_TAG_SMALL_INTEGER || tag == RB_TAG_INTEGER || tag == RB_TAG_SMALL_BIG ||
           tag == RB_TAG_LARGE_BIG;
}
static int is_atom(int tag) {
    return tag == RB_TAG_SMALL_ATOM_UTF8 || tag == RB_TAG_ATOM_UTF8 || tag == RB_TAG_ATOM ||
           tag == RB_TAG_SMALL_ATOM;
}
static int is_list(int tag) {
    return tag == RB_TAG_NIL || tag == RB_TAG_LIST || tag == RB_TAG_STRING;
}

/* An integer's value, where it has 64 bits with its sign: 1. 0: it is larger, by *value's sign. At one of the tags of integers. */
static int integer_value(struct rb_slice term, int64_t *value) {
    const uint8_t *p = term.at;
    if (*p == RB_TAG_SMALL_INTEGER) return *value = p[1], 1;
    if (*p == RB_TAG_INTEGER) return *value = (int32_t)rb_be32(p + 1), 1;
    uint32_t bytes = *p == RB_TAG_SMALL_BIG ? p[1] : rb_be32(p + 1);
    const uint8_t *digits = p + (*p == RB_TAG_SMALL_BIG ? 3 : 6);
    int negative = digits[-1] != 0;
    uint64_t magnitude = 0;
    for (uint32_t i = bytes; i-- > 0;) {
        if (magnitude >> 56) return *value = negative ? -1 : 1, 0;
        magnitude = magnitude << 8 | digits[i];
    }
    if (magnitude > (uint64_t)INT64_MAX + (uint64_t)negative) return *value = negative ? -1 : 1, 0;
    *value = negative ? -(int64_t)(magnitude - (uint64_t)negative) - negative : (int64_t)magnitude;
    return 1;
}

static int in_integer(const struct rb_schema_node *n, int64_t value) {
    return value >= n->low && value <= n->high;
}
static int in_double(const struct rb_schema_node *n, double value) {
    return value >= bits_as_double(n->low) && value <= bits_as_double(n->high); /* and no NaN */
}

/* Whether the next term has the form of a node that is no ONE_OF: what tells its alternatives apart. */
static int has_form(struct walk *w, const struct rb_schema_node *n, struct rb_cursor at) {
    int tag = rb_term_tag(&at);
    struct rb_slice text;
    switch ((enum rb_schema_kind)n->kind) {
    case RB_SCHEMA_INTEGER: return is_integer(tag);
    case RB_SCHEMA_FLOAT: return tag == RB_TAG_NEW_FLOAT;
    case RB_SCHEMA_NUMBER: return is_integer(tag) || tag == RB_TAG_NEW_FLOAT;
    case RB_SCHEMA_BINARY: return tag == RB_TAG_BINARY;
    case RB_SCHEMA_LIST: return is_list(tag);
    case RB_SCHEMA_MAP: return tag == RB_TAG_MAP;
    case RB_SCHEMA_ATOM:
        if (!is_atom(tag) || rb_term_atom(&at, &text) < 0) return 0;
        for (uint32_t i = 0; i < n->count; i++, w->spent->looks++)
            if (rb_slice_equal(text, text_of(w, &w->ops->nodes[n->first + i]))) return 1;
        return n->count == 0;
    case RB_SCHEMA_TUPLE: /* of several the one of its size, and where it begins with an atom by that */
        if (tag != RB_TAG_SMALL_TUPLE && tag != RB_TAG_LARGE_TUPLE) return 0;
        if (rb_term_tuple(&at) != (int64_t)n->count) return 0;
        return n->count == 0 || w->ops->nodes[n->first].kind != RB_SCHEMA_ATOM ||
               has_form(w, &w->ops->nodes[n->first], at);
    default: return 1;
    }
}

static const struct rb_schema_node *alternative(struct walk *w, const struct rb_schema_node *n) {
    if (n->kind != RB_SCHEMA_ONE_OF) return n;
    for (uint32_t i = 0; i < n->count; i++, w->spent->looks++) {
        const struct rb_schema_node *child = &w->ops->nodes[n->first + i];
        if (has_form(w, child, w->at)) return child;
    }
    return NULL;
}

static void push(struct walk *w, const struct rb_schema_node *n, uint64_t left) {
    w->frames[w->depth++] = (struct frame){.node = n, .left = left};
}

/* A term that is no list, tuple or map, and passed. */
static int leaf(struct walk *w, const struct rb_schema_node *n) {
    struct rb_slice term;
    int64_t value;
    double d;
    int tag = rb_term_tag(&w->at);
    if (n->kind != RB_SCHEMA_ANY && !has_form(w, n, w->at)) return fails_at(w, n, w->at);
    if (rb_term_skip(&w->at, &term) < 0) return -EINVAL;
    switch ((enum rb_schema_kind)n->kind) {
    case RB_SCHEMA_INTEGER:
        if (integer_value(term, &value) ? in_integer(n, value)
                                        : (value < 0 ? n->low == INT64_MIN : n->high == INT64_MAX))
            return 0;
        break;
    case RB_SCHEMA_FLOAT:
    case RB_SCHEMA_NUMBER:
        if (tag == RB_TAG_NEW_FLOAT)
            d = bits_as_double((int64_t)rb_be64(term.at + 1));
        else if (integer_value(term, &value))
            d = (double)value;
        else
            d = value < 0 ? -1e300 : 1e300; /* above all that a bound says in earnest */
        if (in_double(n, d)) return 0;
        break;
    case RB_SCHEMA_BINARY:
        value = (int64_t)(term.size - 5);
        if (in_integer(n, value)) return 0;
        break;
    default: return 0;
    }
    return fails(w, n, term);
}

/* The next term, which is to be like this node. A list, tuple or map is entered. */
static int value(struct walk *w, const struct rb_schema_node *wanted_node) {
    const struct rb_schema_node *n = alternative(w, wanted_node);
    if (!n) return fails_at(w, wanted_node, w->at);
    if (n->kind < RB_SCHEMA_LIST) return leaf(w, n);
    struct rb_cursor before = w->at;
    int tail = 0; /* a list's */
    int64_t count;
    if (!has_form(w, n, w->at)) return fails_at(w, n, before);
    if (n->kind == RB_SCHEMA_TUPLE) {
        count = rb_term_tuple(&w->at);
    } else if (n->kind == RB_SCHEMA_MAP) {
        count = rb_term_map(&w->at);
    } else if (rb_term_tag(&w->at) == RB_TAG_STRING) {
        if (rb_cursor_left(&w->at) < 3) return fails_at(w, n, before);
        count = rb_be16(w->at.at + 1);
        w->at.at += 3;
        if (rb_cursor_left(&w->at) < (size_t)count) return fails_at(w, n, before);
        if (count > n->high) return fails_at(w, n, before);
        push(w, n, (uint64_t)count);
        w->frames[w->depth - 1].string = w->at.at;
        w->at.at += count;
        return 0;
    } else {
        count = rb_term_list(&w->at, &tail);
    }
    if (count < 0) return fails_at(w, n, before);
    if (n->kind == RB_SCHEMA_LIST && count > n->high) return fails_at(w, n, before);
    push(w, n, (uint64_t)count);
    w->frames[w->depth - 1].string = n->kind == RB_SCHEMA_LIST && !tail ? w->at.at : NULL;
    return 0;
}

/* One byte of a list that came as a string: an integer. */
static int byte(struct walk *w, struct frame *f) {
    const uint8_t term[2] = {RB_TAG_SMALL_INTEGER, *f->string++};
    struct rb_cursor after = w->at;
    w->at = (struct rb_cursor){term, term + sizeof term};
    int rc = value(w, &w->ops->nodes[f->node->first]);
    w->at = after;
    return rc;
}

/* The elements of a list's cell are through: what follows them. 1: it is over. */
static int list_goes_on(struct walk *w, struct frame *f) {
    const struct rb_schema_node *n = f->node;
    int tail;
    if (!f->string) { /* a cell of LIST_EXT: the tail is a term of its own */
        int64_t count = rb_term_list(&w->at, &tail);
        if (count < 0) {
            w->depth--;
            path(w, w->why, RB_SCHEMA_WHY_BYTES);
            strncat(w->why, " is an improper list", RB_SCHEMA_WHY_BYTES - strlen(w->why) - 1);
            return -EINVAL;
        }
        if (tail) {
            f->left = (uint64_t)count;
            return 0;
        }
    }
    if ((int64_t)f->index >= n->low && (int64_t)f->index <= n->high) return 1;
    unsigned long long count = f->index;
    w->depth--;
    int at = path(w, w->why, RB_SCHEMA_WHY_BYTES);
    at = add(w->why, at, RB_SCHEMA_WHY_BYTES, " must be ");
    at = wanted(w, n, w->why, at, RB_SCHEMA_WHY_BYTES);
    add(w->why, at, RB_SCHEMA_WHY_BYTES, ", got one of %llu", count);
    return -EINVAL;
}

/* The next key of a map: the node of its value; NULL: an error, or (`*other`) a key that the node does not know, whose value was passed. */
static const struct rb_schema_node *key(struct walk *w, struct frame *f, int *other) {
    const struct rb_schema_node *n = f->node;
    struct rb_slice text, term;
    struct rb_cursor before = w->at;
    *other = 0;
    if (is_atom(rb_term_tag(&w->at)) && rb_term_atom(&w->at, &text) == 0) {
        f->key = text;
        for (uint32_t i = 0; i < n->count; i++, w->spent->looks++) {
            const struct rb_schema_node *child = &w->ops->nodes[n->first + i];
            if (!rb_slice_equal(text, text_of(w, child))) continue;
            if (f->seen & 1ull << i) {
                int at = path(w, w->why, RB_SCHEMA_WHY_BYTES);
                add(w->why, at, RB_SCHEMA_WHY_BYTES, " is there twice");
                return NULL;
            }
            f->seen |= 1ull << i;
            return child;
        }
    } else {
        w->at = before;
        if (rb_term_skip(&w->at, NULL) < 0) return NULL;
    }
    if (n->flags & RB_SCHEMA_OPEN && rb_term_skip(&w->at, &term) == 0) return *other = 1, NULL;
    char seen[RB_PICTURE_BYTES];
    w->at = before;
    if (rb_term_skip(&w->at, &term) < 0) return NULL;
    rb_picture(term, seen);
    w->depth--;
    int at = path(w, w->why, RB_SCHEMA_WHY_BYTES);
    at = add(w->why, at, RB_SCHEMA_WHY_BYTES, " has a key %s; known:", seen);
    for (uint32_t i = 0; i < n->count; i++) {
        at = add(w->why, at, RB_SCHEMA_WHY_BYTES, " ");
        at = add_text(w->why, at, RB_SCHEMA_WHY_BYTES, text_of(w, &w->ops->nodes[n->first + i]));
    }
    return NULL;
}

static int map_is_whole(struct walk *w, const struct frame *f) {
    const struct rb_schema_node *n = f->node;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct rb_schema_node *child = &w->ops->nodes[n->first + i];
        if (f->seen & 1ull << i || child->flags & RB_SCHEMA_OPTIONAL) continue;
        w->depth--;
        int at = path(w, w->why, RB_SCHEMA_WHY_BYTES);
        at = add(w->why, at, RB_SCHEMA_WHY_BYTES, " lacks the key ");
        add_text(w->why, at, RB_SCHEMA_WHY_BYTES, text_of(w, child));
        return -EINVAL;
    }
    return 0;
}

/* One more term is looked at. Past a bound the count stays there: every later payload of the request is over it, too. */
static int spend(struct walk *w) {
    struct rb_schema_spent *s = w->spent;
    const char *of = s->of_many ? "the payloads together have" : "payload has";
    if (s->terms >= RB_SCHEMA_TERMS_MAX) {
        snprintf(w->why, RB_SCHEMA_WHY_BYTES, "%s more than %d terms", of, RB_SCHEMA_TERMS_MAX);
        return -EINVAL;
    }
    if (s->looks > RB_SCHEMA_LOOKS_MAX) {
        snprintf(w->why, RB_SCHEMA_WHY_BYTES,
                 "%s too many terms for so many alternatives: more than %d to look at", of,
                 RB_SCHEMA_LOOKS_MAX);
        return -EINVAL;
    }
    s->terms++;
    return 0;
}

/* One step within the innermost list, tuple or map. */
static int step(struct walk *w) {
    struct frame *f = &w->frames[w->depth - 1];
    if (spend(w) < 0) return -EINVAL;
    const struct rb_schema_node *n = f->node;
    if (f->left == 0) {
        int over = n->kind == RB_SCHEMA_LIST  ? list_goes_on(w, f)
                   : n->kind == RB_SCHEMA_MAP ? map_is_whole(w, f)
                                              : 0;
        if (over < 0) return over;
        if (n->kind != RB_SCHEMA_LIST || over == 1) w->depth--;
        return 0;
    }
    f->left--;
    f->index++;
    if (n->kind == RB_SCHEMA_MAP) {
        int other;
        const struct rb_schema_node *child = key(w, f, &other);
        if (other) return 0;
        return child ? value(w, child) : -EINVAL;
    }
    if (n->kind == RB_SCHEMA_TUPLE) return value(w, &w->ops->nodes[n->first + f->index - 1]);
    return f->string ? byte(w, f) : value(w, &w->ops->nodes[n->first]);
}

int rb_schema_check(const struct rb_ops_config *ops, uint32_t schema, struct rb_slice payload,
                    int is_term, struct rb_schema_spent *spent, char why[RB_SCHEMA_WHY_BYTES]) {
    const struct rb_schema_node *root = &ops->nodes[schema];
    struct walk w = {
        .ops = ops, .at = rb_cursor_of(payload), .depth = 0, .spent = spent, .why = why};
    why[0] = 0;
    if (spend(&w) < 0) return -EINVAL;
    if (!is_term) { /* a binary whose head has been taken off */
        uint8_t head[5] = {RB_TAG_BINARY};
        rb_put_be32(head + 1, (uint32_t)payload.size);
        w.at = (struct rb_cursor){head, head + sizeof head};
        const struct rb_schema_node *n = alternative(&w, root);
        int fits = n && (n->kind == RB_SCHEMA_ANY ||
                         (n->kind == RB_SCHEMA_BINARY && in_integer(n, (int64_t)payload.size)));
        if (fits) return 0;
        int at = path(&w, why, RB_SCHEMA_WHY_BYTES);
        at = add(why, at, RB_SCHEMA_WHY_BYTES, " must be ");
        at = wanted(&w, root, why, at, RB_SCHEMA_WHY_BYTES);
        add(why, at, RB_SCHEMA_WHY_BYTES, ", got a binary of %zu bytes", payload.size);
        return -EINVAL;
    }
    int rc = value(&w, root);
    while (rc == 0 && w.depth > 0) rc = step(&w);
    if (rc < 0 && !why[0]) snprintf(why, RB_SCHEMA_WHY_BYTES, "payload is no well-formed term");
    return rc;
}
