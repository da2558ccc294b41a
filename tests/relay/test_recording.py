"""Recordings from Python: where they go, when they end, and what a replay says of them."""

import socket
from pathlib import Path

import pytest
import trio

from bridge.fabric.recording import RecordEnd, Recording, RecordingError, replay
from bridge.fabric.relay import ConnectionLost, Relay, Signal


def frame(number: int) -> bytes:
    """{6, Pid, '', somebody} and a number, behind a distribution header."""
    pid = b"X" + b"w\x09peer@host" + bytes(11) + b"\x01"
    body = b"\x83D\x00" + b"h\x04a\x06" + pid + b"w\x00" + b"w\x08somebody" + b"a" + bytes([number])
    return len(body).to_bytes(4) + body


async def run(file: Path, *, file_bytes_max: int = 1 << 20) -> RecordEnd | None:
    """Signals come up and one goes down; how the recording stood before the relay was closed."""
    relay = Relay(node="bridge@host", creation=1, record=Recording(file, file_bytes_max))
    ours, theirs = socket.socketpair()
    try:
        conn = relay.adopt(ours, peer="peer@host", flags=0x800000, creation=1)
        theirs.sendall(b"".join(map(frame, range(50))))
        signals: list[object] = []
        while len(signals) < 50:
            signals += await relay.next_events()
        assert all(isinstance(signal, Signal) for signal in signals)
        relay.send(conn, frame(7)[7:], None)
        assert theirs.recv(1000)
        theirs.close()
        (last,) = await relay.next_events()
        assert isinstance(last, ConnectionLost)
        figures = relay.recording()
        assert figures is not None
        return RecordEnd(figures.end) if figures.over else None
    finally:
        theirs.close()
        relay.close()


async def test_what_passes_to_python_and_back_is_replayed(tmp_path: Path) -> None:
    assert await run(tmp_path / "tape") is None
    again = replay(tmp_path / "tape")
    assert again.difference == ""
    assert again.end is RecordEnd.STOPPED
    assert again.stats.bytes_in == 50 * len(frame(0))


async def test_a_full_file_ends_the_recording_not_the_relay(tmp_path: Path) -> None:
    assert await run(tmp_path / "tape", file_bytes_max=2000) is RecordEnd.FILE_FULL
    again = replay(tmp_path / "tape")
    assert (again.difference, again.end) == ("", RecordEnd.FILE_FULL)


async def test_a_recording_is_stopped_while_the_relay_goes_on(tmp_path: Path) -> None:
    relay = Relay(node="bridge@host", creation=1, record=Recording(tmp_path / "tape"))
    relay.stop_recording()
    with trio.fail_after(60):
        while not ((figures := relay.recording()) and figures.done):  # noqa: ASYNC110
            await trio.sleep(0.001)
    assert replay(tmp_path / "tape").difference == ""
    relay.close()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "tape").write_text("mine")
    with pytest.raises(RecordingError, match="File exists"):
        Relay(node="bridge@host", creation=1, record=Recording(tmp_path / "tape"))
    assert (tmp_path / "tape").read_text() == "mine"


async def test_a_replay_says_what_differs(tmp_path: Path) -> None:
    await run(tmp_path / "tape")
    taped = bytearray((tmp_path / "tape").read_bytes())
    at = taped.index(frame(7)[7:], taped.index(frame(49)))  # as it was handed down
    taped[at + len(frame(7)) - 8] ^= 1
    (tmp_path / "tape").write_bytes(taped)
    assert "what leaves on connection 1 is 06, not 07" in replay(tmp_path / "tape").difference
