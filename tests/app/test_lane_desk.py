"""The socket of lanes without a relay: who is waited for there, and who is not."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from bridge.config import Config
from bridge.fabric.relay import LaneConfig
from bridge.lanes import desk as lane_desk
from bridge.lanes.desk import STRANGERS_MAX, LaneDesk, NotGranted, Wanted

OTHERS = 12345  # a user who is not to have a lane


class Relay:
    """Gives descriptors that are no lane."""

    def open_lane(self, conn: int, config: LaneConfig) -> tuple[int, int, int]:
        return (os.dup(0), os.dup(0), os.dup(0))

    def close_lane(self, lane: int, reason: str) -> None:
        raise AssertionError


@asynccontextmanager
async def standing(**lanes: int) -> AsyncIterator[LaneDesk]:
    least = {
        "file": Path(__file__),
        "node": {"name": "b@127.0.0.1"},
        "limits": {},
        "lanes": lanes,
        "link": {},
        "roles": {},
    }
    config = msgspec.convert(least, Config)
    async with trio.open_nursery() as nursery:
        desk = LaneDesk(Relay(), lambda: config)
        await nursery.start(desk.run)
        yield desk
        nursery.cancel_scope.cancel()


async def said(comer: trio.socket.SocketType) -> bytes:
    with trio.fail_after(60):
        return await comer.recv(512)


async def come(desk: LaneDesk) -> trio.socket.SocketType:
    comer = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with trio.fail_after(60):
        await comer.connect(desk.address)
    return comer


async def test_who_may_have_no_lane_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are met at once, and all of them silent."""
    uids = [OTHERS] * STRANGERS_MAX
    peer = lane_desk._peer

    def of_others_first(stranger: trio.socket.SocketType) -> tuple[int, int]:
        pid, uid = peer(stranger)
        return pid, uids.pop() if uids else uid

    monkeypatch.setattr(lane_desk, "_peer", of_others_first)
    monkeypatch.setattr(lane_desk, "SHOW_S", 3600.0)  # else they would be gone after a while
    async with standing() as desk:
        strangers = [await come(desk) for _ in range(STRANGERS_MAX)]
        grant = desk.grant("web@host", 1, Wanted(os.getpid(), 2))
        comer = await come(desk)
        await comer.send(grant.token)
        assert await said(comer) == lane_desk.GRANTED
        for each in strangers:
            assert f"uid {OTHERS} is not".encode() in await said(each)
            each.close()
        comer.close()
        assert len(desk) == 1


async def test_who_is_silent_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that may have a lane take all places and say nothing: the oldest make room."""
    monkeypatch.setattr(lane_desk, "SHOW_S", 3600.0)  # no deadline helps
    async with standing() as desk:
        silent = [await come(desk) for _ in range(STRANGERS_MAX)]
        grants = [desk.grant("web@host", 1, Wanted(os.getpid(), 2)) for _ in range(3)]
        for grant in grants:
            comer = await come(desk)
            await comer.send(grant.token)
            assert await said(comer) == lane_desk.GRANTED
            comer.close()
        assert len(desk) == len(grants)
        assert await said(silent[0]) == b"no token was shown in time"
        assert await said(silent[0]) == b""
        last = desk.grant("web@host", 1, Wanted(os.getpid(), 2))
        await silent[-1].send(last.token)  # it has its place still
        assert await said(silent[-1]) == lane_desk.GRANTED
        for each in silent:
            each.close()


async def test_who_shows_nothing_is_told_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_desk, "SHOW_S", 0.01)
    async with standing() as desk:
        comer = await come(desk)
        assert await said(comer) == b"no token was shown in time"
        assert not desk._strangers  # its place was free before we could read this
        comer.close()


async def test_one_node_takes_no_more_than_its_share() -> None:
    """Grants count as lanes do: who asks on and on holds no more of them."""
    async with standing(lanes_per_node_max=2) as desk:
        wanted = Wanted(os.getpid(), 2)
        comer = await come(desk)
        await comer.send(desk.grant("greedy@host", 1, wanted).token)
        assert await said(comer) == lane_desk.GRANTED
        desk.grant("greedy@host", 1, wanted)
        for _ in range(50):
            with pytest.raises(NotGranted, match=r"greedy@host has its share: .* is 2"):
                desk.grant("greedy@host", 1, wanted)
        assert desk.grant("web@host", 2, wanted).node == "web@host"
        desk.ended(next(iter(desk)).id, "closed_by_beam")
        desk.grant("greedy@host", 1, wanted)  # one of its two has ended
        comer.close()
