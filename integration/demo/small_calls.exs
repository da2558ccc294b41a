defmodule Demo.SmallCalls do
  @moduledoc "How fast calls are that do next to nothing: 16 bytes to a worker process and back."
  import Demo.Text

  @payload "0123456789abcdef"
  @callers 128
  @calls_alone 3_000
  @window_ms 1_000

  def show(bridge) do
    title("Echo of 16 bytes through a worker process")
    sorted = Enum.sort(for _ <- 1..@calls_alone, do: round_trip_ns(bridge))

    IO.puts("""
    one caller      #{microseconds(sorted, 0.5)} us median, #{microseconds(sorted, 0.99)} us p99 \
    (#{@calls_alone} calls)
    #{@callers} callers     #{grouped(rate(bridge))} calls/s\
    """)
  end

  defp echo(bridge) do
    {:ok, @payload} =
      GenServer.call({Ringbridge.JobDispatcher, bridge}, {:submit, :echo, @payload})
  end

  defp round_trip_ns(bridge) do
    before = System.monotonic_time()
    echo(bridge)
    System.convert_time_unit(System.monotonic_time() - before, :native, :nanosecond)
  end

  defp rate(bridge) do
    deadline = System.monotonic_time(:millisecond) + @window_ms

    1..@callers
    |> Enum.map(fn _ -> Task.async(fn -> count(bridge, deadline, 0) end) end)
    |> Task.await_many(:infinity)
    |> Enum.sum()
    |> Kernel.*(1_000)
    |> div(@window_ms)
  end

  defp count(bridge, deadline, done) do
    echo(bridge)

    if System.monotonic_time(:millisecond) < deadline,
      do: count(bridge, deadline, done + 1),
      else: done
  end

  defp microseconds(sorted_ns, share) do
    decimals(Enum.at(sorted_ns, trunc(length(sorted_ns) * share)) / 1000, 1)
  end
end
