/* fuzz/term_check.h: any answer gets a verdict; what is accepted is whole, and is accepted again.
 */
#ifndef RINGBRIDGE_FUZZ_TERM_CHECK_H
#define RINGBRIDGE_FUZZ_TERM_CHECK_H

#include "../terms.h"
#include "ringbridge/term_check.h"

/* Two bytes: how much of the rest is the request. One: how many new atoms are allowed. */
static inline int fuzz_term_check(const uint8_t *data, size_t size) {
    static const struct rb_slice declared[] = {BYTES("declared")};
    static const struct rb_term_rules rules = {
        .depth_max = 100, .terms_max = 10000, .atoms = declared, .atoms_count = 1};
    if (size < 3) return 0;
    size_t request_size = rb_be16(data);
    struct rb_atom_budget budget = {.left = data[2] % 8};
    if (request_size > size - 3) request_size = size - 3;
    struct bytes request = exactly(data + 3, request_size);
    struct bytes answer = exactly(data + 3 + request_size, size - 3 - request_size);
    const char *rule = NULL;
    int rc = rb_term_check(slice_of(&answer), slice_of(&request), &rules, &budget, &rule);
    if (rc < 0 ? rule == NULL : rule != NULL) abort();
    if (rc == 0) {
        struct rb_cursor c = rb_cursor_of(slice_of(&answer));
        if (rb_term_skip(&c, NULL) < 0 || c.at != c.end) abort();
        /* Its atoms are paid for: the same answer costs nothing now. */
        uint32_t left = budget.left;
        if (rb_term_check(slice_of(&answer), slice_of(&request), &rules, &budget, &rule) != 0)
            abort();
        if (budget.left != left) abort();
    }
    rb_atom_budget_fini(&budget);
    bytes_free(&request);
    bytes_free(&answer);
    return 0;
}

#endif
