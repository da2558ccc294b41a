/* expand.h: terms with atom cache references in, the same terms with whole atoms out.
 *
 * Works on any portions of the bytes, so that a signal that comes in pieces is walked once, as it comes. Everything but a
 * reference is copied in runs as long as the portion allows; the bytes of binaries and texts are not looked at. */
#ifndef RB_RELAY_EXPAND_H
#define RB_RELAY_EXPAND_H

#include "relay/net/cache.h"
#include "relay/net/walk.h"

/* Bytes on the heap that count against a budget shared with others. */
struct rb_bytes {
    uint8_t *at;
    size_t size, capacity;
};
struct rb_budget {
    uint64_t used, max;
};
int rb_bytes_put(struct rb_bytes *b, struct rb_budget *budget, const void *p,
                 size_t n); /* 0, -EMSGSIZE: past the budget, -ENOMEM */
void rb_bytes_free(struct rb_bytes *b, struct rb_budget *budget);

enum { RB_EXPAND_FUNS = 16 };

struct rb_expander {
    const struct rb_atom_list *atoms;
    struct rb_walk walk;
    uint8_t held_size, funs;
    uint8_t held[32]; /* a head that is not whole yet */
    /* A fun tells its own size, which grows: where it stands in the output, and how many heads are to come when the fun has
     * ended. One nested more deeply keeps the size that it came with. */
    struct {
        size_t at;
        uint64_t until;
    } fun[RB_EXPAND_FUNS];
};

/* Appends `n` bytes of a signal to `out`, expanded. 0; -EPROTO: no term, or a reference to no atom; or as rb_bytes_put(). */
int rb_expand(struct rb_expander *e, const uint8_t *p, size_t n, struct rb_bytes *out,
              struct rb_budget *budget);
/* `n` bytes of a binary went elsewhere: a payload that was diverted. What the output held until then is gone. */
static inline void rb_expand_pass(struct rb_expander *e, size_t n) { e->walk.raw -= n; }

#endif
