"""TLS connections until the relay has them, seen from trio: certificates, and plain streams.

`Tls` holds the certificates and the pump, a thread that does the TLS handshakes. A `TlsLine` is one
connection: its `stream` is plain, and `Relay.adopt(..., tls=line)` takes the connection over.
"""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import trio

from bridge.dist.tls import PREFIX_BYTES, TlsConfig, TlsError
from bridge.fabric._core import ffi, lib
from bridge.log import Log

log = Log("ringbridge.tls")

EXPIRY_WARNING_S = 14 * 86_400.0
_GRACE_S = 1.0  # the pump's own deadline comes after that of the handshake's reader
_VERIFY = {
    "none": lib.RB_TLS_VERIFY_NONE,
    "server": lib.RB_TLS_VERIFY_SERVER,
    "mutual": lib.RB_TLS_VERIFY_MUTUAL,
    "mutual_host": lib.RB_TLS_VERIFY_MUTUAL,
}
_VERSION = {"1.2": 0x0303, "1.3": 0x0304}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What our own certificate says. Times are seconds since 1970."""

    subject: str
    names: str
    not_before: float
    not_after: float


class Context:
    """What the files said when it was made. Raises TlsError."""

    def __init__(self, config: TlsConfig) -> None:
        texts = {
            name: ffi.NULL if file is None else ffi.new("char[]", os.fsencode(file))
            for name, file in (("cert", config.cert), ("key", config.key), ("ca", config.ca))
        }
        raw = ffi.new("struct rb_tls_config *", texts)
        raw.verify = _VERIFY[config.verify]
        raw.version_min = min(_VERSION[version] for version in config.versions)
        raw.version_max = max(_VERSION[version] for version in config.versions)
        handle, why = ffi.new("struct rb_tls_context **"), ffi.new("struct rb_tls_words *")
        code = lib.rb_tls_context_open(handle, raw, why)
        if code < 0:
            raise TlsError(_text(why) or os.strerror(-code))
        self.handle = ffi.gc(handle[0], lib.rb_tls_context_close)

    def certificate(self) -> Certificate | None:
        raw = ffi.new("struct rb_tls_certificate *")
        if lib.rb_tls_context_certificate(self.handle, raw) < 0:
            return None
        subject, names = (_words(text) for text in (raw.subject, raw.names))
        return Certificate(subject, names, raw.not_before, raw.not_after)

    def names_host(self, host: str) -> bool:
        """Does our own certificate name `host`?"""
        return bool(lib.rb_tls_context_names(self.handle, host.encode()))

    def chain_problem(self) -> str | None:
        """Why our own certificate is not one that our CA signed; None: it is."""
        why = ffi.new("struct rb_tls_words *")
        return _text(why) if lib.rb_tls_context_check(self.handle, why) < 0 else None


class TlsLine:
    """One connection under handshake. `stream` is plain; whoever reads it closes it by `forget`."""

    prefix_bytes = PREFIX_BYTES

    def __init__(self, pump: Any, session: int, fd: int) -> None:
        self._pump = pump
        self._session = session
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))

    def problem(self) -> str | None:
        """What TLS has failed of, in one line; None while it has not."""
        why = ffi.new("struct rb_tls_words *")
        return _text(why) if lib.rb_tls_state(self._pump, self._session, why) < 0 else None

    def is_open(self) -> bool:
        """Is the TLS handshake done?"""
        why = ffi.new("struct rb_tls_words *")
        return bool(lib.rb_tls_state(self._pump, self._session, why) == 1)

    def version(self) -> str:
        """Like "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
        words = ffi.new("struct rb_tls_words *")
        lib.rb_tls_version(self._pump, self._session, words)
        return _text(words)

    def host_problem(self, host: str) -> str | None:
        """Why the certificate that the peer showed does not name `host`; None: it does."""
        why = ffi.new("struct rb_tls_words *")
        code = lib.rb_tls_check_host(self._pump, self._session, host.encode(), why)
        return _text(why) if code < 0 else None

    def take(self, sock: socket.socket) -> Any:
        """End the pumping; `sock` is the stream's own, detached. Raises OSError (and closes it)."""
        handle, fd = ffi.new("struct rb_tls **"), sock.detach()
        code = lib.rb_tls_take(self._pump, self._session, fd, handle)
        if code < 0:
            self.forget()
            os.close(fd)
            raise OSError(-code, "the TLS connection ended before the relay had it")
        return handle[0]

    def forget(self) -> None:
        """The stream is about to be closed: what was written to it is still sent, within a second.

        Does nothing when the relay has the connection.
        """
        lib.rb_tls_forget(self._pump, self._session)


class Tls:
    """The certificates of one node, and the thread of its TLS handshakes. Raises TlsError.

    Files that change are read again at the next connection; those that are up go on. Files that
    cannot be used leave what was there in force, and one line in the log.
    """

    def __init__(self, config: TlsConfig) -> None:
        self.config = config
        self._seen = _stamps(config)
        self.context = Context(config)
        self._warn_of_expiry()
        pump = ffi.new("struct rb_tls_pump **")
        code = lib.rb_tls_pump_open(pump)
        if code < 0:
            raise OSError(-code, f"the thread of TLS handshakes: {os.strerror(-code)}")
        self._pump: Any = pump[0]

    @property
    def checks_hosts_of_callers(self) -> bool:
        """Must who dials us show a certificate that names its node's host?"""
        return self.config.verify == "mutual_host"

    def close(self) -> None:
        """End the thread and every connection that the relay has not. May be repeated."""
        pump, self._pump = self._pump, None
        if pump is not None:
            lib.rb_tls_pump_close(pump)

    def sessions(self) -> int:
        """Connections that hold a descriptor or memory here: under handshake, or just ending."""
        return int(lib.rb_tls_sessions(self._open_pump))

    def accepted(self, sock: socket.socket, *, timeout_s: float) -> TlsLine:
        """Take a socket that dialled us. Raises OSError; the socket is taken either way."""
        return self._begin(sock, ffi.NULL, timeout_s)

    def dialled(self, sock: socket.socket, *, host: str, timeout_s: float) -> TlsLine:
        """Take a socket that we dialled; `host` is the host part of the node's name."""
        return self._begin(sock, ffi.new("char[]", host.encode()), timeout_s)

    def reload(self) -> bool:
        """Read the files now; False (and a line in the log) when they cannot be used."""
        self._seen = _stamps(self.config)
        try:
            self.context = Context(self.config)
        except TlsError as error:
            log.error("certificates not reloaded, the old ones stay in force", rule=str(error))
            return False
        self._tell_reloaded()
        return True

    def _tell_reloaded(self) -> None:
        own = self.context.certificate()
        log.info("certificates reloaded", subject=own.subject if own else None)
        self._warn_of_expiry()

    def prepare(self, config: TlsConfig) -> Context:
        """Read the files of other settings, without using them yet. Raises TlsError."""
        return Context(config)

    def use(self, config: TlsConfig, context: Context) -> None:
        """From the next connection on go by `config`, whose files `prepare` has read."""
        self.config, self.context, self._seen = config, context, _stamps(config)
        self._tell_reloaded()

    def _begin(self, sock: socket.socket, host: Any, timeout_s: float) -> TlsLine:
        if _stamps(self.config) != self._seen:
            self.reload()
        ms = (
            int(min((timeout_s + _GRACE_S) * 1000, 2**32 - 1))
            if timeout_s < math.inf
            else 2**32 - 1
        )
        end, fd = ffi.new("int *"), sock.detach()
        session = lib.rb_tls_begin(self._open_pump, self.context.handle, fd, host, ms, end)
        if session < 0:
            raise OSError(-session, f"a TLS connection: {os.strerror(-session)}")
        return TlsLine(self._open_pump, session, end[0])

    @property
    def _open_pump(self) -> Any:
        if self._pump is None:
            raise trio.ClosedResourceError("the thread of TLS handshakes has been closed")
        return self._pump

    def _warn_of_expiry(self) -> None:
        own = self.context.certificate()
        if own and own.not_after - time.time() < EXPIRY_WARNING_S:
            until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(own.not_after))
            log.warning("our certificate must be renewed", subject=own.subject, valid_until=until)


def _stamps(config: TlsConfig) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file does, also when it is replaced by a rename or behind a link."""

    def stamp(file: str) -> tuple[int, int, int] | None:
        try:
            found = os.stat(file)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    return tuple(stamp(file) for file in config.files)


def _words(text: Any) -> str:
    return bytes(ffi.string(text)).decode("utf-8", "replace")


def _text(words: Any) -> str:
    return _words(words.text)
