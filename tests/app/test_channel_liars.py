"""A worker that lies on its channel, in a bridge with a real BEAM: who breaks a rule of
docs/channel.md is ended and named by it, who only says too much goes on, and nobody else notices.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, Serving, ask, built_worker, serving, wait_until

from bridge.testing import HOST, Beam, EpmdDaemon

# The lie, and what the log says of it.
RULES = {
    "short": "31 bytes is shorter than its head",
    "empty": "a packet of 0 bytes is shorter than its head",
    "empty_at_the_end": "a packet of 0 bytes is shorter than its head",
    "long": "longer than 65536 bytes",
    "kind": "kind 999",
    "kind_of_the_bridge": "kind 17",
    "flags": "flags 0x80",
    "error_flag": "flag of an error",
    "reserved": "reserved 1",
    "length": "bytes were announced",
    "id_of_the_bridge": "one of the bridge's",
    "no_id": "id 0 of kind 2",
    "id_twice": "id 5 is open already",
    "reply": "a reply to what was not asked",
    "save": "a checkpoint in answer to what was not asked",
    "save_kind": "a checkpoint of kind 7",
    "save_short": "a checkpoint without its kind",
    "term": "not well-formed",
    "trailing": "1 bytes behind a term",
    "arity": "no tuple of 2",
    "dest": "a destination is",
    "timeout": "timeout is 0 to 86400000",
    "level": "level is debug",
    "line": "at most 4096 bytes",
    "descriptor": "1 descriptors where 0 belong",
    "two_descriptors": "2 descriptors where 1 belong",
    "many_descriptors": "descriptors where 1 belong",
    "no_descriptor": "0 descriptors where 1 belong",
    "unsealed": "not sealed against changes",
    "memfd_size": "a memfd of 9 bytes, announced as 1000",
    "pipe": "no memfd",
    "socket": "no memfd",
    "device": "no memfd",
    "zeros": "not well-formed",
}
HARMLESS = [
    "huge_memfd",
    "huge_checkpoint",
    "atoms",
    "deep",
    "forget",
    "flood",
    "lines",
    "unread",
    "closed",
]

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the kit is not built"),
]


@pytest.fixture(scope="session")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests/app/channel_liar.c", tmp_path_factory.mktemp("channel"))


def settings(liar: Path) -> str:
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.liar]
command = ["{liar}"]
max_restarts = 1_000
backoff_min_ms = 1
backoff_max_ms = 5
[roles.liar.callback]
allow = ["reg", "held"]
packets_per_s = 10_000
[roles.liar.checkpoint]
keep = true

[roles.honest]
command = ["{ROOT / "build" / "bin" / "rb-echo"}"]
"""


def descriptors(bridge: Serving) -> int:
    return len(os.listdir(f"/proc/{bridge.pid}/fd"))


CALLS = """
call = fn payload -> GenServer.call(target, {:submit, :liar, payload}, 20_000) end
"""


async def test_each_lie_is_told_by_its_rule_and_to_nobody_else(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, liar: Path
) -> None:
    async with serving(epmd, tmp_path, alive="channel_liars", settings=settings(liar)) as bridge:
        await bridge.wait_workers(2)
        await ask(beam, f'GenServer.call({bridge.target()}, {{:submit, :liar, "the truth"}})')
        before = descriptors(bridge)
        lies = ", ".join(f'"{lie}"' for lie in RULES)
        told = await ask(
            beam,
            f"""
            target = {bridge.target()}
            {CALLS}
            honest = Task.async(fn ->
              Enum.all?(1..2_000, fn n ->
                call = {{:submit, :honest, "n#{{n}}"}}
                GenServer.call(target, call, 20_000) == {{:ok, "n#{{n}}"}}
              end)
            end)
            Process.register(spawn(fn -> Process.sleep(:infinity) end), :held)
            told = for lie <- [{lies}] do
              {{:error, {{:worker_crashed, %{{signal: 9}}}}}} = call.(lie)
            end
            {{length(told), Task.await(honest, 60_000), call.("the truth")}}
            """,
        )
        assert told == f'{{{len(RULES)}, true, {{:ok, "alive"}}}}'
        rules = [line["rule"] for line in bridge.logs("worker broke a rule of its channel")]
        assert len(rules) == len(RULES)
        for (lie, rule), said in zip(RULES.items(), rules, strict=True):
            assert rule in said, lie
        listed = await ask(
            beam,
            f"""
            registry = {bridge.target("Ringbridge.WorkerRegistry")}
            {{:ok, workers}} = GenServer.call(registry, :list)
            for %{{role: :liar, last_error: why}} <- workers, do: why
            """,
        )
        assert "it broke a rule of its channel: a term is not well-formed" in listed
        await wait_until(lambda: descriptors(bridge) <= before)  # none of theirs is left


async def test_who_says_too_much_is_slowed_down_or_refused_and_goes_on(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, liar: Path
) -> None:
    async with serving(epmd, tmp_path, alive="channel_flood", settings=settings(liar)) as bridge:
        await bridge.wait_workers(2)
        await ask(beam, f'GenServer.call({bridge.target()}, {{:submit, :liar, "the truth"}})')
        before = descriptors(bridge)
        told = await ask(
            beam,
            f"""
            target = {bridge.target()}
            {CALLS}
            told = for lie <- {HARMLESS!r} |> Enum.map(&to_string/1) do
              {{lie, call.(lie), GenServer.call(target, {{:submit, :honest, lie}}) == {{:ok, lie}}}}
            end
            {{:ok, workers}} = GenServer.call(put_elem(target, 0, Ringbridge.WorkerRegistry), :list)
            [read] = for %{{role: :liar, said: said}} <- workers, do: Map.get(said, :calls, 0)
            once = for {{_, answer, honest}} <- told, uniq: true, do: {{answer, honest}}
            {{once, read < 1500}}
            """,
        )
        # Of 3000 calls whose answers it does not read, few are read: the others fill its socket.
        assert told == '{[{{:ok, "alive"}, true}], true}'
        assert len(bridge.logs("worker ready")) == 2  # nobody was ended for any of it
        assert not bridge.logs("worker broke a rule of its channel")
        whys = " ".join(line["why"] for line in bridge.logs("worker's message not sent"))
        assert "too_large" in whys
        said = len(bridge.logs("worker says"))
        dropped = sum(
            line["lines"]
            for line in bridge.logs("worker's lines were dropped: too many in a second")
        )
        assert said < 1000
        assert said + dropped <= 1000
        await wait_until(lambda: descriptors(bridge) <= before)


async def test_who_does_not_read_is_given_its_state_once(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, liar: Path
) -> None:
    async with serving(epmd, tmp_path, alive="channel_loads", settings=settings(liar)) as bridge:
        await bridge.wait_workers(2)
        told = await ask(
            beam,
            f"""
            target = {bridge.target()}
            {CALLS}
            alive = call.("loads")
            given = fn ->
              registry = put_elem(target, 0, Ringbridge.WorkerRegistry)
              {{:ok, workers}} = GenServer.call(registry, :list)
              [said] = for %{{role: :liar, said: said}} <- workers, do: said
              [loads, refused] = for what <- [:loads, :refused], do: Map.get(said, what, 0)
              {{loads > 60, loads - refused}}
            end
            # What has been asked for may not be refused yet; what has been given stays given.
            settled = Enum.find_value(1..600, fn _ ->
              Process.sleep(100)
              with now <- given.(), true <- now == {{true, 2}}, do: now
            end)
            {{alive, settled || given.()}}
            """,
        )
        # The first lies in the socket, the second waits for it to be read, with 8 MiB each.
        assert told == '{{:ok, "alive"}, {true, 2}}'
