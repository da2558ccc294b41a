"""What a handler answers with: terms, and exceptions that are answers."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeAlias

from ringbridge_worker import _kit

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Answer: TypeAlias = "Buffer | Term | None"
else:
    Answer = Any


class Cancelled(BaseException):
    """Nobody wants the answer any more. The kit answers for a handler that lets it through.

    As in trio and asyncio it is no Exception, so that `except Exception` does not hold it up.
    """


class JobFailed(Exception):
    """Raised by a handler: the caller gets `{:error, {:job_failed, code, message}}`.

    `code`: 0 to 65279; from 65280 on codes are the kit's. `message`: cut at 1024 bytes of UTF-8.
    """

    def __init__(self, code: int, message: str | bytes = "") -> None:
        if not 0 <= code <= 0xFFFF:
            raise ValueError(f"code {code}: from 0 to 65535")
        super().__init__(code, message)
        self.code = code
        self.message = message


class AnswerTooLarge(ValueError):
    """More than the link's result region holds; a handler that lets it through has code 65280."""


class ChannelError(Exception):
    """What was said over the channel, or over a link to another worker, failed.

    `errno` is the kit's: EACCES, the role's policy does not allow it; ESRCH, nobody there;
    EHOSTUNREACH; EPIPE, it ended before it answered; ETIMEDOUT; EMSGSIZE; EBUSY; ENOTSUP; ESTALE,
    save in full; EIO; ENOTCONN and ESHUTDOWN, there is no channel (docs/channel.md). Of links also
    EREMOTEIO, as PeerFailed; ECONNABORTED, the peer gave up; EPIPE, the link is over; EPROTO, the
    peer broke a rule (docs/links.md). `reason`: the bridge's, a term.
    """

    def __init__(self, number: int, reason: bytes | None = None) -> None:
        self.errno = number
        self.reason = None if reason is None else decode(reason)
        told = "" if reason is None else f": {self.reason!r}"
        super().__init__(f"{os.strerror(number)}{told}")


class PeerFailed(ChannelError):
    """Another worker's handler failed what it was asked: `code` and `message` are its."""

    def __init__(self, code: int, message: bytes) -> None:
        super().__init__(errno.EREMOTEIO)
        self.code = code
        self.message = message.decode(errors="replace")
        self.args = (f"the peer failed it with code {code}: {self.message}",)


class Term:
    """A term as an answer, a part or a report: `return Term({"mean": 1.5})`.

    What becomes what is told in docs/terms.md: str and bytes are binaries, `Atom("ok")` an atom.
    """

    __slots__ = ("_encoded", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._encoded: bytes | None = None

    @classmethod
    def of_bytes(cls, encoded: bytes) -> Term:
        """External term bytes without the leading 131, as they are."""
        term = cls(None)
        term._encoded = encoded
        return term

    @property
    def value(self) -> Any:
        return self._value if self._encoded is None else decode(self._encoded)

    def encode(self) -> bytes:
        """External term bytes without the leading 131. Raises bridge.etf.EncodeError."""
        if self._encoded is None:
            from bridge.etf import encode_bare

            self._encoded = encode_bare(self._value)
        return self._encoded


def decode(payload: bytes | memoryview) -> Any:
    """The term of external term bytes without the leading 131. Raises bridge.etf.DecodeError."""
    from bridge.etf import DecodeError, decode_bare

    term, end = decode_bare(payload)
    if end != len(payload):
        raise DecodeError("trailing_bytes", end, len(payload) - end)
    return term


def describe(error: Exception, job: int) -> tuple[int, bytes]:
    """Code and message of a job whose handler raised; what nobody expected goes to stderr too."""
    if isinstance(error, JobFailed):
        return error.code, _cut(error.message)
    print(f"job {job}: its handler raised:", file=sys.stderr)
    traceback.print_exception(error)
    sys.stderr.flush()
    name = type(error).__name__
    return _kit.CODE_EXCEPTION, _cut(f"{name}: {text}" if (text := _text(error)) else name)


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception as second:  # a broken __str__ is no reason to say nothing
        return f"<{type(second).__name__} in its __str__>"


def _cut(message: str | bytes) -> bytes:
    """At most the kit's limit, and not in the middle of a character."""
    if isinstance(message, bytes):
        return message[: _kit.MESSAGE_BYTES_MAX]
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= _kit.MESSAGE_BYTES_MAX:
        return encoded
    return encoded[: _kit.MESSAGE_BYTES_MAX].decode("utf-8", "ignore").encode()
