"""A worker process that lies, in a bridge with a real BEAM: killed and named by the rule that it
broke, its caller told so, and no other caller notices. The table of lies is
csrc/tests/test_relay_liars.c; this is the whole way, from the ring to the log.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, ask, built_worker, serving

from bridge.testing import Beam, EpmdDaemon

RULES = {
    "offset": "completion_payload_out_of_range",
    "length": "completion_payload_out_of_range",
    "crc": "completion_crc",
    "job": "completion_of_no_job_here",
    "status": "completion_status",
    "part": "part_not_asked",
    "tail": "completion_tail_out_of_range",
    "pid": "term_identity",
    "atoms": "term_atom_new",
    "short": "term_cut_short",
    "deep": "term_depth",
}

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the core is not built"),
]


@pytest.fixture(scope="session")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests" / "app" / "liar.c", tmp_path_factory.mktemp("liar"))


def settings(liar: Path) -> str:
    return f"""
[roles.liar]
command = ["{liar}"]
max_restarts = 1_000
backoff_min_ms = 1
backoff_max_ms = 5

[roles.honest]
command = ["{ROOT / "build" / "bin" / "rb-echo"}"]
"""


async def test_each_lie_is_told_by_its_rule_and_to_nobody_else(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, liar: Path
) -> None:
    async with serving(epmd, tmp_path, alive="liars", settings=settings(liar)) as bridge:
        await bridge.wait_workers(2)
        lies = ", ".join(f'"{lie}"' for lie in RULES)
        text = await ask(
            beam,
            f"""
            target = {bridge.target()}
            honest = Task.async(fn ->
              right = Enum.all?(1..2_000, fn n ->
                call = {{:submit, :honest, "n#{{n}}"}}
                GenServer.call(target, call, 20_000) == {{:ok, "n#{{n}}"}}
              end)
              if right, do: :undisturbed, else: :disturbed
            end)
            call = fn payload -> GenServer.call(target, {{:submit, :liar, payload}}, 20_000) end
            told = for lie <- [{lies}] do
              {{:error, {{:worker_broke, rule}}}} = call.(lie)
              {{:ok, "the truth"}} = call.("the truth")
              lie <> "=" <> to_string(rule)
            end
            {{:ok, "twice"}} = call.("twice")
            {{:ok, "after it"}} = call.("after it")
            honest = Task.await(honest, 30_000)
            {{:ok, s}} = GenServer.call(target, :stats)
            answered = s.answered |> Map.values() |> Enum.sum()
            even = s.accepted == answered + s.in_flight
            Enum.join(told, " ") <> " #{{honest}} #{{even}} #{{s.answered[:worker_broke]}}"
            """,
        )
        *told, honest, even, broke = text.strip('"').split(" ")
        assert dict(line.split("=") for line in told) == RULES
        assert (honest, even, broke) == ("undisturbed", "true", str(len(RULES)))
        said = [str(line) for line in bridge.logs()]
        for rule in {*RULES.values(), "completion_of_no_job_here"}:
            assert any("broke a rule" in line and rule in line for line in said), rule
