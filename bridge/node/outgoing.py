"""A signal of ours as bytes for one connection, in the form its negotiated flags ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.dist import control as c
from bridge.dist.flags import ALTACT_SIG, EXIT_PAYLOAD, SEND_SENDER
from bridge.etf import encode_bare

Term = Any


def encode_signal(
    message: c.ControlMessage, payload: Term, flags: int
) -> tuple[bytes, bytes | None]:
    """(control, payload or None), both bare terms. `payload` counts only for sends and spawns.

    Raises EncodeError before anything is sent.
    """
    match message:
        case c.AliasSend(sender, alias) if flags & ALTACT_SIG:
            control = c.to_tuple(c.AltactSend(c.ALTACT_ALIAS, sender, alias))
            return encode_bare(control), encode_bare(payload)
        case c.Exit() | c.Exit2() | c.MonitorPExit():
            if not flags & EXIT_PAYLOAD:
                return encode_bare(c.to_tuple(message)), None
            control = c.to_tuple(replace(message, reason=c.PAYLOAD))
            return encode_bare(control), encode_bare(message.reason)
        case c.Send():
            known = message if flags & SEND_SENDER else replace(message, sender=None)
            return encode_bare(c.to_tuple(known)), encode_bare(payload)
        case c.RegSend() | c.AliasSend() | c.AltactSend() | c.SpawnRequest():
            return encode_bare(c.to_tuple(message)), encode_bare(payload)
        case _:
            return encode_bare(c.to_tuple(message)), None
