/* CRC-32C: the published vectors, and its forms held against each other. */
#include "check.h"
#include "ringbridge/crc32c.h"

typedef uint32_t (*crc_form)(uint32_t crc, const void *data, size_t size);

/* The definition, bit by bit. */
static uint32_t by_definition(const uint8_t *data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static const crc_form *forms(int *count) {
    static const crc_form all[] = {rb_crc32c, rb_crc32c_table, rb_crc32c_hardware};
    *count = rb_crc32c_has_hardware() ? 3 : 2;
    return all;
}

/* RFC 3720, appendix B.4, and the check value of the catalogues. */
static void every_form_gives_the_published_values(void) {
    static const uint8_t read_pdu[48] = {0x01,        0xc0,        [16] = 0x14, [22] = 0x04,
                                         [27] = 0x14, [31] = 0x18, 0x28,        [40] = 0x02};
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    int count;
    const crc_form *form = forms(&count);
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) {
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    for (int i = 0; i < count; i++) {
        CHECK_EQUAL(form[i](0, zeros, 32), 0x8a9136aau);
        CHECK_EQUAL(form[i](0, ones, 32), 0x62a8ab43u);
        CHECK_EQUAL(form[i](0, up, 32), 0x46dd794eu);
        CHECK_EQUAL(form[i](0, down, 32), 0x113fdb5cu);
        CHECK_EQUAL(form[i](0, read_pdu, 48), 0xd9963a56u);
        CHECK_EQUAL(form[i](0, "123456789", 9), 0xe3069283u);
        CHECK_EQUAL(form[i](0, NULL, 0), 0);
    }
}

static uint8_t text[64 + 3 * 4096 * 2 + 3 * 256 + 64];

static void fill(void) {
    uint64_t state = 7;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(check_random(&state) >> 33);
}

static void every_length_and_alignment_agrees_with_the_definition(void) {
    int count;
    const crc_form *form = forms(&count);
    fill();
    for (size_t at = 0; at < 8; at++)
        for (size_t size = 0; size <= 300; size++) {
            uint32_t wanted = by_definition(text + at, size);
            for (int i = 0; i < count; i++) CHECK_EQUAL(form[i](0, text + at, size), wanted);
        }
}

/* Where three streams begin (3 * 256 and 3 * 4096 bytes), and where they are followed by each other
 * and by a rest. */
static void the_three_stream_thresholds_agree_with_the_definition(void) {
    static const size_t near[] = {768,   1536,        4096,      8192,
                                  12288, 12288 + 768, 2 * 12288, 2 * 12288 + 768};
    int count;
    const crc_form *form = forms(&count);
    fill();
    for (size_t n = 0; n < sizeof near / sizeof *near; n++)
        for (size_t size = near[n] - 9; size <= near[n] + 9; size++)
            for (size_t at = 0; at < 3; at++) {
                uint32_t wanted = by_definition(text + at, size);
                for (int i = 0; i < count; i++) CHECK_EQUAL(form[i](0, text + at, size), wanted);
            }
}

/* Where folding begins (1024 bytes), each of its first steps (256), and every length of a rest. */
static void the_folding_thresholds_agree_with_the_definition(void) {
    int count;
    const crc_form *form = forms(&count);
    fill();
    for (size_t size = 1000; size <= 2100; size++) {
        uint32_t wanted = by_definition(text + size % 67, size);
        for (int i = 0; i < count; i++) CHECK_EQUAL(form[i](0, text + size % 67, size), wanted);
    }
}

static void a_crc_continued_is_the_crc_of_the_whole(void) {
    int count;
    const crc_form *form = forms(&count);
    uint64_t state = 11;
    fill();
    for (int round = 0; round < 300; round++) {
        size_t size = check_random(&state) % sizeof text,
               cut = size ? check_random(&state) % size : 0;
        for (int i = 0; i < count; i++)
            for (int j = 0; j < count; j++)
                CHECK_EQUAL(form[i](form[j](0, text, cut), text + cut, size - cut),
                            rb_crc32c(0, text, size));
    }
}

/* Where pieces begin (8192 bytes), and with any alignment of either side. */
static void a_copy_is_whole_and_has_the_crc_of_its_bytes(void) {
    static const size_t sizes[] = {0, 1, 63, 1024, 8191, 8192, 8193, 3 * 8192, 3 * 8192 + 1};
    static uint8_t copy[sizeof text + 2];
    fill();
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (size_t at = 0; at < 3; at++) {
            memset(copy, 0xa5, sizeof copy);
            CHECK_EQUAL(rb_crc32c_copy(17, copy + 1, text + at, sizes[n]),
                        rb_crc32c(17, text + at, sizes[n]));
            CHECK_EQUAL(memcmp(copy + 1, text + at, sizes[n]), 0);
            CHECK(copy[0] == 0xa5 && copy[1 + sizes[n]] == 0xa5);
        }
}

static void two_crcs_joined_are_the_crc_of_the_whole(void) {
    uint64_t state = 13;
    fill();
    for (int round = 0; round < 300; round++) {
        size_t size = check_random(&state) % sizeof text,
               cut = round % 3 && size ? check_random(&state) % size : size;
        CHECK_EQUAL(rb_crc32c_join(rb_crc32c(0, text, cut), rb_crc32c(0, text + cut, size - cut),
                                   size - cut),
                    rb_crc32c(0, text, size));
    }
    /* More than could be tried: x has the order 2^31 - 1, so that the 2^34 bits of 2^31 bytes do what 8 do. */
    uint32_t few = rb_crc32c_join(0x12345678, 0, 1);
    CHECK_EQUAL(rb_crc32c_join(0x12345678, 0, (size_t)1 << 31), few);
}

int main(void) {
    RUN(every_form_gives_the_published_values);
    RUN(every_length_and_alignment_agrees_with_the_definition);
    RUN(the_three_stream_thresholds_agree_with_the_definition);
    RUN(the_folding_thresholds_agree_with_the_definition);
    RUN(a_crc_continued_is_the_crc_of_the_whole);
    RUN(a_copy_is_whole_and_has_the_crc_of_its_bytes);
    RUN(two_crcs_joined_are_the_crc_of_the_whole);
    return check_end();
}
