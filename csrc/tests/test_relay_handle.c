/* References that the relay makes: what they say, and that nobody can make one up. */
#include "relay/service/handle.h"
#include "relay/service/pen.h"
#include "terms.h"

static const uint32_t words_of_the_paper[4] = {0x03020100, 0x0b0a0908, 0x13121110, 0x1b1a1918};

/* Beaulieu et al., appendix C, Speck64/128. */
static void the_cipher_is_the_published_one(void) {
    struct rb_seal seal;
    rb_seal_init(&seal, words_of_the_paper);
    CHECK(rb_seal(&seal, 0x3b7265747475432d) == 0x8c6fa548454e028b);
    CHECK(rb_unseal(&seal, 0x8c6fa548454e028b) == 0x3b7265747475432d);
}

static struct rb_slice reference(uint8_t room[64], uint32_t mark, uint64_t number) {
    struct rb_pen p = {room, room};
    uint32_t words[3];
    rb_reference_words(mark, number, words);
    rb_pen_reference(&p, (struct rb_slice)BYTES("b@h"), 5, words);
    return rb_pen_written(&p);
}

static void any_number_comes_back_under_its_own_mark_only(void) {
    uint64_t random = 7, number;
    struct rb_seal seal;
    rb_seal_init(&seal, words_of_the_paper);
    for (int i = 0; i < 10000; i++) {
        uint8_t room[64];
        uint64_t given = check_random(&random) >> i % 64;
        struct rb_slice ref = reference(room, RB_HANDLE_MARK, given);
        CHECK(rb_be32(ref.at + ref.size - 12) < 1 << 18);
        CHECK(rb_reference_number(ref, RB_HANDLE_MARK, &number) == 0 && number == given);
        CHECK(rb_reference_number(ref, RB_WATCH_MARK, &number) < 0);
        CHECK(rb_unseal(&seal, rb_seal(&seal, given)) == given);
    }
}

static void references_of_others_are_told_apart(void) {
    uint8_t room[64];
    uint64_t number;
    struct rb_slice ref = reference(room, RB_HANDLE_MARK, 77);
    CHECK(rb_reference_is_of(ref, (struct rb_slice)BYTES("b@h"), 5));
    CHECK(!rb_reference_is_of(ref, (struct rb_slice)BYTES("b@h"), 6));
    CHECK(!rb_reference_is_of(ref, (struct rb_slice)BYTES("b@i"), 5));
    room[2] = 4; /* words */
    CHECK(rb_reference_number(ref, RB_HANDLE_MARK, &number) < 0);
    for (size_t n = 0; n < 16; n++)
        CHECK(rb_reference_number((struct rb_slice){room, n}, RB_HANDLE_MARK, &number) < 0);
}

int main(void) {
    RUN(the_cipher_is_the_published_one);
    RUN(any_number_comes_back_under_its_own_mark_only);
    RUN(references_of_others_are_told_apart);
    return check_end();
}
