/* rb-simulation: the N-body worker (docs/simulation.md); simulate.h does the work. */
#include "ringbridge_worker.h"
#include "simulate.h"

static int cancelled(void *job) { return rb_is_cancelled(job); }

static void handle(struct rb_job *job, void *user) {
    char answer[SIM_ANSWER_BYTES_MAX], message[SIM_MESSAGE_BYTES];
    size_t size, answer_bytes;
    const void *request = rb_job_payload(job, &size);
    (void)user;
    if (rb_job_payload_is_term(job)) {
        rb_fail(job, SIM_IS_TERM, "the payload must be a binary, got an external term");
        return;
    }
    enum sim_code code = simulate(request, size, answer, &answer_bytes, message, cancelled, job);
    if (code == SIM_OK)
        rb_complete_bytes(job, answer, answer_bytes);
    else if (code == SIM_STOPPED)
        rb_cancelled(job);
    else
        rb_fail(job, (uint16_t)code, "%s", message);
}

int main(int argc, char **argv) {
    struct rb_worker_options options = {.handler = handle};
    return rb_worker_main(argc, argv, &options);
}
