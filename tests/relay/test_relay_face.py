"""The relay as Python sees it: turns that it leaves to others, and what is left when it closes."""

import errno
import socket

import pytest
import trio

from bridge.fabric.relay import (
    ConnectionLost,
    Event,
    Relay,
    RoleGone,
    RoleLimits,
    RoleState,
    Signal,
)

FRAGMENTS = 0x800000
EVENTS = 1000


def frame_for_somebody() -> bytes:
    """{6, Pid, '', somebody} and a message, behind a distribution header."""
    pid = b"X" + b"w\x09peer@host" + bytes(11) + b"\x01"
    body = b"\x83D\x00" + b"h\x04a\x06" + pid + b"w\x00" + b"w\x08somebody" + b"a\x07"
    return len(body).to_bytes(4) + body


async def test_a_flood_of_events_leaves_the_other_tasks_their_turn() -> None:
    relay = Relay(node="bridge@host", creation=1)
    ours, theirs = socket.socketpair()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    try:
        relay.adopt(ours, peer="peer@host", flags=FRAGMENTS, creation=1)
        flood = frame_for_somebody() * EVENTS
        theirs.sendall(flood)
        while relay.stats().bytes_in < len(flood):  # noqa: ASYNC110 (nothing tells)
            await trio.sleep(0.001)
        await trio.sleep(0.05)  # the last of them are on their way up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            taken = 0
            while taken < EVENTS:
                events = await relay.next_events()
                assert all(isinstance(event, Signal) for event in events)
                taken += len(events)
            assert taken == EVENTS
            nursery.cancel_scope.cancel()
        assert turns >= EVENTS // 100
    finally:
        theirs.close()
        relay.close()


async def test_a_closed_relay_says_so() -> None:
    relay = Relay(node="bridge@host", creation=1)
    role = relay.add_role(RoleLimits("echo"))
    relay.close()
    relay.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for call in (
            relay.stats,
            relay.hops,
            lambda: relay.role_stats(role),
            lambda: relay.worker_stats(1),
            lambda: relay.send(1, b"", None),
            lambda: relay.drop(1, "late"),
            lambda: relay.set_role_state(role, RoleState.DRAINING),
            lambda: relay.configure_role(role, RoleLimits("echo")),
            lambda: relay.adopt(ours, peer="peer@host", flags=0, creation=1),
        ):
            with pytest.raises(trio.ClosedResourceError):
                call()
        assert ours.fileno() >= 0  # a socket that was refused stays its owner's
    with pytest.raises(trio.ClosedResourceError):
        await relay.next_events()


async def test_a_role_keeps_its_name_and_its_pool() -> None:
    relay = Relay(node="bridge@host", creation=1)
    try:
        role = relay.add_role(RoleLimits("echo"))
        relay.configure_role(role, RoleLimits("echo", timeout_max_ms=1))
        for number, limits, why in (
            (role, RoleLimits("other"), errno.EINVAL),
            (role, RoleLimits("echo", pool_bytes=1 << 20), errno.EINVAL),
            (role + 1, RoleLimits("echo"), errno.ENOENT),
        ):
            with pytest.raises(OSError, match="role") as caught:
                relay.configure_role(number, limits)
            assert caught.value.errno == why
    finally:
        relay.close()


async def test_the_number_of_a_removed_role_is_free_once_it_is_gone() -> None:
    relay = Relay(node="bridge@host", creation=1)
    try:
        numbers = [relay.add_role(RoleLimits(name)) for name in ("a", "b")]
        relay.remove_role(numbers[0])
        assert relay.add_role(RoleLimits("c")) == 2
        assert await relay.next_events() == [RoleGone(numbers[0])]
        assert relay.add_role(RoleLimits("a")) == numbers[0]
    finally:
        relay.close()


async def test_whoever_waits_for_an_event_hears_of_the_close() -> None:
    relay = Relay(node="bridge@host", creation=1)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await relay.next_events()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            relay.close()


async def send_all(sock: socket.socket, data: bytes) -> None:
    await trio.to_thread.run_sync(sock.sendall, data)


async def test_signals_of_any_size_come_whole_and_in_order() -> None:
    relay = Relay(node="bridge@host", creation=1)
    ours, theirs = socket.socketpair()
    # Around what one look takes: none, as much as there is room for, more, and more by itself.
    sizes = [0, 1, 70_000, 0, *[3000] * 30, 65_000, 65_536, 200_000, 7, *[0] * 100]
    control = b"h\x03a\x02w\x00X" + b"w\x09peer@host" + bytes(11) + b"\x01"
    frames = []
    for number, size in enumerate(sizes):
        payload = b"m" + (size + 1).to_bytes(4) + bytes([number]) * (size + 1)
        body = b"p\x83" + control + b"\x83" + payload
        frames.append(len(body).to_bytes(4) + body)
    try:
        conn = relay.adopt(ours, peer="peer@host", flags=0, creation=1)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all, theirs, b"".join(frames))
                events: list[Event] = []
                while len(events) < len(sizes):
                    events += await relay.next_events()
            theirs.close()
            (last,) = await relay.next_events()
        assert isinstance(last, ConnectionLost)
        for number, (size, event) in enumerate(zip(sizes, events, strict=True)):
            assert isinstance(event, Signal)
            assert (event.conn, event.control) == (conn, control)
            assert event.message is not None
            assert event.message[5:] == bytes([number]) * (size + 1)
    finally:
        theirs.close()
        relay.close()
