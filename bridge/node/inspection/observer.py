"""`observer_backend`: what `observer`, `etop` and `observer_cli`'s kin run on the node that they
show.

Those that stay (`fetch_stats`, `procs_info`, `etop_collect`) are spawned here, with a link to the
window they send to, and send messages of their own. The layouts are those of observer_backend.hrl,
the same from OTP 25 to 29.
"""

from __future__ import annotations

import time
from typing import Any

import trio

from bridge.etf import Atom, Pid, charlist
from bridge.node.exports import Exports, Raise
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.process_info import badarg
from bridge.node.inspection.seen import UNDEFINED, Seen
from bridge.node.process.handle import ProcessHandle

Term = Any
CHUNK = 10_000  # processes in one message
STATS_PERIOD_MIN_MS = 100  # whoever asks for more samples gets these
# The oldest runtime_tools whose callers are answered in full; etop only wants a version.
RUNTIME_TOOLS_VSN = "1.19"
_ETOP_INFO, _ETOP_PROC_INFO = Atom("etop_info"), Atom("etop_proc_info")
_ETOP_MEMORY = ("total", "processes", "ets", "atom", "code", "binary")


def publish(exports: Exports, of: Inspection) -> None:
    _publish_answers(exports, of)
    _publish_senders(exports, of)


def _publish_answers(exports: Exports, of: Inspection) -> None:
    @exports.function("observer_backend", "vsn")
    def vsn() -> Term:
        return (Atom("ok"), charlist(RUNTIME_TOOLS_VSN))

    @exports.function("observer_backend", "sys_info")
    def sys_info() -> Term:
        return system_page(of)

    @exports.function("observer_backend", "get_table_list")
    def get_table_list(kind: Term, options: Term) -> Term:
        if kind == Atom("mnesia"):
            why = charlist(f"Mnesia is not running on: {of.node.name}")
            raise Raise("throw", (Atom("error"), why))
        if kind != Atom("ets"):
            raise badarg()
        return []

    @exports.function("observer_backend", "get_port_list")
    def get_port_list() -> Term:
        return []

    @exports.function("observer_backend", "get_socket_list")
    def get_socket_list() -> Term:
        return []

    @exports.function("observer_backend", "socket_info")
    def socket_info() -> Term:
        return []


def _publish_senders(exports: Exports, of: Inspection) -> None:
    @exports.process("observer_backend", "procs_info")
    async def procs_info(me: ProcessHandle, collector: Term) -> None:
        rows = await of.processes.rows(lambda seen: process_row(seen, labels=True))
        rows = [row for row in rows if row[1] != me.pid]
        for first in range(0, max(1, len(rows)), CHUNK):
            chunk = rows[first : first + CHUNK]
            me.send(_pid(collector), (Atom("procs_info"), me.pid, chunk))

    @exports.process("observer_backend", "etop_collect")
    async def etop_collect(me: ProcessHandle, collector: Term) -> None:
        rows = await of.processes.rows(lambda seen: process_row(seen, labels=False))
        page = etop_page(of, [row for row in rows if row[1] != me.pid])
        me.send(_pid(collector), (me.pid, page))

    @exports.process("observer_backend", "fetch_stats")
    async def fetch_stats(me: ProcessHandle, parent: Term, period_ms: Term) -> None:
        """Until any message comes: an exit signal of the window, or the DOWN that says that it has
        gone, by whom it was never linked.
        """
        if type(period_ms) is not int or period_ms < 0:
            raise badarg()
        window = _pid(parent)
        me.trap_exit = True
        me.monitor(window)
        while True:
            try:
                await me.receive(timeout=max(STATS_PERIOD_MIN_MS, period_ms) / 1000)
            except trio.TooSlowError:
                me.send(window, stats_message(of))
            else:
                return

    @exports.process("observer_backend", "flag_holder_proc")
    async def flag_holder_proc(me: ProcessHandle, collector: Term) -> None:
        """Scheduler times are always measured: there is no flag to hold."""


def _pid(term: Term) -> Pid:
    if not isinstance(term, Pid):
        raise badarg()
    return term


def stats_message(of: Inspection) -> Term:
    """One sample of the Load Charts."""
    figures = of.figures
    memory = [(Atom(name), value) for name, value in figures.memory().items()]
    return (Atom("stats"), 1, figures.scheduler_wall_time(), figures.io(), memory)


def system_page(of: Inspection) -> list[tuple[Atom, Term]]:
    """The System tab; the Memory Allocators tab takes `alloc_info` from it."""
    get = of.system.get
    figures = of.figures
    (_, received), (_, sent) = figures.io()
    page: dict[str, Term] = {
        "uptime": figures.uptime_ms(),
        "run_queue": figures.run_queue(),
        "io_input": received,
        "io_output": sent,
    }
    for name in (
        "logical_processors",
        "logical_processors_online",
        "logical_processors_available",
        "schedulers",
        "schedulers_online",
    ):
        page[name] = get(Atom(name))
    page["schedulers_available"] = page["schedulers_online"]
    for name in (
        "otp_release",
        "version",
        "system_architecture",
        "kernel_poll",
        "smp_support",
        "threads",
        "thread_pool_size",
    ):
        page[name] = get(Atom(name))
    page["wordsize_internal"] = page["wordsize_external"] = get(Atom("wordsize"))
    names = get(Atom("alloc_util_allocators"))
    page["alloc_info"] = get((Atom("allocator_sizes"), names))
    for name in (
        "process_count",
        "process_limit",
        "atom_count",
        "atom_limit",
        "port_count",
        "port_limit",
        "ets_count",
        "ets_limit",
        "dist_buf_busy_limit",
    ):
        page[name] = get(Atom(name))
    page |= figures.memory()
    return [(Atom(name), value) for name, value in page.items()]


def etop_page(of: Inspection, rows: list[Term]) -> Term:
    """#etop_info{now, n_procs, wall_clock, runtime, run_queue, alloc_areas, memi, procinfo}."""
    memory = of.figures.memory()
    seconds, micros = divmod(time.time_ns() // 1000, 10**6)
    return (
        _ETOP_INFO,
        (*divmod(seconds, 10**6), micros),
        len(rows),
        UNDEFINED,
        of.figures.scheduler_wall_time(),
        of.figures.run_queue(),
        [],
        [(Atom(name), memory[name]) for name in _ETOP_MEMORY],
        rows,
    )


def process_row(seen: Seen, *, labels: bool) -> Term:
    """#etop_proc_info{pid, mem, reds, name, runtime, cf, mq}.

    The name is the registered one, else the label, else the initial call. A label goes as a
    charlist: observer of every release shows that as text, a binary only since 27. etop shows no
    text before 27, so it gets none.
    """
    name: Term = seen.name or seen.initial_call
    if seen.name is None and labels and isinstance(seen.details.label, bytes):
        name = charlist(seen.details.label.decode("utf-8", "replace"))
    return (
        _ETOP_PROC_INFO,
        seen.pid,
        seen.memory,
        seen.reductions,
        name,
        0,
        seen.current_function,
        seen.message_queue_len,
    )
