/* replay.c: a record run again: no thread, no sockets, no workers; given what came in, held against what went out.
 *
 * It ends with the record, or with the first difference: what the relay does where the record has something else. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "relay/tape/tape_pvt.h"
#include "ringbridge/lab.h"

const char *rb_item_name(uint32_t kind) {
    static const char *const names[] = {
        [RB_ITEM_ROUND] = "a round",
        [RB_ITEM_NOTE] = "a note",
        [RB_ITEM_READ] = "a read of connection",
        [RB_ITEM_WRITE] = "a write on connection",
        [RB_ITEM_FLUSH] = "a flush of connection",
        [RB_ITEM_CLOCK] = "a look at the clock",
        [RB_ITEM_HELLO] = "the greeting of worker",
        [RB_ITEM_LOOK] = "a look at worker",
        [RB_ITEM_COMPLETIONS] = "completions of worker",
        [RB_ITEM_RESULT] = "a result of worker",
        [RB_ITEM_OBITUARY] = "the obituary of worker",
        [RB_ITEM_OUTPUT] = "output of worker",
        [RB_ITEM_FULL] = "no room upward for connection",
        [RB_ITEM_REQUEST] = "a request to worker",
        [RB_ITEM_SIGNAL] = "a signal to worker",
        [RB_ITEM_EVENT] = "an event of",
        [RB_ITEM_VITALS] = "the vital signs of worker",
        [RB_ITEM_END] = "the end of the record",
    };
    return kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "nothing known";
}

/* --- Items ----------------------------------------------------------------------------------------------------------------------- */

void rb_replay_differs(struct rb_tape *t, const char *format, ...) {
    if (t->differs) return;
    t->differs = 1;
    int n = snprintf(t->words, sizeof t->words,
                     "round %llu at %llu ns, item %llu: ", (unsigned long long)t->rounds,
                     (unsigned long long)t->round_ns, (unsigned long long)t->items);
    va_list words;
    va_start(words, format);
    vsnprintf(t->words + n, sizeof t->words - (size_t)n, format, words);
    va_end(words);
}

/* The item at `at`; where the file has no whole one, its end. */
static struct rb_item item_at(const struct rb_tape *t, uint64_t at) {
    struct rb_item item = {.kind = RB_ITEM_END, .a = RB_RECORD_WRITE_FAILED};
    if (t->size - at < sizeof item) return item;
    struct rb_item found;
    memcpy(&found, t->file + at, sizeof found);
    uint64_t left = t->size - at - sizeof found;
    return found.size <= left && (found.size + 7) / 8 * 8 <= left ? found : item;
}

/* How many looks found nothing before the next item. */
static void approach(struct rb_tape *t) { t->skipped = item_at(t, t->at).skipped; }

int rb_replay_next_is(const struct rb_tape *t, enum rb_item_kind kind, uint64_t id) {
    if (t->differs || t->skipped) return 0;
    struct rb_item item = item_at(t, t->at);
    return item.kind == kind && (id == UINT64_MAX || item.id == id);
}

const uint8_t *rb_replay_take(struct rb_tape *t, enum rb_item_kind kind, uint64_t id,
                              struct rb_item *item) {
    *item = item_at(t, t->at);
    if (t->differs) return NULL;
    if (!rb_replay_next_is(t, kind, id)) {
        /* A record that was cut off says nothing of what came after. */
        if (item->kind == RB_ITEM_END && item->a != RB_RECORD_STOPPED) {
            t->differs = 1;
            t->words[0] = 0;
            return NULL;
        }
        char ours[32] = "", theirs[32] = "";
        if (id != UINT64_MAX) snprintf(ours, sizeof ours, " %llu", (unsigned long long)id);
        snprintf(theirs, sizeof theirs, " %llu", (unsigned long long)item->id);
        rb_replay_differs(t, "%s%s, where the record has %s%s%s", rb_item_name(kind), ours,
                          t->skipped ? "more looks at workers before " : "",
                          rb_item_name(item->kind), theirs);
        return NULL;
    }
    const uint8_t *data = t->file + t->at + sizeof *item;
    t->at += sizeof *item + (item->size + 7) / 8 * 8;
    t->items++;
    approach(t);
    return data;
}

/* --- The file -------------------------------------------------------------------------------------------------------------------- */

static int open_file(struct rb_tape *t, const char *path, struct rb_tape_head *head,
                     struct rb_relay_config *config, struct rb_replay *result) {
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int rc = fstat(fd, &s) < 0 ? -errno : 0;
    const char *why = NULL;
    if (rc == 0 && (size_t)s.st_size < sizeof *head) rc = -EPROTO, why = "it is no record";
    if (rc == 0) {
        t->size = (uint64_t)s.st_size;
        void *file = mmap(NULL, t->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file == MAP_FAILED) rc = -errno;
        t->file = rc == 0 ? file : NULL;
    }
    close(fd);
    if (rc == 0) {
        memcpy(head, t->file, sizeof *head);
        t->at = sizeof *head + (sizeof *config + 7) / 8 * 8;
        if (head->magic != RB_TAPE_MAGIC)
            why = "it is no record";
        else if (head->head_bytes != sizeof *head || head->config_bytes != sizeof *config ||
                 head->role_config_bytes != sizeof(struct rb_role_config) ||
                 memcmp(head->digest, RB_LAYOUT_DIGEST_BYTES, sizeof head->digest) != 0)
            why = "it was written by another version of the relay";
        else if (t->size < t->at)
            why = "it is cut off in its head";
        if (why) rc = -EPROTO;
    }
    if (why) snprintf(result->words, sizeof result->words, "%s", why);
    if (rc < 0 || !t->file) return rc;
    memcpy(config, t->file + sizeof *head, sizeof *config);
    head->node[sizeof head->node - 1] = 0;
    config->node = head->node;
    approach(t);
    return 0;
}

/* --- The run --------------------------------------------------------------------------------------------------------------------- */

/* One round of the record. 0: there is none. */
static int run_round(struct rb_relay *r, struct rb_tape *t) {
    enum { READY_MAX = 1024 };
    struct epoll_event ready[READY_MAX];
    struct rb_item item;
    if (!rb_replay_next_is(t, RB_ITEM_ROUND, 0)) return 0;
    const uint8_t *data = rb_replay_take(t, RB_ITEM_ROUND, 0, &item);
    uint64_t count = item.size / sizeof *ready;
    if (count > READY_MAX) return 0;
    memcpy(ready, data, count * sizeof *ready);
    t->rounds++;
    t->round_ns = (uint64_t)item.a;
    rb_relay_round(r, (uint64_t)item.a, ready, (int)count);
    /* The other thread's part: it hears of ends, and lets go of what has ended. */
    struct rb_event event;
    while (rb_relay_take(r, &event)) {
    }
    return !t->differs;
}

int rb_replay(const char *path, struct rb_replay *result) {
    struct rb_tape t = {.replaying = 1, .fd = -1};
    struct rb_tape_head head = {0};
    struct rb_relay_config config = {0};
    struct rb_relay *r = NULL;
    *result = (struct rb_replay){0};
    int rc = open_file(&t, path, &head, &config, result);
    if (rc == 0) rc = rb_relay_make(&r, &config);
    if (rc < 0 || !r) {
        if (t.file) munmap((void *)(uintptr_t)t.file, t.size);
        return rc;
    }
    t.relay = r;
    r->still = 1;
    r->tape = &t;
    r->now = head.now;
    r->random.state = head.random;
    r->ticked_ns = head.ticked_ns;
    r->tended_ns = head.tended_ns;
    r->vitals =
        (struct rb_vitals_watch){.due_ns = head.vitals_due_ns, .step_ns = head.vitals_step_ns};
    while (run_round(r, &t)) {
    }
    struct rb_item item = item_at(&t, t.at);
    if (!t.differs && item.kind != RB_ITEM_END)
        rb_replay_differs(&t, "the round ends, where the record has %s %llu",
                          rb_item_name(item.kind), (unsigned long long)item.id);
    result->items = t.items;
    result->rounds = t.rounds;
    result->bytes = t.at;
    result->end = item.kind == RB_ITEM_END ? (uint32_t)item.a : 0;
    result->differs = t.differs && t.words[0];
    snprintf(result->words, sizeof result->words, "%s", t.words);
    rb_relay_read_stats(r, &result->stats);
    t.differs = 1; /* what is said as it closes is nobody's */
    rb_relay_stop(r);
    rb_relay_close(r);
    munmap((void *)(uintptr_t)t.file, t.size);
    return 0;
}
