/* zstd_frame.c: the head of a frame, field by field (zstd_frame.h). */
#include "ringbridge/zstd_frame.h"

#include <errno.h>

static const uint32_t MAGIC = 0xfd2fb528;
enum { DESCRIPTOR_AT = sizeof MAGIC };

static uint64_t little_endian(const uint8_t *at, unsigned size) {
    uint64_t number = 0;
    for (unsigned i = 0; i < size; i++) number |= (uint64_t)at[i] << (8 * i);
    return number;
}

int rb_zstd_frame(const void *bytes, size_t size, uint64_t *content_bytes, const char **rule) {
    static const uint8_t sizes[] = {0, 2, 4, 8}; /* of the content's size, by its flag */
    const uint8_t *head = bytes;
    *rule = "it does not begin with the magic of a zstd frame";
    if (size <= DESCRIPTOR_AT || little_endian(head, DESCRIPTOR_AT) != MAGIC) return -EPROTO;

    unsigned descriptor = head[DESCRIPTOR_AT], single_segment = descriptor >> 5 & 1;
    unsigned number_bytes = sizes[descriptor >> 6];
    if (number_bytes == 0) number_bytes = single_segment; /* then there is a byte for it */
    unsigned at = DESCRIPTOR_AT + 1 + !single_segment;    /* behind the window, where that stands */
    *rule = "its head sets a bit that is reserved";
    if (descriptor & 8) return -EPROTO;
    *rule = "it wants a dictionary";
    if (descriptor & 3) return -EPROTO;
    *rule = "it does not state the size of its content";
    if (number_bytes == 0) return -EPROTO;
    *rule = "its head is cut short";
    if (size < at + number_bytes) return -EPROTO;
    *rule = NULL;
    *content_bytes = little_endian(head + at, number_bytes) + (number_bytes == 2 ? 256 : 0);
    return 0;
}
