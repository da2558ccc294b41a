/* buffer.h: bytes on their way out, appended at the end and taken from the begin. */
#ifndef RB_RELAY_BUFFER_H
#define RB_RELAY_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct rb_buffer {
    uint8_t *at;
    size_t begin, end, capacity;
};
/* Room for `size` more bytes at the end, or NULL. */
uint8_t *rb_buffer_room(struct rb_buffer *b, size_t size);
int rb_buffer_put(struct rb_buffer *b, const void *bytes, size_t size); /* 0 or -ENOMEM */

#endif
