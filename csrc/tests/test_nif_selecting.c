/* Who stops a descriptor that one process selects and another closes (nif/selecting.h): every order of their steps, and both at once. */
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "nif/selecting.h"

/* What erts would have seen: how often it was selected and stopped, and whether it is still selected. */
struct erts {
    int selects, stops, direct, selected;
};

static void erts_select(struct erts *e) {
    CHECK_EQUAL(e->stops + e->direct, 0); /* never what was stopped, or closed */
    e->selects++, e->selected = 1;
}

static void erts_stop(struct erts *e) { e->stops++, e->selected = 0; }

static void close_it(uint32_t *word, struct erts *e) {
    switch (selecting_close(word)) {
    case 1: erts_stop(e); break;
    case 0: e->direct++; break;
    default: break;
    }
}

/* Two parkings of three steps each: the close comes before step `at`, or after the last. */
static void it_is_stopped_once_whenever_the_close_comes(void) {
    for (int at = 0; at <= 6; at++) {
        struct erts e = {0};
        uint32_t word = SELECTING_NONE;
        int began = 0, step = 0;
        for (; step < 6; step++) {
            if (step == at) close_it(&word, &e);
            switch (step % 3) {
            case 0: began = selecting_begin(&word) == 0; break;
            case 1:
                if (began) erts_select(&e);
                break;
            default:
                if (began && selecting_end(&word) == -EPIPE) erts_stop(&e);
            }
        }
        if (step == at) close_it(&word, &e);
        CHECK_EQUAL(e.stops + e.direct, 1);
        CHECK_EQUAL(e.direct, e.selects == 0);
        CHECK_EQUAL(e.selected, 0);
        CHECK_EQUAL(selecting_begin(&word), -EPIPE);
    }
}

static void nobody_selects_it_beside_another(void) {
    uint32_t word = SELECTING_NONE;
    CHECK_EQUAL(selecting_begin(&word), 0);
    CHECK_EQUAL(selecting_begin(&word), -EBUSY);
    CHECK_EQUAL(selecting_end(&word), 0);
    CHECK_EQUAL(selecting_begin(&word), 0);
    CHECK_EQUAL(selecting_close(&word), -EBUSY);
    CHECK_EQUAL(selecting_end(&word), -EPIPE);
}

struct race {
    uint32_t word, go;
    struct erts erts; /* plain: TSan says so if nothing orders the two */
};

static void *parks(void *arg) {
    struct race *r = arg;
    while (!rb_load_acquire(&r->go)) sched_yield();
    for (;;) {
        int rc = selecting_begin(&r->word);
        if (rc < 0) return NULL;
        erts_select(&r->erts);
        if (selecting_end(&r->word) < 0) {
            erts_stop(&r->erts);
            return NULL;
        }
    }
}

static void both_at_once_stop_it_once(void) {
    for (int i = 0; i < 500; i++) {
        struct race r = {0};
        pthread_t thread;
        CHECK_EQUAL(pthread_create(&thread, NULL, parks, &r), 0);
        rb_store_release(&r.go, 1);
        if (i % 2) sched_yield();
        close_it(&r.word, &r.erts);
        pthread_join(thread, NULL);
        CHECK_EQUAL(r.erts.stops + r.erts.direct, 1);
        CHECK_EQUAL(r.erts.selected, 0);
    }
}

int main(void) {
    RUN(it_is_stopped_once_whenever_the_close_comes);
    RUN(nobody_selects_it_beside_another);
    RUN(both_at_once_stop_it_once);
    return check_end();
}
