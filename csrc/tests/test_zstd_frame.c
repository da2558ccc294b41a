/* test_zstd_frame.c: what the head of a zstd frame says, and what is refused by it. */
#include "ringbridge/zstd_frame.h"

#include "check.h"
#include "frames.h"

#define MAGIC "\x28\xb5\x2f\xfd"

static void each_form_of_the_content_s_size_is_read(void) {
    static const struct {
        const char *head;
        size_t size;
        uint64_t content;
    } heads[] = {
        {MAGIC "\x20\x07", 6, 7},                    /* one byte, one segment */
        {MAGIC "\x60\x01\x00", 7, 257},              /* two, from 256 on */
        {MAGIC "\x40\x58\xff\xff", 8, 65791},        /* with a window */
        {MAGIC "\xa0\x00\x00\x00\x80", 9, 1u << 31}, /* four */
        {MAGIC "\xe0\x01\x00\x00\x00\x00\x00\x00\x80", 13, 1ull << 63 | 1},
        {MAGIC "\xc4\x58\x02\x00\x00\x00\x00\x00\x00\x00", 14, 2}, /* eight, a window, a checksum */
        {MAGIC "\x30\x07", 6, 7},                                  /* the bit that means nothing */
    };
    uint64_t content;
    const char *rule;
    for (unsigned i = 0; i < sizeof heads / sizeof *heads; i++) {
        for (size_t size = 0; size <= heads[i].size; size++) {
            uint8_t *exact = malloc(size ? size : 1); /* so that a byte too far is seen */
            memcpy(exact, heads[i].head, size);
            int rc = rb_zstd_frame(exact, size, &content, &rule);
            CHECK_EQUAL(rc, size == heads[i].size ? 0 : -EPROTO);
            CHECK((rule == NULL) == (rc == 0));
            free(exact);
        }
        CHECK_EQUAL(content, heads[i].content);
    }
}

static void what_no_link_takes_is_refused_by_its_rule(void) {
    static const struct {
        const char *head, *words;
    } heads[] = {
        {"plain bytes of a caller", "magic"},
        {"\x50\x2a\x4d\x18\x04\x00\x00\x00skip", "magic"}, /* a skippable frame */
        {"\x27\xb5\x2f\xfd\x20\x01\x02\x03", "magic"},     /* of zstd 0.7 */
        {MAGIC "\x00\x58\x02\x03\x04\x05",
         "does not state"}, /* as a stream of unknown length has it */
        {MAGIC "\x28\x07\x02\x03\x04\x05", "reserved"},
        {MAGIC "\x21\x01\x07\x02\x03\x04", "dictionary"},
        {MAGIC "\x23\x01\x07\x02\x03\x04\x05\x06", "dictionary"},
    };
    uint64_t content = 77;
    const char *rule;
    for (unsigned i = 0; i < sizeof heads / sizeof *heads; i++) {
        CHECK_EQUAL(rb_zstd_frame(heads[i].head, 8, &content, &rule), -EPROTO);
        CHECK(strstr(rule, heads[i].words) != NULL);
    }
    CHECK_EQUAL(content, 77); /* as it was */
}

static void frames_made_by_hand_are_frames(void) {
    static uint8_t room[64];
    struct frame f = {.at = room};
    uint64_t content;
    const char *rule;
    frame_make(&f, FRAME_RAW, (const uint8_t *)"hello", 5, 5);
    CHECK_EQUAL(f.size, FRAME_HEAD + 3 + 5);
    CHECK_EQUAL(rb_zstd_frame(f.at, f.size, &content, &rule), 0);
    CHECK_EQUAL(content, 5);
}

int main(void) {
    RUN(each_form_of_the_content_s_size_is_read);
    RUN(what_no_link_takes_is_refused_by_its_rule);
    RUN(frames_made_by_hand_are_frames);
    return check_end();
}
