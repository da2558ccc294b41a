"""How a process in Python ends: `Stop`, and the exit reason that an exception stands for."""

from __future__ import annotations

import traceback
from enum import Enum
from typing import Any, Final

from bridge.etf import Atom
from bridge.node.signals import gen

Term = Any
TEXT_MAX = 1024  # bytes of an exception's text that go into a reason
TRACEBACK_MAX = 16 << 10  # characters in one log line


class NoReply(Enum):
    """`handle_call` returns NO_REPLY when it answers later, by `self.reply(sender, value)`."""

    NO_REPLY = "no_reply"


NO_REPLY: Final = NoReply.NO_REPLY


class Stop(Exception):
    """Raised in a process: end it with `reason`, a term. A call is answered with `reply` first."""

    def __init__(self, reason: Term = gen.NORMAL, *, reply: Term = NO_REPLY) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


def unwrapped(error: Exception) -> Exception:
    """What a nursery of the process' own let out: a group of one stands for that one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def exception_reason(error: Exception) -> Term:
    """`{exception, Type, Text}`, both binaries: what a crash is to links and watchers."""
    text = text_of(error).encode("utf-8", "replace")[:TEXT_MAX]
    return (Atom("exception"), type(error).__name__.encode(), text)


def text_of(error: BaseException) -> str:
    """str(error), which raises itself when the error holds a term of a peer that cannot be shown:
    an integer of more than 4300 digits, a tuple too deep for repr.
    """
    try:
        return str(error)
    except Exception:
        return f"{type(error).__name__}: it cannot be shown"


def traceback_of(error: BaseException) -> str:
    """For the log's `exception`: where it was raised, without the values of variables, which may be
    a peer's terms of any size. So may the exception's own text: the middle of a long one is left
    out.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    if len(text) <= TRACEBACK_MAX:
        return text
    half = TRACEBACK_MAX // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"
