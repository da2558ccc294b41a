"""Which worker gets a job with a key, and in which order those of one key run, as a BEAM asks for
it and while workers die: docs/dispatch.md.

What ran is in a log that all workers append to, what was answered is what the callers got.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, Serving, ask, built_worker, serving

from bridge.testing import HOST, Beam, EpmdDaemon

WORKERS, KEYS, JOBS = 4, 12, 40  # jobs of each key

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the workers are not built"),
]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests" / "app" / "keyed.c", tmp_path_factory.mktemp("keyed"))


def settings(program: Path, folder: Path, choice: str) -> str:
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.keyed]
command = ["{program}", "{folder}"]
workers = {WORKERS}
idempotent = true
max_restarts = 1_000
backoff_min_ms = 1
backoff_max_ms = 5

[roles.keyed.choice]
{choice}
"""


async def run(beam: Beam, bridge: Serving, crash: str, options: str) -> dict[str, list[str]]:
    """Send JOBS jobs of each key, all at once and the keys in turn. Returns the answers by payload.
    `crash`: Elixir of when job `n` of key `k` kills its worker the first time.
    """
    await bridge.wait_workers(WORKERS)
    text = await ask(
        beam,
        f"""
        target = {bridge.target()}
        for n <- 1..{JOBS}, k <- 1..{KEYS} do
          word = if {crash}, do: "crash", else: "run"
          payload = "k#{{k}} #{{n}} #{{word}}"
          :gen_server.send_request(target, {{:submit, :keyed, payload, {options}}})
          payload
        end
        |> Enum.map_join("\\n", fn payload ->
          receive do
            {{_, {{:ok, answer}}}} -> answer <> " ok"
            {{_, {{:error, {{reason, _}}}}}} -> "? ? ? #{{reason}}"
            {{_, {{:error, reason}}}} -> "? ? ? #{{reason}}"
          after
            20_000 -> payload <> " silence"
          end
        end)
        """,
    )
    answers: dict[str, list[str]] = defaultdict(list)
    for line in text.strip('"').split("\\n"):
        payload, answer = line.rsplit(" ", 1)
        answers[payload].append(answer)
    return answers


def runs(folder: Path) -> dict[str, list[tuple[str, int, str]]]:
    """What happened to the jobs of each key: (B or E, number, worker), in order."""
    log: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    for line in (folder / "log.txt").read_text().splitlines():
        what, key, number, worker = line.split(" ")
        log[key].append((what, int(number), worker))
    return log


def in_order(happened: Iterable[tuple[str, int, str]], again: bool) -> Counter[int]:
    """Each job begins only when the one before it has ended, or its worker has died of it. Returns
    how often each was begun. `again`: a job may be begun a second time, before any later one.
    """
    begun: Counter[int] = Counter()
    running: int | None = None
    last = 0
    for what, number, _ in happened:
        if what == "E":
            assert running == number
            running = None
            continue
        # Who is still running has died: nothing told its end.
        if running is not None:
            assert again == (number == running), (running, number)
        assert number == (last if begun[number] else last + 1), (last, number)
        begun[number] += 1
        running, last = number, number
    return begun


async def test_order_by_key_holds_while_workers_die_of_jobs_that_run_again(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    file = settings(program, tmp_path, "ordered = true")
    async with serving(epmd, tmp_path, alive="keys_again", settings=file) as bridge:
        crash = "rem(n * 7 + k, 15) == 0"
        answers = await run(beam, bridge, crash, '[key: "k#{k}", retry: 1, timeout: 30_000]')
        assert all(answer == ["ok"] for answer in answers.values()), answers
        assert len(answers) == KEYS * JOBS
        crashes = 0
        for key, happened in runs(tmp_path).items():
            begun = in_order(happened, again=True)
            assert begun.keys() == set(range(1, JOBS + 1)), key
            for number, times in begun.items():
                died = (number * 7 + int(key[1:])) % 15 == 0
                assert times == 1 + died, (key, number)
                crashes += died
        assert crashes >= KEYS


async def test_order_by_key_holds_while_jobs_are_lost_with_their_workers(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    file = settings(program, tmp_path, "ordered = true")
    async with serving(epmd, tmp_path, alive="keys_lost", settings=file) as bridge:
        crash = "rem(n * 7 + k, 15) == 0"
        answers = await run(beam, bridge, crash, "%{key: k, timeout: 30_000}")
        lost = answers.pop("? ? ?")
        assert set(lost) == {"worker_crashed"}
        assert all(answer == ["ok"] for answer in answers.values())
        assert len(answers) + len(lost) == KEYS * JOBS
        for key, happened in runs(tmp_path).items():
            begun = in_order(happened, again=False)
            assert begun == dict.fromkeys(range(1, JOBS + 1), 1), key


async def test_a_key_keeps_its_worker_where_nothing_is_stolen(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    file = settings(program, tmp_path, "steal = false")
    async with serving(epmd, tmp_path, alive="keys_stay", settings=file) as bridge:
        await run(beam, bridge, "false", "[key: k]")
        at = {key: {worker for _, _, worker in log} for key, log in runs(tmp_path).items()}
        assert all(len(workers) == 1 for workers in at.values()), at
        assert len({worker for workers in at.values() for worker in workers}) > 1


async def test_a_retry_is_refused_where_the_role_is_not_idempotent(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    file = settings(program, tmp_path, "").replace("idempotent = true", "")
    async with serving(epmd, tmp_path, alive="keys_refused", settings=file) as bridge:
        call = f'GenServer.call({bridge.target()}, {{:submit, :keyed, "k 1 run", [retry: 2]}})'
        answer = await ask(beam, call)
        assert re.search(r"bad_request.*retry: 2, but role keyed is not idempotent", answer)
        log = tmp_path / "log.txt"  # which its worker makes, as soon as it has come up
        assert not log.exists() or not log.read_text()


async def test_weights_and_policy_change_while_jobs_run(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, program: Path
) -> None:
    file = settings(program, tmp_path, 'policy = "weighted"')
    async with serving(epmd, tmp_path, alive="keys_weights", settings=file) as bridge:
        registry = bridge.target("Ringbridge.WorkerRegistry")
        await bridge.wait_workers(WORKERS)
        answer = await ask(
            beam,
            f"""
            target = {bridge.target()}
            configure = &GenServer.call({registry}, {{:configure, "roles.keyed.choice." <> &1, &2}})
            {{:ok, _}} = configure.("weights", [7])
            for n <- 1..100, do: GenServer.call(target, {{:submit, :keyed, "k #{{n}} run"}})
            {{:error, refused}} = configure.("policy", "best")
            refused
            """,
        )
        assert "roles.keyed.choice.policy" in answer
        ran = Counter(worker for what, _, worker in runs(tmp_path)["k"] if what == "B")
        assert sorted(ran.values()) == [10, 10, 10, 70]
