#include "relay/net/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint8_t *rb_buffer_room(struct rb_buffer *b, size_t size) {
    if (b->begin == b->end) b->begin = b->end = 0;
    if (b->end + size > b->capacity) {
        /* Moved only when a good part is free: else a backlog of many megabytes would be moved for every few bytes that leave. */
        if (b->begin >= b->capacity / 4 && b->end - b->begin + size <= b->capacity) {
            memmove(b->at, b->at + b->begin, b->end - b->begin);
        } else {
            size_t grown = b->capacity ? b->capacity * 2 : 16384;
            while (grown < b->end - b->begin + size) grown *= 2;
            uint8_t *at = malloc(grown);
            if (!at) return NULL;
            if (b->at) memcpy(at, b->at + b->begin, b->end - b->begin);
            free(b->at);
            b->at = at;
            b->capacity = grown;
        }
        b->end -= b->begin;
        b->begin = 0;
    }
    return b->at + b->end;
}

int rb_buffer_put(struct rb_buffer *b, const void *bytes, size_t size) {
    if (size == 0) return 0; /* an empty buffer has no memory to point into */
    uint8_t *room = rb_buffer_room(b, size);
    if (!room) return -ENOMEM;
    memcpy(room, bytes, size);
    b->end += size;
    return 0;
}
