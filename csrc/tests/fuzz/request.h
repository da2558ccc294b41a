/* fuzz/request.h: control and message are parsed alike however much of them is there; texts stay
 * within their bounds. */
#ifndef RINGBRIDGE_FUZZ_REQUEST_H
#define RINGBRIDGE_FUZZ_REQUEST_H

#include "../terms.h"
#include "relay/net/signal.h"
#include "relay/service/handle.h"
#include "relay/service/request.h"

struct reading {
    int signal, message, request, options;
    size_t at; /* how far the cursor came */
    char why[RB_WHY_BYTES];
};

static inline struct reading fuzz_read(const uint8_t *data, size_t size) {
    struct reading r = {.message = -EAGAIN, .request = -EAGAIN, .options = -EAGAIN};
    struct bytes b = exactly(data, size);
    struct rb_cursor c = rb_cursor_of(slice_of(&b));
    struct rb_signal s;
    struct rb_from from;
    struct rb_submit submit = {0};
    uint64_t job;
    r.signal = rb_signal_parse(&c, &s);
    if (r.signal == 0) r.message = rb_message_kind(&c, &from);
    if (r.message == RB_MESSAGE_CALL) r.request = rb_request_kind(&c, &submit, &job, r.why);
    r.at = (size_t)(c.at - b.at);
    if (r.request == RB_REQUEST_SUBMIT && rb_term_skip(&c, NULL) == 0)
        r.options = rb_submit_options(&c, &submit, r.why);
    uint64_t number;
    if (r.request == RB_REQUEST_CANCEL_REF &&
        rb_reference_is_of(submit.ref, (struct rb_slice)BYTES("b@h"), 5) &&
        rb_reference_number(submit.ref, RB_HANDLE_MARK, &number) == 0)
        r.at += number & 1; /* whatever it is, it is read within the bytes */
    if (!memchr(r.why, 0, sizeof r.why)) abort();
    bytes_free(&b);
    return r;
}

/* The first byte: where the bytes are cut. What half of them said, all of them say. */
static inline int fuzz_request(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    struct reading whole = fuzz_read(data + 1, size - 1);
    struct reading half = fuzz_read(data + 1, (size - 1) * data[0] / 256);
    if (half.signal != -EAGAIN && half.signal != whole.signal) abort();
    if (half.message != -EAGAIN && half.message != whole.message) abort();
    if (half.request != -EAGAIN && half.request != whole.request) abort();
    if (half.request == RB_REQUEST_SUBMIT && half.at != whole.at) abort();
    if (half.options != -EAGAIN && half.options != whole.options) abort();
    if (half.request == RB_REQUEST_BAD && strcmp(half.why, whole.why) != 0) abort();
    return 0;
}

#endif
