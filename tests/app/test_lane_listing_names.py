"""A worker whose kit's name is no UTF-8: what is listed of it fits, and nobody else notices."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serve_support import ROOT, SETTINGS, Serving, ask, serving

from bridge.testing import Beam, EpmdDaemon

pytestmark = pytest.mark.beam

# Greets by the core's own functions with 31 bytes, each of which becomes a sign of three bytes.
WORKER = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from bridge.fabric._core import ffi, lib
first = int(os.environ["RINGBRIDGE_LINK_FD"])
proxy, why = ffi.new("struct rb_proxy **"), ffi.new("char[]", 256)
assert lib.rb_proxy_open([first + n for n in range(5)], proxy, why, 256) == 0, ffi.string(why)
kit = bytes([0xff]) * 31
assert lib.rb_proxy_greet(proxy[0], kit, 1, b"strange", ffi.NULL, 0, why, 256) == 0
while True:
    lib.rb_proxy_beat(proxy[0], 0)
    time.sleep(0.2)
"""


@pytest.fixture
async def bridge(epmd: EpmdDaemon, tmp_path: Path) -> AsyncIterator[Serving]:
    (tmp_path / "strange.py").write_text(WORKER)
    role = f'[roles.strange]\ncommand = ["{sys.executable}", "{tmp_path}/strange.py"]\n'
    settings = f"{SETTINGS}\n{role}"
    async with serving(epmd, tmp_path, alive="nifr_names", settings=settings) as running:
        yield running


async def test_a_name_that_is_no_text_stops_nobody(beam: Beam, bridge: Serving) -> None:
    await bridge.wait_workers(4)
    call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "on", %{{}}}}, 60_000)'
    assert await ask(beam, call) == '{:ok, "on"}'
    assert bridge.process.poll() is None
