"""The node's own group leader: the io server of what it spawns on other nodes.

A function that runs on a BEAM for us writes to the group leader of its process, which is ours: its
output arrives here as io requests (the io_protocol of OTP's stdlib) and goes to the node's output.
There is nothing to read from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bridge.etf import Atom, ImproperList, Pid
from bridge.log import Log
from bridge.node.functions.leader_output import IO_REPLY
from bridge.node.log_limit import LogLimit
from bridge.node.process.handle import ProcessHandle
from bridge.node.signals import gen

Term = Any
Sink = Callable[[str, str], None]
log = Log("ringbridge.node")

TEXT_MAX = 64 << 10  # characters of one request that go on; the rest is cut off
FORMAT_TIMEOUT_S = 5.0
REQUESTS_MAX = 1000  # in one `requests` list
_ENCODINGS = frozenset({"unicode", "latin1"})
_ENOTSUP = (gen.ERROR, Atom("enotsup"))
_NO_REQUEST = (gen.ERROR, Atom("request"))


class LogOutput:
    """The default output: a log line for each write, a few of each node."""

    def __init__(self) -> None:
        self._lines = LogLimit(every_s=0.1)

    def __call__(self, node: str, text: str) -> None:
        if (held_back := self._lines.due(node)) is not None:
            log.info("output", peer=node, text=text.rstrip("\n")[:1000], held_back=held_back)


class UserOutput:
    """What a function writes whose group leader is to be `user`."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name = name
        self._sink = sink

    async def put(self, text: str) -> None:
        self._sink(self._name, text)

    def put_nowait(self, text: str) -> None:
        self._sink(self._name, text)


class Peers(Protocol):
    """Who formats what is to be put: the nodes that we are connected with."""

    def connected(self) -> list[str]: ...
    async def erpc(
        self,
        peer: str,
        module: Atom,
        function: Atom,
        args: Sequence[Term],
        *,
        timeout: float,  # noqa: ASYNC109  # as in Node
    ) -> Term: ...


class GroupLeader:
    """Serves io requests, one at a time and in order. `sink(node, text)` takes the output."""

    def __init__(self, peers: Peers, sink: Sink) -> None:
        self._peers = peers
        self._sink = sink

    async def run(self, me: ProcessHandle) -> None:
        """The process. Anything but an io request is dropped."""
        while True:
            match await me.receive():
                case (Atom("io_request"), Pid() as sender, reply_as, request):
                    result = await self._answer(sender, request)
                    me.send(sender, (IO_REPLY, gen.sendable(reply_as), result))

    async def _answer(self, sender: Pid, request: Term) -> Term:
        match request:
            case (Atom("requests"), list() as several) if len(several) <= REQUESTS_MAX:
                result: Term = gen.OK
                for each in several:
                    result = await self._answer_one(sender, each)
                    if isinstance(result, tuple):  # an error ends the list
                        break
                return result
            case _:
                return await self._answer_one(sender, request)

    async def _answer_one(self, sender: Pid, request: Term) -> Term:
        match request:
            case (Atom("put_chars"), Atom(encoding), characters) if encoding in _ENCODINGS:
                return self._put(sender, encoding, characters)
            case (Atom("put_chars"), Atom(encoding), module, function, args) if (
                encoding in _ENCODINGS
            ):
                return await self._format(sender, encoding, module, function, args)
            case (Atom("put_chars"), Atom("io_lib"), Atom() as function, args):
                return await self._format(sender, "latin1", Atom("io_lib"), function, args)
            case (Atom("put_chars"), characters):
                return self._put(sender, "latin1", characters)
            case (Atom("get_line" | "get_chars" | "get_until" | "get_password"), *_):
                return _ENOTSUP
            case Atom("getopts") | (Atom("get_geometry" | "setopts"), _):
                return _ENOTSUP
            case _:
                return _NO_REQUEST

    async def _format(
        self, sender: Pid, encoding: str, module: Term, function: Term, args: Term
    ) -> Term:
        """The characters are what `io_lib` makes of the arguments: let the sender's node do it."""
        refused = (gen.ERROR, (Atom("put_chars"), Atom(encoding), module, function))
        if module != Atom("io_lib") or not isinstance(args, list) or type(function) is not Atom:
            return gen.sendable(refused)
        if sender.node.name not in self._peers.connected():
            return gen.sendable(refused)  # nobody has us dial a node of his choice
        try:
            characters = await self._peers.erpc(
                sender.node.name, module, function, args, timeout=FORMAT_TIMEOUT_S
            )
        except Exception:  # whatever it is, the characters are not to be had
            return gen.sendable(refused)
        return self._put(sender, encoding, characters)

    def _put(self, sender: Pid, encoding: str, characters: Term) -> Term:
        text = _text(characters, "latin-1" if encoding == "latin1" else "utf-8")
        if text is None:
            return (gen.ERROR, (Atom("put_chars"), Atom(encoding), gen.sendable(characters)))
        try:
            self._sink(sender.node.name, text[:TEXT_MAX])
        except Exception:
            log.exception("the output failed", peer=sender.node.name)
            return (gen.ERROR, Atom("terminated"))
        return gen.OK


def _text(characters: Term, encoding: str) -> str | None:
    """Chardata as text: binaries in `encoding`, code points, lists of such; None if it is not."""
    parts: list[str] = []
    rest: list[Term] = [characters]
    try:
        while rest:
            match rest.pop():
                case bytes() as data:
                    parts.append(data.decode(encoding))
                case int() as point if type(point) is int and not 0xD800 <= point <= 0xDFFF:
                    parts.append(chr(point))
                case list() as several:
                    rest.extend(reversed(several))
                case ImproperList(elements, tail):
                    rest.append(tail)
                    rest.extend(reversed(elements))
                case _:
                    return None
    except (UnicodeDecodeError, ValueError, OverflowError):
        return None
    return "".join(parts)
