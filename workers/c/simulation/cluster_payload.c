/* cluster_payload.c: reads a request for many bodies, refusing by rule and value; writes its answer. */
#include <math.h>
#include <string.h>

#include "cluster.h"
#include "fields.h"

static int is_sane(double value) { return fabs(value) <= CLUSTER_MAGNITUDE_MAX; }

static enum sim_code read_header(struct cluster_request *q, const uint8_t *bytes, size_t size,
                                 char *message) {
    uint16_t version;
    if (size < CLUSTER_REQUEST_BYTES)
        REFUSE(SIM_BAD_LENGTH, "a request has a header of %d bytes, got %zu", CLUSTER_REQUEST_BYTES,
               size);
    memcpy(&version, bytes, 2);
    if (version != CLUSTER_VERSION)
        REFUSE(SIM_BAD_VERSION, "version must be %d, got %u", CLUSTER_VERSION, version);
    memcpy(&q->flags, bytes + 2, 2);
    if (q->flags & ~(CLUSTER_GENERATED | CLUSTER_ACCELERATIONS))
        REFUSE(SIM_BAD_FLAGS, "unknown flags 0x%x, known are 0x%x", q->flags,
               CLUSTER_GENERATED | CLUSTER_ACCELERATIONS);
    q->bodies = u32_at(bytes, 4);
    if (q->bodies < 1 || q->bodies > CLUSTER_BODIES_MAX)
        REFUSE(SIM_BAD_COUNT, "bodies must be 1 to %u, got %u", CLUSTER_BODIES_MAX, q->bodies);
    q->steps = u32_at(bytes, 8);
    if (q->steps > CLUSTER_STEPS_MAX)
        REFUSE(SIM_BAD_TIME, "steps must be at most %u, got %u", CLUSTER_STEPS_MAX, q->steps);
    q->returned = u32_at(bytes, 12);
    if (q->returned > q->bodies)
        REFUSE(SIM_BAD_COUNT, "returned must be at most bodies, got %u", q->returned);
    q->sampled = u32_at(bytes, 16);
    if (q->sampled > q->bodies || q->sampled > CLUSTER_SAMPLED_MAX)
        REFUSE(SIM_BAD_COUNT, "sampled must be at most bodies and %u, got %u", CLUSTER_SAMPLED_MAX,
               q->sampled);
    if (u32_at(bytes, 20) != 0)
        REFUSE(SIM_BAD_FLAGS, "bytes 20 to 23 must be zero, got %u", u32_at(bytes, 20));
    q->step = f64_at(bytes, 24);
    if (!is_sane(q->step))
        REFUSE(SIM_BAD_TIME, "step must lie within %g, got %g", CLUSTER_MAGNITUDE_MAX, q->step);
    q->theta = f64_at(bytes, 32);
    if (!(q->theta >= 0 && q->theta <= 0.9))
        REFUSE(SIM_BAD_ACCURACY, "theta must be 0 to 0.9, got %g", q->theta);
    q->softening = f64_at(bytes, 40);
    if (!(q->softening >= CLUSTER_SOFTENING_MIN && q->softening <= CLUSTER_MAGNITUDE_MAX))
        REFUSE(SIM_BAD_ACCURACY, "softening must be %g to %g, got %g", CLUSTER_SOFTENING_MIN,
               CLUSTER_MAGNITUDE_MAX, q->softening);
    memcpy(&q->seed, bytes + 48, 8);
    size_t bodies = q->flags & CLUSTER_GENERATED ? 0 : q->bodies;
    size_t expected = CLUSTER_REQUEST_BYTES + bodies * CLUSTER_BODY_BYTES;
    if (size != expected)
        REFUSE(SIM_BAD_LENGTH, "%zu bodies take %zu bytes, got %zu", bodies, expected, size);
    return SIM_OK;
}

static enum sim_code read_bodies(struct tree_bodies *b, const uint8_t *bytes, char *message) {
    static const char *const names[] = {"GM", "x", "y", "z", "vx", "vy", "vz"};
    static const int where[] = {TREE_MASS, TREE_X, TREE_Y, TREE_Z, TREE_VX, TREE_VY, TREE_VZ};
    for (uint32_t i = 0; i < b->count; i++)
        for (size_t k = 0; k < TREE_VALUES; k++) {
            double value = f64_at(bytes, (size_t)i * CLUSTER_BODY_BYTES + 8 * k);
            if (!is_sane(value) || (k == 0 && value < 0))
                REFUSE(SIM_BAD_BODY, "body %u: %s must lie within %g%s, got %g", i, names[k],
                       CLUSTER_MAGNITUDE_MAX, k == 0 ? " and not be negative" : "", value);
            b->value[where[k]][i] = value;
        }
    return SIM_OK;
}

enum sim_code cluster_open(struct cluster *c, const void *bytes, size_t size, char *message) {
    memset(c, 0, sizeof *c);
    struct cluster_request *q = &c->request;
    enum sim_code code = read_header(q, bytes, size, message);
    if (code != SIM_OK) return code;
    if (tree_open(&c->tree, q->bodies) < 0)
        REFUSE(SIM_NO_MEMORY, "no memory for %u bodies", q->bodies);
    for (uint32_t i = 0; i < q->bodies; i++) c->tree.bodies.id[i] = i;
    if (!(q->flags & CLUSTER_GENERATED))
        return read_bodies(&c->tree.bodies, (const uint8_t *)bytes + CLUSTER_REQUEST_BYTES,
                           message);
    plummer_fill(&c->tree.bodies, q->seed);
    return SIM_OK;
}

void cluster_close(struct cluster *c) { tree_free(&c->tree); }

static size_t body_bytes(const struct cluster *c) {
    return c->request.flags & CLUSTER_ACCELERATIONS ? 72 : 48;
}

size_t cluster_answer_bytes(const struct cluster *c) {
    return CLUSTER_ANSWER_BYTES + c->request.returned * body_bytes(c);
}

/* Every (bodies / returned)-th of the request's, in its order: those whose multiple of `returned` steps over one of `bodies`. */
static void put_bodies(const struct cluster *c, uint8_t *out) {
    const struct tree_bodies *b = &c->tree.bodies;
    const uint64_t returned = c->request.returned, all = b->count;
    const double *const a[3] = {b->ax, b->ay, b->az};
    const size_t size = body_bytes(c);
    for (uint32_t i = 0; i < b->count; i++) {
        /* The n-th returned is number floor(n all / returned): n is the least with n all >= id returned, if it hits. */
        uint64_t n = (b->id[i] * returned + all - 1) / all;
        if (n >= returned || n * all / returned != b->id[i]) continue;
        uint8_t *at = out + n * size;
        for (size_t k = 0; k < 6; k++) memcpy(at + 8 * k, &b->value[TREE_X + k][i], 8);
        for (size_t k = 6; 8 * k < size; k++) memcpy(at + 8 * k, &a[k - 6][i], 8);
    }
}

void cluster_answer(const struct cluster *c, void *out) {
    const struct cluster_request *q = &c->request;
    const struct cluster_report *r = &c->report;
    const uint16_t head[2] = {CLUSTER_VERSION, q->flags};
    const uint32_t counts[5] = {q->bodies, q->steps, q->returned, q->sampled, 0};
    const double measured[7] = {q->steps * q->step, r->energy_before,  r->energy_after,
                                r->momentum_gained, r->angular_gained, r->error_rms,
                                r->error_max};
    uint8_t *bytes = out;
    memcpy(bytes, head, 4);
    memcpy(bytes + 4, counts, 20);
    memcpy(bytes + 24, measured, 56);
    memcpy(bytes + 80, &c->tree.body_pairs, 8);
    memcpy(bytes + 88, &c->tree.cell_pairs, 8);
    put_bodies(c, bytes + CLUSTER_ANSWER_BYTES);
}
