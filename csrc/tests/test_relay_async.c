/* submit_async: {ok, Ref} at once, one message {ringbridge, Ref, Answer} later, both from one process; what ends such a job. */
#define _GNU_SOURCE
#include "answers.h"

enum { CALLER = 7 };

struct reference {
    uint8_t at[64];
    size_t size;
};

static void submit_async(int fd, size_t bytes, const char *orphan) {
    struct lab_bytes b = {.size = 0};
    static const uint8_t zeros[LAB_PAYLOAD_MAX + 1];
    lab_monitor(fd, 1, CALLER, CALLER);
    lab_call_head(&b, CALLER, CALLER);
    lab_verb_head(&b, orphan ? 4 : 3, "submit_async", "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, (uint32_t)bytes);
    struct lab_bytes tail = {.size = 0};
    if (orphan) {
        PUT(&tail, "\x74\x00\x00\x00\x01");
        lab_put_atom(&tail, "orphan");
        lab_put_atom(&tail, orphan);
    }
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)(b.size + bytes + tail.size + 3));
    lab_write(fd, head, sizeof head);
    lab_write(fd, b.at, b.size);
    lab_write(fd, zeros, bytes);
    lab_write(fd, tail.at, tail.size);
}

/* The monitor on the caller, then {ok, Ref}: the reference. */
static struct reference begun(struct lab *lab, struct reference *watch) {
    static const uint8_t ok[] = "\x68\2\x77\2ok\x5a";
    struct reference ref = {.size = 0};
    CHECK(NEXT(lab) > 0 && memcmp(frame, "\x68\4\x61\x13", 4) == 0);
    const uint8_t *p = size > 0 ? memmem(frame, (size_t)size, "\x5a\0\3", 3) : NULL;
    CHECK(p != NULL);
    if (p && watch) {
        watch->size = (size_t)(frame + size - p);
        memcpy(watch->at, p, watch->size);
    }
    CHECK(NEXT(lab) > 0);
    p = size > 0 ? memmem(frame, (size_t)size, ok, sizeof ok - 1) : NULL;
    CHECK(p != NULL);
    if (!p) return ref;
    p += 6;
    ref.size = (size_t)(frame + size - p);
    memcpy(ref.at, p, ref.size);
    return ref;
}

/* {ringbridge, Ref, to the pid, and not to the alias of the call. */
static int is_message(const struct reference *ref) {
    uint8_t wanted[96] = "\x68\3\x77\x0aringbridge";
    memcpy(wanted + 14, ref->at, ref->size);
    return size > 0 && frame[3] == 22 && has(wanted, 14 + ref->size);
}

static void ask(int fd, uint32_t caller, const char *what, const struct reference *ref) {
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, caller, caller);
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, what);
    lab_put(&b, ref->at, ref->size);
    lab_frame(fd, &b);
}
static void cancel(int fd, uint32_t caller, const struct reference *ref) {
    ask(fd, caller, "cancel", ref);
}

/* {28, Caller, Service, Ref} and noproc: the caller that the relay watches has died. */
static void down(int fd, const struct reference *watch) {
    struct lab_bytes b = {.size = 0};
    PUT(&b, "\x68\x04\x61\x1c");
    lab_put_pid(&b, "peer@host", CALLER);
    PUT(&b, "\x58");
    lab_put_atom(&b, "bridge@host");
    lab_put_u32(&b, 1);
    lab_put_u32(&b, 0);
    lab_put_u32(&b, 5);
    lab_put(&b, watch->at, watch->size);
    lab_put_atom(&b, "noproc");
    lab_frame(fd, &b);
}

static void the_handle_comes_first_and_one_message_later(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit_async(lab.peer, 5, NULL);
    struct reference ref = begun(&lab, NULL);
    /* Its call is over: taking back the call's monitor is routine. */
    lab_monitor(lab.peer, 0, CALLER, CALLER);
    lab_complete(w, "late", 4);
    CHECK(NEXT(&lab) > 0 && is_message(&ref) && HAS("\x68\2\x77\2ok\x6d\0\0\0\4late"));
    /* The watch is taken back, and nothing else comes. */
    CHECK(NEXT(&lab) > 0 && memcmp(frame, "\x68\4\x61\x14", 4) == 0);
    CHECK_EQUAL(lab_read(lab.peer, frame, sizeof frame, 50), -1);
    cancel(lab.peer, 8, &ref);
    CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void whoever_holds_the_handle_may_look(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit_async(lab.peer, 5, NULL);
    struct reference ref = begun(&lab, NULL);
    ask(lab.peer, 8, "status", &ref);
    CHECK(NEXT(&lab) > 0 && HAS("\x77\x06placed"));
    struct reference forged = ref;
    forged.at[forged.size - 1] ^= 1;
    ask(lab.peer, 9, "status", &forged);
    CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    lab_complete(w, "x", 1);
    CHECK(NEXT(&lab) > 0 && is_message(&ref));
    CHECK(NEXT(&lab) > 0 && memcmp(frame, "\x68\4\x61\x14", 4) == 0);
    ask(lab.peer, 10, "status", &ref);
    CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_large_payload_is_taken_the_same_way(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    submit_async(lab.peer, 300000, "finish");
    struct reference ref = begun(&lab, NULL);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && r->payload_bytes == 300000);
    lab_complete(w, "large", 5);
    CHECK(NEXT(&lab) > 0 && is_message(&ref) && HAS("large"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

static void a_refusal_is_the_call_s_answer(void) {
    struct lab lab;
    lab_open(&lab);
    submit_async(lab.peer, LAB_PAYLOAD_MAX + 1, NULL);
    CHECK(NEXT(&lab) > 0 && HAS("too_large") && !HAS("ringbridge"));
    for (int i = 0; i < LAB_DEPTH; i++) {
        submit_async(lab.peer, 5, NULL);
        begun(&lab, NULL);
    }
    submit_async(lab.peer, 5, NULL);
    CHECK(NEXT(&lab) > 0 && HAS("overloaded") && !HAS("ringbridge"));
    CHECK_EQUAL(stats_of(&lab).accepted, LAB_DEPTH);
    lab_close(&lab);
}

static void whoever_holds_the_handle_may_cancel(void) {
    struct lab lab;
    lab_open(&lab);
    submit_async(lab.peer, 5, NULL);
    struct reference ref = begun(&lab, NULL);
    cancel(lab.peer, 8, &ref);
    CHECK(NEXT(&lab) > 0 && is_message(&ref) &&
          HAS("\x77\5error\x77\x09"
              "cancelled"));
    CHECK(NEXT(&lab) > 0 && memcmp(frame, "\x68\4\x61\x14", 4) == 0);
    CHECK(NEXT(&lab) > 0 && HAS("\x77\2ok"));
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_CANCELLED], 1);
    cancel(lab.peer, 8, &ref);
    CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    lab_close(&lab);
}

static void a_handle_cannot_be_made_up(void) {
    struct lab lab;
    lab_open(&lab);
    submit_async(lab.peer, 5, NULL);
    struct reference ref = begun(&lab, NULL);
    for (size_t i = 3; i < ref.size; i++) { /* another node, creation, number or mark */
        struct reference forged = ref;
        forged.at[i] ^= i == 3 ? 0 : 1;
        if (i == 3 || i == 4) continue; /* the node's length: another shape */
        cancel(lab.peer, 8, &forged);
        CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
    }
    CHECK_EQUAL(stats_of(&lab).in_flight, 1);
    lab_close(&lab);
}

static void the_caller_s_death_cancels(void) {
    struct lab lab;
    struct reference watch;
    lab_open(&lab);
    submit_async(lab.peer, 5, NULL);
    begun(&lab, &watch);
    down(lab.peer, &watch);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    CHECK_EQUAL(lab_read(lab.peer, frame, sizeof frame, 50), -1);
    lab_close(&lab);
}

/* The monitor was set by the process that was the service then, and its pid is what DOWN is for. */
static void also_when_the_service_was_started_again_since(void) {
    struct lab lab;
    struct reference watch;
    lab_open(&lab);
    submit_async(lab.peer, 5, NULL);
    begun(&lab, &watch);
    rb_relay_service_down(lab.relay, RB_SERVICE_JOBS, (const uint8_t *)"\x77\6killed", 8);
    rb_relay_install_service(lab.relay, RB_SERVICE_JOBS, 2, 0, "job_dispatcher\0");
    CHECK(NEXT(&lab) > 0 && HAS("killed")); /* the call's own monitor */
    down(lab.peer, &watch);
    wait_until_answered(&lab, RB_REASON_CANCELLED, 1);
    lab_close(&lab);
}

static void an_orphan_finishes_where_it_was_asked_for(void) {
    for (int lost = 0; lost < 2; lost++) { /* the caller alone, or its whole node */
        struct lab lab;
        struct reference watch;
        lab_open(&lab);
        struct lab_worker *w = lab_worker(&lab);
        submit_async(lab.peer, 5, "finish");
        struct reference none = begun(&lab, &watch);
        none.at[none.size - 1] ^= 1;
        if (lost) {
            close(lab.peer);
            CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
            lab.peer = lab_connect(&lab);
        } else {
            down(lab.peer, &watch);
            cancel(lab.peer, 8, &none); /* answered: the relay has read what came before it */
            CHECK(NEXT(&lab) > 0 && HAS("unknown_job"));
        }
        lab_complete(w, "alone", 5);
        wait_until_answered(&lab, RB_REASON_OK, 1);
        CHECK_EQUAL(lab_read(lab.peer, frame, sizeof frame, 50), -1);
        lab_worker_end(&lab, w, NULL);
        lab_close(&lab);
    }
}

int main(void) {
    RUN(the_handle_comes_first_and_one_message_later);
    RUN(a_large_payload_is_taken_the_same_way);
    RUN(a_refusal_is_the_call_s_answer);
    RUN(whoever_holds_the_handle_may_cancel);
    RUN(whoever_holds_the_handle_may_look);
    RUN(a_handle_cannot_be_made_up);
    RUN(the_caller_s_death_cancels);
    RUN(also_when_the_service_was_started_again_since);
    RUN(an_orphan_finishes_where_it_was_asked_for);
    return check_end();
}
