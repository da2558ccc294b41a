"""Phoenix LiveDashboard: the calls that its SystemInfo makes, in its order, and what its pages take
from the answers.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from inspect_support import Rpc, atom, field_map, inspected_node, keyword
from services import Counter

SYSTEM_INFO = "Phoenix.LiveDashboard.SystemInfo"
DETAILS = atom("Elixir.Phoenix.LiveDashboard.SystemInfo.ProcessDetails")
# What LiveDashboard 0.8.7's own pages require of a node.
REQUIREMENTS = [
    (atom("application"), atom("os_mon")),
    (atom("module"), atom("Elixir.Ecto.Repo")),
    (atom("process"), atom("Elixir.Phoenix.LiveDashboard.DynamicSupervisor")),
]


async def dashboard(rpc: Rpc, function: str, *args: Any) -> Any:
    return await rpc(SYSTEM_INFO, function, *args)


async def processes(rpc: Rpc, search: Any = None, sort_by: str = "memory", **options: Any) -> Any:
    order, limit, before = (
        options.get("order", "desc"),
        options.get("limit", 50),
        options.get("before"),
    )
    return await dashboard(
        rpc, "processes_callback", search, atom(sort_by), atom(order), limit, before
    )


async def test_the_dashboard_sends_its_module_and_finds_no_dashboard_here() -> None:
    async with inspected_node() as rpc:
        module = atom(f"Elixir.{SYSTEM_INFO}")
        assert await rpc("code", "is_loaded", module) is False
        await rpc("code", "load_binary", module, [*b"system_info.ex"], b"FOR1...")
        found = field_map(await dashboard(rpc, "capabilities_callback", REQUIREMENTS))
        assert found == {
            "system_info": None,
            "dashboard_running?": False,
            "applications": [atom("os_mon")],
            "modules": [],
            "processes": [],
        }


async def test_the_home_page() -> None:
    async with inspected_node(traffic=lambda: (5, 6)) as rpc:
        info = field_map(await dashboard(rpc, "info_callback", [b"HOME"], atom("ringbridge")))
        system = field_map(info["system_info"])
        assert "hidden node, no Erlang/OTP" in bytes(system["banner"]).decode()
        assert system["app_version"] == b"0.1.0"
        assert info["environment"] == [(b"HOME", None)], "the environment is not shown"
        limits, usage = field_map(info["system_limits"]), field_map(info["system_usage"])
        for count in ("atoms", "ports", "processes"):
            assert 0 <= usage[count] < limits[count]
        assert usage["io"] == (5, 6)
        assert usage["processes"] == len(await rpc("erlang", "processes"))
        memory = field_map(usage["memory"])
        total = memory.pop("total")
        assert total == sum(memory.values())
        assert min(memory.values()) >= 0
        assert field_map(await dashboard(rpc, "usage_callback")).keys() == usage.keys()


async def test_the_processes_page_sorts_searches_limits_and_counts_since_the_last_time() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        for _ in range(3):
            await rpc.node.call(pid, (atom("add"), 1))
        rows, count, before = await processes(rpc, sort_by="reductions_diff", limit=2)
        assert (len(rows), count) == (2, len(await rpc("erlang", "processes")))
        first = keyword(rows[0])
        assert (first["pid"], first["name_or_initial_call"]) == (pid, b":counter")
        assert (first["reductions"], first["reductions_diff"]) == (3, 3)
        assert before[pid] == 3
        await rpc.node.call(pid, (atom("add"), 1))
        rows, count, _ = await processes(rpc, b"count", before=before)
        assert (count, keyword(rows[0])["reductions_diff"]) == (1, 1)
        rows, _, _ = await processes(rpc, order="asc")
        sizes = [keyword(row)["memory"] for row in rows]
        assert sizes == sorted(sizes)
        assert (await processes(rpc, b"no such process"))[:2] == ([], 0)


async def test_the_page_of_one_process() -> None:
    async with inspected_node() as rpc:
        server = Counter()
        pid = await rpc.node.start(server, name="counter")
        await server.monitor(("counter", rpc.node.name))
        await server.monitor(("net_kernel", rpc.node.name))
        ok, page = await dashboard(rpc, "process_info_callback", pid)
        assert ok == atom("ok")
        info = keyword(page)
        assert info["initial_call"] == (atom("Elixir.Counter"), atom("init"), 1)
        [ancestor] = map(field_map, info["ancestors"])
        assert ancestor["__struct__"] == DETAILS
        assert ancestor["name_or_initial_call"] == b":ringbridge_sup"
        names = {field_map(each)["name_or_initial_call"] for each in info["monitors"]}
        assert names == {b":counter", b":net_kernel"}
        assert info["label"] is None
        assert info["current_stacktrace"][0][:3] == info["current_function"]
        rpc.node.exit(pid, atom("kill"))
        assert await dashboard(rpc, "process_info_callback", pid) == atom("error")


async def test_the_applications_page_and_its_tree() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        arguments = (atom("name"), atom("asc"), 50)
        [row], count = await dashboard(rpc, "applications_info_callback", None, *arguments)
        assert count == 1
        assert keyword(row)["tree?"] is True
        assert await dashboard(rpc, "applications_info_callback", b"zzz", *arguments) == ([], 0)
        (kind, _, _), below = await dashboard(rpc, "app_tree_callback", atom("ringbridge"))
        assert kind == atom("master")
        assert ((atom("worker"), pid, atom("counter")), []) in below
        assert await dashboard(rpc, "app_tree_callback", atom("kernel")) == atom("error")


async def test_the_allocators_page_keeps_the_greatest_sizes() -> None:
    async with inspected_node() as rpc:
        rows, maxima = await dashboard(rpc, "memory_allocators_callback", None)
        total, *others = map(field_map, rows)
        assert total["name"] == atom("total")
        assert total["carrier_size"] == sum(row["carrier_size"] for row in others)
        big = {**maxima, atom("libc_alloc"): 1 << 60}
        rows, maxima = await dashboard(rpc, "memory_allocators_callback", big)
        assert maxima[atom("libc_alloc")] == 1 << 60
        shown = {field_map(row)["name"]: field_map(row)["max_carrier_size"] for row in rows}
        assert shown[atom("libc_alloc")] == 1 << 60


async def test_the_page_of_the_machine() -> None:
    async with inspected_node() as rpc:
        page = field_map(await dashboard(rpc, "os_mon_callback"))
        assert page["cpu_avg1"] == pytest.approx(os.getloadavg()[0] * 256, abs=64)
        assert len(page["cpu_per_core"]) == os.cpu_count()
        for _, parts in page["cpu_per_core"]:
            assert sum(parts.values()) == pytest.approx(100)
        memory = keyword(page["system_mem"])
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert memory["total_memory"] == pytest.approx(pages, rel=0.01)
        assert 0 < memory["free_memory"] <= memory["total_memory"]
        assert all(0 <= percent <= 100 for _, _, percent in page["disk"])


async def test_there_are_no_ports_and_no_tables() -> None:
    async with inspected_node() as rpc:
        arguments = (None, atom("memory"), atom("desc"), 50)
        assert await dashboard(rpc, "ports_callback", *arguments) == ([], 0)
        assert await dashboard(rpc, "ets_callback", *arguments) == ([], 0)
        assert await dashboard(rpc, "ets_info_callback", atom("x")) == atom("error")
