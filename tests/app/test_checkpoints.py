"""State that outlives a worker, through a real bridge and its store: the worker of
workers/c/tests/state.c appends what it is sent, and answers with all of it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, built_worker, serving
from talk_support import Talk
from test_cli_operations import ringbridge

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the kit is not built"),
]

PRELUDE = """
add = fn text -> GenServer.call(dispatcher, {:submit, :keeper, text}, 20_000) end
await = fn text -> GenServer.call(dispatcher, {:submit, :keeper, text, opcode: 1}, 20_000) end
nap = fn ms -> GenServer.call(dispatcher, {:submit, :keeper, "#{ms}", opcode: 2}, 20_000) end
registry = put_elem(dispatcher, 0, Ringbridge.WorkerRegistry)
workers = fn -> {:ok, %{workers: found}} = GenServer.call(registry, {:lookup, :keeper}); found end
ready = fn -> for %{state: :ready, id: id} <- workers.(), do: id end
soon = fn look ->
  Enum.find_value(1..250, :never, fn _ -> look.() || (Process.sleep(20); nil) end)
end
kill = fn ->
  [id] = ready.()
  [%{os_pid: pid}] = for w <- workers.(), w.id == id, do: w
  {_, 0} = System.cmd("kill", ["-9", "#{pid}"])
  soon.(fn -> match?([other] when other != id, ready.()) end)
end
"""

Keeping = Callable[..., AbstractAsyncContextManager[Talk]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "workers/c/tests/state.c", tmp_path_factory.mktemp("state"))


@pytest.fixture
def keeping(epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path) -> Keeping:
    """Serve the role with these settings of its checkpoints; may be done again and again."""

    @asynccontextmanager
    async def keep(
        checkpoint: str, *, store: str = "", workers: int = 1, ready: int | None = None
    ) -> AsyncIterator[Talk]:
        settings = f"""
[node]
drain_ms = 5_000
admin_nodes = ["*@{HOST}"]
[checkpoints]
{store}
[roles.keeper]
command = ["{program}"]
workers = {workers}
backoff_min_ms = 1
max_restarts = 100
[roles.keeper.checkpoint]
keep = true
{checkpoint}
"""
        async with serving(epmd, tmp_path, alive="checkpoints", settings=settings) as bridge:
            await bridge.wait_workers(workers if ready is None else ready)
            yield Talk(bridge, beam, PRELUDE)

    return keep


async def test_a_worker_that_dies_is_given_what_was_saved_when_somebody_asked(
    keeping: Keeping,
) -> None:
    async with keeping("") as keeper:
        text = await keeper("""
            {:ok, "ab"} = add.("ab")
            [id] = ready.()
            saved = GenServer.call(registry, {:checkpoint, id})
            {:ok, "abcd"} = add.("cd")
            kill.()
            [saved, add.("!"), GenServer.call(registry, {:checkpoint, 999})]
            """)
    assert text == (
        '[ok: %{bytes: 2, kind: :full}, ok: "ab!", error: {:bad_request, "no worker has '
        'the id 999; :list and `ringbridge status` show them"}]'
    )


async def test_by_the_count_of_jobs_and_by_the_clock(keeping: Keeping) -> None:
    async with keeping("every_jobs = 2") as keeper:
        text = await keeper("""
            add.("a"); add.("b")
            soon.(fn -> Enum.any?(workers.(), &(&1.said[:saves] == 1)) end)
            kill.()
            add.("c")
            """)
    assert text == '{:ok, "abc"}'
    async with keeping("every_ms = 30\nincremental = true") as keeper:
        text = await keeper("""
            add.("a"); Process.sleep(150); add.("b"); Process.sleep(150)
            kill.()
            add.("c")
            """)
    assert text == '{:ok, "abc"}'


async def test_a_drained_worker_saves_behind_its_last_job(keeping: Keeping) -> None:
    async with keeping("") as keeper:
        text = await keeper("""
            [id] = ready.()
            add.("first")
            task = Task.async(fn -> nap.(150) end)
            Process.sleep(30)
            last = Task.async(fn -> add.("last") end)
            Process.sleep(30)
            :ok = GenServer.call(registry, {:restart, id})
            Task.await(task)
            Task.await(last)  # by the old one or the new one
            soon.(fn -> match?([other] when other != id, ready.()) end)
            add.("!")
            """)
    assert text == '{:ok, "firstlast!"}'


async def test_the_file_outlives_the_bridge(keeping: Keeping, tmp_path: Path) -> None:
    for before, after in (("", "ab"), ("ab", "abab")):
        async with keeping("", store='file = "state.db"') as keeper:
            assert await keeper('add.("ab")') == f'{{:ok, "{after}"}}'
            assert await keeper.bridge.terminate() == 0
        assert before in after
    assert b"abab" in _bytes_of(tmp_path, "state.db")
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


async def test_what_lies_in_the_file_is_encrypted_under_the_key(
    keeping: Keeping, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(os.urandom(32).hex() + "\n")
    key.chmod(0o600)
    store = 'file = "state.db"\nkey_file = "key"'
    async with keeping("", store=store) as keeper:
        await keeper('add.("a secret that nobody reads")')
        assert await keeper.bridge.terminate() == 0
    assert b"secret" not in _bytes_of(tmp_path, "state.db")
    async with keeping("", store=store) as keeper:
        assert await keeper('add.("!")') == '{:ok, "a secret that nobody reads!"}'
    for wrong, why in (
        (lambda: key.write_bytes(os.urandom(32)), "the key is another"),
        (lambda: key.write_text("short"), "a key is 32 bytes or 64 hex digits"),
        (lambda: key.chmod(0o644), "others may read it"),
    ):
        wrong()
        with pytest.raises(AssertionError, match="ended before it was ready"):
            async with keeping("", store=store):
                pass
        assert why in (tmp_path / "serve.log").read_text()


async def test_a_state_too_large_is_not_kept_and_the_last_one_stands(keeping: Keeping) -> None:
    async with keeping("bytes_max = 10") as keeper:
        text = await keeper("""
            add.("0123456789")
            [id] = ready.()
            {:ok, _} = GenServer.call(registry, {:checkpoint, id})
            add.("x")
            refused = GenServer.call(registry, {:checkpoint, id})
            kill.()
            {refused, await.("")}
            """)
    assert text == '{{:error, {:too_large, 10}}, {:ok, "0123456789"}}'


@pytest.mark.parametrize("how", ["stop_and_copy", "pre_copy", "post_copy"])
@pytest.mark.parametrize("incremental", [False, True])
async def test_a_state_moves_with_its_jobs_kept(
    keeping: Keeping, how: str, incremental: bool
) -> None:
    settings = "incremental = true" if incremental else ""
    async with keeping(settings, workers=2) as keeper:
        text = await keeper(f"""
            how = :{how}
            # Which of the two has "ab" is theirs to settle: the other is the target.
            {{:ok, "ab"}} = add.("ab")
            [from] = for w <- workers.(), w.done == 1, do: w.id
            [to] = ready.() -- [from]
            busy = for _ <- 1..4, do: Task.async(fn -> nap.(100) end)
            Process.sleep(30)
            moved = Task.async(fn ->
              GenServer.call(registry, {{:move_state, from, to, how}}, 20_000) end)
            later = for _ <- 1..4, do: Task.async(fn -> await.("") end)
            kept = for t <- busy ++ later, do: elem(Task.await(t, 20_000), 0)
            {{:ok, %{{how: ^how, bytes: bytes, paused_ms: paused}}}} = Task.await(moved, 20_000)
            [%{{state: drained}}] = for w <- workers.(), w.id == from, do: w
            {{Enum.uniq(kept), bytes, is_integer(paused), drained, ready.() == [to], add.("c")}}
            """)
        assert text == '{[:ok], 2, true, :drained, true, {:ok, "abc"}}'
        # It is its new owner's in the store, too.
        assert await keeper('kill.(); add.("!")') == '{:ok, "ab!"}'


async def test_a_move_that_fails_leaves_both_with_what_they_had(keeping: Keeping) -> None:
    async with keeping("", workers=2) as keeper:
        text = await keeper("""
            {:ok, "ab!"} = add.("ab!")
            [from] = for w <- workers.(), w.done == 1, do: w.id
            [to] = ready.() -- [from]
            # "!" has the next save fail, and the one after it succeed.
            failed = GenServer.call(registry, {:move_state, from, to, :stop_and_copy}, 20_000)
            both = soon.(fn -> length(ready.()) == 2 end)
            same = GenServer.call(registry, {:move_state, to, to, :stop_and_copy})
            how = GenServer.call(registry, {:move_state, to, from, :by_magic})
            {elem(failed, 0), both, elem(same, 0), elem(how, 0), elem(await.(""), 0)}
            """)
    assert text == "{:error, true, :error, :error, :ok}"


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_death_amid_a_move_loses_no_state(keeping: Keeping, who: str) -> None:
    async with keeping("", workers=2) as keeper:
        text = await keeper(f"""
            {{:ok, "ab"}} = add.("ab")
            [from] = for w <- workers.(), w.done == 1, do: w.id
            [to] = ready.() -- [from]
            {{:ok, _}} = GenServer.call(registry, {{:checkpoint, from}})
            busy = for _ <- 1..2, do: Task.async(fn -> nap.(2_500) end)
            Process.sleep(100)
            moved = Task.async(fn ->
              GenServer.call(registry, {{:move_state, from, to, :stop_and_copy}}, 20_000) end)
            Process.sleep(100)
            [%{{os_pid: pid}}] =
              for w <- workers.(), w.id == %{{source: from, target: to}}[:{who}], do: w
            {{_, 0}} = System.cmd("kill", ["-9", "#{{pid}}"])
            {{:error, _}} = Task.await(moved, 20_000)
            for t <- busy, do: Task.await(t, 20_000)
            true = soon.(fn -> length(ready.()) == 2 end)
            # One of them has it still, and the other has none.
            states = for _ <- 1..20, do: await.("")
            states |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> Enum.sort()
            """)
        assert text in ('["", "ab"]', '["ab"]')


async def test_the_command_line_does_the_same(keeping: Keeping, epmd: EpmdDaemon) -> None:
    async with keeping("", workers=2) as keeper:
        await keeper('add.("ab")')
        source = await keeper("[from] = for w <- workers.(), w.done == 1, do: w.id; from")
        target = await keeper(f"[to] = ready.() -- [{source}]; to")
        bridge = keeper.bridge
        assert await ringbridge(epmd, bridge, "checkpoint", source) == (
            0,
            f"worker {source}: 2 bytes are kept (full)\n",
        )
        status, said = await ringbridge(epmd, bridge, "move-state", source, target)
        assert status == 0
        assert f"worker {target} has the state of worker {source}: 2 bytes" in said
        status, said = await ringbridge(epmd, bridge, "checkpoint", source)
        assert (status, said) == (1, f"ringbridge: worker {source} has ended\n")


async def test_a_state_that_its_worker_does_not_take_gives_it_up(
    keeping: Keeping, tmp_path: Path
) -> None:
    async with keeping("every_ms = 30") as keeper:
        await keeper('add.("?")')
        await keeper("Process.sleep(150)")
        await keeper("""
            [%{os_pid: pid}] = workers.()
            System.cmd("kill", ["-9", "#{pid}"])
            """)
        line = await keeper.bridge.wait_log("worker output")
        assert "it has no state to begin with" in line["line"]


def _bytes_of(folder: Path, name: str) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob(f"{name}*"))


async def test_a_damaged_state_keeps_its_worker_from_starting_and_nobody_else(
    keeping: Keeping, tmp_path: Path
) -> None:
    store = 'file = "state.db"'
    async with keeping("", store=store, workers=2) as keeper:
        await keeper("""
            {:ok, _} = add.("a")
            for id <- ready.(), do: {:ok, _} = GenServer.call(registry, {:checkpoint, id})
            """)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("UPDATE checkpoint SET kind = 7 WHERE place = 0")
        db.commit()
    async with keeping("", store=store, workers=2, ready=1) as keeper:
        bridge = keeper.bridge
        why = (await bridge.wait_log("state not loaded", 3))["why"]
        assert "damaged, or was changed by another hand: worker 0 of keeper" in why
        failed = await bridge.wait_log("worker failed", 3)
        assert "exit status 65" in failed["why"]
        assert await keeper('{:ok, text} = add.("b"); String.ends_with?(text, "b")') == "true"
        assert len(bridge.logs("worker ready")) == 1
