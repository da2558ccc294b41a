"""A worker in Python and one in C on one link, each asking the other, through a real bridge."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, built_worker, serving
from talk_support import Talk
from test_worker_links import PRELUDE

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the kit is not built"),
]

SETTINGS = """
[node]
drain_ms = 2_000
admin_nodes = ["*@{host}"]

[roles.front]
command = {front}
env = {env}
backoff_min_ms = 1
peers = {{ allow = ["back"] }}

[roles.back]
command = {back}
env = {env}
cancel_term_ms = 2_000
backoff_min_ms = 1
"""
PYTHON = f'["{sys.executable}", "{ROOT}/tests/app/peers.py"]'
ENV = f'{{ PYTHONPATH = "{ROOT}/workers/python:{ROOT}" }}'


@pytest.fixture(scope="session")
def c_worker(tmp_path_factory: pytest.TempPathFactory) -> str:
    worker = built_worker(ROOT / "tests/app/peers.c", tmp_path_factory.mktemp("links_python"))
    return f'["{worker}"]'


@pytest.mark.parametrize("asking", ["python", "c"])
async def test_a_worker_in_python_and_one_in_c_ask_each_other(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, c_worker: str, asking: str
) -> None:
    front, back = (PYTHON, c_worker) if asking == "python" else (c_worker, PYTHON)
    settings = SETTINGS.format(host=HOST, front=front, back=back, env=ENV)
    async with serving(epmd, tmp_path, alive=f"kits-{asking}", settings=settings) as bridge:
        await bridge.wait_workers(2)
        told = await Talk(bridge, beam, PRELUDE)(
            """
            big = :crypto.strong_rand_bytes(3_000_000)
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            asked = [
              through.(:front, "back", 0, "hello", 5_000, []),
              through.(:front, "back", 0, big, 20_000, []) == {:ok, big},
              submit.(:front, 10, "back" <> <<0, 4, 5_000::little-32>>, trace: trace),
              through.(:front, "back", 3, "", 5_000, []),
              through.(:front, "back", 1, <<60_000::little-32>>, 100, []),
              through.(:front, "back", 1, <<60_000::little-32>>, 60_000, timeout: 200),
              submit.(:back, 0, "free", timeout: 20_000)
            ]
            long = <<60_000::little-32>>
            job = Task.async(fn -> through.(:front, "back", 1, long, 60_000, []) end)
            [%{id: id}] = links.()
            Process.sleep(50)
            :ok = GenServer.call(manager, {:revoke, id})
            revoked = Task.await(job, 20_000)
            before = os_pid.(:back)
            died = through.(:front, "back", 2, "", 20_000, [])
            await.(await, fn -> os_pid.(:back) not in [nil, before] end)
            again = fn -> match?({:ok, _}, through.(:front, "back", 0, "again", 5_000, [])) end
            await.(await, again)
            asked ++ [revoked, died, length(links.())]
            """,
        )
    assert told == (
        '[{:ok, "hello"}, true, {:ok, "1 0a9c 0"}, {:error, {:job_failed, 7, "peer: not today"}}, '
        '{:error, {:job_failed, 110, "ETIMEDOUT"}}, {:error, :deadline_exceeded}, {:ok, "free"}, '
        '{:error, {:job_failed, 32, "EPIPE"}}, {:error, {:job_failed, 32, "EPIPE"}}, 1]'
    )
