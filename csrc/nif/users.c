/* users.c: who is inside a lane's mapping: it goes with the last one. */
#include "nif/nif_pvt.h"

int lane_enter(struct lane *lane) {
    uint32_t users = rb_load_relaxed(&lane->users);
    /* Acquire: pairs with the store in lane_open(); from 0 it never rises again. */
    while (users && !__atomic_compare_exchange_n(&lane->users, &users, users + 1, 1,
                                                 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
    }
    return users != 0;
}

void lane_leave(struct lane *lane) {
    /* Pairs with itself: the last one sees all that the others have done. */
    if (__atomic_sub_fetch(&lane->users, 1, __ATOMIC_ACQ_REL) == 0) {
        rb_lane_detach(lane->client);
        lane->client = NULL;
    }
}
