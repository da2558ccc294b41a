"""The handshake of distribution protocol version 6 (dist-protocol.md, 2): two machines of bytes and
events.

Facts: the acceptor decides by name and flags before any proof, so nothing of a live connection may
be touched until the digest is checked. A wrong cookie is answered by closing, never in words.
Challenges come in as arguments (from `secrets`, by the shell), so that a test can replay a
conversation.

Use: `receive_data`, then `next_event` until None (need more bytes), sending `data_to_send()` after
each step, also after an error: the status that tells the peer why goes out before the close.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NoReturn

from bridge.dist.cookie import Cookie
from bridge.dist.errors import LocalProtocolError, RemoteProtocolError
from bridge.dist.flags import MANDATORY, NAME_ME, missing_names, negotiated
from bridge.dist.handshake_events import (
    ACCEPTOR_TABLE,
    INITIATOR_TABLE,
    AskedToReplace,
    Established,
    Event,
    Identity,
    Offered,
    Peer,
    Proven,
    Refused,
    State,
    Status,
    Step,
    Table,
    Withdrawn,
)
from bridge.dist.handshake_messages import (
    Ack,
    Challenge,
    MessageReader,
    Name,
    Named,
    Reply,
    StatusText,
    frame,
    parse_ack,
    parse_challenge,
    parse_name,
    parse_reply,
    parse_status,
)
from bridge.dist.names import node_name_problem

HANDSHAKE_TIMEOUT_S = 7.0  # net_setuptime's default; ours bounds the whole, a BEAM's each step


# What a close in this state tells us, for the log line. The other states have no better reason.
_CLOSE_HINTS = {
    State.AWAIT_REPLY: "the peer refused our flags or name, or saw no answer in time",
    State.AWAIT_CHALLENGE: "the peer refused our flags",
    State.AWAIT_ACK: "the cookies differ",
}


class _Handshake:
    """What both roles share: framing in and out, the table, the end of the stream."""

    table: Table
    readers: Mapping[State, Callable[[bytes], Event | None]]

    def __init__(self, state: State, prefix_bytes: int) -> None:
        self.state = state
        self._reader = MessageReader(prefix_bytes=prefix_bytes)
        self._prefix_bytes = prefix_bytes
        self._outgoing = bytearray()
        self._ended = False

    def receive_data(self, data: bytes) -> None:
        """Store bytes from the peer; b"" means that it has ended."""
        self._ended = self._ended or not data
        self._reader.receive_data(data)

    def next_event(self) -> Event | None:
        """The next thing that happened, or None: need more bytes, or a decision.
        RemoteProtocolError only.
        """
        while (read := self.readers.get(self.state)) is not None:
            body = self._reader.next_body()
            if body is None:
                if self._ended:
                    hint = _CLOSE_HINTS.get(self.state, "a handshake does not end here")
                    state = self.state.name
                    self.state = State.CLOSED
                    raise RemoteProtocolError(
                        f"the peer closed in {state}: {hint}", peer=self.peer_name
                    )
                return None
            try:
                event = read(body)
            except RemoteProtocolError as error:
                self.state = State.CLOSED
                raise RemoteProtocolError(error.rule, peer=self.peer_name) from None
            if event is not None:
                return event
        return None

    def data_to_send(self) -> bytes:
        """The bytes to send now; each is given once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def take_leftover(self) -> bytes:
        """Bytes the peer sent behind its last handshake message; only when ESTABLISHED."""
        if self.state is not State.ESTABLISHED:
            raise LocalProtocolError(f"no leftover in {self.state.name}")
        return self._reader.take_leftover()

    @property
    def peer_name(self) -> str | None:
        raise NotImplementedError

    def _move(self, step: Step) -> None:
        try:
            self.state = self.table[self.state][step]
        except KeyError:
            raise LocalProtocolError(f"{step.name} not allowed in {self.state.name}") from None

    def _send(self, body: bytes) -> None:
        self._outgoing += frame(body, prefix_bytes=self._prefix_bytes)


def no_name(host: str) -> tuple[str, int] | None:
    """Gives no names: a peer that asks for one is answered `not_allowed`."""
    return None


class Acceptor(_Handshake):
    """B's side: a peer dialled us. `challenge` is 32 random bits, fresh for this connection.

    `give_name(host)` makes a name `something@host` and a creation for a peer that asks for one
    (NAME_ME; dist-protocol.md, 2.4b), or None.
    """

    table = ACCEPTOR_TABLE

    def __init__(
        self,
        identity: Identity,
        cookie: Cookie,
        *,
        challenge: int,
        give_name: Callable[[str], tuple[str, int] | None] = no_name,
        required: int = MANDATORY,
        prefix_bytes: int = 2,
    ) -> None:
        super().__init__(State.AWAIT_NAME, prefix_bytes)
        self._give_name = give_name
        self._given: Named | None = None
        self._identity = identity
        self._cookie = cookie
        self._required = required
        self._peer: Peer | None = None
        self._claimed: str | None = None
        self.challenge = challenge
        self.readers = {
            State.AWAIT_NAME: self._read_name,
            State.AWAIT_REPLACE_ANSWER: self._read_replace_answer,
            State.AWAIT_REPLY: self._read_reply,
        }

    @property
    def peer_name(self) -> str | None:
        return self._claimed

    def decide(self, status: Status) -> None:
        """Answer `Offered`. Raises LocalProtocolError in any other state."""
        match status:
            case Status.OK | Status.OK_SIMULTANEOUS:
                self._move(Step.GRANT)
            case Status.ALIVE:
                self._move(Step.ASK_TO_REPLACE)
            case Status.NOK | Status.NOT_ALLOWED:
                self._move(Step.REFUSE)
        if self._given is not None and self.state is State.AWAIT_REPLY:
            self._send(self._given.encode())
        else:
            self._send(StatusText(status.value).encode())
        if self.state is State.AWAIT_REPLY:
            self._send_challenge()

    def confirm(self) -> Established:
        """Answer `Proven` with our own proof. Raises LocalProtocolError in any other state."""
        self._move(Step.CONFIRM)
        assert self._peer is not None
        self._send(Ack(self._cookie.digest(self._peer_challenge)).encode())
        return Established(self._peer)

    def _read_name(self, body: bytes) -> Event:
        message = parse_name(body)
        self._claimed = message.name
        # A BEAM refuses malformed names with `nok`, everything else with `not_allowed`
        # (dist_util.erl).
        name, creation = message.name, message.creation
        if message.flags & NAME_ME:
            name, creation = self._name_for(message.name)
        if problem := node_name_problem(name):
            self._refuse(Status.NOK, problem)
        if name == self._identity.name:
            self._refuse(Status.NOT_ALLOWED, "a peer may not have our own name")
        if creation == 0:
            self._refuse(Status.NOT_ALLOWED, "creation 0 is reserved")
        if missing := missing_names(message.flags, self._required):
            self._refuse(
                Status.NOT_ALLOWED, f"the peer lacks mandatory flags: {', '.join(missing)}"
            )
        flags = negotiated(self._identity.flags, message.flags)
        self._peer = Peer(name, creation, flags)
        self._move(Step.NAME)
        return Offered(self._peer)

    def _name_for(self, host: str) -> tuple[str, int]:
        """A name for a peer that asks for one: it sent the host alone."""
        if problem := node_name_problem(f"x@{host}"):
            self._refuse(Status.NOK, problem)
        given = self._give_name(host)
        if given is None:
            self._refuse(Status.NOT_ALLOWED, "dynamic node names (NAME_ME) are not given here")
        self._given = Named(*given)
        return given

    def _refuse(self, status: Status, rule: str) -> NoReturn:
        self._send(StatusText(status.value).encode())
        raise RemoteProtocolError(rule)

    def _read_replace_answer(self, body: bytes) -> Event | None:
        match parse_status(body):
            case StatusText("true"):
                self._move(Step.REPLACE)
                self._send_challenge()
                return None
            case StatusText("false"):
                self._move(Step.KEEP)
                return Withdrawn()
            case _:
                raise RemoteProtocolError('`alive` is answered with "true" or "false"')

    def _send_challenge(self) -> None:
        us = self._identity
        flags = us.flags | (NAME_ME if self._given else 0)
        self._send(Challenge(flags, self.challenge, us.creation, us.name).encode())

    def _read_reply(self, body: bytes) -> Event:
        reply = parse_reply(body)
        if not self._cookie.proves(reply.digest, self.challenge):
            raise RemoteProtocolError("wrong cookie: the digest does not answer our challenge")
        assert self._peer is not None
        self._peer_challenge = reply.challenge
        self._move(Step.REPLY)
        return Proven(self._peer)


class Initiator(_Handshake):
    """A's side: we dialled `peer_name`; the name message is ready to send at once.

    `outstanding` gives the challenges that we wait for an answer to, on any connection: one of them
    coming back here is somebody who uses us as an oracle for our own cookie (dist-protocol.md, 9).
    With `ask_for_name` the part of `identity.name` before the @ is left to the peer; once
    established, `identity` is what it gave us.
    """

    table = INITIATOR_TABLE

    def __init__(
        self,
        identity: Identity,
        cookie: Cookie,
        peer_name: str,
        *,
        challenge: int,
        outstanding: Callable[[], Collection[int]] = tuple,
        ask_for_name: bool = False,
        required: int = MANDATORY,
        prefix_bytes: int = 2,
    ) -> None:
        super().__init__(State.AWAIT_STATUS, prefix_bytes)
        if peer_name == identity.name:
            raise ValueError("a node does not dial itself")
        self.identity = identity
        self._ask_for_name = ask_for_name
        self._cookie = cookie
        self._dialled = peer_name
        self._required = required
        self._challenge = challenge
        self._outstanding = outstanding
        self.readers = {
            State.AWAIT_STATUS: self._read_status,
            State.AWAIT_CHALLENGE: self._read_challenge,
            State.AWAIT_ACK: self._read_ack,
        }
        if ask_for_name:
            host = identity.name.partition("@")[2]
            self._send(Name(identity.flags | NAME_ME, 0, host).encode())
        else:
            self._send(Name(identity.flags, identity.creation, identity.name).encode())

    @property
    def peer_name(self) -> str | None:
        return self._dialled

    def answer_alive(self, replace: bool) -> None:
        """Answer `AskedToReplace`: True takes the peer's old connection down, False gives up."""
        self._move(Step.REPLACE if replace else Step.KEEP)
        self._send(StatusText("true" if replace else "false").encode())

    def _read_status(self, body: bytes) -> Event | None:
        match parse_status(body):
            case Named(name, creation) if self._ask_for_name:
                self._take_name(name, creation)
                self._move(Step.GRANT)
                return None
            case StatusText("nok" | "not_allowed" as text):
                self._move(Step.REFUSE)
                return Refused(Status(text))
            case _ if self._ask_for_name:
                raise RemoteProtocolError("a peer that is asked for a name answers with one")
            case StatusText("ok" | "ok_simultaneous"):
                self._move(Step.GRANT)
                return None
            case StatusText("alive"):
                self._move(Step.ASK_TO_REPLACE)
                return AskedToReplace()
            case _:
                raise RemoteProtocolError(
                    "a status is one of ok, ok_simultaneous, nok, not_allowed, alive"
                )

    def _take_name(self, name: str, creation: int) -> None:
        if problem := node_name_problem(name):
            raise RemoteProtocolError(f"the name that we were given is none: {problem}")
        if name.partition("@")[2] != self.identity.name.partition("@")[2]:
            raise RemoteProtocolError(f"we were given a name of another host: {name}")
        if name == self._dialled or creation == 0:
            raise RemoteProtocolError("we were given the peer's own name, or creation 0")
        self.identity = replace(self.identity, name=name, creation=creation)

    def _read_challenge(self, body: bytes) -> Event | None:
        message = parse_challenge(body)
        if message.name != self._dialled:
            raise RemoteProtocolError(f"the node that answered calls itself {message.name!r}")
        if message.creation == 0:
            raise RemoteProtocolError("creation 0 is reserved")
        if missing := missing_names(message.flags, self._required):
            raise RemoteProtocolError(f"the peer lacks mandatory flags: {', '.join(missing)}")
        if message.challenge in self._outstanding():
            raise RemoteProtocolError("the peer's challenge is one of ours, sent back to us")
        flags = negotiated(self.identity.flags, message.flags)
        self._peer = Peer(message.name, message.creation, flags)
        self._move(Step.CHALLENGE)
        self._send(Reply(self._challenge, self._cookie.digest(message.challenge)).encode())
        return None

    def _read_ack(self, body: bytes) -> Event:
        if not self._cookie.proves(parse_ack(body).digest, self._challenge):
            raise RemoteProtocolError("wrong cookie: the digest does not answer our challenge")
        self._move(Step.ACK)
        return Established(self._peer)
