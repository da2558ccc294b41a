# Calls over the lane beside a Port, in one VM: commands a line on standard input, one line back each (integration/bench/lane.py).
#
#     run SIDE BYTES CALLERS MILLISECONDS  ->  result CALLS ERRORS WINDOW_US P50_NS P99_NS LONG SENT
#
# SIDE: lane (Ringbridge.Lane.Nif), client (Ringbridge.call over it), dist (Ringbridge.Lane.Dist), port. LONG: how often a scheduler was
# held for a millisecond or more meanwhile (long_schedule). SENT: requests that went over the lane. The times are of one caller alone.
defmodule LaneRates do
  alias Ringbridge.{Instance, Lane}
  alias Ringbridge.Lane.{Native, Opener}

  @settling 0.2
  @timeout_ms 30_000

  def main(node, program) do
    Logger.configure(level: :error)
    {:ok, _} = Ringbridge.start_link(name: __MODULE__, nodes: [node], lane: :nif)
    {:ok, "x"} = Ringbridge.call(__MODULE__, :echo, "x")
    {:ok, owner} = Task.start_link(fn -> own_port(program) end)
    Process.register(owner, :port_owner)
    send(owner, {:port, self()})
    port = receive do: ({:port, port} -> port)
    :erlang.system_monitor(spawn_link(fn -> count_long(0) end), [{:long_schedule, 1}])
    lane = await_lane(node, 500)

    sides = %{
      "lane" => fn _n, payload -> lane_call(Lane.Nif, {lane, node}, payload) end,
      "dist" => fn _n, payload -> lane_call(Lane.Dist, node, payload) end,
      "client" => fn _n, payload -> Ringbridge.call(__MODULE__, :echo, payload) end,
      "port" => fn n, payload -> port_call(port, n, payload) end
    }

    IO.puts(if lane, do: "ready", else: "no lane")
    serve(sides, lane)
  end

  defp await_lane(_node, 0), do: nil

  defp await_lane(node, looks) do
    {:ok, instance} = Instance.fetch(__MODULE__)

    with {_node, epoch} <- Ringbridge.Route.pick(__MODULE__, [node], :echo, []),
         lane when lane != nil <- Opener.lane(instance, node, epoch) do
      lane
    else
      _ ->
        Process.sleep(10)
        await_lane(node, looks - 1)
    end
  end

  defp serve(sides, lane) do
    case IO.read(:line) do
      line when is_binary(line) ->
        ["run", side | numbers] = String.split(line)
        [size, callers, ms] = Enum.map(numbers, &String.to_integer/1)
        IO.puts(run(Map.fetch!(sides, side), lane, size, callers, ms))
        serve(sides, lane)

      _end ->
        System.halt(0)
    end
  end

  # --- Sides ------------------------------------------------------------------------------------------------------

  defp lane_call(module, to, payload) do
    with {:answer, answer} <- module.call(to, {:submit, :echo, payload, []}, @timeout_ms),
         do: answer
  end

  # The best that a Port can do: each caller writes to it itself, its owner hands on what comes back.
  defp port_call(port, n, payload) do
    Port.command(port, [<<n::64>>, payload])

    receive do
      {:port_answer, payload} -> {:ok, payload}
    end
  end

  defp own_port(program) do
    Process.flag(:message_queue_data, :off_heap)
    port = Port.open({:spawn_executable, program}, [:binary, packet: 4])
    hand_on(port, {})
  end

  defp hand_on(port, callers) do
    receive do
      {^port, {:data, <<n::64, payload::binary>>}} ->
        send(elem(callers, n), {:port_answer, payload})
        hand_on(port, callers)

      {:port, from} ->
        send(from, {:port, port})
        hand_on(port, callers)

      {:callers, callers, from} ->
        send(from, :known)
        hand_on(port, callers)
    end
  end

  # --- Measured ---------------------------------------------------------------------------------------------------

  defp count_long(count) do
    receive do
      {:monitor, _pid, :long_schedule, _info} ->
        count_long(count + 1)

      {:count, from} ->
        send(from, {:count, count})
        count_long(0)
    end
  end

  defp long do
    {counter, _options} = :erlang.system_monitor()
    send(counter, {:count, self()})
    receive do: ({:count, count} -> count)
  end

  defp sent(nil), do: 0
  defp sent(lane), do: elem(Native.figures(lane), 0)

  defp run(call, lane, size, callers, milliseconds) do
    payload = :rand.bytes(size)
    parent = self()

    pids =
      for n <- 0..(callers - 1),
          do: spawn_link(fn -> begin(parent, call, n, payload, callers) end)

    send(:port_owner, {:callers, List.to_tuple(pids), self()})
    receive do: (:known -> :ok)
    long()
    sent = sent(lane)
    now = System.monotonic_time()
    unit = System.convert_time_unit(milliseconds, :millisecond, :native)
    {opens, closes} = window = {now + trunc(unit * @settling), now + unit}
    for pid <- pids, do: send(pid, {:go, window})
    results = for pid <- pids, do: receive(do: ({^pid, result} -> result))
    calls = results |> Enum.map(&elem(&1, 0)) |> Enum.sum()
    errors = results |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    times = for {_, _, times} <- results, time <- times, do: ns(time)
    us = System.convert_time_unit(closes - opens, :native, :microsecond)

    "result #{calls} #{errors} #{us} #{percentile(times, 0.5)} #{percentile(times, 0.99)} " <>
      "#{long()} #{sent(lane) - sent}"
  end

  defp begin(parent, call, n, payload, callers) do
    receive do
      {:go, window} ->
        size = byte_size(payload)
        first = System.monotonic_time()

        send(
          parent,
          {self(), loop(call, n, payload, size, window, callers == 1, first, 0, 0, [])}
        )
    end
  end

  defp loop(call, n, payload, size, {opens, closes} = window, keep?, before, calls, errors, times) do
    answer = call.(n, payload)
    now = System.monotonic_time()

    cond do
      now > closes ->
        {calls, errors, times}

      now < opens ->
        loop(call, n, payload, size, window, keep?, now, calls, errors, times)

      match?({:ok, back} when byte_size(back) == size, answer) ->
        times = if keep?, do: [now - before | times], else: times
        loop(call, n, payload, size, window, keep?, now, calls + 1, errors, times)

      true ->
        loop(call, n, payload, size, window, keep?, now, calls, errors + 1, times)
    end
  end

  defp ns(native), do: System.convert_time_unit(native, :native, :nanosecond)
  defp percentile([], _share), do: 0

  defp percentile(values, share) do
    sorted = Enum.sort(values)
    Enum.at(sorted, min(length(sorted) - 1, trunc(length(sorted) * share)))
  end
end
