"""Which of the waiting jobs is next, as a BEAM asks for it: docs/dispatch.md.

The dispatcher is suspended while the jobs arrive, so that all of them wait; one worker then takes
them in order, and its caller hears of them in that order.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from serve_support import BIN, Serving, ask, serving

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built"),
]


def settings(order: str = "", tenants: str = "") -> str:
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.echo]
command = ["{BIN}/rb-echo"]

[roles.echo.order]
{order}
{tenants}
"""


async def run(beam: Beam, bridge: Serving, *steps: str) -> list[str]:
    """What the jobs were answered, in the order of the answers. A step is Elixir: `job.(name,
    options)`, or anything to be done between two.
    """
    target, registry = bridge.target(), bridge.target("Ringbridge.WorkerRegistry")
    await bridge.wait_workers(1)
    answers = await ask(
        beam,
        f"""
        target = {target}
        job = fn name, options ->
          :gen_server.send_request(target, {{:submit, :echo, name, options}})
          Process.put(:jobs, Process.get(:jobs, 0) + 1)
        end
        configure = fn key, value ->
          {{:ok, [_]}} = GenServer.call({registry}, {{:configure, key, value}})
        end
        Process.put(:jobs, 0)
        :ok = :sys.suspend(target)
        {"; ".join(steps)}
        :ok = :sys.resume(target)
        _ = configure
        for _ <- 1..Process.get(:jobs) do
          receive do
            {{_, {{:ok, name}}}} -> name
            {{_, {{:error, reason}}}} -> reason
          after
            10_000 -> :silence
          end
        end
        """,
    )
    return [text or atom for text, atom in re.findall(r'"([^"]*)"|:(\w+)', answers)]


def jobs(name: str, count: int, options: str = "") -> str:
    return f'for _ <- 1..{count}, do: job.("{name}", [{options}])'


@pytest.mark.smoke
async def test_bands_then_deadlines_then_arrival(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="order_bands", settings=settings()) as bridge:
        assert await run(
            beam,
            bridge,
            'job.("last", [priority: :low])',
            'job.("fourth", [])',
            'job.("fifth", %{priority: :normal})',
            'job.("third", [timeout: 1_900])',
            'job.("second", [priority: :high])',
            'job.("first", [priority: :critical])',
        ) == ["first", "second", "third", "fourth", "fifth", "last"]


async def test_a_job_that_expires_while_it_waits_is_answered_and_never_runs(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="order_expired", settings=settings()) as bridge:
        assert await run(
            beam,
            bridge,
            'job.("late", [priority: :critical, timeout: 1])',
            'job.("patient", [])',
            "Process.sleep(20)",
        ) == ["deadline_exceeded", "patient"]
        workers = await ask(
            beam, f"GenServer.call({bridge.target('Ringbridge.WorkerRegistry')}, :list)"
        )
        assert "done: 1" in workers


@pytest.mark.parametrize(
    ("aging_ms", "order"),
    [(1, ["low", "critical"]), (600_000, ["critical", "low"])],
    ids=["short", "long"],
)
async def test_aging_makes_a_low_job_critical(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, aging_ms: int, order: list[str]
) -> None:
    file = settings(f"aging_ms = {aging_ms}")
    async with serving(epmd, tmp_path, alive="order_aging", settings=file) as bridge:
        low, critical = 'job.("low", [priority: :low])', 'job.("critical", [priority: :critical])'
        assert await run(beam, bridge, low, "Process.sleep(20)", critical) == order


@pytest.mark.parametrize(
    ("patience_ms", "order"),
    [(1, ["long", "short"]), (600_000, ["short", "long"])],
    ids=["none", "much"],
)
async def test_patience_bounds_for_how_long_shorter_deadlines_pass(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, patience_ms: int, order: list[str]
) -> None:
    file = settings(f"patience_ms = {patience_ms}")
    async with serving(epmd, tmp_path, alive="order_patience", settings=file) as bridge:
        long, short = 'job.("long", [timeout: 60_000])', 'job.("short", [timeout: 9_000])'
        assert await run(beam, bridge, long, "Process.sleep(20)", short) == order


async def test_tenants_take_turns_by_weight(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> None:
    file = settings(tenants="[tenants.gold]\nweight = 30")
    async with serving(epmd, tmp_path, alive="order_tenants", settings=file) as bridge:
        answers = await run(
            beam,
            bridge,
            jobs("none", 9),
            jobs("tin", 9, 'tenant: "tin"'),
            jobs("gold", 9, "tenant: :gold"),
        )
        assert [answers[:10].count(name) for name in ("none", "tin", "gold")] == [2, 2, 6]
        assert sorted(answers) == ["gold"] * 9 + ["none"] * 9 + ["tin"] * 9


async def test_one_job_of_a_tenant_does_not_wait_for_a_thousand_of_another(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="order_many", settings=settings()) as bridge:
        answers = await run(
            beam, bridge, jobs("many", 1000, 'tenant: "many"'), jobs("one", 1, 'tenant: "one"')
        )
        assert answers.index("one") == 1
        assert len(answers) == 1001


async def test_what_waits_follows_settings_that_change(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    file = settings("aging_ms = 600_000", "[tenants.gold]\nweight = 10")
    async with serving(epmd, tmp_path, alive="order_live", settings=file) as bridge:
        answers = await run(
            beam,
            bridge,
            'job.("low", [priority: :low])',
            "Process.sleep(20)",
            jobs("tin", 4, 'tenant: "tin", priority: :critical'),
            jobs("gold", 8, 'tenant: "gold", priority: :critical'),
            'configure.("roles.echo.order.aging_ms", 1)',
            'configure.("tenants.gold.weight", 20)',
        )
        assert answers.index("low") < 3  # critical now, one of three tenants that take turns
        assert [name for name in answers if name != "low"][:6].count("gold") == 4
