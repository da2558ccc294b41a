/* The duct: who sleeps is rung, who is awake is not, and nothing that was put is lost or out of order. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "relay/duct.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { ROUNDS = 20000 };
#else
enum { ROUNDS = 100000 };
#endif

static struct rb_note *note(uint32_t kind) {
    struct rb_note *n = malloc(sizeof *n);
    if (!n) abort();
    *n = (struct rb_note){.kind = kind, .size = sizeof *n};
    return n;
}

static int rung(const struct rb_duct *d) {
    struct pollfd p = {.fd = d->eventfd, .events = POLLIN};
    return poll(&p, 1, 0);
}

/* As both threads do it. 0: nobody rang within a time that no machine needs. */
static int sleep_until_rung(struct rb_duct *d) {
    struct pollfd p = {.fd = d->eventfd, .events = POLLIN};
    rb_duct_hush(d);
    rb_duct_announce(d);
    if (rb_duct_peek(d)) return 1;
    return poll(&p, 1, 10000);
}

static void who_is_awake_is_not_rung(void) {
    struct rb_duct d;
    CHECK_EQUAL(rb_duct_open(&d, 4, 1000), 0);
    CHECK_EQUAL(rb_duct_put(&d, note(1)), 0);
    rb_duct_ring(&d);
    CHECK_EQUAL(rung(&d), 0);
    rb_duct_announce(&d);
    rb_duct_ring(&d);
    CHECK_EQUAL(rung(&d), 1);
    rb_duct_hush(&d);
    rb_duct_ring(&d); /* rung once: it is awake now */
    CHECK_EQUAL(rung(&d), 0);
    rb_duct_announce(&d);
    rb_duct_retract(&d);
    rb_duct_ring(&d);
    CHECK_EQUAL(rung(&d), 0);
    CHECK_EQUAL(rb_duct_peek(&d)->kind, 1);
    rb_duct_close(&d);
}

static void who_sleeps_is_not_rung_for_nothing(void) {
    struct rb_duct d;
    CHECK_EQUAL(rb_duct_open(&d, 4, 1000), 0);
    rb_duct_announce(&d);
    rb_duct_ring(&d); /* nothing was ever put */
    CHECK_EQUAL(rung(&d), 0);
    CHECK_EQUAL(rb_duct_put(&d, note(1)), 0);
    free(rb_duct_take(&d));
    rb_duct_ring(&d); /* all was taken */
    CHECK_EQUAL(rung(&d), 0);
    CHECK_EQUAL(rb_duct_put(&d, note(2)), 0);
    rb_duct_ring(&d); /* it still sleeps, as it has announced */
    CHECK_EQUAL(rung(&d), 1);
    rb_duct_close(&d);
}

static void what_is_full_says_so_and_loses_nothing(void) {
    struct rb_duct d;
    CHECK_EQUAL(rb_duct_open(&d, 2, 1000), 0);
    struct rb_note *third = note(3);
    CHECK_EQUAL(rb_duct_put(&d, note(1)), 0);
    CHECK_EQUAL(rb_duct_put(&d, note(2)), 0);
    CHECK_EQUAL(rb_duct_put(&d, third), -EAGAIN);
    for (uint32_t kind = 1; kind <= 2; kind++) {
        CHECK_EQUAL(rb_duct_peek(&d)->kind, kind);
        struct rb_note *taken = rb_duct_take(&d);
        CHECK_EQUAL(taken->kind, kind);
        free(taken);
    }
    CHECK(!rb_duct_peek(&d) && !rb_duct_take(&d));
    CHECK_EQUAL(rb_duct_put(&d, third), 0);
    rb_duct_close(&d);
}

static struct rb_duct there, back;
static int slept_in_vain; /* read after the join */

/* Sends each note back, sleeping whenever there is none. */
static void *echo(void *unused) {
    (void)unused;
    for (uint32_t i = 0; i < ROUNDS;) {
        struct rb_note *n = rb_duct_take(&there);
        if (n) {
            i++;
            if (rb_duct_put(&back, n) < 0) abort();
            rb_duct_ring(&back);
        } else if (!sleep_until_rung(&there)) {
            slept_in_vain = 1;
            return NULL;
        }
    }
    return NULL;
}

static void no_wake_up_is_lost_between_two_that_sleep(void) {
    pthread_t thread;
    CHECK_EQUAL(rb_duct_open(&there, 16, 1000), 0);
    CHECK_EQUAL(rb_duct_open(&back, 16, 1000), 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, echo, NULL), 0);
    uint32_t sent = 0, come = 0;
    int lost = 0;
    while (come < ROUNDS && !lost) {
        /* Now one, now a few: the other is asleep, going to sleep or awake. */
        for (uint32_t few = 1 + sent % 3; few > 0 && sent < ROUNDS; few--) {
            if (rb_duct_put(&there, note(sent++)) < 0) abort();
            rb_duct_ring(&there);
            if (sent % 5 == 0) sched_yield();
        }
        while (come < sent && !lost) {
            struct rb_note *n = rb_duct_take(&back);
            if (n) {
                if (n->kind != come) CHECK_EQUAL(n->kind, come);
                come++;
                free(n);
            } else {
                lost = !sleep_until_rung(&back);
            }
        }
    }
    CHECK(!lost);
    pthread_join(thread, NULL);
    CHECK(!slept_in_vain);
    rb_duct_close(&there);
    rb_duct_close(&back);
}

int main(void) {
    RUN(who_is_awake_is_not_rung);
    RUN(who_sleeps_is_not_rung_for_nothing);
    RUN(what_is_full_says_so_and_loses_nothing);
    RUN(no_wake_up_is_lost_between_two_that_sleep);
    return check_end();
}
