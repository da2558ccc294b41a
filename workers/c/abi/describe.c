/* describe.c: prints what a program that uses the header was compiled to: sizes and places of public structs, numbers of enums and
 * constants. tests/workers/test_abi.py holds it, with the exported symbols, against released.txt. */
#include <stdio.h>

#include "ringbridge_worker.h"

#define STRUCT(type) printf("struct %s %zu\n", #type, sizeof(struct type))
#define FIELD(type, field)                                                       \
    printf("field %s.%s %zu %zu\n", #type, #field, offsetof(struct type, field), \
           sizeof(((struct type *)0)->field))
#define NUMBER(name) printf("number %s %ld\n", #name, (long)(name))

int main(void) {
    STRUCT(rb_worker_options); /* may grow at its end: rb_worker_run() is told its size */
    FIELD(rb_worker_options, handler);
    FIELD(rb_worker_options, user);
    FIELD(rb_worker_options, short_jobs);
    FIELD(rb_worker_options, save);
    FIELD(rb_worker_options, restore);
    FIELD(rb_worker_options, ops);
    FIELD(rb_worker_options, ops_count);
    FIELD(rb_worker_options, unused);
    FIELD(rb_worker_options, serves_peers);
    STRUCT(rb_op);
    FIELD(rb_op, opcode);
    FIELD(rb_op, takes);
    FIELD(rb_op, name);
    STRUCT(rb_trace);
    FIELD(rb_trace, trace_id);
    FIELD(rb_trace, span_id);
    FIELD(rb_trace, flags);
    STRUCT(rb_dest);
    FIELD(rb_dest, name);
    FIELD(rb_dest, node);
    FIELD(rb_dest, term);
    FIELD(rb_dest, term_bytes);
    STRUCT(rb_reply);
    FIELD(rb_reply, term);
    FIELD(rb_reply, size);
    FIELD(rb_reply, memory);
    FIELD(rb_reply, mapped_bytes);
    STRUCT(rb_peer_answer);
    FIELD(rb_peer_answer, bytes);
    FIELD(rb_peer_answer, size);
    FIELD(rb_peer_answer, is_term);
    FIELD(rb_peer_answer, code);
    FIELD(rb_peer_answer, memory);
    NUMBER(RB_STATE_FULL);
    NUMBER(RB_STATE_INCREMENT);
    NUMBER(RB_LOG_DEBUG);
    NUMBER(RB_LOG_INFO);
    NUMBER(RB_LOG_WARNING);
    NUMBER(RB_LOG_ERROR);
    NUMBER(RB_TAKES_RAW);
    NUMBER(RB_TAKES_TERM);
    NUMBER(RB_TAKES_PARTS);
    NUMBER(RB_MESSAGE_BYTES_MAX);
    NUMBER(RB_CODE_KIT);
    NUMBER(RB_CODE_ANSWER_TOO_LARGE);
    NUMBER(RB_CODE_NO_ANSWER);
    NUMBER(RB_PEER_BYTES_MAX);
    return 0;
}
