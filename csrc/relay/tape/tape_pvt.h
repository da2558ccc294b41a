/* tape_pvt.h: what the parts of the tape share. */
#ifndef RB_RELAY_TAPE_PVT_H
#define RB_RELAY_TAPE_PVT_H

#include <pthread.h>

#include "relay/tape/tape.h"

struct rb_tape {
    struct rb_relay *relay;
    int replaying;
    uint64_t items, rounds;
    uint32_t skipped; /* recording: since the last item; replaying: left before the next */

    /* Recording: a ring of bytes from the relay to a thread that writes the file. */
    uint8_t *ring;
    uint64_t ring_bytes, file_bytes, file_bytes_max;
    int fd;
    int stopping; /* the round that runs is the last */
    int ended;    /* nothing is put any more */
    uint32_t end_skipped;
    uint32_t end;    /* enum rb_record_end */
    uint64_t tail;   /* T1: the relay's */
    uint64_t head;   /* T2: the writer's */
    uint32_t over;   /* T3: the relay's: nothing comes behind the tail */
    uint32_t done;   /* T4: the writer's: the file is closed */
    uint32_t failed; /* the writer's: errno */
    pthread_t writer;

    /* Replaying. */
    const uint8_t *file;
    uint64_t size, at; /* of the next item */
    uint64_t round_ns;
    int differs;
    char words[512];
};

/* record.c */
void rb_tape_put(struct rb_tape *t, enum rb_item_kind kind, uint64_t id, int64_t a, uint64_t b,
                 const struct rb_part *parts, int count);

/* notes.c */
void rb_note_tape(struct rb_tape *t, const struct rb_note *note);
int rb_note_untape(struct rb_relay *r, uint32_t kind, const uint8_t *data, uint64_t size);

/* replay.c. NULL, or the data of the next item, which is of this kind and id; anything else is the first difference. */
const uint8_t *rb_replay_take(struct rb_tape *t, enum rb_item_kind kind, uint64_t id,
                              struct rb_item *item);
int rb_replay_next_is(const struct rb_tape *t, enum rb_item_kind kind, uint64_t id);
__attribute__((format(printf, 2, 3))) void rb_replay_differs(struct rb_tape *t, const char *format,
                                                             ...);
const char *rb_item_name(uint32_t kind);

#endif
