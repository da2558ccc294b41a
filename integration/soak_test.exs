for file <- ~w(judge payloads calls ways streams callers settings faults operator books meter) do
  Code.require_file("soak/#{file}.exs", __DIR__)
end

defmodule Ringbridge.SoakTest do
  @moduledoc """
  Everything at once, for RINGBRIDGE_SOAK_SECONDS (8); `make soak` is the long form of it. Callers of all kinds,
  a second node that is cut off and killed, workers that die once a second and hang, jobs cancelled by others, an
  operator who changes everything that can be changed. All along the books are even. Then: every answer was the
  caller's own, the counts agree, nothing has grown, nothing is left.
  """
  use ExUnit.Case

  import Ringbridge.BridgeCase,
    only: [submit: 5, stats: 1, workers: 2, await_idle: 1, await_lane: 3]

  alias Ringbridge.Lane.Native
  alias Ringbridge.{Lab, Proc, Program}
  alias Ringbridge.Soak.{Books, Callers, Faults, Meter, Operator, Payloads, Settings}

  @asked System.get_env("RINGBRIDGE_SOAK_SECONDS")
  @seconds String.to_integer(@asked || "8")
  @seed String.to_integer(System.get_env("RINGBRIDGE_SOAK_SEED") || "1")
  @moduletag timeout: (@seconds + 120) * 1_000

  @sample_ms 200
  @progress_ms 5_000
  # Kinds of calls with cancels of their own, or with several callers of one job.
  @cancelled_by_more [:dedupe, :async_cancel]
  # A life of the second node; it needs about one second of it to start.
  @node_ms 3_500

  test "whatever happens, each caller gets its one answer, and nothing is left" do
    bridge = Lab.start_bridge(config: Settings.toml(), env: Meter.environment())
    os_pid = Program.os_pid(bridge.program)
    await_workers(bridge.node)
    open_lane(bridge.node)
    Payloads.prepare()
    at_rest = Meter.at_rest(os_pid)
    binaries = Meter.binaries_at_rest()

    target = {Ringbridge.JobDispatcher, bridge.node}
    callers = Callers.start(target, seed: @seed, steady: 20, mortal: 5)
    faults = Faults.start(callers, bridge.node) ++ [Books.start(callers, bridge.node)]
    operator = Operator.start(callers, bridge)
    {samples, others, elsewhere} = run(callers, bridge, os_pid)
    Callers.stop(%{callers | pids: callers.pids ++ faults ++ [operator]}, 90_000)
    await_idle(bridge.node)

    counts = stats(bridge.node)
    seen = Callers.by_label(callers)
    again = role(bridge.node, "again")
    summary(callers, counts, samples, others, elsewhere)
    say("runs that began again after a death: #{again.retried}")
    tell_moves(callers)
    assert {@seed, Callers.violations(callers)} == {@seed, []}
    assert {@seed, Books.uneven_at_rest(bridge.node)} == {@seed, []}
    assert_counts_agree(counts, seen, Callers.counts(callers))
    assert_of_every_kind(seen)
    assert_nobody_else_hung(bridge, callers, counts, seen)
    assert @seconds < 60 or again.retried > 0
    assert Meter.grown(samples) == []

    # Every worker is there again and works; what the bridge holds is what it held before.
    await_workers(bridge.node)

    for role <- [:echo, :tight, :sleep, :again, :ordered],
        do: assert({:ok, "0"} = submit(bridge.node, role, "0", %{}, 9_000))

    :ets.delete(callers.table)
    assert Meter.at_rest(os_pid) == at_rest
    later = Meter.binaries_at_rest()
    say("binaries of this VM at rest #{Meter.mib(binaries)} -> #{Meter.mib(later)}")
    refute Meter.kept?(binaries, later), "#{later - binaries} bytes of binaries stayed"
    assert_nothing_left(bridge, os_pid)
  end

  # From here on every other call of this VM goes over it. A bridge without lanes is one more way to be tried.
  defp open_lane(node) do
    start_supervised!({Ringbridge, name: Ringbridge.Soak.Lane, nodes: [node]})
    {:ok, "0"} = Ringbridge.call(Ringbridge.Soak.Lane, :echo, "0")
    if Native.status() == :ok, do: await_lane(Ringbridge.Soak.Lane, node, :nif)
    :persistent_term.put({Ringbridge.Soak.Calls, :instance}, Ringbridge.Soak.Lane)
  end

  # ---- while it runs

  defp run(callers, bridge, os_pid) do
    now = now_ms()

    state = %{
      began: now,
      until: now + @seconds * 1_000,
      progress: now + @progress_ms,
      samples: [],
      node: start_node(bridge, 1),
      node_until: now + @node_ms,
      nodes: 1,
      elsewhere: 0
    }

    go_on(state, callers, bridge, os_pid)
  end

  defp go_on(state, callers, bridge, os_pid) do
    now = now_ms()

    cond do
      now >= state.until ->
        state = kill_node(state, callers)
        {Enum.reverse(state.samples), state.nodes, state.elsewhere}

      Program.ended?(bridge.program) ->
        said = bridge.program |> Program.lines() |> Enum.take(-30) |> Enum.join("\n")
        flunk("the bridge has ended:\n#{said}")

      true ->
        Process.sleep(@sample_ms)
        sample = Meter.sample(os_pid)
        state = %{state | samples: [sample | state.samples]}

        state
        |> next_node(now, callers, bridge)
        |> progress(now, callers, sample)
        |> go_on(callers, bridge, os_pid)
    end
  end

  defp next_node(%{node_until: due} = state, now, _callers, _bridge) when now < due, do: state

  defp next_node(state, now, callers, bridge) do
    state = kill_node(state, callers)
    nodes = state.nodes + 1
    %{state | node: start_node(bridge, nodes), nodes: nodes, node_until: now + @node_ms}
  end

  defp start_node(bridge, number) do
    files =
      for file <- ~w(judge payloads calls ways streams callers),
          do: Path.join(__DIR__, "soak/#{file}.exs")

    target = {Ringbridge.JobDispatcher, bridge.node}

    Lab.start_node("""
    for file <- #{inspect(files)}, do: Code.require_file(file)
    Ringbridge.Soak.Callers.elsewhere(#{inspect(target)}, #{@seed}, #{number})
    """)
  end

  # What it said of its own callers counts as much as what was seen here.
  defp kill_node(state, callers) do
    ended_by_itself = Program.ended?(state.node)
    Program.signal(state.node, "KILL")
    Program.await_exit(state.node)
    lines = Program.lines(state.node)
    GenServer.stop(state.node)

    if ended_by_itself,
      do: Callers.violation(callers, "the second node: #{Enum.join(lines, "\n")}")

    for "violation: " <> text <- lines, do: Callers.violation(callers, "second node: #{text}")
    calls = for "calls " <> count <- lines, do: String.to_integer(count)
    %{state | elsewhere: state.elsewhere + List.last(calls, 0)}
  end

  defp progress(%{progress: due} = state, now, _callers, _sample) when now < due, do: state

  defp progress(state, now, callers, sample) do
    say(
      "#{div(now - state.began, 1_000)} s: #{calls(callers)} calls, " <>
        "#{length(Callers.violations(callers))} violations; bridge " <>
        "#{Meter.mib(sample.anonymous)} of its own, #{Meter.mib(sample.shared)} shared, " <>
        "#{sample.descriptors} descriptors"
    )

    %{state | progress: now + @progress_ms}
  end

  # ---- what must hold

  defp assert_counts_agree(counts, seen, by_kind) do
    answered = counts.answered |> Map.values() |> Enum.sum()
    assert counts.in_flight == 0
    assert counts.accepted == answered

    # Callers that left, and the second node's, were answered or refused beyond what was seen here.
    for reason <- [:ok, :worker_crashed, :deadline_exceeded, :cancelled],
        do: assert(counts.answered[reason] >= Map.get(seen, reason, 0), "#{reason}")

    for reason <- [:overloaded, :circuit_open, :draining, :too_large],
        told = counts.refused[reason] + counts.answered[reason],
        do: assert(told >= Map.get(seen, reason, 0), "#{reason}")

    # Nobody is told :cancelled whose job nobody has cancelled.
    plain = for {{kind, :cancelled}, count} <- by_kind, kind not in @cancelled_by_more, do: count
    assert Enum.sum(plain) <= Map.get(by_kind, {:cancel, :done}, 0)
  end

  # Whoever the bridge found hung, by its log, had been left standing for long: nobody who stood for a moment, and
  # nobody who did not stand. In a minute some are, and their jobs are told so.
  defp assert_nobody_else_hung(bridge, callers, counts, seen) do
    stood = Callers.stood_long(callers)
    found = hung(bridge)
    say("workers left standing #{length(stood)}, found hung #{length(found)}")
    assert {@seed, found -- stood} == {@seed, []}
    assert counts.answered.worker_broke >= Map.get(seen, :worker_hung, 0)
    assert counts.answered.worker_broke == 0 or found != []
    assert @seconds < 60 or Map.has_key?(seen, :worker_hung)
  end

  defp hung(bridge) do
    for line <- Program.lines(bridge.program),
        line =~ "no_heartbeat",
        [_, id] <- [Regex.run(~r{"worker": (\d+)}, line)],
        do: String.to_integer(id)
  end

  # A soak in which one of these never happened has not tried it.
  defp assert_of_every_kind(seen) do
    often = [:ok, :gave_up, :deadline_exceeded, :overloaded, :too_large, :killed, :left, :stopped]
    in_a_minute = [:draining, :circuit_open, :worker_crashed, :cancelled, :sigstop, :suspend]

    for label <- if(@seconds < 60, do: often, else: often ++ in_a_minute ++ [:upgrade, :reload]),
        do: assert(Map.has_key?(seen, label), "#{label} never happened: #{inspect(seen)}")

    assert Map.get(seen, :sigkill, 0) + Map.get(seen, :sigsegv, 0) > 0
    refute Map.has_key?(seen, :lost)
  end

  defp assert_nothing_left(bridge, os_pid) do
    family = [os_pid | Proc.descendants(os_pid)]
    assert length(family) > 3 * Enum.sum(Map.values(Settings.workers()))
    links = Proc.memfds(family)
    assert links != []
    Program.kill(os_pid, "TERM")
    assert Program.await_exit(bridge.program, 20_000) == 0

    Lab.wait_until("none of #{inspect(family)} is left", fn ->
      Enum.all?(family, &(not Proc.alive?(&1)))
    end)

    assert Proc.still_mapped(links) == []
    refute Enum.any?(Program.lines(bridge.program), &(&1 =~ "Traceback"))
  end

  defp await_workers(node) do
    Lab.wait_until("all workers are ready", fn ->
      Enum.all?(Settings.workers(), fn {role, count} ->
        Enum.count(workers(node, role), &(&1.state == :ready)) == count
      end)
    end)
  end

  defp role(node, name) do
    {:ok, status} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
    Enum.find(status.roles, &(&1.name == name))
  end

  # ---- what is said, when somebody asked for a soak

  defp summary(callers, counts, samples, nodes, elsewhere) do
    say("#{calls(callers)} calls here, #{elsewhere} on #{nodes} second nodes, seed #{@seed}")
    say("accepted #{counts.accepted}, answered #{inspect(nonzero(counts.answered))}")
    say("refused #{inspect(nonzero(counts.refused))}, connections #{counts.connections}")

    for {kind, ends} <- Enum.group_by(Callers.counts(callers), fn {{kind, _}, _} -> kind end) do
      ends =
        Enum.map_join(Enum.sort(ends), ", ", fn {{_, label}, count} -> "#{label} #{count}" end)

      say("  #{String.pad_trailing("#{kind}", 14)} #{ends}")
    end

    for {key, {second, last}} <- Meter.quarters(samples),
        do: say("  #{String.pad_trailing("#{key}", 14)} #{second} -> #{last}")

    for text <- Enum.take(Callers.violations(callers), 20), do: say("VIOLATION #{text}")
  end

  # What was done when something went wrong.
  defp tell_moves(callers) do
    if Callers.violations(callers) != [] do
      moves = Callers.moves(callers)
      IO.puts("soak: seed #{@seed}; the last #{length(moves)} moves, in ms before the end:")
      now = now_ms()
      for {at, text} <- moves, do: IO.puts("soak: #{at - now} #{text}")
    end
  end

  @not_calls [:worker, :stand, :caller, :cancel, :operator, :operator_refused] ++
               [:books, :last]
  defp calls(callers) do
    Enum.sum(for {{kind, _}, count} <- Callers.counts(callers), kind not in @not_calls, do: count)
  end

  defp nonzero(counts), do: Map.filter(counts, fn {_, count} -> count > 0 end)
  defp say(text), do: if(@asked, do: IO.puts("soak: #{text}"))
  defp now_ms, do: System.monotonic_time(:millisecond)
end
