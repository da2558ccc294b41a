/* face.c: the functions that make things on the other thread (roles with their pools, links) and read figures there.
 *
 * Memory is made here, where a page fault costs the interpreter's time and not the relay's, and handed over whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "relay/note.h"
#include "relay/relay_pvt.h"
#include "relay/service/schema.h"
#include "ringbridge/lane_telemetry.h"

enum { POOL_BLOCK_BYTES = 1024 };

static int atoms_are_sound(const struct rb_role_config *config) {
    if (config->atoms_count > RB_ROLE_ATOMS_MAX) return 0;
    for (uint32_t i = 0; i < config->atoms_count; i++) {
        if (!memchr(config->atoms[i], 0, RB_ROLE_ATOM_BYTES)) return 0;
    }
    return 1;
}

static int is_sound(const struct rb_role_config *config) {
    return atoms_are_sound(config) && rb_admission_check(&config->admission) == 0 &&
           rb_breaker_check(&config->breaker) == 0 && rb_schema_sound(&config->ops) == 0;
}

int rb_relay_add_role(struct rb_relay *r, uint32_t id, const struct rb_role_config *config) {
    if (id >= ROLES_MAX || r->face_roles[id]) return -EINVAL;
    if (config->choice.policy > RB_CHOICE_STICKY) return -EINVAL;
    if (strlen(config->name) >= sizeof r->face_roles[id]->name) return -ENAMETOOLONG;
    if (!is_sound(config)) return -EINVAL;
    struct rb_role *role = calloc(1, sizeof *role);
    if (!role) return -ENOMEM;
    role->id = id;
    memcpy(role->name, config->name, strlen(config->name));
    rb_role_init(role, config);
    rb_health_open_role(role);
    int rc = rb_pool_create(&role->pool, config->pool_bytes, POOL_BLOCK_BYTES);
    if (rc == 0 && (rc = rb_note_role(r, role)) < 0) rb_pool_close(&role->pool);
    if (rc < 0) {
        free(role);
        return rc;
    }
    r->face_roles[id] = role;
    return 0;
}

int rb_relay_configure_role(struct rb_relay *r, uint32_t id, const struct rb_role_config *config) {
    if (id >= ROLES_MAX || !r->face_roles[id]) return -ENOENT;
    const struct rb_role *role = r->face_roles[id];
    if (config->choice.policy > RB_CHOICE_STICKY) return -EINVAL;
    /* Neither changes in a role's life, so that this thread may look: `role->config` is the relay's. */
    if (strcmp(config->name, role->name) != 0 || config->pool_bytes != role->pool.bytes)
        return -EINVAL;
    if (!is_sound(config)) return -EINVAL;
    return rb_note_role_config(r, id, config);
}

int rb_relay_remove_role(struct rb_relay *r, uint32_t id) {
    if (id >= ROLES_MAX || !r->face_roles[id]) return -ENOENT;
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (r->face_workers[i] && r->face_workers[i]->role == r->face_roles[id]) return -EBUSY;
    }
    return rb_note_role_removed(r, id);
}

void rb_face_forget_role(struct rb_relay *r, uint32_t id) {
    struct rb_role *role = r->face_roles[id];
    r->face_roles[id] = NULL;
    rb_role_free(role);
}

static struct rb_worker **face_worker(struct rb_relay *r, uint64_t id) {
    return rb_worker_slot(r->face_workers, id);
}

int rb_relay_create_link(struct rb_relay *r, uint32_t role_id, uint64_t id, uint32_t slots,
                         uint64_t result_bytes, uint32_t result_block_bytes, uint64_t features,
                         int fds[5]) {
    if (role_id >= ROLES_MAX || !r->face_roles[role_id]) return -ENOENT;
    if (face_worker(r, id)) return -EEXIST;
    struct rb_worker **slot = rb_worker_room(r->face_workers, id);
    if (!slot) return -EMFILE;
    struct rb_worker *w = calloc(1, sizeof *w);
    if (!w) return -ENOMEM;
    struct rb_link_config config = {.slots = slots,
                                    .result_block_bytes = result_block_bytes,
                                    .result_bytes = result_bytes,
                                    .features = features,
                                    .worker_id = id};
    w->relay = r;
    w->id = id;
    w->role = r->face_roles[role_id];
    w->credit = 1;
    rb_choice_member_init(&w->choosing);
    w->ramp = w->trust = RB_CHOICE_WHOLE;
    rb_affine_init(&w->affine);
    w->pidfd = w->obituary_fd = w->stdout_fd = w->stderr_fd = -1;
    w->atoms.left = 256;
    w->placed = calloc(slots ? slots : 1, sizeof *w->placed);
    int rc = w->placed ? rb_link_create(&w->link, &config, &w->role->pool) : -ENOMEM;
    if (rc < 0) {
        free(w->placed);
        free(w);
        return rc;
    }
    fds[0] = w->link.fds.relay_side;
    fds[1] = w->link.fds.worker_side;
    fds[2] = w->role->pool.fd;
    fds[3] = w->link.fds.wake_worker;
    fds[4] = w->link.fds.wake_relay;
    *slot = w;
    return 0;
}

int rb_relay_add_worker(struct rb_relay *r, uint64_t id, int pidfd, int obituary_fd, int stdout_fd,
                        int stderr_fd) {
    struct rb_worker **slot = face_worker(r, id);
    if (!slot || (*slot)->handed_over) return -ENOENT;
    struct rb_worker *w = *slot;
    w->pidfd = pidfd;
    w->obituary_fd = obituary_fd;
    w->stdout_fd = stdout_fd;
    w->stderr_fd = stderr_fd;
    int rc = rb_note_worker(r, w);
    w->handed_over = rc == 0; /* from here on the rest of it is the relay's */
    if (rc < 0) w->pidfd = w->obituary_fd = w->stdout_fd = w->stderr_fd = -1;
    return rc;
}

int rb_relay_drop_link(struct rb_relay *r, uint64_t id) {
    struct rb_worker **slot = face_worker(r, id);
    if (!slot || (*slot)->handed_over)
        return -ENOENT; /* once handed over it ends by its obituary */
    rb_link_close(&(*slot)->link);
    free((*slot)->placed);
    free(*slot);
    *slot = NULL;
    return 0;
}

/* --- Lanes --------------------------------------------------------------------------------------------------------------- */

/* Its entry, or with `id` 0 the first free one; NULL. */
static struct rb_beam **face_lane(struct rb_relay *r, uint64_t id) {
    for (uint32_t i = 0; i < RB_LANES_MAX; i++) {
        if (id ? r->face_lanes[i] && r->face_lanes[i]->id == id : !r->face_lanes[i])
            return &r->face_lanes[i];
    }
    return NULL;
}

static int make_lane(struct rb_beam *b, const struct rb_lane_config *config) {
    b->slot_count = config->rings * config->slots;
    b->kept_end = &b->kept;
    int rc = rb_lane_link_create(&b->link, config);
    if (rc < 0) return rc;
    b->slots = calloc(b->slot_count, sizeof *b->slots);
    return b->slots ? 0 : -ENOMEM;
}

int rb_relay_open_lane(struct rb_relay *r, uint32_t connection, const struct rb_lane_config *config,
                       int fds[4]) {
    if (config->lane == 0) return -EINVAL;
    if (r->face_tape) return -EBUSY;
    if (face_lane(r, config->lane)) return -EEXIST;
    struct rb_beam **slot = face_lane(r, 0);
    if (!slot) return -EMFILE;
    struct rb_beam *b = calloc(1, sizeof *b);
    if (!b) return -ENOMEM;
    b->relay = r;
    b->id = config->lane;
    int rc = make_lane(b, config);
    if (rc == 0) rc = rb_face_telemetry(r);
    int telemetry = rc < 0 ? -1 : fcntl(r->telemetry->fd, F_DUPFD_CLOEXEC, 0);
    if (rc == 0 && telemetry < 0) rc = -errno;
    if (rc < 0) {
        rb_beam_free(b);
        free(b);
        return rc;
    }
    struct rb_lane_link *l = &b->link;
    const int made[4] = {l->relay_side_fd, l->beam_side_fd, l->beam_bell, telemetry};
    l->relay_side_fd = l->beam_side_fd = l->beam_bell = -1; /* the mappings are enough for us */
    rc = rb_note_lane(r, b, connection);
    if (rc < 0) {
        for (int i = 0; i < 4; i++) close(made[i]);
        rb_beam_free(b);
        free(b);
        return rc;
    }
    *slot = b;
    memcpy(fds, made, sizeof made);
    return 0;
}

void rb_face_forget_lane(struct rb_relay *r, uint64_t id) {
    struct rb_beam **slot = face_lane(r, id);
    if (!slot) return;
    free(*slot);
    *slot = NULL;
}

void rb_face_forget(struct rb_relay *r, uint64_t id) {
    struct rb_worker **slot = face_worker(r, id);
    if (!slot) return;
    free(*slot);
    *slot = NULL;
}

/* --- Figures: each word is written by the relay alone; a reader sees each as it was at some recent moment ---------------------- */

static void copy_words(const void *from, void *to, size_t size) {
    const uint64_t *f = from;
    uint64_t *t = to;
    for (size_t i = 0; i < size / sizeof *f; i++) t[i] = rb_load_relaxed(&f[i]);
}

void rb_relay_read_stats(struct rb_relay *r, struct rb_relay_stats *stats) {
    copy_words(&r->stats, stats, sizeof *stats);
}
void rb_relay_read_hops(struct rb_relay *r, struct rb_relay_hops *hops) {
    copy_words(&r->hops, hops, sizeof *hops);
}

int rb_relay_read_role(struct rb_relay *r, uint32_t id, struct rb_role_stats *stats) {
    if (id >= ROLES_MAX || !r->face_roles[id]) return -ENOENT;
    copy_words(&r->face_roles[id]->stats, stats, sizeof *stats);
    return 0;
}

int rb_relay_read_worker(struct rb_relay *r, uint64_t id, struct rb_worker_stats *stats) {
    struct rb_worker **slot = face_worker(r, id);
    if (!slot) return -ENOENT;
    copy_words(&(*slot)->stats, stats, sizeof *stats);
    return 0;
}

int rb_relay_read_lane(struct rb_relay *r, uint64_t id, struct rb_lane_stats *stats) {
    struct rb_beam **slot = id ? face_lane(r, id) : NULL;
    if (!slot) return -ENOENT;
    copy_words(&(*slot)->stats, stats, sizeof *stats);
    return 0;
}
