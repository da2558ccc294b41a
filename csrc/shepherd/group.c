/* group.c: control groups of a worker's own: a cap on its tree's memory, and one more guard.
 *
 * The bridge hands over the directories in which groups may be made (workers/_control_groups.py
 * says how they are found); their name says whose they are and a lock that
 * they are guarded, so that the bridge, or the next one, can end what a killed shepherd leaves.
 *
 *   version 2   memory.max, memory.swap.max, memory.events; cgroup.kill ends all that is in the
 *               group at once, daemons included (Linux 5.14). A worker is born into it (clone3 with
 *               CLONE_INTO_CGROUP): moving a process later takes the kernel milliseconds.
 *   version 1   memory.limit_in_bytes, memory.memsw.limit_in_bytes, memory.oom_control. The worker
 *               moves itself there before anything else. No cgroup.kill.
 *
 * Shepherd and init stay outside: neither the cap nor the OOM killer is theirs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shepherd_pvt.h"

#define REMOVE_TRIES 50 /* of a millisecond each: the dead may still be on their way out */
#define GUARD_TRIES 500 /* so, too: above what a bridge takes to end a group that nobody guards */

static int write_file(int directory, const char *name, const char *text) {
    int fd = openat(directory, name, O_WRONLY | O_CLOEXEC), result = 0;
    if (fd < 0) return -errno;
    if (write(fd, text, strlen(text)) < 0) result = -errno;
    close(fd);
    return result;
}

/* In bytes. The group of an older kernel has no swap to count: that is no error. */
static int set_limit(struct rb_group *group, uint64_t memory_bytes) {
    char text[24];
    int result;

    *rb_put_decimal(text, memory_bytes) = 0;
    if (group->joined_by_birth) {
        result = write_file(group->directory, "memory.max", text);
        write_file(group->directory, "memory.swap.max", "0");
        group->events = openat(group->directory, "memory.events", O_RDONLY | O_CLOEXEC);
    } else {
        result = write_file(group->directory, "memory.limit_in_bytes", text);
        write_file(group->directory, "memory.memsw.limit_in_bytes", text);
        group->events = openat(group->directory, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    }
    return result;
}

/* We guard it: until we close it, or are dead. A bridge that starts at this moment may hold it, for
 * as long as it takes to end what it takes for abandoned; then it is gone, which make() sees. */
static int guard(int directory) {
    struct pollfd none;
    int tries = GUARD_TRIES;

    while (flock(directory, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || tries-- == 0) return -errno;
        poll(&none, 0, 1);
    }
    return 0;
}

static int make(struct rb_group *group, int place, const char *name) {
    int result;

    group->place = fcntl(place, F_DUPFD_CLOEXEC, 0);
    if (group->place < 0) return -errno;
    if (mkdirat(group->place, name, 0755) != 0 && errno != EEXIST) return -errno;
    group->made = 1;
    group->directory = openat(group->place, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group->directory < 0) return -errno;
    if ((result = guard(group->directory)) != 0) return result;
    group->kill = openat(group->directory, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    group->joined_by_birth = faccessat(group->directory, "cgroup.controllers", F_OK, 0) == 0;
    group->procs = openat(group->directory, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    return group->procs < 0 ? -errno : 0;
}

static void drop(struct rb_group *group, const char *name) {
    struct pollfd none;
    int tries = REMOVE_TRIES;

    rb_close(&group->directory);
    rb_close(&group->procs);
    rb_close(&group->kill);
    rb_close(&group->events);
    while (group->made && unlinkat(group->place, name, AT_REMOVEDIR) != 0 && errno == EBUSY &&
           tries-- > 0)
        poll(&none, 0, 1);
    group->made = 0;
    rb_close(&group->place);
}

/* A group that such a bridge has removed, before or while we waited, is made once more. */
static int make_guarded(struct rb_group *group, int place, const char *name) {
    int result = make(group, place, name);
    if (result != -ENOENT && result != -ENODEV) return result;
    drop(group, name);
    return make(group, place, name);
}

void rb_no_groups(struct rb_groups *groups) {
    const struct rb_group none = {-1, -1, -1, -1, -1, 0, 0};
    memset(groups, 0, sizeof *groups);
    groups->memory = groups->kill = none;
}

void rb_make_groups(const struct rb_job *job, struct rb_groups *groups) {
    int result = 0;

    strcpy(groups->name, job->group_name); /* NOLINT(*.strcpy): start.c has checked its length */
    if (job->memory_place >= 0) {
        result = make_guarded(&groups->memory, job->memory_place, groups->name);
        if (result == 0) result = set_limit(&groups->memory, job->memory_bytes);
        if (result != 0) drop(&groups->memory, groups->name);
        groups->error = -result;
    }
    if (job->kill_place >= 0) {
        result = make_guarded(&groups->kill, job->kill_place, groups->name);
        if (result != 0) drop(&groups->kill, groups->name);
        if (groups->error == 0) groups->error = -result;
    }
}

int rb_group_of_birth(const struct rb_groups *groups) {
    if (groups->memory.joined_by_birth) return groups->memory.directory;
    return groups->kill.joined_by_birth ? groups->kill.directory : -1;
}

/* Born into it, or moved there now. */
static int join(const struct rb_group *group, int born_into) {
    if (group->procs < 0) return 0;
    return born_into == group->directory || write(group->procs, "0", 1) == 1;
}

uint32_t rb_join_groups_async_signal_safe(const struct rb_groups *groups, int born_into) {
    const struct rb_group *memory = &groups->memory, *kill = &groups->kill;
    uint32_t flags = 0;

    if (join(memory, born_into))
        flags |= RB_STARTED_MEMORY_GROUP | (memory->kill >= 0 ? RB_STARTED_KILL_GROUP : 0u);
    if (join(kill, born_into) && kill->kill >= 0) flags |= RB_STARTED_KILL_GROUP;
    return flags;
}

void rb_kill_groups(const struct rb_groups *groups) {
    const int fds[] = {groups->memory.kill, groups->kill.kill};
    size_t i;
    for (i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0 && write(fds[i], "1", 1) < 0) continue; /* empty, or going: all the same */
}

void rb_remove_groups(struct rb_groups *groups) {
    drop(&groups->memory, groups->name);
    drop(&groups->kill, groups->name);
}
