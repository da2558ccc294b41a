# Abuse of the NIF at random, by processes that call, hold, cancel and die, while lanes end, relays die or lie, and the library's code is
# loaded anew and purged under them. A relay's end that is played stands for the bridge (loopback.c).
#
#     elixir -pa EBIN csrc/nif/tests/abuse.exs [SECONDS [SEED]]
#
# Each answer of the honest lane is held against what was asked, each binary that was kept is read again before it is let go; at the end
# nothing is open and nothing held. The last line says so; the exit status is 1 if it is not so. A crash is a crash.
root = Path.expand("../../..", __DIR__)
Code.require_file("elixir_client/test/support/fake_bridge.exs", root)
Code.require_file("elixir_client/test/support/lane_loopback.exs", root)

defmodule Ringbridge.Abuse do
  alias Ringbridge.{Instance, LaneLoopback}
  alias Ringbridge.Lane.{Native, Nif, Opener}
  alias Ringbridge.Poller.Memory

  @honest 16
  @liars 6
  @names [:sent, :answered, :dropped, :cancelled, :full, :wakes, :open, :held_bytes]

  def run(seconds, seed) do
    IO.puts("abuse for #{seconds} s, seed #{seed}")
    if why = LaneLoopback.missing(), do: fail(why)
    Logger.configure(level: :error)
    Process.flag(:trap_exit, true)
    counts = :counters.new(4, [])
    :persistent_term.put(:abuse, counts)
    begin_relay()
    for name <- [:honest, :liar], do: begin_opener(name)
    until_ms = now_ms() + seconds * 1000

    actors =
      for {name, count} <- [honest: @honest, liar: @liars], n <- 1..count, into: %{} do
        {spawn_actor(name, {seed, n, 0}, until_ms), {name, n, 0}}
      end

    :rand.seed(:exsss, {seed, 0, 0})
    stand_by(actors, until_ms, seed)
    settle(until_ms)
  end

  # --- What stands around them ----------------------------------------------------------------------------------

  defp begin_relay do
    {:ok, pid} = LaneLoopback.start_link(slots: 256, result_mib: 16)
    Process.put(:relay, pid)
  end

  defp begin_opener(name) do
    if :ets.whereis(name) == :undefined, do: :ets.new(name, [:named_table, :public])

    instance = %Instance{
      name: name,
      nodes: [node()],
      mode: :dist,
      timeout: 5_000,
      connect_timeout: 1,
      telemetry?: false
    }

    :ets.insert(name, {{:bridge, node()}, self(), :up, {0, 0, 1}, 1})
    {:ok, pid} = Opener.start_link({instance, node()})
    :ets.insert(name, {:epoch, 1})
    Process.put({:opener, name}, pid)
  end

  # Actors that have died are there again; every now and then something breaks.
  defp stand_by(actors, until_ms, seed) do
    receive do
      {:EXIT, pid, _reason} when is_map_key(actors, pid) ->
        {{name, n, life}, actors} = Map.pop(actors, pid)

        if now_ms() < until_ms do
          again = spawn_actor(name, {seed, n, life + 1}, until_ms)
          stand_by(Map.put(actors, again, {name, n, life + 1}), until_ms, seed)
        else
          if map_size(actors) > 0, do: stand_by(actors, until_ms, seed)
        end

      {:EXIT, pid, _reason} ->
        for name <- [:honest, :liar],
            Process.get({:opener, name}) == pid,
            do: begin_opener(name)

        if Process.get(:relay) == pid do
          begin_relay()
          for name <- [:honest, :liar], do: again(name)
        end

        stand_by(actors, until_ms, seed)
    after
      100 ->
        if now_ms() < until_ms, do: break(:rand.uniform(30))
        if map_size(actors) > 0, do: stand_by(actors, until_ms, seed)
    end
  end

  defp break(1), do: kill(Process.get({:opener, :honest}))
  defp break(2), do: kill(Process.get({:opener, :liar}))
  defp break(3), do: again(:honest)
  defp break(4), do: again(:liar)

  defp break(5) do
    :code.load_file(Native)
    :code.purge(Native)
  end

  defp break(6) do
    :code.purge(Native)
    :code.delete(Native)
    :code.purge(Native)
  end

  # The relay's process dies under all lanes.
  defp break(7) do
    kill(Process.get(:relay))
  end

  defp break(_nothing), do: :ok

  defp kill(pid) do
    Process.exit(pid, :kill)

    receive do
      {:EXIT, ^pid, _} -> :ok
    end

    send(self(), {:EXIT, pid, :killed})
  end

  # As after another connection.
  defp again(name) do
    epoch = :ets.update_counter(name, :epoch, 1)
    send(Process.get({:opener, name}), {:up, epoch})
  end

  defp settle(until_ms) do
    again(:honest)
    Process.sleep(200)
    :erlang.garbage_collect()
    nothing_left(:honest, until_ms + 30_000)
    [calls, answers, wrong, downs] = for i <- 1..4, do: :counters.get(counts(), i)

    IO.puts(
      "#{calls} calls, #{answers} answers, #{downs} lost with their lane, #{wrong} wrong; nothing is left"
    )

    if wrong > 0 or answers == 0, do: System.halt(1)
  end

  defp nothing_left(name, until_ms) do
    case lane(name) do
      nil ->
        :ok

      lane ->
        figures = @names |> Enum.zip(Tuple.to_list(Native.figures(lane))) |> Map.new()

        unless figures.open == 0 and figures.held_bytes == 0 do
          if now_ms() > until_ms, do: fail("left: #{inspect(figures)}")
          Process.sleep(20)
          nothing_left(name, until_ms)
        end
    end
  end

  defp fail(why) do
    IO.puts("failed: #{why}")
    System.halt(1)
  end

  # --- Those who call -------------------------------------------------------------------------------------------

  defp spawn_actor(name, seed, until_ms) do
    spawn_link(fn ->
      :rand.seed(:exsss, seed)
      act(name, until_ms, [])
    end)
  end

  defp act(name, until_ms, kept) do
    if now_ms() < until_ms do
      kept =
        case lane(name) do
          nil -> tap(kept, fn _ -> Process.sleep(2) end)
          lane -> move({lane, node()}, name, :rand.uniform(100), kept)
        end

      act(name, until_ms, kept)
    else
      look_again(kept)
    end
  end

  defp move(to, name, n, kept) when n <= 40 do
    echo(to, name, bytes(:rand.uniform(100) - 1), kept, false)
  end

  defp move(to, name, n, kept) when n <= 60 do
    echo(to, name, bytes(:rand.uniform(200_000)), kept, true)
  end

  defp move(to, name, n, kept) when n <= 63 do
    echo(to, name, bytes(:rand.uniform(2_000_000)), kept, true)
  end

  # Both may be first, the answer and the timeout.
  defp move(to, _name, n, kept) when n <= 70 do
    count(Nif.call(to, {:submit, :sleep, "#{:rand.uniform(4)}", []}, :rand.uniform(4)), nil)
    kept
  end

  defp move(to, _name, n, kept) when n <= 78 do
    refs = for _ <- 1..:rand.uniform(20), do: Nif.submit(to, {:submit, :hold, "x", []})
    for ref <- Enum.shuffle(refs), do: Nif.cancel(to, ref)
    kept
  end

  defp move(to, name, n, kept) when n <= 84 do
    payload = bytes(:rand.uniform(3_000))
    refs = for _ <- 1..:rand.uniform(20), do: Nif.submit(to, {:submit, :echo, payload, []})
    for ref <- Enum.shuffle(refs), do: count(Nif.await(to, ref, 5_000), wanted(name, payload))
    kept
  end

  defp move(to, _name, n, kept) when n <= 88 do
    many = for _ <- 1..:rand.uniform(30), do: bytes(:rand.uniform(5_000))
    count(Nif.call(to, {:submit_many, :echo, many, []}, 5_000), nil)
    kept
  end

  defp move(to, name, n, kept) when n <= 90 do
    size = :rand.uniform(300_000)
    wanted = if name == :honest, do: {:answer, {:ok, <<0::size(size)-unit(8)>>}}
    count(Nif.call(to, {:submit, :term, "#{size}", []}, 5_000), wanted)
    kept
  end

  defp move({lane, _node}, _name, 91, kept) do
    for _ <- 1..:rand.uniform(20), do: told(lane)
    kept
  end

  defp move(_to, _name, n, kept) when n <= 93 do
    look_again(kept)
    :erlang.garbage_collect()
    []
  end

  # It dies with what it has asked for.
  defp move(to, _name, n, _kept) when n <= 96 do
    for _ <- 1..:rand.uniform(20), do: Nif.submit(to, {:submit, :hold, bytes(100_000), []})
    if :rand.uniform(2) == 1, do: exit(:killed), else: Process.exit(self(), :kill)
    Process.sleep(:infinity)
  end

  defp move(to, :liar, _n, kept) do
    tell = Enum.random(~w(well well full hidden old torn many word noise noise))
    count(Nif.call(to, {:submit, :tell, tell, []}, 5_000), nil)

    lies =
      ~w(lie_number lie_generation lie_status lie_place lie_bytes lie_twice lie_tail) ++
        ~w(lie_back lie_noise lie_noise lie_noise end)

    lie = {:submit, Enum.random(lies), bytes(:rand.uniform(200)), []}
    for _ <- 1..:rand.uniform(5), do: Nif.submit(to, lie)
    kept
  end

  defp move(_to, :honest, _n, kept), do: kept

  defp echo(to, name, payload, kept, keep?) do
    case count(Nif.call(to, {:submit, :echo, payload, []}, 5_000), wanted(name, payload)) do
      {:answer, {:ok, answer}} when keep? and length(kept) < 4 and is_binary(answer) ->
        [{answer, if(name == :honest, do: :erlang.md5(answer))} | kept]

      _ ->
        kept
    end
  end

  defp wanted(:honest, payload), do: {:answer, {:ok, payload}}
  defp wanted(:liar, _payload), do: nil

  # What the bridge tells of its workers is the same memory for honest and lying lanes: a status, or why there is none.
  defp told(lane) do
    case Memory.status(lane) do
      {:ok, %{workers: workers, roles: roles}} when is_list(workers) and is_list(roles) -> :ok
      {:error, why} when why in [:closed, :torn, :none, :old, :not_shown, :unreadable] -> :ok
      other -> wrong("it tells #{inspect(other, limit: 5)}")
    end

    # Whatever the library gives, it stays what it was.
    with {:ok, _now_ns, bytes} <- native(lane),
         md5 = :erlang.md5(bytes),
         _again = native(lane),
         do: if(:erlang.md5(bytes) != md5, do: wrong("a copy has changed"))
  end

  defp native(lane) do
    Native.telemetry(lane)
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :closed
  end

  defp wrong(what) do
    :counters.add(counts(), 3, 1)
    IO.puts("wrong: #{what}")
  end

  # What a lane shows that has ended by now is what it showed.
  defp look_again(kept) do
    for {answer, md5} <- kept, :erlang.md5(answer) != md5, md5 != nil do
      :counters.add(counts(), 3, 1)
      IO.puts("wrong: a binary of #{byte_size(answer)} bytes has changed")
    end
  end

  defp count(outcome, wanted) do
    :counters.add(counts(), 1, 1)

    case outcome do
      {:answer, {:ok, _}} -> :counters.add(counts(), 2, 1)
      {:down, _} -> :counters.add(counts(), 4, 1)
      :timeout -> :ok
    end

    if wanted != nil and match?({:answer, _}, outcome) and outcome != wanted do
      :counters.add(counts(), 3, 1)
      IO.puts("wrong: #{inspect(outcome, limit: 5)}")
    end

    outcome
  end

  defp lane(name) do
    case :ets.lookup(name, {:lane, node()}) do
      [{_key, _epoch, lane}] -> lane
      [] -> nil
    end
  end

  defp bytes(size), do: :binary.copy(<<:rand.uniform(256) - 1>>, size)
  defp counts, do: :persistent_term.get(:abuse)
  defp now_ms, do: System.monotonic_time(:millisecond)
end

[seconds, seed] =
  case Enum.map(System.argv(), &String.to_integer/1) do
    [] -> [10, :rand.uniform(1_000_000)]
    [seconds] -> [seconds, :rand.uniform(1_000_000)]
    both -> both
  end

Ringbridge.Abuse.run(seconds, seed)
