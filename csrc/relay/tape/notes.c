/* notes.c: what the other thread told the relay, on the tape and off it.
 *
 * A note holds addresses and descriptors of its process (a role with its pool, a link, a socket): on the tape stands what they were
 * made from, and a replay makes them anew. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "relay/net/tls.h"
#include "relay/note_pvt.h"
#include "relay/relay_pvt.h"
#include "relay/tape/tape_pvt.h"

struct taped_note { /* the data follows: its two parts, and what the kind has more */
    uint32_t connection, has_tls;
    uint64_t flags, a, b;
    uint64_t unsent, unread; /* DOWN_ADOPT under TLS: sizes of these, behind the data */
};
struct taped_role { /* DOWN_ROLE */
    struct rb_role_config config;
    uint32_t id, reserved;
    char name[64];
};
struct taped_worker { /* DOWN_WORKER */
    uint64_t id;
    struct rb_link_config link;
    uint32_t role, has_stdout, has_stderr, reserved;
};

/* --- Onto it -------------------------------------------------------------------------------------------------------------------- */

static void tape_role(struct rb_tape *t, const struct rb_role *role) {
    struct taped_role taped = {.config = role->config, .id = role->id};
    taped.config.name = NULL;
    memcpy(taped.name, role->name, sizeof taped.name);
    rb_tape_put(t, RB_ITEM_NOTE, DOWN_ROLE, 0, 0, &(struct rb_part){&taped, sizeof taped}, 1);
}

static void tape_worker(struct rb_tape *t, const struct rb_worker *w) {
    struct taped_worker taped = {.id = w->id,
                                 .link = w->link.config,
                                 .role = w->role->id,
                                 .has_stdout = w->stdout_fd >= 0,
                                 .has_stderr = w->stderr_fd >= 0};
    rb_tape_put(t, RB_ITEM_NOTE, DOWN_WORKER, 0, 0, &(struct rb_part){&taped, sizeof taped}, 1);
}

void rb_note_tape(struct rb_tape *t, const struct rb_note *note) {
    const struct down_note *n = (const struct down_note *)note;
    switch ((enum down_kind)note->kind) {
    case DOWN_ROLE: tape_role(t, n->object); return;
    case DOWN_WORKER: tape_worker(t, n->object); return;
    case DOWN_LANE:
    case DOWN_LANE_CLOSE: return; /* there is none beside a recording (face.c) */
    case DOWN_RECORD:
    case DOWN_STOP: return; /* of the recording, not of what is recorded */
    default: break;
    }
    struct taped_note taped = {
        .connection = n->connection, .flags = n->flags, .a = n->a, .b = n->b};
    struct rb_part parts[4] = {{&taped, sizeof taped}, {n->data, n->a + n->b}};
    int count = 2;
    if (note->kind == DOWN_ADOPT && n->object) {
        const struct rb_tls *tls = n->object;
        taped.has_tls = 1;
        taped.unsent = tls->unsent.end - tls->unsent.begin;
        taped.unread = tls->unread.end;
        parts[count++] = (struct rb_part){tls->unsent.at + tls->unsent.begin, taped.unsent};
        parts[count++] = (struct rb_part){tls->unread.at, taped.unread};
    }
    rb_tape_put(t, RB_ITEM_NOTE, note->kind, 0, 0, parts, count);
}

/* --- Off it --------------------------------------------------------------------------------------------------------------------- */

/* A descriptor that nothing ever happens to. */
static int silent_fd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static int untape_role(struct rb_relay *r, const uint8_t *data, uint64_t size) {
    struct taped_role taped;
    if (size != sizeof taped) return -EPROTO;
    memcpy(&taped, data, sizeof taped);
    taped.name[sizeof taped.name - 1] = 0;
    taped.config.name = taped.name;
    return rb_relay_add_role(r, taped.id, &taped.config);
}

static int untape_worker(struct rb_relay *r, const uint8_t *data, uint64_t size) {
    struct taped_worker taped;
    int fds[5];
    if (size != sizeof taped) return -EPROTO;
    memcpy(&taped, data, sizeof taped);
    const struct rb_link_config *link = &taped.link;
    int rc = rb_relay_create_link(r, taped.role, taped.id, link->slots, link->result_bytes,
                                  link->result_block_bytes, link->features, fds);
    if (rc < 0) return rc;
    return rb_relay_add_worker(r, taped.id, -1, silent_fd(), taped.has_stdout ? silent_fd() : -1,
                               taped.has_stderr ? silent_fd() : -1);
}

static int buffer_of(struct rb_buffer *b, const uint8_t *bytes, uint64_t size) {
    return size ? rb_buffer_put(b, bytes, size) : 0;
}

static int untape_connection(struct rb_relay *r, const struct taped_note *n, const uint8_t *data) {
    const char *peer = (const char *)data;
    const uint8_t *leftover = data + n->a;
    if (n->a == 0 || peer[n->a - 1] != 0) return -EPROTO;
    if (!n->has_tls)
        return rb_relay_adopt(r, n->connection, silent_fd(), peer, n->flags, leftover, n->b);
    struct rb_tls *tls = calloc(1, sizeof *tls); /* without a session: the tape has plain bytes */
    if (!tls) return -ENOMEM;
    tls->fd = silent_fd();
    if (buffer_of(&tls->unsent, leftover + n->b, n->unsent) < 0 ||
        buffer_of(&tls->unread, leftover + n->b + n->unsent, n->unread) < 0)
        return -ENOMEM;
    return rb_relay_adopt_tls(r, n->connection, tls, peer, n->flags, leftover, n->b);
}

int rb_note_untape(struct rb_relay *r, uint32_t kind, const uint8_t *data, uint64_t size) {
    struct taped_note taped;
    if (kind == DOWN_ROLE) return untape_role(r, data, size);
    if (kind == DOWN_WORKER) return untape_worker(r, data, size);
    if (kind > DOWN_STOP || size < sizeof taped) return -EPROTO;
    memcpy(&taped, data, sizeof taped);
    data += sizeof taped;
    size -= sizeof taped;
    if (taped.a > size || taped.b > size - taped.a) return -EPROTO;
    if (kind == DOWN_ADOPT) {
        uint64_t more = size - taped.a - taped.b;
        if (taped.unsent > more || taped.unread > more - taped.unsent) return -EPROTO;
        return untape_connection(r, &taped, data);
    }
    struct down_note *n = malloc(sizeof *n + size);
    if (!n) return -ENOMEM;
    *n = (struct down_note){.head = {.kind = kind, .size = (uint32_t)(sizeof *n + size)},
                            .connection = taped.connection,
                            .flags = taped.flags,
                            .a = taped.a,
                            .b = taped.b};
    memcpy(n->data, data, size);
    int rc = rb_duct_put(&r->down, &n->head);
    if (rc < 0) free(n);
    return rc;
}
