"""Workers built from the C kit with one line changed, each of which breaks a rule of the battery.

A liar is the rule, the file, what stands there, what stands there instead, and what the verdict
has to say (a regular expression). `old` stands in its file exactly once: who changes that line of
the kit finds the liar by the failing test, and changes it too.
"""

from __future__ import annotations

from dataclasses import dataclass

KIT, CORE, WORKER = "workers/c/kit", "csrc/core", "workers/c/conformance"


@dataclass(frozen=True)
class Liar:
    rule: int
    file: str
    old: str
    new: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.old} -> {self.new}"


LIARS = [
    # --- hello
    Liar(
        1,
        f"{CORE}/link_worker.c",
        "h->nonce = link->header.nonce;",
        "h->nonce = 1;",
        "nonce is 1",
    ),
    Liar(2, f"{KIT}/main.c", "return RB_EXIT_USAGE;", "return 1;", "exit status 1"),
    Liar(
        3,
        f"{CORE}/link_memory.c",
        "(seals & SIZE_SEALS) != SIZE_SEALS",
        "0",
        "still lives",
    ),
    Liar(
        4,
        f"{CORE}/version.c",
        "return same_digest(ours, theirs) ? RB_LAYOUT_SAME : RB_LAYOUT_STRANGE;",
        "return RB_LAYOUT_SAME;",
        "still lives",
    ),
    Liar(
        5,
        f"{CORE}/version.c",
        "if (major_of(theirs->version) != major_of(ours->version)) return RB_LAYOUT_STRANGE;",
        "",
        "still lives",
    ),
    Liar(
        6, f"{CORE}/version.c", "return RB_LAYOUT_NEWER;", "return RB_LAYOUT_STRANGE;", "hello is 2"
    ),
    Liar(
        8,
        f"{CORE}/link_worker.c",
        "pool_bytes != (int64_t)h->pool_bytes",
        "0",
        "a pool that is longer than told",
    ),
    Liar(9, f"{WORKER}/main.c", '"echo"', '"parrot"', "opcode 0 is called 'parrot'"),
    # --- serving
    Liar(
        11,
        f"{KIT}/answer.c",
        "job->sum = rb_crc32c_copy(0, room, bytes, size);",
        "job->sum = rb_crc32c_copy(0, room, (const char *)bytes + (size > 4096), size);",
        "expected OK and 4097 bytes",
    ),
    Liar(
        12,
        f"{KIT}/answer.c",
        "return complete_copy(job, bytes, size, rb_complete_term);",
        "return complete_copy(job, bytes, size, rb_complete);",
        "as a term, got",
    ),
    Liar(
        13,
        f"{KIT}/answer.c",
        "rb_completion_crc(c, in_region, w->link.header.features)",
        "rb_completion_crc(c, in_region, 3)",
        "has CRC",
    ),
    Liar(14, f"{KIT}/main.c", ".pool = open_or_none(first + 2)", ".pool = first + 2", "hello is 2"),
    Liar(
        15,
        f"{KIT}/serve.c",
        "rb_store_release(&w->link.ours->started, started);",
        "rb_store_release(&w->link.ours->started, started + 1);",
        "of the jobs are answered|after 6 jobs",
    ),
    Liar(
        16,
        f"{KIT}/serve.c",
        "rb_store_release(&w->link.ours->started, started);",
        "rb_store_release(&w->link.ours->started, started - 1);",
        "ended the worker",
    ),
    Liar(
        17,
        f"{KIT}/serve.c",
        ".request = w->link.requests[slot]}",
        ".request = w->link.requests[slot & 7]}",
        "answered",
    ),
    Liar(18, f"{CORE}/link_parts.c", "SLOTS_MIN = 2", "SLOTS_MIN = 4", "the hello is 2"),
    Liar(
        19,
        f"{KIT}/serve.c",
        "if (rb_is_cancelled(&job)) {",
        "rb_ring_release(&w->link.request_ring, 1);\n    if (rb_is_cancelled(&job)) {",
        "request_head is 1 while",
    ),
    Liar(
        20,
        f"{KIT}/answer.c",
        "if (!w->options->short_jobs || now",
        "if (now",
        "no answer came",
    ),
    Liar(
        21,
        f"{KIT}/answer.c",
        "vsnprintf(message, sizeof message,",
        "vsnprintf(message, sizeof message - 1,",
        "expected FAILED with code 8 and 1024 bytes",
    ),
    Liar(22, f"{WORKER}/main.c", "CODE_BAD_PAYLOAD = 1", "CODE_BAD_PAYLOAD = 4", "code 4"),
    Liar(
        23,
        f"{KIT}/answer.c",
        "rb_fail(job, RB_CODE_NO_ANSWER,",
        "rb_fail(job, RB_CODE_KIT,",
        "code 65280",
    ),
    Liar(24, f"{WORKER}/main.c", "abort();", "_exit(0);", "exit status 0"),
    Liar(
        25,
        f"{KIT}/answer.c",
        "c->run_ns = now - job->start_ns;",
        "c->run_ns = now - job->start_ns / 2;",
        "sleeps of 40 and 20 ms ran",
    ),
    Liar(26, f"{WORKER}/main.c", "'o', 'k'", "'k', 'o'", "as a term, got"),
    Liar(
        27,
        f"{KIT}/job.c",
        "return job->request.deadline_ns;",
        "return job->request.deadline_ns + 1;",
        "the handler is told",
    ),
    Liar(
        28,
        f"{KIT}/job.c",
        "memcpy(trace->span_id, job->request.span_id",
        "memcpy(trace->span_id, job->request.trace_id",
        "the handler is told",
    ),
    # --- room
    Liar(
        31,
        f"{KIT}/answer.c",
        "first = size > UINT32_MAX ? -EMSGSIZE",
        "first = size > 65535 ? -EMSGSIZE",
        "65536 bytes",
    ),
    Liar(
        32,
        f"{KIT}/answer.c",
        "else if (job->refused == EMSGSIZE)",
        "else if (job->refused == 0)",
        "code 65281",
    ),
    Liar(
        33,
        f"{KIT}/answer.c",
        "    job->state = RB_JOB_ANSWERED;\n    count(w, c);",
        "    job->state = RB_JOB_ANSWERED;\n    count(w, c);\n"
        "    if (in_region) rb_region_give(&w->link.result_region, job->first_block, 4);",
        "not given back|has CRC",
    ),
    Liar(
        34,
        f"{KIT}/answer.c",
        "w->link.givebacks[rb_ring_slot(ring, (uint64_t)i)]",
        "w->link.givebacks[i]",
        "not given back",
    ),
    Liar(
        35,
        f"{KIT}/answer.c",
        ": rb_kit_take_blocks(job, size);",
        ": rb_kit_take_blocks(job, size + 1);",
        "no answer came",
    ),
    Liar(
        36,
        f"{KIT}/answer.c",
        "giveback_ring) != 0 || rb_is_cancelled(room->job);",
        "giveback_ring) != 0;",
        "no answer came",
    ),
    Liar(
        37,
        f"{KIT}/answer.c",
        "if (slot >= 0) return &w->link.completions[slot];",
        "return &w->link.completions[slot < 0 ? 0 : slot];",
        "is answered before|completion for job",
    ),
    Liar(
        38,
        f"{KIT}/part.c",
        "if (free_slots == 0) return -EAGAIN;",
        "if (free_slots == 0) return 0;",
        "reports came; the handler was told of 300",
    ),
    # --- parts and progress
    Liar(
        41,
        f"{KIT}/part.c",
        "if (rb_demand(job) > 0) return 0;",
        "return 0;",
        "part 1 came, and 0 are asked for",
    ),
    Liar(
        42,
        f"{KIT}/part.c",
        "rb_demand_left(word, job->position, job->parts)",
        "rb_demand_left(word, word >> 32, job->parts)",
        "part 1 came, and 0 are asked for",
    ),
    Liar(
        43,
        f"{KIT}/part.c",
        "if (size > RB_PART_BYTES_MAX)",
        "if (size >= RB_PART_BYTES_MAX)",
        "FAILED with code 2",
    ),
    Liar(
        44,
        f"{KIT}/part.c",
        "first = rb_kit_take_blocks(job, size);",
        "first = rb_region_take(&job->worker->link.result_region, size);",
        "FAILED with code 2",
    ),
    Liar(
        45,
        f"{KIT}/part.c",
        "if (size > RB_PART_BYTES_MAX) return -EMSGSIZE;",
        "",
        "a part of 1048577 bytes",
    ),
    Liar(
        46,
        f"{KIT}/part.c",
        "return rb_demand(arg) > 0 || rb_is_cancelled(arg);",
        "return rb_demand(arg) > 0;",
        "no answer came",
    ),
    Liar(
        47,
        f"{KIT}/part.c",
        "deadline == 0 ? -1 : (int64_t)(deadline - now)",
        "-1",
        "no answer came",
    ),
    Liar(
        48,
        f"{KIT}/job.c",
        "if (rb_kit_control(job->worker) == RB_CONTROL_STOP) return 1;",
        "",
        "still lives",
    ),
    Liar(
        49,
        f"{KIT}/part.c",
        "if (size > RB_PROGRESS_BYTES_MAX) return -EMSGSIZE;",
        "",
        "progress of 4097 bytes",
    ),
    Liar(
        50,
        f"{KIT}/part.c",
        "if (!rb_job_wants_progress(job)) return 0;",
        "",
        "progress came of a job that nobody asks about",
    ),
    # --- cancel, deadline, drain, stop, death
    Liar(
        51,
        f"{KIT}/job.c",
        "static int ready_when_cancelled(void *arg) { return rb_is_cancelled(arg); }",
        "static int ready_when_cancelled(void *arg) { return arg == NULL; }",
        "no answer came",
    ),
    Liar(
        52,
        f"{KIT}/job.c",
        "cancels[job->slot]) == job->request.job)",
        "cancels[job->slot]) != 0)",
        "got CANCELLED",
    ),
    Liar(
        53,
        f"{KIT}/serve.c",
        "if (rb_is_cancelled(&job)) {",
        "if (0) {",
        "exit status 42",
    ),
    Liar(
        54,
        f"{KIT}/serve.c",
        "if (rb_is_cancelled(&job)) {",
        "if (w->link.cancels[job.slot] == job.request.job) {",
        "exit status 42",
    ),
    Liar(
        55,
        f"{KIT}/job.c",
        "return job->request.deadline_ns != 0 && rb_now_ns() >= job->request.deadline_ns;",
        "return 0;",
        "no answer came",
    ),
    Liar(
        56,
        f"{KIT}/job.c",
        "rb_now_ns() >= job->request.deadline_ns;",
        "rb_now_ns() >= job->request.deadline_ns - 1000000000000;",
        "got CANCELLED",
    ),
    Liar(
        57,
        f"{KIT}/serve.c",
        "(control != RB_CONTROL_RUN && count == 0)",
        "control != RB_CONTROL_RUN",
        "no answer came",
    ),
    Liar(
        58,
        f"{KIT}/serve.c",
        "request_ring) != 0 || rb_kit_control(w) != RB_CONTROL_RUN)",
        "request_ring) != 0)",
        "still lives",
    ),
    Liar(
        59,
        f"{KIT}/serve.c",
        "while (count-- > 0 && rb_kit_control(w) != RB_CONTROL_STOP",
        "while (count-- > 0",
        "jobs were begun after the stop",
    ),
    Liar(
        60,
        f"{KIT}/job.c",
        "if (rb_kit_control(job->worker) == RB_CONTROL_STOP) return 1;",
        "",
        "still lives",
    ),
    Liar(
        61,
        f"{KIT}/answer.c",
        "if (!w->options->short_jobs || now",
        "if (now",
        "no answer came",
    ),
    Liar(
        62,
        f"{KIT}/main.c",
        "sigaddset(&wake, RB_WAKE_SIGNAL);",
        "sigaddset(&wake, SIGTERM);",
        "outlives SIGTERM",
    ),
    # --- a bridge that breaks a rule
    Liar(81, f"{KIT}/serve.c", "if (crc != q->crc)", "if (0)", "still lives"),
    Liar(82, f"{KIT}/serve.c", "if (crc != q->crc)", "if (0)", "still lives"),
    Liar(83, f"{KIT}/serve.c", "if (q->payload_at > pool_bytes || ", "if (", "signal 11"),
    Liar(
        84,
        f"{KIT}/serve.c",
        'if (count < 0) rb_kit_broken(w, "the position of the request',
        'if (0) rb_kit_broken(w, "the position of the request',
        "still lives",
    ),
    Liar(
        85,
        f"{KIT}/answer.c",
        "if (rb_region_give(&w->link.result_region, extent.first, extent.count) < 0)",
        "if (rb_region_give(&w->link.result_region, extent.first, extent.count) > 0)",
        "still lives",
    ),
    Liar(
        86,
        f"{KIT}/answer.c",
        'if (count < 0) rb_kit_broken(w, "the position of the give-back',
        'if (0) rb_kit_broken(w, "the position of the give-back',
        "still lives",
    ),
    Liar(87, f"{KIT}/answer.c", "if (slot != -EAGAIN)", "if (0)", "still lives"),
    # --- nothing left, nothing handed on
    Liar(91, f"{KIT}/main.c", "F_SETFD, FD_CLOEXEC", "F_SETFD, 0", "descriptor 8"),
    Liar(
        92,
        f"{KIT}/serve.c",
        "    check(&job);",
        "    check(&job);\n    dup(2);",
        "descriptors were",
    ),
    Liar(
        93,
        f"{KIT}/serve.c",
        "    check(&job);",
        '    check(&job);\n    write(1, "job", 3);',
        "stdout has",
    ),
    Liar(
        94,
        f"{KIT}/main.c",
        "    sigset_t wake;",
        "    if (fork() == 0) pause();\n    sigset_t wake;",
        "live on",
    ),
    # --- compressed payloads
    Liar(
        181,
        f"{KIT}/zstd.c",
        "q->payload_bytes = (uint32_t)bytes;",
        "q->payload_bytes = (uint32_t)bytes - (bytes > 131072);",
        "expected OK and 131073 bytes",
    ),
    Liar(
        182,
        f"{KIT}/zstd.c",
        "if (bytes > most || bytes > UINT32_MAX)",
        "if (0)",
        "a content past the limit: expected FAILED",
    ),
    Liar(
        182,
        f"{KIT}/zstd.c",
        'return end == size ? NULL : "there are bytes behind it";',
        "return NULL;",
        "an empty one behind it: expected FAILED",
    ),
    Liar(
        183,
        f"{KIT}/zstd.c",
        "if (!(job->request.flags & RB_FLAG_ACCEPTS_ZSTD) || size",
        "if (size",
        "flags 0x10",
    ),
    Liar(
        184,
        f"{KIT}/zstd.c",
        "if (!(w->link.header.features & RB_FEATURE_ZSTD) ||",
        "if (0 ||",
        "still lives",
    ),
]
