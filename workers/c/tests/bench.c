/* bench.c: echo jobs over one link to one worker process, without a bridge: what the kit and the link cost by themselves.
 *
 * Per size and number of jobs in flight: jobs a second, and for one in flight the round trip. Each row is run for half a second,
 * three times; the median is printed. Both processes share the machine with whatever else runs. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

static uint8_t payload[1 << 20];

static double rate(struct peer *p, uint32_t bytes, int in_flight) {
    uint64_t begin = peer_now_ns(), now = begin;
    struct peer_request request = {.payload = payload, .bytes = bytes};
    struct peer_answer answer;
    uint64_t put = 0, got = 0;
    while (now - begin < 500000000) {
        while (put - got < (uint64_t)in_flight) {
            peer_put(p, &request);
            put++;
        }
        peer_publish(p);
        do {
            if (!peer_answer(p, &answer, 5000)) exit(1);
            peer_give_back(p, &answer);
            got++;
        } while (rb_ring_available(&p->link.completion_ring) > 0);
        now = peer_now_ns();
    }
    double result = (double)got * 1e9 / (double)(now - begin);
    for (; got < put; got++) {
        if (!peer_answer(p, &answer, 5000)) exit(1);
        peer_give_back(p, &answer);
    }
    return result;
}

static int ascending(const void *a, const void *b) {
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

int main(int argc, char **argv) {
    static const uint32_t sizes[] = {16, 1024, 65536, 1 << 20};
    static const int flights[] = {1, 16, 128};
    struct peer_options options = PEER_DEFAULT;
    struct peer p;
    options.pool_bytes = 256u << 20;
    options.link.result_bytes = 256u << 20;
    peer_start(&p, argc > 1 ? argv[1] : "rb-echo", &options, 1);
    p.link.waiter.spin_max = p.link.waiter.spin = RB_GATE_SPIN_MAX;
    printf("%10s %10s %12s %10s\n", "bytes", "in flight", "jobs/s", "us/job");
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (unsigned f = 0; f < sizeof flights / sizeof *flights; f++) {
            double rates[3];
            for (int i = 0; i < 3; i++) rates[i] = rate(&p, sizes[s], flights[f]);
            qsort(rates, 3, sizeof *rates, ascending);
            printf("%10u %10d %12.0f %10.2f\n", sizes[s], flights[f], rates[1], 1e6 / rates[1]);
        }
    peer_stop(&p);
    return 0;
}
