"""Workers and the dispatcher in the node's inspection: each worker a process with true figures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from router_support import World
from serve_support import BIN, ask, serving

from bridge.etf import Atom
from bridge.node.inspection import SupervisorView
from bridge.node.process.details import Details
from bridge.ops.inspection import WorkersSupervisor, dispatcher_details, worker_details
from bridge.testing import Beam, EpmdDaemon
from bridge.workers.worker import State
from bridge.workers.worker_process import WorkerProcess


def resident(os_pid: int, key: str) -> int:
    lines = Path(f"/proc/{os_pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def worker(**fields: Any) -> Any:
    plan = SimpleNamespace(name="echo")
    return SimpleNamespace(
        **{
            "id": 3,
            "index": 0,
            "plan": plan,
            "state": State.READY,
            "os_pid": os.getpid(),
            "registration": None,
            **fields,
        }
    )


def described(one: Any) -> Any:
    names = ("role", "id", "index", "state", "os_pid", "kit", "kit_version", "restarts")
    return {Atom(name): getattr(one, name, None) for name in names}


def test_a_worker_shows_its_jobs_its_os_process_and_that_memory() -> None:
    one = worker()
    details = worker_details(one, SimpleNamespace(in_flight=2, done=7), described(one))
    assert details.label == f"echo worker 3, OS pid {os.getpid()}".encode()
    assert (details.queue_len, details.handled) == (2, 7)
    assert details.doing == (Atom("Elixir.Ringbridge.Worker"), Atom("echo"), 1)
    statm = [int(pages) for pages in Path("/proc/self/statm").read_text().split()]
    assert 0 < details.memory_bytes <= statm[1] * os.sysconf("SC_PAGE_SIZE") * 1.1
    assert dict(details.dictionary)[Atom("os_pid")] == os.getpid()


def test_a_worker_that_is_not_linked_yet_has_done_nothing() -> None:
    one = worker(os_pid=None)
    details = worker_details(one, None, described(one))
    assert (details.queue_len, details.handled, details.memory_bytes) == (0, 0, 0)
    assert details.label == b"echo worker 3"


def test_the_dispatcher_shows_the_jobs_that_wait_and_those_it_took() -> None:
    figures = SimpleNamespace(accepted=9, bytes_in=0, bytes_out=0)
    details = dispatcher_details("Ringbridge.JobDispatcher", figures, queued=4)
    assert (details.queue_len, details.handled) == (4, 9)


def test_an_ended_supervisor_of_workers_is_there_again_above_them() -> None:
    world = World()
    one = worker()
    supervisor = WorkersSupervisor(world.router, lambda: [one])
    one.registration = WorkerProcess(
        world.router,
        describe=lambda: None,
        inspect=lambda: Details(module="Ringbridge.Worker"),
        killed=lambda reason: None,
        parent=supervisor.pid,
    )
    process = world.router.table.find(one.registration.pid)
    view = world.router.table.find(supervisor.pid)
    assert process is not None
    assert view is not None
    assert isinstance(view.inbox, SupervisorView)
    assert process.parent == view.pid
    world.router.terminate(view, Atom("killed"))
    assert process.parent == supervisor.pid != view.pid
    again = world.router.table.find(Atom("port_supervisor"))
    assert again is not None
    assert again.pid == supervisor.pid


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
@pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built")
async def test_the_workers_of_a_running_bridge_are_its_processes(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        supervisor = f"{{Ringbridge.PortSupervisor, :'{bridge.name}'}}"
        await ask(beam, f"children = Supervisor.which_children({supervisor})")
        assert await ask(beam, "for {id, _, kind, _} <- children, do: {id, kind}") == (
            "[{{:echo, 0}, :worker}, {{:sleep, 0}, :worker}, {{:sleep, 1}, :worker}]"
        )
        state = "for {_, pid, _, _} <- children, do: :sys.get_state(pid).role"
        assert await ask(beam, state) == "[:echo, :sleep, :sleep]"
        node = f":'{bridge.name}'"
        submit = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
        assert await ask(beam, submit) == '{:ok, "x"}'
        echo = "[{_, echo, _, _} | _] = children; "
        info = f"{echo} :rpc.call({node}, :erlang, :process_info, [echo, %s])"
        assert await ask(beam, info % ":reductions") == "{:reductions, 1}"
        listed = ":sys.get_state(hd(children) |> elem(1)).os_pid"
        os_pid = await ask(beam, listed)
        dictionary = f"{info % ':dictionary'} |> elem(1) |> Keyword.get(:os_pid)"
        assert await ask(beam, dictionary) == os_pid
        own = resident(int(os_pid), "RssAnon") + resident(int(os_pid), "RssFile")
        _, memory = (await ask(beam, info % ":memory")).strip("{}").split(", ")
        assert int(memory) == pytest.approx(own, rel=0.1)
        pool = f":rpc.call({node}, :erlang, :memory, [:binary])"
        assert int(await ask(beam, pool)) > 0, "rings and pools of the relay"
        root = f"{{:ringbridge_sup, :'{bridge.name}'}}"
        below = f"for {{id, _, _, _}} <- Supervisor.which_children({root}), do: id"
        shown = await ask(beam, below)
        for name in ("JobDispatcher", "WorkerRegistry", "PortSupervisor", "Diagnostics"):
            assert f"Ringbridge.{name}" in shown
