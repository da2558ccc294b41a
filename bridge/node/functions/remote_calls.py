"""Running functions and processes on other nodes: the part of `Node` that does it.

Everything here is a spawn request (dist-protocol.md, 4.5): `erpc` and `rpc` are spawns with a
monitor, a cast is one without. No answer is ever matched by anything but a reference of its call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from bridge.dist import control as c
from bridge.etf import Atom, Pid
from bridge.node.calls import Monitor, ProcessDown
from bridge.node.cluster.dialling import NoConnection
from bridge.node.exports import function_atom, module_atom
from bridge.node.functions.outcomes import ERPC, EXECUTE_CAST
from bridge.node.functions.remote_call import MONITOR, RemoteCall
from bridge.node.functions.remote_errors import (
    BadRpc,
    RemoteError,
    RemoteException,
    RemoteExit,
    RemoteThrow,
    SpawnRefused,
)
from bridge.node.functions.task_link import TaskLink
from bridge.node.signals import gen
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any
Name = str | Atom

RPC_TIMEOUT_S = 5.0  # as node.call; `rpc:call` of OTP waits for ever: give math.inf for that
LINK = Atom("link")
NODEDOWN = Atom("nodedown")


@dataclass(frozen=True, slots=True)
class Returned:
    """What the function returned on `node`."""

    node: str
    value: Term


@dataclass(frozen=True, slots=True)
class Failed:
    """Why `node` gave no value: what `erpc` raises, or trio.TooSlowError."""

    node: str
    error: Exception


class RemoteCalls:
    """Mixed into `Node`. Functions are named as in exports: "lists" and "reverse", "MyApp.Math"."""

    name: str
    router: Router

    @abstractmethod
    def caller(self) -> Process:
        """The process that Python tasks call from."""

    @abstractmethod
    def group_leader(self) -> Pid:
        """Where the output of what we spawn goes."""

    @abstractmethod
    async def connect_if_other(self, peer: str) -> None:
        """Connect with `peer` if it is not this node. Raises NoConnection, ValueError."""

    @abstractmethod
    def takes_spawns(self, peer: str) -> bool:
        """Whether `peer`, with whom we are connected, knows spawn requests."""

    async def erpc(
        self,
        peer: str,
        module: Name,
        function: Name,
        args: Sequence[Term] = (),
        *,
        timeout: float = RPC_TIMEOUT_S,  # noqa: ASYNC109  # the word of erpc:call
    ) -> Term:
        """`erpc:call`: run a function on `peer` and return its value. `timeout` in seconds.

        Raises RemoteError (with the stack), RemoteExit, RemoteThrow for what the function raised;
        ProcessDown when its process was killed or the connection was lost (`noconnection`);
        SpawnRefused, NoConnection, trio.TooSlowError, EncodeError. After any of these, and after a
        cancel, its answer reaches nobody; on a BEAM the function runs to its end.
        """
        with trio.move_on_after(timeout):
            call = await self.send_request(peer, module, function, args)
            try:
                return await call.result()
            finally:
                call.forget()
        named = f"{module_atom(module).name}:{function_atom(function).name}/{len(args)}"
        raise trio.TooSlowError(f"no answer from {named} on {peer} in {timeout:g} s")

    async def send_request(
        self, peer: str, module: Name, function: Name, args: Sequence[Term] = ()
    ) -> RemoteCall:
        """`erpc:send_request`: begin a call; `await call.result()` later, or `call.forget()`.

        Raises NoConnection, EncodeError. Cancelled: nothing was sent.
        """
        mfa = (module_atom(module), function_atom(function), list(args))
        await self._connect_to_spawn(peer)
        call = RemoteCall(self.router, self.router.spawn_requests, peer, mfa)
        call.start(self.caller(), self.group_leader())
        return call

    async def rpc(
        self,
        peer: str,
        module: Name,
        function: Name,
        args: Sequence[Term] = (),
        *,
        timeout: float = RPC_TIMEOUT_S,  # noqa: ASYNC109  # the word of rpc:call
    ) -> Term:
        """`rpc:call`: as `erpc`, but what is thrown is returned, and the rest raises BadRpc.

        `BadRpc.reason` is the Reason of `{badrpc, Reason}`: `nodedown`, `notsup`, `{'EXIT', _}`.
        A timeout is trio.TooSlowError.
        """
        named = f"{module_atom(module).name}:{function_atom(function).name}/{len(args)}"
        try:
            value = await self.erpc(peer, module, function, args, timeout=timeout)
        except RemoteThrow as thrown:
            value = thrown.value
        except (RemoteException, ProcessDown, SpawnRefused, NoConnection) as error:
            raise BadRpc(peer, named, _badrpc_reason(error)) from error
        match value:
            case (Atom("EXIT"), _):  # a caught exit is told from a value by nobody (rpc.erl)
                raise BadRpc(peer, named, value)
            case _:
                return value

    async def cast_rpc(
        self, peer: str, module: Name, function: Name, args: Sequence[Term] = ()
    ) -> None:
        """`erpc:cast`: run a function on `peer`; no answer and no error comes back.

        Raises NoConnection, EncodeError.
        """
        mfa = (module_atom(module), function_atom(function), list(args))
        await self._connect_to_spawn(peer)
        caller = self.caller()
        request = c.SpawnRequest(
            self.router.ids.next_ref(),
            caller.pid,
            self.group_leader(),
            (ERPC, EXECUTE_CAST, 3),
            [],
        )
        self.router.spawn_requests.send(request, list(mfa), owner=caller, peer=peer)

    async def multicall(
        self,
        peers: Iterable[str],
        module: Name,
        function: Name,
        args: Sequence[Term] = (),
        *,
        timeout: float = RPC_TIMEOUT_S,  # noqa: ASYNC109  # the word of erpc:multicall
    ) -> list[Returned | Failed]:
        """`erpc:multicall`: run it on all `peers` at once; an outcome for each, in their order."""
        nodes = list(peers)
        results: list[Returned | Failed | None] = [None] * len(nodes)

        async def ask(number: int, peer: str) -> None:
            try:
                value = await self.erpc(peer, module, function, args, timeout=timeout)
                results[number] = Returned(peer, value)
            except (
                RemoteException,
                ProcessDown,
                SpawnRefused,
                NoConnection,
                trio.TooSlowError,
            ) as error:
                results[number] = Failed(peer, error)

        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(nodes):
                nursery.start_soon(ask, number, peer)
        return [result for result in results if result is not None]

    async def spawn_request(
        self,
        peer: str,
        module: Name,
        function: Name,
        args: Sequence[Term] = (),
        *,
        link: Pid | None = None,
        options: Sequence[Term] = (),
    ) -> Pid:
        """`spawn(Node, M, F, A)`: start a process on `peer`; its pid.

        `link`: a process of this node that it is linked with. `options`: more of spawn_opt's, such
        as `(Atom("priority"), Atom("high"))`. Raises SpawnRefused, NoConnection, ProcessDown
        (`noconnection`: lost before the answer), EncodeError. Cancelled: it may run, unlinked.
        """
        pid, _ = await self._spawn(peer, module, function, args, link, options, monitor=False)
        return pid

    async def spawn_monitor(
        self,
        peer: str,
        module: Name,
        function: Name,
        args: Sequence[Term] = (),
        *,
        link: Pid | None = None,
        options: Sequence[Term] = (),
    ) -> tuple[Pid, Monitor]:
        """The same with a monitor that holds from its first moment on."""
        return await self._spawn(peer, module, function, args, link, options, monitor=True)

    @asynccontextmanager
    async def link(self, pid: Pid) -> AsyncIterator[None]:
        """Be linked with `pid` for as long as a block runs.

        If `pid` ends for any reason but `normal`, the block is cancelled and ProcessDown is raised
        with the reason. If the block raises, `pid` gets the exit signal `{exception, Type, Text}`,
        if it is cancelled `shutdown`; leaving it in good order unlinks. `noproc`, `noconnection`
        come as ends of `pid`.
        """
        linked = TaskLink(self.router, pid)
        with suppress(NoConnection):  # the link says so
            await self.connect_if_other(pid.node.name)
        async with linked.hold():
            yield

    async def _connect_to_spawn(self, peer: str) -> None:
        await self.connect_if_other(peer)
        if not self.takes_spawns(peer):
            raise SpawnRefused(peer, gen.NOTSUP)

    async def _spawn(
        self,
        peer: str,
        module: Name,
        function: Name,
        args: Sequence[Term],
        link: Pid | None,
        options: Sequence[Term],
        *,
        monitor: bool,
    ) -> tuple[Pid, Monitor]:
        arguments = list(args)
        mfa = (module_atom(module), function_atom(function), len(arguments))
        owner = self.caller() if link is None else self.router.table.find(link)
        if owner is None:
            raise ValueError(f"{link} is no living process of {self.name}")
        await self._connect_to_spawn(peer)
        asked = [*([] if link is None else [LINK]), *([MONITOR] if monitor else []), *options]
        held = Monitor(self.router, None, (mfa[0], Atom(peer)))
        answered = trio.Event()
        result: Pid | Atom = gen.NOCONNECTION

        def take(answer: Pid | Atom) -> None:
            nonlocal result
            result = answer
            if isinstance(answer, Pid):
                held.target = answer
            answered.set()

        request = c.SpawnRequest(held.ref, owner.pid, self.group_leader(), mfa, asked)
        requests = self.router.spawn_requests
        requests.send(request, arguments, owner=owner, peer=peer, answered=take, down=held.take)
        try:
            await answered.wait()
        except trio.Cancelled:
            requests.give_up(held.ref, owner, result)
            raise
        if isinstance(result, Pid):
            return result, held
        if result == gen.NOCONNECTION:
            raise ProcessDown(held.target, result)
        raise SpawnRefused(peer, result)


def _badrpc_reason(error: Exception) -> Term:
    match error:
        case RemoteError(reason=(Atom("erpc"), reason)):
            return (gen.EXIT, reason)
        case RemoteError(reason=reason, stack=stack):
            return (gen.EXIT, (reason, stack))
        case NoConnection() | ProcessDown(reason=Atom("noconnection")):
            return NODEDOWN
        case SpawnRefused(reason=Atom("notsup") as reason):
            return reason
        case RemoteExit(reason=reason) | ProcessDown(reason=reason) | SpawnRefused(reason=reason):
            return (gen.EXIT, reason)
        case _:
            raise AssertionError(error)
