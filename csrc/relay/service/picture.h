/* picture.h: a value as an error text shows it. */
#ifndef RB_RELAY_PICTURE_H
#define RB_RELAY_PICTURE_H

#include "ringbridge/term.h"

enum { RB_PICTURE_BYTES = 64 };

/* Integers and atoms as they are, the rest by kind and size. `term` is one whole term. */
void rb_picture(struct rb_slice term, char out[RB_PICTURE_BYTES]);
/* How much of a text is shown: at most 40 bytes, and no part of a character (UTF-8, as BEAMs send atoms). */
int rb_picture_size(struct rb_slice text);

#endif
