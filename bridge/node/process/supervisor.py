"""Supervisors: processes that start others, start them again when they end, and stop them in order.

As supervisor.erl, whose requests they answer (`Supervisor.which_children/1` and the others): a tree
of Python processes is looked at and handled from iex. What OTP has beside is not here:
`simple_one_for_one`, significant children, and starting children that a BEAM specifies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import trio

from bridge.etf import Atom, Pid, brief
from bridge.log import Log
from bridge.node.process.child_spec import ChildSpec, is_orderly
from bridge.node.process.ends import Stop, exception_reason, unwrapped
from bridge.node.process.patterns import ANY
from bridge.node.process.server import GenServer
from bridge.node.process.task import ProcessTask
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Request, Sender

Term = Any
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
log = Log("ringbridge.node")

UNDEFINED, RESTARTING = Atom("undefined"), Atom("restarting")
NOT_FOUND, RUNNING = Atom("not_found"), Atom("running")
_CHANGES = frozenset({"start_child", "terminate_child", "restart_child", "delete_child"})


@dataclass(eq=False, slots=True)
class _Child:
    spec: ChildSpec
    pid: Pid | None = None
    task: ProcessTask | None = None
    restarting: bool = False

    @property
    def shown(self) -> Term:
        return RESTARTING if self.restarting else self.pid or UNDEFINED


class Supervisor(GenServer):
    """Children start in order and stop in reverse order. A child that ends is started again as its
    spec says: alone, with all others, or with those after it. More than `max_restarts` in
    `max_seconds` end the supervisor itself with `shutdown`.

    Derive and set `children`, or give them. `init` raises what the first child that does not start
    raises; the others are stopped then.
    """

    supervises: ClassVar[bool] = True
    terminate_grace_s: ClassVar[float] = float("inf")  # its children's own bounds add up

    children: Iterable[ChildSpec] = ()
    strategy: Strategy = "one_for_one"
    max_restarts: int = 3
    max_seconds: float = 5.0

    def __init__(
        self,
        children: Iterable[ChildSpec] | None = None,
        *,
        strategy: Strategy | None = None,
        max_restarts: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        specs = list(self.children if children is None else children)
        self.strategy = strategy or self.strategy
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"strategy is one of {get_args(Strategy)}, not {self.strategy!r}")
        self.max_restarts = self.max_restarts if max_restarts is None else max_restarts
        self.max_seconds = self.max_seconds if max_seconds is None else max_seconds
        if self.max_restarts < 0 or self.max_seconds <= 0:
            raise ValueError("max_restarts is no negative number, max_seconds a positive one")
        self._children = [_Child(spec) for spec in specs]
        _no_id_twice(specs)
        self._restarts: deque[float] = deque()
        self._requests: dict[int, tuple[ChildSpec, trio.Event, list[Any]]] = {}
        self._last_request = 0

    # -- to use ------------------------------------------------------------------------------------

    async def start_child(self, spec: ChildSpec) -> Pid:
        """Add a child behind the others and start it. From any task of this node.

        Raises what its start raises (it is not added then), ValueError when its id is taken.
        Cancelled: it may have been added.
        """
        self._last_request += 1
        done, outcome = trio.Event(), list[Any]()
        self._requests[self._last_request] = (spec, done, outcome)
        self.node.router.send(self.pid, self.pid, (Atom("$start_child"), self._last_request))
        await done.wait()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        pid: Pid = outcome[0]
        return pid

    def which_children(self) -> list[tuple[Term, Pid | None]]:
        """Ids and pids, in the order of their start; None for one that does not run."""
        return [(child.spec.id, child.pid) for child in self._children]

    # -- GenServer ---------------------------------------------------------------------------------

    async def init(self) -> None:
        try:
            for child in self._children:
                await self._start(child)
        except Exception:
            await self._stop_from(0)
            raise

    async def handle_call(self, request: Term, sender: Sender) -> Term:
        match request:
            case Atom("which_children"):
                return [
                    (child.spec.id, child.shown, child.spec.type, child.spec.modules)
                    for child in reversed(self._children)  # the last started first, as OTP
                ]
            case Atom("count_children"):
                return self._counts()
            case (Atom("get_childspec"), id_):
                child = self._find(id_)
                return (gen.OK, child.spec.as_map()) if child else (gen.ERROR, NOT_FOUND)
            case (Atom("terminate_child"), id_):
                return await self._terminate_child(id_)
            case (Atom("restart_child"), id_):
                return await self._restart_child(id_)
            case (Atom("delete_child"), id_):
                return self._delete_child(id_)
            case (Atom("start_child"), _):
                why = b"a Python supervisor starts Python children: Supervisor.start_child there"
                return (gen.ERROR, (Atom("not_supported"), why))
            case _:
                return await super().handle_call(request, sender)

    async def handle_info(self, message: Term) -> None:
        match message:
            case (Atom("EXIT"), Pid() as pid, reason):
                await self._ended(pid, reason)
            case (Atom("$start_child"), number) if number in self._requests:
                await self._add(*self._requests.pop(number))
            case _:
                await super().handle_info(message)

    async def terminate(self, reason: Term) -> None:
        await self._stop_from(0)

    def get_state(self) -> Term:
        return {
            Atom("strategy"): Atom(self.strategy),
            Atom("children"): [(child.spec.id, child.shown) for child in self._children],
            Atom("max_restarts"): self.max_restarts,
            Atom("max_seconds"): self.max_seconds,
            Atom("restarts"): len(self._restarts),
        }

    def changes(self, request: Request) -> str | None:
        match request:
            case Call(_, (Atom(name), _)) if name in _CHANGES:
                return f"supervisor:{name}"
            case _:
                return None

    # -- requests ----------------------------------------------------------------------------------

    def _counts(self) -> Term:
        supervisors = sum(child.spec.start.is_supervisor for child in self._children)
        return [
            (Atom("specs"), len(self._children)),
            (Atom("active"), sum(child.pid is not None for child in self._children)),
            (Atom("supervisors"), supervisors),
            (Atom("workers"), len(self._children) - supervisors),
        ]

    async def _terminate_child(self, id_: Term) -> Term:
        child = self._find(id_)
        if child is None:
            return (gen.ERROR, NOT_FOUND)
        await self._stop(child)
        if child.spec.restart == "temporary":
            self._children.remove(child)
        return gen.OK

    async def _restart_child(self, id_: Term) -> Term:
        child = self._find(id_)
        if child is None:
            return (gen.ERROR, NOT_FOUND)
        if child.pid is not None:
            return (gen.ERROR, RUNNING)
        try:
            return (gen.OK, await self._start(child))
        except Exception as error:
            return (gen.ERROR, _start_reason(error))

    def _delete_child(self, id_: Term) -> Term:
        child = self._find(id_)
        if child is None:
            return (gen.ERROR, NOT_FOUND)
        if child.pid is not None:
            return (gen.ERROR, RUNNING)
        self._children.remove(child)
        return gen.OK

    async def _add(self, spec: ChildSpec, done: trio.Event, outcome: list[Any]) -> None:
        try:
            _no_id_twice([*(child.spec for child in self._children), spec])
            child = _Child(spec)
            outcome.append(await self._start(child))
            self._children.append(child)
        except Exception as error:
            outcome.append(error)
        finally:
            done.set()

    # -- lives -------------------------------------------------------------------------------------

    async def _start(self, child: _Child) -> Pid:
        pid = await child.spec.start(self.node, self.pid)
        process = self.node.router.table.find(pid)
        child.pid, child.restarting = pid, False
        # One that has ended already has left its EXIT in the mailbox.
        task = process.inbox if process is not None else None
        child.task = task if isinstance(task, ProcessTask) else None
        return pid

    async def _ended(self, pid: Pid, reason: Term) -> None:
        child = next((child for child in self._children if child.pid == pid), None)
        if child is None:
            return  # a link of somebody else's; a supervisor does not follow it
        if self.node.router.table.find(pid) is not None:
            return  # somebody says so, but it lives
        child.pid = None
        restarted = child.spec.is_restarted_after(reason)
        if restarted or not is_orderly(reason):
            log.warning(
                "child ended",
                supervisor=self.module,
                child=str(child.spec.id),
                reason=brief(reason),
                restarted=restarted,
            )
        await self._wait_ended(child)
        if restarted:
            await self._restart(child)
        elif child.spec.restart == "temporary":
            self._children.remove(child)

    async def _restart(self, child: _Child) -> None:
        """Start again what the strategy says, until it runs or there were too many restarts."""
        while True:
            self._count_restart()
            index = self._children.index(child)
            first = {"one_for_all": 0}.get(self.strategy, index)
            last = index if self.strategy == "one_for_one" else len(self._children) - 1
            await self._stop_from(first, last)
            self._forget_temporary(first, last)
            failed = await self._start_again(first, last)
            if failed is None:
                return
            child = failed

    async def _start_again(self, first: int, last: int) -> _Child | None:
        """Start these children; the one that did not start, if there is one."""
        for child in self._children[first : last + 1]:
            if child.pid is None:
                child.restarting = True
                try:
                    await self._start(child)
                except Exception as error:
                    log.warning(
                        "child did not start",
                        supervisor=self.module,
                        child=str(child.spec.id),
                        reason=brief(_start_reason(error)),
                    )
                    return child
        return None

    def _count_restart(self) -> None:
        """Raises Stop when this one is too many."""
        now = trio.current_time()
        self._restarts.append(now)
        while self._restarts[0] < now - self.max_seconds:
            self._restarts.popleft()
        if len(self._restarts) > self.max_restarts:
            log.error(
                "too many restarts, the supervisor ends",
                supervisor=self.module,
                max_restarts=self.max_restarts,
                max_seconds=self.max_seconds,
            )
            raise Stop(gen.SHUTDOWN)

    def _forget_temporary(self, first: int, last: int) -> None:
        """What was stopped for another's sake and is never started again."""
        for child in self._children[first : last + 1]:
            if child.spec.restart == "temporary" and child.pid is None:
                self._children.remove(child)

    async def _stop_from(self, first: int, last: int | None = None) -> None:
        stop = len(self._children) if last is None else last + 1
        for child in reversed(self._children[first:stop]):
            await self._stop(child)

    async def _stop(self, child: _Child) -> None:
        """End a child as its spec says, and wait for it; nothing of it is left in the mailbox."""
        pid, child.pid = child.pid, None
        child.restarting = False
        if pid is None:
            return
        self.unlink(pid)
        shutdown = child.spec.shutdown
        if shutdown != "brutal_kill":
            self._exit(pid, gen.SHUTDOWN)
            bound = float("inf") if isinstance(shutdown, str) or shutdown is None else shutdown
            with trio.move_on_after(bound):
                await self._wait_ended(child)
        if self.node.router.table.find(pid) is not None:
            self._exit(pid, gen.KILL)
        await self._wait_ended(child)
        self.forget((gen.EXIT, pid, ANY))

    def _exit(self, pid: Pid, reason: Term) -> None:
        self.node.router.exit(self.pid, pid, reason)

    async def _wait_ended(self, child: _Child) -> None:
        """Until its task has ended too, so that what it holds is free for the next life."""
        if child.task is not None:
            await child.task.ended.wait()

    def _find(self, id_: Term) -> _Child | None:
        return next((child for child in self._children if child.spec.id == id_), None)


def _no_id_twice(specs: list[ChildSpec]) -> None:
    ids = [spec.id for spec in specs]
    if twice := [id_ for index, id_ in enumerate(ids) if id_ in ids[:index]]:
        raise ValueError(f"two children have the id {twice[0]}")


def _start_reason(error: Exception) -> Term:
    error = unwrapped(error)
    return error.reason if isinstance(error, Stop) else exception_reason(error)
