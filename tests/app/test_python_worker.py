"""A worker in Python under a bridge: it calls back into a real BEAM and outlives its deaths."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from serve_support import ROOT, ask, serving

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
]

WORKER = """
import errno, os, signal
from bridge.etf import Atom
from ringbridge_worker import ChannelError, JobFailed, State, Term, serve
told = []

def handle(job):
    asked = job.term()
    match asked.name if isinstance(asked, Atom) else (asked[0].name, *asked[1:]):
        case ("add", word):
            told.append(word.decode())
            return ",".join(told).encode()
        case ("call", name, node, request):
            try:
                return Term((Atom("ok"), job.call((name.name, node.name), request, timeout_s=10)))
            except ChannelError as error:
                raise JobFailed(error.errno, str(error))
        case ("send", pid, message):
            job.send(pid, message)
            return b""
        case "log":
            job.log("warning", "as told")
            return b""
        case "save":
            job.checkpoint(",".join(told).encode())
            return b""
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "long":
            job.sleep(60)
        case "raise":
            raise LookupError("nothing there")

def restore(state):
    told[:] = state.data.decode().split(",")

serve(handle, restore=restore)
"""


async def test_it_calls_sends_logs_fails_is_cancelled_and_begins_with_its_state(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    path = os.pathsep.join([str(ROOT / "workers" / "python"), str(ROOT)])
    settings = f"""
[node]
admin_nodes = ["*@{HOST}"]
[roles.py]
command = {json.dumps([sys.executable, str(tmp_path / "worker.py")])}
env = {{ PYTHONPATH = {json.dumps(path)} }}
backoff_min_ms = 1
[roles.py.callback]
allow = ["python_callee@caller@{HOST}"]
pids = ["caller@{HOST}"]
[roles.py.checkpoint]
keep = true
"""
    async with serving(epmd, tmp_path, alive="pyworker", settings=settings) as bridge:
        await bridge.wait_workers(1)
        prelude = f"""
        submit = fn term, opts ->
          GenServer.call({bridge.target()}, {{:submit, :py, term, opts}}, 30_000)
        end
        """

        async def run(code: str) -> str:
            return await ask(beam, prelude + code)

        assert (
            await run("""
            defmodule PythonCallee do
              use GenServer
              def init(_), do: {:ok, nil}
              def handle_call({:twice, n}, _, s), do: {:reply, 2 * n, s}
            end
            {:ok, _} = GenServer.start(PythonCallee, nil, name: :python_callee)
            allowed = submit.({:call, :python_callee, node(), {:twice, 21}}, [])
            {:error, {:job_failed, code, _}} = submit.({:call, :elsewhere, node(), 1}, [])
            submit.({:send, self(), {:hello, 1}}, [])
            got = receive do message -> message after 10_000 -> :nothing end
            {allowed, code, got}
            """)
            == "{{:ok, {:ok, 42}}, 13, {:hello, 1}}"
        )
        assert await run("submit.(:log, [])") == '{:ok, ""}'
        line = await bridge.wait_log("worker says")
        assert (line["line"], line["level"], line["role"]) == ("as told", "warning", "py")
        assert line["job"] > 0
        assert (
            await run("submit.(:raise, [])")
            == '{:error, {:job_failed, 65282, "LookupError: nothing there"}}'
        )
        assert await run("submit.(:long, timeout: 100)") == "{:error, :deadline_exceeded}"
        assert (
            await run("""
            {:ok, "a"} = submit.({:add, "a"}, [])
            {:ok, "a,b"} = submit.({:add, "b"}, [])
            {:ok, ""} = submit.(:save, [])
            {:ok, "a,b,c"} = submit.({:add, "c"}, [])
            {:error, {:worker_crashed, %{signal: 11}}} = submit.(:die, [])
            submit.({:add, "d"}, [])
            """)
            == '{:ok, "a,b,d"}'
        )
