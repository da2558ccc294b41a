"""A slot whose link the worker may have itself: who gets it, when the bridge plays it, its end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from bridge.config import RoleConfig
from bridge.etf import Atom
from bridge.fabric import layout
from bridge.fabric.relay import LinkConfig, LinkFds
from bridge.lanes.links import GRANT_S, GRANTED, LinkGrants
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.remote import driver, linked, messages
from bridge.workers.remote.driver import RemoteDriver, same_layout
from bridge.workers.remote.linked import LinkedSlot
from bridge.workers.remote.messages import BrokenRule, Drained, Hello, Links, Memory, NoLink
from bridge.workers.remote.slot import Desk, Slot

OS_PID, WORKER = 4242, 17
MEMORY = Memory(OS_PID, layout.LAYOUT_VERSION, layout.LAYOUT_DIGEST)


class NotGranted(Exception):
    """As the desk of lanes refuses a node."""


class Policy:
    allowed = True

    def check(self, node: str) -> None:
        if not self.allowed:
            raise NotGranted


def grants(policy: Policy | None = None, address: bytes = b"\0there") -> LinkGrants:
    return LinkGrants((policy or Policy()).check, lambda: address)


def give(got: list[int]) -> Callable[[], tuple[int, ...]]:
    def fetch() -> tuple[int, ...]:
        got.append(1)
        return (7, 8, 9)

    return fetch


# ---- the grant


async def test_a_token_is_good_once_and_for_the_process_that_asked() -> None:
    desk, got = grants(), list[int]()
    grant = desk.grant("app@host", OS_PID, give(got))
    assert desk.redeem(b"x" * 32, OS_PID) is None
    assert desk.redeem(grant.token, OS_PID) == (GRANTED, (7, 8, 9))
    assert desk.redeem(grant.token, OS_PID) is None
    assert got == [1]
    grant = desk.grant("app@host", OS_PID, give(got))
    why, fds = desk.redeem(grant.token, OS_PID + 1) or (b"", (0,))
    assert b"process 4243 has come" in why
    assert fds == ()
    assert desk.redeem(grant.token, OS_PID) is None  # whatever follows, it was shown
    assert got == [1]


async def test_what_is_withdrawn_too_old_or_not_allowed_any_more_is_not_given(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy, got = Policy(), list[int]()
    desk = grants(policy)
    withdrawn = desk.grant("app@host", OS_PID, give(got))
    desk.withdraw(withdrawn)
    desk.withdraw(withdrawn)
    assert desk.redeem(withdrawn.token, OS_PID) is None
    old = desk.grant("app@host", OS_PID, give(got))
    await trio.sleep(GRANT_S)
    assert (desk.redeem(old.token, OS_PID) or (GRANTED, ()))[0] != GRANTED
    refused = desk.grant("app@host", OS_PID, give(got))
    policy.allowed = False
    assert (desk.redeem(refused.token, OS_PID) or (GRANTED, ()))[0] != GRANTED
    assert not desk.allows("app@host")
    assert got == []
    assert len(desk) == 0


async def test_without_a_socket_nobody_is_offered_a_link() -> None:
    assert grants().allows("app@host")
    assert not grants(address=b"").allows("app@host")


def test_only_a_vm_of_the_same_layout_is_offered_one() -> None:
    assert same_layout(MEMORY.version, MEMORY.digest)
    assert not same_layout(MEMORY.version + 1, MEMORY.digest)
    assert not same_layout(MEMORY.version, bytes(32))


# ---- the slot


class PlayedProxy:
    """The link, as the bridge plays it."""

    def __init__(self, fds: tuple[int, ...]) -> None:
        self.count = len(fds)
        self.bell, self._bell_end = socket.socketpair()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.bell.close()
        self._bell_end.close()

    def greet(self, kit: str, version: tuple[int, int], role: str, ops: Any) -> None: ...
    def park(self) -> None: ...
    def unpark(self) -> None: ...
    def take(self) -> None: ...
    def beat(self, *, ready: bool) -> None: ...

    def is_draining(self) -> bool:
        return False


class PlayedDesk:
    idempotent = False
    over = False
    ready = True
    credit = 1
    answer_bytes_max = 100

    def __init__(self) -> None:
        self.told: list[Any] = []
        pid = cast(Any, type("P", (), {"node": Atom("app@host")}))
        self.hello = Hello(cast(Any, None), pid, "r", 1, 1, "kit", (0, 1), (), MEMORY)

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def has_room(self) -> bool:
        return True

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()

    def slot_failed(self, why: str) -> None:
        pytest.fail(why)


class Scene:
    def __init__(self) -> None:
        self.desk, self.grants = PlayedDesk(), grants()
        self.fds = tuple(os.dup(0) for _ in range(5))
        self.obituary, obituary_end = os.pipe()
        self.stderr, stderr_end = os.pipe()
        self.fetched: list[int] = []
        self.greeted: list[PlayedProxy] = []
        self.slot = LinkedSlot(
            cast(Desk, self.desk),
            0,
            WORKER,
            self.fds,
            obituary_end,
            stderr_end,
            offers=self.grants,
            patience_s=60.0,
            fetched=lambda: self.fetched.append(1),
            greet=lambda proxy: self.greeted.append(cast(PlayedProxy, proxy)),
        )

    def offered(self) -> dict[str, Any]:
        (message,) = self.desk.told
        assert message[1] == Atom("link")
        return {key.name: value for key, value in message[2].items()}

    def last(self) -> tuple[int, int, bytes]:
        """Exit status, signal and last words."""
        _magic, status, signal, _flags = struct.unpack("<IiII", os.read(self.obituary, 16))
        return status, signal, os.read(self.stderr, 4096)


@asynccontextmanager
async def standing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(linked, "Proxy", PlayedProxy)
    scene = Scene()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.slot.run)
        while not scene.desk.told:
            await trio.lowlevel.checkpoint()
        yield scene
        nursery.cancel_scope.cancel()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_a_link_that_is_fetched_is_the_worker_s_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with standing(monkeypatch) as scene:
        said = scene.offered()
        assert (said["slot"], said["worker"]) == (0, WORKER)
        answer = scene.grants.redeem(said["token"], OS_PID)
        assert answer == (GRANTED, scene.fds)
        for fd in scene.fds:
            os.close(fd)  # the socket's, from then on
        assert scene.slot.linked
        assert scene.fetched == [1]
        await trio.testing.wait_all_tasks_blocked()
        assert scene.greeted == []  # by the worker
        assert not scene.slot.holds(1)
        assert not scene.slot.declined()  # too late: it has it
        scene.slot.die(0, 0, "")
        await scene.slot.over.wait()
        assert scene.last() == (0, 0, b"")


async def test_a_link_that_is_declined_is_played_and_nothing_of_it_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with standing(monkeypatch) as scene:
        token = scene.offered()["token"]
        assert scene.slot.declined()
        await trio.testing.wait_all_tasks_blocked()
        assert [proxy.count for proxy in scene.greeted] == [5]
        assert scene.grants.redeem(token, OS_PID) is None
        assert scene.slot.decided
        assert not scene.slot.linked
        assert not any(is_open(fd) for fd in scene.fds)
        scene.slot.die(-1, 9, "gone")
        await scene.slot.over.wait()
        assert scene.last() == (-1, 9, b"gone")
        assert scene.greeted[0].closed
        assert scene.fetched == []


async def test_a_link_that_nobody_fetches_in_time_is_played(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with standing(monkeypatch) as scene:
        token = scene.offered()["token"]
        await trio.sleep(linked.FETCH_S + 1)
        assert len(scene.greeted) == 1
        assert scene.grants.redeem(token, OS_PID) is None


async def test_who_dies_before_it_fetches_its_link_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with standing(monkeypatch) as scene:
        scene.slot.die(-1, 9, "gone")
        await scene.slot.over.wait()
        assert scene.greeted == []
        assert len(scene.grants) == 0
        assert not any(is_open(fd) for fd in scene.fds)
        assert scene.last() == (-1, 9, b"gone")


# ---- the words


def test_what_a_worker_says_of_links_is_read_strictly() -> None:
    said = {"slot": 1, "worker": WORKER}
    assert messages.read(messages.message("drained", **said)) == Drained(1, WORKER)
    lost = messages.message("no_link", **said, why=b"no memory")
    assert messages.read(lost) == NoLink(1, WORKER, "no memory")
    assert messages.read(messages.message("links")) == Links()
    for kind, wrong in (
        ("drained", {"slot": 64, "worker": WORKER}),
        ("drained", {"slot": 1}),
        ("drained", {"slot": 1, "worker": -1}),
        ("no_link", {**said, "why": Atom("no")}),
        ("no_link", said),
    ):
        with pytest.raises(BrokenRule):
            messages.read(messages.message(kind, **wrong))


# ---- which of both it begins as


class PlayedRelay:
    """Makes links of descriptors that are none, and keeps its ends."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def create_link(self, role: int, worker_id: int, config: LinkConfig) -> LinkFds:
        self.ends = [os.dup(0) for _ in LinkFds._fields]
        return LinkFds(*self.ends)

    def add_worker(
        self, worker_id: int, *, pidfd: int, obituary_fd: int, stdout_fd: int, stderr_fd: int
    ) -> None:
        self.ends += [obituary_fd, stderr_fd]

    def drop_link(self, worker_id: int) -> None:
        pytest.fail("it could not be started")

    def unguarded_worker(self, worker_id: int) -> None: ...


@pytest.mark.parametrize(("may", "kind"), [(True, LinkedSlot), (False, Slot)])
async def test_who_may_have_links_is_offered_the_first_one_too(
    monkeypatch: pytest.MonkeyPatch, may: bool, kind: type[Any]
) -> None:
    monkeypatch.setattr(driver, "Proxy", PlayedProxy)
    monkeypatch.setattr(linked, "Proxy", PlayedProxy)
    relay, desk, slots = PlayedRelay(), PlayedDesk(), list[Any]()
    desk.may_link = lambda index: may  # type: ignore[attr-defined]
    desk.slot_started = slots.append  # type: ignore[attr-defined]
    config = LinkConfig(slots=8, result_bytes=1 << 20, result_block_bytes=4096, crc="off")
    async with trio.open_nursery() as nursery:
        new = RemoteDriver(
            cast(Any, relay),
            cast(Desk, desk),
            0,
            link=config,
            offers=grants(),  # none is out yet
            begin=nursery.start_soon,
        )
        await new.start(WORKER, RolePlan(1, "r", ("worker",), "/", RoleConfig()))
        nursery.cancel_scope.cancel()
    assert [type(slot) for slot in slots] == [kind]
    for fd in relay.ends:
        os.close(fd)
