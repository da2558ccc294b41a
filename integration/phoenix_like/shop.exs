defmodule Ringbridge.PhoenixLike.Shop do
  @moduledoc """
  An application as a web framework makes them, without one: an instance of Ringbridge, a PubSub, request processes under a
  supervisor, an endpoint that accepts connections, channels that live long, and a worker that works by the clock.

  Nothing in it knows that it is tested. What its users may be told is `{:ok, result}` or `{:error, reason's name}`.
  """
  use Supervisor

  alias Ringbridge.PhoenixLike.{Channel, Clock, Endpoint}

  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options), do: Supervisor.start_link(__MODULE__, options, name: __MODULE__)

  @impl Supervisor
  def init(options) do
    children =
      [
        {Ringbridge, [name: Compute, timeout: 10_000] ++ Keyword.take(options, [:nodes, :lane])},
        {Registry, keys: :duplicate, name: PubSub},
        {Task.Supervisor, name: Requests},
        {Endpoint, []}
      ] ++
        for(n <- 1..3, do: Supervisor.child_spec({Channel, n}, id: {Channel, n})) ++
        [{Clock, []}]

    Supervisor.init(children, strategy: :one_for_one)
  end

  @doc "Tells all subscribers of a topic."
  @spec broadcast(term(), term()) :: :ok
  def broadcast(topic, message) do
    Registry.dispatch(PubSub, topic, fn subscribers ->
      for {pid, _} <- subscribers, do: send(pid, message)
    end)
  end
end

defmodule Ringbridge.PhoenixLike.Endpoint do
  @moduledoc "Listens on a port of loopback; each connection is a process, which ends with its one request."
  use GenServer

  alias Ringbridge.PhoenixLike.Request

  @acceptors 4

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @spec port() :: :inet.port_number()
  def port, do: GenServer.call(__MODULE__, :port)

  @impl GenServer
  def init(nil) do
    options = [:binary, packet: 4, active: false, ip: {127, 0, 0, 1}, backlog: 128]
    {:ok, listener} = :gen_tcp.listen(0, options)
    for _ <- 1..@acceptors, do: spawn_link(fn -> accept(listener) end)
    {:ok, listener}
  end

  @impl GenServer
  def handle_call(:port, _from, listener) do
    {:ok, port} = :inet.port(listener)
    {:reply, port, listener}
  end

  defp accept(listener) do
    {:ok, socket} = :gen_tcp.accept(listener)

    {:ok, pid} =
      Task.Supervisor.start_child(Requests, fn ->
        receive do: (:yours -> Request.serve(socket))
      end)

    case :gen_tcp.controlling_process(socket, pid) do
      :ok -> send(pid, :yours)
      # Its user has gone already.
      {:error, _reason} -> Process.exit(pid, :kill)
    end

    accept(listener)
  end
end

defmodule Ringbridge.PhoenixLike.Request do
  @moduledoc """
  One request: a frame with a term, answered by a frame. Users who hang up end the process, and so does its own time limit: both in
  the middle of whatever it waits for, as servers do it.
  """

  # Past it the process is ended as it stands.
  @limit_ms 2_000

  @spec serve(:gen_tcp.socket()) :: :ok
  def serve(socket) do
    {:ok, bytes} = :gen_tcp.recv(socket, 0)
    {_kind, limit_ms, _} = request = :erlang.binary_to_term(bytes)
    {:ok, _timer} = :timer.kill_after(limit_ms || @limit_ms)
    # From here on the end of the connection is the end of this process.
    me = self()
    spawn(fn -> watch(socket, me) end) |> hand(socket)
    answer = :erlang.term_to_binary(handle(request))
    _closed_or_ok = :gen_tcp.send(socket, answer)
    :ok
  end

  defp hand(pid, socket) do
    _closed_or_ok = :gen_tcp.controlling_process(socket, pid)
    send(pid, :watch)
  end

  # Owns the socket, and ends with either.
  defp watch(socket, request) do
    monitor = Process.monitor(request)
    receive do: (:watch -> :inet.setopts(socket, active: :once))

    receive do
      {:tcp_closed, ^socket} -> Process.exit(request, :kill)
      {:DOWN, ^monitor, :process, _pid, _reason} -> :gen_tcp.close(socket)
    end
  end

  defp handle({:echo, _limit, payload}), do: told(Ringbridge.call(Compute, :echo, payload))

  # Asked for, then something else is done, then it is waited for.
  defp handle({:later, _limit, payload}) do
    request = Ringbridge.async(Compute, :echo, payload)
    _sum = Enum.sum(1..1_000)
    told(Ringbridge.await(request))
  end

  defp handle({:nap, _limit, ms}), do: told(Ringbridge.call(Compute, :sleep, "#{ms}"))

  defp handle({:impatient, _limit, ms}),
    do: told(Ringbridge.call(Compute, :sleep, "#{ms}", timeout: div(ms, 2)))

  defp handle({:many, _limit, payloads}) do
    case Ringbridge.call_many(Compute, :echo, payloads) do
      {:ok, answers} -> {:ok, Enum.map(answers, &told/1)}
      error -> told(error)
    end
  end

  defp handle({:primes, _limit, count}) do
    {:ok, Compute |> Ringbridge.stream(:primes, "400") |> Enum.take(count)}
  rescue
    error in Ringbridge.Error -> told({:error, error})
  end

  defp told({:ok, result}), do: {:ok, result}
  defp told({:error, error}), do: {:error, Ringbridge.Error.name(error.reason)}
end

defmodule Ringbridge.PhoenixLike.Channel do
  @moduledoc """
  A process that lives long, hears what is broadcast, and has something done with it without waiting: the answer is a message.
  """
  use GenServer

  @spec start_link(pos_integer()) :: GenServer.on_start()
  def start_link(n), do: GenServer.start_link(__MODULE__, n)

  @impl GenServer
  def init(n) do
    {:ok, _} = Registry.register(PubSub, :reports, nil)
    {:ok, %{n: n, request: nil, payload: nil}}
  end

  # A new report before the last one is done: that one is of no interest any more.
  @impl GenServer
  def handle_info({:report, report}, state) do
    if state.request, do: Ringbridge.shutdown(state.request)
    payload = {state.n, report}
    {:noreply, %{state | request: Ringbridge.async(Compute, :echo, payload), payload: payload}}
  end

  def handle_info(message, %{request: request} = state) when request != nil do
    case Ringbridge.check(request, message) do
      :other -> {:noreply, state}
      answer -> {:noreply, shown(answer, state)}
    end
  end

  defp shown(answer, state) do
    Ringbridge.PhoenixLike.Shop.broadcast(:shown, {:shown, state.payload, answer})
    %{state | request: nil, payload: nil}
  end
end

defmodule Ringbridge.PhoenixLike.Clock do
  @moduledoc "Makes a report every so often, and tells it."
  use GenServer

  @every_ms 20

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, 0)

  @impl GenServer
  def init(count) do
    Process.send_after(self(), :tick, @every_ms)
    {:ok, count}
  end

  @impl GenServer
  def handle_info(:tick, count) do
    parts = for n <- 1..3, do: "#{count}.#{n}"

    with {:ok, answers} <- Ringbridge.call_many(Compute, :echo, parts),
         do: Ringbridge.PhoenixLike.Shop.broadcast(:reports, {:report, {count, parts, answers}})

    Process.send_after(self(), :tick, @every_ms)
    {:noreply, count + 1}
  end
end
