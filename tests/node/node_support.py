"""What the tests of the node ask of the machine, and the types of their fixtures."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from bridge.testing.plugin import OpenNode, StartBeam

__all__ = ["HAS_RELAY", "OpenNode", "StartBeam", "needs_erlang", "needs_relay"]

needs_erlang = pytest.mark.skipif(
    shutil.which("elixir") is None or shutil.which("epmd") is None, reason="no Erlang here"
)
HAS_RELAY = importlib.util.find_spec("bridge.fabric._core") is not None
needs_relay = pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built")
