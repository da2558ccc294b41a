/* family.c: start the init in the strongest form that the kernel allows.
 *
 * Tried in this order:
 *   1. a new PID namespace                        root, or CAP_SYS_ADMIN
 *   2. a new user namespace and a PID namespace   anyone, where the administrator has not forbidden
 *                                                 it
 *   3. neither: the init is a child subreaper     always
 *
 * The init waits for one byte before it does anything. That gives us the time to write the user
 * namespace's maps, and it closes a race: in a namespace getppid() is 0 whether the parent lives or
 * not, so the init cannot ask whether we died before it set its parent death signal. If we did, it
 * reads end of file instead of the byte.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shepherd_pvt.h"

static int write_proc(pid_t pid, const char *name, const char *text, size_t size) {
    char path[64];
    char *end = rb_put_decimal(stpcpy(path, "/proc/"), (unsigned long)pid);
    int fd, result = 0;

    *stpcpy(stpcpy(end, "/"), name) = 0;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    if (write(fd, text, size) != (ssize_t)size) result = errno != 0 ? -errno : -EIO;
    close(fd);
    return result;
}

static int write_map(pid_t pid, const char *name, unsigned long id) {
    char text[80];
    char *end = rb_put_decimal(text, id);
    *end++ = ' ';
    end = stpcpy(rb_put_decimal(end, id), " 1");
    return write_proc(pid, name, text, (size_t)(end - text));
}

/* Each id maps to itself, so the worker sees its own user. "deny" before gid_map:
 * user_namespaces(7) asks for it. */
static int map_ids(pid_t pid) {
    int result = write_proc(pid, "setgroups", "deny", 4);
    if (result == 0 || result == -ENOENT) result = write_map(pid, "uid_map", geteuid());
    if (result == 0) result = write_map(pid, "gid_map", getegid());
    return result;
}

static int start_init(unsigned long namespaces, const struct rb_job *job,
                      const struct rb_worker_ends *ends, const int life[2], pid_t *init_pid) {
    pid_t pid = rb_clone(namespaces);
    int result = 0;

    if (pid < 0) return -errno;
    if (pid == 0) {
        close(life[0]);
        rb_run_init(job, ends, life[1], namespaces != 0);
    }
    if (namespaces & CLONE_NEWUSER) result = map_ids(pid);
    if (result == 0) result = rb_send(life[0], "", 1, NULL, 0);
    if (result != 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return result;
    }
    *init_pid = pid;
    return 0;
}

int rb_start_family(const struct rb_job *job, const struct rb_worker_ends *ends, const int life[2],
                    struct rb_family *family) {
    static const struct {
        unsigned long namespaces;
        uint32_t flags;
    } forms[] = {
        {CLONE_NEWPID, RB_STARTED_PID_NAMESPACE},
        {CLONE_NEWPID | CLONE_NEWUSER, RB_STARTED_PID_NAMESPACE | RB_STARTED_USER_NAMESPACE},
        {0, RB_STARTED_SUBREAPER},
    };
    size_t form = (job->flags & RB_START_NO_NAMESPACES) ? 2 : 0;
    int result = -ECHILD;

    family->namespace_error = 0;
    for (; form < sizeof forms / sizeof *forms; form++) {
        /* Both of us are subreapers then: whichever of shepherd and init is killed, the other
         * inherits the tree. */
        if (forms[form].namespaces == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
            return -errno;
        result = start_init(forms[form].namespaces, job, ends, life, &family->init_pid);
        if (result == 0) {
            family->flags = forms[form].flags;
            if (forms[form].namespaces != 0) family->namespace_error = 0; /* got one after all */
            return 0;
        }
        family->namespace_error = -result;
    }
    return result;
}
