defmodule Ringbridge.Bench.Echo do
  @moduledoc "The plainest server there is: what a call costs between two BEAMs."
  use GenServer

  @spec start() :: :ok
  def start do
    {:ok, _pid} = GenServer.start(__MODULE__, nil, name: __MODULE__)
    :ok
  end

  @impl GenServer
  def init(nil), do: {:ok, nil}

  @impl GenServer
  def handle_call({:submit, :echo, payload}, _from, state), do: {:reply, {:ok, payload}, state}

  # A process that ends when it is told to.
  def handle_call(:target, _from, state) do
    {:reply, spawn(fn -> receive(do: (_ -> :ok)) end), state}
  end
end

defmodule Ringbridge.Bench.PortEcho do
  @moduledoc """
  A GenServer that owns a `{packet, 4}` Port. Each packet starts with a request id, so that the
  server need not wait for one answer before it sends the next request.
  """
  use GenServer

  @spec start(Path.t()) :: :ok
  def start(program) do
    {:ok, _pid} = GenServer.start(__MODULE__, program, name: __MODULE__)
    :ok
  end

  @impl GenServer
  def init(program) do
    port = Port.open({:spawn_executable, program}, [:binary, packet: 4])
    {:ok, %{port: port, next_id: 0, callers: %{}}}
  end

  @impl GenServer
  def handle_call({:submit, :echo, payload}, from, state) do
    %{port: port, next_id: id, callers: callers} = state
    Port.command(port, [<<id::64>>, payload])
    {:noreply, %{state | next_id: id + 1, callers: Map.put(callers, id, from)}}
  end

  # As many packets, which the program answers in one write, as it finds them.
  def handle_call({:submit_many, :echo, payloads, %{packed: false}}, from, state) do
    %{port: port, next_id: id, callers: callers} = state
    for payload <- payloads, do: Port.command(port, [<<id::64>>, payload])
    callers = Map.put(callers, id, {:each, from, length(payloads), []})
    {:noreply, %{state | next_id: id + 1, callers: callers}}
  end

  # A batch is one packet, which the program sends back as it came: a Port can do nothing cheaper.
  def handle_call({:submit_many, :echo, payloads, _opts}, from, state) do
    %{port: port, next_id: id, callers: callers} = state
    Port.command(port, [<<id::64>> | for(p <- payloads, do: [<<byte_size(p)::32>>, p])])
    {:noreply, %{state | next_id: id + 1, callers: Map.put(callers, id, {:many, from})}}
  end

  @impl GenServer
  def handle_info({port, {:data, <<id::64, payload::binary>>}}, %{port: port} = state) do
    case Map.pop!(state.callers, id) do
      {{:each, from, 1, answers}, callers} ->
        GenServer.reply(from, {:ok, Enum.reverse(answers, [{:ok, payload}])})
        {:noreply, %{state | callers: callers}}

      {{:each, from, left, answers}, callers} ->
        waiting = {:each, from, left - 1, [{:ok, payload} | answers]}
        {:noreply, %{state | callers: Map.put(callers, id, waiting)}}

      {{:many, from}, callers} ->
        GenServer.reply(
          from,
          {:ok, for(<<size::32, p::binary-size(size) <- payload>>, do: {:ok, p})}
        )

        {:noreply, %{state | callers: callers}}

      {from, callers} ->
        GenServer.reply(from, {:ok, payload})
        {:noreply, %{state | callers: callers}}
    end
  end
end

defmodule Ringbridge.Bench.Load do
  @moduledoc """
  The one load generator for all sides: a closed loop of callers in one VM.

  It takes one command a line on standard input and answers with one line, so that whoever drives
  it decides what runs beside what:

      run SIDE SIZE CALLERS MILLISECONDS  ->  result CALLS ERRORS WINDOW_US MEDIAN_NS P99_NS
      round_trip WHAT COUNT               ->  result MEDIAN_NS P99_NS MEAN_NS
      detail COUNT                        ->  result QUEUE_US RUN_US      (medians, as our bridge says)
      hops COUNT                          ->  result NAME=US ...          (averages, as our relay says)
      ends SIDE COUNT                     ->  result HOLD_US BREAK_US ARRIVED
      calls_out CALLERS MILLISECONDS      ->  result CALLS MEDIAN_NS      (from the python node)
      bridge NAME NODE                    ->  ok                          (NAME is a SIDE from now on)

  and those of `Ringbridge.Bench.Shapes`.

  Only calls that end inside the window count: it opens when all callers have been busy for a
  while and closes while all of them still are. MEDIAN_NS and P99_NS are 0 with several callers.
  """

  alias Ringbridge.Bench.Shapes

  @timeout_ms 10_000

  # The settling time is a part of MILLISECONDS.
  @settling 0.2

  @spec main([String.t()]) :: no_return()
  def main([bridge, beam, ei, python, port_program]) do
    Ringbridge.Bench.PortEcho.start(port_program)

    targets = %{
      "ours" => {Ringbridge.JobDispatcher, String.to_atom(bridge)},
      "beam" => {Ringbridge.Bench.Echo, String.to_atom(beam)},
      "ei" => {:echo, String.to_atom(ei)},
      "python" => {:echo, String.to_atom(python)},
      "port" => Ringbridge.Bench.PortEcho
    }

    IO.puts("ready")
    serve(targets)
  end

  defp serve(targets) do
    case IO.read(:line) do
      line when is_binary(line) ->
        case String.split(line) do
          ["bridge", name, node] ->
            IO.puts("ok")
            serve(Map.put(targets, name, {Ringbridge.JobDispatcher, String.to_atom(node)}))

          command ->
            IO.puts(answer(command, targets))
            serve(targets)
        end

      _end_of_input ->
        System.halt(0)
    end
  end

  defp answer(["run", side, size, callers, milliseconds], targets) do
    [size, callers, milliseconds] = Enum.map([size, callers, milliseconds], &String.to_integer/1)
    payload = :rand.bytes(size)
    target = Map.fetch!(targets, side)

    case call(target, {:submit, :echo, payload}) do
      {:ok, ^payload} -> run(target, payload, callers, milliseconds)
      other -> "refused " <> inspect(other, limit: 5, printable_limit: 80)
    end
  end

  defp answer(["round_trip", what, count], targets) do
    request =
      case what do
        "stats" -> :stats
        "refused" -> {:submit, :no_such_role, "0123456789abcdef"}
        "echo" -> {:submit, :echo, "0123456789abcdef"}
      end

    times =
      for _ <- 1..String.to_integer(count) do
        {time, _answer} = timed(fn -> call(targets["ours"], request) end)
        time
      end

    "result #{percentile(times, 0.5)} #{percentile(times, 0.99)} #{div(Enum.sum(times), length(times))}"
  end

  defp answer(["detail", count], targets) do
    request = {:submit, :echo, "0123456789abcdef", %{detail: true}}

    details =
      for _ <- 1..String.to_integer(count),
          {:ok, _payload, detail} <- [call(targets["ours"], request)],
          do: detail

    if details == [] do
      "refused no answer with detail"
    else
      median = fn key -> details |> Enum.map(&Map.fetch!(&1, key)) |> percentile(0.5) end
      "result #{median.(:queue_us)} #{median.(:run_us)}"
    end
  end

  # So many processes are linked with one and watch it; then that one ends. Each hears both.
  defp answer(["ends", side, count], targets) do
    {count, target} = {String.to_integer(count), Map.fetch!(targets, side)}
    target_pid = call(target, :target)
    parent = self()
    began = System.monotonic_time()

    for _ <- 1..count do
      spawn_link(fn ->
        Process.flag(:trap_exit, true)
        Process.link(target_pid)
        Process.monitor(target_pid)
        send(parent, :held)
        send(parent, {:heard, await_ends(target_pid, 0)})
      end)
    end

    for _ <- 1..count, do: receive(do: (:held -> :ok))

    # One connection keeps its order: when this is answered, all links and monitors have been taken.
    {:ok, _} = call(target, {:submit, :echo, "done"})
    held = System.monotonic_time()
    send(target_pid, :end)
    arrived = for _ <- 1..count, do: receive(do: ({:heard, ends} -> ends))
    ended = System.monotonic_time()

    "result #{microseconds(held - began)} #{microseconds(ended - held)} #{Enum.sum(arrived)}"
  end

  defp answer(["calls_out", callers, milliseconds], targets) do
    {_name, beam} = targets["beam"]
    [callers, milliseconds] = Enum.map([callers, milliseconds], &String.to_integer/1)
    request = {:calls_out, {Ringbridge.Bench.Echo, beam}, callers, milliseconds}
    {calls, median_ns} = call(targets["python"], request)
    "result #{calls} #{median_ns}"
  end

  defp answer(["closed", side, role, payload, callers, milliseconds], targets) do
    [callers, milliseconds] = Enum.map([callers, milliseconds], &String.to_integer/1)
    Shapes.closed(Map.fetch!(targets, side), role, payload, callers, milliseconds)
  end

  defp answer(["open", side, role, payload, rate, milliseconds], targets) do
    [rate, milliseconds] = Enum.map([rate, milliseconds], &String.to_integer/1)
    Shapes.open(Map.fetch!(targets, side), role, payload, rate, milliseconds)
  end

  defp answer(["beside", side | numbers], targets) do
    [bytes, small, milliseconds] = Enum.map(numbers, &String.to_integer/1)
    Shapes.beside(Map.fetch!(targets, side), bytes, small, milliseconds)
  end

  defp answer(["many", side | numbers], targets) do
    [k, bytes, callers, milliseconds] = Enum.map(numbers, &String.to_integer/1)
    {side, options} = if side == "packed", do: {"port", %{}}, else: {side, each(side)}
    Shapes.many(Map.fetch!(targets, side), options, k, bytes, callers, milliseconds)
  end

  # The relay counts since it started: the difference is that of these calls.
  defp answer(["hops", count], targets) do
    with {:ok, before} <- hops(targets),
         answer(["round_trip", "echo", count], targets),
         {:ok, now} <- hops(targets),
         samples when samples > 0 <- now.samples - before.samples do
      averages =
        for {name, us} <- now, name != :samples do
          "#{name}=#{(us * now.samples - before[name] * before.samples) / samples}"
        end

      "result " <> Enum.join(averages, " ")
    else
      _none -> "refused no hops"
    end
  end

  defp each("port"), do: %{packed: false}
  defp each(_bridge), do: %{}

  defp hops(targets) do
    {_dispatcher, bridge} = targets["ours"]

    case call({Ringbridge.Diagnostics, bridge}, :status) do
      {:ok, %{hops: %{samples: _} = hops}} -> {:ok, hops}
      _ -> :none
    end
  end

  defp run(target, payload, callers, milliseconds) do
    now = System.monotonic_time()
    unit = System.convert_time_unit(milliseconds, :millisecond, :native)
    window = {now + trunc(unit * @settling), now + unit}
    parent = self()
    size = byte_size(payload)

    pids =
      for _ <- 1..callers do
        spawn_link(fn ->
          send(parent, {self(), caller(target, payload, size, window, callers)})
        end)
      end

    results = for pid <- pids, do: receive(do: ({^pid, result} -> result))
    calls = results |> Enum.map(&elem(&1, 0)) |> Enum.sum()
    errors = results |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    times = for {_calls, _errors, times} <- results, time <- times, do: nanoseconds(time)
    {opens, closes} = window
    window_us = System.convert_time_unit(closes - opens, :native, :microsecond)
    "result #{calls} #{errors} #{window_us} #{percentile(times, 0.5)} #{percentile(times, 0.99)}"
  end

  defp caller(target, payload, size, window, callers) do
    request = {:submit, :echo, payload}
    loop(target, request, size, window, callers == 1, System.monotonic_time(), {0, 0, []})
  end

  defp loop(
         target,
         request,
         size,
         {opens, closes} = window,
         keep?,
         before,
         {calls, errors, times}
       ) do
    answer = call(target, request)
    now = System.monotonic_time()

    cond do
      now > closes ->
        {calls, errors, times}

      now < opens ->
        loop(target, request, size, window, keep?, now, {calls, errors, times})

      match?({:ok, back} when byte_size(back) == size, answer) ->
        times = if keep?, do: [now - before | times], else: times
        loop(target, request, size, window, keep?, now, {calls + 1, errors, times})

      true ->
        loop(target, request, size, window, keep?, now, {calls, errors + 1, times})
    end
  end

  defp await_ends(_pid, 2), do: 2

  defp await_ends(pid, heard) do
    receive do
      {:EXIT, ^pid, :normal} -> await_ends(pid, heard + 1)
      {:DOWN, _ref, :process, ^pid, :normal} -> await_ends(pid, heard + 1)
    after
      @timeout_ms -> heard
    end
  end

  defp microseconds(native), do: System.convert_time_unit(native, :native, :microsecond)

  defp timed(fun) do
    before = System.monotonic_time()
    result = fun.()
    {nanoseconds(System.monotonic_time() - before), result}
  end

  defp nanoseconds(native), do: System.convert_time_unit(native, :native, :nanosecond)

  defp call(target, request) do
    GenServer.call(target, request, @timeout_ms)
  catch
    :exit, {reason, _call} -> {:error, {:exit, reason}}
  end

  defp percentile([], _share), do: 0

  defp percentile(values, share) do
    sorted = Enum.sort(values)
    Enum.at(sorted, min(length(sorted) - 1, trunc(length(sorted) * share)))
  end
end
