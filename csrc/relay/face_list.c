/* face_list.c: the other thread's part of the telemetry: who there is. Figures are the relay's (service/beam_telemetry.c). */
#include <errno.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "ringbridge/lane_telemetry.h"

#define SAME(name) \
    __extension__ _Static_assert((int)RB_LISTED_##name == RB_LANE_WORKER_##name, "the same words")
SAME(NONE);
SAME(STARTING);
SAME(READY);
SAME(DRAINING);
SAME(RESTARTING);
SAME(DRAINED);
SAME(GIVEN_UP);
SAME(FINISHED);
SAME(STOPPED);
__extension__ _Static_assert(RB_LISTED_MAX == RB_LANE_TELEMETRY_WORKERS_MAX, "one number");
__extension__ _Static_assert(RB_LISTED_ERRORS_MAX == RB_LANE_TELEMETRY_ERRORS_MAX, "one number");
__extension__ _Static_assert(RB_LISTED_WHY_BYTES ==
                                 sizeof(((struct rb_lane_telemetry_error *)0)->why),
                             "one size");

/* Made when it is first needed, by this thread; the relay's sees it with its first lane. */
int rb_face_telemetry(struct rb_relay *r) {
    if (r->telemetry) return 0;
    struct rb_lane_telemetry *t = malloc(sizeof *t);
    int failed = t ? rb_lane_telemetry_create(t) : -ENOMEM;
    if (failed < 0) {
        free(t);
        return failed;
    }
    r->telemetry = t;
    return 0;
}

void rb_face_telemetry_free(struct rb_relay *r) {
    if (!r->telemetry) return;
    rb_lane_telemetry_close(r->telemetry);
    free(r->telemetry);
    r->telemetry = NULL;
}

int rb_relay_list_worker(struct rb_relay *r, uint32_t place, const struct rb_listed_worker *w) {
    if (place >= RB_LISTED_MAX || w->state > RB_LISTED_STOPPED) return -EINVAL;
    int failed = rb_face_telemetry(r);
    if (failed < 0) return failed;
    struct rb_lane_telemetry_place p = {.worker = w->worker,
                                        .state = w->state,
                                        .index = w->index,
                                        .os_pid = w->os_pid,
                                        .restarts = w->restarts};
    __extension__ _Static_assert(sizeof p.kit == sizeof w->kit, "one size");
    __extension__ _Static_assert(sizeof p.role == sizeof w->role, "one size");
    memcpy(p.kit, w->kit, sizeof p.kit);
    memcpy(p.role, w->role, sizeof p.role);
    rb_lane_list_place(r->telemetry, place, &p);
    return 0;
}

int rb_relay_list_hidden(struct rb_relay *r, uint32_t hidden) {
    int failed = rb_face_telemetry(r);
    if (failed == 0) rb_lane_list_hidden(r->telemetry, hidden);
    return failed;
}

int rb_relay_list_errors(struct rb_relay *r, const struct rb_listed_error *errors, uint32_t count) {
    struct rb_lane_telemetry_error all[RB_LISTED_ERRORS_MAX];
    if (count > RB_LISTED_ERRORS_MAX) return -EINVAL;
    int failed = rb_face_telemetry(r);
    if (failed < 0) return failed;
    memset(all, 0, sizeof all);
    for (uint32_t i = 0; i < count; i++) {
        all[i].worker = errors[i].worker;
        all[i].bytes = (uint32_t)strnlen(errors[i].why, sizeof errors[i].why);
        memcpy(all[i].why, errors[i].why, all[i].bytes);
    }
    rb_lane_list_errors(r->telemetry, all, count);
    return 0;
}
