/* simulate.h: one simulation job, from request bytes to answer bytes. Knows no link, no clock and no process. */
#ifndef RINGBRIDGE_SIMULATION_SIMULATE_H
#define RINGBRIDGE_SIMULATION_SIMULATE_H

#include "payload.h"

/* Runs the job. On SIM_OK `answer` (SIM_ANSWER_BYTES_MAX bytes) holds *answer_bytes; otherwise `message`
 * (SIM_MESSAGE_BYTES) names the rule and the value. stop(arg) is asked before each step. */
enum sim_code simulate(const void *request, size_t request_bytes, void *answer,
                       size_t *answer_bytes, char *message, int (*stop)(void *arg), void *arg);

#endif
