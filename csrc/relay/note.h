/* note.h: what passes between the relay and the other thread: events and signals up, notes down. */
#ifndef RB_RELAY_NOTE_H
#define RB_RELAY_NOTE_H

#include <stddef.h>
#include <stdint.h>

#include "ringbridge/term.h"

struct rb_beam;
struct rb_conn;
struct rb_note;
struct rb_relay;
struct rb_role;
struct rb_tape;
struct rb_role_config;
struct rb_worker;

/* On the relay's thread. */
void rb_up_event(struct rb_relay *r, uint32_t kind, uint32_t connection, uint64_t worker, int64_t a,
                 int64_t b, int64_t c, const void *data, size_t size); /* never lost */
int rb_up_signal(struct rb_conn *c, struct rb_slice control,
                 struct rb_slice message); /* -EAGAIN: bound reached */
void rb_up_flush(struct rb_relay *r);
int rb_down_take(struct rb_relay *r); /* carries out what the other thread asked; how many */
/* The same while a connection is being read: none is closed before the round's flush. */
void rb_down_take_early(struct rb_relay *r);

/* face.c's way down, and what down.c asks of it. */
int rb_note_role(struct rb_relay *r, struct rb_role *role);
int rb_note_role_config(struct rb_relay *r, uint32_t id, const struct rb_role_config *config);
int rb_note_role_removed(struct rb_relay *r, uint32_t id);
int rb_note_worker(struct rb_relay *r, struct rb_worker *w);
int rb_note_lane(struct rb_relay *r, struct rb_beam *b, uint32_t connection);
struct rb_note *
rb_note_next(const struct rb_note *note); /* of a list of notes that wait for room upward */
int rb_note_record(struct rb_relay *r, struct rb_tape *tape); /* NULL: no more */
int rb_note_stop(struct rb_relay *r);
void rb_face_forget(struct rb_relay *r,
                    uint64_t worker); /* its end was heard of: its memory goes */
void rb_face_forget_lane(struct rb_relay *r, uint64_t lane);
int rb_face_telemetry(struct rb_relay *r); /* is there from now on (face_list.c) */
void rb_face_telemetry_free(struct rb_relay *r);

void rb_face_forget_role(struct rb_relay *r, uint32_t id); /* the same of a role */

#endif
