/* What a request says about its job: tenant, key, retry, dedupe and ttl, meta, orphan; each value's bounds. Forms and the older
 * options: test_relay_request.c. */
#include "relay/service/options.h"
#include "terms.h"

static char why[RB_WHY_BYTES];

/* One option. The slices of `o` lie in `b`. */
static int read_one(struct bytes *b, const char *name, const struct bytes *value,
                    struct rb_options *o) {
    *b = (struct bytes){0};
    put_map(b, 1);
    put_atom(b, name);
    put(b, value->at, value->size);
    struct rb_cursor c = rb_cursor_of(slice_of(b));
    rb_options_default(o);
    why[0] = 0;
    return rb_options_read(&c, o, "submit", why);
}

static struct bytes text(int atom, size_t size) {
    struct bytes b = {0};
    char letters[512];
    memset(letters, 'k', size);
    letters[size] = 0;
    if (atom)
        put_atom(&b, letters);
    else
        put_binary(&b, letters, (uint32_t)size);
    return b;
}
static struct bytes integer(int64_t v) {
    struct bytes b = {0};
    put_integer(&b, v);
    return b;
}
static struct bytes literal(const void *p, size_t n) {
    struct bytes b = {0};
    put(&b, p, n);
    return b;
}

static void expect(const char *name, struct bytes value, int rc, struct rb_options *o) {
    struct bytes b;
    int got = read_one(&b, name, &value, o);
    if (got != rc) printf("%s: %d %s\n", name, got, why);
    CHECK_EQUAL(got, rc);
    bytes_free(&value);
    bytes_free(&b);
}

static void numbers_have_bounds(void) {
    struct rb_options o;
    expect("retry", integer(100), 0, &o);
    CHECK_EQUAL(o.retry, 100);
    expect("retry", integer(101), -EINVAL, &o);
    CHECK(strcmp(why, "submit: retry must be an integer of 0..100, got 101") == 0);
    expect("retry", integer(-1), -EINVAL, &o);
    expect("ttl", integer(RB_TTL_MS_MAX + 1), -EINVAL, &o);
    CHECK(strcmp(why, "submit: ttl must be milliseconds, at most 86400000 (a day), got 86400001") ==
          0);
    expect("ttl", integer(5), -EINVAL, &o);
    CHECK(strcmp(why, "submit: ttl says how long the answer of a dedupe key is kept; there is no "
                      "dedupe") == 0);
    expect("ttl", integer(0), 0, &o);
}

static void words_are_the_known_ones(void) {
    struct rb_options o;
    expect("orphan",
           literal("\x77\6"
                   "finish",
                   8),
           0, &o);
    CHECK_EQUAL(o.finish, 1);
    expect("orphan",
           literal("\x77\6"
                   "cancel",
                   8),
           0, &o);
    CHECK_EQUAL(o.finish, 0);
    expect("orphan", integer(1), -EINVAL, &o);
    CHECK(strcmp(why, "submit: orphan must be :cancel or :finish, got 1") == 0);
}

static void texts_have_bounds(void) {
    struct rb_options o;
    for (int atom = 0; atom < 2; atom++) {
        expect("tenant", text(atom, 64), 0, &o);
        CHECK_EQUAL(o.tenant.size, 64);
        expect("tenant", text(atom, 65), -EINVAL, &o);
        expect("tenant", text(atom, 0), -EINVAL, &o);
        expect("key", text(atom, 255), 0, &o);
        CHECK(o.key.kind == (atom ? 'a' : 'b') && o.key.text.size == 255);
        expect("dedupe", text(atom, 255), 0, &o);
        CHECK(o.dedupe.kind == (atom ? 'a' : 'b') && !o.key.kind);
    }
    expect("key", text(0, 256), -EINVAL, &o);
    CHECK(strcmp(why, "submit: key must be a binary or an atom of at most 255 bytes, or an "
                      "integer, got a binary of 256 bytes") == 0);
    expect("tenant", integer(7), -EINVAL, &o);
}

static void a_key_may_be_any_integer_of_64_bits(void) {
    struct rb_options o;
    const int64_t good[] = {0, 255, 256, -1, INT32_MIN, INT32_MAX, INT64_MAX};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        expect("key", integer(good[i]), 0, &o);
        CHECK(o.key.kind == 'i' && o.key.number == good[i]);
    }
    /* ei writes small numbers in four bytes, a BEAM in one: the same key. */
    expect("key", literal("\x62\0\0\0\x07", 5), 0, &o);
    CHECK_EQUAL(o.key.number, 7);
    expect("key", literal("\x6e\x09\0\1\1\1\1\1\1\1\1\1", 12), -EINVAL, &o);
    expect("key", literal("\x46\0\0\0\0\0\0\0\0", 9), -EINVAL, &o);
}

static void keys_of_different_kinds_differ(void) {
    static const struct rb_key keys[] = {
        {'b', {(const uint8_t *)"a", 1}, 0},
        {'a', {(const uint8_t *)"a", 1}, 0},
        {'i', {NULL, 0}, 97},
        {'b', {(const uint8_t *)"", 0}, 0},
        {'i', {NULL, 0}, 0},
        {'b', {(const uint8_t *)"b", 1}, 0},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        CHECK_EQUAL(rb_key_hash(&keys[i]), rb_key_hash(&keys[i]));
        for (size_t k = 0; k < i; k++) CHECK(rb_key_hash(&keys[i]) != rb_key_hash(&keys[k]));
    }
}

static void meta_is_a_small_map(void) {
    struct rb_options o;
    struct bytes value = {0};
    put_map(&value, 1);
    put_atom(&value, "note");
    static const char zeros[512];
    put_binary(&value, zeros, 512 - 5 - 6 - 5);
    CHECK_EQUAL(value.size, RB_META_BYTES_MAX);
    struct bytes more = literal(value.at, value.size);
    expect("meta", value, 0, &o);
    CHECK_EQUAL(o.meta.size, RB_META_BYTES_MAX);
    more.at[12 + 3]++;
    put_u8(&more, 0);
    CHECK_EQUAL(more.size, RB_META_BYTES_MAX + 1);
    expect("meta", more, -EINVAL, &o);
    CHECK(strcmp(why, "submit: meta must be a map of at most 512 bytes as a term, 32 deep, got a "
                      "map") == 0);
    expect("meta", literal("\x6a", 1), -EINVAL, &o);
    expect("meta", literal("\x74\0\0\0\0", 5), 0, &o);
}

int main(void) {
    RUN(numbers_have_bounds);
    RUN(words_are_the_known_ones);
    RUN(texts_have_bounds);
    RUN(a_key_may_be_any_integer_of_64_bits);
    RUN(keys_of_different_kinds_differ);
    RUN(meta_is_a_small_map);
    return check_end();
}
