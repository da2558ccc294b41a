# elixir solar_system.exs BRIDGE JOBS
#
# Submits simulations to a bridge by plain GenServer.call, compares what a C worker answers with JPL's DE421,
# and shows how fast small calls are. Nothing here is ours but the shape of a request.
#
# JOBS is a folder that `python -m integration.solar.states` wrote: payloads, and index.terms with JPL's answer.

defmodule Demo do
  @dispatcher Ringbridge.JobDispatcher
  @callers 128
  @calls_alone 3_000
  @window_ms 1_000

  def main([bridge, jobs]) do
    bridge = String.to_atom(bridge)
    join(bridge)
    {bodies, cases} = read(jobs)

    results =
      cases |> Enum.map(&Task.async(fn -> run(bridge, &1) end)) |> Task.await_many(300_000)

    for {job, answer} <- results,
        job.span_days == 365.25 and not job.relativistic,
        do: print_case(job, answer, bodies)

    print_summary(results, bodies)
    print_speed(bridge)
    finish(results)
  end

  # A VM that was started without a name makes itself a hidden node that listens nowhere.
  defp join(bridge) do
    name = :"demo#{System.pid()}@127.0.0.1"
    options = %{name_domain: :longnames, hidden: true, dist_listen: false}
    {:ok, _pid} = :net_kernel.start(name, options)

    unless Node.connect(bridge), do: stop("no connection to #{bridge}")
    release = "OTP #{System.otp_release()}, Elixir #{System.version()}"
    IO.puts("\n#{name} (#{release}) is connected to #{bridge}")
    IO.puts("A call is: GenServer.call({Ringbridge.JobDispatcher, #{inspect(bridge)}}, request)")
  end

  defp submit(bridge, role, payload, options) do
    GenServer.call({@dispatcher, bridge}, {:submit, role, payload, options}, 120_000)
  end

  ## The solar system

  defp read(jobs) do
    {:ok, terms} = :file.consult(Path.join(jobs, "index.terms"))
    {:bodies, bodies} = List.keyfind(terms, :bodies, 0)

    cases =
      for {:simulation, job} <- terms do
        %{job | payload: File.read!(Path.join(jobs, job.payload))}
      end

    {bodies, cases}
  end

  defp run(bridge, job) do
    case submit(bridge, :simulation, job.payload, %{detail: true}) do
      {:ok, answer, detail} -> {job, Map.merge(decode(answer), detail)}
      {:error, reason} -> stop("#{job.name}: #{inspect(reason)}")
    end
  end

  # docs/simulation.md, "Payload": little endian, a header of 48 bytes, then 56 for each body.
  defp decode(
         <<1::16-little, count::16-little, _flags::32, header::binary-size(40), rest::binary>>
       ) do
    <<_end_jd::float-little, _span::float-little, energy_error::float-little, steps::64-little,
      _evaluations::64-little>> = header

    positions =
      for <<id::32-little, _zero::32, x::float-little, y::float-little, z::float-little,
            _velocity::binary-size(24) <- rest>>,
          into: %{},
          do: {id, {x, y, z}}

    ^count = map_size(positions)
    %{positions: positions, energy_error: energy_error, steps: steps}
  end

  defp error_km(job, answer, id) do
    {x, y, z} = Map.fetch!(answer.positions, id)
    {rx, ry, rz, _, _, _} = Map.fetch!(job.reference, id)
    :math.sqrt(square(x - rx) + square(y - ry) + square(z - rz))
  end

  defp square(x), do: x * x

  defp print_case(job, answer, bodies) do
    IO.puts("""

    #{job.start} + #{days(job.span_days)}, #{model(job)}: #{answer.steps} steps, \
    #{milliseconds(answer.run_us)} in the worker, energy kept to #{scientific(answer.energy_error)}
    Positions on #{job.end} (JD #{job.start_jd + job.span_days} TDB), from the solar system's barycentre, \
    equator of J2000, in km\
    """)

    header = [left("", 18), right("x", 18), right("y", 18), right("z", 18)]
    IO.puts(IO.iodata_to_binary([header, right("error km", 11), right("bound km", 10)]))

    for {id, name} <- bodies do
      {rx, ry, rz, _, _, _} = Map.fetch!(job.reference, id)
      IO.puts([left(name, 9), left("worker", 9), position(Map.fetch!(answer.positions, id))])
      error = right(figures(error_km(job, answer, id)), 11)
      bound = right(figures(Map.fetch!(job.bound_km, id)), 10)
      IO.puts([left("", 9), left("JPL", 9), position({rx, ry, rz}), error, bound])
    end
  end

  defp print_summary(results, bodies) do
    IO.puts("\nAll jobs: the body that came closest to its bound")
    header = [left("from", 12), left("to", 12), left("model", 28), left("body", 9)]

    numbers = [
      right("error km", 10),
      right("bound km", 10),
      right("of bound", 10),
      right("run", 9)
    ]

    IO.puts([header, numbers])

    for {job, answer} <- results do
      {share, id} = worst(job, answer)

      IO.puts([
        left(job.start, 12),
        left(job.end, 12),
        left(model(job), 28),
        left(bodies |> List.keyfind(id, 0) |> elem(1), 9),
        right(figures(error_km(job, answer, id)), 10),
        right(figures(Map.fetch!(job.bound_km, id)), 10),
        right("#{round(share * 100)} %", 10),
        right(milliseconds(answer.run_us), 9)
      ])
    end
  end

  defp worst(job, answer) do
    job.bound_km
    |> Enum.map(fn {id, km} -> {error_km(job, answer, id) / km, id} end)
    |> Enum.max()
  end

  ## Small calls

  defp print_speed(bridge) do
    payload = "0123456789abcdef"
    alone = for _ <- 1..@calls_alone, do: round_trip_ns(bridge, payload)
    sorted = Enum.sort(alone)
    rate = rate(bridge, payload)

    IO.puts("""

    Echo of 16 bytes through a worker process
      one caller      #{microseconds(sorted, 0.5)} us median, #{microseconds(sorted, 0.99)} us p99 \
    (#{@calls_alone} calls)
      #{@callers} callers     #{grouped(rate)} calls/s
    """)
  end

  defp round_trip_ns(bridge, payload) do
    before = System.monotonic_time()
    {:ok, _} = GenServer.call({@dispatcher, bridge}, {:submit, :echo, payload})
    System.convert_time_unit(System.monotonic_time() - before, :native, :nanosecond)
  end

  defp rate(bridge, payload) do
    deadline = System.monotonic_time(:millisecond) + @window_ms

    1..@callers
    |> Enum.map(fn _ -> Task.async(fn -> count(bridge, payload, deadline, 0) end) end)
    |> Task.await_many(:infinity)
    |> Enum.sum()
    |> Kernel.*(1_000)
    |> div(@window_ms)
  end

  defp count(bridge, payload, deadline, done) do
    {:ok, _} = GenServer.call({@dispatcher, bridge}, {:submit, :echo, payload})

    if System.monotonic_time(:millisecond) < deadline,
      do: count(bridge, payload, deadline, done + 1),
      else: done
  end

  ## The end

  defp finish(results) do
    beyond =
      for {job, answer} <- results, {share, _} = worst(job, answer), share > 1, do: job.name

    if beyond != [], do: stop("beyond the bound: #{Enum.join(beyond, ", ")}")
    IO.puts("#{length(results)} simulations, each body of each within its bound.")
  end

  defp stop(why) do
    IO.puts(:stderr, "demo: #{why}")
    System.halt(1)
  end

  ## Text

  defp model(%{relativistic: true}), do: "Newton and Einstein (1PN)"
  defp model(%{relativistic: false}), do: "Newton, point masses"

  defp days(days) when days == trunc(days), do: "#{trunc(days)} days"
  defp days(days), do: "#{days} days"

  defp position({x, y, z}), do: for(value <- [x, y, z], do: right(tenths(value), 18))

  defp tenths(value) do
    rounded = round(abs(value) * 10)
    sign = if value < 0 and rounded > 0, do: "-", else: ""
    "#{sign}#{grouped(div(rounded, 10))}.#{rem(rounded, 10)}"
  end

  defp grouped(integer) do
    integer
    |> Integer.to_string()
    |> String.reverse()
    |> String.replace(~r/(\d{3})(?=\d)/, "\\1,")
    |> String.reverse()
  end

  # Three figures, whatever the size: errors go from millimetres to a thousand kilometres.
  defp figures(km) when km >= 100, do: "#{round(km)}"
  defp figures(km) when km >= 10, do: :erlang.float_to_binary(km, decimals: 1)
  defp figures(km) when km >= 1, do: :erlang.float_to_binary(km, decimals: 2)
  defp figures(km) when km >= 0.01, do: :erlang.float_to_binary(km, decimals: 4)
  defp figures(km), do: :erlang.float_to_binary(km, decimals: 6)

  defp scientific(value), do: :erlang.float_to_binary(abs(value), [{:scientific, 0}])
  defp milliseconds(us), do: "#{:erlang.float_to_binary(us / 1000, decimals: 1)} ms"

  defp microseconds(sorted_ns, share) do
    ns = Enum.at(sorted_ns, trunc(length(sorted_ns) * share))
    :erlang.float_to_binary(ns / 1000, decimals: 1)
  end

  defp left(text, width), do: String.pad_trailing(text, width)
  defp right(text, width), do: String.pad_leading(text, width)
end

Demo.main(System.argv())
