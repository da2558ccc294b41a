/* owned.h: the processes of the node that the relay answers for: the JobDispatcher and the Streams. Each has a pid and names, which
 * the other thread installs anew when it starts one again. */
#ifndef RB_RELAY_OWNED_H
#define RB_RELAY_OWNED_H

#include "ringbridge/relay.h"
#include "ringbridge/term.h"

enum { SERVICE_NAMES_MAX = 8 };

struct rb_relay;

struct rb_owned {
    uint8_t pid[300];
    size_t pid_size;
    struct rb_slice names[SERVICE_NAMES_MAX];
    uint32_t names_count;
    char text[512];
    int up;   /* 0: not installed yet, or ended */
    int held; /* suspended: jobs queue, none is placed; no part is asked for */
};

/* `names`: NUL-separated, empty last, `size` bytes with it. */
void rb_owned_install(struct rb_relay *r, enum rb_service service, uint32_t pid_id,
                      uint32_t pid_serial, const void *names, size_t size);
/* Whose is this pid or name? NULL: none of ours. */
struct rb_owned *rb_owned_find(struct rb_relay *r, struct rb_slice target);
/* The process ends: everybody who watches it hears why, and it is nobody until it is installed again. */
void rb_owned_down(struct rb_relay *r, enum rb_service service, struct rb_slice reason);
void rb_owned_hold(struct rb_relay *r, enum rb_service service, int on);
static inline struct rb_slice rb_owned_pid(const struct rb_owned *o) {
    return (struct rb_slice){o->pid, o->pid_size};
}

#endif
