/* owned.c: whose is a pid or a name, and how such a process begins and ends. */
#include "relay/service/owned.h"

#include "relay/relay_pvt.h"

void rb_owned_install(struct rb_relay *r, enum rb_service service, uint32_t pid_id,
                      uint32_t pid_serial, const void *names, size_t size) {
    struct rb_owned *o = &r->owned[service];
    memcpy(o->text, names, size);
    o->names_count = 0;
    for (const char *name = o->text; *name && o->names_count < SERVICE_NAMES_MAX;
         name += strlen(name) + 1)
        o->names[o->names_count++] = (struct rb_slice){(const uint8_t *)name, strlen(name)};
    uint8_t *p = o->pid;
    *p++ = RB_TAG_NEW_PID;
    *p++ = RB_TAG_SMALL_ATOM_UTF8;
    *p++ = (uint8_t)r->node_text.size;
    memcpy(p, r->node_text.at, r->node_text.size);
    p += r->node_text.size;
    rb_put_be32(p, pid_id);
    rb_put_be32(p + 4, pid_serial);
    rb_put_be32(p + 8, r->config.creation);
    o->pid_size = (size_t)(p + 12 - o->pid);
    o->up = 1;
}

static int is_of(const struct rb_owned *o, struct rb_slice target, struct rb_slice name) {
    if (name.at == NULL)
        return target.size == o->pid_size && memcmp(target.at, o->pid, target.size) == 0;
    for (uint32_t i = 0; i < o->names_count; i++) {
        if (rb_slice_equal(name, o->names[i])) return 1;
    }
    return 0;
}

struct rb_owned *rb_owned_find(struct rb_relay *r, struct rb_slice target) {
    struct rb_slice name = {NULL, 0};
    if (target.size == 0) return NULL;
    if (target.at[0] != RB_TAG_NEW_PID) {
        struct rb_cursor c = rb_cursor_of(target);
        if (rb_term_atom(&c, &name) < 0) return NULL;
    }
    for (int i = 0; i < RB_SERVICES; i++) {
        if (is_of(&r->owned[i], target, name)) return &r->owned[i];
    }
    return NULL;
}

void rb_owned_down(struct rb_relay *r, enum rb_service service, struct rb_slice reason) {
    struct rb_owned *o = &r->owned[service];
    o->up = 0;
    if (service == RB_SERVICE_JOBS) rb_beams_end(r, "service_down"); /* before their jobs are */
    if (service == RB_SERVICE_STREAMS) rb_streams_end(r); /* DOWN is what their consumers hear */
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct rb_conn *c = r->conns[i];
        for (uint32_t b = 0; c && b < MONITOR_BUCKETS; b++) {
            for (struct rb_monitor *m = c->monitors[b], *next; m; m = next) {
                next = m->next;
                if (rb_owned_find(r, rb_monitor_to(m)) != o) continue;
                struct rb_job *j = m->job;
                rb_send_down(c, m, reason);
                rb_monitor_remove(c, m);
                if (j) rb_job_orphaned(r, j); /* its caller has been told, and takes no answer */
            }
        }
    }
}

void rb_owned_hold(struct rb_relay *r, enum rb_service service, int on) {
    r->owned[service].held = on;
    for (uint32_t i = 0; service == RB_SERVICE_JOBS && i < r->roles_count; i++) {
        if (r->roles[i]) r->roles[i]->dirty = 1;
    }
    for (uint32_t i = 0; service == RB_SERVICE_STREAMS && i < CONNECTIONS_MAX; i++) {
        if (r->conns[i]) rb_streams_resume(r->conns[i]);
    }
}
