"""Real programs look at our node: etop and observer run, and every call that they were recorded to
make is answered.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recorded_calls as recorded
import trio
from inspect_support import inspected_node
from node_support import OpenNode, needs_erlang
from services import Counter

from bridge.etf import Atom
from bridge.node import ProcessHandle
from bridge.testing import COOKIE, HOST, EpmdDaemon


async def idle(me: ProcessHandle) -> None:
    while True:
        await me.receive()


@pytest.mark.parametrize(
    ("how", "module", "function", "args"),
    [
        pytest.param(*call, id=f"{program}-{call[1]}:{call[2]}-{number}")
        for program, calls in [
            ("observer", recorded.OBSERVER),
            ("etop", recorded.ETOP),
            ("dashboard", recorded.DASHBOARD),
            ("shell", recorded.SHELL),
        ]
        for number, call in enumerate(calls)
    ],
)
async def test_a_recorded_call_is_answered(
    how: str, module: str, function: str, args: list[Any]
) -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        await rpc("proc_lib", "translate_initial_call", pid)
        window = await rpc.node.spawn(idle)
        stands_for = {recorded.PID: pid, recorded.WINDOW: window}
        given = [stands_for.get(arg, arg) if isinstance(arg, Atom) else arg for arg in args]
        if how == "call":
            await rpc(module, function, *given)
        else:
            assert await rpc.spawn(module, function, *given)


# -- the programs themselves ----------------------------------------------------------------------


@functools.cache
def erlang_has(module: str) -> bool:
    """Whether the Erlang of this test run has that module."""
    if shutil.which("erl") is None:
        return False
    ask = f"io:format(~s, [code:which({module})]), halt().".replace("~s", '"~p"')
    told = subprocess.run(["erl", "-noinput", "-eval", ask], capture_output=True, check=False)
    return told.returncode == 0 and b"non_existing" not in told.stdout


@functools.cache
def otp_release() -> str:
    told = subprocess.run(
        ["erl", "-noinput", "-eval", "io:put_chars(erlang:system_info(otp_release)), halt()."],
        capture_output=True,
        check=True,
    )
    return told.stdout.decode()


def run_erlang(
    epmd: EpmdDaemon, name: str, code: str, **environment: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *("erl", "-noinput", "-name", f"{name}@{HOST}", "-setcookie", COOKIE),
            *("-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-eval", code),
        ],
        env={
            **os.environ,
            "ERL_EPMD_PORT": str(epmd.port),
            "ERL_CRASH_DUMP_BYTES": "0",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def output_of(process: subprocess.Popen[bytes]) -> str:
    try:
        told, _ = await trio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
    finally:
        process.kill()
        process.wait()
    return bytes(told).decode("utf-8", "replace")


async def output_until(process: subprocess.Popen[bytes], *words: str) -> str:
    """What it prints until each of these was in it; all of it if it ends before."""
    assert process.stdout is not None
    told = ""
    while not all(word in told for word in words):
        line = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        if not line:
            break
        told += line.decode("utf-8", "replace")
    return told


# It stops when its page was read, and says whatever it says at its end.
ETOP = """
  Read = fun Wait() ->
    case filelib:is_file("%s") of true -> ok; false -> timer:sleep(50), Wait() end
  end,
  spawn(fun() -> Read(), etop:stop(), timer:sleep(200), halt() end),
  etop:start([{node, '%s'}, {output, text}, {interval, 5}, {tracing, off}]).
"""


@needs_erlang
@pytest.mark.beam
async def test_etop_prints_our_processes_and_memory(
    epmd: EpmdDaemon, open_test_node: OpenNode, tmp_path: Path
) -> None:
    if not erlang_has("etop"):
        pytest.skip("this Erlang has no observer application (Debian: erlang-observer)")
    if otp_release() in ("27", "28"):
        pytest.skip("etop of OTP 27 traces another node whatever it is told (etop.erl, start/1)")
    async with open_test_node(services={"counter": Counter()}) as node:
        read = tmp_path / "read"
        etop = run_erlang(epmd, "etop", ETOP % (read, node.name))
        page = await output_until(etop, "Memory:", " counter ")
        read.touch()
        told = page + await output_of(etop)
        assert node.name in told, told
        [*_, counter] = [line for line in told.splitlines() if " counter " in line]
        assert "'bridge.node.process" in counter, "etop prints twenty characters of a function"
        [*_, load] = [line for line in told.splitlines() if "Memory:" in line]
        assert int(load.split("total")[1].split()[0]) > 1000, "kilobytes of this process"
        assert "Erlang has closed" not in told
        assert "crashed" not in told


# Every tab of observer, then the window of one process; ends by itself.
OBSERVER = """
  pong = net_adm:ping('%(node)s'),
  ok = observer:start(),
  [_, State | _] = sys:get_state(observer),
  [Nodes] = [L || L <- tuple_to_list(State), is_list(L), lists:member('%(node)s', L)],
  Place = length(lists:takewhile(fun(Node) -> Node =/= '%(node)s' end, Nodes)) + 1,
  observer ! {wx, 1000 + Place, undefined, [], {wxCommand, command_menu_selected, [], 0, 0}},
  observer ! {get_debug_info, self()},
  Book = receive {observer_debug, Env, Found, _} -> wx:set_env(Env), Found end,
  lists:foreach(fun(Tab) -> wxNotebook:setSelection(Book, Tab), timer:sleep(700) end,
                lists:seq(0, 8)),
  wxNotebook:setSelection(Book, 4),
  Pid = rpc:call('%(node)s', erlang, whereis, [counter]),
  observer ! {open_link, Pid},
  timer:sleep(1500),
  Infos = [P || P <- processes(),
                proc_lib:translate_initial_call(P) =:= {observer_procinfo, init, 1}],
  io:format("~nlooked: ~p ~p~n", [is_pid(whereis(observer)), length(Infos)]),
  halt().
"""


@pytest.fixture
def display() -> Iterator[str]:
    """An X server of this test, on a display that it picks itself."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb to show observer on")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with open(reading) as told:
        number = told.readline().strip()
    yield f":{number}"
    server.send_signal(signal.SIGTERM)
    server.wait()


@needs_erlang
@pytest.mark.beam
async def test_observer_shows_every_tab_of_our_node(
    epmd: EpmdDaemon, open_test_node: OpenNode, display: str, tmp_path: Any, carrier: Any
) -> None:
    if not (erlang_has("observer_wx") and erlang_has("wx")):
        pytest.skip("this Erlang has no wx application, or no observer (Debian: erlang-observer)")
    if carrier.__name__ == "plain_carrier":
        pytest.skip("it takes ten seconds; once, over the relay, is enough")
    async with open_test_node(services={"counter": Counter()}) as node:
        code = OBSERVER % {"node": node.name}
        process = run_erlang(epmd, "watcher", code, DISPLAY=display, HOME=str(tmp_path))
        told = await output_of(process)
        assert "looked: true 1" in told, told
        assert "crashed" not in told
