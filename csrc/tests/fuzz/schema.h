/* fuzz/schema.h: a schema, a payload: the walk says what the reference says, whatever form the bytes have; and any program is judged
 * before it is walked. */
#ifndef RINGBRIDGE_FUZZ_SCHEMA_H
#define RINGBRIDGE_FUZZ_SCHEMA_H

#include "../schema_reference.h"

static inline void check_schema(const struct rb_ops_config *ops, const struct bytes *payload) {
    char why[RB_SCHEMA_WHY_BYTES];
    struct bytes exact = exactly(payload->at, payload->size); /* so that a byte too far is seen */
    struct rb_cursor c = rb_cursor_of(slice_of(&exact));
    int whole = rb_term_skip(&c, NULL) == 0 && c.at == c.end;
    for (int is_term = 0; is_term < 2; is_term++) {
        struct rb_schema_spent spent = {0};
        int rc = rb_schema_check(ops, 0, slice_of(&exact), is_term, &spent, why);
        if (rc != 0 && rc != -EINVAL) abort();
        if (!memchr(why, 0, sizeof why) || (rc == 0) != (why[0] == 0)) abort();
        if (!is_term || !whole) continue;
        struct rb_cursor at = rb_cursor_of(slice_of(&exact));
        if (fits(ops, 0, &at) != (rc == 0)) abort();
    }
    bytes_free(&exact);
}

/* One byte: 0, the rest is a program as it stands in memory; else how many of the rest draw the schema, the others the payload:
 * odd, one that fits more or less; even, as it is. */
static inline int fuzz_schema(const uint8_t *data, size_t size) {
    static struct rb_ops_config ops;
    if (size < 2) return 0;
    memset(&ops, 0, sizeof ops);
    ops.table_count = 1;
    memcpy(ops.table[0].name, "op", 3);
    if (data[0] == 0) {
        size_t nodes = (size - 1) / sizeof *ops.nodes;
        if (nodes > RB_SCHEMA_NODES_MAX) nodes = RB_SCHEMA_NODES_MAX;
        memcpy(ops.nodes, data + 1, nodes * sizeof *ops.nodes);
        ops.nodes_count = (uint32_t)nodes;
        ops.text_count = 64;
        if (rb_schema_sound(&ops) < 0) return 0;
        struct bytes payload = exactly(data + 1, size - 1);
        char why[RB_SCHEMA_WHY_BYTES];
        struct rb_schema_spent spent = {0};
        rb_schema_check(&ops, 0, slice_of(&payload), 1, &spent, why);
        rb_schema_check(&ops, 0, slice_of(&payload), 0, &spent, why);
        bytes_free(&payload);
        return 0;
    }
    size_t half = data[0] < size - 1 ? data[0] : size - 1;
    struct choices c = {data + 1, half};
    ops.nodes_count = 1;
    draw_schema(&ops, 0, &c, 4, NULL);
    if (rb_schema_sound(&ops) < 0) abort();
    struct bytes payload = {0};
    c = (struct choices){data + 1 + half, size - 1 - half};
    if (data[0] % 2)
        put_fitting(&payload, &ops, 0, &c);
    else
        put(&payload, c.at, c.left);
    check_schema(&ops, &payload);
    uint64_t seed = 1;
    for (size_t i = 0; i < size; i++) seed = seed * 31 + data[i];
    mutate(&payload, &seed);
    check_schema(&ops, &payload);
    bytes_free(&payload);
    return 0;
}

#endif
