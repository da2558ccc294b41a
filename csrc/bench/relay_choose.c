/* bench/relay_choose.c: what it costs to choose a worker for a job and to note that the job is done, in instructions: run under
 * callgrind by bench/choose_cost.
 *
 *      relay_choose shortest|turn|two|weighted|few|key  WORKERS  free|full  JOBS
 *
 * free: every worker has room. full: all but one have as many jobs as they may, and the one that ends a job gets the next. `few` is what
 * stood here before: the best of at most eight with room, looked for all round the table. `key`: whose key it is. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/dispatch/anchor.h"
#include "relay/dispatch/choose.h"

enum { MOST = 1000, CREDIT = 8, FEW = 8 };

static struct rb_choice choice;
static struct rb_choice_member members[MOST];
static struct rb_anchor anchor;
static struct rb_anchor_member owners[MOST];
static uint32_t loads[MOST], count, turn;
static uint64_t seed = 1;

static uint64_t random_next(void) {
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

__attribute__((noinline)) static uint32_t few(void) {
    uint32_t best = UINT32_MAX, looked = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t w = (turn + i) % count;
        if (loads[w] >= CREDIT) continue;
        if (best == UINT32_MAX || loads[w] < loads[best]) best = w;
        if (loads[best] == 0 || ++looked == FEW) break;
    }
    turn++;
    return best;
}

__attribute__((noinline)) void choose_in(const char *how, uint64_t chance, uint32_t *w) {
    if (how[0] == 'f') {
        *w = few();
        loads[*w]++;
    } else if (how[0] == 'k') {
        *w = (uint32_t)(rb_anchor_owner(&anchor, chance) - owners);
    } else {
        struct rb_choice_member *m = rb_choice_pick(&choice, chance);
        *w = (uint32_t)(m - members);
        if (++loads[*w] < CREDIT)
            rb_choice_open(&choice, m, loads[*w]);
        else
            rb_choice_shut(&choice, m);
    }
}

__attribute__((noinline)) void choose_out(const char *how, uint32_t w) {
    if (how[0] == 'k') return;
    loads[w]--;
    if (how[0] != 'f') rb_choice_open(&choice, &members[w], loads[w]);
}

static enum rb_choice_kind kind_of(const char *how) {
    return strcmp(how, "turn") == 0       ? RB_CHOOSE_IN_TURN
           : strcmp(how, "two") == 0      ? RB_CHOOSE_OF_TWO
           : strcmp(how, "weighted") == 0 ? RB_CHOOSE_BY_WEIGHT
                                          : RB_CHOOSE_SHORTEST;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    const char *how = argv[1];
    count = (uint32_t)strtoul(argv[2], NULL, 10);
    int full = strcmp(argv[3], "full") == 0;
    uint32_t jobs = (uint32_t)strtoul(argv[4], NULL, 10), w = 0;
    if (count < 1 || count > MOST) return 2;
    rb_choice_init(&choice, kind_of(how));
    rb_anchor_init(&anchor);
    if (rb_choice_reserve(&choice, count) < 0 || count == 0) return 1;
    for (uint32_t i = 0; i < count; i++) {
        rb_choice_member_init(&members[i]);
        rb_choice_weigh(&choice, &members[i], 1 + i % 3, RB_CHOICE_WHOLE);
        rb_anchor_set(&anchor, &owners[i], 1);
        loads[i] = full ? CREDIT : (uint32_t)(random_next() % (CREDIT / 2));
        if (!full) rb_choice_open(&choice, &members[i], loads[i]);
    }
    for (uint32_t i = 0; i < jobs; i++) {
        uint32_t done = (uint32_t)(random_next() % count);
        while (loads[done] == 0) done = (done + 1) % count;
        choose_out(how, done);
        choose_in(how, random_next(), &w);
    }
    return 0;
}
