/* payload.c: reads requests field by field, refusing by rule and value; writes answers. */
#include "payload.h"

#include <math.h>
#include <string.h>

#include "fields.h"

static void put(uint8_t *bytes, size_t at, const void *value, size_t size) {
    memcpy(bytes + at, value, size);
}

static enum sim_code decode_header(const uint8_t *bytes, size_t size, struct sim_request *q,
                                   char *message) {
    if (size < SIM_REQUEST_HEADER_BYTES)
        REFUSE(SIM_BAD_LENGTH, "a request has a header of %d bytes, got %zu",
               SIM_REQUEST_HEADER_BYTES, size);
    uint16_t version = u16_at(bytes, 0);
    if (version != SIM_VERSION)
        REFUSE(SIM_BAD_VERSION, "version must be %d, got %u", SIM_VERSION, (unsigned)version);
    q->bodies = u16_at(bytes, 2);
    if (q->bodies < 1 || q->bodies > SIM_BODIES_MAX)
        REFUSE(SIM_BAD_COUNT, "bodies must be 1 to %d, got %u", SIM_BODIES_MAX,
               (unsigned)q->bodies);
    size_t expected = SIM_REQUEST_HEADER_BYTES + (size_t)q->bodies * SIM_REQUEST_BODY_BYTES;
    if (size != expected)
        REFUSE(SIM_BAD_LENGTH, "%u bodies take %zu bytes, got %zu", (unsigned)q->bodies, expected,
               size);
    q->flags = u32_at(bytes, 4);
    if (q->flags & ~SIM_FLAG_RELATIVISTIC)
        REFUSE(SIM_BAD_FLAGS, "unknown flags 0x%x, known are 0x%x", (unsigned)q->flags,
               SIM_FLAG_RELATIVISTIC);
    q->start_jd = f64_at(bytes, 8);
    if (!isfinite(q->start_jd))
        REFUSE(SIM_BAD_TIME, "start must be a finite Julian date, got %g", q->start_jd);
    q->span_days = f64_at(bytes, 16);
    if (!(fabs(q->span_days) <= SIM_SPAN_DAYS_MAX))
        REFUSE(SIM_BAD_TIME, "span must lie within %g days, got %g", SIM_SPAN_DAYS_MAX,
               q->span_days);
    return SIM_OK;
}

static int same_place(const double *a, const double *b) {
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static enum sim_code decode_body(const uint8_t *body, int index, struct sim_request *q,
                                 struct radau *state, char *message) {
    static const char axis[] = "xyz";
    uint32_t id = u32_at(body, 0), zero = u32_at(body, 4);
    q->id[index] = id;
    if (zero != 0)
        REFUSE(SIM_BAD_BODY, "body %d (id %u): bytes 4 to 7 must be zero, got %u", index, id, zero);
    for (int other = 0; other < index; other++)
        if (q->id[other] == id)
            REFUSE(SIM_BAD_BODY, "bodies %d and %d have the same id %u", other, index, id);
    double gm = f64_at(body, 8);
    if (!(isfinite(gm) && gm >= 0))
        REFUSE(SIM_BAD_BODY, "body %d (id %u): GM must be finite and not negative, got %g", index,
               id, gm);
    state->model.gm[index] = gm;
    for (int k = 0; k < 3; k++) {
        double x = f64_at(body, 16 + 8 * (size_t)k), v = f64_at(body, 40 + 8 * (size_t)k);
        if (!isfinite(x))
            REFUSE(SIM_BAD_BODY, "body %d (id %u): %c must be finite, got %g", index, id, axis[k],
                   x);
        if (!(fabs(v) < SIM_LIGHT_KM_S))
            REFUSE(SIM_BAD_BODY,
                   "body %d (id %u): v%c must be below the speed of light, got %g km/s", index, id,
                   axis[k], v);
        state->x[3 * index + k] = x;
        state->v[3 * index + k] = v;
    }
    for (int other = 0; other < index; other++)
        if (same_place(&state->x[3 * other], &state->x[3 * index]))
            REFUSE(SIM_BODIES_COINCIDE, "bodies %u and %u are in the same place", q->id[other], id);
    return SIM_OK;
}

enum sim_code sim_decode(const void *bytes, size_t size, struct sim_request *q, struct radau *state,
                         char *message) {
    enum sim_code code = decode_header(bytes, size, q, message);
    if (code != SIM_OK) return code;
    state->model.bodies = q->bodies;
    state->model.relativistic = (q->flags & SIM_FLAG_RELATIVISTIC) != 0;
    for (int i = 0; i < q->bodies; i++) {
        const uint8_t *body =
            (const uint8_t *)bytes + SIM_REQUEST_HEADER_BYTES + (size_t)i * SIM_REQUEST_BODY_BYTES;
        code = decode_body(body, i, q, state, message);
        if (code != SIM_OK) return code;
    }
    return SIM_OK;
}

size_t sim_encode(const struct sim_request *q, const struct radau *state,
                  const struct sim_report *report, void *out) {
    uint8_t *bytes = out;
    const uint16_t version = SIM_VERSION;
    const uint32_t zero = 0;
    double end_jd = q->start_jd + q->span_days;
    put(bytes, 0, &version, 2);
    put(bytes, 2, &q->bodies, 2);
    put(bytes, 4, &q->flags, 4);
    put(bytes, 8, &end_jd, 8);
    put(bytes, 16, &q->span_days, 8);
    put(bytes, 24, &report->energy_error, 8);
    put(bytes, 32, &report->steps, 8);
    put(bytes, 40, &report->evaluations, 8);
    for (int i = 0; i < q->bodies; i++) {
        size_t at = SIM_ANSWER_HEADER_BYTES + (size_t)i * SIM_ANSWER_BODY_BYTES;
        put(bytes, at, &q->id[i], 4);
        put(bytes, at + 4, &zero, 4);
        put(bytes, at + 8, &state->x[3 * i], 24);
        put(bytes, at + 32, &state->v[3 * i], 24);
    }
    return SIM_ANSWER_HEADER_BYTES + (size_t)q->bodies * SIM_ANSWER_BODY_BYTES;
}
