#include "ringbridge/version.h"

#include <stdio.h>
#include <string.h>

/* The minors of this major that came before, each as it was released. */
static const struct rb_layout_older older[] = {
    {.id = {.version = 0x00030000,
            .digest = {0xf3, 0x18, 0x50, 0xdd, 0x34, 0x0a, 0x41, 0xa1, 0xf1, 0x2e, 0x09,
                       0xf7, 0xf9, 0x90, 0x7c, 0x4e, 0xd2, 0x1a, 0x73, 0x3b, 0x4b, 0x27,
                       0xad, 0xd5, 0x5a, 0xd2, 0xc9, 0x1c, 0xd0, 0x2f, 0x11, 0xbb}},
     .lacks = "compressed payloads"},
};
enum { OLDER = sizeof older / sizeof *older };

static uint32_t major_of(uint32_t version) { return version >> 16; }
static uint32_t minor_of(uint32_t version) { return version & 0xffff; }
static int same_digest(const struct rb_layout_id *a, const struct rb_layout_id *b) {
    return memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

enum rb_layout_kin rb_layout_judge(const struct rb_layout_id *ours,
                                   const struct rb_layout_id *theirs,
                                   const struct rb_layout_older *known, unsigned count) {
    if (theirs->version == ours->version)
        return same_digest(ours, theirs) ? RB_LAYOUT_SAME : RB_LAYOUT_STRANGE;
    if (major_of(theirs->version) != major_of(ours->version)) return RB_LAYOUT_STRANGE;
    if (theirs->version > ours->version) return RB_LAYOUT_NEWER;
    for (unsigned i = 0; i < count; i++)
        if (known[i].id.version == theirs->version && same_digest(&known[i].id, theirs))
            return RB_LAYOUT_OLDER;
    return RB_LAYOUT_STRANGE;
}

static struct rb_layout_id id_of(uint32_t version, const void *digest) {
    struct rb_layout_id id = {.version = version};
    memcpy(id.digest, digest, sizeof id.digest);
    return id;
}

enum rb_layout_kin rb_layout_kin(uint32_t version, const uint8_t *digest) {
    struct rb_layout_id ours = id_of(RB_LAYOUT_VERSION, RB_LAYOUT_DIGEST_BYTES);
    struct rb_layout_id theirs = id_of(version, digest);
    return rb_layout_judge(&ours, &theirs, older, OLDER);
}

static const char *way_out(uint32_t version) {
    if (version == RB_LAYOUT_VERSION)
        return "one version with two digests: one side was built from an edited csrc/layout.toml";
    if (major_of(version) != major_of(RB_LAYOUT_VERSION))
        return "majors do not mix: build the worker with the kit of the bridge that it is for";
    return "no layout of that version was released with this digest: build both from one release";
}

void rb_layout_mismatch(const char *stranger, uint32_t version, const uint8_t *digest,
                        const char *self, char *why, uint64_t why_bytes) {
    char hex[2 * RB_LAYOUT_DIGEST_SIZE + 1];
    for (int i = 0; i < RB_LAYOUT_DIGEST_SIZE; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    snprintf(
        why, (size_t)why_bytes,
        "%s was built for layout version %u.%u, digest %s; %s has version %u.%u, digest %s (%s)",
        stranger, major_of(version), minor_of(version), hex, self, major_of(RB_LAYOUT_VERSION),
        minor_of(RB_LAYOUT_VERSION), RB_LAYOUT_DIGEST_HEX, way_out(version));
}
