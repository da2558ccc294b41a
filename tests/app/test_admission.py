"""What is taken in, what is refused and by which rule, and breakers, as a BEAM sees them.

The rules themselves are held in csrc/tests (test_relay_admission, test_relay_rates,
test_relay_health), where time is told; here they go through ringbridge.toml, real workers and real
nodes: docs/dispatch.md.
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


def settings(tables: str, role: str = "") -> str:
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.echo]
command = ["{BIN}/rb-echo"]
max_restarts = 100
backoff_min_ms = 1
{role}

[roles.sleep]
command = ["{BIN}/rb-sleep"]
depth_max = 20
{tables}
"""


async def stats(beam: Beam, bridge: Serving) -> dict[str, int]:
    """The figures of `:stats`, flat: "accepted", "answered.ok", "overloaded_by.pool", ..."""
    code = f"""
    {{:ok, stats}} = GenServer.call({bridge.target()}, :stats)
    for {{key, value}} <- stats,
        {{name, count}} <- if(is_map(value), do: value, else: [{{"", value}}]) do
      "#{{key}}.#{{name}}=#{{count}}"
    end
    """
    found = re.findall(r'"([a-z_.]+?)\.?=(\d+)"', await ask(beam, code))
    return {name: int(count) for name, count in found}


async def accounts_are_even(beam: Beam, bridge: Serving) -> dict[str, int]:
    counts = await stats(beam, bridge)
    answered = sum(count for name, count in counts.items() if name.startswith("answered."))
    assert counts["accepted"] == answered + counts["in_flight"]
    by_rule = sum(count for name, count in counts.items() if name.startswith("overloaded_by."))
    assert by_rule == counts["answered.overloaded"] + counts["refused.overloaded"]
    return counts


async def test_a_crashing_worker_opens_the_breaker_and_a_sound_one_closes_it(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    file = settings("""
[roles.echo.breaker]
failure_percent = 50
volume_min = 3
open_ms = 1_000
jitter_percent = 0
probes = 2
reclose_ms = 200
""")
    async with serving(epmd, tmp_path, alive="admit_breaker", settings=file) as bridge:
        await bridge.wait_workers(1)
        answers = await ask(  # in one go: the breaker is open for a second only
            beam,
            f"""
            for request <- List.duplicate({{:submit, :echo, "9", opcode: 2}}, 3) ++
                             [{{:submit, :echo, <<>>}}] do
              GenServer.call({bridge.target()}, request, 20_000)
            end
            """,
        )
        assert answers.count("worker_crashed") == 3
        match = re.search(r"error: \{:circuit_open, %\{retry_after_ms: (\d+)\}\}\]", answers)
        assert match is not None, answers
        assert 1 <= int(match[1]) <= 1_001
        # Who waits as long as he is told gets through in the end, and finds it closed again.
        served = await ask(
            beam,
            f"""
            call = fn -> GenServer.call({bridge.target()}, {{:submit, :echo, "x"}}, 20_000) end
            Stream.repeatedly(fn ->
              with {{:error, {{:circuit_open, %{{retry_after_ms: ms}}}}}} <- call.() do
                Process.sleep(min(ms, 50))
              end
            end)
            |> Stream.filter(& &1 == {{:ok, "x"}})
            |> Enum.take(20)
            |> length()
            """,
        )
        assert served == "20"
        await bridge.wait_log("circuit breaker", 8)  # of the worker and of its role
        seen = {(line["worker"] is None, line["state"]) for line in bridge.logs("circuit breaker")}
        for state in ("open", "half_open", "reclosing"):
            assert (True, state) in seen
            assert (False, state) in seen or state == "open"
        assert (True, "closed") in seen
        counts = await accounts_are_even(beam, bridge)
        assert counts["refused.circuit_open"] >= 1
        assert counts["answered.worker_crashed"] == 3


@pytest.mark.smoke
async def test_a_breaker_is_held_by_hand(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path, alive="admit_held", settings=settings("")) as bridge:
        await bridge.wait_workers(1)
        registry = bridge.target("Ringbridge.WorkerRegistry")
        steps = await ask(
            beam,
            f"""
            for how <- [:open, :close, :open, :auto] do
              :ok = GenServer.call({registry}, {{:breaker, :echo, how}})
              case GenServer.call({bridge.target()}, {{:submit, :echo, "x"}}) do
                {{:ok, "x"}} -> :ok
                {{:error, {{reason, _}}}} -> reason
              end
            end
            """,
        )
        assert steps == "[:circuit_open, :ok, :circuit_open, :ok]"


async def test_each_node_and_each_tenant_has_a_rate_of_its_own(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    other = Beam("admit_other", epmd.port)
    file = settings(f"""
[nodes."*"]
rate = {{kind = "token_bucket", jobs = 1, per_ms = 600_000, burst = 6}}

[nodes."admit_other@{HOST}"]
rate = {{kind = "sliding_window", jobs = 9, per_ms = 600_000}}

[tenants.gold]
rate = {{kind = "token_bucket", jobs = 1, per_ms = 600_000, burst = 2}}
""")

    def submit(bridge: Serving, count: int, options: str = "[]") -> str:
        return f"""
        for _ <- 1..{count} do
          case GenServer.call({bridge.target()}, {{:submit, :echo, "x", {options}}}) do
            {{:ok, "x"}} -> 1
            {{:error, {{:overloaded, %{{retry_after_ms: ms}}}}}} when ms in 1..10_000 -> 0
          end
        end
        |> Enum.sum()
        """

    try:
        async with serving(epmd, tmp_path, alive="admit_rates", settings=file) as bridge:
            await bridge.wait_workers(1)
            assert await ask(beam, submit(bridge, 10, '[tenant: "gold"]')) == "2"
            assert await ask(beam, submit(bridge, 10)) == "4"  # what gold has left of its node's
            assert await ask(other, submit(bridge, 20)) == "9"
            assert await ask(other, submit(bridge, 1, '[tenant: "gold"]')) == "0"
            counts = await accounts_are_even(beam, bridge)
            assert counts["overloaded_by.tenant_rate"] == 8
            assert counts["overloaded_by.node_rate"] == 6 + 11 + 1
            # Live: without tables nobody is bounded.
            config = tmp_path / "ringbridge.toml"
            config.write_text(settings(""))
            registry = bridge.target("Ringbridge.WorkerRegistry")
            assert (await ask(beam, f"GenServer.call({registry}, :reload)")).startswith("{:ok")
            assert await ask(other, submit(bridge, 30)) == "30"
    finally:
        other.close()


@pytest.mark.parametrize(
    ("admission", "answers", "rule"),
    [
        ('on_full = "reject"', "o o o . . .", "role_depth"),
        ('on_full = "drop_oldest"', ". . . o o o", "dropped"),
        ('on_full = "defer"', "o o o o o o", None),
        ('on_full = "defer"\ndefer_max = 1', "o o o o . .", "role_depth"),
        ('on_full = "defer"\ndefer_ms = 1', "o o o . . .", "deferred"),
    ],
)
async def test_a_full_role_does_as_it_was_told(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, admission: str, answers: str, rule: str | None
) -> None:
    file = settings(f"[roles.echo.admission]\n{admission}", role="depth_max = 3")
    async with serving(epmd, tmp_path, alive="admit_full", settings=file) as bridge:
        await bridge.wait_workers(1)
        # Suspended, nothing is placed: three wait, three are too many.
        got = await ask(
            beam,
            f"""
            target = {bridge.target()}
            :ok = :sys.suspend(target)
            requests = for n <- 1..6 do
              :gen_server.send_request(target, {{:submit, :echo, "#{{n}}"}})
            end
            Process.sleep(100) # far beyond a defer_ms of 1
            :ok = :sys.resume(target)
            for request <- requests do
              case :gen_server.receive_response(request, 10_000) do
                {{:reply, {{:ok, _}}}} -> "o"
                {{:reply, {{:error, {{:overloaded, _}}}}}} -> "."
              end
            end
            |> Enum.join(" ")
            """,
        )
        assert got == f'"{answers}"'
        counts = await accounts_are_even(beam, bridge)
        if rule is not None:
            assert counts[f"overloaded_by.{rule}"] == answers.count(".")


async def test_twice_what_a_role_can_do_is_half_refused_and_all_answered(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="admit_load", settings=settings("")) as bridge:
        await bridge.wait_workers(2)
        # An open loop: 600 jobs of 5 ms, two each 5 ms, for one worker.
        got = await ask(
            beam,
            f"""
            target = {bridge.target()}
            requests = for _ <- 1..300, reduce: [] do
              sent ->
                Process.sleep(5)
                pair = for _ <- 1..2, do: :gen_server.send_request(target, {{:submit, :sleep, "5"}})
                pair ++ sent
            end
            requests
            |> Enum.map(fn request ->
              case :gen_server.receive_response(request, 30_000) do
                {{:reply, {{:ok, _}}}} -> :ok
                {{:reply, {{:error, {{:overloaded, %{{retry_after_ms: ms}}}}}}}}
                when ms in 1..10_000 -> :overloaded
              end
            end)
            |> Enum.frequencies()
            |> then(&"#{{&1[:ok]}} #{{&1[:overloaded]}}")
            """,
        )
        served, refused = map(int, re.findall(r"\d+", got))
        assert served + refused == 600
        assert served > 100
        assert refused > 100
        counts = await accounts_are_even(beam, bridge)
        assert counts["answered.ok"] == counts["accepted"] == served
        assert counts["overloaded_by.role_depth"] == counts["refused.overloaded"] == refused
