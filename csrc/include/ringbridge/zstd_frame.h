/* zstd_frame.h: what the head of a zstd frame says (RFC 8878, section 3.1.1.1), read without decompressing anything.
 *
 *      u32 magic | u8 descriptor | [u8 window] | [u8..u32 dictionary id] | u8..u64 content size | blocks | [u32 checksum]
 *
 * The relay looks at no more than this before it lets a payload in, and a kit before it takes room for the content. */
#ifndef RINGBRIDGE_ZSTD_FRAME_H
#define RINGBRIDGE_ZSTD_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum { RB_ZSTD_HEAD_MAX = 18 }; /* bytes of the longest head */

/* Pure. 0, with the size that the content is said to have; or -EPROTO with the rule that the head breaks: a frame for a
 * link is one of zstd's own (no skippable one, none of the formats before 1.0), states its content's size, and wants no
 * dictionary. */
int rb_zstd_frame(const void *bytes, size_t size, uint64_t *content_bytes, const char **rule);

#endif
