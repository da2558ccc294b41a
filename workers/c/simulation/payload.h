/* payload.h: the bytes of a simulation job and of its answer (docs/simulation.md, "Payload").
 *
 *      request   0 u16 version = 1 | 2 u16 bodies | 4 u32 flags | 8 f64 start, TDB Julian date | 16 f64 span, days, signed
 *                24 + 64 n: u32 id | u32 zero | f64 GM km^3/s^2 | f64 x y z km | f64 vx vy vz km/s
 *      answer    0 u16 version = 1 | 2 u16 bodies | 4 u32 flags | 8 f64 end, TDB Julian date | 16 f64 span, days
 *                24 f64 relative energy error | 32 u64 steps | 40 u64 force evaluations
 *                48 + 56 n: u32 id | u32 zero | f64 x y z km | f64 vx vy vz km/s
 * All little endian, IEEE 754 binary64, no padding. */
#ifndef RINGBRIDGE_SIMULATION_PAYLOAD_H
#define RINGBRIDGE_SIMULATION_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "radau.h"

#define SIM_VERSION 1
#define SIM_FLAG_RELATIVISTIC 1u
#define SIM_REQUEST_HEADER_BYTES 24
#define SIM_REQUEST_BODY_BYTES 64
#define SIM_ANSWER_HEADER_BYTES 48
#define SIM_ANSWER_BODY_BYTES 56
#define SIM_ANSWER_BYTES_MAX (SIM_ANSWER_HEADER_BYTES + SIM_BODIES_MAX * SIM_ANSWER_BODY_BYTES)
#define SIM_SPAN_DAYS_MAX \
    365250.0 /* a thousand Julian years: minutes of work, and beyond any ephemeris to start from */

/* Codes of failed jobs. The message names the rule and the value. */
enum sim_code {
    SIM_OK = 0,
    SIM_BAD_LENGTH = 1, /* the payload is not as long as its header says */
    SIM_BAD_VERSION = 2,
    SIM_BAD_COUNT = 3, /* of bodies */
    SIM_BAD_FLAGS = 4,
    SIM_BAD_TIME = 5, /* start or span */
    SIM_BAD_BODY = 6, /* id, GM, position or velocity */
    SIM_BODIES_COINCIDE = 7,
    SIM_CLOSE_ENCOUNTER = 8, /* the step fell below a millisecond */
    SIM_STOPPED = 9,         /* cancelled or past its deadline; no answer */
    SIM_IS_TERM = 10,        /* an external term where raw bytes are expected */
    SIM_UNKNOWN_OPCODE = 11,
    SIM_BAD_ACCURACY = 12, /* theta or softening */
    SIM_NO_MEMORY = 13,
};
#define SIM_MESSAGE_BYTES 160

struct sim_request {
    uint16_t bodies;
    uint32_t flags;
    double start_jd, span_days;
    uint32_t id[SIM_BODIES_MAX];
};

struct sim_report {
    double energy_error;
    uint64_t steps, evaluations;
};

/* Checks and reads a request into `request` and into the model, x and v of `state`. */
enum sim_code sim_decode(const void *bytes, size_t size, struct sim_request *request,
                         struct radau *state, char *message);
/* Writes the answer; returns its size. `out` has SIM_ANSWER_BYTES_MAX bytes. */
size_t sim_encode(const struct sim_request *request, const struct radau *state,
                  const struct sim_report *report, void *out);

#endif
