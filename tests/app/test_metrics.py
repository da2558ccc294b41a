"""What Prometheus is told, over fakes; and one real scrape under load."""

from __future__ import annotations

import http.client
import shutil
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from serve_support import BIN, SETTINGS, ask, serving

from bridge.fabric.figures import BreakerState, Hops, RelayStats, RoleStats, WorkerStats
from bridge.fabric.lanes import LaneStats
from bridge.fabric.relay import RoleState
from bridge.ops import metrics, metrics_page
from bridge.testing import Beam, EpmdDaemon
from bridge.workers.worker import State

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def filled(type_: type[Any], **given: Any) -> Any:
    """A record of figures in which each has a value of its own, but those that are given."""
    values = {field.name: number for number, field in enumerate(fields(type_), 10)}
    return type_(**{**values, **given})


class FakeRelay:
    def __init__(self) -> None:
        self.reads = 0
        self.uneven = 0

    def stats(self) -> RelayStats:
        self.reads += 1
        torn = self.reads <= self.uneven
        return filled(  # type: ignore[no-any-return]
            RelayStats,
            accepted=12 + torn,
            in_flight=2,
            answered={"ok": 7, "cancelled": 3},
            refused={"overloaded": 4},
            overloaded_by={"role_depth": 3, "pool": 1},
        )

    def role_stats(self, role: int) -> RoleStats:
        return filled(  # type: ignore[no-any-return]
            RoleStats,
            queued=5,
            answered={"ok": 21, "cancelled": 22},
            refused={"overloaded": 23},
            breaker=BreakerState.HALF_OPEN,
            overloaded_by={"role_rate": 6},
        )

    def worker_stats(self, worker_id: int) -> WorkerStats:
        return filled(  # type: ignore[no-any-return]
            WorkerStats, service_ns=1_500, breaker=BreakerState.CLOSED, heartbeat_ns=0
        )

    def lane_stats(self, lane: int) -> LaneStats:
        if lane == 4:
            raise OSError
        return filled(LaneStats, requests=31, answered=28, kept_bytes=4096)  # type: ignore[no-any-return]

    def hops(self) -> Hops:
        return Hops(4, 1.0, 2.0, 3.0, 4.0, 5.0)


def collector(relay: FakeRelay) -> metrics.BridgeCollector:
    plan = SimpleNamespace(id=0, name="echo", config=SimpleNamespace(depth_max=4096))
    worker = SimpleNamespace(plan=plan, id=7, state=State.READY, restarts=2, os_pid=None)
    gone = SimpleNamespace(plan=plan, id=6, state=State.GIVEN_UP, restarts=9, os_pid=None)
    supervisor = SimpleNamespace(
        plans=[plan], workers=[worker, gone], role_state=lambda role: RoleState.RUNNING
    )
    lanes = [SimpleNamespace(id=3, node="a@h"), SimpleNamespace(id=4, node="ending@h")]
    return metrics.BridgeCollector(relay, supervisor, lanes, {"node": "b@h"})


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(relay: FakeRelay) -> Samples:
    return samples(generate_latest(metrics.registry(collector(relay))).decode())


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_every_figure_is_told_with_its_role_worker_reason_and_state() -> None:
    found = scraped(FakeRelay())
    assert value(found, "ringbridge_info", node="b@h") == 1
    assert value(found, "ringbridge_jobs_accepted_total") == 12
    assert value(found, "ringbridge_jobs_in_flight") == 2
    assert value(found, "ringbridge_jobs_answered_total", reason="cancelled") == 3
    assert value(found, "ringbridge_jobs_refused_total", reason="overloaded") == 4
    assert value(found, "ringbridge_jobs_overloaded_total", rule="pool") == 1
    assert value(found, "ringbridge_role_jobs_overloaded_total", role="echo", rule="role_rate") == 6
    assert value(found, "ringbridge_role_jobs_queued", role="echo") == 5
    assert value(found, "ringbridge_role_queue_limit", role="echo") == 4096
    assert value(found, "ringbridge_role_state", role="echo", state="running") == 1
    assert value(found, "ringbridge_role_breaker", role="echo", state="half_open") == 1
    assert value(found, "ringbridge_role_workers", role="echo", state="given_up") == 1
    assert value(found, "ringbridge_worker_restarts_total", role="echo", worker="7") == 2
    service = value(found, "ringbridge_worker_service_seconds", role="echo", worker="7")
    assert service == pytest.approx(1.5e-6)
    assert value(found, "ringbridge_hop_seconds_count", hop="queue_to_ring") == 4
    hop = value(found, "ringbridge_hop_seconds_sum", hop="queue_to_ring")
    assert hop == pytest.approx(8e-6)
    assert value(found, "ringbridge_lane_requests_total", lane="3", node="a@h") == 31
    assert value(found, "ringbridge_lane_requests_answered_total", lane="3", node="a@h") == 28
    assert value(found, "ringbridge_lane_kept_bytes", lane="3", node="a@h") == 4096
    assert not any(("node", "ending@h") in labels for _, labels in found)
    assert value(found, "process_open_fds") > 0
    assert value(found, "process_resident_memory_bytes") > 0


def test_no_figure_of_the_relay_is_left_out() -> None:
    text = generate_latest(metrics.registry(collector(FakeRelay()))).decode()
    for table, record, subject in (
        (metrics._ROLE, RoleStats, "role"),
        (metrics._WORKER, WorkerStats, "worker"),
        (metrics._LANE, LaneStats, "lane"),
    ):
        for field in fields(record):
            if field.name in ("gate", "state", "connection", "pid"):
                continue
            name = table.get(field.name, ("", f"{subject}_{field.name}"))[1]
            assert f"ringbridge_{name}" in text


def test_the_accounts_of_a_scrape_are_even_although_the_relay_goes_on_counting() -> None:
    relay = FakeRelay()
    relay.uneven = 3
    assert value(scraped(relay), "ringbridge_jobs_unaccounted") == 0
    assert relay.reads == 4
    relay.uneven = 10**6
    assert value(scraped(relay), "ringbridge_jobs_unaccounted") == 1  # a bug is told, not hidden


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


async def test_the_page_answers_one_path_and_one_method() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made = metrics.registry(collector(FakeRelay()))
        nursery.start_soon(metrics_page.serve, listeners, made)
        port = listeners[0].socket.getsockname()[1]
        status, kind, text = await trio.to_thread.run_sync(get, port)
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert "ringbridge_jobs_accepted_total 12.0" in text
        assert (await trio.to_thread.run_sync(get, port, "/"))[0] == 404
        assert (await trio.to_thread.run_sync(get, port, "/metrics", "POST"))[0] == 405
        assert (await trio.to_thread.run_sync(get, port, "/metrics", "HEAD"))[2] == ""
        nursery.cancel_scope.cancel()


async def test_figures_that_cannot_be_read_do_not_end_the_bridge() -> None:
    relay = FakeRelay()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(metrics_page.serve, listeners, metrics.registry(collector(relay)))
        relay.hops = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        port = listeners[0].socket.getsockname()[1]
        assert (await trio.to_thread.run_sync(get, port))[0] == 500
        assert (await trio.to_thread.run_sync(get, port, "/"))[0] == 404
        nursery.cancel_scope.cancel()


async def test_who_sends_no_request_or_too_long_a_one_is_let_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made = metrics.registry(collector(FakeRelay()))
        nursery.start_soon(metrics_page.serve, listeners, made)
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            assert await silent.receive_some() == b""
        async with await trio.open_tcp_stream("127.0.0.1", port) as long:
            with suppress(trio.BrokenResourceError):  # what it had not read resets the connection
                await long.send_all(b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 10_000)
                assert await long.receive_some() == b""
        nursery.cancel_scope.cancel()


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
@pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built")
async def test_a_running_bridge_tells_its_accounts(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = '[metrics]\nlisten = "127.0.0.1:0"\n' + SETTINGS
    async with serving(epmd, tmp_path, alive="metrics", settings=settings) as bridge:
        port = int((await bridge.wait_log("metrics"))["port"])
        call = f"GenServer.call({bridge.target()}, {{:submit, :echo, %s}})"
        await ask(beam, f"for _ <- 1..50, do: {call % '<<1>>'}")
        await ask(beam, call % "String.duplicate(<<0>>, 2_000_000)")
        found = samples((await trio.to_thread.run_sync(get, port))[2])
        assert value(found, "ringbridge_jobs_accepted_total") == 50
        assert value(found, "ringbridge_jobs_answered_total", reason="ok") == 50
        assert value(found, "ringbridge_jobs_refused_total", reason="too_large") == 1
        assert value(found, "ringbridge_jobs_unaccounted") == 0
        assert value(found, "ringbridge_connections") == 1
        assert value(found, "ringbridge_role_workers_ready", role="sleep") == 2
