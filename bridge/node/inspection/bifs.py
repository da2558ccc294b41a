"""The functions of `erlang` that tools, shells and people ask about a node and its processes."""

from __future__ import annotations

import gc
import time
from datetime import datetime
from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.exports import Exports, Raise
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.process_info import badarg, process_info, process_info_all
from bridge.node.inspection.seen import UNDEFINED

Term = Any
NOTSUP = Atom("notsup")
_UNITS_PER_S = {
    "second": 1,
    "seconds": 1,
    "millisecond": 10**3,
    "milli_seconds": 10**3,
    "microsecond": 10**6,
    "micro_seconds": 10**6,
    "nanosecond": 10**9,
    "nano_seconds": 10**9,
    "native": 10**9,
    "perf_counter": 10**9,
}


def publish(exports: Exports, of: Inspection) -> None:
    """All of them, into `exports`."""
    _publish_processes(exports, of)
    _publish_figures(exports, of)
    _publish_times(exports)
    _publish_refusals(exports)


def in_unit(ns: int, unit: Term) -> int:
    """A time as `erlang:convert_time_unit` gives it: rounded down. Raises badarg."""
    match unit:
        case Atom(name) if name in _UNITS_PER_S:
            per_s = _UNITS_PER_S[name]
        case int(per_s) if per_s > 0 and type(unit) is int:
            pass
        case _:
            raise badarg()
    return ns * per_s // 10**9


def _publish_processes(exports: Exports, of: Inspection) -> None:
    processes = of.processes

    @exports.function("erlang", "processes")
    def all_processes() -> Term:
        return processes.pids()

    @exports.function("erlang", "registered")
    def registered() -> Term:
        return processes.registered()

    @exports.function("erlang", "whereis")
    def whereis(name: Term) -> Term:
        if not isinstance(name, Atom | bool | None):
            raise badarg()
        seen = processes.find(name)
        return UNDEFINED if seen is None else seen.pid

    @exports.function("erlang", "is_process_alive")
    def is_process_alive(pid: Term) -> Term:
        if not processes.is_local(pid):
            raise badarg()
        return processes.find(pid) is not None

    @exports.function("erlang", "process_info")
    def process_info_1(pid: Term) -> Term:
        return process_info_all(processes, pid)

    @exports.function("erlang", "process_info")
    def process_info_2(pid: Term, items: Term) -> Term:
        return process_info(processes, pid, items)

    @exports.function("erlang", "node")
    def node() -> Term:
        return Atom(of.node.name)

    @exports.function("erlang", "node")
    def node_of(term: Term) -> Term:
        owner = getattr(term, "node", None)
        if not isinstance(owner, Atom):
            raise badarg()
        return owner

    @exports.function("erlang", "nodes")
    def nodes(which: Term = Atom("visible")) -> Term:  # noqa: B008  # an atom never changes
        return of.nodes(which)

    @exports.function("erlang", "is_alive")
    def is_alive() -> Term:
        return True

    @exports.function("erlang", "ports")
    def ports() -> Term:
        return []

    @exports.function("erlang", "port_info")
    def port_info(port: Term, item: Term = None) -> Term:
        return UNDEFINED

    @exports.function("erlang", "garbage_collect")
    def garbage_collect(pid: Term = None) -> Term:
        if pid is not None and not isinstance(pid, Pid):
            raise badarg()
        gc.collect(0)  # one heap for all: collecting the whole of it would hold everybody up
        return pid is None or processes.find(pid) is not None


def _publish_figures(exports: Exports, of: Inspection) -> None:
    @exports.function("erlang", "system_info")
    def system_info(item: Term) -> Term:
        try:
            return of.system.get(item)
        except KeyError:
            raise badarg() from None

    @exports.function("erlang", "statistics")
    def statistics(item: Term) -> Term:
        try:
            return of.figures.statistics(item)
        except KeyError:
            raise badarg() from None

    def memory() -> Term:
        return [(Atom(name), value) for name, value in of.figures.memory().items()]

    def memory_of(kinds: Term) -> Term:
        known = of.figures.memory()
        wanted = kinds if isinstance(kinds, list) else [kinds]
        if not all(isinstance(kind, Atom) and kind.name in known for kind in wanted):
            raise badarg()
        if isinstance(kinds, list):
            return [(kind, known[kind.name]) for kind in kinds]
        return known[kinds.name]

    for module in ("erlang", "c"):
        exports.function(module, "memory")(memory)
        exports.function(module, "memory")(memory_of)


def _publish_times(exports: Exports) -> None:
    native = Atom("native")

    @exports.function("erlang", "monotonic_time")
    def monotonic_time(unit: Term = native) -> Term:
        return in_unit(time.monotonic_ns(), unit)

    @exports.function("erlang", "time_offset")
    def time_offset(unit: Term = native) -> Term:
        return in_unit(time.time_ns() - time.monotonic_ns(), unit)

    def system_time(unit: Term = native) -> Term:
        return in_unit(time.time_ns(), unit)

    def timestamp() -> Term:
        seconds, micros = divmod(time.time_ns() // 1000, 10**6)
        return (*divmod(seconds, 10**6), micros)

    for module in ("erlang", "os"):
        exports.function(module, "system_time")(system_time)
        exports.function(module, "timestamp")(timestamp)

    @exports.function("erlang", "localtime")
    def localtime() -> Term:
        now = datetime.now().astimezone()
        return ((now.year, now.month, now.day), (now.hour, now.minute, now.second))


def _publish_refusals(exports: Exports) -> None:
    @exports.function("erlang", "system_flag")
    def system_flag(flag: Term, value: Term) -> Term:
        """Nothing is set. Scheduler times are always measured, so that flag reads true."""
        if flag == Atom("scheduler_wall_time"):
            return True
        raise Raise("error", NOTSUP)

    @exports.function("erlang", "process_flag")
    def process_flag(pid: Term, flag: Term, value: Term) -> Term:
        raise Raise("error", NOTSUP)
