"""What the fuzzers throw bytes at: one function for each place where bytes of others come in.

Each takes bytes, and returns only if all that must hold for any bytes held: no exception but those
of the interface, and what its docstring says. csrc/tests/fuzz drives `codec` with libFuzzer, its C
compiled with the sanitizers; `run` here drives the others with atheris; test_corpus.py gives each
the inputs that were kept, and changes of them, in every test run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "etf"))
sys.path.append(str(Path(__file__).parents[1] / "dist"))
sys.path.append(str(Path(__file__).parents[1] / "node"))

from etf_support import exact, outcome
from handshake_support import acceptor, initiator
from router_support import PEER, YOU
from test_node_signals import ListCarrier

import bridge.etf
from bridge.dist import control as control_messages
from bridge.dist import epmd, epmd_server
from bridge.dist.cookie import Cookie
from bridge.dist.errors import RemoteProtocolError
from bridge.dist.flags import OFFERED
from bridge.dist.handshake_events import AskedToReplace, Identity, Offered, Proven, Status
from bridge.etf import Atom, DecodeError, EncodeError, Limits, _reference
from bridge.node import Node
from bridge.node.cluster.peers import Connection

# Deep enough for every branch, not so deep that the comparison below runs out of stack.
LIMITS = [Limits(depth_max=150), Limits(4, 40, 2, 9, 1000)]
ATOMS = [Atom("zero"), Atom("true"), Atom("é" * 130)]


def codec(data: bytes) -> None:
    """Both codecs give the same term or the same error, and encode the term to the same bytes, of
    which they make the same term again.
    """
    if not data:
        return
    choice, data = data[0], data[1:]
    limits = LIMITS[choice & 1]
    options: dict[str, Any] = {"limits": limits}
    if choice & 2:
        options["atoms"] = ATOMS
    ours: Any
    theirs: Any
    if choice & 4:
        ours, theirs = bridge.etf.decode_bare, _reference.decode_bare
    else:
        ours, theirs = bridge.etf.decode, _reference.decode
        options["allow_compressed"] = bool(choice & 8)
    found = outcome(ours, data, **options)
    assert found == outcome(theirs, data, **options)
    with suppress(DecodeError):
        term: Any = ours(data, **options)
        if choice & 4:
            term = term[0]
        again_agrees(term, limits)


def again_agrees(term: Any, limits: Limits) -> None:
    encoded = outcome(bridge.etf.encode, term, record_ok=True, limits=limits)
    assert encoded == outcome(_reference.encode, term, record_ok=True, limits=limits)
    keyed = outcome(bridge.etf.canonical, term, limits=limits)
    assert keyed == outcome(_reference.canonical, term, limits=limits)
    with suppress(EncodeError):
        again = bridge.etf.decode(bridge.etf.encode(term, record_ok=True))
        assert exact(again) == exact(term)
        assert outcome(bridge.etf.canonical, again, limits=limits) == keyed


def control(data: bytes) -> None:
    """The table in C and the slow way read the same message or see the same fault; a message that
    is written is read as itself.
    """
    payload, body = bool(data[:1] > b"\x7f"), data[1:]

    def read(how: Callable[..., Any]) -> Any:
        try:
            return how(body, payload=payload)
        except (DecodeError, RemoteProtocolError) as error:
            return (type(error), str(error))

    message = read(control_messages.read)
    assert message == read(control_messages.read_slowly)
    if not isinstance(message, tuple):
        with suppress(EncodeError):  # of a record in a token
            bridge.etf.encode_bare(control_messages.to_tuple(message))
        assert control_messages.parse(control_messages.to_tuple(message), payload=payload) == (
            message
        )


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in pieces, the first of `size` bytes, each other of another length, then its end."""
    at, step = 0, size
    while at < len(data):
        yield data[at : at + step]
        at, step = at + step, step % 7 + 1
    yield b""


def in_any_split(data: bytes, converse: Callable[[list[bytes]], Any]) -> None:
    """What is heard does not depend on how the bytes are cut."""
    if data:
        size, stream = data[0] % 32 + 1, data[1:]
        whole = converse([stream, b""] if stream else [b""])
        assert converse(list(pieces_of(stream, size))) == whole
        assert converse(list(pieces_of(stream, 1))) == whole


def handshake(data: bytes) -> None:
    """Either role hears the same in any split, raises its own error only, sends the same."""
    for make in (acceptor, initiator):
        for status in (Status.OK, Status.ALIVE):
            in_any_split(data, lambda pieces: talk(make(), status, pieces))  # noqa: B023


def talk(core: Any, status: Status, pieces: list[bytes]) -> list[Any]:
    heard: list[Any] = []
    sent = b""
    try:
        for piece in pieces:
            core.receive_data(piece)
            while (event := core.next_event()) is not None:
                heard.append(event)
                match event:
                    case Offered():
                        core.decide(status)
                    case Proven():
                        core.confirm()
                    case AskedToReplace():
                        core.answer_alive(True)
            sent += core.data_to_send()
    except RemoteProtocolError as error:
        heard.append((error.rule, error.peer))
        sent += core.data_to_send()
    return [*heard, sent, core.state]


def epmd_answer(data: bytes) -> None:
    """An answer of epmd is the same in any split."""
    for which in ("alive2", "port2", "names"):

        def read(pieces: list[bytes], which: str = which) -> Any:
            reader = epmd.AnswerReader()
            answer = None
            try:
                for piece in pieces:
                    reader.receive_data(piece)
                    answer = answer or getattr(reader, which)()
            except RemoteProtocolError as error:
                return answer or error.rule
            return answer

        in_any_split(data, read)


def epmd_request(data: bytes) -> None:
    """Our epmd answers the same in any split, and forgets a name with its connection."""

    def serve(pieces: list[bytes]) -> Any:
        names = epmd_server.Names()
        session = epmd_server.Session(names, local=True, port=4369)
        answer = b""
        for piece in pieces:
            session.receive_data(piece, 1_700_000_000)
            answer += session.data_to_send()
        assert session.state is epmd_server.State.CLOSED
        assert not names.entries
        return answer, session.kill_asked

    in_any_split(data, serve)


def signals(data: bytes) -> None:
    """Whatever a connected peer sends, the node goes on or drops that connection; then nothing of
    it is left. Layout: u8 size, control, u8 size, message; size 0: no message; and so on.
    """
    carrier = ListCarrier()
    # No task is started here, so no nursery is needed.
    node = Node(Identity("us@h", 7), Cookie("cookie"), carrier, nursery=None)  # type: ignore[arg-type]
    node.add_relay_service(["relayed"], module="relayed")
    fields: list[bytes] = []
    while data:
        fields.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    for number, (control, message) in enumerate(zip(fields[::2], fields[1::2], strict=False)):
        if node.connections.peers.connection_of(PEER) is None:
            node.connections.peers.up(Connection(number, PEER, OFFERED, YOU.creation))
        [connection] = node.connections.peers
        node.handle_signal(connection.id, control, message or None)
    for connection in node.connections.peers:
        node.handle_connection_lost(connection.id, "closed_by_peer")
    assert node.connected() == []
    assert node.statistics().monitors_on_us == 0


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (codec, control, handshake, epmd_answer, epmd_request, signals)
}
