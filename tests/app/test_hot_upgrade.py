"""Another program for a role, under load from a real BEAM: each job runs once and is answered once.

What ran is in a ledger that all workers append to, what was answered is what the callers got.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from serve_support import (
    LIBRARY,
    ROOT,
    Serving,
    ask,
    built_worker,
    descendants,
    serving,
    wait_until,
)

from bridge.testing import HOST, Beam, EpmdDaemon

CALLERS = 16
REFUSED = ("draining", "bad_request", "no_worker")

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the workers are not built"),
]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger's program."""
    return built_worker(ROOT / "tests" / "app" / "ledger.c", tmp_path_factory.mktemp("ledger"))


@asynccontextmanager
async def under_load(
    epmd: EpmdDaemon, beam: Beam, folder: Path, program: Path, alive: str
) -> AsyncIterator[Serving]:
    """A role of two workers tagged `old`, and callers in the BEAM that never pause."""
    settings = f"""
[node]
admin_nodes = ["*@{HOST}"]
drain_ms = 1_000
[roles.book]
command = ["{program}", "{folder}/ledger.txt", "old"]
workers = 2
start_ms = 2_000
probation_ms = 300
backoff_min_ms = 10
"""
    async with serving(epmd, folder, alive=alive, settings=settings) as bridge:
        await bridge.wait_workers(2)
        await ask(
            beam,
            f"""
            target = {bridge.target()}
            registry = {bridge.target("Ringbridge.WorkerRegistry")}
            me = self()
            go = :atomics.new(1, [])
            callers = for c <- 1..{CALLERS} do
              spawn_link(fn ->
                loop = fn loop, n, got ->
                  if :atomics.get(go, 1) == 1 do
                    # What is still in the mailbox is an answer that nobody waits for.
                    {{:message_queue_len, late}} = Process.info(self(), :message_queue_len)
                    send(me, {{:done, got, late}})
                  else
                    id = "#{{c}}-#{{n}}"
                    answer = GenServer.call(target, {{:submit, :book, id}})
                    loop.(loop, n + 1, [{{id, answer}} | got])
                  end
                end
                loop.(loop, 1, [])
              end)
            end
            length(callers)
            """,
        )
        yield bridge


async def finished(beam: Beam, bridge: Serving, folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Stop the load. Returns how often each tag answered, and how often each other answer came,
    after a look at every job: run once, answered once by whom it ran at, or told to be lost.
    """
    text = await ask(
        beam,
        f"""
        :atomics.put(go, 1, 1)
        all = for _ <- 1..{CALLERS}, do: (receive do {{:done, got, late}} -> {{got, late}} end)
        0 = all |> Enum.map(&elem(&1, 1)) |> Enum.sum()
        Enum.map_join(Enum.flat_map(all, &elem(&1, 0)), "\\n", fn
          {{id, {{:ok, answer}}}} -> id <> " ok " <> answer
          {{id, {{:error, reason}}}} when is_atom(reason) -> "#{{id}} #{{reason}}"
          {{id, {{:error, reason}}}} -> "#{{id}} #{{elem(reason, 0)}}"
        end)
        """,
    )
    answers = dict(line.split(" ", 1) for line in text.strip('"').split("\\n"))
    ran = Counter(line.split(" ")[1] for line in (folder / "ledger.txt").read_text().splitlines())
    by = {line.split(" ")[1]: line for line in (folder / "ledger.txt").read_text().splitlines()}
    tags: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for job, answer in answers.items():
        if answer.startswith("ok "):
            assert ran[job] == 1, job
            assert answer == f"ok {by[job]}"
            tags[by[job].split(" ")[0]] += 1
        else:
            others[answer] += 1
            assert ran[job] <= 1, job
    assert set(ran) <= set(answers)
    stats = await ask(
        beam,
        "{:ok, s} = GenServer.call(target, :stats); "
        "{s.accepted, s.in_flight, s.answered |> Map.values() |> Enum.sum()}",
    )
    accepted, in_flight, answered = map(int, re.findall(r"\d+", stats))
    refused = sum(others[reason] for reason in REFUSED)  # never accepted; or taken in before that
    assert accepted <= len(answers)
    assert accepted >= len(answers) - refused
    assert (in_flight, answered) == (0, accepted)
    return tags, others


async def until_upgrade_is(beam: Beam, state: str) -> str:
    """The role's upgrade as Elixir shows it, once it is in that state."""
    look = "{:ok, map} = GenServer.call(registry, {:lookup, :book}); map.upgrade"
    with trio.fail_after(30):
        while f"state: :{state}" not in (seen := await ask(beam, look)):  # noqa: ASYNC110
            await trio.sleep(0.05)
    return seen


async def test_an_upgrade_under_load_loses_and_doubles_nothing(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_good") as bridge:
        command = f'["{program}", "{tmp_path}/ledger.txt", "new"]'
        begun = await ask(beam, f"GenServer.call(registry, {{:upgrade, :book, {command}}})")
        assert "state: :running" in begun
        busy = await ask(beam, "GenServer.call(registry, {:upgrade, :book})")
        assert "it is being upgraded" in busy
        seen = await until_upgrade_is(beam, "done")
        assert "replaced: 2" in seen
        await trio.sleep(0.1)  # under load by the new one alone
        tags, others = await finished(beam, bridge, tmp_path)
        assert others == {}
        assert tags["old"] > 0
        assert tags["new"] > 0
        assert await _programs(bridge, "new") == 2
        assert await ask(beam, "GenServer.call(registry, :reload) |> elem(0)") == ":ok"


async def test_a_program_that_crashes_is_rolled_back_and_only_its_own_jobs_are_lost(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_crash") as bridge:
        command = f'["{program}", "{tmp_path}/ledger.txt", "new", "20"]'
        await ask(beam, f"GenServer.call(registry, {{:upgrade, :book, {command}}})")
        seen = await until_upgrade_is(beam, "rolled_back")
        assert "SIGABRT" in seen
        await trio.sleep(0.1)
        tags, others = await finished(beam, bridge, tmp_path)
        assert set(others) <= {"worker_crashed"}
        assert others["worker_crashed"] >= 1  # the job that it died of was told so, once
        assert tags["old"] > 0
        assert await _programs(bridge, "old") == 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ('["/bin/sleep", "60"]', "did not greet within 2000 ms"),
        ('["/bin/false"]', "ended before it greeted: exit status 1"),
    ],
)
async def test_a_program_that_does_not_greet_costs_no_job(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path, command: str, why: str
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_silent") as bridge:
        await ask(beam, f"GenServer.call(registry, {{:upgrade, :book, {command}}})")
        assert why in await until_upgrade_is(beam, "rolled_back")
        tags, others = await finished(beam, bridge, tmp_path)
        assert (set(tags), others) == ({"old"}, {})
        assert await _programs(bridge, "old") == 2
        # The settings say again what runs: the same can be tried again.
        assert await ask(beam, "GenServer.call(registry, :reload)") == "{:ok, []}"


@pytest.mark.smoke
async def test_a_reload_with_another_command_is_an_upgrade(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_file") as bridge:
        file = tmp_path / "ringbridge.toml"
        file.write_text(file.read_text().replace('"old"', '"new"').replace("= 2\n", "= 3\n", 1))
        answer = await ask(beam, "GenServer.call(registry, :reload)")
        assert "roles.book.command" in answer
        assert "replaced: 3" in await until_upgrade_is(beam, "done")
        tags, others = await finished(beam, bridge, tmp_path)
        assert others == {}
        assert tags["new"] > 0
        assert await _programs(bridge, "new") == 3


async def test_more_and_fewer_workers_and_other_numbers_under_load_lose_nothing(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_count") as bridge:
        for workers in (5, 1, 3, 2):
            change = f'{{:configure, "roles.book.workers", {workers}}}'
            answer = await ask(beam, f"GenServer.call(registry, {change})")
            assert f"now: {workers}" in answer
            for credit_us in (1, 5_000, 200):
                change = f'{{:configure, "roles.book.credit_us", {credit_us}}}'
                assert "{:ok," in await ask(beam, f"GenServer.call(registry, {change})")
            await wait_until(lambda: len(_tags(bridge)) == workers)  # noqa: B023
        tags, others = await finished(beam, bridge, tmp_path)
        assert (set(tags), others) == ({"old"}, {})


async def test_a_role_that_goes_under_load_answers_each_job_once(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    async with under_load(epmd, beam, tmp_path, program, "upgrade_gone") as bridge:
        file = tmp_path / "ringbridge.toml"
        file.write_text(file.read_text().replace("[roles.book]", "[roles.other]"))
        assert '"roles.book"' in await ask(beam, "GenServer.call(registry, :reload)")
        await bridge.wait_log("role removed")
        tags, others = await finished(beam, bridge, tmp_path)
        assert tags["old"] > 0
        assert set(others) <= {"draining", "bad_request", "no_worker"}


async def _programs(bridge: Serving, tag: str) -> int:
    """How many workers run, once all of them are of that tag."""
    await wait_until(lambda: set(_tags(bridge)) == {tag})
    return len(_tags(bridge))


def _tags(bridge: Serving) -> list[str]:
    """Of the workers that run."""
    found = []
    for pid in descendants(bridge.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"/ledger"):
            found.append(words[2].decode())
    return found
