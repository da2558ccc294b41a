/* note.h: the notes that face.c hands down, and what note.c asks of it. */
#ifndef RB_RELAY_NOTE_H
#define RB_RELAY_NOTE_H

#include <stdint.h>

struct rb_note;
struct rb_relay;
struct rb_role;
struct rb_worker;

int rb_note_role(struct rb_relay *r, struct rb_role *role);
int rb_note_worker(struct rb_relay *r, struct rb_worker *w);
struct rb_note *
rb_note_next(const struct rb_note *note); /* of a list of notes that wait for room upward */
int rb_note_stop(struct rb_relay *r);
void rb_face_forget(struct rb_relay *r,
                    uint64_t worker); /* its end was heard of: its memory goes */

#endif
