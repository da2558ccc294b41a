"""`erlang:process_info/1,2` for the processes of a Python node: each item, the order of all, the
errors of the BIF.

What a Python process has not got is answered as by a BEAM process that does not use it: no heap of
its own (words of zero), no binaries, no trace, normal priority. Items that came after OTP 25
(`label`, `parent`, `{dictionary, Key}`) are answered to every caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.etf import Atom, Map
from bridge.node.exports import Raise
from bridge.node.inspection.seen import UNDEFINED, Processes, Seen

Term = Any
WORD_BYTES = 8
NORMAL = Atom("normal")
_INIT_P = (Atom("proc_lib"), Atom("init_p"), 5)
_REGISTERED_NAME = Atom("registered_name")
_MAX_HEAP_SIZE = Map(
    [
        (Atom("size"), 0),
        (Atom("kill"), False),
        (Atom("error_logger"), False),
        (Atom("include_shared_binaries"), False),
    ]
)


def badarg() -> Raise:
    return Raise("error", Atom("badarg"))


def process_info(processes: Processes, pid: Term, items: Term) -> Term:
    """The value of `erlang:process_info(Pid, Item | Items)`; `undefined` for the dead.

    Raises badarg for what is no pid of this node, and for an item that no release knows.
    """
    if not processes.is_local(pid):
        raise badarg()
    if isinstance(items, list):
        readers = [_reader(item) for item in items]
        seen = processes.find(pid)
        if seen is None:
            return UNDEFINED
        return [(item, read(seen)) for item, read in zip(items, readers, strict=True)]
    read = _reader(items)
    seen = processes.find(pid)
    if seen is None:
        return UNDEFINED
    value = read(seen)
    # A quirk of the BIF that callers rely on: asked for alone, an absent name is not in a tuple.
    return [] if items == _REGISTERED_NAME and value == [] else (items, value)


def process_info_all(processes: Processes, pid: Term) -> Term:
    """The value of `erlang:process_info(Pid)`: a fixed choice of items; the name only if it has
    one.
    """
    answer = process_info(processes, pid, [Atom(name) for name in _ALL])
    if isinstance(answer, list) and answer[0][1] == []:
        return answer[1:]
    return answer


def _reader(item: Term) -> Callable[[Seen], Term]:
    match item:
        case Atom() if item in _READERS:
            return _READERS[item]
        case (Atom("dictionary"), key):
            return lambda seen: _entry(seen, key)
        case _:
            raise badarg()


def _entry(seen: Seen, key: Term) -> Term:
    return next((value for name, value in seen.dictionary if name == key), UNDEFINED)


def _monitors(seen: Seen) -> Term:
    return [(Atom("process"), target) for target in seen.targets]


def _garbage_collection(seen: Seen) -> Term:
    return [
        (Atom("max_heap_size"), _MAX_HEAP_SIZE),
        (Atom("min_bin_vheap_size"), 0),
        (Atom("min_heap_size"), 0),
        (Atom("fullsweep_after"), 0),
        (Atom("minor_gcs"), 0),
    ]


def _backtrace(seen: Seen) -> Term:
    calls = (f"{module}:{function}/{arity}\n" for module, function, arity, _ in seen.stack)
    return "".join(calls).encode()


def _constant(value: Term) -> Callable[[Seen], Term]:
    return lambda seen: value


_READERS: dict[Atom, Callable[[Seen], Term]] = {
    Atom(name): read
    for name, read in {
        "async_dist": _constant(False),
        "backtrace": _backtrace,
        "binary": _constant([]),
        "catchlevel": _constant(0),
        "current_function": lambda seen: seen.current_function,
        "current_location": lambda seen: seen.stack[0],
        "current_stacktrace": lambda seen: seen.stack,
        "dictionary": lambda seen: seen.dictionary,
        "error_handler": _constant(Atom("error_handler")),
        "garbage_collection": _garbage_collection,
        "garbage_collection_info": _constant([]),
        "group_leader": lambda seen: seen.group_leader,
        "heap_size": _constant(0),
        "initial_call": lambda seen: _INIT_P if seen.is_proc_lib else seen.initial_call,
        "label": lambda seen: seen.label,
        "last_calls": _constant(False),
        "links": lambda seen: seen.links,
        "max_heap_size": _constant(_MAX_HEAP_SIZE),
        "memory": lambda seen: seen.memory,
        "message_queue_data": _constant(Atom("off_heap")),
        "message_queue_len": lambda seen: seen.message_queue_len,
        "messages": lambda seen: seen.messages,
        "min_bin_vheap_size": _constant(0),
        "min_heap_size": _constant(0),
        "monitored_by": lambda seen: seen.monitored_by,
        "monitors": _monitors,
        "parent": lambda seen: UNDEFINED if seen.parent is None else seen.parent,
        "priority": _constant(NORMAL),
        "priority_messages": _constant(False),
        "reductions": lambda seen: seen.reductions,
        "registered_name": lambda seen: [] if seen.name is None else seen.name,
        "sequential_trace_token": _constant([]),
        "stack_size": _constant(0),
        "status": lambda seen: seen.status,
        "suspending": _constant([]),
        "total_heap_size": _constant(0),
        "trace": _constant(0),
        "trap_exit": lambda seen: seen.process.trap_exit,
    }.items()
}

_ALL = (
    "registered_name",
    "current_function",
    "initial_call",
    "status",
    "message_queue_len",
    "links",
    "dictionary",
    "trap_exit",
    "error_handler",
    "priority",
    "group_leader",
    "total_heap_size",
    "heap_size",
    "stack_size",
    "reductions",
    "garbage_collection",
    "suspending",
)
