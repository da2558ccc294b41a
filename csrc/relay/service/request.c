#include "relay/service/request.h"

#include <errno.h>
#include <stdio.h>

#define KNOWN                                                                              \
    "known: {:submit, role, payload}, {:submit, role, payload, opts}, {:cancel, job_id}, " \
    "{:status, job_id}, {:jobs, role | :all}, :stats"

/* How much of a text is shown: at most 40 bytes, and no part of a character (UTF-8, as BEAMs send atoms). */
static int shown(struct rb_slice text) {
    size_t size = text.size;
    if (size > 40) {
        for (size = 40; size > 36 && (text.at[size] & 0xc0) == 0x80;) size--;
    }
    return (int)size;
}

/* A short picture of a value for an error text: integers and atoms as they are, the rest by kind and size. */
static void picture(struct rb_slice term, char *out, size_t size) {
    struct rb_cursor c = rb_cursor_of(term);
    struct rb_slice text;
    uint64_t number;
    if (rb_term_atom(&c, &text) == 0) {
        snprintf(out, size, ":%.*s", shown(text), (const char *)text.at);
    } else if (rb_term_unsigned(&c, &number) == 0) {
        snprintf(out, size, "%llu", (unsigned long long)number);
    } else if (rb_term_tag(&c) == RB_TAG_INTEGER) {
        snprintf(out, size, "%d", (int)rb_be32(term.at + 1));
    } else if (rb_term_tag(&c) == RB_TAG_BINARY) {
        snprintf(out, size, "a binary of %u bytes", rb_be32(term.at + 1));
    } else {
        static const struct {
            uint8_t tag;
            const char *name;
        } names[] = {
            {RB_TAG_NEW_FLOAT, "a float"},
            {RB_TAG_SMALL_TUPLE, "a tuple"},
            {RB_TAG_LARGE_TUPLE, "a tuple"},
            {RB_TAG_NIL, "[]"},
            {RB_TAG_LIST, "a list"},
            {RB_TAG_STRING, "a charlist"},
            {RB_TAG_MAP, "a map"},
            {RB_TAG_NEW_PID, "a pid"},
            {RB_TAG_NEWER_REFERENCE, "a reference"},
            {RB_TAG_SMALL_BIG, "a bignum"},
            {RB_TAG_LARGE_BIG, "a bignum"},
            {RB_TAG_NEW_FUN, "a fun"},
            {RB_TAG_BIT_BINARY, "a bitstring"},
        };
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (term.at[0] == names[i].tag) {
                snprintf(out, size, "%s", names[i].name);
                return;
            }
        }
        snprintf(out, size, "a term");
    }
}

/* [alias|R], an improper list. Past it; `reference` stays empty where the term is another one. */
static void alias_cell(struct rb_cursor *c, struct rb_slice *reference) {
    struct rb_cursor at = *c;
    struct rb_slice text, part;
    int tail;
    if (rb_term_list(&at, &tail) != 1 || rb_term_atom(&at, &text) < 0 ||
        !rb_slice_is(text, "alias"))
        return;
    if (rb_term_tag(&at) != RB_TAG_NEWER_REFERENCE || rb_term_skip(&at, &part) < 0) return;
    *reference = part;
    *c = at;
}

/* The references inside a reply tag: [alias|R]; [[alias|A]|R] (multi_call since 27); a bare R (a local-style tag). */
static void tag_references(struct rb_from *from) {
    struct rb_cursor c = rb_cursor_of(from->tag);
    struct rb_slice part;
    int tail;
    if (rb_term_tag(&c) == RB_TAG_NEWER_REFERENCE) {
        from->monitor = from->tag;
        return;
    }
    alias_cell(&c, &from->alias);
    from->monitor = from->alias;
    if (from->alias.size || rb_term_list(&c, &tail) != 1) return;
    alias_cell(&c, &from->alias);
    if (!from->alias.size || rb_term_tag(&c) != RB_TAG_NEWER_REFERENCE) return;
    if (rb_term_skip(&c, &part) == 0) from->monitor = part;
}

int rb_message_kind(struct rb_cursor *c, struct rb_from *from) {
    struct rb_cursor at = *c;
    struct rb_slice text;
    int64_t arity = rb_term_tuple(&at);
    if (arity == -EAGAIN) return -EAGAIN;
    if (arity < 2 || arity > 3) return RB_MESSAGE_OTHER;
    int rc = rb_term_atom(&at, &text);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0) return RB_MESSAGE_OTHER;
    if (arity == 2) return rb_slice_is(text, "$gen_cast") ? RB_MESSAGE_CAST : RB_MESSAGE_OTHER;
    if (rb_slice_is(text, "system")) return RB_MESSAGE_SYSTEM;
    if (!rb_slice_is(text, "$gen_call")) return RB_MESSAGE_OTHER;

    memset(from, 0, sizeof *from);
    int64_t pair = rb_term_tuple(&at);
    if (pair == -EAGAIN) return -EAGAIN;
    if (pair != 2) return RB_MESSAGE_OTHER;
    int tag = rb_term_tag(&at);
    if (tag == -EAGAIN) return -EAGAIN;
    if (tag != RB_TAG_NEW_PID) return RB_MESSAGE_OTHER;
    if ((rc = rb_term_skip(&at, &from->pid)) < 0 || (rc = rb_term_skip(&at, &from->tag)) < 0)
        return rc == -EAGAIN ? -EAGAIN : RB_MESSAGE_OTHER;
    tag_references(from);
    *c = at;
    return RB_MESSAGE_CALL;
}

int rb_request_kind(struct rb_cursor *c, struct rb_submit *submit, uint64_t *job,
                    char why[RB_WHY_BYTES]) {
    struct rb_cursor at = *c;
    struct rb_slice name, whole;
    char seen[64];
    int rc;

    struct rb_cursor atom = at;
    rc = rb_term_atom(&atom, &name);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc == 0) {
        if (rb_slice_is(name, "stats")) return RB_REQUEST_STATS;
        snprintf(why, RB_WHY_BYTES, "unknown request :%.*s; " KNOWN, shown(name),
                 (const char *)name.at);
        return RB_REQUEST_BAD;
    }
    int64_t arity = rb_term_tuple(&at);
    if (arity == -EAGAIN) return -EAGAIN;
    if (arity < 1) goto unknown;
    rc = rb_term_atom(&at, &name);
    if (rc == -EAGAIN) return -EAGAIN;
    if (rc < 0) goto unknown;

    if (rb_slice_is(name, "submit")) {
        if (arity != 3 && arity != 4) {
            snprintf(why, RB_WHY_BYTES,
                     "submit takes {:submit, role, payload} or {:submit, role, payload, opts}; "
                     "this tuple has %lld elements",
                     (long long)arity);
            return RB_REQUEST_BAD;
        }
        memset(submit, 0, sizeof *submit);
        submit->arity = (unsigned)arity;
        submit->priority = 2;
        struct rb_cursor role = at;
        rc = rb_term_text(&at, &submit->role);
        if (rc == -EAGAIN) return -EAGAIN;
        if (rc < 0) {
            if ((rc = rb_term_skip(&role, &whole)) == -EAGAIN) return -EAGAIN;
            if (rc < 0) goto unknown;
            picture(whole, seen, sizeof seen);
            snprintf(why, RB_WHY_BYTES, "submit: role must be an atom or a binary, got %s", seen);
            return RB_REQUEST_BAD;
        }
        if (rb_term_tag(&at) < 0) return -EAGAIN;
        *c = at;
        return RB_REQUEST_SUBMIT;
    }
    if (rb_slice_is(name, "jobs") && arity == 2) {
        struct rb_cursor argument = at;
        if (rb_term_text(&at, &submit->role) == 0) return RB_REQUEST_JOBS;
        if ((rc = rb_term_skip(&argument, &whole)) == -EAGAIN) return -EAGAIN;
        if (rc < 0) goto unknown;
        picture(whole, seen, sizeof seen);
        snprintf(why, RB_WHY_BYTES, "jobs takes a role (an atom or a binary) or :all, got %s",
                 seen);
        return RB_REQUEST_BAD;
    }
    int status = rb_slice_is(name, "status"), cancel = rb_slice_is(name, "cancel");
    if ((status || cancel) && arity == 2) {
        struct rb_cursor argument = at;
        rc = rb_term_unsigned(&at, job);
        if (rc == 0) return status ? RB_REQUEST_STATUS : RB_REQUEST_CANCEL;
        if ((rc = rb_term_skip(&argument, &whole)) == -EAGAIN) return -EAGAIN;
        if (rc < 0) goto unknown;
        picture(whole, seen, sizeof seen);
        snprintf(why, RB_WHY_BYTES, "%s takes a job id (a positive integer), got %s",
                 status ? "status" : "cancel", seen);
        return RB_REQUEST_BAD;
    }
    snprintf(why, RB_WHY_BYTES, "unknown request {:%.*s, ...} of %lld elements; " KNOWN,
             shown(name), (const char *)name.at, (long long)arity);
    return RB_REQUEST_BAD;

unknown:
    at = *c;
    if ((rc = rb_term_skip(&at, &whole)) == -EAGAIN) return -EAGAIN;
    if (rc == 0)
        picture(whole, seen, sizeof seen);
    else
        snprintf(seen, sizeof seen, "a malformed term");
    snprintf(why, RB_WHY_BYTES, "unknown request: %s; " KNOWN, seen);
    return RB_REQUEST_BAD;
}

/* --- Options ------------------------------------------------------------------------------------------------------------- */

static int hex_bytes(const uint8_t *text, uint8_t *out, size_t count) {
    for (size_t i = 0; i < 2 * count; i++) {
        uint8_t ch = text[i];
        int digit = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
        if (digit < 0) return -EINVAL;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] << 4 | digit : digit);
    }
    return 0;
}

static int all_zero(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (bytes[i]) return 0;
    }
    return 1;
}

/* W3C Trace Context, "traceparent Header": 00-<32 hex>-<16 hex>-<2 hex>. Later versions may go on after another dash; ff is none, and
 * neither id may be all zeros. */
static int traceparent(struct rb_slice text, struct rb_submit *s) {
    uint8_t version;
    if (text.size < 55 || text.at[2] != '-' || text.at[35] != '-' || text.at[52] != '-')
        return -EINVAL;
    if (hex_bytes(text.at, &version, 1) < 0 || version == 0xff) return -EINVAL;
    if (text.size > 55 && (version == 0 || text.at[55] != '-')) return -EINVAL;
    if (hex_bytes(text.at + 3, s->trace_id, 16) < 0 || hex_bytes(text.at + 36, s->span_id, 8) < 0)
        return -EINVAL;
    if (hex_bytes(text.at + 53, &s->trace_flags, 1) < 0) return -EINVAL;
    return all_zero(s->trace_id, 16) || all_zero(s->span_id, 8) ? -EINVAL : 0;
}

static int option(struct rb_slice key, struct rb_slice value, struct rb_submit *s,
                  char why[RB_WHY_BYTES]) {
    struct rb_cursor c = rb_cursor_of(value);
    struct rb_slice text = {0, 0};
    uint64_t number = 0;
    char seen[64];
    picture(value, seen, sizeof seen);
    if (rb_slice_is(key, "opcode")) {
        if (rb_term_unsigned(&c, &number) == 0 && number <= 65535)
            return s->opcode = (uint16_t)number, 0;
        snprintf(why, RB_WHY_BYTES, "submit: opcode must be an integer of 0..65535, got %s", seen);
    } else if (rb_slice_is(key, "timeout")) {
        s->has_timeout = 1;
        if (rb_term_unsigned(&c, &number) == 0) return s->timeout_ms = number, 0;
        if (rb_term_atom(&c, &text) == 0 && rb_slice_is(text, "infinity"))
            return s->timeout_ms = UINT64_MAX, 0;
        snprintf(why, RB_WHY_BYTES,
                 "submit: timeout must be milliseconds (0 or more) or :infinity, got %s", seen);
    } else if (rb_slice_is(key, "priority")) {
        static const char *const bands[] = {"critical", "high", "normal", "low"};
        if (rb_term_atom(&c, &text) == 0) {
            for (uint8_t i = 0; i < 4; i++) {
                if (rb_slice_is(text, bands[i])) return s->priority = i, 0;
            }
        }
        snprintf(why, RB_WHY_BYTES,
                 "submit: priority must be :critical, :high, :normal or :low, got %s", seen);
    } else if (rb_slice_is(key, "detail")) {
        if (rb_term_atom(&c, &text) == 0 &&
            (rb_slice_is(text, "true") || rb_slice_is(text, "false")))
            return s->detail = text.size == 4, 0;
        snprintf(why, RB_WHY_BYTES, "submit: detail must be true or false, got %s", seen);
    } else if (rb_slice_is(key, "trace")) {
        if (rb_term_atom(&c, &text) == 0 && rb_slice_is(text, "nil")) return 0;
        if (rb_term_tag(&c) == RB_TAG_BINARY && rb_term_text(&c, &text) == 0 &&
            traceparent(text, s) == 0)
            return 0;
        snprintf(why, RB_WHY_BYTES,
                 "submit: trace must be a W3C traceparent binary (\"00-<32 hex>-<16 hex>-<2 "
                 "hex>\"), got %s",
                 seen);
    } else {
        snprintf(why, RB_WHY_BYTES,
                 "submit: unknown option :%.*s; known: opcode, timeout, priority, detail, trace",
                 shown(key), (const char *)key.at);
    }
    return -EINVAL;
}

/* One `key` or `{key` at the cursor, then its value. Of a key given twice the first counts, as for Keyword.get/2. */
static int pair(struct rb_cursor *c, struct rb_submit *s, unsigned *given, char why[RB_WHY_BYTES]) {
    static const char *const names[] = {"opcode", "timeout", "priority", "detail", "trace"};
    struct rb_slice key, value, term;
    struct rb_cursor at = *c;
    int rc = rb_term_skip(c, &term);
    if (rc < 0) return rc;
    if (rb_term_atom(&at, &key) < 0) {
        char seen[64];
        picture(term, seen, sizeof seen);
        snprintf(why, RB_WHY_BYTES, "submit: an option's key must be an atom, got %s", seen);
        return -EINVAL;
    }
    if ((rc = rb_term_skip(c, &value)) < 0) return rc;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (!rb_slice_is(key, names[i])) continue;
        if (*given & 1u << i) return 0;
        *given |= 1u << i;
    }
    return option(key, value, s, why);
}

static int keyword_list(struct rb_cursor *c, struct rb_submit *s, char why[RB_WHY_BYTES]) {
    unsigned given = 0;
    long long index = 0;
    int rc, tail;
    int64_t count = rb_term_list(c, &tail);
    /* ei writes a list in several cells, each the tail of the one before. */
    for (; count >= 0; count = rb_term_list(c, &tail)) {
        for (int64_t i = 0; i < count; i++, index++) {
            if (rb_term_tuple(c) != 2) {
                snprintf(why, RB_WHY_BYTES,
                         "submit: opts is a list, but its element %lld is no {key, value} pair",
                         index);
                return -EINVAL;
            }
            if ((rc = pair(c, s, &given, why)) < 0) return rc;
        }
        if (!tail) return 0;
    }
    snprintf(why, RB_WHY_BYTES, "submit: opts is an improper list; a keyword list ends in []");
    return -EINVAL;
}

int rb_submit_options(struct rb_cursor *c, struct rb_submit *s, char why[RB_WHY_BYTES]) {
    if (s->arity == 3) return 0;
    struct rb_slice whole;
    unsigned given = 0;
    int rc;
    if ((rc = rb_term_skip(c, &whole)) < 0) return rc;
    struct rb_cursor at = rb_cursor_of(whole);
    int tag = rb_term_tag(&at);
    if (tag == RB_TAG_LIST || tag == RB_TAG_NIL) return keyword_list(&at, s, why);
    int64_t count = rb_term_map(&at);
    if (count < 0) {
        char seen[64];
        picture(whole, seen, sizeof seen);
        snprintf(why, RB_WHY_BYTES, "submit: opts must be a map or a keyword list, got %s", seen);
        return -EINVAL;
    }
    for (int64_t i = 0; i < count; i++) {
        if ((rc = pair(&at, s, &given, why)) < 0) return rc;
    }
    return 0;
}
