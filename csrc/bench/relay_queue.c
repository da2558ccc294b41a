/* bench/relay_queue.c: what the queue costs for one job, in and out, in instructions: run under callgrind by bench/queue_cost.
 *
 *      relay_queue plain|timeouts|bands|tenants DEPTH JOBS
 *
 * DEPTH jobs wait all the time; JOBS times one goes to a worker and another comes. Memory is touched all over, as in a relay. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/dispatch/job.h"
#include "relay/dispatch/queue.h"
#include "relay/dispatch/tenant.h"

enum { TENANTS = 200 };

static uint64_t state = 1;
static uint64_t below(uint64_t n) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(0x2545f4914f6cdd1d) >> 33) % n;
}

/* The two that are counted. */
__attribute__((noinline)) static struct rb_job *queue_out(struct rb_queue *q, uint64_t now) {
    struct rb_job *j = rb_queue_first(q, now);
    rb_queue_take(q, j);
    return j;
}
__attribute__((noinline)) static void queue_in(struct rb_queue *q, struct rb_job *j, uint64_t now) {
    rb_queue_push(q, j, now);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const char *kind = argv[1];
    uint64_t depth = strtoull(argv[2], NULL, 10), jobs = strtoull(argv[3], NULL, 10), now = 1;
    struct rb_tenants tenants;
    struct rb_tenant *tenant[TENANTS];
    struct rb_queue q;
    struct rb_job *table = calloc(depth, sizeof *table);
    if (!table || rb_tenants_init(&tenants, TENANTS, 1) < 0) return free(table), 1;
    for (uint32_t i = 0; i < TENANTS; i++)
        tenant[i] = rb_tenant_hold(&tenants, (struct rb_slice){(const uint8_t *)&i, sizeof i});
    rb_queue_init(&q, &(struct rb_order_config){.aging_ms = 1000, .patience_ms = 2000});
    for (uint64_t i = 0; i < depth + jobs; i++) {
        now += 10000; /* a hundred thousand jobs a second */
        struct rb_job *j = i < depth ? &table[i] : queue_out(&q, now);
        j->id = i + 1;
        j->accepted_ns = now;
        j->due_ns = now + 60000000000ull;
        j->request.priority = 2;
        if (strcmp(kind, "timeouts") == 0) j->due_ns = now + below(2000000000);
        if (strcmp(kind, "bands") == 0) j->request.priority = (uint8_t)below(4);
        if (strcmp(kind, "tenants") == 0) j->tenant = tenant[below(TENANTS)];
        queue_in(&q, j, now);
        if (i < depth) rb_queue_first(&q, now); /* so that those age that would have by now */
    }
    printf("%llu\n", (unsigned long long)rb_queue_first(&q, now)->id);
    free(table);
    return 0;
}
