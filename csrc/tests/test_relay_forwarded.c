/* Calls that another node's connection brings: a process forwarded them, and somebody else is to be answered. Whose connection was
 * handed over before the call was read is there to be answered, also where the round had begun without it. */
#define _GNU_SOURCE
#include "still_lab.h"

enum { SMALL = 7, STREAMED = 40000, REF = 9, OTHER_FIRST = 8, OTHER_AGAIN = 9, CARRIER = 10 };

static void connect_as(struct still *s, const char *node, uint32_t conn, int *fd,
                       const uint8_t *leftover, size_t size) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
    if (rb_relay_adopt(s->lab.relay, conn, pair[0], node, LAB_FLAGS, leftover, size) < 0) abort();
    *fd = pair[1];
}

/* A frame: a call of a process of other@host, as whoever forwards it sends it; what of it fits goes to `at`. How long it is. */
static size_t forwarded(uint8_t *at, size_t payload) {
    struct lab_bytes b = {.size = 0};
    lab_call_of(&b, 1, "other@host", 3);
    lab_alias_tag(&b, REF);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, (uint32_t)payload);
    rb_put_be32(at, (uint32_t)(3 + b.size + payload));
    memcpy(at + 4, "\x83\x44\x00", 3);
    memcpy(at + 7, b.at, b.size);
    memset(at + 7 + b.size, 'x', payload);
    return 7 + b.size + payload;
}

/* Opened with the worker's job made possible and a record begun. */
static void open_recorded(struct still *s) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    config.seed = 1;
    *s = (struct still){.now = 1000 * STILL_MS};
    s->lab.peer = -1;
    if (rb_lab_open(&s->lab.relay, &config, s->now) < 0) abort();
    snprintf(lab_record, sizeof lab_record, "/tmp/rb-forwarded-%d", (int)getpid());
    unlink(lab_record);
    if (rb_relay_record(s->lab.relay, lab_record, 64 << 20, 16 << 20) < 0) abort();
    if (rb_relay_install_service(s->lab.relay, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0)
        abort();
    if (rb_relay_add_role(s->lab.relay, 0, &role) < 0) abort();
    s->lab.peer = lab_connect(&s->lab);
    still_hire(s, 0);
    still_round(s, 0);
}

/* The watch of the caller, then its answer. */
static void is_answered(struct still *s, int fd) {
    still_round(s, 0);
    still_answer(s, 0, RB_STATUS_OK);
    still_round(s, 0);
    int n = 0;
    static uint8_t body[1 << 17];
    for (int i = 0; i < 8 && n >= 0; i++) { /* watches come first */
        n = lab_read(fd, body, sizeof body, 0);
        if (n > 0 && memmem(body, (size_t)n, "\x77\x02ok", 4)) return;
    }
    CHECK(!"who is to be answered is answered over its newest connection");
}

/* The connection that brings the call, and the one that its answer is for, come down in this order: as where the second is handed over
 * while the first is being read. */
static void whoever_is_handed_over_by_then_is_answered(size_t payload, int dropped, int tls_like) {
    static uint8_t frame[STREAMED + 1024];
    struct still s;
    int first, again, carrier;
    size_t size = forwarded(frame, payload), come = tls_like ? size / 2 : size;
    open_recorded(&s);
    connect_as(&s, "other@host", OTHER_FIRST, &first, NULL, 0);
    still_round(&s, 0);
    connect_as(&s, "carrier@host", CARRIER, &carrier, frame, come);
    if (dropped) rb_relay_drop(s.lab.relay, OTHER_FIRST, "because");
    connect_as(&s, "other@host", OTHER_AGAIN, &again, NULL, 0);
    close(first);
    still_round(&s, 0);
    if (come < size) lab_write(carrier, frame + come, size - come);
    is_answered(&s, again);
    close(again);
    close(carrier);
    still_round(&s, 0);
    still_close(&s);
}

static void a_call_that_lies_whole_in_the_buffer(void) {
    whoever_is_handed_over_by_then_is_answered(SMALL, 0, 0);
    whoever_is_handed_over_by_then_is_answered(SMALL, 1, 0);
}
static void a_payload_on_its_way(void) {
    whoever_is_handed_over_by_then_is_answered(STREAMED, 0, 1);
    whoever_is_handed_over_by_then_is_answered(STREAMED, 1, 1);
}

/* What is to be carried out early may be the end of the connection that is being read. */
static void the_carrier_itself_may_be_dropped_meanwhile(void) {
    static uint8_t frames[4096];
    struct still s;
    int other, carrier;
    size_t size = 0;
    for (int i = 0; i < 3; i++) size += forwarded(frames + size, SMALL);
    open_recorded(&s);
    connect_as(&s, "carrier@host", CARRIER, &carrier, frames, size);
    rb_relay_drop(s.lab.relay, CARRIER, "because");
    connect_as(&s, "other@host", OTHER_FIRST, &other, NULL, 0);
    still_round(&s, 0);
    CHECK(lab_event(&s.lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&s.lab, "because"));
    CHECK_EQUAL(s.lab.event.connection, CARRIER);
    is_answered(&s, other); /* each of its calls was for somebody who stayed */
    close(other);
    close(carrier);
    still_round(&s, 0);
    still_close(&s);
}

/* A consumer speaks through another process, which may be of another node. */
static void a_subscription_that_somebody_else_brings(void) {
    struct lab_bytes b = {.size = 0}, frame = {.size = 0};
    struct still s;
    int first, again, carrier;
    open_recorded(&s);
    if (rb_relay_install_service(s.lab.relay, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0) abort();
    connect_as(&s, "other@host", OTHER_FIRST, &first, NULL, 0);
    still_round(&s, 0);
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "streams");
    PUT(&b, "\x68\x03");
    lab_put_atom(&b, "$gen_producer");
    PUT(&b, "\x68\x02");
    lab_put_pid(&b, "other@host", 3);
    lab_put_ref(&b, REF);
    PUT(&b, "\x68\x03");
    lab_put_atom(&b, "subscribe");
    lab_put_atom(&b, "nil");
    PUT(&b, "\x6c\x00\x00\x00\x01\x68\x02");
    lab_put_atom(&b, "job");
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, "echo");
    lab_put_binary(&b, "go", 2);
    PUT(&b, "\x6a");
    lab_put_u32(&frame, (uint32_t)b.size + 3);
    PUT(&frame, "\x83\x44\x00");
    lab_put(&frame, b.at, b.size);
    connect_as(&s, "carrier@host", CARRIER, &carrier, frame.at, frame.size);
    connect_as(&s, "other@host", OTHER_AGAIN, &again, NULL, 0);
    close(first);
    still_round(&s, 0);
    still_round(&s, 0);
    CHECK_EQUAL(still_stats(&s).in_flight, 1);
    close(again);
    close(carrier);
    still_round(&s, 0);
    still_round(&s, 0);
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    still_close(&s);
}

int main(void) {
    RUN(a_call_that_lies_whole_in_the_buffer);
    RUN(a_payload_on_its_way);
    RUN(the_carrier_itself_may_be_dropped_meanwhile);
    RUN(a_subscription_that_somebody_else_brings);
    return check_end();
}
