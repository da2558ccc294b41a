"""The running bridge: its parts, and the tasks that join them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
import structlog
import trio

import bridge
from bridge.conversations import Conversations
from bridge.dispatch.job_dispatcher import JobDispatcher
from bridge.dispatch.streams import Streams
from bridge.dist.finding import Places
from bridge.etf import Atom, DecodeError, brief, decode_bare
from bridge.fabric import layout
from bridge.fabric.relay import (
    BreakerChanged,
    ConnectionLost,
    Event,
    JobLost,
    LaneEnded,
    LaneReady,
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
from bridge.lanes import desk as lane_desk
from bridge.lanes import service as lane_service
from bridge.lanes.desk import Lane, LaneDesk
from bridge.lanes.listing import Listing
from bridge.lanes.service import Lanes
from bridge.limits import allowances, role_limits, tenant_limits
from bridge.links import link_manager
from bridge.links.link_manager import LinkManager
from bridge.node import Node
from bridge.node.process.details import Details
from bridge.operating import Operator
from bridge.ops import diagnostics, inspection
from bridge.ops.answers import Answering, to_term
from bridge.ops.diagnostics import Diagnostics
from bridge.reloading import Current, Reloading
from bridge.workers import registry
from bridge.workers.checkpoints.requests import StateRequests
from bridge.workers.handshake_driver import HandshakeDriver, RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.registry import WorkerRegistry
from bridge.workers.remote.service import RemoteWorkers
from bridge.workers.shepherd import Shepherd
from bridge.workers.worker import Worker
from bridge.workers.worker_process import WorkerProcess

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

    from bridge.fabric.tls import Tls

log = structlog.get_logger("ringbridge")

RECENT_ERRORS_MAX = 16  # in the status, which is asked for every second; :crash_reports has all
# Between two starts of a service that somebody ends again and again.
SERVICE_RESTART_S = 0.1
LAYOUT = f"{layout.LAYOUT_VERSION >> 16}.{layout.LAYOUT_VERSION & 0xFFFF}"
# The last frames (DOWN of the services) leave in the relay's next round.
FLUSH_S = 0.05


class Roads:
    """Whether there is room on the sockets of other nodes, for who may wait for it."""

    def __init__(self, node: Node, relay: Relay) -> None:
        self._node = node
        self._relay = relay

    def has_room(self, node: str) -> bool:
        connection = self._node.connections.peers.connection_of(node)
        return connection is None or self._relay.has_room(connection.id)

    async def wait_room(self, node: str) -> None:
        await self._node.wait_room(node)


class Bridge:
    """The running parts and the tasks that join them."""

    def __init__(
        self,
        current: Current,
        plans: list[RolePlan],
        *,
        relay: Relay,
        node: Node,
        places: Places,
        tls: Tls | None = None,
        hide: Sequence[Path] = (),
    ) -> None:
        config = current.config
        self._relay = relay
        self._node = node
        self._started = time.monotonic()
        relay.set_tenants(tenant_limits(config))
        relay.set_allowances(allowances(config))
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
        self.conversations = Conversations(config, node, self._figures)
        self.supervisor = PortSupervisor(
            plans,
            relay=relay,
            driver=driver,
            drain_s=config.node.drain_ms / 1000,
            groups=config.groups,
            register=self._register,
            converse=self.conversations.open,
        )
        self.reloading = Reloading(
            current,
            relay=relay,
            node=node,
            supervisor=self.supervisor,
            places=places,
            tls=tls,
            changed=self._review,
        )
        self.lanes = LaneDesk(relay, lambda: current.config)
        self.remote = RemoteWorkers(
            node.router,
            relay,
            self.supervisor,
            Roads(node, relay),
            lambda: current.config,
            self.lanes.links,
        )
        Listing(relay, self.supervisor, RECENT_ERRORS_MAX)
        self.operator = Operator(self.reloading, self.supervisor, relay)
        self.registry = self._make_registry()
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
        self.streams = Streams(self._node.router, self._relay, figures=self._stream_figures)
        self.streams.start()
        services: list[tuple[tuple[str, ...], Callable[[], Answering]]] = [
            (registry.NAMES, self._make_registry),
            (link_manager.NAMES, lambda: LinkManager(self.conversations.links)),
            (diagnostics.NAMES, lambda: Diagnostics(self.status)),
            (lane_service.NAMES, self._make_lanes),
        ]
        for names, make in services:
            await nursery.start(self._keep_service, names, make)
        await nursery.start(self.lanes.run)
        await self.conversations.start(nursery)
        await nursery.start(self._run_workers)
        self.remote.start()

    async def stop(self) -> None:
        """No new jobs; let the workers finish what they have and end them."""
        log.info("stopping: no new jobs, the workers finish what they have")
        self.supervisor.stop()
        await self._all_ended.wait()

    async def end_services(self) -> None:
        """Every process of the node ends; whoever watches one hears shutdown."""
        await self.conversations.aclose()
        self.dispatcher.stop()
        self.streams.stop()
        self.remote.stop()
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
            case JobLost(worker, job, reason, meta):
                self.supervisor.handle(event)
                log.warning("job lost", job=job, worker=worker, reason=reason, meta=_noted(meta))
            case LaneReady(lane, _, _):
                self.lanes.ready(lane)
            case LaneEnded(lane, _, reason):
                self.lanes.ended(lane, reason)
            case RoleGone(number):
                log.debug("the relay has forgotten a role", number=number)
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
            "layout": {"version": LAYOUT, "digest": layout.LAYOUT_DIGEST_HEX},
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
            "connections": self._node.connected(),
            "processes": asdict(self._node.statistics()),
            "roles": [self._role_status(plan) for plan in self.supervisor.plans],
            "workers": self.registry.describe_all(),
            "lanes": [self._describe_lane(lane) for lane in self.lanes],
            "relay": self._dispatch_figures(),
            "hops": asdict(self._relay.hops()),
            "recent_errors": [
                {"at": each.at, "role": each.role, "worker": each.worker, "why": each.why}
                for each in self.supervisor.crashes.newest_first()[:RECENT_ERRORS_MAX]
            ],
        }

    def metrics(self) -> CollectorRegistry:
        """What a scrape is made of."""
        # Imported late: a bridge without [metrics] listen starts sooner.
        from bridge.ops import metrics

        about = {"node": self._node.name, "version": bridge.__version__}
        return metrics.registry(
            metrics.BridgeCollector(self._relay, self.supervisor, self.lanes, about)
        )

    def _make_registry(self) -> WorkerRegistry:
        return WorkerRegistry(
            self.supervisor,
            figures=self._figures,
            operator=self.operator,
            state_requests=StateRequests(self.supervisor, self.conversations),
        )

    def _make_lanes(self) -> Lanes:
        return Lanes(
            self.lanes,
            connection_of=self._connection_of,
            recording=lambda: self._relay.recording() is not None,
            describe=lambda: [self._describe_lane(lane) for lane in self.lanes],
        )

    def _connection_of(self, node: str) -> int | None:
        connection = self._node.connections.peers.connection_of(node)
        return None if connection is None else connection.id

    def _describe_lane(self, lane: Lane) -> dict[str, Any]:
        try:
            figures = asdict(self._relay.lane_stats(lane.id))
        except OSError:  # it ends
            figures = None
        return lane_desk.describe(lane, figures)

    def _role_status(self, plan: RolePlan) -> Mapping[str, Any]:
        return {
            "name": plan.name,
            "state": Atom(self.supervisor.role_state(plan.id).name.lower()),
            "depth_max": plan.config.depth_max,
            **asdict(self._relay.role_stats(plan.id)),
            "upgrade": self.operator.describe_upgrade(plan.name),
        }

    def _dispatch_figures(self) -> Any:
        return to_term(asdict(self._relay.stats()))

    def _stream_figures(self) -> Any:
        stats = self._relay.stats()
        return to_term({"streams": stats.streams, "events": stats.events})

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

    def _review(self) -> None:
        """The settings have changed: what they no longer allow ends."""
        self.conversations.links.review()
        self.remote.review()
        self.lanes.review()

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


def _noted(meta: bytes) -> str | None:
    """A caller's note on its job; what Python cannot read must not end the one task of events."""
    try:
        return brief(decode_bare(meta)) if meta else None
    except DecodeError as error:
        return f"({error})"
