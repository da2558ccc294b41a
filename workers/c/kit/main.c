/* main.c: opens the link that the process was started with, says hello, serves, ends. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel_pvt.h"
#include "kit_pvt.h"
#include "peer_pvt.h"

static const char *environment_or(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : otherwise;
}

/* A role may have no pool, and a link no eventfds. */
static int open_or_none(int fd) { return fcntl(fd, F_GETFD) < 0 ? -1 : fd; }

/* Before the hello. A table that breaks a rule is a bug of the worker's. */
static void declare(struct rb_worker *w, const char *program) {
    struct rb_worker_op ops[RB_OPS_MAX];
    const struct rb_worker_options *o = w->options;
    const char *why = "there are too many of them";
    unsigned count = o == NULL ? 0 : o->ops_count, i = 0;
    memset(ops, 0, sizeof ops);
    for (; i < count && i < RB_OPS_MAX; i++) {
        size_t size = strlen(o->ops[i].name);
        ops[i].opcode = o->ops[i].opcode;
        ops[i].takes = o->ops[i].takes;
        if (size < sizeof ops[i].name) memcpy(ops[i].name, o->ops[i].name, size); /* else none */
    }
    if (i == count && rb_link_declare(&w->link, ops, count, &why) == 0) return;
    fprintf(stderr, "%s: its operations cannot be declared: %s\n", program, why);
    abort();
}

int rb_kit_open(struct rb_worker *w, const char *program, const char *kit, uint32_t kit_version) {
    char why[512];
    int first = rb_kit_first_descriptor(), failed;

    if (first < 0 || open_or_none(first) < 0) {
        fprintf(stderr,
                "%s: a worker of a ringbridge: it is started by one, with " RB_ENV_LINK_FD
                " naming its link\n",
                program);
        return RB_EXIT_USAGE;
    }
    struct rb_link_fds fds = {
        .relay_side = first,
        .worker_side = first + 1,
        .pool = open_or_none(first + 2),
        .wake_worker = open_or_none(first + 3),
        .wake_relay = open_or_none(first + 4),
    };
    /* The channel, used or not: nothing that the worker starts may speak for it. */
    fcntl(first + RB_FD_CHANNEL - RB_FD_RELAY_SIDE, F_SETFD, FD_CLOEXEC);
    failed = rb_link_attach(&w->link, &fds, why, sizeof why);
    if (failed) {
        fprintf(stderr, "%s: refused: %s\n", program, why);
        return failed == -EPROTO ? RB_EXIT_CONFIG : RB_EXIT_OSERR;
    }
    /* Before the first thread, so that every one has it blocked (gate.h). */
    sigset_t wake;
    sigemptyset(&wake);
    sigaddset(&wake, RB_WAKE_SIGNAL);
    sigprocmask(SIG_BLOCK, &wake, NULL);

    failed = rb_heartbeat_start(w);
    if (failed) {
        fprintf(stderr, "%s: no thread for the heartbeat: %s\n", program, strerror(-failed));
        return RB_EXIT_OSERR;
    }
    rb_channel.worker = w;
    failed = rb_state_load(w);
    if (failed) {
        fprintf(stderr, "%s: it has no state to begin with: %s\n", program, strerror(-failed));
        rb_kit_close(w);
        return RB_EXIT_DATAERR;
    }
    rb_peers_offer_service(w);
    rb_zstd_offer(w);
    rb_chaos_open();
    declare(w, program);
    rb_link_greet(&w->link, kit, kit_version, environment_or(RB_ENV_ROLE, ""));
    return 0;
}

void rb_kit_close(struct rb_worker *w) {
    if (!w->leaving) rb_channel_leave(w);
    rb_peers_end();
    rb_heartbeat_stop(w);
    rb_link_detach(&w->link);
}

/* The caller's options as far as it knows them, and zero behind. -E2BIG when it knows more than we do and uses it, as the kernel
 * does with structs that grow (openat2(2), "Extensibility"). */
static int take_options(struct rb_worker_options *ours, const void *theirs, size_t bytes) {
    const uint8_t *more = theirs;
    for (size_t i = sizeof *ours; i < bytes; i++)
        if (more[i] != 0) return -E2BIG;
    memset(ours, 0, sizeof *ours);
    memcpy(ours, theirs, bytes < sizeof *ours ? bytes : sizeof *ours);
    return 0;
}

int rb_worker_run(int argc, char **argv, const struct rb_worker_options *options,
                  size_t options_bytes) {
    struct rb_worker_options known;
    struct rb_worker worker = {.options = &known};
    const char *program = argc > 0 ? argv[0] : "worker";
    if (take_options(&known, options, options_bytes)) {
        fprintf(stderr,
                "%s: it was built for a newer kit than %u.%u, and asks for what this one does not "
                "know\n",
                program, RB_KIT_VERSION >> 16, RB_KIT_VERSION & 0xffff);
        return RB_EXIT_CONFIG;
    }
    int failed = rb_kit_open(&worker, program, "c", RB_KIT_VERSION);
    if (failed) return failed;
    rb_kit_serve(&worker);
    rb_kit_close(&worker);
    return 0;
}
