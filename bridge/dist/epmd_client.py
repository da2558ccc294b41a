"""The trio shell around `epmd`: register for as long as we live, look up, list; where there is no
epmd, start one or be it.

ERL_EPMD_PORT says where epmd listens, as for every OTP node; ERL_EPMD_ADDRESS says where an epmd
that we start listens, separated by commas (loopback is always added). A real epmd without it listens
everywhere, ours on the loopback.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import trio

from bridge.log import Log
from bridge.dist import epmd
from bridge.dist.epmd_daemon import EpmdDaemon
from bridge.dist.errors import EpmdError, NameTaken, RemoteProtocolError
from bridge.dist.nursery import block_nursery

log = Log("ringbridge.epmd")
T = TypeVar("T")
IfAbsent = Literal["start", "own", "fail"]  # the installed program; our own epmd; an error

ANSWER_TIMEOUT_S = 10.0  # erl_epmd.erl waits as long
RETRY_S = 2.0  # erl_epmd.erl: a lost registration is tried again every 2 s, for ever
_START_TIMEOUT_S = 5.0
_START_POLL_S = 0.05


@dataclass(frozen=True)
class EpmdClient:
    """Where epmd is and how to talk to it. `host` is for registration; look-ups ask the peer's
    host.
    """

    port: int = epmd.DEFAULT_PORT
    host: str = "127.0.0.1"
    if_absent: IfAbsent = "start"
    retry_s: float = RETRY_S
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] | None = None, *, if_absent: IfAbsent = "start"
    ) -> EpmdClient:
        """As ERL_EPMD_PORT says. Raises EpmdError if that is not a port."""
        env = dict(os.environ if environ is None else environ)
        text = env.get("ERL_EPMD_PORT") or str(epmd.DEFAULT_PORT)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise EpmdError(f"ERL_EPMD_PORT={text!r} is not a TCP port; unset it or give 1..65535")
        return cls(port=int(text), environ=env, if_absent=if_absent)

    async def lookup(self, alive: str, host: str) -> int | None:
        """The TCP port where `alive` listens on `host`, None if epmd there does not know it.

        Raises EpmdError when epmd cannot be reached, RemoteProtocolError when it answers nonsense.
        A cancelled look-up leaves no effect.
        """
        answer = await self._ask(host, epmd.port2_request(alive), epmd.AnswerReader.port2)
        return answer.port if isinstance(answer, epmd.NodeEntry) else None

    async def names(self, host: str | None = None) -> dict[str, int]:
        """All names registered at `host`, with their ports. Raises as `lookup`."""
        request = epmd.names_request()
        return (await self._ask(host or self.host, request, epmd.AnswerReader.names)).ports

    @asynccontextmanager
    async def registration(self, alive: str, port: int) -> AsyncIterator[int]:
        """Hold the name `alive` for a listener on `port` while the block runs; yields our creation.

        Starts one task, ended with the block: it keeps the socket open and never writes to it (any
        byte would unregister us), and registers again every `retry_s` when epmd goes away. As in
        OTP the creation of the first registration stays ours for life. With `if_absent="own"` our
        own epmd runs in a second task from the moment that there is no other.
        Raises NameTaken, EpmdError.
        """
        async with block_nursery() as nursery:
            stream, creation = await self._register_anyhow(alive, port, nursery)
            nursery.start_soon(self._keep, stream, alive, port, nursery)
            yield creation

    async def _keep(
        self, stream: trio.SocketStream, alive: str, port: int, nursery: trio.Nursery
    ) -> None:
        while True:
            since = trio.current_time()
            try:
                async with stream:
                    while await stream.receive_some():
                        pass  # epmd never speaks on it; whatever comes is not ours to answer
            except trio.BrokenResourceError:
                pass
            log.warning("epmd registration lost, registering again", name=alive, port=self.port)
            if trio.current_time() - since < self.retry_s:
                await trio.sleep(self.retry_s)  # one that takes us and closes would keep us busy
            stream = await self._register_again(alive, port, nursery)
            log.info("registered at epmd again", name=alive, port=self.port)

    async def _register_again(
        self, alive: str, port: int, nursery: trio.Nursery
    ) -> trio.SocketStream:
        told = ""
        while True:
            try:
                try:
                    stream, _ = await self._register(alive, port)
                except OSError:
                    if self.if_absent != "own":
                        raise
                    await self._try_to_be_epmd(nursery)
                    stream, _ = await self._register(alive, port)
            except (EpmdError, RemoteProtocolError, OSError) as error:
                if isinstance(error, EpmdError) and str(error) != told:  # one line, not every 2 s
                    told = str(error)
                    log.warning("epmd does not take us back yet", name=alive, why=told)
                await trio.sleep(self.retry_s)
            else:
                return stream

    async def _register_anyhow(
        self, alive: str, port: int, nursery: trio.Nursery
    ) -> tuple[trio.SocketStream, int]:
        try:
            return await self._register(alive, port)
        except OSError as error:
            if self.if_absent == "fail":
                raise self._absent(self.host) from error
        if self.if_absent == "start":
            await self._start_epmd()
        with trio.move_on_after(_START_TIMEOUT_S):
            while True:
                if self.if_absent == "own":
                    await self._try_to_be_epmd(nursery)
                try:
                    return await self._register(alive, port)
                except OSError:
                    await trio.sleep(_START_POLL_S)  # the daemon has forked but does not listen yet
        raise self._absent(self.host)

    async def _try_to_be_epmd(self, nursery: trio.Nursery) -> None:
        """Listen where epmd should. When somebody else was faster, that one is epmd."""
        text = self.environ.get("ERL_EPMD_ADDRESS") or ""
        addresses = tuple(part.strip() for part in text.split(",") if part.strip())
        try:
            daemon = await EpmdDaemon.listen(self.port, addresses)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EpmdError(
                    f"our own epmd cannot listen on port {self.port} of "
                    f"{', '.join(('the loopback', *addresses))}: {os.strerror(error.errno or 0)}"
                ) from error
            return
        log.info("no epmd, being it", port=self.port, addresses=addresses)
        nursery.start_soon(daemon.run)

    async def _register(self, alive: str, port: int) -> tuple[trio.SocketStream, int]:
        stream = await trio.open_tcp_stream(self.host, self.port)
        try:
            request = epmd.alive2_request(alive, port)
            answer: epmd.Registered | epmd.Refused = await self._exchange(
                stream, request, epmd.AnswerReader.alive2
            )
            if isinstance(answer, epmd.Refused):
                raise NameTaken(await self._why_refused(alive, answer.result))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream, answer.creation

    async def _why_refused(self, alive: str, result: int) -> str:
        where = f"epmd at {self.host}:{self.port}"
        try:
            taken_by = (await self.names()).get(alive)
        except (EpmdError, RemoteProtocolError):
            taken_by = None
        if taken_by is None:
            return f"{where} refused the name {alive!r} (result {result})"
        return (
            f"the name {alive!r} is already taken at {where} by a node that listens on port "
            f"{taken_by}; stop that node or choose another name"
        )

    async def _start_epmd(self) -> None:
        program = shutil.which("epmd", path=self.environ.get("PATH"))
        if program is None:
            raise self._absent(self.host)
        env = {**self.environ, "ERL_EPMD_PORT": str(self.port)}
        log.info("no epmd, starting one", program=program, port=self.port)
        try:
            await trio.run_process([program, "-daemon"], env=env, stdin=None)
        except Exception as error:
            raise EpmdError(f"{program} -daemon failed: {error}") from error

    async def _ask(
        self, host: str, request: bytes, read: Callable[[epmd.AnswerReader], T | None]
    ) -> T:
        try:
            stream = await trio.open_tcp_stream(host, self.port)
        except OSError as error:
            raise self._absent(host) from error
        async with stream:
            return await self._exchange(stream, request, read)

    async def _exchange(
        self,
        stream: trio.SocketStream,
        request: bytes,
        read: Callable[[epmd.AnswerReader], T | None],
    ) -> T:
        reader = epmd.AnswerReader()
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                await stream.send_all(request)
                while (answer := read(reader)) is None:
                    reader.receive_data(await stream.receive_some())
        except trio.TooSlowError as error:
            raise EpmdError(f"epmd did not answer within {ANSWER_TIMEOUT_S:g} s") from error
        except trio.BrokenResourceError as error:
            raise EpmdError(f"epmd broke the connection: {error.__cause__ or error}") from error
        return answer

    def _absent(self, host: str) -> EpmdError:
        return EpmdError(
            f"no epmd at {host}:{self.port}: start one with `epmd -daemon` (Debian package "
            "erlang-base), let the node be it (epmd = \"own\" in the settings, in a program "
            "epmd=EpmdClient.from_environ(if_absent=\"own\")), or set ERL_EPMD_PORT to where yours "
            "listens"
        )


def random_creation() -> int:
    """A creation for a node that registers nowhere: 4..2**32-1, as net_kernel.erl chooses it."""
    return 4 + secrets.randbelow(2**32 - 4)
