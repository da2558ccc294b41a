/* bench/relay_jobs.c: what a job costs the relay, in instructions: run under callgrind by bench/relay_cost, which repeats whatever
 * the load of the machine.
 *
 *      relay_jobs plain|cache JOBS
 *
 * A peer's bytes are those of a BEAM in its steady state: MONITOR_P, the `$gen_call` with a payload of 16 bytes, DEMONITOR_P once
 * the answer has come; with `cache`, all their atoms are old entries of the distribution header's cache. The worker answers the
 * same 16 bytes. */
#define _GNU_SOURCE
#include "../tests/relay_lab.h"

enum { BATCH = LAB_DEPTH, REFERENCES = 8 };

struct frame {
    struct lab_bytes terms;
    const char
        *atom[REFERENCES]; /* those that the header refers to, in the order of their first use */
    uint8_t count;
    int cached;
};

static uint8_t slot_of(const char *text) {
    static const char *known[64];
    uint8_t slot = 0;
    while (known[slot] && strcmp(known[slot], text) != 0) slot++;
    known[slot] = text;
    return slot;
}

static void put_atom(struct frame *f, const char *text) {
    if (!f->cached) {
        lab_put_atom(&f->terms, text);
        return;
    }
    uint8_t i = 0;
    while (i < f->count && strcmp(f->atom[i], text) != 0) i++;
    if (i == f->count) f->atom[f->count++] = text;
    uint8_t reference[2] = {82, i};
    lab_put(&f->terms, reference, 2);
}
static void put_pid(struct frame *f, uint32_t id) {
    PUT(&f->terms, "\x58");
    put_atom(f, "peer@host");
    lab_put_u32(&f->terms, id);
    lab_put_u32(&f->terms, 0);
    lab_put_u32(&f->terms, 7);
}
static void put_reference(struct frame *f, uint32_t number) {
    PUT(&f->terms, "\x5a\x00\x03");
    put_atom(f, "peer@host");
    lab_put_u32(&f->terms, 7);
    lab_put_u32(&f->terms, number);
    lab_put_u32(&f->terms, 0x12340002);
    lab_put_u32(&f->terms, 0xabcd0001);
}

/* An entry is new in the first frame that refers to it. */
static void put_frame(struct lab_bytes *out, const struct frame *f) {
    static uint8_t taught[64];
    struct lab_bytes header = {.size = 0};
    uint8_t flags[REFERENCES / 2 + 1] = {0};
    lab_put(&header, "\x83\x44", 2);
    lab_put(&header, &f->count, 1);
    for (uint8_t i = 0; i < f->count; i++) {
        if (!taught[slot_of(f->atom[i])]) flags[i / 2] |= (uint8_t)(8 << 4 * (i % 2));
    }
    if (f->count) lab_put(&header, flags, f->count / 2u + 1);
    for (uint8_t i = 0; i < f->count; i++) {
        uint8_t slot = slot_of(f->atom[i]), size = (uint8_t)strlen(f->atom[i]);
        lab_put(&header, &slot, 1);
        if (taught[slot]) continue;
        taught[slot] = 1;
        lab_put(&header, &size, 1);
        lab_put(&header, f->atom[i], size);
    }
    lab_put_u32(out, (uint32_t)(header.size + f->terms.size));
    lab_put(out, header.at, header.size);
    lab_put(out, f->terms.at, f->terms.size);
}

static void put_monitor(struct lab_bytes *out, int cached, int on, uint32_t caller, uint32_t ref) {
    struct frame f = {.cached = cached};
    PUT(&f.terms, "\x68\x04\x61");
    lab_put(&f.terms, on ? "\x13" : "\x14", 1);
    put_pid(&f, caller);
    put_atom(&f, "job_dispatcher");
    put_reference(&f, ref);
    put_frame(out, &f);
}
static void put_call(struct lab_bytes *out, int cached, uint32_t caller, uint32_t ref) {
    struct frame f = {.cached = cached};
    PUT(&f.terms, "\x68\x04\x61\x06");
    put_pid(&f, caller);
    put_atom(&f, "");
    put_atom(&f, "job_dispatcher");
    PUT(&f.terms, "\x68\x03");
    put_atom(&f, "$gen_call");
    PUT(&f.terms, "\x68\x02");
    put_pid(&f, caller);
    PUT(&f.terms, "\x6c\x00\x00\x00\x01");
    put_atom(&f, "alias");
    put_reference(&f, ref);
    PUT(&f.terms, "\x68\x03");
    put_atom(&f, "submit");
    put_atom(&f, "echo");
    lab_put_binary(&f.terms, "sixteen bytes of", 16);
    put_frame(out, &f);
}

static int read_frame(int fd) {
    uint8_t head[4], body[1024];
    if (recv(fd, head, 4, MSG_WAITALL) != 4) return -1;
    uint32_t size = rb_be32(head);
    return size > sizeof body || recv(fd, body, size, MSG_WAITALL) != (ssize_t)size ? -1 : 0;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int cached = strcmp(argv[1], "cache") == 0;
    uint32_t jobs = (uint32_t)strtoul(argv[2], NULL, 10);
    struct lab lab;
    lab_open(&lab);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return 1;
    uint64_t flags = LAB_FLAGS | (cached ? 0x2000u : 0);
    if (rb_relay_adopt(lab.relay, ++lab.connections, pair[0], "peer@host", flags, NULL, 0) < 0)
        return 1;
    struct lab_worker *w = lab_worker(&lab);
    for (uint32_t done = 0; done < jobs; done += BATCH) {
        struct lab_bytes out = {.size = 0};
        for (uint32_t i = 0; i < BATCH; i++) {
            put_monitor(&out, cached, 1, i + 1, done + i);
            put_call(&out, cached, i + 1, done + i);
        }
        lab_write(pair[1], out.at, out.size);
        for (uint32_t i = 0; i < BATCH; i++) lab_complete(w, "sixteen bytes of", 16);
        out.size = 0;
        for (uint32_t i = 0; i < BATCH; i++) {
            if (read_frame(pair[1]) < 0) return 1;
            put_monitor(&out, cached, 0, i + 1, done + i);
        }
        lab_write(pair[1], out.at, out.size);
    }
    close(pair[1]);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
    return 0;
}
