/* test_relay_row.c: one job of a key at a time, in the order of coming: against a model of plain lists (relay/dispatch/row.h). */
#include "relay/dispatch/row.h"

#include "check.h"

enum { JOBS = 3000, KEYS = 700 };

static struct rb_rows rows;
static struct rb_in_row jobs[JOBS];
static int key_of[JOBS], may_go[JOBS]; /* -1: in no row */
static uint32_t came[JOBS], clock_of_all;

/* Who of this key came first, of all that are not over. */
static int first_of(int key) {
    int first = -1;
    for (int i = 0; i < JOBS; i++) {
        if (key_of[i] == key && (first < 0 || came[i] < came[first])) first = i;
    }
    return first;
}

static void only_the_first_of_a_key_may_go_and_the_next_follows_it(void) {
    uint64_t seed = 3;
    memset(key_of, -1, sizeof key_of);
    for (int step = 0; step < 60000; step++) {
        int i = (int)(check_random(&seed) % JOBS);
        /* Waves: long rows, then few. */
        int join = (int)(check_random(&seed) % 100) < (step / 6000 % 2 ? 30 : 70);
        if (key_of[i] < 0 && join) {
            key_of[i] = (int)(check_random(&seed) % KEYS);
            came[i] = ++clock_of_all;
            /* Many keys in one bucket: the low bits alone would find it. */
            may_go[i] = rb_row_join(&rows, &jobs[i], (uint64_t)key_of[i] << 6);
            CHECK_EQUAL(may_go[i], first_of(key_of[i]) == i);
        } else if (key_of[i] >= 0 && !join) {
            int key = key_of[i], was_first = may_go[i];
            key_of[i] = -1;
            struct rb_in_row *next = rb_row_leave(&rows, &jobs[i]);
            int wanted = was_first ? first_of(key) : -1;
            CHECK_EQUAL(next ? next - jobs : -1, wanted);
            CHECK(!jobs[i].row);
            if (next) may_go[next - jobs] = 1;
        }
        if (step % 500 == 0) {
            uint32_t used = 0;
            for (int key = 0; key < KEYS; key++) used += first_of(key) >= 0;
            CHECK_EQUAL(rows.count, used);
        }
    }
    rb_rows_fini(&rows);
}

static void rows_of_the_past_take_no_more_room(void) {
    for (uint64_t key = 0; key < 100000; key++) {
        CHECK_EQUAL(rb_row_join(&rows, &jobs[0], key), 1);
        CHECK(!rb_row_leave(&rows, &jobs[0]));
    }
    CHECK_EQUAL(rows.chunk_count, 1);
    CHECK_EQUAL(rows.count, 0);
    rb_rows_fini(&rows);
}

int main(void) {
    RUN(only_the_first_of_a_key_may_go_and_the_next_follows_it);
    RUN(rows_of_the_past_take_no_more_room);
    return check_end();
}
