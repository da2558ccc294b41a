"""Which links are granted, and what is told of them; the kernel's part is tried on real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.config import CallbackSettings, PeerSettings
from bridge.links.links import AUDIT_MAX, Links, Member
from bridge.workers.channel.channel import Channel
from bridge.workers.channel.packets import Code, NotHad, Outgoing

ANY = PeerSettings(allow=("*",))


class World:
    """Links, and the ends that workers were given."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.links = Links(now_s=lambda: self.now_s)
        self.offers: dict[int, list[socket.socket]] = {}
        self.kept: list[socket.socket] = []

    def join(
        self, worker: int, role: str, settings: PeerSettings = ANY, *, serves: bool = True
    ) -> Member:
        ends = self.offers[worker] = []

        def take(packet: Outgoing) -> None:
            assert packet.descriptor is not None
            ends.append(socket.socket(fileno=packet.descriptor))

        member = self.links.join(worker, role, lambda: settings, take)
        member.serves = serves
        return member

    def open(self, member: Member, role: str) -> tuple[int, socket.socket]:
        number, descriptor = member.open(role)
        end = socket.socket(fileno=descriptor)
        end.setblocking(False)
        self.kept.append(end)
        return number, end


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.links.end_all("the test is over")
    for end in [*made.kept, *(end for ends in made.offers.values() for end in ends)]:
        end.close()


def refusal(member: Member, role: str) -> Code:
    with pytest.raises(NotHad) as refused:
        member.open(role)
    return refused.value.code


def test_a_link_joins_the_two_and_its_end_reaches_both_whatever_they_hold(world: World) -> None:
    front, _ = world.join(1, "front"), world.join(2, "back")
    number, ours = world.open(front, "back")
    (theirs,) = world.offers[2]
    held = os.dup(ours.fileno())  # by somebody who would keep it
    ours.send(b"question")
    assert theirs.recv(100) == b"question"
    link = world.links.find(number)
    assert link is not None
    world.links.end(link, "revoked")
    world.links.end(link, "twice")
    assert ours.recv(1) == theirs.recv(1) == b""
    with pytest.raises(BrokenPipeError), socket.socket(fileno=held) as other:
        other.send(b"more")
    assert [(e.what, e.why) for e in world.links.audit] == [("granted", None), ("ended", "revoked")]


def test_nobody_is_asked_without_a_policy(world: World) -> None:
    assert PeerSettings().allow == ()
    front = world.join(1, "front", PeerSettings())
    world.join(2, "back")
    assert refusal(front, "back") is Code.REFUSED
    named = world.join(3, "named", PeerSettings(allow=("ba*",)))
    assert refusal(named, "front") is Code.REFUSED
    world.open(named, "back")


def test_only_who_said_that_he_serves_is_asked_and_the_least_busy_first(world: World) -> None:
    front = world.join(1, "front")
    world.join(2, "back", serves=False)
    assert refusal(front, "back") is Code.NO_PROCESS
    world.join(3, "back")
    world.join(4, "back")
    for _ in range(4):
        world.open(front, "back")
    assert [len(world.offers[worker]) for worker in (2, 3, 4)] == [0, 2, 2]


def test_a_ring_is_refused_however_long_and_another_worker_is_taken_instead(world: World) -> None:
    a, b, c = world.join(1, "a"), world.join(2, "b"), world.join(3, "c")
    world.open(a, "b")
    closing, _ = world.open(b, "c")
    assert refusal(c, "a") is Code.REFUSED
    assert refusal(a, "a") is Code.REFUSED  # itself
    world.join(4, "a")
    world.open(c, "a")
    assert len(world.offers[4]) == 1
    b.close(closing)
    world.open(c, "a")  # its first one is no further than the other now, and less busy
    assert len(world.offers[1]) == 1


def test_each_end_is_bounded(world: World) -> None:
    front = world.join(1, "front", PeerSettings(allow=("*",), links_max=2))
    other = world.join(2, "front")
    world.join(3, "back", PeerSettings(served_max=3))
    number, _ = world.open(front, "back")
    world.open(front, "back")
    assert refusal(front, "back") is Code.BUSY
    world.open(other, "back")
    assert refusal(other, "back") is Code.BUSY
    front.close(number)
    world.open(other, "back")


def test_who_asks_without_end_is_held_back_and_costs_no_line(world: World) -> None:
    front = world.join(1, "front", PeerSettings())
    codes = [refusal(front, "back") for _ in range(1_000)]
    told = codes.count(Code.REFUSED)
    assert told < 100
    assert world.links.counts["refused"] == told
    assert world.links.counts["held_back"] == 1_000 - told
    world.now_s += 10
    assert refusal(front, "back") is Code.REFUSED
    assert len(world.links.audit) <= AUDIT_MAX


def test_only_the_two_ends_give_a_link_back(world: World) -> None:
    front, back, stranger = world.join(1, "front"), world.join(2, "back"), world.join(3, "other")
    number, _ = world.open(front, "back")
    stranger.close(number)
    assert len(world.links) == 1
    back.close(number)
    back.close(number)
    assert len(world.links) == 0


def test_a_workers_end_ends_its_links_at_both_sides(world: World) -> None:
    front, back, last = world.join(1, "front"), world.join(2, "back"), world.join(3, "last")
    _, asked = world.open(front, "back")
    world.open(back, "last")
    assert len(last.serving) == 1
    back.over()
    assert len(world.links) == 0
    assert asked.recv(1) == b""
    assert not front.asked
    assert not last.serving
    assert refusal(front, "back") is Code.NO_PROCESS


def test_a_server_that_does_not_read_is_offered_nothing_more_and_holds_no_descriptors(
    world: World,
) -> None:
    """Else links that are opened and given back would take all of the bridge's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing: Any = None
    settings = CallbackSettings()
    channel = Channel(
        ours,
        worker_id=2,
        role="b",
        settings=lambda: settings,
        peers=lambda send: world.links.join(2, "b", lambda: ANY, send),
        atoms=tuple,
        policy=nothing,
        callbacks=nothing,
        states=lambda send: nothing,
        checkpoints=nothing,
        broke=nothing,
    )
    asker = world.join(1, "a")
    channel.peers.serve()
    opened, refused = 0, 0
    with ours, theirs:
        for _ in range(2_000):
            world.now_s += 1
            try:
                number, descriptor = asker.open("b")
            except NotHad as error:
                refused += error.code is Code.BUSY
            else:
                opened += 1
                os.close(descriptor)
                asker.close(number)
        assert opened < 1_000
        assert refused > 1_000
        assert len(channel._waiting) == 64
        assert len(world.links) == 0
        channel._become_deaf()
