"""Workers that ask workers, through a real bridge: links are granted by policy and told, a death or
a revocation at either end is an error at the other, and who breaks a rule on one loses only that.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serve_support import LIBRARY, ROOT, built_worker, serving, wait_until
from talk_support import Talk
from test_cli_operations import ringbridge

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
command = ["{worker}"]
cancel_term_ms = 2_000
backoff_min_ms = 1
peers = {{ allow = ["back", "mute", "nobody*"], links_max = 3 }}

[roles.back]
command = ["{worker}"]
cancel_term_ms = 2_000
backoff_min_ms = 1
peers = {{ allow = ["front", "last"] }}

[roles.last]
command = ["{worker}"]
peers = {{ allow = ["front"] }}

[roles.mute]
command = ["{worker}", "--serve-nobody"]
"""

PRELUDE = """
submit = fn role, opcode, payload, options ->
  GenServer.call(dispatcher, {:submit, role, payload, [opcode: opcode] ++ options}, 30_000)
end
through = fn role, to, opcode, payload, ms, options ->
  submit.(role, 10, to <> <<0, opcode, ms::little-32>> <> payload, options)
end
manager = {Ringbridge.LinkManager, elem(dispatcher, 1)}
registry = {Ringbridge.WorkerRegistry, elem(dispatcher, 1)}
links = fn -> {:ok, all} = GenServer.call(manager, :list); all end
audit = fn ->
  {:ok, all} = GenServer.call(manager, :audit)
  Enum.map(all, fn e -> {e.event, e.to_role, e.why} end)
end
await = fn await, test -> unless test.(), do: (Process.sleep(5); await.(await, test)) end
os_pid = fn role ->
  {:ok, %{workers: [worker]}} = GenServer.call(registry, {:lookup, role})
  worker.os_pid
end
kill = fn pid -> System.cmd("kill", ["-9", Integer.to_string(pid)]) end
"""


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests/app/peers.c", tmp_path_factory.mktemp("links"))


@pytest.fixture
async def talk(epmd: EpmdDaemon, beam: Beam, tmp_path: Path, worker: Path) -> AsyncIterator[Talk]:
    settings = SETTINGS.format(host=HOST, worker=worker)
    async with serving(epmd, tmp_path, alive="links", settings=settings) as bridge:
        await bridge.wait_workers(4)
        yield Talk(bridge, beam, PRELUDE)


async def test_a_worker_asks_another_and_each_answer_is_what_its_handler_said(talk: Talk) -> None:
    assert (
        await talk("""
        big = :crypto.strong_rand_bytes(3_000_000)
        on_to_last = "last" <> <<0, 0, 5_000::little-32>>
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        [
          through.(:front, "back", 0, "hello", 5_000, []),
          through.(:front, "back", 0, "", 5_000, []),
          through.(:front, "back", 0, big, 20_000, []) == {:ok, big},
          submit.(:front, 10, "back" <> <<0, 4, 5_000::little-32>>, trace: trace),
          through.(:front, "back", 3, "", 5_000, []),
          through.(:front, "back", 5, "", 5_000, []),
          through.(:front, "back", 10, on_to_last <> "chained", 5_000, []),
          length(links.())
        ]
        """)
        == '[{:ok, "hello"}, {:ok, ""}, true, {:ok, "1 0a9c 0"}, '
        '{:error, {:job_failed, 7, "peer: not today"}}, '
        '{:error, {:job_failed, 65281, "peer: the handler returned without an answer"}}, '
        '{:ok, "chained"}, 2]'
    )


async def test_what_policy_does_not_allow_is_refused_and_told(talk: Talk) -> None:
    assert (
        await talk("""
        [
          through.(:mute, "back", 0, "x", 5_000, []),
          through.(:front, "last", 0, "x", 5_000, []),
          through.(:front, "mute", 0, "x", 5_000, []),
          through.(:front, "nobody", 0, "x", 5_000, []),
          links.(),
          Enum.map(audit.(), &elem(&1, 0))
        ]
        """)
        == '[{:error, {:job_failed, 13, "EACCES"}}, {:error, {:job_failed, 13, "EACCES"}}, '
        '{:error, {:job_failed, 3, "ESRCH"}}, {:error, {:job_failed, 3, "ESRCH"}}, [], '
        "[:refused, :refused, :refused, :refused]]"
    )
    lines = talk.bridge.logs("link refused")
    assert [(line["role"], line["peer_role"]) for line in lines] == [
        ("mute", "back"),
        ("front", "last"),
        ("front", "mute"),
        ("front", "nobody"),
    ]


async def test_no_link_closes_a_ring_of_workers_that_wait_for_each_other(talk: Talk) -> None:
    assert (
        await talk("""
        asked = "last" <> <<0, 10, 5_000::little-32>> <> "front" <> <<0, 0, 5_000::little-32>>
        [
          through.(:front, "back", 10, asked, 5_000, []),
          through.(:back, "front", 0, "x", 5_000, [])
        ]
        """)
        # back has its link to last already; each asks its peer for what would lead round.
        == '[error: {:job_failed, 13, "peer: peer: EACCES"}, ok: "x"]'
    )
    assert "ring" in talk.bridge.logs("link refused")[0]["why"]


async def test_the_peers_death_is_an_error_and_the_next_link_goes_to_the_next_life(
    talk: Talk,
) -> None:
    assert (
        await talk("""
        before = os_pid.(:back)
        died = through.(:front, "back", 2, "", 20_000, [])
        await.(await, fn -> os_pid.(:back) not in [nil, before] end)
        await.(await, fn -> match?({:ok, _}, through.(:front, "back", 0, "again", 5_000, [])) end)
        ended = Enum.any?(audit.(), &match?({:ended, "back", _}, &1))
        [died, ended, length(links.())]
        """)
        == '[{:error, {:job_failed, 32, "EPIPE"}}, true, 1]'
    )


async def test_the_askers_death_takes_its_request_back(talk: Talk) -> None:
    assert (
        await talk("""
        pid = os_pid.(:front)
        job = Task.async(fn -> through.(:front, "back", 1, <<60_000::little-32>>, 60_000, []) end)
        await.(await, fn -> links.() != [] end)
        kill.(pid)
        {:error, {:worker_crashed, _}} = Task.await(job, 20_000)
        # It would have slept for a minute.
        [submit.(:back, 0, "free", timeout: 20_000), links.()]
        """)
        == '[{:ok, "free"}, []]'
    )


async def test_a_timeout_or_a_cancel_frees_the_peer_and_the_link_stays(talk: Talk) -> None:
    assert (
        await talk("""
        sleep = <<60_000::little-32>>
        late = through.(:front, "back", 1, sleep, 100, [])
        free = submit.(:back, 0, "free", timeout: 20_000)
        short = through.(:front, "back", 1, sleep, 60_000, timeout: 200)
        free_again = submit.(:back, 0, "free", timeout: 20_000)
        [late, free, short, free_again, through.(:front, "back", 0, "same", 5_000, []),
         Enum.map(links.(), & &1.id)]
        """)
        == '[{:error, {:job_failed, 110, "ETIMEDOUT"}}, {:ok, "free"}, '
        '{:error, :deadline_exceeded}, {:ok, "free"}, {:ok, "same"}, [1]]'
    )


async def test_a_revoked_link_ends_for_both_at_once(talk: Talk) -> None:
    assert (
        await talk("""
        job = Task.async(fn -> through.(:front, "back", 1, <<60_000::little-32>>, 60_000, []) end)
        await.(await, fn -> links.() != [] end)
        [%{id: id, from_role: :front, to_role: :back}] = links.()
        [
          GenServer.call(manager, {:revoke, id}),
          Task.await(job, 20_000),
          submit.(:back, 0, "free", timeout: 20_000),
          match?({:error, {:bad_request, _}}, GenServer.call(manager, {:revoke, id})),
          audit.() |> List.last()
        ]
        """)
        == '[:ok, {:error, {:job_failed, 32, "EPIPE"}}, {:ok, "free"}, true, '
        '{:ended, "back", "revoked"}]'
    )


async def test_a_change_of_policy_ends_what_it_does_not_allow(talk: Talk) -> None:
    assert (
        await talk("""
        [
          through.(:front, "back", 0, "x", 5_000, []),
          elem(GenServer.call(registry, {:configure, "roles.front.peers.allow", []}), 0),
          links.(),
          through.(:front, "back", 0, "x", 5_000, []),
          through.(:front, "back", 0, "x", 5_000, [])
        ]
        """)
        == '[{:ok, "x"}, :ok, [], {:error, {:job_failed, 32, "EPIPE"}}, '
        '{:error, {:job_failed, 13, "EACCES"}}]'
    )


async def test_links_are_bounded_and_given_back(talk: Talk) -> None:
    assert (
        await talk("""
        [
          through.(:front, "back", 0, "x", 5_000, []),
          submit.(:front, 12, "back" <> <<0>>, []),
          submit.(:front, 11, "", []),
          length(links.()),
          through.(:front, "back", 0, "y", 5_000, [])
        ]
        """)
        == '[{:ok, "x"}, {:ok, "2 EBUSY"}, {:ok, ""}, 2, {:ok, "y"}]'
    )


async def test_the_command_line_shows_and_ends_them(talk: Talk, epmd: EpmdDaemon) -> None:
    bridge = talk.bridge
    assert (await ringbridge(epmd, bridge, "links"))[1].strip() == "there are no links"
    assert await talk('through.(:front, "back", 0, "x", 5_000, [])') == '{:ok, "x"}'
    status, said = await ringbridge(epmd, bridge, "links")
    assert (status, "(front)" in said, "(back)" in said) == (0, True, True)
    status, said = await ringbridge(epmd, bridge, "revoke-link", "1")
    assert (status, said.strip()) == (0, "link 1 has ended")
    status, said = await ringbridge(epmd, bridge, "revoke-link", "1")
    assert (status, "there is no link 1" in said) == (1, True)
    status, said = await ringbridge(epmd, bridge, "links", "--audit")
    assert (status, "granted" in said, "revoked" in said) == (0, True, True)
    assert await talk("links.()") == "[]"


LIES = [
    *("short", "kind", "id", "flags", "reserved", "length", "payload", "parts", "inline", "term"),
    *("no_envelope", "descriptor", "memfd_none", "memfd_unsealed", "memfd_huge", "memfd_size"),
    *("pipe", "id_twice"),
]


async def test_who_breaks_a_rule_on_a_link_loses_the_link_and_nobody_a_process(talk: Talk) -> None:
    lies = "~w(" + " ".join(LIES) + ")"
    assert (
        await talk(f"""
        before = {{os_pid.(:front), os_pid.(:back)}}
        # Both may be seen first: the end of the link, or that what was asked on it has none.
        over = fn
          {{:error, {{:job_failed, 32, "EPIPE"}}}} -> true
          {{:error, {{:job_failed, 71, "EPROTO"}}}} -> true
          other -> other
        end
        told = for lie <- {lies} do
          {{lie, over.(submit.(:front, 13, "back" <> <<0>> <> lie <> <<0>>, []))}}
        end
        [
          Enum.reject(told, fn {{_, result}} -> result == true end),
          before == {{os_pid.(:front), os_pid.(:back)}},
          through.(:front, "back", 0, "alive", 5_000, []),
          length(links.())
        ]
        """)
        == '[[], true, {:ok, "alive"}, 1]'
    )
    await wait_until(
        lambda: any(
            "is dropped" in line.get("line", "") for line in talk.bridge.logs("worker says")
        )
    )
