/* record.c: a recording: from the relay through a ring of bytes to a thread that writes the file.
 *
 * The relay never waits for it: what does not fit into the ring ends the recording, and the file says so; so does a file that is as
 * long as it may be. What was written until then can be replayed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "relay/relay_pvt.h"
#include "relay/tape/tape_pvt.h"

enum { WRITE_MAX = 1 << 20, PAUSE_NS = 2000000 };

/* --- The relay's side ------------------------------------------------------------------------------------------------------------ */

static void copy_in(struct rb_tape *t, uint64_t *tail, const void *at, size_t size) {
    const uint8_t *from = at;
    while (size > 0) {
        uint64_t offset = *tail & (t->ring_bytes - 1);
        size_t n = t->ring_bytes - offset < size ? t->ring_bytes - offset : size;
        memcpy(t->ring + offset, from, n);
        *tail += n;
        from += n;
        size -= n;
    }
}

void rb_tape_end(struct rb_tape *t, enum rb_record_end why) {
    if (t->ended) return;
    t->ended = 1;
    t->end = why;
    t->end_skipped = t->skipped;
    /* T3: pairs with the writer's load: it sees the reason and the last of the tail. */
    rb_store_release(&t->over, 1);
}

static int has_room(struct rb_tape *t, uint64_t bytes) {
    if (t->ended) return 0;
    /* Relaxed: nothing is read for it. */
    if (rb_load_relaxed(&t->failed)) return rb_tape_end(t, RB_RECORD_WRITE_FAILED), 0;
    /* T2: pairs with the writer's store: it has read the bytes that we are about to write over. */
    uint64_t used = t->tail - rb_load_acquire(&t->head);
    if (bytes > t->ring_bytes - used) return rb_tape_end(t, RB_RECORD_DISK_SLOW), 0;
    if (t->file_bytes + bytes > t->file_bytes_max) return rb_tape_end(t, RB_RECORD_FILE_FULL), 0;
    return 1;
}

static void publish(struct rb_tape *t, uint64_t tail) {
    t->file_bytes += tail - t->tail;
    /* T1: pairs with the writer's load: it sees the bytes before it. */
    rb_store_release(&t->tail, tail);
}

void rb_tape_put(struct rb_tape *t, enum rb_item_kind kind, uint64_t id, int64_t a, uint64_t b,
                 const struct rb_part *parts, int count) {
    static const uint8_t zeros[8];
    struct rb_item item = {.kind = kind, .skipped = t->skipped, .id = id, .a = a, .b = b};
    for (int i = 0; i < count; i++) item.size += parts[i].size;
    size_t padding = (size_t)(-item.size & 7);
    if (!has_room(t, sizeof item + item.size + padding)) return;
    uint64_t tail = t->tail;
    copy_in(t, &tail, &item, sizeof item);
    for (int i = 0; i < count; i++) copy_in(t, &tail, parts[i].at, parts[i].size);
    copy_in(t, &tail, zeros, padding);
    publish(t, tail);
    t->skipped = 0;
    t->items++;
}

/* From here on, and from the begin of this round: nothing has been told to the relay before (rb_relay_record). */
void rb_tape_begin(struct rb_relay *r, struct rb_tape *t) {
    struct rb_tape_head head = {.magic = RB_TAPE_MAGIC,
                                .head_bytes = sizeof head,
                                .config_bytes = sizeof r->config,
                                .role_config_bytes = sizeof(struct rb_role_config),
                                .now = r->now,
                                .random = r->random.state,
                                .ticked_ns = r->ticked_ns,
                                .tended_ns = r->tended_ns,
                                .vitals_due_ns = r->vitals.due_ns,
                                .vitals_step_ns = r->vitals.step_ns};
    memcpy(head.digest, RB_LAYOUT_DIGEST_BYTES, sizeof head.digest);
    memcpy(head.node, r->node, sizeof head.node);
    struct rb_relay_config config = r->config;
    config.node = NULL; /* no address of ours in a file */
    uint8_t padded[(sizeof config + 7) / 8 * 8] = {0};
    memcpy(padded, &config, sizeof config);
    uint64_t tail = t->tail;
    copy_in(t, &tail, &head, sizeof head);
    copy_in(t, &tail, padded, sizeof padded);
    publish(t, tail);
    r->tape = t;
    rb_tape_round(r, NULL, 0);
}

/* The recording is over: the relay looks at the world by itself again. Between rounds only, since shadows go. */
void rb_tape_leave(struct rb_relay *r) {
    if (r->tape->replaying) return; /* to the end */
    rb_tape_end(r->tape, RB_RECORD_STOPPED);
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        if (r->workers[i]) rb_shadow_close(r->workers[i]);
    }
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (r->conns[i]) r->conns[i]->wire.tape = NULL;
    }
    r->tape = NULL;
}

/* With this round, which is still written down whole. */
void rb_tape_stop(struct rb_tape *t) { t->stopping = 1; }

int rb_tape_is_over(const struct rb_tape *t) { return t->ended || t->stopping; }

/* --- The thread that writes ------------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const void *at, size_t size) {
    const uint8_t *from = at;
    while (size > 0) {
        ssize_t n = write(fd, from, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        from += n;
        size -= (size_t)n;
    }
    return 0;
}

static void *write_file(void *argument) {
    struct rb_tape *t = argument;
    int failed = 0;
    for (;;) {
        /* T3 before T1: once it is over, the tail that follows is the last. */
        uint32_t over = rb_load_acquire(&t->over);
        uint64_t tail = rb_load_acquire(&t->tail), head = t->head;
        if (head == tail) {
            if (over) break;
            const struct timespec pause = {.tv_nsec = PAUSE_NS};
            nanosleep(&pause, NULL);
            continue;
        }
        uint64_t offset = head & (t->ring_bytes - 1), n = tail - head;
        if (n > t->ring_bytes - offset) n = t->ring_bytes - offset;
        if (n > WRITE_MAX) n = WRITE_MAX;
        if (!failed && (failed = write_all(t->fd, t->ring + offset, (size_t)n)) < 0)
            rb_store_relaxed(&t->failed, (uint32_t)-failed);
        /* T2: pairs with has_room(). */
        rb_store_release(&t->head, head + n);
    }
    struct rb_item end = {.kind = RB_ITEM_END, .skipped = t->end_skipped, .a = (int64_t)t->end};
    if (!failed && (failed = write_all(t->fd, &end, sizeof end)) < 0)
        rb_store_relaxed(&t->failed, (uint32_t)-failed);
    close(t->fd);
    /* T4: pairs with rb_relay_record_figures(): the file is whole. */
    rb_store_release(&t->done, 1);
    return NULL;
}

/* --- The other thread's side ------------------------------------------------------------------------------------------------------ */

static void tape_free(struct rb_tape *t) {
    munmap(t->ring, t->ring_bytes);
    free(t);
}

/* Waits for the file: by then the relay has let go of the tape. */
void rb_tape_close(struct rb_relay *r) {
    if (!r->face_tape) return;
    pthread_join(r->face_tape->writer, NULL);
    tape_free(r->face_tape);
    r->face_tape = NULL;
}

int rb_relay_record(struct rb_relay *r, const char *path, uint64_t file_bytes_max,
                    uint64_t buffer_bytes) {
    if (r->told || r->face_tape) return -EBUSY;
    if (buffer_bytes < 1 << 16 || buffer_bytes & (buffer_bytes - 1)) return -EINVAL;
    struct rb_tape *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    t->relay = r;
    t->ring_bytes = buffer_bytes;
    t->file_bytes_max = file_bytes_max;
    int rc = 0;
    t->ring = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->ring == MAP_FAILED) {
        free(t);
        return -ENOMEM;
    }
    /* What callers and workers say is in it: nobody else reads it. */
    t->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (t->fd < 0) {
        rc = -errno;
        goto no_file;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = -pthread_create(&t->writer, NULL, write_file, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0) goto no_thread;
    r->face_tape = t;
    rc = rb_note_record(r, t);
    if (rc < 0) {
        rb_tape_end(t, RB_RECORD_STOPPED);
        rb_tape_close(r);
    }
    return rc;

no_thread:
    close(t->fd);
no_file:
    tape_free(t);
    return rc;
}

int rb_relay_record_stop(struct rb_relay *r) {
    return r->face_tape ? rb_note_record(r, NULL) : -ENOENT;
}

int rb_relay_record_figures(struct rb_relay *r, struct rb_record_figures *figures) {
    const struct rb_tape *t = r->face_tape;
    if (!t) return -ENOENT;
    *figures = (struct rb_record_figures){
        .bytes = rb_load_relaxed(&t->tail),
        .over = rb_load_acquire(&t->over), /* T3: then the reason can be read */
        .done = rb_load_acquire(&t->done), /* T4 */
        .failed = rb_load_relaxed(&t->failed),
    };
    if (figures->over) figures->end = t->end;
    return 0;
}
