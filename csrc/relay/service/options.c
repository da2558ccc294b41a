#include "relay/service/options.h"

#include <errno.h>
#include <stdio.h>

#include "relay/service/elements.h"
#include "relay/service/picture.h"
#include "relay/service/step.h"
#include "ringbridge/term_check.h"

/* --- Values: 0, or -EINVAL ----------------------------------------------------------------------------------------------- */

static int word(struct rb_cursor *c, const char *const words[], int count) {
    struct rb_slice text;
    if (rb_term_atom(c, &text) < 0) return -EINVAL;
    for (int i = 0; i < count; i++) {
        if (rb_slice_is(text, words[i])) return i;
    }
    return -EINVAL;
}

static int number_upto(struct rb_cursor *c, uint64_t most, uint64_t *number) {
    return rb_term_unsigned(c, number) == 0 && *number <= most ? 0 : -EINVAL;
}

static int key(struct rb_cursor *c, struct rb_key *k) {
    int tag = rb_term_tag(c);
    if (rb_term_text(c, &k->text) == 0) {
        k->kind = tag == RB_TAG_BINARY ? 'b' : 'a';
        return k->text.size <= RB_KEY_BYTES_MAX ? 0 : -EINVAL;
    }
    uint64_t number = 0;
    k->kind = 'i';
    k->text = (struct rb_slice){NULL, 0};
    if (tag == RB_TAG_INTEGER)
        number = (uint64_t)(int64_t)(int32_t)rb_be32(c->at + 1);
    else if (rb_term_unsigned(c, &number) < 0)
        return -EINVAL;
    k->number = (int64_t)number;
    return 0;
}

static int read_opcode(struct rb_cursor *c, struct rb_options *o) {
    uint64_t number = 0;
    if (number_upto(c, UINT16_MAX, &number) < 0) return -EINVAL;
    o->opcode = (uint16_t)number;
    o->has_opcode = 1;
    return 0;
}

static int read_op(struct rb_cursor *c, struct rb_options *o) {
    if (rb_term_text(c, &o->op) < 0) return -EINVAL;
    return o->op.size > 0 && o->op.size < 28 ? 0 : -EINVAL;
}

static int read_timeout(struct rb_cursor *c, struct rb_options *o) {
    static const char *const words[] = {"infinity"};
    o->has_timeout = 1;
    if (rb_term_unsigned(c, &o->timeout_ms) == 0) return 0;
    o->timeout_ms = UINT64_MAX;
    return word(c, words, 1);
}

static int read_priority(struct rb_cursor *c, struct rb_options *o) {
    static const char *const bands[] = {"critical", "high", "normal", "low"};
    int band = word(c, bands, 4);
    if (band >= 0) o->priority = (uint8_t)band;
    return band < 0 ? band : 0;
}

static int read_detail(struct rb_cursor *c, struct rb_options *o) {
    static const char *const words[] = {"false", "true"};
    int detail = word(c, words, 2);
    if (detail >= 0) o->detail = (uint8_t)detail;
    return detail < 0 ? detail : 0;
}

static int read_orphan(struct rb_cursor *c, struct rb_options *o) {
    static const char *const words[] = {"cancel", "finish"};
    int finish = word(c, words, 2);
    if (finish >= 0) o->finish = (uint8_t)finish;
    return finish < 0 ? finish : 0;
}

static int encoding(struct rb_cursor *c, uint8_t *zstd) {
    static const char *const words[] = {"identity", "zstd"};
    int which = word(c, words, 2);
    if (which >= 0) *zstd = (uint8_t)which;
    return which < 0 ? which : 0;
}
static int read_encoding(struct rb_cursor *c, struct rb_options *o) {
    return encoding(c, &o->encoded);
}
static int read_accept(struct rb_cursor *c, struct rb_options *o) {
    return encoding(c, &o->accepts);
}

static int read_retry(struct rb_cursor *c, struct rb_options *o) {
    uint64_t number = 0;
    if (number_upto(c, RB_RETRY_MAX, &number) < 0) return -EINVAL;
    o->retry = (uint32_t)number;
    return 0;
}

static int read_tenant(struct rb_cursor *c, struct rb_options *o) {
    if (rb_term_text(c, &o->tenant) < 0) return -EINVAL;
    return o->tenant.size > 0 && o->tenant.size <= 64 ? 0 : -EINVAL;
}

static int read_key(struct rb_cursor *c, struct rb_options *o) { return key(c, &o->key); }
static int read_dedupe(struct rb_cursor *c, struct rb_options *o) { return key(c, &o->dedupe); }
static int read_ttl(struct rb_cursor *c, struct rb_options *o) {
    return number_upto(c, RB_TTL_MS_MAX, &o->ttl_ms);
}

static int read_meta(struct rb_cursor *c, struct rb_options *o) {
    struct rb_cursor at = *c;
    if (rb_term_map(&at) < 0 || rb_term_skip(c, &o->meta) < 0) return -EINVAL;
    if (o->meta.size > RB_META_BYTES_MAX) return -EINVAL;
    /* It will be shown to other nodes, which an ill-formed term would take down. Its own atoms and identities are its witness. */
    static const struct rb_term_rules rules = {.depth_max = 32, .terms_max = RB_META_BYTES_MAX};
    struct rb_atom_budget none = {.left = 0};
    const char *rule;
    int rc = rb_term_check(o->meta, o->meta, &rules, &none, &rule);
    rb_atom_budget_fini(&none);
    return rc < 0 ? -EINVAL : 0;
}

/* Which steps they are (step.h). Whether there are such roles is looked at later (course.c). */
static int read_stages(struct rb_cursor *c, struct rb_options *o) {
    struct rb_slice whole, term;
    struct rb_step step;
    int rc, count = 0;
    if (rb_term_tag(c) != RB_TAG_LIST || rb_term_skip(c, &whole) < 0) return -EINVAL;
    struct rb_elements stages = rb_elements_of(whole);
    while ((rc = rb_elements_next(&stages, &term)) > 0) {
        if (++count > RB_STAGES_MAX || rb_step_read(term, &step) < 0) return -EINVAL;
    }
    if (rc < 0 || count == 0) return -EINVAL;
    o->stages = whole;
    return 0;
}

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
static int traceparent(struct rb_slice text, struct rb_options *o) {
    uint8_t version;
    if (text.size < 55 || text.at[2] != '-' || text.at[35] != '-' || text.at[52] != '-')
        return -EINVAL;
    if (hex_bytes(text.at, &version, 1) < 0 || version == 0xff) return -EINVAL;
    if (text.size > 55 && (version == 0 || text.at[55] != '-')) return -EINVAL;
    if (hex_bytes(text.at + 3, o->trace_id, 16) < 0 || hex_bytes(text.at + 36, o->span_id, 8) < 0)
        return -EINVAL;
    if (hex_bytes(text.at + 53, &o->trace_flags, 1) < 0) return -EINVAL;
    return all_zero(o->trace_id, 16) || all_zero(o->span_id, 8) ? -EINVAL : 0;
}

static int read_trace(struct rb_cursor *c, struct rb_options *o) {
    static const char *const words[] = {"nil"};
    struct rb_slice text;
    if (rb_term_tag(c) != RB_TAG_BINARY) return word(c, words, 1);
    return rb_term_text(c, &text) == 0 ? traceparent(text, o) : -EINVAL;
}

/* --- The table ----------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*read)(struct rb_cursor *c, struct rb_options *o);
    const char *wants;
} known[] = {
    {"opcode", read_opcode, "an integer of 0..65535"},
    {"op", read_op, "the name of an operation: an atom or a binary of 1 to 27 bytes"},
    {"timeout", read_timeout, "milliseconds (0 or more) or :infinity"},
    {"priority", read_priority, ":critical, :high, :normal or :low"},
    {"detail", read_detail, "true or false"},
    {"trace", read_trace, "a W3C traceparent binary (\"00-<32 hex>-<16 hex>-<2 hex>\")"},
    {"key", read_key, "a binary or an atom of at most 255 bytes, or an integer"},
    {"tenant", read_tenant, "a binary or an atom of 1 to 64 bytes"},
    {"retry", read_retry, "an integer of 0..100"},
    {"orphan", read_orphan, ":cancel or :finish"},
    {"meta", read_meta, "a map of at most 512 bytes as a term, 32 deep"},
    {"dedupe", read_dedupe, "a binary or an atom of at most 255 bytes, or an integer"},
    {"ttl", read_ttl, "milliseconds, at most 86400000 (a day)"},
    {"encoding", read_encoding, ":zstd or :identity"},
    {"accept", read_accept, ":zstd or :identity"},
    {"stages", read_stages,
     "a list of 1 to 16 roles, {role, opcode}, [role | {role, opcode}, ...] (1 to 16) or {:map, "
     "role | {role, opcode}}"},
};
enum { KNOWN = sizeof known / sizeof *known };

static int unknown(struct rb_slice name, const char *verb, char why[RB_WHY_BYTES]) {
    int n = snprintf(why, RB_WHY_BYTES, "%s: unknown option :%.*s; known:", verb,
                     rb_picture_size(name), (const char *)name.at);
    for (int i = 0; i < KNOWN; i++)
        n += snprintf(why + n, RB_WHY_BYTES - (size_t)n, "%s %s", i ? "," : "", known[i].name);
    return -EINVAL;
}

/* One `key` or `{key` at the cursor, then its value. Of a key given twice the first counts, as for Keyword.get/2. */
static int pair(struct rb_cursor *c, struct rb_options *o, unsigned *given, const char *verb,
                char why[RB_WHY_BYTES]) {
    struct rb_slice name, value, term;
    struct rb_cursor at = *c;
    char seen[RB_PICTURE_BYTES];
    int rc = rb_term_skip(c, &term);
    if (rc < 0) return rc;
    if (rb_term_atom(&at, &name) < 0) {
        rb_picture(term, seen);
        snprintf(why, RB_WHY_BYTES, "%s: an option's key must be an atom, got %s", verb, seen);
        return -EINVAL;
    }
    if ((rc = rb_term_skip(c, &value)) < 0) return rc;
    int i = 0;
    while (i < KNOWN && !rb_slice_is(name, known[i].name)) i++;
    if (i == KNOWN) return unknown(name, verb, why);
    if (*given & 1u << i) return 0;
    *given |= 1u << i;
    at = rb_cursor_of(value);
    if (known[i].read(&at, o) == 0) return 0;
    rb_picture(value, seen);
    snprintf(why, RB_WHY_BYTES, "%s: %s must be %s, got %s", verb, known[i].name, known[i].wants,
             seen);
    return -EINVAL;
}

static int keyword_list(struct rb_cursor *c, struct rb_options *o, const char *verb,
                        char why[RB_WHY_BYTES]) {
    unsigned given = 0;
    long long index = 0;
    int rc, tail;
    int64_t count = rb_term_list(c, &tail);
    /* ei writes a list in several cells, each the tail of the one before. */
    for (; count >= 0; count = rb_term_list(c, &tail)) {
        for (int64_t i = 0; i < count; i++, index++) {
            if (rb_term_tuple(c) != 2) {
                snprintf(why, RB_WHY_BYTES,
                         "%s: opts is a list, but its element %lld is no {key, value} pair", verb,
                         index);
                return -EINVAL;
            }
            if ((rc = pair(c, o, &given, verb, why)) < 0) return rc;
        }
        if (!tail) return 0;
    }
    snprintf(why, RB_WHY_BYTES, "%s: opts is an improper list; a keyword list ends in []", verb);
    return -EINVAL;
}

static int map(struct rb_cursor *c, int64_t count, struct rb_options *o, const char *verb,
               char why[RB_WHY_BYTES]) {
    unsigned given = 0;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < count; i++) rc = pair(c, o, &given, verb, why);
    return rc;
}

void rb_options_default(struct rb_options *o) {
    memset(o, 0, sizeof *o);
    o->priority = 2;
}

int rb_options_read(struct rb_cursor *c, struct rb_options *o, const char *verb,
                    char why[RB_WHY_BYTES]) {
    struct rb_slice whole;
    int rc = rb_term_skip(c, &whole);
    if (rc < 0) return rc;
    struct rb_cursor at = rb_cursor_of(whole);
    int tag = rb_term_tag(&at);
    if (tag == RB_TAG_LIST || tag == RB_TAG_NIL) {
        rc = keyword_list(&at, o, verb, why);
    } else {
        int64_t count = rb_term_map(&at);
        if (count < 0) {
            char seen[RB_PICTURE_BYTES];
            rb_picture(whole, seen);
            snprintf(why, RB_WHY_BYTES, "%s: opts must be a map or a keyword list, got %s", verb,
                     seen);
            return -EINVAL;
        }
        rc = map(&at, count, o, verb, why);
    }
    if (rc == 0 && o->ttl_ms && !o->dedupe.kind) {
        snprintf(why, RB_WHY_BYTES,
                 "%s: ttl says how long the answer of a dedupe key is kept; "
                 "there is no dedupe",
                 verb);
        return -EINVAL;
    }
    return rc;
}

uint64_t rb_key_hash(const struct rb_key *key) {
    /* FNV-1a, then a finaliser (splitmix64's): short texts, and the top bits count too. */
    uint64_t h = 0xcbf29ce484222325u ^ key->kind;
    h = (h ^ (uint64_t)key->number) * 0x100000001b3u;
    for (size_t i = 0; i < key->text.size; i++) h = (h ^ key->text.at[i]) * 0x100000001b3u;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}
