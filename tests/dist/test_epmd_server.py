"""Our own epmd's core: answers byte for byte as the real one's, in any split."""

from __future__ import annotations

import itertools
import shutil
import socket
import struct
from collections.abc import Iterator

import pytest
from handshake_support import splits
from hypothesis import given
from hypothesis import strategies as st
from test_epmd_client import HOST, Epmd

from bridge.dist import epmd, epmd_server
from bridge.dist.epmd import AnswerReader, NodeEntry, Refused, Registered
from bridge.dist.epmd_server import Entry, Names, Session, State

NOW = 1_800_000_000
NAME_CHARACTERS = st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"])
PORT = 4369


def alive2(
    name: bytes,
    *,
    port: int = 4711,
    high: int = 6,
    extra: bytes = b"",
    name_length: int | None = None,
) -> bytes:
    length = len(name) if name_length is None else name_length
    fields = struct.pack(">BHBBHHH", 120, port, 77, 0, high, 5, length)
    body = fields + name + struct.pack(">H", len(extra)) + extra
    return struct.pack(">H", len(body)) + body


def request(body: bytes) -> bytes:
    return struct.pack(">H", len(body)) + body


def converse(
    pieces: list[bytes], names: Names | None = None, *, local: bool = True
) -> tuple[bytes, State]:
    """What a session answers, and how it ends."""
    session = Session(Names() if names is None else names, local=local, port=PORT)
    answer = b""
    for piece in pieces:
        session.receive_data(piece, NOW)
        answer += session.data_to_send()
    return answer, session.state


def with_alice() -> Names:
    names = Names()
    names.register(Entry(b"alice", 4711, 77, 0, 6, 5, b"xy"), NOW)
    return names


# Each of these is also asked of the real epmd, below.
REQUESTS = {
    "register": alive2(b"bob", port=4712),
    "register with extra": alive2(b"bob", extra=b"extra"),
    "register as of old": alive2(b"bob", high=5),
    "register what is taken": alive2(b"alice"),
    "register what is taken as of old": alive2(b"alice", high=5),
    "register nothing": alive2(b""),
    "register with a length that lies": alive2(b"bob", name_length=200),
    "register a NUL": alive2(b"b\0b"),
    "register what is not UTF-8": alive2(b"b\xffb"),
    "register 255 characters": alive2(("ä" * 255).encode()),
    "register 256 characters": alive2(b"b" * 256),
    "register a full name": alive2(b"bob@host"),
    "register cut short": request(b"x\x00"),
    "look up": epmd.port2_request("alice"),
    "look up with a NUL behind": request(b"zalice\0"),
    "look up a stranger": epmd.port2_request("nobody"),
    "look up nothing": request(b"z"),
    "look up a NUL": request(b"z\0"),
    "look up a name with a NUL": request(b"za\0b"),
    "names": epmd.names_request(),
    "kill while a name is held": request(b"k"),
    "stop": request(b"salice"),
    "unknown": request(b"\x01hello"),
    "nothing": request(b""),
    "too long": request(b"n" * 4000),
}
# The real one may see them with the request, and then closes at once, or after it.
TRAILING = epmd.names_request() + b"more"


@pytest.mark.parametrize(
    "data", [*REQUESTS.values(), TRAILING, alive2(b"bob") + b"!"], ids=[*REQUESTS, "names!", "bob!"]
)
def test_a_request_is_answered_alike_in_any_split(data: bytes) -> None:
    whole = converse([data], with_alice())
    for pieces in splits(data):
        assert converse(pieces, with_alice()) == whole


@given(data=st.binary(min_size=1, max_size=80), cuts=st.lists(st.integers(0, 80), max_size=5))
def test_any_bytes_in_any_split_give_the_same_answer_and_never_raise(
    data: bytes, cuts: list[int]
) -> None:
    """Length and tag made likely, so that parsers are reached."""
    for framed in (data, request(data), request(b"x" + data), request(b"z" + data)):
        edges = sorted({0, len(framed), *(cut for cut in cuts if cut < len(framed))})
        pieces = [framed[a:b] for a, b in itertools.pairwise(edges)]
        assert converse(pieces, with_alice()) == converse([framed], with_alice())


@given(
    name=st.text(NAME_CHARACTERS, min_size=1, max_size=255),
    port=st.integers(0, 65535),
    extra=st.binary(max_size=20),
)
def test_what_is_registered_is_found(name: str, port: int, extra: bytes) -> None:
    names = Names()
    answer, state = converse([alive2(name.encode(), port=port, extra=extra)], names)
    assert state is State.REGISTERED
    reader = AnswerReader()
    reader.receive_data(answer)
    assert reader.alive2() == Registered(NOW + 1)
    reader = AnswerReader()
    reader.receive_data(converse([request(b"z" + name.encode())], names)[0])
    assert reader.port2() == NodeEntry(port, 77, 6, 5, name, extra)


@pytest.fixture(scope="module")
def real() -> Iterator[Epmd]:
    server = Epmd()
    server.start()
    yield server
    server.stop()


@pytest.mark.skipif(shutil.which("epmd") is None, reason="no epmd here")
@pytest.mark.beam
@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS.keys())
def test_it_answers_as_the_epmd_of_this_machine(real: Epmd, data: bytes) -> None:
    names = Names()
    with socket.create_connection((HOST, real.port)) as alice:
        alice.sendall(alive2(b"alice", extra=b"xy"))
        creation = struct.unpack(">BBI", alice.recv(6))[2]
        assert converse([alive2(b"alice", extra=b"xy")], names)[1] is State.REGISTERED
        session = Session(names, local=True, port=real.port)
        session.receive_data(data, creation - 1)
        ours = session.data_to_send()
        with socket.create_connection((HOST, real.port)) as asker:
            asker.sendall(data)
            closed = session.state is State.CLOSED
            theirs, theirs_closed = _read(asker, len(ours), registered=ours[:1] in (b"v", b"y"))
    if ours[:2] in (b"v\0", b"y\0"):  # creations are clocks: theirs is not ours
        ours, theirs = ours[:2], theirs[:2]
    assert theirs == ours
    if ours[:2] not in (b"v\1", b"y\1"):  # a refusal leaves the real one's socket open
        assert theirs_closed == closed


def _read(asker: socket.socket, expected: int, *, registered: bool) -> tuple[bytes, bool]:
    """What epmd says, and whether it closes; a connection that stays is waited on for a moment."""
    asker.settimeout(0.1 if registered else 5.0)
    data = b""
    try:
        while piece := asker.recv(65536):
            data += piece
    except TimeoutError:
        return data, False
    except ConnectionResetError:  # it closed with bytes of ours unread
        return data, True
    return data, True


def test_a_name_is_free_again_as_soon_as_its_connection_closes() -> None:
    names = Names()
    holder = Session(names, local=True, port=PORT)
    holder.receive_data(alive2(b"bob"), NOW)
    assert converse([alive2(b"bob")], names)[0][:2] == b"v\1"
    holder.receive_data(b"", NOW)
    assert holder.state is State.CLOSED
    assert converse([alive2(b"bob")], names)[0][:2] == b"v\0"


def test_any_byte_on_a_registered_connection_gives_the_name_up() -> None:
    names = Names()
    holder = Session(names, local=True, port=PORT)
    holder.receive_data(alive2(b"bob"), NOW)
    holder.receive_data(b"!", NOW)
    assert holder.state is State.CLOSED
    assert names.entries == {}


def test_each_life_of_a_name_has_a_creation_of_its_own() -> None:
    names = Names()
    creations = []
    for now in (NOW, NOW - 100, NOW + 100):  # whatever the clock does
        session = Session(names, local=True, port=PORT)
        session.receive_data(alive2(b"bob"), now)
        reader = AnswerReader()
        reader.receive_data(session.data_to_send())
        creations.append(reader.alive2())
        session.close()
    assert creations == [Registered(NOW + 1), Registered(NOW + 2), Registered(NOW + 3)]


@pytest.mark.parametrize("now", [0, 2, 2**32 - 1])
def test_creations_below_4_are_never_given(now: int) -> None:
    creation = Names().register(Entry(b"bob", 1, 77, 0, 6, 5, b""), now)
    assert creation is not None
    assert 4 <= creation < 2**32


def test_names_of_the_past_are_remembered_up_to_a_bound() -> None:
    names = Names()
    for number in range(epmd_server.REMEMBERED_MAX + 10):
        name = b"n%d" % number
        names.register(Entry(name, 1, 77, 0, 6, 5, b""), NOW)
        names.unregister(name)
    assert len(names._remembered) == epmd_server.REMEMBERED_MAX
    assert names.register(Entry(b"n0", 1, 77, 0, 6, 5, b""), NOW + 50) == NOW + 51  # forgotten
    assert names.register(Entry(b"n100", 1, 77, 0, 6, 5, b""), NOW + 50) == NOW + 2


def test_names_of_the_present_are_bounded() -> None:
    names = Names()
    for number in range(epmd_server.REGISTERED_MAX):
        assert names.register(Entry(b"n%d" % number, 1, 77, 0, 6, 5, b""), NOW) is not None
    answer, state = converse([alive2(b"bob")], names)
    assert answer == b"v\1" + struct.pack(">I", 99)
    assert state is State.CLOSED


@pytest.mark.parametrize("data", [alive2(b"bob"), request(b"d"), request(b"k")])
def test_a_peer_of_another_host_may_only_ask(data: bytes) -> None:
    assert converse([data], with_alice(), local=False) == (b"", State.CLOSED)


def test_a_peer_of_another_host_may_look_up_and_list() -> None:
    for data in (epmd.names_request(), epmd.port2_request("alice")):
        assert converse([data], with_alice(), local=False) == converse([data], with_alice())


def test_a_name_with_a_line_break_would_forge_the_list_and_is_refused() -> None:
    answer, _ = converse([alive2(b"a\nname root at port 1")])
    reader = AnswerReader()
    reader.receive_data(answer)
    assert reader.alive2() == Refused(1)


def test_it_ends_when_a_local_peer_kills_it_and_no_name_is_held() -> None:
    session = Session(Names(), local=True, port=PORT)
    session.receive_data(request(b"k"), NOW)
    assert session.data_to_send() == b"OK"
    assert session.kill_asked
    session = Session(with_alice(), local=True, port=PORT)
    session.receive_data(request(b"k"), NOW)
    assert session.data_to_send() == b"NO"
    assert not session.kill_asked
