for file <- ~w(phoenix_like/shop phoenix_like/users soak/meter),
    do: Code.require_file("#{file}.exs", __DIR__)

defmodule Ringbridge.PhoenixLikeTest do
  @moduledoc """
  An application in the form of a Phoenix one, under load, for RINGBRIDGE_PHOENIX_SECONDS (4; a minute in `make soak`): request processes
  that die and time out, users who hang up, workers that are killed. No answer is wrong; when it has ended, no process, socket, table, atom or
  binary of it is left in this VM, and nothing in the bridge.
  """
  use ExUnit.Case

  import Ringbridge.BridgeCase, only: [stats: 1, workers: 2, await_idle: 2]
  alias Ringbridge.{Lab, Proc, Program}
  alias Ringbridge.PhoenixLike.{Shop, Users}
  alias Ringbridge.Soak.Meter

  @asked System.get_env("RINGBRIDGE_PHOENIX_SECONDS")
  @seconds String.to_integer(@asked || "4")
  @seed String.to_integer(System.get_env("RINGBRIDGE_SOAK_SEED") || "1")
  @moduletag timeout: (@seconds + 240) * 1_000, capture_log: true

  @users 12
  @kill_every_ms 120
  @patience_ms 60_000

  @roles """
  [roles.primes]
  command = ["#{Lab.root()}/build/bin/rb-primes"]
  max_restarts = 10_000
  backoff_max_ms = 100
  """

  test "a minute of everything leaves no wrong answer and nothing behind" do
    bridge = Lab.start_bridge(roles: @roles)
    os_pid = Program.os_pid(bridge.program)
    await_workers(bridge.node)
    counts = :ets.new(:phoenix_like, [:public, :set, write_concurrency: true])

    # Once for what is made the first time only: modules that are loaded, the instance's atoms, the lane's threads.
    serve(bridge, os_pid, counts, 1)
    await_idle(bridge.node, @patience_ms)
    before = held(os_pid)

    samples = serve(bridge, os_pid, counts, @seconds)
    await_idle(bridge.node, @patience_ms)
    seen = Map.new(:ets.tab2list(counts))
    summary(seen)
    assert for({{:wrong, text}, count} <- seen, do: {count, text}) == []
    assert_of_every_kind(seen)
    assert_books_even(bridge.node)

    if @seconds >= 40, do: assert(Meter.grown(samples) == [])
    await_workers(bridge.node)
    later = held(os_pid)
    assert Map.drop(later, [:atoms, :binary]) == Map.drop(before, [:atoms, :binary])
    assert later.atoms - before.atoms < 500, "#{later.atoms - before.atoms} atoms were made"

    refute Meter.kept?(before.binary, later.binary),
           "#{later.binary - before.binary} bytes stayed"

    assert_nothing_left(bridge, os_pid)
  end

  # The application from its start to its end; samples of what bridge and VM hold.
  defp serve(bridge, os_pid, counts, seconds) do
    {:ok, shop} = Shop.start_link(nodes: [bridge.node])
    {:ok, _} = Registry.register(PubSub, :shown, nil)
    until = now() + seconds * 1_000

    users = for n <- 1..@users, do: Task.async(fn -> Users.run(counts, @seed, n, until) end)

    :rand.seed(:exsss, {@seed, 0, 3})
    samples = trouble(bridge.node, os_pid, counts, until, [])
    Task.await_many(users, @patience_ms)

    Lab.wait_until("no messages wait", fn -> Enum.all?(queues(shop), &(&1 < 50)) end)
    # The registry's end would be this process's, too.
    :ok = Registry.unregister(PubSub, :shown)
    Supervisor.stop(shop)
    heard(counts)
    samples
  end

  defp queues(shop) do
    for pid <- lasting(shop),
        {:message_queue_len, n} <- [Process.info(pid, :message_queue_len)],
        do: n
  end

  # Its own children, and theirs.
  defp lasting(supervisor) do
    Enum.flat_map(Supervisor.which_children(supervisor), fn
      {_id, pid, :supervisor, _} when is_pid(pid) -> lasting(pid)
      {_id, pid, _type, _} when is_pid(pid) -> [pid]
      _ended -> []
    end)
  rescue
    _ -> []
  end

  # Workers are killed as the operating system kills, and crash as they crash.
  defp trouble(node, os_pid, counts, until, samples) do
    if now() < until do
      Process.sleep(@kill_every_ms)
      role = Enum.random([:echo, :sleep, :primes])
      signal = Enum.random(["KILL", "SEGV"])

      with [%{os_pid: pid} | _] <- for(w <- workers(node, role), w.state == :ready, do: w) do
        Program.kill(pid, signal)
        Users.count(counts, {:killed, role})
      end

      trouble(node, os_pid, counts, until, [Meter.sample(os_pid) | samples])
    else
      Enum.reverse(samples)
    end
  end

  # What channels have shown: each what it was told.
  defp heard(counts) do
    receive do
      {:shown, payload, {:ok, payload}} ->
        Users.count(counts, {:shown, :ok})

      {:shown, _payload, {:error, error}} ->
        Users.count(counts, {:shown, Ringbridge.Error.name(error.reason)})

      {:shown, payload, other} ->
        Users.count(counts, {:wrong, inspect({payload, other}, limit: 8)})
    after
      0 -> :shown
    end
    |> case do
      :shown -> :ok
      _count -> heard(counts)
    end
  end

  defp held(os_pid) do
    at_rest = Meter.at_rest(os_pid)

    Map.merge(at_rest, %{
      ports: length(Port.list()),
      tables: length(:ets.all()),
      atoms: :erlang.system_info(:atom_count),
      binary: Meter.binaries_at_rest()
    })
  end

  defp assert_of_every_kind(seen) do
    labels = for {{_kind, label}, _count} <- seen, uniq: true, do: label

    rare = if @seconds >= 30, do: [:worker_crashed], else: []

    for label <- rare ++ [:ok, :hung_up, :ended, :deadline_exceeded],
        do: assert(label in labels, "#{label} never happened")

    for kind <- [:echo, :later, :nap, :many, :primes, :shown],
        do: assert(Map.get(seen, {kind, :ok}, 0) > 0, "#{kind} never went well")

    assert Enum.sum(for {{:killed, _}, count} <- seen, do: count) >= 2 * @seconds
    # On a machine that is slow requests may come to the limit of all requests; not one in twenty.
    closed = Enum.sum(for {{_, :closed}, count} <- seen, do: count)
    assert closed * 20 <= Enum.sum(for {{_, :ok}, count} <- seen, do: count)
  end

  defp assert_books_even(node) do
    stats = stats(node)
    assert stats.in_flight == 0
    assert stats.accepted == stats.answered |> Map.values() |> Enum.sum()
  end

  defp assert_nothing_left(bridge, os_pid) do
    family = [os_pid | Proc.descendants(os_pid)]
    links = Proc.memfds(family)
    assert links != []
    Program.kill(os_pid, "TERM")
    assert Program.await_exit(bridge.program, @patience_ms) == 0

    Lab.wait_until("none of #{inspect(family)} is left", @patience_ms, fn ->
      not Enum.any?(family, &Proc.alive?/1)
    end)

    assert Proc.still_mapped(links) == []
    refute Enum.any?(Program.lines(bridge.program), &(&1 =~ "Traceback"))
  end

  defp await_workers(node) do
    for role <- [:echo, :sleep, :primes] do
      Lab.wait_until("#{role} is served", @patience_ms, fn ->
        Enum.any?(workers(node, role), &(&1.state == :ready))
      end)
    end
  end

  defp summary(seen) do
    if @asked do
      for {kind, ends} <- Enum.group_by(seen, fn {{kind, _}, _} -> kind end) do
        ends =
          Enum.map_join(Enum.sort(ends), ", ", fn {{_, label}, count} -> "#{label} #{count}" end)

        IO.puts("phoenix-like:   #{String.pad_trailing("#{kind}", 10)} #{ends}")
      end
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
