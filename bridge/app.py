"""The bridge as a whole: what is opened in which order, which tasks run, and how it all ends.

Start: listen (nobody is accepted yet), register at epmd, which gives the creation; then the relay,
the node with its services, the roles and their workers; last the door is opened, so that every name
answers before the first peer can ask.

Stop: no new job (callers, old and new, are answered :draining); the workers finish what they have;
then every service gives its watchers DOWN shutdown, and the relay closes what is left.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import msgspec
import structlog
import trio

import bridge
from bridge.config import Config, ConfigError
from bridge.dispatch.job_dispatcher import JobDispatcher
from bridge.dist.cookie import COOKIE_VARIABLE, Cookie
from bridge.dist.epmd_client import EpmdClient, random_creation
from bridge.dist.finding import Places, Resolver
from bridge.dist.flags import ABLE, OFFERED
from bridge.dist.handshake_events import Identity
from bridge.dist.names import matcher, split_node_name
from bridge.etf import Atom
from bridge.fabric.relay import (
    BreakerChanged,
    ConnectionLost,
    Event,
    LinkConfig,
    Relay,
    RoleGone,
    Signal,
    WorkerBroke,
    WorkerEnded,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
)
from bridge.limits import relay_limits, role_limits
from bridge.links import link_manager
from bridge.links.link_manager import LinkManager
from bridge.node import Asked, Node, Policy
from bridge.node.inspection import Application, Inspection, traffic_of
from bridge.node.process.details import Details
from bridge.node.signals.gen import Call
from bridge.ops import certificates, descriptors, diagnostics, inspection, published
from bridge.ops.answers import Answering, to_term
from bridge.ops.diagnostics import Diagnostics
from bridge.workers import registry
from bridge.workers.handshake_driver import HandshakeDriver, RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.registry import WorkerRegistry
from bridge.workers.shepherd import Shepherd
from bridge.workers.worker import Worker
from bridge.workers.worker_process import WorkerProcess

log = structlog.get_logger("ringbridge")

LISTEN_BACKLOG = 128
# Under a flood of frames the other tasks get their turn after so many.
# Between two starts of a service that somebody ends again and again.
SERVICE_RESTART_S = 0.1
# The last frames (DOWN of the services) leave in the relay's next round.
FLUSH_S = 0.05


# What observer and LiveDashboard show among the applications of this node.
APPLICATION = Application("ringbridge", "Hands work to native workers", bridge.__version__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a script wants to know once the bridge answers."""

    name: str
    port: int
    os_pid: int


async def serve(
    config: Config,
    *,
    name: str,
    cookie: Cookie,
    hide: Sequence[Path] = (),
    ready: Callable[[Ready], None] = lambda ready: None,
) -> None:
    """Run the bridge until SIGTERM or SIGINT. A second signal skips the drain.

    `hide`: files that no worker may read, above all the one that holds the cookie.

    Raises ConfigError (a role's program, a limit, the port) and EpmdError before anything has
    started.
    """
    plans = [
        RolePlan(number, role, config.role_argv(role), str(config.role_cwd(role)), settings)
        for number, (role, settings) in enumerate(config.roles.items())
    ]
    descriptors.raise_limit(config)
    async with AsyncExitStack() as stack:
        listeners = await listen(config)
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        port: int = listeners[0].socket.getsockname()[1]
        tls = stack.enter_context(certificates.opened(config))
        resolver, creation = await stack.enter_async_context(registered(config, name, port))
        relay = Relay(node=name, creation=creation, limits=relay_limits(config))
        stack.callback(relay.close)
        # Until here a signal simply ends the process: there is nothing to be drained yet.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        # Two nurseries: what carries the signals outlives what needs them to end in order.
        async with trio.open_nursery() as carrying:
            node = Node(
                Identity(name, creation, ABLE if config.node.atom_cache else OFFERED),
                cookie,
                relay,
                nursery=carrying,
                resolver=resolver,
                policy=door(config),
                tls=tls,
            )
            Inspection(
                node,
                application=APPLICATION,
                traffic=lambda: traffic_of(relay),
                exports=node.exports,
            )
            running = Bridge(config, plans, relay=relay, node=node, hide=hide)
            node.exports.merge(published.exports(running.status))
            carrying.start_soon(running.feed)
            async with trio.open_nursery() as nursery:
                await running.start(nursery)
                if tls is not None:
                    await nursery.start(certificates.reload_on_sighup, tls)
                nursery.start_soon(node.serve, listeners)
                node.keep_connected(set(config.node.keep_connected) - {name})
                log.info("ready", node=name, port=port, roles=[plan.name for plan in plans])
                ready(Ready(name, port, os.getpid()))
                await _stop_signal(signals)
                nursery.start_soon(_second_signal, signals, nursery.cancel_scope)
                await running.stop()
                nursery.cancel_scope.cancel()
            await running.end_services()
            carrying.cancel_scope.cancel()
    log.info("stopped", node=name)


async def listen(config: Config) -> list[trio.SocketListener]:
    """Open the listen queue; nobody is accepted yet. Raises ConfigError."""
    node = config.node
    try:
        return await trio.open_tcp_listeners(node.port, host=node.listen, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise ConfigError(
            file=config.file,
            key="node.listen",
            value=f"{node.listen} port {node.port}",
            rule=f"it cannot be listened on: {os.strerror(error.errno or 0)}",
            mend="Give another listen or port, or stop what holds it (ss -ltnp shows it)",
        ) from error


@asynccontextmanager
async def registered(config: Config, name: str, port: int) -> AsyncIterator[tuple[Resolver, int]]:
    """Be found while the block runs: how others are found, and our creation. Raises EpmdError."""
    alive, _ = split_node_name(name)
    match config.node.epmd:
        case "none":
            yield Places(config.node.peers), random_creation()
        case if_absent:
            epmd = EpmdClient.from_environ(if_absent=if_absent)
            async with epmd.registration(alive, port) as creation:
                yield Places(config.node.peers, epmd), creation


class Bridge:
    """The running parts and the tasks that join them."""

    def __init__(
        self,
        config: Config,
        plans: list[RolePlan],
        *,
        relay: Relay,
        node: Node,
        hide: Sequence[Path] = (),
    ) -> None:
        self._relay = relay
        self._node = node
        self._started = time.monotonic()
        for plan in plans:
            # The relay numbers the roles; the plan carries the number from here on.
            number = relay.add_role(role_limits(config, plan.name))
            assert number == plan.id, "roles are numbered in the order of their making"
        driver = HandshakeDriver(
            relay,
            link=LinkConfig(**msgspec.structs.asdict(config.link)),
            base_env=os.environ,
            start_guard=Shepherd.start,
            hide=[str(path) for path in hide],
        )
        self.supervisor = PortSupervisor(
            plans,
            relay=relay,
            driver=driver,
            drain_s=config.node.drain_ms / 1000,
            register=self._register,
        )
        self.registry = WorkerRegistry(self.supervisor, figures=self._figures)
        self._all_ended = trio.Event()

    async def start(self, nursery: trio.Nursery) -> None:
        """Start services and workers in `nursery`; returns when every name answers."""
        self._workers_supervisor = inspection.WorkersSupervisor(
            self._node.router, lambda: self.supervisor.workers
        )
        self.dispatcher = JobDispatcher(
            self._node.router,
            self._relay,
            figures=self._dispatch_figures,
            inspect=self._inspect_dispatcher,
        )
        self.dispatcher.start()
        services: list[tuple[tuple[str, ...], Callable[[], Answering]]] = [
            (registry.NAMES, lambda: WorkerRegistry(self.supervisor, figures=self._figures)),
            (link_manager.NAMES, LinkManager),
            (diagnostics.NAMES, lambda: Diagnostics(self.status)),
        ]
        for names, make in services:
            await nursery.start(self._keep_service, names, make)
        await nursery.start(self._run_workers)

    async def stop(self) -> None:
        """No new jobs; let the workers finish what they have and end them."""
        log.info("stopping: no new jobs, the workers finish what they have")
        self.supervisor.stop()
        await self._all_ended.wait()

    async def end_services(self) -> None:
        """Every process of the node ends; whoever watches one hears shutdown."""
        self.dispatcher.stop()
        self._node.stop_all(Atom("shutdown"))
        await trio.sleep(FLUSH_S)

    async def feed(self) -> None:
        """The one task that takes the relay's events: signals to the node, the rest to workers."""
        while True:
            for event in await self._relay.next_events():
                self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case Signal(conn, control, message):
                self._node.handle_signal(conn, control, message)
            case ConnectionLost(conn, reason):
                self._node.handle_connection_lost(conn, reason)
            case WorkerReady() | WorkerRefused() | WorkerBroke() | WorkerEnded() | WorkerOutput():
                self.supervisor.handle(event)
            case RoleGone():
                log.info("role gone", role=event.role)
            case BreakerChanged(number, worker, state):
                role = next((p.name for p in self.supervisor.plans if p.id == number), number)
                log.warning("circuit breaker", role=role, worker=worker, state=state)
            case _:
                assert_never(event)

    def status(self) -> Mapping[str, Any]:
        """The whole bridge as one record; texts are texts here, binaries once it is sent."""
        return {
            "node": self._node.name,
            "version": bridge.__version__,
            "python": platform.python_version(),
            "os_pid": os.getpid(),
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
            "connections": self._node.connected(),
            "processes": asdict(self._node.statistics()),
            "roles": [self._role_status(plan) for plan in self.supervisor.plans],
            "workers": self.registry.describe_all(),
            "relay": self._dispatch_figures(),
            "hops": asdict(self._relay.hops()),
        }

    def _role_status(self, plan: RolePlan) -> Mapping[str, Any]:
        return {
            "name": plan.name,
            "state": Atom(self.supervisor.role_state(plan.id).name.lower()),
            **asdict(self._relay.role_stats(plan.id)),
        }

    def _dispatch_figures(self) -> Any:
        return to_term(asdict(self._relay.stats()))

    def _inspect_dispatcher(self) -> Details:
        queued = sum(self._relay.role_stats(plan.id).queued for plan in self.supervisor.plans)
        return inspection.dispatcher_details(JobDispatcher.module, self._relay.stats(), queued)

    def _inspect_worker(self, worker: Worker) -> Details:
        workload = self._figures(worker.id)
        return inspection.worker_details(worker, workload, self.registry.describe(worker))

    def _figures(self, worker_id: int) -> Any:
        try:
            return self._relay.worker_stats(worker_id)
        except OSError:  # not linked yet, or gone already
            return None

    def _register(self, worker: Worker) -> WorkerProcess:
        return WorkerProcess(
            self._node.router,
            describe=lambda: self.registry.describe(worker),
            inspect=lambda: self._inspect_worker(worker),
            killed=worker.kill,
            parent=self._workers_supervisor.pid,
        )

    async def _run_workers(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            await self.supervisor.run(task_status=task_status)
        finally:
            self._all_ended.set()

    async def _keep_service(
        self,
        names: tuple[str, ...],
        make: Callable[[], Answering],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a service while the bridge lives: one that was ended starts again."""
        while True:
            service = make()
            await self._node.start(service, names=names)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await service.ended.wait()
            log.warning("process ended, starting it again", process=service.module)
            await trio.sleep(SERVICE_RESTART_S)


def door(config: Config) -> Policy:
    """Whom the bridge lets in: all that have the cookie, or those that [node] allow names. What
    changes or stops things is for [node] admin_nodes.
    """
    node = config.node
    allowed = matcher(node.allow)
    policy = Policy(
        allow=lambda name, address: not node.allow or allowed(name),
        admin=matcher(node.admin_nodes),
        admin_mend=f"add it to [node] admin_nodes in {config.file.name}",
    )

    def authorise(asked: Asked) -> bool | str:
        match asked.request:
            case Call(_, request) if not asked.names.isdisjoint(registry.NAMES):
                what = registry.operation(request)
                if what is not None and not policy.may(asked.node, what):
                    return policy.why_not(asked.node, what)
        return True

    return replace(policy, authorise=authorise)


def forget_cookie_variable() -> None:
    """Take the cookie out of the environment, so that no process that we start inherits it."""
    os.environ.pop(COOKIE_VARIABLE, None)


async def _stop_signal(signals: Any) -> None:
    async for number in signals:
        log.info("stop asked", signal=signal.Signals(number).name)
        return


async def _second_signal(signals: Any, scope: trio.CancelScope) -> None:
    async for number in signals:
        log.warning("stop asked again: not waiting any longer", signal=signal.Signals(number).name)
        scope.cancel()
