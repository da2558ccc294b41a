/* down.c: what the thread that runs trio asks of the relay: notes, made there and carried out in a round.
 *
 * One duct. Functions named rb_relay_* and rb_note_* run on the other thread; the rest on the relay's. The face keeps its own list of
 * workers, because it alone may free a worker's memory: after it has taken the event that the worker ended. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "relay/net/tls.h"
#include "relay/note.h"
#include "relay/note_pvt.h"
#include "relay/relay_pvt.h"

static struct down_note *down_note(enum down_kind kind, const void *a, size_t a_size, const void *b,
                                   size_t b_size) {
    struct down_note *n = malloc(sizeof *n + a_size + b_size);
    if (!n) return NULL;
    memset(n, 0, sizeof *n);
    n->head.kind = kind;
    n->head.size = (uint32_t)(sizeof *n + a_size + b_size);
    n->a = a_size;
    n->b = b_size;
    if (a_size) memcpy(n->data, a, a_size);
    if (b_size) memcpy(n->data + a_size, b, b_size);
    return n;
}

/* The relay empties its duct every round, so a full one is a matter of microseconds; one that stays full is a relay that is gone. */
static int hand_down(struct rb_relay *r, struct down_note *n) {
    enum { TRY_US = 50, TRIES = 20000 };
    if (!n) return -ENOMEM;
    if (n->head.kind != DOWN_RECORD) r->told = 1;
    int rc = rb_duct_put(&r->down, &n->head);
    for (int i = 0; rc == -EAGAIN && i < TRIES; i++) {
        usleep(TRY_US);
        rc = rb_duct_put(&r->down, &n->head);
    }
    if (rc < 0) {
        free(n);
        return rc;
    }
    rb_duct_ring(&r->down);
    return 0;
}

/* A connection goes down with its row, which stays open until its end has been heard of. */
static int hand_over(struct rb_relay *r, uint32_t connection, struct down_note *n) {
    n->connection = connection;
    n->flow = rb_flow_open(r, connection);
    if (!n->flow) {
        free(n);
        return -EMFILE;
    }
    struct rb_flow *flow = n->flow;
    int rc = hand_down(r, n);
    if (rc < 0) rb_flow_close(flow);
    return rc;
}

int rb_relay_adopt(struct rb_relay *r, uint32_t connection, int fd, const char *peer,
                   uint64_t flags, const uint8_t *leftover, uint64_t size) {
    struct down_note *n = down_note(DOWN_ADOPT, peer, strlen(peer) + 1, leftover, size);
    if (!n) return -ENOMEM;
    n->fd = fd;
    n->flags = flags;
    return hand_over(r, connection, n);
}

int rb_relay_adopt_tls(struct rb_relay *r, uint32_t connection, struct rb_tls *tls,
                       const char *peer, uint64_t flags, const uint8_t *leftover, uint64_t size) {
    struct down_note *n = down_note(DOWN_ADOPT, peer, strlen(peer) + 1, leftover, size);
    if (!n) return -ENOMEM;
    n->fd = tls->fd;
    n->object = tls;
    n->flags = flags;
    return hand_over(r, connection, n);
}

int rb_relay_send(struct rb_relay *r, uint32_t connection, const uint8_t *control,
                  uint64_t control_size, const uint8_t *message, uint64_t message_size) {
    struct down_note *n = down_note(DOWN_SEND, control, control_size, message, message_size);
    if (!n) return -ENOMEM;
    n->connection = connection;
    n->flags = message != NULL;
    struct rb_flow *flow = rb_flow_find(r, connection);
    if (flow) flow->handed += n->head.size;
    return hand_down(r, n);
}

int rb_relay_want_room(struct rb_relay *r, uint32_t connection) {
    struct down_note *n = down_note(DOWN_ROOM, NULL, 0, NULL, 0);
    if (n) n->connection = connection;
    return hand_down(r, n);
}

int rb_relay_drop(struct rb_relay *r, uint32_t connection, const char *reason) {
    struct down_note *n = down_note(DOWN_DROP, reason, strlen(reason) + 1, NULL, 0);
    if (n) n->connection = connection;
    return hand_down(r, n);
}

int rb_relay_install_service(struct rb_relay *r, uint32_t service, uint32_t pid_id,
                             uint32_t pid_serial, const char *names) {
    size_t size = 0;
    while (names[size]) size += strlen(names + size) + 1;
    if (service >= RB_SERVICES || size + 1 > sizeof r->owned[0].text) return -EINVAL;
    struct down_note *n = down_note(DOWN_SERVICE, names, size + 1, NULL, 0);
    if (!n) return -ENOMEM;
    n->connection = service;
    n->flags = (uint64_t)pid_id << 32 | pid_serial;
    return hand_down(r, n);
}

int rb_relay_service_down(struct rb_relay *r, uint32_t service, const uint8_t *reason,
                          uint64_t size) {
    if (service >= RB_SERVICES) return -EINVAL;
    struct down_note *n = down_note(DOWN_SERVICE_DOWN, reason, size, NULL, 0);
    if (n) n->connection = service;
    return hand_down(r, n);
}

int rb_relay_hold(struct rb_relay *r, uint32_t service, int on) {
    if (service >= RB_SERVICES) return -EINVAL;
    struct down_note *n = down_note(DOWN_HOLD, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->connection = service;
    n->flags = on != 0;
    return hand_down(r, n);
}

int rb_note_role(struct rb_relay *r, struct rb_role *role) {
    struct down_note *n = down_note(DOWN_ROLE, NULL, 0, NULL, 0);
    if (n) n->object = role;
    return hand_down(r, n);
}

int rb_note_role_config(struct rb_relay *r, uint32_t id, const struct rb_role_config *config) {
    struct down_note *n = down_note(DOWN_ROLE_CONFIG, config, sizeof *config, NULL, 0);
    if (n) n->connection = id;
    return hand_down(r, n);
}

int rb_note_role_removed(struct rb_relay *r, uint32_t id) {
    struct down_note *n = down_note(DOWN_ROLE_REMOVED, NULL, 0, NULL, 0);
    if (n) n->connection = id;
    return hand_down(r, n);
}

int rb_relay_configure(struct rb_relay *r, const struct rb_relay_config *config) {
    return hand_down(r, down_note(DOWN_CONFIG, config, sizeof *config, NULL, 0));
}

int rb_relay_configure_tenant(struct rb_relay *r, const char *name,
                              const struct rb_tenant_config *config) {
    size_t size = strlen(name);
    if (size == 0 || size > RB_TENANT_NAME_MAX) return -EINVAL;
    if (config && (config->weight == 0 || config->weight > RB_WEIGHT_MAX)) return -EINVAL;
    struct down_note *n =
        down_note(DOWN_TENANT, config, config ? sizeof *config : 0, (const uint8_t *)name, size);
    return hand_down(r, n);
}

int rb_relay_set_role_state(struct rb_relay *r, uint32_t role, uint32_t state) {
    if (role >= ROLES_MAX || state > RB_ROLE_GIVEN_UP) return -EINVAL;
    struct down_note *n = down_note(DOWN_ROLE_STATE, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->connection = role;
    n->flags = state;
    return hand_down(r, n);
}

int rb_relay_configure_allowance(struct rb_relay *r, uint32_t kind, const char *name,
                                 const struct rb_allowance_config *config) {
    size_t size = strlen(name);
    if (kind > RB_ACCOUNT_TENANT || size > 255) return -EINVAL;
    if (config && rb_rate_check(&config->rate) < 0) return -EINVAL;
    struct down_note *n =
        down_note(DOWN_ALLOWANCE, name, size, config, config ? sizeof *config : 0);
    if (!n) return -ENOMEM;
    n->connection = kind;
    return hand_down(r, n);
}

int rb_relay_force_breaker(struct rb_relay *r, uint32_t role, uint64_t worker, uint32_t how) {
    if (role >= ROLES_MAX || !r->face_roles[role]) return -ENOENT;
    if (how > RB_FORCE_AUTO) return -EINVAL;
    struct down_note *n = down_note(DOWN_BREAKER, &how, sizeof how, NULL, 0);
    if (!n) return -ENOMEM;
    n->connection = role;
    n->flags = worker;
    return hand_down(r, n);
}

int rb_note_worker(struct rb_relay *r, struct rb_worker *w) {
    struct down_note *n = down_note(DOWN_WORKER, NULL, 0, NULL, 0);
    if (n) n->object = w;
    return hand_down(r, n);
}

int rb_relay_drain_worker(struct rb_relay *r, uint64_t worker) {
    struct down_note *n = down_note(DOWN_DRAIN, NULL, 0, NULL, 0);
    if (n) n->flags = worker;
    return hand_down(r, n);
}

int rb_relay_weigh_worker(struct rb_relay *r, uint64_t worker, uint32_t weight) {
    if (weight < 1 || weight > RB_CHOICE_WEIGHT_MAX) return -EINVAL;
    struct down_note *n = down_note(DOWN_WEIGH, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->flags = worker;
    n->connection = weight;
    return hand_down(r, n);
}

int rb_relay_spare_worker(struct rb_relay *r, uint64_t worker) {
    struct down_note *n = down_note(DOWN_SPARE, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->flags = worker;
    return hand_down(r, n);
}

int rb_relay_unguarded_worker(struct rb_relay *r, uint64_t worker) {
    struct down_note *n = down_note(DOWN_UNGUARDED, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->flags = worker;
    return hand_down(r, n);
}

int rb_note_lane(struct rb_relay *r, struct rb_beam *b, uint32_t connection) {
    struct down_note *n = down_note(DOWN_LANE, NULL, 0, NULL, 0);
    if (!n) return -ENOMEM;
    n->object = b;
    n->connection = connection;
    return hand_down(r, n);
}

int rb_relay_close_lane(struct rb_relay *r, uint64_t lane, const char *reason) {
    struct down_note *n = down_note(DOWN_LANE_CLOSE, reason, strlen(reason) + 1, NULL, 0);
    if (!n) return -ENOMEM;
    n->flags = lane;
    return hand_down(r, n);
}

int rb_note_record(struct rb_relay *r, struct rb_tape *tape) {
    struct down_note *n = down_note(DOWN_RECORD, NULL, 0, NULL, 0);
    if (n) n->object = tape;
    return hand_down(r, n);
}

int rb_note_stop(struct rb_relay *r) {
    return hand_down(r, down_note(DOWN_STOP, NULL, 0, NULL, 0));
}

/* --- Carried out --------------------------------------------------------------------------------------------------------- */

/* Its settings, unless it has none any more, then its name. Without memory it goes on with what it had. */
static void configure_tenant(struct rb_relay *r, const uint8_t *data, uint64_t size,
                             uint64_t name_size) {
    struct rb_tenant_config config;
    if (size) memcpy(&config, data, sizeof config);
    rb_tenants_configure(&r->tenants, (struct rb_slice){data + size, name_size},
                         size ? &config : NULL);
}

/* Not the name, nor what the other thread reads (spin_us), nor what was laid out by it. */
static void configure(struct rb_relay *r, const uint8_t *data) {
    struct rb_relay_config config, *own = &r->config;
    memcpy(&config, data, sizeof config);
    own->tick_ms = config.tick_ms;
    own->silence_ms = config.silence_ms;
    own->signal_bytes_max = config.signal_bytes_max;
    own->upward_bytes_max = config.upward_bytes_max;
    own->upward_total_max = config.upward_total_max;
    own->outgoing_bytes_max = config.outgoing_bytes_max;
    own->outgoing_low_bytes = config.outgoing_low_bytes;
    own->arrival_ms = config.arrival_ms;
    own->kept_bytes_max = config.kept_bytes_max;
}

static void set_role_state(struct rb_relay *r, uint32_t id, uint32_t state) {
    struct rb_role *role = r->roles[id];
    if (!role) return;
    role->state = state;
    if (state == RB_ROLE_GIVEN_UP) rb_role_give_up(r, role, RB_REASON_NO_WORKER, 0);
}

/* Carries a note out, and frees it, unless somebody has kept it. */
static void carry_out(struct rb_relay *r, struct down_note *n, int early) {
    void *note = n;
    struct rb_conn *c;
    switch ((enum down_kind)n->head.kind) {
    case DOWN_CONFIG: configure(r, n->data); break;
    case DOWN_ADOPT: {
        int rc = rb_conn_open(r, n->connection, n->flow, n->fd, n->object, (const char *)n->data,
                              n->flags, n->data + n->a, n->b);
        if (rc < 0) {
            static const char why[] = "no_room_for_another_connection";
            struct rb_wire wire = {.fd = n->fd, .tls = n->object};
            rb_wire_close(&wire);
            rb_up_event(r, RB_EVENT_CONNECTION_LOST, n->connection, 0, 0, 0, 0, why,
                        sizeof why - 1);
        }
        break;
    }
    case DOWN_SEND: {
        struct rb_slice message = {n->data + n->a, n->b};
        c = rb_conn_find(r, n->connection);
        if (!c) break;
        rb_store_relaxed(&c->flow->taken, c->flow->taken + n->head.size);
        rb_send_signal(c, (struct rb_slice){n->data, n->a}, n->flags ? &message : NULL, &note);
        break;
    }
    case DOWN_ROOM:
        c = rb_conn_find(r, n->connection); /* one that is gone has told so */
        if (!c) break;
        c->wants_room = 1;
        rb_conn_dirty(c); /* the flush looks */
        break;
    case DOWN_DROP:
        c = rb_conn_find(r, n->connection);
        if (!c) break;
        rb_conn_flush(c); /* what was said before still goes, as far as the socket takes it */
        if (early && !c->farewell) {
            c->farewell = n; /* it may be the one that is being read: the round's flush closes it */
            c->failed = (const char *)n->data;
            rb_conn_dirty(c);
            note = NULL;
        } else if (!early) {
            rb_conn_close(c, (const char *)n->data);
        }
        break;
    case DOWN_SERVICE:
        rb_owned_install(r, (enum rb_service)n->connection, (uint32_t)(n->flags >> 32),
                         (uint32_t)n->flags, n->data, n->a);
        break;
    case DOWN_SERVICE_DOWN:
        rb_owned_down(r, (enum rb_service)n->connection, (struct rb_slice){n->data, n->a});
        break;
    case DOWN_HOLD: rb_owned_hold(r, (enum rb_service)n->connection, (int)n->flags); break;
    case DOWN_ROLE: {
        struct rb_role *role = n->object;
        r->roles[role->id] = role;
        if (role->id >= r->roles_count) r->roles_count = role->id + 1;
        break;
    }
    case DOWN_ROLE_CONFIG: {
        struct rb_role_config config;
        memcpy(&config, n->data, sizeof config);
        if (r->roles[n->connection]) rb_role_configure(r, r->roles[n->connection], &config);
        break;
    }
    case DOWN_ROLE_REMOVED:
        if (r->roles[n->connection]) rb_role_leave(r, r->roles[n->connection]);
        break;
    case DOWN_TENANT: configure_tenant(r, n->data, n->a, n->b); break;
    case DOWN_ROLE_STATE: set_role_state(r, n->connection, (uint32_t)n->flags); break;
    case DOWN_ALLOWANCE: {
        struct rb_allowance_config config;
        if (n->b) memcpy(&config, n->data + n->a, sizeof config);
        rb_accounts_configure(&r->accounts, n->connection, (struct rb_slice){n->data, n->a},
                              n->b ? &config : NULL, r->now);
        break;
    }
    case DOWN_BREAKER: {
        uint32_t how;
        memcpy(&how, n->data, sizeof how);
        if (r->roles[n->connection]) rb_health_force(r, r->roles[n->connection], n->flags, how);
        break;
    }
    case DOWN_WORKER: {
        struct rb_worker *w = n->object;
        *rb_worker_room(r->workers, w->id) =
            w; /* there is room: face.c's table is as large and held it first */
        rb_worker_watch(w);
        break;
    }
    case DOWN_DRAIN: {
        struct rb_worker *w = rb_worker_find(r, n->flags);
        if (w) rb_worker_drain(w);
        break;
    }
    case DOWN_WEIGH: {
        struct rb_worker *w = rb_worker_find(r, n->flags);
        if (w) rb_role_weigh(w, n->connection);
        break;
    }
    case DOWN_SPARE: {
        struct rb_worker *w = rb_worker_find(r, n->flags);
        if (w) w->spared = 1;
        break;
    }
    case DOWN_UNGUARDED: {
        struct rb_worker *w = rb_worker_find(r, n->flags);
        if (w) w->unguarded = 1;
        break;
    }
    case DOWN_LANE: rb_beam_open(r, n->object, n->connection); break;
    case DOWN_LANE_CLOSE: rb_beam_close(r, n->flags, (const char *)n->data); break;
    case DOWN_RECORD:
        if (n->object)
            rb_tape_begin(r, n->object);
        else if (r->tape)
            rb_tape_stop(r->tape);
        break;
    case DOWN_STOP: r->stopping = 1; break;
    }
    free(note);
}

int rb_down_take(struct rb_relay *r) {
    struct rb_note *note;
    int count = 0;
    while (!r->stopping && (note = r->tape ? rb_tape_note(r) : rb_duct_take(&r->down))) {
        carry_out(r, (struct down_note *)note, 0);
        count++;
    }
    return count;
}

void rb_down_take_early(struct rb_relay *r) {
    struct rb_note *note;
    while (!r->stopping && (note = r->tape ? rb_tape_note_early(r) : rb_duct_take(&r->down)))
        carry_out(r, (struct down_note *)note, 1);
}
