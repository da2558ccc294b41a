/* simulate.c: decode, integrate, weigh the energy, encode. */
#include "simulate.h"

#include <math.h>
#include <stdio.h>

static const double DAY_S = 86400.0;

static enum sim_code fail(enum sim_code code, char *message, const struct radau *state,
                          const char *what) {
    snprintf(message, SIM_MESSAGE_BYTES, "%s after %llu steps, last step %g s", what,
             (unsigned long long)state->steps, state->last_s);
    return code;
}

enum sim_code simulate(const void *bytes, size_t size, void *answer, size_t *answer_bytes,
                       char *message, int (*stop)(void *arg), void *arg) {
    struct sim_request request;
    struct radau state; /* about 40 KiB */
    enum sim_code code = sim_decode(bytes, size, &request, &state, message);
    if (code != SIM_OK) return code;

    double before = sim_energy(&state.model, state.x, state.v);
    radau_start(&state);
    switch (radau_run(&state, request.span_days * DAY_S, stop, arg)) {
    case RADAU_OK: break;
    case RADAU_STOPPED: return fail(SIM_STOPPED, message, &state, "stopped");
    case RADAU_STEP_TOO_SMALL:
        return fail(SIM_CLOSE_ENCOUNTER, message, &state,
                    "a close encounter needs steps below 1 ms");
    case RADAU_NOT_FINITE:
        return fail(SIM_BODIES_COINCIDE, message, &state,
                    "two bodies met: the state is not finite");
    }
    double after = sim_energy(&state.model, state.x, state.v);
    struct sim_report report = {
        .energy_error = before != 0 ? (after - before) / fabs(before) : after,
        .steps = state.steps,
        .evaluations = state.evaluations,
    };
    *answer_bytes = sim_encode(&request, &state, &report, answer);
    return SIM_OK;
}
