/* rb-simulation: the N-body worker (docs/simulation.md). Two operations: orbits (simulate.h) and cluster (cluster.h).
 *
 * --simd scalar|avx2|avx512: not the widest vectors that the CPU has, but these. */
#include "cluster.h"
#include "ringbridge_worker.h"
#include "simd.h"
#include "simulate.h"

enum opcode { ORBITS = 0, CLUSTER = 1 };
static const struct rb_op ops[] = {{ORBITS, RB_TAKES_RAW, "orbits"},
                                   {CLUSTER, RB_TAKES_RAW, "cluster"}};

static int cancelled(void *job) {
    rb_pulse(job);
    return rb_is_cancelled(job);
}

static void progressed(void *job, const uint8_t bytes[CLUSTER_PROGRESS_BYTES]) {
    if (rb_job_wants_progress(job)) rb_progress(job, bytes, CLUSTER_PROGRESS_BYTES);
}

static void answer_without_result(struct rb_job *job, enum sim_code code, const char *message) {
    if (code == SIM_STOPPED)
        rb_cancelled(job);
    else
        rb_fail(job, (uint16_t)code, "%s", message);
}

static void orbits(struct rb_job *job, const void *request, size_t size) {
    char answer[SIM_ANSWER_BYTES_MAX], message[SIM_MESSAGE_BYTES];
    size_t answer_bytes;
    enum sim_code code = simulate(request, size, answer, &answer_bytes, message, cancelled, job);
    if (code == SIM_OK)
        rb_complete_bytes(job, answer, answer_bytes);
    else
        answer_without_result(job, code, message);
}

static void cluster(struct rb_job *job, const void *request, size_t size) {
    static struct cluster c;
    char message[SIM_MESSAGE_BYTES];
    const struct cluster_watch watch = {cancelled, progressed, job};
    enum sim_code code = cluster_open(&c, request, size, message);
    void *answer = NULL;
    if (code == SIM_OK) {
        /* Before the work: an answer that would never fit is refused now, by the kit. */
        answer = rb_result_reserve(job, cluster_answer_bytes(&c));
        if (answer != NULL) code = cluster_run(&c, message, &watch);
    }
    if (code != SIM_OK) {
        answer_without_result(job, code, message);
    } else if (answer != NULL) {
        cluster_answer(&c, answer);
        rb_complete(job, cluster_answer_bytes(&c));
    }
    cluster_close(&c);
}

static void handle(struct rb_job *job, void *user) {
    size_t size;
    const void *request = rb_job_payload(job, &size);
    (void)user;
    if (rb_job_payload_is_term(job)) {
        rb_fail(job, SIM_IS_TERM, "the payload must be a binary, got an external term");
        return;
    }
    switch (rb_job_opcode(job)) {
    case ORBITS: orbits(job, request, size); break;
    case CLUSTER: cluster(job, request, size); break;
    default:
        rb_fail(job, SIM_UNKNOWN_OPCODE, "opcode must be 0 (orbits) or 1 (cluster), got %u",
                rb_job_opcode(job));
    }
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {
        .handler = handle, .ops = ops, .ops_count = sizeof ops / sizeof ops[0]};
    if (sim_simd_arguments(argc, argv) < 0) return 64;
    return rb_worker_main(argc, argv, &options);
}
