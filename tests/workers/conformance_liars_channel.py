"""Workers whose channel has one line changed; conformance_liars.py has the others, and says how."""

from __future__ import annotations

from conformance_liars import KIT, Liar

LIARS = [
    Liar(
        111,
        f"{KIT}/channel.c",
        "add_atom(&o, levels[level]);",
        "add_atom(&o, levels[1]);",
        "was logged, not",
    ),
    Liar(
        112,
        f"{KIT}/channel.c",
        "if (failed == -EAGAIN) __atomic_fetch_add(&rb_channel.lines_missed",
        "if (failed == -EIO) __atomic_fetch_add(&rb_channel.lines_missed",
        "lines are missing, and what comes next is",
    ),
    Liar(
        113,
        f"{KIT}/channel.c",
        ".kind = RB_PACKET_SEND, .job = id_of(job)}",
        ".kind = RB_PACKET_SEND}",
        "sent was .*job=0",
    ),
    Liar(
        114,
        f"{KIT}/channel.c",
        "put_u32(timeout + 1, timeout_ms);",
        "put_u32(timeout + 1, timeout_ms / 2);",
        "called was",
    ),
    Liar(
        115,
        f"{KIT}/channel.c",
        "if (deadline != 0 && deadline < until) {",
        "if (0) {",
        "with 300 ms left may take 60000 ms",
    ),
    Liar(
        116,
        f"{KIT}/packet.c",
        "if (code >= sizeof numbers / sizeof *numbers || numbers[code] == 0) return -EIO;",
        "if (code >= sizeof numbers / sizeof *numbers || numbers[code] == 0) return 0;",
        "expected FAILED with code 2",
    ),
    Liar(
        117,
        f"{KIT}/channel.c",
        "        forget(job, head.id);\n        return failed;",
        "        return failed;",
        "no packet came; kind 8",
    ),
    Liar(118, f"{KIT}/packet.c", "rb_body_seal(memfd)", "0", "memfd has seals 0"),
    Liar(
        119,
        f"{KIT}/packet.c",
        "found = rb_channel_wait(job, POLLIN, until_ns);",
        "return *reply = (struct rb_incoming){0}, 0;",
        "a completion came that nobody asked for",
    ),
    Liar(
        120,
        f"{KIT}/state.c",
        "at += size, left -= size;",
        "at += size, left = 0;",
        "70010 bytes|70000 bytes",
    ),
    Liar(
        121,
        f"{KIT}/packet.c",
        "rb_store_relaxed(&rb_channel.closed, 1);\n    return -ESHUTDOWN;",
        "_exit(0);",
        "exit status 0",
    ),
    Liar(
        122,
        f"{KIT}/packet.c",
        "if (n <= 0) return closed();",
        "if (n <= 0) return 0;",
        "no answer came",
    ),
    Liar(
        123,
        f"{KIT}/packet.c",
        "if (failed != -EAGAIN || until_ns == RB_AT_ONCE) return failed;",
        "return failed;",
        "is answered FAILED with code 2",
    ),
    Liar(
        124,
        f"{KIT}/packet.c",
        "if (head->bytes != size - sizeof *head)",
        "if (0)",
        "another size than told",
    ),
    Liar(
        125,
        f"{KIT}/state.c",
        "default: rb_packet_refuse(&in->head, RB_CHANNEL_ERROR_UNAVAILABLE, "
        '"this kit does not know it");',
        "default: break;",
        "no packet came; kind 16",
    ),
]
