/* atom_writer.h: a sender with an atom cache, played by the test: what put_atom() writes becomes references, and a header names
 * them. It follows the text of the distribution header's chapter and shares nothing with the relay's own sender. */
#ifndef RINGBRIDGE_TESTS_ATOM_WRITER_H
#define RINGBRIDGE_TESTS_ATOM_WRITER_H

#include "terms.h"

enum { WRITER_SLOTS = 2048 };

/* The atoms of the signal that is being written, by index. */
struct atoms_named {
    unsigned count;
    char text[255][64];
};
static struct atoms_named atoms_now;

struct atom_sender {
    char slot[WRITER_SLOTS][64];
    unsigned char used[WRITER_SLOTS];
    unsigned slots; /* so many are in use: few make later headers take those of earlier ones */
    int long_atoms;
};

static inline void write_reference(struct bytes *b, const char *text) {
    unsigned i = 0;
    while (i < atoms_now.count && strcmp(atoms_now.text[i], text)) i++;
    if (i == atoms_now.count) strcpy(atoms_now.text[atoms_now.count++], text);
    put_u8(b, 82);
    put_u8(b, i);
}

static inline void begin_references(void) {
    atoms_now.count = 0;
    atom_writer = write_reference;
}
static inline struct atoms_named end_references(void) {
    atom_writer = NULL;
    return atoms_now;
}

/* The references of a header, from its count on. To be made in the order in which headers are sent. */
static inline void put_references(struct bytes *b, struct atom_sender *s,
                                  const struct atoms_named *atoms) {
    uint8_t flags[129] = {0};
    struct bytes refs = {0};
    unsigned n = atoms->count;
    put_u8(b, n);
    if (n == 0) return;
    for (unsigned i = 0; i < n; i++) {
        uint32_t hash = 5381;
        for (const char *p = atoms->text[i]; *p; p++) hash = hash * 33 + (uint8_t)*p;
        unsigned slot = hash % s->slots * 97 % WRITER_SLOTS, how = slot >> 8;
        int known = s->used[slot] && !strcmp(s->slot[slot], atoms->text[i]);
        size_t size = strlen(atoms->text[i]);
        put_u8(&refs, slot & 255);
        if (!known) {
            how |= 8;
            if (s->long_atoms)
                put_u16(&refs, (unsigned)size);
            else
                put_u8(&refs, (unsigned)size);
            put(&refs, atoms->text[i], size);
            s->used[slot] = 1;
            strcpy(s->slot[slot], atoms->text[i]);
        }
        flags[i / 2] |= (uint8_t)(how << 4 * (i % 2));
    }
    flags[n / 2] |= (uint8_t)((s->long_atoms ? 1 : 0) << 4 * (n % 2));
    put(b, flags, n / 2 + 1);
    put(b, refs.at, refs.size);
    bytes_free(&refs);
}

#endif
