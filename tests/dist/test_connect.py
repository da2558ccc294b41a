"""The handshake's shell over memory streams: who closes, who waits, and how long."""

from __future__ import annotations

import pytest
import trio
from handshake_support import ALICE, BOB, acceptor, initiator
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from bridge.dist.connect import Connected, DialRefused, accept_peer, dial_peer
from bridge.dist.cookie import Cookie
from bridge.dist.errors import RemoteProtocolError
from bridge.dist.handshake_events import Peer, Status


async def meet(status: Status, **alice_options: object) -> tuple[object, object]:
    """Alice dials Bob, who answers `status`; what each of the two shells returned or raised."""
    a, b = memory_stream_pair()
    results: dict[str, object] = {}

    async def alice() -> None:
        try:
            results["alice"] = await dial_peer(a, initiator(**alice_options), replace=lambda: True)
        except (DialRefused, RemoteProtocolError) as error:
            results["alice"] = error
        await a.aclose()

    async def bob() -> None:
        try:
            results["bob"] = await accept_peer(
                b, acceptor(), decide=lambda peer: status, proven=lambda peer: None
            )
        except RemoteProtocolError as error:
            results["bob"] = error
        await b.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice)
        nursery.start_soon(bob)
    return results["alice"], results["bob"]


@pytest.mark.parametrize("status", [Status.OK, Status.OK_SIMULTANEOUS, Status.ALIVE])
async def test_two_shells_meet(status: Status) -> None:
    alice, bob = await meet(status)
    assert isinstance(alice, Connected)
    assert isinstance(bob, Connected)
    assert alice.peer.name == BOB.name
    assert bob.peer.name == ALICE.name


@pytest.mark.parametrize("status", [Status.NOK, Status.NOT_ALLOWED])
async def test_a_refusal_reaches_the_initiator(status: Status) -> None:
    alice, bob = await meet(status)
    assert isinstance(alice, DialRefused)
    assert alice.status is status
    assert bob is None


async def test_a_wrong_cookie_is_a_close_for_one_and_a_rule_for_the_other() -> None:
    alice, bob = await meet(Status.OK, cookie=Cookie("another"))
    assert isinstance(alice, RemoteProtocolError)
    assert "the cookies differ" in alice.rule
    assert isinstance(bob, RemoteProtocolError)
    assert "wrong cookie" in bob.rule


@pytest.mark.parametrize("said", [b"", b"\x00", b"\x00\x1eN"])
async def test_a_silent_or_dribbling_peer_is_cut_after_seven_seconds(
    said: bytes, autojump_clock: MockClock
) -> None:
    a, b = memory_stream_pair()
    await a.send_all(said) if said else None
    with pytest.raises(RemoteProtocolError, match="at most 7 s"):
        await accept_peer(b, acceptor(), decide=lambda peer: Status.OK, proven=lambda peer: None)
    assert trio.current_time() == pytest.approx(7, abs=0.01)


async def test_the_proof_comes_before_the_acknowledgement() -> None:
    a, b = memory_stream_pair()
    proven: list[Peer] = []
    alice = initiator()

    async def bob() -> None:
        await accept_peer(b, acceptor(), decide=lambda peer: Status.OK, proven=proven.append)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bob)
        await a.send_all(alice.data_to_send())
        await wait_all_tasks_blocked()
        assert proven == [], "a name alone proves nothing"
        alice.receive_data(bytes(await a.receive_some()))
        alice.next_event()
        await a.send_all(alice.data_to_send())
        await wait_all_tasks_blocked()
        assert [peer.name for peer in proven] == [ALICE.name]
