/* term_verdict.h: what rb_term_check() says about an answer, for tests that state it rule by rule.
 */
#ifndef RINGBRIDGE_TESTS_TERM_VERDICT_H
#define RINGBRIDGE_TESTS_TERM_VERDICT_H

#include "ringbridge/term_check.h"
#include "terms.h"

static const struct rb_slice declared[] = {{(const uint8_t *)"declared", 8},
                                           {(const uint8_t *)"\xc3\xa9", 2}};
static const struct rb_term_rules rules = {
    .depth_max = 50, .terms_max = 100000, .atoms = declared, .atoms_count = 2};

static inline struct rb_atom_budget budget_like(const struct rb_atom_budget *b) {
    struct rb_atom_budget copy = {.left = b->left, .known_bytes = b->known_bytes};
    if (b->known_bytes && (copy.known = malloc(b->known_bytes)))
        memcpy(copy.known, b->known, b->known_bytes);
    return copy;
}
/* However small the portions in which it is walked, the verdict is the same. */
static inline int verdict_in_portions(struct rb_slice answer, struct rb_slice request,
                                      const struct rb_term_rules *r,
                                      const struct rb_atom_budget *before, int wanted,
                                      const char *wanted_rule, uint64_t portion) {
    struct rb_atom_budget budget = budget_like(before);
    struct rb_term_walk *w = rb_term_walk_open(answer, request, r, &budget);
    const char *rule = "untouched";
    int rc = -EAGAIN;
    for (uint64_t i = 0; rc == -EAGAIN && i <= 3 * (answer.size + request.size) + 8; i++) {
        uint64_t effort = portion;
        rc = rb_term_walk_on(w, &effort, &rule);
    }
    rb_term_walk_close(w);
    rb_atom_budget_fini(&budget);
    return rc == wanted && strcmp(rule, wanted_rule) == 0;
}

/* NULL when the answer is accepted, else the rule. Answer and request lie where ASan sees every
 * byte read past their ends. */
static inline const char *verdict_of(struct rb_slice answer, struct rb_slice request,
                                     const struct rb_term_rules *r, struct rb_atom_budget *budget) {
    const char *rule = "untouched";
    struct bytes a = exactly(answer.at, answer.size), q = exactly(request.at, request.size);
    struct rb_atom_budget before = budget_like(budget);
    int rc = rb_term_check(slice_of(&a), slice_of(&q), r, budget, &rule);
    CHECK(rc == 0 ? strcmp(rule, "untouched") == 0
                  : rc == -EPROTO && strncmp(rule, "term_", 5) == 0);
    CHECK(verdict_in_portions(slice_of(&a), slice_of(&q), r, &before, rc, rule, 1));
    CHECK(verdict_in_portions(slice_of(&a), slice_of(&q), r, &before, rc, rule, 7));
    rb_atom_budget_fini(&before);
    bytes_free(&a);
    bytes_free(&q);
    return rc == 0 ? NULL : rule;
}

static inline int expect(struct rb_slice answer, struct rb_slice request, const char *wanted) {
    struct rb_atom_budget budget = {0};
    const char *got = verdict_of(answer, request, &rules, &budget);
    int as_wanted = got == wanted || (got && wanted && strcmp(got, wanted) == 0);
    if (!as_wanted) printf("got %s, wanted %s\n", got ? got : "ok", wanted ? wanted : "ok");
    CHECK_EQUAL(budget.left, 0);
    rb_atom_budget_fini(&budget);
    return as_wanted;
}

#define TEXT(text) ((struct rb_slice){(const uint8_t *)(text), sizeof(text) - 1})
#define NOTHING ((struct rb_slice){NULL, 0})
#define ACCEPTED(text) CHECK(expect(TEXT(text), NOTHING, NULL))
#define REFUSED(rule, text) CHECK(expect(TEXT(text), NOTHING, rule))
#define ACCEPTED_BY(request, text) CHECK(expect(TEXT(text), TEXT(request), NULL))
#define REFUSED_BY(request, rule, text) CHECK(expect(TEXT(text), TEXT(request), rule))

/* A map of one or two keys, each to 0. */
#define KEY(key) "\x74\0\0\0\1" key "\x61\0"
#define KEYS(one, two) "\x74\0\0\0\2" one "\x61\0" two "\x61\0"
#define NODE "\x77\3a@b"
#define PID NODE "\0\0\0\1\0\0\0\2\0\0\0\3"

#endif
