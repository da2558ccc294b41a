"""The name that remote workers say hello to, and who of them is let in: docs/remote-workers.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import msgspec
import structlog

from bridge.config import Config
from bridge.dist.names import matcher
from bridge.etf import Atom, Pid, Reference
from bridge.fabric.relay import LinkConfig
from bridge.node.log_limit import LogLimit
from bridge.node.process.direct import DirectProcess
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Info
from bridge.node.signals.router import Router
from bridge.ops.answers import Term, atom_keys, bad_request
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.remote import messages
from bridge.workers.remote.desk import Registration, Road, answer_bytes_max
from bridge.workers.remote.driver import Links, RemoteDriver
from bridge.workers.remote.linked import Offers
from bridge.workers.remote.messages import Hello, Refusal
from bridge.workers.remote.slot import LINK_SLOTS_MAX
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State, Worker

NAMES = ("Elixir.Ringbridge.RemoteWorkers", "remote_workers")
REGISTRATIONS_MAX = 256
_ENDED = (State.FINISHED, State.GIVEN_UP, State.DRAINED, State.STOPPED)


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """Where a slot's work is done."""

    node: str
    pid: Pid
    slot: int

    def describe(self) -> dict[Term, Term]:
        return atom_keys({"node": Atom(self.node), "pid": self.pid, "slot": self.slot})


class RemoteWorkers:
    """All registrations. `current`: the settings of now; `offers`: who gives links out, if any."""

    def __init__(
        self,
        router: Router,
        relay: Links,
        supervisor: PortSupervisor,
        road: Road,
        current: Callable[[], Config],
        offers: Offers | None = None,
    ) -> None:
        self._router = router
        self._relay = relay
        self._supervisor = supervisor
        self._road = road
        self._current = current
        self._offers = offers
        self._stopping = False
        self._lines = LogLimit()
        self._log = structlog.get_logger("ringbridge.remote")
        self.registrations: list[Registration] = []

    def start(self) -> None:
        """Answer under the names. Raises ValueError when one is taken."""
        _Service(self._router, self.hear, self._ended).start(tuple(map(Atom, NAMES)))

    def stop(self) -> None:
        """From now on an end of the process is the last one."""
        self._stopping = True

    def _ended(self) -> None:
        if not self._stopping:
            self.start()

    def review(self) -> None:
        """The settings have changed: who is not let in any more is drained."""
        for registration in tuple(self.registrations):
            try:
                self._check_node(registration.hello.role, registration.node)
            except Refusal as refusal:
                registration.unwanted = str(refusal)
                for worker in registration.workers:
                    worker.want(Wanted.DRAIN)
            else:
                registration.review_links()

    # ---- a hello

    def hear(self, message: Term) -> None:
        """A message to the name: a hello, or nothing that is answered."""
        origin = self._router.origin
        whom = messages.answerable(message) if messages.is_ours(message) else None
        if whom is None or whom[0].node.name != origin:
            self._note(origin, "stray", "what came is no hello of a process of that node")
            return
        try:
            # Who may not come in is told so before anything else of its hello is read.
            plan = self._plan_for(messages.role_of(message), origin)
            hello = messages.read_hello(message)
            self._check_room(hello)
            self._let_in(hello, plan)
        except Refusal as refusal:
            self._refuse(whom, refusal)
        except Exception:  # a bug of ours; it costs this hello, and nobody else anything
            if self._lines.due((origin, "bug")) is not None:
                self._log.exception("a remote worker's hello was not taken", node=origin)
            self._refuse(whom, Refusal("bad_hello", "the bridge failed at it; its log has more"))

    def _refuse(self, whom: tuple[Pid, Reference], refusal: Refusal) -> None:
        self._note(whom[0].node.name, refusal.reason, str(refusal))
        service = self._router.table.find(Atom(NAMES[0]))
        if service is not None:
            self._router.send(service.pid, whom[0], messages.refused(whom[1], refusal))

    def _note(self, node: str, kind: str, why: str) -> None:
        """A line, now and then: `why` has the worker's own words in it, so it is no key."""
        if (held_back := self._lines.due((node, kind))) is not None:
            self._log.warning("a remote worker is refused", node=node, why=why, held_back=held_back)

    def _plan_for(self, role: str, node: str) -> RolePlan:
        """The role that a worker of the node may join. Raises Refusal."""
        if self._supervisor.stopping or self._stopping:
            raise Refusal("draining", "the bridge stops", again=True)
        plan = self._supervisor.role(role)
        if plan is None:
            raise Refusal("no_role", f"there is no role {role[:80]}", again=True)
        self._check_node(role, node)
        return plan

    def _check_room(self, hello: Hello) -> None:
        """Raises Refusal."""
        remote = self._current().roles[hello.role].remote
        if hello.slots > remote.slots_max:
            why = f"a worker of {hello.role} has at most {remote.slots_max} slots (slots_max)"
            raise Refusal("full", why)
        taken = sum(len(r.workers) for r in self.registrations if r.hello.role == hello.role)
        if taken + hello.slots > remote.workers_max:
            why = f"{hello.role} has {taken} of {remote.workers_max} remote slots (workers_max)"
            raise Refusal("full", why, again=True)
        if len(self.registrations) >= REGISTRATIONS_MAX:
            raise Refusal("full", f"{REGISTRATIONS_MAX} remote workers are the most", again=True)

    def _check_node(self, role: str, node: str) -> None:
        config = self._current()
        settings = config.roles.get(role)
        if settings is None or not _matcher(settings.remote.nodes)(node):
            why = (
                f"no worker of {node} may serve {role}: "
                f"name the node in [roles.{role}.remote] nodes in {config.file.name}"
            )
            raise Refusal("unauthorized", why, again=True)

    def _let_in(self, hello: Hello, plan: RolePlan) -> None:
        config = self._current()
        link = LinkConfig(**msgspec.structs.asdict(config.link))
        link = replace(link, slots=min(link.slots, LINK_SLOTS_MAX))
        role = plan.config
        registration = Registration(
            self._router,
            hello,
            road=self._road,
            answer_bytes_max=answer_bytes_max(
                hello.slots,
                result_bytes=link.result_bytes,
                upward_bytes_max=config.limits.upward_bytes_max,
            ),
            settings=lambda: self._current().roles.get(hello.role, role),
            stopping=lambda: self._supervisor.stopping,
            gone=self.registrations.remove,
            offers=self._offers,
        )
        self.registrations.append(registration)
        try:
            workers = [
                self._supervisor.hire(
                    plan,
                    RemoteDriver(
                        self._relay,
                        registration,
                        index,
                        link=link,
                        offers=self._offers,
                        begin=self._supervisor.begin,
                    ),
                    remote=RemotePlace(registration.node, hello.pid, index),
                )
                for index in range(hello.slots)
            ]
            registration.open(workers, hang_ms=role.hang_ms)
        except BaseException:  # nothing of it is left behind
            registration.end("stopped", "it could not be let in", again=False)
            raise
        self._supervisor.begin(registration.watch)
        self._supervisor.begin(partial(self._see_off, registration, workers))

    async def _see_off(self, registration: Registration, workers: list[Worker]) -> None:
        """Once every slot has ended, so has the registration."""
        await self._supervisor.until(lambda: all(w.state in _ENDED for w in workers))
        registration.all_left()


class _Service(DirectProcess):
    """The process that has the names; when somebody ends it, it is started again."""

    def __init__(
        self, router: Router, hear: Callable[[Term], None], ended: Callable[[], None]
    ) -> None:
        super().__init__(router, module="Ringbridge.RemoteWorkers")
        self._hear = hear
        self._ended = ended

    def handle(self, request: gen.Request) -> None:
        match request:
            case Info(message):
                self._hear(message)
            case Call(sender, _):
                why = "a remote worker says hello by a message (docs/remote-workers.md)"
                self.reply(sender, bad_request(why))

    def stopped(self, reason: Any) -> None:
        self._ended()


@lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    return matcher(patterns)
