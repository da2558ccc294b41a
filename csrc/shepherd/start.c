/* start.c: the rules of START: from a packet to what is asked for. */
#include <string.h>

#include "shepherd_pvt.h"

#define KNOWN_FLAGS                                                                     \
    (RB_START_NO_NAMESPACES | RB_START_LANDLOCK | RB_START_HOLD_STDIN | RB_START_USER | \
     RB_START_NO_NETWORK | RB_START_TERMINAL | RB_START_MEMORY_GROUP | RB_START_KILL_GROUP)

/* Step over `count` NUL-terminated strings. Returns where they end, or NULL when they run past
 * `end`. */
static const char *skip_strings(const char *at, const char *end, uint32_t count) {
    while (count-- > 0) {
        const char *nul = at == NULL ? NULL : memchr(at, 0, (size_t)(end - at));
        if (nul == NULL) return NULL;
        at = nul + 1;
    }
    return at;
}

/* The cookie owns the cluster. The bridge strips it; a bridge that forgot to is stopped here. */
static int names_cookie(const char *env, uint32_t envc) {
    static const char cookie[] = "RINGBRIDGE_COOKIE";
    for (; envc-- > 0; env += strlen(env) + 1)
        if (strncmp(env, cookie, sizeof cookie - 1) == 0) return 1;
    return 0;
}

static const char *check_head(const struct rb_message_start *head) {
    if (head->flags & ~(uint32_t)KNOWN_FLAGS) return "START: unknown flag";
    if (head->argc < 1 || head->argc > RB_SHEPHERD_ARGC_MAX)
        return "START: argc is not 1..RB_SHEPHERD_ARGC_MAX";
    if (head->envc > RB_SHEPHERD_ENVC_MAX) return "START: envc is above RB_SHEPHERD_ENVC_MAX";
    if (head->limitc > RB_SHEPHERD_LIMITS_MAX)
        return "START: limitc is above RB_SHEPHERD_LIMITS_MAX";
    if (head->groupc > RB_SHEPHERD_GROUPS_MAX)
        return "START: groupc is above RB_SHEPHERD_GROUPS_MAX";
    if (head->syscalls > RB_SYSCALLS_STRICT) return "START: unknown list of system calls";
    return NULL;
}

/* Hand out the descriptors in their order. Returns whether there were as many as the flags say. */
static int take_descriptors(struct rb_job *job, const int *fds, size_t count) {
    const int *at = fds + RB_SHEPHERD_LINK_FDS + 1;
    size_t wanted = RB_SHEPHERD_LINK_FDS + 1;

    wanted += (job->flags & RB_START_LANDLOCK) ? 1 : 0;
    wanted += (job->flags & RB_START_MEMORY_GROUP) ? 1 : 0;
    wanted += (job->flags & RB_START_KILL_GROUP) ? 1 : 0;
    if (count != wanted) return 0;
    memcpy(job->link_fds, fds, sizeof job->link_fds);
    job->obituary_fd = fds[RB_SHEPHERD_LINK_FDS];
    job->landlock_fd = (job->flags & RB_START_LANDLOCK) ? *at++ : -1;
    job->memory_place = (job->flags & RB_START_MEMORY_GROUP) ? *at++ : -1;
    job->kill_place = (job->flags & RB_START_KILL_GROUP) ? *at++ : -1;
    return 1;
}

static const char *check_strings(const struct rb_job *job, const char *after, const char *end) {
    if (after != end) return "START: strings do not end where the message ends";
    if (names_cookie(job->env, job->envc)) return "START: the environment holds the cookie";
    if (strlen(job->group_name) >= RB_SHEPHERD_NAME_MAX || strchr(job->group_name, '/') != NULL ||
        job->group_name[0] == '.')
        return "START: no name for a control group";
    if (job->group_name[0] == 0 && (job->memory_place >= 0 || job->kill_place >= 0))
        return "START: a control group has no name";
    return NULL;
}

const char *rb_parse_start(const char *message, size_t size, const int *fds, size_t count,
                           struct rb_job *job) {
    struct rb_message_start head;
    const char *end = message + size, *at, *after, *rule;
    size_t limits_bytes, groups_bytes;

    if (size < sizeof head) return "START is shorter than its head";
    memcpy(&head, message, sizeof head);
    if ((rule = check_head(&head)) != NULL) return rule;
    limits_bytes = head.limitc * sizeof *job->limits;
    groups_bytes = head.groupc * sizeof *job->groups;
    if (size - sizeof head < limits_bytes + groups_bytes ||
        head.strings_bytes != size - sizeof head - limits_bytes - groups_bytes)
        return "START: strings_bytes is not what follows";

    job->flags = head.flags;
    if (!take_descriptors(job, fds, count)) return "START: wrong number of descriptors";
    job->grace_ms = head.grace_ms;
    job->argc = head.argc;
    job->envc = head.envc;
    job->limitc = head.limitc;
    job->groupc = head.groupc;
    job->uid = head.uid;
    job->gid = head.gid;
    job->syscalls = head.syscalls;
    job->nice = head.nice;
    job->memory_bytes = head.memory_bytes;
    job->address_bytes = head.address_bytes;
    at = message + sizeof head;
    memcpy(job->limits, at, limits_bytes);
    memcpy(job->groups, at + limits_bytes, groups_bytes);
    job->cwd = at + limits_bytes + groups_bytes;
    job->group_name = skip_strings(job->cwd, end, 1);
    job->argv = skip_strings(job->group_name, end, 1);
    job->env = skip_strings(job->argv, end, head.argc);
    after = skip_strings(job->env, end, head.envc);
    return check_strings(job, after, end);
}
