#define _GNU_SOURCE
#include "relay/cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum rb_cpus_way rb_cpus_wanted(enum rb_cpus_way now, const struct rb_cpus_sight *seen) {
    if (seen->working == 0) return now; /* a pause is no reason */
    /* One that holds a job and has ended none runs a long one. */
    if (seen->working > 1 || seen->ended == 0 || seen->pauses) return RB_CPUS_FREE;
    if (seen->service_ns >= RB_CPUS_SHORT_NS) return RB_CPUS_FREE;
    return seen->bytes / seen->ended < RB_CPUS_LARGE ? RB_CPUS_APART : RB_CPUS_TOGETHER;
}

/* The process behind a pidfd by our numbers; 0 or less: it is gone. (proc(5), fdinfo) */
static int process_of(int pidfd) {
    char path[64], line[128];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    FILE *info = fopen(path, "re");
    while (info && pid == 0 && fgets(line, sizeof line, info)) {
        if (strncmp(line, "Pid:", 4) == 0) pid = (int)strtol(line + 4, NULL, 10);
    }
    if (info) fclose(info);
    return pid;
}

static int stands(int pid, const int cpu[2], int at) {
    cpu_set_t has;
    if (sched_getaffinity(pid, sizeof has, &has) < 0) return -errno;
    int found = 0;
    for (int i = 0; i < 2; i++) found += (at < 0 || at == cpu[i]) && CPU_ISSET(cpu[i], &has);
    return CPU_COUNT(&has) == (at < 0 ? 2 : 1) && found == CPU_COUNT(&has);
}

static int move(int pid, const int cpu[2], int from, int to) {
    cpu_set_t set;
    int rc = stands(pid, cpu, from);
    if (rc == 0) rc = stands(pid, cpu, -1);
    if (rc <= 0) return rc < 0 ? rc : -EBUSY;
    CPU_ZERO(&set);
    for (int i = 0; i < 2; i++) {
        if (to < 0 || to == cpu[i]) CPU_SET(cpu[i], &set);
    }
    return sched_setaffinity(pid, sizeof set, &set) < 0 ? -errno : 0;
}

int rb_cpus_move(int pidfd, const int cpu[2], int from, int to) {
    int pid = process_of(pidfd);
    return pid > 0 ? move(pid, cpu, from, to) : -ESRCH;
}

void rb_cpus_open(struct rb_relay *r) {
    struct rb_cpus *c = &r->cpus;
    cpu_set_t may;
    if (!r->config.arrange_cpus || sched_getaffinity(0, sizeof may, &may) < 0) return;
    int count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &may)) continue;
        if (count < 2) c->cpu[count] = cpu;
        count++;
    }
    c->open = count == 2;
}

static int relay_at(const struct rb_cpus *c, enum rb_cpus_way way) {
    return way == RB_CPUS_FREE ? -1 : c->cpu[0];
}

static int worker_at(const struct rb_cpus *c, enum rb_cpus_way way) {
    return way == RB_CPUS_FREE ? -1 : c->cpu[way == RB_CPUS_APART];
}

static void arrange(struct rb_relay *r, struct rb_worker *w, enum rb_cpus_way way) {
    struct rb_cpus *c = &r->cpus;
    enum rb_cpus_way its = c->worker == w->id ? c->way : RB_CPUS_FREE;
    if (move(0, c->cpu, relay_at(c, c->way), relay_at(c, way)) < 0) {
        c->way = RB_CPUS_FREE; /* what was arranged is not ours any more */
        c->worker = 0;
        return;
    }
    /* Another user's process; or somebody else has pinned it. Then the relay stays free too. */
    if (rb_cpus_move(w->pidfd, c->cpu, worker_at(c, its), worker_at(c, way)) < 0) {
        c->refused = w->id;
        move(0, c->cpu, relay_at(c, way), -1);
        way = RB_CPUS_FREE;
    }
    c->way = way;
    c->worker = way == RB_CPUS_FREE ? 0 : w->id;
}

void rb_cpus_look(struct rb_relay *r) {
    struct rb_cpus *c = &r->cpus;
    struct rb_cpus_sight seen = {0};
    struct rb_worker *one = NULL;
    if (!c->open || r->now - c->looked_ns < RB_CPUS_LOOK_NS) return;
    c->looked_ns = r->now;
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        struct rb_worker *w = r->workers[i];
        if (!w) continue;
        uint64_t ended = w->stats.done - w->done_before;
        w->done_before = w->stats.done;
        if (ended == 0 && w->in_flight == 0) continue;
        seen.working++;
        seen.ended = ended;
        seen.service_ns = w->service_ns;
        one = w;
    }
    seen.pauses = r->stats.sleeps - c->pauses;
    c->pauses = r->stats.sleeps;
    uint64_t bytes = r->stats.bytes_in + r->stats.bytes_out + c->lane_bytes;
    seen.bytes = bytes - c->bytes;
    c->bytes = bytes;

    enum rb_cpus_way way = rb_cpus_wanted(c->way, &seen);
    struct rb_worker *with = c->worker ? rb_worker_find(r, c->worker) : NULL;
    if (with && with != one && one) { /* another one works now */
        arrange(r, with, RB_CPUS_FREE);
        with = NULL;
    } else if (c->worker && !with) { /* it has ended */
        move(0, c->cpu, relay_at(c, c->way), -1);
        c->way = RB_CPUS_FREE;
        c->worker = 0;
    }
    if (one && way != c->way && (way == RB_CPUS_FREE ? with != NULL : one->id != c->refused))
        arrange(r, with ? with : one, way);
}
