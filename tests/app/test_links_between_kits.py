"""Links between workers of different kits, through a real bridge: C asks Rust, which asks Zig,
which asks C. Each kit's asking end meets the serving end of another language; what they agree on is
docs/links.md, and the job language of docs/workers-conformance.md is what they say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serve_support import BIN, LIBRARY, ROOT, built_worker, serving
from talk_support import Talk
from test_worker_links import LIES

from bridge.testing import HOST, Beam, EpmdDaemon

KITS = {"c": "", "rust": "-rust", "zig": "-zig"}
WORKERS = {kit: BIN / f"rb-conformance{suffix}" for kit, suffix in KITS.items()}

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(
        not all(worker.exists() for worker in (LIBRARY, *WORKERS.values())),
        reason="not all kits are built",
    ),
]

SETTINGS = """
[node]
drain_ms = 2_000
admin_nodes = ["*@{host}"]

[roles.front]
command = ["{c}"]
cancel_term_ms = 2_000
peers = {{ allow = ["conformance-links-rust"] }}

[roles.conformance-links-rust]
command = ["{rust}"]
cancel_term_ms = 2_000
backoff_min_ms = 1
peers = {{ allow = ["conformance-links-zig"] }}

[roles.conformance-links-zig]
command = ["{zig}"]
cancel_term_ms = 2_000
backoff_min_ms = 1
peers = {{ allow = ["conformance-links-c"] }}

[roles.conformance-links-c]
command = ["{c}"]
cancel_term_ms = 2_000

[roles.liar]
command = ["{liar}"]
peers = {{ allow = ["conformance-links-*"] }}
"""

# ask.(hops, opcode, payload, options): `front` has the worker that is so many links away do it. The
# answer is what each link said of the next one, and what the last worker answered.
PRELUDE = """
manager = {Ringbridge.LinkManager, elem(dispatcher, 1)}
registry = {Ringbridge.WorkerRegistry, elem(dispatcher, 1)}
submit = fn role, opcode, payload, options ->
  GenServer.call(dispatcher, {:submit, role, payload, [opcode: opcode] ++ options}, 60_000)
end
{echo, fail, sleep, finish, about, state, open, call} = {0, 1, 2, 6, 15, 16, 17, 18}
wrap = fn opcode, payload, ms ->
  <<0::little-32, ms::little-32, opcode::little-16, 0, payload::binary>>
end
nest = fn
  _nest, 0, opcode, payload, _ms -> {opcode, payload}
  nest, hops, opcode, payload, ms ->
    {inner, bytes} = nest.(nest, hops - 1, opcode, payload, ms)
    {call, wrap.(inner, bytes, ms)}
end
unwrap = fn
  _unwrap, 0, bytes -> [bytes]
  unwrap, hops, <<0, 0, 0, 0, rest::binary>> -> unwrap.(unwrap, hops - 1, rest)
  _unwrap, _hops, <<how, term, code::little-16, rest::binary>> -> [{how, term, code}, rest]
end
ask = fn hops, opcode, payload, options ->
  {ms, options} = Keyword.pop(options, :ms, 60_000)
  {outer, bytes} = nest.(nest, hops, opcode, payload, ms)
  case submit.(:front, outer, bytes, options) do
    {:ok, answer} -> unwrap.(unwrap, hops, answer)
    other -> other
  end
end
for {hops, kit} <- [{0, "rust"}, {1, "zig"}, {2, "c"}] do
  [<<0::little-32>>] = ask.(hops, open, "conformance-links-" <> kit, [])
end
links = fn -> {:ok, all} = GenServer.call(manager, :list); all end
await = fn await, test -> unless test.(), do: (Process.sleep(5); await.(await, test)) end
# A job of its own waits behind what another worker has asked of it.
sleeps = fn role -> submit.(role, echo, "", timeout: 20) == {:error, :deadline_exceeded} end
os_pid = fn role ->
  {:ok, %{workers: [worker]}} = GenServer.call(registry, {:lookup, role})
  worker.os_pid
end
[rust, zig, last] = for kit <- ~w(rust zig c), do: :"conformance-links-#{kit}"
"""


@pytest.fixture(scope="session")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests/app/peers.c", tmp_path_factory.mktemp("liar"))


@pytest.fixture
async def talk(epmd: EpmdDaemon, beam: Beam, tmp_path: Path, liar: Path) -> AsyncIterator[Talk]:
    settings = SETTINGS.format(host=HOST, liar=liar, **WORKERS)
    async with serving(epmd, tmp_path, alive="kitlinks", settings=settings) as bridge:
        await bridge.wait_workers(5)
        yield Talk(bridge, beam, PRELUDE)


async def test_what_the_last_kit_answers_is_what_the_first_one_hears(talk: Talk) -> None:
    assert (
        await talk("""
        big = :crypto.strong_rand_bytes(3_000_000)
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        told = fn hops ->
          [<<_::64, deadline::little-64, 0::little-32, wants, trace::binary-16, span::binary-8,
             flags>>] = ask.(hops, about, "", timeout: 30_000, trace: trace)
          {deadline > 0, wants, Base.encode16(trace, case: :lower),
           Base.encode16(span, case: :lower), flags}
        end
        for hops <- 1..3 do
          [
            ask.(hops, echo, "hello", []),
            ask.(hops, echo, "", []),
            ask.(hops, echo, big, []) == [big],
            ask.(hops, fail, <<7::little-16, "not today">>, []),
            ask.(hops, finish, <<2, 0>>, []) |> hd(),
            ask.(hops, 999, "", []) |> hd(),
            told.(hops)
          ]
        end
        |> Enum.uniq()
        """)
        == '[[["hello"], [""], true, [{1, 0, 7}, "not today"], {1, 0, 65281}, {1, 0, 3}, '
        '{true, 0, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1}]]'
    )


async def test_a_term_stays_a_term_from_kit_to_kit(talk: Talk) -> None:
    assert (
        await talk("""
        <<131, bytes::binary>> = :erlang.term_to_binary({:tide, [1.5, %{high: 3}]})
        for hops <- 1..3 do
          inner = <<0::little-32, 60_000::little-32, echo::little-16, 1>>
          ask.(hops - 1, call, inner <> bytes, [])
          |> then(fn [<<0, 1, 0::16, answer::binary>>] -> answer == bytes end)
        end
        """)
        == "[true, true, true]"
    )


async def test_a_cancel_a_timeout_and_a_deadline_free_every_worker_on_the_way(talk: Talk) -> None:
    assert (
        await talk("""
        minute = <<60_000::little-32>>
        free = fn ->
          for role <- [:front, rust, zig, last], uniq: true,
            do: submit.(role, echo, "free", timeout: 30_000)
        end
        past = ask.(3, sleep, minute, timeout: 300)
        after_deadline = free.()
        late = ask.(3, sleep, minute, ms: 200)
        after_timeout = free.()
        {^call, bytes} = nest.(nest, 3, sleep, minute, 60_000)
        {:ok, ref} = GenServer.call(dispatcher, {:submit_async, :front, bytes, [opcode: call]})
        await.(await, fn -> sleeps.(last) end)
        :ok = GenServer.call(dispatcher, {:cancel, ref})
        cancelled = receive do {:ringbridge, ^ref, answer} -> answer end
        [past, after_deadline, hd(late), after_timeout, cancelled, free.(),
         ask.(3, echo, "the same links", []), length(links.())]
        """)
        == '[{:error, :deadline_exceeded}, [ok: "free"], {5, 0, 0}, [ok: "free"], '
        '{:error, :cancelled}, [ok: "free"], ["the same links"], 3]'
    )


@pytest.mark.parametrize(
    ("role", "told"),
    # How the worker that had the link says that it is over, and what is left of the links.
    [("zig", "[{3, 0, 0}, 0]"), ("rust", "[{3, 0, 0}, 1]")],
)
async def test_a_death_on_the_way_is_told_to_who_asked_and_takes_the_rest_back(
    talk: Talk, role: str, told: str
) -> None:
    assert (
        await talk(f"""
        dying = {role}
        before = os_pid.(dying)
        job = Task.async(fn -> ask.(3, sleep, <<60_000::little-32>>, []) end)
        await.(await, fn -> sleeps.(last) end)
        System.cmd("kill", ["-9", Integer.to_string(before)])
        [over | _] = Task.await(job, 30_000)
        await.(await, fn -> os_pid.(dying) not in [nil, before] end)
        # Both would have slept for a minute.
        {{:ok, "free"}} = submit.(last, echo, "free", timeout: 30_000)
        {{:ok, "free"}} = submit.(dying, echo, "free", timeout: 30_000)
        {{:ok, ""}} = submit.(:front, 19, <<0::little-32>>, timeout: 30_000)
        {{:error, {{:job_failed, 1, _}}}} = submit.(:front, call, wrap.(echo, "", 1000), [])
        [over, length(links.())]
        """)
        == told
    )


async def test_a_link_in_the_middle_that_is_revoked_ends_for_both_kits_at_once(talk: Talk) -> None:
    assert (
        await talk("""
        for {from, hops} <- [{zig, 3}, {rust, 2}] do
          job = Task.async(fn -> ask.(hops, sleep, <<60_000::little-32>>, []) end)
          await.(await, fn -> sleeps.(Enum.at([:front, rust, zig, last], hops)) end)
          [link] = for %{from_role: ^from} = link <- links.(), do: link
          :ok = GenServer.call(manager, {:revoke, link.id})
          [over | _] = Task.await(job, 30_000)
          {over, submit.(link.to_role, echo, "free", timeout: 30_000)}
        end
        """)
        == '[{{3, 0, 0}, {:ok, "free"}}, {{3, 0, 0}, {:ok, "free"}}]'
    )


@pytest.mark.parametrize("kit", ["rust", "zig"])
async def test_who_lies_to_a_kit_loses_the_link_and_nobody_a_process(talk: Talk, kit: str) -> None:
    lies = "~w(" + " ".join(LIES) + ")"
    assert (
        await talk(f"""
        before = {{os_pid.({kit}), os_pid.(:liar)}}
        # Both may be seen first: the end of the link, or that what was asked on it has none.
        over = fn
          {{:error, {{:job_failed, 32, "EPIPE"}}}} -> true
          {{:error, {{:job_failed, 71, "EPROTO"}}}} -> true
          other -> other
        end
        told = for lie <- {lies} do
          {{lie, over.(submit.(:liar, 13, "conformance-links-{kit}" <> <<0>> <> lie <> <<0>>, []))}}
        end
        [
          Enum.reject(told, fn {{_, result}} -> result == true end),
          before == {{os_pid.({kit}), os_pid.(:liar)}},
          ask.(3, echo, "alive", []),
          length(links.())
        ]
        """)
        == '[[], true, ["alive"], 3]'
    )
    assert any("is dropped" in line.get("line", "") for line in talk.bridge.logs("worker says"))
