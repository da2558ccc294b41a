/* lane_telemetry_link.c: the bridge's end of its telemetry (lane_telemetry.h has the protocol and the labels). */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lane_pvt.h"
#include "ringbridge/lane_telemetry.h"

/* --- Made ------------------------------------------------------------------------------------------------------------------- */

int rb_lane_telemetry_create(struct rb_lane_telemetry *t) {
    struct rb_lane_telemetry_header header = {.magic = RB_LANE_TELEMETRY_MAGIC,
                                              .version = RB_LANE_LAYOUT_VERSION};
    struct rb_guard guards[RB_LANE_TELEMETRY_GUARDS];
    struct rb_lane_telemetry made = {.fd = -1, .base = NULL};
    memcpy(header.digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof header.digest);
    made.fd = rb_memory_create("ringbridge-telemetry", RB_LANE_TELEMETRY_BYTES);
    if (made.fd < 0) return made.fd;
    int failed = rb_memory_map(made.fd, RB_LANE_TELEMETRY_BYTES, 1, &made.base);
    if (!failed) {
        memcpy(made.base + RB_LANE_AT_HEADER, &header, sizeof header);
        failed = rb_memory_guard(made.base, guards, rb_lane_telemetry_guards(guards));
    }
    if (!failed) failed = rb_memory_seal(made.fd, 1);
    if (failed < 0) {
        rb_lane_telemetry_close(&made);
        return failed;
    }
    *t = made;
    return 0;
}

void rb_lane_telemetry_close(struct rb_lane_telemetry *t) {
    if (t->base) munmap(t->base, RB_LANE_TELEMETRY_BYTES);
    if (t->fd >= 0) close(t->fd);
    t->base = NULL;
    t->fd = -1;
}

/* --- Written ---------------------------------------------------------------------------------------------------------------- */

static void begin(uint8_t *head) {
    uint64_t *sequence = (void *)head;
    /* T0: relaxed, kept before the words by T1; only this thread writes it. */
    rb_store_relaxed(sequence, rb_load_relaxed(sequence) + 1);
}

/* T2: pairs with T3. */
static void end(uint8_t *head) {
    uint64_t *sequence = (void *)head;
    rb_store_release(sequence, rb_load_relaxed(sequence) + 1);
}

/* Records of the layout: whole words, `to` aligned as such. */
static void store(uint8_t *to, const void *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)from + at, sizeof word);
        rb_store_release((uint64_t *)(void *)(to + at), word); /* T1: pairs with T4 */
    }
}

/* All of a head but the number before it. */
static void store_head(uint8_t *to, const void *from, size_t bytes) {
    const size_t number = sizeof(uint64_t);
    store(to + number, (const uint8_t *)from + number, bytes - number);
}

static uint8_t *figures_of(const struct rb_lane_telemetry *t) {
    return t->base + RB_LANE_TELEMETRY_AT_FIGURES;
}

void rb_lane_figures_begin(struct rb_lane_telemetry *t) { begin(figures_of(t)); }

void rb_lane_figures_role(struct rb_lane_telemetry *t, uint32_t i,
                          const struct rb_lane_telemetry_role *role) {
    uint8_t *roles = figures_of(t) + sizeof(struct rb_lane_telemetry_figures);
    store(roles + i * sizeof *role, role, sizeof *role);
}

void rb_lane_figures_worker(struct rb_lane_telemetry *t, uint32_t i,
                            const struct rb_lane_telemetry_worker *worker) {
    uint8_t *workers = figures_of(t) + sizeof(struct rb_lane_telemetry_figures) +
                       RB_LANE_TELEMETRY_ROLES_MAX * sizeof(struct rb_lane_telemetry_role);
    store(workers + i * sizeof *worker, worker, sizeof *worker);
}

void rb_lane_figures_end(struct rb_lane_telemetry *t,
                         const struct rb_lane_telemetry_figures *head) {
    store_head(figures_of(t), head, sizeof *head);
    end(figures_of(t));
}

static uint8_t *list_of(const struct rb_lane_telemetry *t) {
    return t->base + RB_LANE_TELEMETRY_AT_LIST;
}

static void end_list(struct rb_lane_telemetry *t) {
    store_head(list_of(t), &t->list, sizeof t->list);
    end(list_of(t));
}

static uint8_t *place_of(const struct rb_lane_telemetry *t, uint32_t place) {
    return list_of(t) + sizeof t->list +
           RB_LANE_TELEMETRY_ERRORS_MAX * sizeof(struct rb_lane_telemetry_error) +
           place * sizeof(struct rb_lane_telemetry_place);
}

static int is_taken(const struct rb_lane_telemetry *t, uint32_t place) {
    struct rb_lane_telemetry_place p;
    const size_t at = offsetof(struct rb_lane_telemetry_place, state);
    /* Relaxed: this thread wrote it. */
    uint64_t word = rb_load_relaxed((const uint64_t *)(const void *)(place_of(t, place) + at));
    memcpy((uint8_t *)&p + at, &word, sizeof word);
    return p.state != RB_LANE_WORKER_NONE;
}

void rb_lane_list_place(struct rb_lane_telemetry *t, uint32_t place,
                        const struct rb_lane_telemetry_place *worker) {
    begin(list_of(t));
    store(place_of(t, place), worker, sizeof *worker);
    if (place >= t->list.places) t->list.places = place + 1;
    while (t->list.places && !is_taken(t, t->list.places - 1)) t->list.places--;
    end_list(t);
}

void rb_lane_list_errors(struct rb_lane_telemetry *t, const struct rb_lane_telemetry_error *errors,
                         uint32_t count) {
    begin(list_of(t));
    store(list_of(t) + sizeof t->list, errors, count * sizeof *errors);
    t->list.errors = count;
    end_list(t);
}

void rb_lane_list_hidden(struct rb_lane_telemetry *t, uint32_t workers) {
    begin(list_of(t));
    t->list.hidden = workers;
    end_list(t);
}
