"""The bridge's figures as Prometheus metrics (docs/operations.md has the list).

A collector of prometheus-client: nothing is counted here, every scrape reads what the relay and the
supervisor know. Counters of a worker begin anew with each of its lives, which has an id of its own.

The accounting identity holds in every scrape: accepted = in flight + answered, for the bridge.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry

from bridge.fabric.figures import Hops, RelayStats, RoleStats, WorkerStats
from bridge.fabric.lanes import LaneStats
from bridge.node.inspection import facts
from bridge.workers.worker import State, Worker

EVEN_TRIES = 50  # reads of figures that the relay changes meanwhile, until they are even
NS = 1e-9

# Of a figure that the relay counts: what it is, what it is called, and what one of it is worth.
# Those that are not listed are gauges under their own names.
_RELAY = {
    "overloaded_by": ("counter", "jobs_overloaded", "Jobs told to come back, by the rule.", 1.0),
    "streams": ("gauge", "streams", "Open subscriptions of consumers.", 1.0),
    "events": ("counter", "stream_events", "Parts of answers that left to consumers.", 1.0),
    "connections": ("gauge", "connections", "Established distribution connections.", 1.0),
    "rounds": ("counter", "relay_rounds", "Rounds of the relay's thread.", 1.0),
    "sleeps": ("counter", "relay_sleeps", "Pauses of the relay under load.", 1.0),
    "parks": ("counter", "relay_parks", "Times that the relay waited for something to do.", 1.0),
    "bytes_in": ("counter", "received_bytes", "Bytes read from peers.", 1.0),
    "bytes_out": ("counter", "sent_bytes", "Bytes written to peers.", 1.0),
}
_ROLE = {
    "queued": ("gauge", "role_jobs_queued", "Jobs that wait.", 1.0),
    "placed": ("counter", "role_jobs_placed", "Jobs given to workers; again after a death.", 1.0),
    "workers_ready": ("gauge", "role_workers_ready", "Workers that take jobs.", 1.0),
    "accepted": ("counter", "role_jobs_accepted", "Jobs taken in.", 1.0),
    "answered": ("counter", "role_jobs_answered", "Accepted jobs that were answered.", 1.0),
    "refused": ("counter", "role_jobs_refused", "Jobs that were not taken in.", 1.0),
    "deferred": ("gauge", "role_jobs_deferred", "Jobs accepted and not in the queue yet.", 1.0),
    "adaptive_limit": ("gauge", "role_adaptive_limit", "Jobs in flight; 0: no such limit.", 1.0),
    "overloaded_by": ("counter", "role_jobs_overloaded", "Jobs told to come back.", 1.0),
    "breaker_openings": ("gauge", "role_breaker_openings", "Since it was last closed.", 1.0),
    "stopped_waiting": ("counter", "role_jobs_stopped_waiting", "Stopped in the queue.", 1.0),
    "stopped_placed": ("counter", "role_jobs_stopped_placed", "Stopped at a worker.", 1.0),
    "told_word": ("counter", "role_cancel_words", "Running jobs told to stop.", 1.0),
    "told_term": ("counter", "role_cancel_sigterms", "Workers sent SIGTERM for a job.", 1.0),
    "told_kill": ("counter", "role_cancel_sigkills", "Workers sent SIGKILL for a job.", 1.0),
    "noticed": ("counter", "role_cancels_noticed", "Jobs given back as cancelled.", 1.0),
    "noticed_ns": ("counter", "role_cancel_notice_seconds", "From word to return, summed.", NS),
    "breaker": ("state", "role_breaker", "State of the role's circuit breaker.", 1.0),
    "stolen": ("counter", "role_jobs_stolen", "Jobs with a key that another took.", 1.0),
    "retried": ("counter", "role_jobs_retried", "Runs that began again.", 1.0),
}
_WORKER = {
    "in_flight": ("gauge", "worker_jobs_in_flight", "Jobs in its hands.", 1.0),
    "placed": ("counter", "worker_jobs_placed", "Jobs that were put into its ring.", 1.0),
    "begun": ("counter", "worker_jobs_begun", "Of those, jobs that its handler entered.", 1.0),
    "done": ("counter", "worker_jobs_done", "Jobs that it completed.", 1.0),
    "lost": ("counter", "worker_jobs_lost", "Jobs that ended with it.", 1.0),
    "service_ns": ("gauge", "worker_service_seconds", "Moving average of a job's run time.", NS),
    "credit": ("gauge", "worker_credit_jobs", "Jobs that it may hold.", 1.0),
    "heartbeats": ("counter", "worker_heartbeats", "Heartbeats seen.", 1.0),
    "heartbeat_ns": ("age", "worker_heartbeat_age_seconds", "Since its last heartbeat.", NS),
    "wakes": ("counter", "worker_wakes", "Times that it was woken by a system call.", 1.0),
    "breaker": ("state", "worker_breaker", "State of the worker's circuit breaker.", 1.0),
    "failed": ("counter", "worker_jobs_failed", "Jobs that failed, as its kit says.", 1.0),
    "run_ns": ("gauge", "worker_last_run_seconds", "How long its last job ran.", NS),
    "ring_queued": ("gauge", "worker_ring_jobs", "Jobs that wait in its ring.", 1.0),
    "pulses": ("counter", "worker_pulses", "Signs of jobs that get on.", 1.0),
    "still_ns": ("gauge", "worker_still_seconds", "With jobs, and no sign of them.", NS),
    "unready": ("gauge", "worker_unready", "1: it lives, and wants no jobs for now.", 1.0),
    "share": ("gauge", "worker_share_ratio", "Of the jobs that it would be given.", 1e-3),
}
_LANE = {
    "open": ("gauge", "lane_requests_open", "Requests without an answer.", 1.0),
    "requests": ("counter", "lane_requests", "Requests read from it.", 1.0),
    "answered": ("counter", "lane_requests_answered", "Requests that were answered.", 1.0),
    "dropped": ("counter", "lane_requests_dropped", "Requests whose callers had gone.", 1.0),
    "cancelled": ("counter", "lane_requests_cancelled", "Requests taken back.", 1.0),
    "bytes_in": ("counter", "lane_received_bytes", "Bytes of requests.", 1.0),
    "bytes_out": ("counter", "lane_sent_bytes", "Bytes of answers.", 1.0),
    "kept_bytes": ("gauge", "lane_kept_bytes", "Of answers that wait for room in it.", 1.0),
    "wakes": ("counter", "lane_wakes", "Times that its BEAM was rung.", 1.0),
    "lent_blocks": ("gauge", "lane_lent_blocks", "Of its result region, that the BEAM holds.", 1.0),
}
_HOPS = (
    "socket_to_queue_us",
    "queue_to_ring_us",
    "ring_to_answer_us",
    "worker_run_us",
    "answer_to_socket_us",
)
_ALIVE = (State.STARTING, State.READY, State.DRAINING)

_Table = Mapping[str, tuple[str, str, str, float]]


class Figures(Protocol):
    """The relay, as far as it counts."""

    def stats(self) -> RelayStats: ...
    def role_stats(self, role: int) -> RoleStats: ...
    def worker_stats(self, worker_id: int) -> WorkerStats: ...
    def lane_stats(self, lane: int) -> LaneStats: ...
    def hops(self) -> Hops: ...


class Plan(Protocol):
    """A role."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...


class Laned(Protocol):
    """A lane."""

    @property
    def id(self) -> int: ...
    @property
    def node(self) -> str: ...


class Supervised(Protocol):
    """The supervisor, as far as it is looked at."""

    @property
    def plans(self) -> Iterable[Any]: ...
    @property
    def workers(self) -> Iterable[Worker]: ...
    def role_state(self, role: int) -> Enum: ...


class BridgeCollector(Collector):
    """All that a scrape sees. `about`: labels of ringbridge_info."""

    def __init__(
        self,
        relay: Figures,
        supervisor: Supervised,
        lanes: Iterable[Laned],
        about: Mapping[str, str],
    ) -> None:
        self._relay = relay
        self._supervisor = supervisor
        self._lanes = lanes
        self._about = dict(about)
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("ringbridge", "What runs here.")
        info.add_metric([], self._about)
        yield info
        start = GaugeMetricFamily("ringbridge_start_time_seconds", "When it started, Unix time.")
        start.add_metric([], self._started)
        yield start
        yield from self._accounts()
        yield self._hops()
        yield from self._roles()
        yield from self._workers()
        yield from self._lanes_of_beams()

    def _accounts(self) -> Iterator[Metric]:
        stats = even(self._relay)
        yield _single(CounterMetricFamily, "jobs_accepted", "Jobs taken in.", stats.accepted)
        yield _single(GaugeMetricFamily, "jobs_in_flight", "Jobs not answered.", stats.in_flight)
        for name, help_, counts in (
            ("jobs_answered", "Accepted jobs, by what they were answered.", stats.answered),
            ("jobs_refused", "Jobs that were not taken in, by the reason.", stats.refused),
        ):
            family = CounterMetricFamily(f"ringbridge_{name}", help_, labels=["reason"])
            for reason, count in counts.items():
                family.add_metric([reason], count)
            yield family
        unaccounted = stats.accepted - stats.in_flight - sum(stats.answered.values())
        help_ = "Accepted - in flight - answered: 0, or a bug."
        yield _single(GaugeMetricFamily, "jobs_unaccounted", help_, unaccounted)
        counted = {"accepted", "in_flight", "answered", "refused"}
        yield from _families(_RELAY, "relay", RelayStats, [((), stats)], [], without=counted)

    def _hops(self) -> Metric:
        hops = self._relay.hops()
        help_ = "Time between two stations of a job, of those that were timed."
        family = SummaryMetricFamily("ringbridge_hop_seconds", help_, labels=["hop"])
        for name in _HOPS:
            total_s = getattr(hops, name) * hops.samples * 1e-6
            family.add_metric([name.removesuffix("_us")], hops.samples, total_s)
        return family

    def _roles(self) -> Iterator[Metric]:
        plans = list(self._supervisor.plans)
        labels = ["role"]
        state = GaugeMetricFamily(
            "ringbridge_role_state", "1 for the state that it is in.", labels=["role", "state"]
        )
        depth = GaugeMetricFamily(
            "ringbridge_role_queue_limit", "Jobs that may wait (depth_max).", labels=labels
        )
        workers = GaugeMetricFamily(
            "ringbridge_role_workers", "Workers by state.", labels=["role", "state"]
        )
        for plan in plans:
            state.add_metric([plan.name, self._supervisor.role_state(plan.id).name.lower()], 1)
            depth.add_metric([plan.name], plan.config.depth_max)
            states = [w.state for w in self._supervisor.workers if w.plan.id == plan.id]
            for each in State:
                workers.add_metric([plan.name, each.value], states.count(each))
        yield from (state, depth, workers)
        rows = [((plan.name,), self._relay.role_stats(plan.id)) for plan in plans]
        yield from _families(_ROLE, "role", RoleStats, rows, labels)

    def _workers(self) -> Iterator[Metric]:
        labels = ["role", "worker"]
        alive = [worker for worker in self._supervisor.workers if worker.state in _ALIVE]
        restarts = CounterMetricFamily(
            "ringbridge_worker_restarts", "Lives of its place before this one.", labels=labels
        )
        memory = GaugeMetricFamily(
            "ringbridge_worker_resident_bytes", "Its own memory, without the rings.", labels=labels
        )
        rows = []
        for worker in alive:
            key = (worker.plan.name, str(worker.id))
            restarts.add_metric(key, worker.restarts)
            if worker.os_pid is not None:
                memory.add_metric(key, facts.resident(worker.os_pid).own)
            try:
                rows.append((key, self._relay.worker_stats(worker.id)))
            except OSError:  # not linked yet, or gone already
                continue
        yield from (restarts, memory)
        without = {"gate", "state"}
        yield from _families(_WORKER, "worker", WorkerStats, rows, labels, without=without)

    def _lanes_of_beams(self) -> Iterator[Metric]:
        rows = []
        for lane in self._lanes:
            try:
                rows.append(((str(lane.id), lane.node), self._relay.lane_stats(lane.id)))
            except OSError:  # it ends
                continue
        without = {"connection", "pid"}
        yield from _families(_LANE, "lane", LaneStats, rows, ["lane", "node"], without=without)


def registry(collector: Collector) -> CollectorRegistry:
    """What a scrape is made of: the bridge's own, and memory, descriptors, time of its process."""
    made = CollectorRegistry()
    made.register(collector)
    ProcessCollector(registry=made)
    return made


def even(relay: Figures) -> RelayStats:
    """The relay's figures, read again while they are not even: it changes them word by word."""
    for _ in range(EVEN_TRIES):
        stats = relay.stats()
        if stats.accepted == stats.in_flight + sum(stats.answered.values()):
            break
        os.sched_yield()
    return stats


def _single(family: Any, name: str, help_: str, value: float) -> Metric:
    made = family(f"ringbridge_{name}", help_)
    made.add_metric([], value)
    return made  # type: ignore[no-any-return]


def _families(
    table: _Table,
    subject: str,
    record: type[Any],
    rows: Sequence[tuple[tuple[str, ...], Any]],
    labels: list[str],
    without: Iterable[str] = (),
) -> Iterator[Metric]:
    """A metric for each field of `record`, with a value for each row."""
    for field in fields(record):
        if field.name in without:
            continue
        otherwise = ("gauge", f"{subject}_{field.name}", f"{field.name} of the {subject}.", 1.0)
        kind, name, help_, factor = table.get(field.name, otherwise)
        values = [(key, getattr(row, field.name)) for key, row in rows]
        more = ["state"] if kind == "state" else []
        if any(isinstance(value, Mapping) for _, value in values):
            more = ["rule" if field.name.endswith("_by") else "reason"]
        type_ = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family = type_(f"ringbridge_{name}", help_, labels=[*labels, *more])
        for key, value in values:
            if isinstance(value, Mapping):
                for name_, count in value.items():
                    family.add_metric([*key, name_], count)
            elif kind == "state":
                family.add_metric([*key, value.name.lower()], 1)
            elif kind == "age":
                age_ns = max(time.monotonic_ns() - value, 0) if value else 0
                family.add_metric(key, age_ns * factor)
            else:
                family.add_metric(key, value * factor)
        yield family
