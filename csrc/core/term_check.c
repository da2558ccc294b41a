/* term_check.c: one walk over an answer's term, without recursion and, for ordinary answers,
 * without allocation.
 *
 * Facts it rests on (erts/emulator/beam/external.c of OTP 25, 27, 29; dist-protocol, sections 6
 * and 11):
 * - A map with two equal keys closes the connection, and one term has many encodings: 98 for a
 *   small integer, 108 for a string, 115 for an atom, a list in two cells... So inside a key
 *   only one form of each term is taken (the one that a BEAM writes), and then equal keys are
 *   equal bytes. Atoms and ports have two forms in real use (term_to_binary of OTP 25 writes
 *   ATOM_EXT, distribution ATOM_UTF8_EXT; 25 writes NEW_PORT_EXT, 27 V4_PORT_EXT): any one of
 *   them, but the same in all of an answer's keys.
 * - 0.0 and -0.0 are one key until OTP 26 and two from 27: -0.0 is no key.
 * - Funs are equal when module, index, uniq and environment are, whatever their bytes: a fun is
 *   no key.
 * - References are equal when they differ in zero words at the end. */
#include <errno.h>
#include <stdlib.h>

#include "term_check_pvt.h"

enum {
    DEPTH_MAX = 1000,
    KEYS_INLINE = 64,
    TUPLE_ARITY_MAX = (1 << 24) - 1,
    BIG_BYTES_MAX = 524280, /* of OTP 27 and 29; 25 takes more */
    FREE_VARIABLES_MAX = 255,
    FUN_HEAD = 1 + 4 + 1 + 16 + 4 + 4,
    FUN_FIXED_CHILDREN = 4, /* module, old index, old uniq, pid */
    PORT_ID_28_BITS = 1 << 28,
};

enum frame_kind { TUPLE, LIST, MAP, FUN };

struct frame {
    uint64_t left;     /* children to come */
    uint32_t children; /* in all; of a map: 2 x pairs */
    uint32_t keys;     /* of a map: how many keys were open before it */
    uint8_t kind;
    uint8_t in_key;    /* the container is a key, or part of one */
    uint8_t all_bytes; /* of a list in a key: every element so far is 0..255 */
};

/* Forms seen in keys, where more than one would be right by itself. */
enum { FORM_ATOM_LATIN1 = 1, FORM_ATOM_SMALL_LATIN1 = 2, FORM_ATOM_UTF8 = 4 };
enum { FORM_PORT_NEW = 1, FORM_PORT_V4 = 2 };

struct check {
    struct rb_cursor c;
    const uint8_t *begin;
    const struct rb_term_rules *rules;
    struct rb_names names;
    uint64_t terms;
    const uint8_t *
        fun_end; /* until here all is part of a fun that the request carried: its names are known */
    uint8_t atom_forms, port_forms;
    const char *rule;
    uint64_t left;           /* effort that may still be made: about one for each term */
    int again;               /* the term at the cursor has been begun */
    int in_key;              /* what arrive() said of it */
    int comparing;           /* the keys of the innermost map, which has ended */
    struct rb_keys compared; /* how far that is */
    struct rb_extent *keys;  /* of maps that are open; `own` or the heap */
    uint32_t keys_count, keys_capacity;
    uint32_t depth;
    struct rb_extent own[KEYS_INLINE];
    struct frame frames[DEPTH_MAX];
};

static int broke(struct check *k, const char *rule) {
    k->rule = rule;
    return -EPROTO;
}

static int no_memory(struct check *k) {
    k->rule = "no_memory";
    return -ENOMEM;
}

#define NEED(k, n)                                                                    \
    do {                                                                              \
        if (rb_cursor_left(&(k)->c) < (size_t)(n)) return broke(k, "term_cut_short"); \
    } while (0)

/* In a key every term has one form only. */
#define ONLY_FORM(k, in_key, condition)                                \
    do {                                                               \
        if ((in_key) && !(condition)) return broke(k, "term_map_key"); \
    } while (0)

/* --- Text ------------------------------------------------------------------------------------- */

/* Strict UTF-8 (RFC 3629: nothing overlong, no surrogates): the number of characters, or -1.
 * `*most`: the highest of them. */
static int64_t utf8_length(struct rb_slice text, uint32_t *most) {
    const uint8_t *p = text.at, *end = text.at + text.size;
    int64_t count = 0;
    *most = 0;
    while (p < end) {
        uint32_t ch = *p++;
        if (ch >= 0x80) {
            int more = ch >= 0xc2 && ch <= 0xdf   ? 1
                       : (ch & 0xf0) == 0xe0      ? 2
                       : ch >= 0xf0 && ch <= 0xf4 ? 3
                                                  : 0;
            if (more == 0 || end - p < more) return -1;
            ch &= 0x3fu >> more;
            for (int i = 0; i < more; i++) {
                if ((p[i] & 0xc0) != 0x80) return -1;
                ch = ch << 6 | (p[i] & 0x3fu);
            }
            p += more;
            if ((more == 2 && ch < 0x800) || (more == 3 && ch < 0x10000)) return -1;
            if (ch > 0x10ffff || (ch >= 0xd800 && ch <= 0xdfff)) return -1;
        }
        if (ch > *most) *most = ch;
        count++;
    }
    return count;
}

/* Past an atom whose text is one, wherever it stands; it need not be allowed. */
static int atom_text(struct check *k, int in_key, struct rb_name *name) {
    int tag = rb_term_tag(&k->c);
    struct rb_slice text;
    NEED(k, 1);
    int rc = rb_term_atom(&k->c, &text);
    if (rc == -EAGAIN) return broke(k, "term_cut_short");
    if (rc < 0) {
        int is_atom =
            tag == RB_TAG_ATOM || tag == RB_TAG_ATOM_UTF8; /* the small ones cannot be too long */
        return broke(k, is_atom ? "term_atom_text" : "term_tag");
    }
    int form = 0;
    if (tag == RB_TAG_ATOM || tag == RB_TAG_SMALL_ATOM) {
        if (text.size > 255) return broke(k, "term_atom_text");
        form = tag == RB_TAG_ATOM ? FORM_ATOM_LATIN1 : FORM_ATOM_SMALL_LATIN1;
    } else {
        uint32_t most;
        int64_t length = utf8_length(text, &most);
        if (length < 0 || length > 255) return broke(k, "term_atom_text");
        ONLY_FORM(k, in_key, (tag == RB_TAG_ATOM_UTF8) == (text.size > 255));
        if (most <= 255) form = FORM_ATOM_UTF8;
    }
    if (in_key) {
        k->atom_forms |= (uint8_t)form;
        ONLY_FORM(k, 1, (k->atom_forms & (k->atom_forms - 1)) == 0);
    }
    *name = rb_name_of_atom((uint8_t)tag, text);
    return 0;
}

static int allow(struct check *k, const struct rb_name *name, const char *rule) {
    if (k->c.at <= k->fun_end) return 0;
    int allowed = rb_names_allow(&k->names, name);
    if (allowed == -EAGAIN) return allowed;
    if (allowed < 0) return no_memory(k);
    return allowed ? 0 : broke(k, rule);
}

static int check_atom(struct check *k, int in_key) {
    struct rb_name name;
    int rc = atom_text(k, in_key, &name);
    return rc < 0 ? rc : allow(k, &name, "term_atom_new");
}

/* --- Numbers ---------------------------------------------------------------------------------- */

static int check_integer(struct check *k, int in_key) {
    NEED(k, 5);
    int32_t value = (int32_t)rb_be32(k->c.at + 1);
    ONLY_FORM(k, in_key, value < 0 || value > 255);
    k->c.at += 5;
    return 0;
}

/* Does it fit INTEGER_EXT? Little endian, top byte not zero. */
static int fits_32_bits(const uint8_t *digits, uint32_t size, int negative) {
    if (size > 4) return 0;
    uint32_t value = 0;
    for (uint32_t i = 0; i < size; i++) value |= (uint32_t)digits[i] << (8 * i);
    return value <= UINT32_C(0x7fffffff) + (negative ? 1u : 0u);
}

static int check_big(struct check *k, int in_key) {
    int large = *k->c.at == RB_TAG_LARGE_BIG;
    uint32_t head = large ? 6 : 3; /* tag, size, sign */
    NEED(k, head);
    uint32_t size = large ? rb_be32(k->c.at + 1) : k->c.at[1];
    const uint8_t *digits = k->c.at + head;
    uint8_t sign = digits[-1];
    if (size > BIG_BYTES_MAX) return broke(k, "term_bignum");
    NEED(k, head + size);
    ONLY_FORM(k, in_key, large == (size > 255) && sign <= 1 && size > 0 && digits[size - 1] != 0);
    ONLY_FORM(k, in_key, !fits_32_bits(digits, size, sign));
    k->c.at += head + size;
    return 0;
}

static int check_float(struct check *k, int in_key) {
    NEED(k, 9);
    uint64_t bits = rb_be64(k->c.at + 1);
    if ((bits >> 52 & 0x7ff) == 0x7ff) return broke(k, "term_float");
    ONLY_FORM(k, in_key, bits != UINT64_C(1) << 63);
    k->c.at += 9;
    return 0;
}

/* --- Bytes ------------------------------------------------------------------------------------ */

static int check_binary(struct check *k) {
    NEED(k, 5);
    uint32_t size = rb_be32(k->c.at + 1);
    NEED(k, 5 + (uint64_t)size);
    k->c.at += 5 + (size_t)size;
    return 0;
}

static int check_bits(struct check *k, int in_key) {
    NEED(k, 6);
    uint32_t size = rb_be32(k->c.at + 1);
    uint8_t bits = k->c.at[5];
    if (size == 0 || bits == 0 || bits > 7) return broke(k, "term_bits");
    NEED(k, 6 + (uint64_t)size);
    k->c.at += 6 + (size_t)size;
    ONLY_FORM(k, in_key, (k->c.at[-1] & (0xff >> bits)) == 0);
    return 0;
}

/* A list of small integers, and counted so: a BEAM makes a cell of each. */
static int check_string(struct check *k, int in_key) {
    NEED(k, 3);
    uint32_t size = rb_be16(k->c.at + 1);
    NEED(k, 3 + size);
    ONLY_FORM(k, in_key, size > 0);
    k->terms += size;
    if (k->terms > k->rules->terms_max) return broke(k, "term_count");
    k->c.at += 3 + size;
    return 0;
}

/* --- Identities ------------------------------------------------------------------------------- */

static int reference_form(const uint8_t *words, uint32_t count) {
    /* 25 writes three words, 26 and later three or five; with zeros at the end the five would
     * equal three. */
    return count == 3 || (count == 5 && (rb_be32(words + 12) | rb_be32(words + 16)) != 0);
}

/* Fields behind the node. The creations of old tags have two bits. */
static int identity_fields(struct check *k, uint8_t tag, struct rb_slice term, uint32_t words,
                           int in_key) {
    const uint8_t *end = term.at + term.size;
    switch (tag) {
    case RB_TAG_NEW_PID: return 0;
    case RB_TAG_NEW_PORT: {
        int in_range = rb_be32(end - 8) < PORT_ID_28_BITS;
        ONLY_FORM(k, in_key, in_range);
        if (in_key) k->port_forms |= FORM_PORT_NEW;
        break;
    }
    case RB_TAG_V4_PORT:
        if (in_key && rb_be64(end - 12) < PORT_ID_28_BITS) k->port_forms |= FORM_PORT_V4;
        break;
    case RB_TAG_NEWER_REFERENCE:
        if (words == 0) return broke(k, "term_identity");
        ONLY_FORM(k, in_key, reference_form(end - (size_t)4 * words, words));
        break;
    case RB_TAG_NEW_REFERENCE:
        if (words == 0 || end[-4 * (ptrdiff_t)words - 1] > 3) return broke(k, "term_identity");
        ONLY_FORM(k, in_key, 0);
        break;
    default: /* PORT_EXT, PID_EXT, REFERENCE_EXT */
        if (end[-1] > 3) return broke(k, "term_identity");
        ONLY_FORM(k, in_key, 0);
        break;
    }
    ONLY_FORM(k, in_key, (k->port_forms & (k->port_forms - 1)) == 0);
    return 0;
}

static int check_identity(struct check *k, int in_key) {
    struct rb_cursor begin = k->c;
    uint8_t tag = *k->c.at;
    int counted = tag == RB_TAG_NEWER_REFERENCE || tag == RB_TAG_NEW_REFERENCE;
    uint32_t words = 0;
    if (counted) {
        NEED(k, 3);
        words = rb_be16(k->c.at + 1);
        if (words > 5) return broke(k, "term_identity");
    }
    k->c.at += counted ? 3 : 1;
    struct rb_name node, name;
    int rc = atom_text(k, in_key, &node); /* part of the whole: looked for with it */
    if (rc < 0) return rc;
    k->c = begin;
    uint64_t inside;
    if (rb_term_step(&k->c, &inside) < 0) return broke(k, "term_cut_short");
    struct rb_slice term = {begin.at, (size_t)(k->c.at - begin.at)};
    if ((rc = identity_fields(k, tag, term, words, in_key)) < 0) return rc;
    name = (struct rb_name){term.at, (uint32_t)term.size, RB_NAME_IDENTITY};
    return allow(k, &name, "term_identity");
}

/* fun m:f/a: a leaf of four terms. Making one makes atoms and an export entry, so it too must have
 * been in the request. */
static int check_export(struct check *k, int in_key) {
    const uint8_t *begin = k->c.at;
    struct rb_name part;
    int rc;
    k->c.at++;
    k->terms += 3;
    if ((rc = atom_text(k, in_key, &part)) < 0 || (rc = atom_text(k, in_key, &part)) < 0) return rc;
    NEED(k, 2);
    if (*k->c.at != RB_TAG_SMALL_INTEGER) return broke(k, "term_identity");
    k->c.at += 2;
    struct rb_name name = {begin, (uint32_t)(k->c.at - begin), RB_NAME_IDENTITY};
    return allow(k, &name, "term_identity");
}

/* --- Containers ------------------------------------------------------------------------------- */

static int push(struct check *k, enum frame_kind kind, uint64_t children, int in_key) {
    if (children > rb_cursor_left(&k->c)) return broke(k, "term_cut_short");
    if (children == 0) return 0;
    if (k->depth >= k->rules->depth_max || k->depth >= DEPTH_MAX) return broke(k, "term_depth");
    k->frames[k->depth++] =
        (struct frame){.left = children,
                       .children = (uint32_t)children,
                       .keys = k->keys_count,
                       .kind = (uint8_t)kind,
                       .in_key = (uint8_t)in_key,
                       .all_bytes = kind == LIST && in_key && children <= 65536};
    return 0;
}

static int enter_tuple(struct check *k, int in_key) {
    int small = *k->c.at == RB_TAG_SMALL_TUPLE;
    NEED(k, small ? 2 : 5);
    uint32_t arity = small ? k->c.at[1] : rb_be32(k->c.at + 1);
    if (arity > TUPLE_ARITY_MAX) return broke(k, "term_tuple");
    ONLY_FORM(k, in_key, small == (arity <= 255));
    k->c.at += small ? 2 : 5;
    return push(k, TUPLE, arity, in_key);
}

static int enter_list(struct check *k, int in_key) {
    NEED(k, 5);
    uint32_t count = rb_be32(k->c.at + 1);
    ONLY_FORM(k, in_key, count > 0);
    k->c.at += 5;
    return push(k, LIST, (uint64_t)count + 1, in_key);
}

static int enter_map(struct check *k, int in_key) {
    NEED(k, 5);
    uint32_t pairs = rb_be32(k->c.at + 1);
    ONLY_FORM(k, in_key, pairs <= 1); /* the order of pairs is free */
    k->c.at += 5;
    return push(k, MAP, 2 * (uint64_t)pairs, in_key);
}

static int enter_fun(struct check *k, int in_key) {
    NEED(k, FUN_HEAD);
    const uint8_t *begin = k->c.at;
    uint32_t size = rb_be32(begin + 1), free_variables = rb_be32(begin + FUN_HEAD - 4);
    ONLY_FORM(k, in_key, 0);
    if (free_variables > FREE_VARIABLES_MAX) return broke(k, "term_identity");
    if (size > rb_cursor_left(&k->c) - 1) return broke(k, "term_cut_short");
    if (begin >= k->fun_end) {
        /* As large as the request at most, and only so far is it looked over. */
        if (size > k->names.request.size) return broke(k, "term_identity");
        struct rb_cursor whole = {begin, begin + 1 + size};
        int rc = rb_term_skip(&whole, NULL);
        if (rc < 0) return broke(k, rc == -EAGAIN ? "term_cut_short" : "term_tag");
        struct rb_name name = {begin, (uint32_t)(whole.at - begin), RB_NAME_IDENTITY};
        if ((rc = allow(k, &name, "term_identity")) < 0) return rc;
        k->fun_end = whole.at;
    }
    k->c.at += FUN_HEAD;
    return push(k, FUN, FUN_FIXED_CHILDREN + free_variables, in_key);
}

/* Of what tag the fixed children of a fun must be. */
static int fun_child_fits(const struct frame *f, uint8_t tag) {
    switch (f->children - f->left) {
    case 0:
        return tag == RB_TAG_ATOM || tag == RB_TAG_SMALL_ATOM || tag == RB_TAG_ATOM_UTF8 ||
               tag == RB_TAG_SMALL_ATOM_UTF8;
    case 1:
    case 2: return tag == RB_TAG_SMALL_INTEGER || tag == RB_TAG_INTEGER;
    case 3: return tag == RB_TAG_NEW_PID || tag == RB_TAG_PID;
    default: return 1;
    }
}

static int remember_key(struct check *k) {
    if (k->keys_count == k->keys_capacity) {
        uint32_t capacity = k->keys_capacity * 2;
        struct rb_extent *keys = k->keys == k->own ? malloc(capacity * sizeof *keys)
                                                   : realloc(k->keys, capacity * sizeof *keys);
        if (!keys) return no_memory(k);
        if (k->keys == k->own) memcpy(keys, k->own, sizeof k->own);
        k->keys = keys;
        k->keys_capacity = capacity;
    }
    k->keys[k->keys_count++].begin = (uint32_t)(k->c.at - k->begin);
    return 0;
}

/* What the place of the next term in its container says about it; `*in_key` is filled. */
static int arrive(struct check *k, int *in_key) {
    *in_key = 0;
    if (k->depth == 0) return 0;
    struct frame *f = &k->frames[k->depth - 1];
    uint8_t tag = *k->c.at;
    *in_key = f->in_key;
    switch (f->kind) {
    case MAP:
        if (f->left % 2 != 0) { /* a value: its key has ended here */
            if (f->children > 2) k->keys[k->keys_count - 1].end = (uint32_t)(k->c.at - k->begin);
            return 0;
        }
        *in_key = 1;
        return f->children > 2 ? remember_key(k) : 0;
    case LIST:
        if (!f->in_key) return 0;
        if (f->left > 1) {
            if (tag != RB_TAG_SMALL_INTEGER) f->all_bytes = 0;
        } else {
            /* A proper list of bytes is a STRING_EXT, and a list's tail is no list. */
            int more = tag == RB_TAG_LIST || tag == RB_TAG_STRING;
            ONLY_FORM(k, 1, !more && !(f->all_bytes && tag == RB_TAG_NIL));
        }
        return 0;
    case FUN: return fun_child_fits(f, tag) ? 0 : broke(k, "term_identity");
    default: return 0;
    }
}

/* A term has ended, and with it perhaps some containers. */
static int leave(struct check *k) {
    while (k->depth > 0) {
        struct frame *f = &k->frames[k->depth - 1];
        if (!k->comparing && --f->left > 0) return 0;
        if (f->kind == MAP && f->children > 2) {
            int differ = rb_keys_differ(&k->compared, k->begin, k->keys + f->keys, f->children / 2,
                                        &k->left);
            k->comparing = differ == -EAGAIN;
            if (k->comparing) return -EAGAIN;
            if (differ < 0) return no_memory(k);
            if (!differ) return broke(k, "term_map_key");
            k->keys_count = f->keys;
        }
        k->depth--;
    }
    return 0;
}

static int check_by_tag(struct check *k, int in_key) {
    switch (*k->c.at) {
    case RB_TAG_NIL: k->c.at++; return 0;
    case RB_TAG_SMALL_INTEGER:
        NEED(k, 2);
        k->c.at += 2;
        return 0;
    case RB_TAG_INTEGER: return check_integer(k, in_key);
    case RB_TAG_SMALL_BIG:
    case RB_TAG_LARGE_BIG: return check_big(k, in_key);
    case RB_TAG_NEW_FLOAT: return check_float(k, in_key);
    case RB_TAG_BINARY: return check_binary(k);
    case RB_TAG_BIT_BINARY: return check_bits(k, in_key);
    case RB_TAG_STRING: return check_string(k, in_key);
    case RB_TAG_ATOM:
    case RB_TAG_SMALL_ATOM:
    case RB_TAG_ATOM_UTF8:
    case RB_TAG_SMALL_ATOM_UTF8: return check_atom(k, in_key);
    case RB_TAG_NEW_PID:
    case RB_TAG_PID:
    case RB_TAG_NEW_PORT:
    case RB_TAG_PORT:
    case RB_TAG_V4_PORT:
    case RB_TAG_REFERENCE:
    case RB_TAG_NEW_REFERENCE:
    case RB_TAG_NEWER_REFERENCE: return check_identity(k, in_key);
    case RB_TAG_EXPORT: return check_export(k, in_key);
    case RB_TAG_SMALL_TUPLE:
    case RB_TAG_LARGE_TUPLE: return enter_tuple(k, in_key);
    case RB_TAG_LIST: return enter_list(k, in_key);
    case RB_TAG_MAP: return enter_map(k, in_key);
    case RB_TAG_NEW_FUN: return enter_fun(k, in_key);
    default: return broke(k, "term_tag");
    }
}

/* One term, or the head of one with others in it. -EAGAIN: nothing of it has been taken, but for what arrive() did. */
static int check_term(struct check *k) {
    if (!k->again) {
        NEED(k, 1);
        if (++k->terms > k->rules->terms_max) return broke(k, "term_count");
        int rc = arrive(k, &k->in_key);
        if (rc < 0) return rc;
    }
    const struct rb_cursor begin = k->c;
    const uint64_t terms = k->terms;
    int rc = check_by_tag(k, k->in_key);
    k->again = rc == -EAGAIN;
    if (k->again) {
        k->c = begin;
        k->terms = terms;
    }
    return rc;
}

static void begin(struct check *k, struct rb_slice answer, struct rb_slice request,
                  const struct rb_term_rules *rules, struct rb_atom_budget *budget) {
    k->c = rb_cursor_of(answer);
    k->begin = answer.at;
    k->rules = rules;
    k->terms = 0;
    k->fun_end = NULL;
    k->atom_forms = k->port_forms = 0;
    k->rule = NULL;
    k->left = UINT64_MAX;
    k->again = k->comparing = 0;
    k->compared = (struct rb_keys){0};
    k->keys = k->own;
    k->keys_count = 0;
    k->keys_capacity = KEYS_INLINE;
    k->depth = 0;
    rb_names_open(&k->names, request, rules, budget);
    k->names.left = &k->left;
    /* Offsets are 32 bits wide. */
    if (answer.size >= UINT32_MAX || request.size >= UINT32_MAX) k->rule = "term_count";
}

/* Until its end, or as far as the effort allows: -EAGAIN. */
static int walk(struct check *k) {
    int rc = k->rule ? -EPROTO : 0;
    if (k->comparing && (rc = leave(k)) == 0 && k->depth == 0) goto end;
    while (rc == 0) {
        if (k->left == 0) return -EAGAIN;
        uint32_t before = k->depth;
        const uint8_t *from = k->c.at;
        rc = check_term(k);
        if (rc == -EAGAIN) return rc;
        uint8_t tag = rc == 0 ? *from : 0;
        int bytes_count = tag != RB_TAG_BINARY && tag != RB_TAG_BIT_BINARY && tag != RB_TAG_STRING;
        uint64_t cost = bytes_count ? 1 + (uint64_t)(k->c.at - from) / RB_EFFORT_BYTES : 1;
        k->left -= cost < k->left ? cost : k->left;
        if (rc == 0 && k->depth == before) rc = leave(k); /* it has no children: it has ended */
        if (rc == -EAGAIN) return rc;
        if (k->depth == 0) break;
    }
end:
    if (rc == 0 && k->c.at != k->c.end) rc = broke(k, "term_trailing_bytes");
    return rc;
}

static void end(struct check *k) {
    rb_keys_close(&k->compared);
    if (k->keys != k->own) free(k->keys);
    rb_names_close(&k->names);
}

int rb_term_check(struct rb_slice answer, struct rb_slice request,
                  const struct rb_term_rules *rules, struct rb_atom_budget *budget,
                  const char **rule) {
    struct check k; /* some 30 KiB, of which only the head is filled */
    begin(&k, answer, request, rules, budget);
    int rc = walk(&k);
    end(&k);
    if (rc < 0) *rule = k.rule;
    return rc;
}

/* --- The same, in portions --------------------------------------------------------------------- */

struct rb_term_walk {
    struct check check;
};

struct rb_term_walk *rb_term_walk_open(struct rb_slice answer, struct rb_slice request,
                                       const struct rb_term_rules *rules,
                                       struct rb_atom_budget *budget) {
    struct rb_term_walk *w = malloc(sizeof *w);
    if (w) begin(&w->check, answer, request, rules, budget);
    return w;
}

int rb_term_walk_on(struct rb_term_walk *w, uint64_t *effort, const char **rule) {
    w->check.left = *effort;
    int rc = walk(&w->check);
    *effort = w->check.left;
    if (rc < 0 && rc != -EAGAIN) *rule = w->check.rule;
    return rc;
}

void rb_term_walk_close(struct rb_term_walk *w) {
    if (!w) return;
    end(&w->check);
    free(w);
}
