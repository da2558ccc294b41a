"""Job: what a handler is given. The native part has what is about the link; terms are told here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ringbridge_worker import _kit
from ringbridge_worker._answers import Term, decode

if TYPE_CHECKING:
    from typing_extensions import Buffer

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}

# A registered name; a name and its node; or a pid, an atom, what a term has brought.
Destination: TypeAlias = "str | tuple[str, str] | Any"


class State(NamedTuple):
    """What a worker saves and is given back: all of it, or what came behind what was saved last."""

    data: bytes
    is_increment: bool = False


class Job(_kit.Job):
    """One job. It is its handler's thread's; other threads may ask is_cancelled(), and log()."""

    __slots__ = ()

    def term(self) -> Any:
        """The payload, decoded. ValueError when it is raw bytes; bridge.etf.DecodeError."""
        if not self.is_term:
            raise ValueError("the payload is raw bytes, not a term")
        return decode(self.payload)

    def send(self, to: Destination, message: Any) -> None:
        """Erlang's `!`: nobody hears whether it was allowed or arrived. Raises ChannelError."""
        self._send(_destination(to), _encode(message))

    def call(self, to: Destination, request: Any, timeout_s: float = 5.0) -> Any:
        """GenServer.call: the answer, within the job's own deadline too.

        Raises ChannelError, and Cancelled when nobody wants the job any more.
        """
        return decode(self._call(_destination(to), _encode(request), int(timeout_s * 1000)))

    def ask(
        self, peer: _kit.Peer, request: Buffer | Term, opcode: int = 0, timeout_s: float = 5.0
    ) -> memoryview | Term:
        """Have the worker at the other end of a link do a job; its answer, raw or a term.

        Waits for at most `timeout_s` and the job's own deadline, both of which the peer is told.
        Raises PeerFailed, ChannelError, and Cancelled when nobody wants the job any more.
        """
        answer, is_term = self._ask(peer, request, opcode, int(timeout_s * 1000))
        return Term.of_bytes(bytes(answer)) if is_term else answer

    def log(self, level: str, text: str) -> bool:
        """A line in the bridge's log with worker and job; False where it was dropped."""
        return self._log(LEVELS[level], text)

    def checkpoint(self, data: bytes, *, is_increment: bool = False) -> None:
        """Save state now; returns when the bridge has it. Raises ChannelError."""
        self._checkpoint(data, is_increment)

    def load_state(self) -> list[State]:
        """The latest state: one in full, then its increments; nothing when there is none.

        For a worker that gives serve() no `restore`. Raises ChannelError.
        """
        return [State(*part) for part in self._load_state()]


def _destination(to: Destination) -> bytes | tuple[str, str | None]:
    match to:
        case str():
            return to, None
        case (str() as name, str() as node):
            return name, node
    return _encode(to)


def _encode(value: Any) -> bytes:
    return value.encode() if isinstance(value, Term) else Term(value).encode()
