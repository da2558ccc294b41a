"""A signal of ours as bytes for one connection, in the form its negotiated flags ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.dist import control as c
from bridge.dist.flags import ALTACT_SIG, EXIT_PAYLOAD, SEND_SENDER
from bridge.etf import Pid, Reference, encode_bare

Term = Any


def encode_signal(
    message: c.ControlMessage, payload: Term, flags: int
) -> tuple[bytes, bytes | None]:
    """(control, payload or None), both bare terms. `payload` counts for sends, spawns and op 37.

    Raises EncodeError before anything is sent.
    """
    if isinstance(message, c.AltactSend) and not flags & ALTACT_SIG:
        message = _before_28(message, payload)
    match message:
        case c.AliasSend():  # what an answer to a call is
            form: c.ControlMessage = message
            if flags & ALTACT_SIG:
                form = c.AltactSend(c.ALTACT_ALIAS, message.sender, message.alias)
            return encode_bare(c.to_tuple(form)), encode_bare(payload)
        case c.Exit() | c.Exit2() | c.MonitorPExit():
            if not flags & EXIT_PAYLOAD:
                return encode_bare(c.to_tuple(message)), None
            control = c.to_tuple(replace(message, reason=c.PAYLOAD))
            return encode_bare(control), encode_bare(message.reason)
        case c.Send():
            known = message if flags & SEND_SENDER else replace(message, sender=None)
            return encode_bare(c.to_tuple(known)), encode_bare(payload)
        case c.RegSend() | c.AltactSend() | c.SpawnRequest():
            return encode_bare(c.to_tuple(message)), encode_bare(payload)
        case _:
            return encode_bare(c.to_tuple(message)), None


def can_express(message: c.ControlMessage, flags: int) -> bool:
    """Whether the connection has any form for `message`: an exit to an alias came with op 37."""
    return (
        flags & ALTACT_SIG != 0
        or not isinstance(message, c.AltactSend)
        or message.flags & (c.ALTACT_EXIT | c.ALTACT_ALIAS) != c.ALTACT_EXIT | c.ALTACT_ALIAS
    )


def _before_28(message: c.AltactSend, payload: Term) -> c.ControlMessage:
    """The same without op 37, and so without priority."""
    match message.to:
        case Reference() as alias:
            return c.AliasSend(message.sender, alias)
        case Pid() as pid if message.flags & c.ALTACT_EXIT:
            return c.Exit2(message.sender, pid, payload)
        case Pid() as pid:
            return c.Send(message.sender, pid)
        case name:
            return c.RegSend(message.sender, name)
