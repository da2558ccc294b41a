/* version.h: may two sides that were built apart share a link?
 *
 * A layout's version is major << 16 | minor, and its digest says what it really is (layout.toml). A minor may give meaning to what was
 * zero before (reserved bytes, unused words of the positions pages, new bits and codes that the other side is told of first), and
 * moves, resizes or redefines nothing; all else is a new major. Hence a side that knows less reads zeros where the other has more, and
 * zero always means "there is none".
 *
 *   same version       the digests must be equal: one version is one layout
 *   same major         the newer side judges. It knows the digests of its major's older minors, and what they lack; the older one
 *                      cannot know what comes after it, and leaves it to the other
 *   another major      refused, with both versions and both digests */
#ifndef RINGBRIDGE_VERSION_H
#define RINGBRIDGE_VERSION_H

#include <stdint.h>

#include "ringbridge/layout.h"

enum rb_layout_kin {
    RB_LAYOUT_SAME,
    RB_LAYOUT_NEWER, /* theirs: a later minor, and they have judged us, or will */
    RB_LAYOUT_OLDER, /* theirs: an earlier minor that we know */
    RB_LAYOUT_STRANGE,
};

struct rb_layout_id {
    uint32_t version;
    uint8_t digest[RB_LAYOUT_DIGEST_SIZE];
};
struct rb_layout_older {
    struct rb_layout_id id;
    const char *lacks; /* in words, for the log */
};

/* Pure. `known`: the older minors of our major. */
enum rb_layout_kin rb_layout_judge(const struct rb_layout_id *ours,
                                   const struct rb_layout_id *theirs,
                                   const struct rb_layout_older *known, unsigned count);
/* By what this program was built with; `digest` as it lies in a header. */
enum rb_layout_kin rb_layout_kin(uint32_t version, const uint8_t *digest);
/* Says that `stranger` has another layout than `self`, with both versions, both digests in hex, and the way out. */
void rb_layout_mismatch(const char *stranger, uint32_t version, const uint8_t *digest,
                        const char *self, char *why, uint64_t why_bytes);

#endif
