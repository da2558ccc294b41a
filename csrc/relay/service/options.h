/* options.h: what a request says about its job besides role and payload. Nothing is copied: slices lie in the request. */
#ifndef RB_RELAY_OPTIONS_H
#define RB_RELAY_OPTIONS_H

#include "ringbridge/term.h"

#define RB_WHY_BYTES 384 /* of a text that says what is wrong */

enum {
    RB_TTL_MS_MAX = 24 * 3600 * 1000,
    RB_RETRY_MAX = 100,
    RB_KEY_BYTES_MAX = 255,  /* of an atom's or a binary's text */
    RB_META_BYTES_MAX = 512, /* as a term */
    RB_STAGES_MAX = 16,      /* behind the first */
};

/* A key: binary, atom or integer. The three are apart: "a", :a and 97 are three keys. */
struct rb_key {
    uint8_t kind; /* 0: none; 'b', 'a', 'i' */
    struct rb_slice text;
    int64_t number;
};

struct rb_options {
    uint16_t opcode;
    uint8_t has_opcode;
    uint8_t priority; /* 0 critical .. 3 low */
    uint8_t has_timeout, detail;
    uint8_t finish;  /* orphan: :finish */
    uint8_t encoded; /* encoding: :zstd */
    uint8_t accepts; /* accept: :zstd */
    uint8_t trace_flags;
    uint8_t trace_id[16], span_id[8];
    uint32_t retry;
    uint64_t timeout_ms; /* UINT64_MAX: infinity */
    uint64_t ttl_ms;     /* of `dedupe` */
    struct rb_slice op;  /* an operation's name; empty: none */
    struct rb_slice tenant;
    struct rb_slice stages; /* a proper list of steps (step.h); empty: none */
    struct rb_slice meta;   /* a map, as a term; empty: none */
    struct rb_key key;      /* affinity */
    struct rb_key dedupe;
};

/* Those of a request that gives none. */
void rb_options_default(struct rb_options *o);
/* A map or a keyword list at the cursor, which moves past it. 0; -EINVAL with `why`; -EAGAIN when cut, -EPROTO when malformed. `verb`:
 * of the request, for the text. */
int rb_options_read(struct rb_cursor *c, struct rb_options *o, const char *verb,
                    char why[RB_WHY_BYTES]);

/* The same key gives the same number, from any node and after a restart too. */
uint64_t rb_key_hash(const struct rb_key *key);

#endif
