"""Streams, Python's half: the process to which consumers of GenStage subscribe (docs/streams.md).

Subscriptions, demand, events and cancels are the relay's (`owned_service`). Suspended, it asks no
worker for more, until it is resumed. When it is ended, so are its streams: their consumers hear of
the end by their monitors.
"""

from __future__ import annotations

from bridge.dispatch.owned_service import OwnedService
from bridge.fabric.relay import Service

NAMES = ("Elixir.Ringbridge.Streams", "streams")


class Streams(OwnedService):
    """Jobs whose results come in parts, on demand."""

    service = Service.STREAMS
    names = NAMES
    module = "Ringbridge.Streams"
