"""Workers that beat, wait or wake wrongly by one line; conformance_liars.py says how it is done."""

from __future__ import annotations

from conformance_liars import CORE, KIT, Liar

LIARS = [
    # --- health
    Liar(
        71,
        f"{KIT}/heartbeat.c",
        "beat(w);\n    return start_without_signals(w);",
        "return start_without_signals(w);",
        "there are 0 beats",
    ),
    Liar(
        72,
        f"{KIT}/heartbeat.c",
        "next.tv_nsec += RB_HEARTBEAT_MS * 1000000;",
        "next.tv_nsec += 900000000;",
        "were due, one every",
    ),
    Liar(
        73,
        f"{KIT}/heartbeat.c",
        "        beat(w);\n        if (h->now)",
        "        if (w->counters.started == w->counters.jobs) beat(w);\n        if (h->now)",
        "no beat for|were due, one every",
    ),
    Liar(
        74,
        f"{KIT}/heartbeat.c",
        ".queued = tail > started ? (uint32_t)(tail - started) : 0",
        ".queued = 0",
        "no beat says",
    ),
    Liar(
        75,
        f"{KIT}/heartbeat.c",
        "beat(w); /* the last one",
        "/* the last one",
        "the last beat counts 0 jobs of 7",
    ),
    Liar(
        76,
        f"{KIT}/part.c",
        "    rb_pulse(job); /* it gets on, whether",
        "    /* it gets on, whether",
        "pulse went from",
    ),
    Liar(
        77,
        f"{KIT}/heartbeat.c",
        ".unready = rb_load_seq_cst(&unready)",
        ".unready = 0",
        "no beat says",
    ),
    # --- waiting and waking
    Liar(
        101,
        f"{CORE}/gate.c",
        "            slept = sleep_by(w, how, bell, deadline);",
        "            slept = 0;",
        "with nothing to do",
    ),
    Liar(
        102,
        f"{CORE}/gate.c",
        "case RB_PARK_FUTEX: return sleep_futex(w, bell, deadline);",
        "case RB_PARK_FUTEX: return sleep_eventfd(w, deadline);",
        "no answer came",
    ),
    Liar(
        103,
        f"{CORE}/gate.c",
        "    eventfd_drain(w->eventfd);\n    return 0;",
        "    return 0;",
        "with nothing to do",
    ),
    Liar(
        104,
        f"{CORE}/gate.c",
        "found = park(w, RB_PARK_SIGNAL, ready, arg, deadline, &refused);",
        "found = park(w, RB_PARK_FUTEX, ready, arg, deadline, &refused);",
        "not 3|never parks",
    ),
    Liar(
        105, f"{CORE}/gate.c", "int found = ready(arg), slept = 0;", "int found = 0, slept = 0;", ""
    ),
    Liar(
        106,
        f"{CORE}/gate.c",
        "slept = sleep_by(w, how, bell, deadline);",
        "slept = sleep_by(w, how, rb_load_acquire(w->doorbell), deadline);",
        "no answer came",
    ),
    Liar(
        107,
        f"{CORE}/gate.c",
        "if (found || slept < 0) return found;",
        "return 1;",
        "got CANCELLED",
    ),
    Liar(108, f"{CORE}/gate.c", "    w->sequence++;\n", "    w->sequence = 1;\n", "announce"),
    Liar(
        109,
        f"{CORE}/gate.c",
        "syscall(SYS_futex, w->doorbell, FUTEX_WAKE, 1",
        "syscall(SYS_futex, &w->woken, FUTEX_WAKE, 1",
        "no answer came",
    ),
    Liar(110, f"{CORE}/gate.c", "w->woken = park;", "w->woken = 0;", "times for one parking"),
    Liar(
        126,
        f"{CORE}/gate.c",
        "found = ready(arg); /* G5 */",
        "found = 0; /* G5 */",
        "no answer came|does not look at the position again",
    ),
    Liar(
        131,
        f"{CORE}/gate.c",
        "int found = ready(arg), slept = 0;",
        "int found = 0, slept = 0;",
        "no answer came",
    ),
    Liar(
        132,
        f"{KIT}/part.c",
        "return rb_demand(arg) > 0 || rb_is_cancelled(arg);",
        "return rb_demand(arg) > 0;",
        "no answer came",
    ),
]
