"""Where a process' task stands, as an Erlang stack trace: innermost call first.

A suspended coroutine holds its frame and what it awaits, so the chain from the task's own coroutine
inwards is its stack. Trio's frames are left out, and the mailbox' own: a process that waits there
is shown in whoever called `receive`, as a BEAM process is shown in the function with its receive.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import trio

from bridge.etf import Atom, charlist
from bridge.node.process.details import Mfa

Term = Any
DEPTH_MAX = 8  # erlang:system_flag(backtrace_depth, 8)
_ATOM_MAX = 255
_HIDDEN = ("trio", "bridge.node.process.mailbox", "bridge.node.process.handle")


def stack_of(task: trio.lowlevel.Task | None) -> list[tuple[Atom, Atom, int, list[Term]]]:
    """[{Module, Function, Arity, [{file, F}, {line, L}]}], at most DEPTH_MAX; [] for no task."""
    return [(*_call(*_what(frame)), _place(frame)) for frame in _shown(task)[:DEPTH_MAX]]


def current_function(task: trio.lowlevel.Task | None) -> Mfa | None:
    """The innermost call that is not hidden."""
    frames = _shown(task)
    return _call(*_what(frames[0])) if frames else None


def _shown(task: trio.lowlevel.Task | None) -> list[FrameType]:
    """Innermost first."""
    if task is None:
        return []
    return [frame for frame in _frames(task.coro) if not _is_hidden(_module(frame))][::-1]


def _frames(awaited: Any) -> Iterator[FrameType]:
    """From the outermost coroutine inwards: coroutines, generators, asynchronous generators."""
    while awaited is not None:
        for kind, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaited = getattr(awaited, f"{kind}_{inner}")
                break
        else:
            return


@functools.lru_cache(maxsize=1000)
def _is_hidden(module: str) -> bool:
    return any(module == hidden or module.startswith(f"{hidden}.") for hidden in _HIDDEN)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "python"))


def _what(frame: FrameType) -> tuple[str, CodeType]:
    return _module(frame), frame.f_code


@functools.lru_cache(maxsize=1000)
def _call(module: str, code: CodeType) -> Mfa:
    name = getattr(code, "co_qualname", code.co_name)
    return (Atom(module[:_ATOM_MAX]), Atom(name[:_ATOM_MAX]), code.co_argcount)


def _place(frame: FrameType) -> list[Term]:
    file = charlist(frame.f_code.co_filename)
    return [(Atom("file"), file), (Atom("line"), frame.f_lineno or 0)]
