defmodule Ringbridge.Poller do
  @moduledoc """
  Asks the bridges of an instance for the health of their workers, again and again, and tells telemetry.

      children = [
        {Ringbridge, name: MyApp.Compute, nodes: [:"bridge@127.0.0.1"]},
        {Ringbridge.Poller, instance: MyApp.Compute, every_ms: 10_000}
      ]

  The events are those of `Ringbridge.Telemetry`: `[:ringbridge, :worker, ..]`, `[:ringbridge, :role, :load]` and
  `[:ringbridge, :poll, ..]`. Where the package `telemetry` is not there, the poller asks nobody.

  A bridge to which the instance has a lane over shared memory is not asked: what it tells there is read (`Ringbridge.Poller.Memory`), which costs the
  bridge nothing. The events are the same; `lane` of `[:ringbridge, :poll, :stop]` says which it was.

  Each other bridge is asked by a process of its own, one at a time: a bridge that stands still holds up no other and heaps up no questions. One question
  costs a bridge what `ringbridge status` does, so a few seconds between two are enough; many nodes that poll one bridge are as many questions.
  """
  use GenServer

  alias Ringbridge.{Error, Instance, Reach, Telemetry}
  alias Ringbridge.Lane.Opener
  alias Ringbridge.Poller.{Health, Memory}

  @every_ms 10_000
  @least_ms 100
  @ask_ms 5_000

  defstruct [:instance, :every_ms, seen: %{}, asking: %{}]

  @doc """
  Starts it. Options: `:instance` (required, the name of a `Ringbridge`), `:every_ms` (#{@every_ms}, at least #{@least_ms}), `:name`.

  Raises `ArgumentError` for wrong options. The instance may come later, and go and come again.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    {instance, every_ms} = checked!(options)
    GenServer.start_link(__MODULE__, {instance, every_ms}, Keyword.take(options, [:name]))
  end

  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options),
    do: %{id: {__MODULE__, options[:instance]}, start: {__MODULE__, :start_link, [options]}}

  defp checked!(options) do
    instance = options[:instance]
    every_ms = Keyword.get(options, :every_ms, @every_ms)

    case Keyword.keys(options) -- [:instance, :every_ms, :name] do
      [] -> :ok
      [key | _] -> fail("unknown option #{inspect(key)}; there are :instance, :every_ms, :name")
    end

    (is_atom(instance) and instance != nil) or
      fail("option :instance is the name of a Ringbridge; got: #{inspect(instance)}")

    (is_integer(every_ms) and every_ms >= @least_ms) or
      fail("option :every_ms is milliseconds, at least #{@least_ms}; got: #{inspect(every_ms)}")

    {instance, every_ms}
  end

  @spec fail(String.t()) :: no_return()
  defp fail(why), do: raise(ArgumentError, "{Ringbridge.Poller, ..}: " <> why)

  @impl GenServer
  def init({instance, every_ms}) do
    if Telemetry.available?(), do: send(self(), :poll)
    {:ok, %__MODULE__{instance: instance, every_ms: every_ms}}
  end

  @impl GenServer
  def handle_info(:poll, state) do
    Process.send_after(self(), :poll, state.every_ms)

    case Instance.fetch(state.instance) do
      {:ok, instance} -> {:noreply, Enum.reduce(instance.nodes, state, &ask/2)}
      {:error, _not_started} -> {:noreply, state}
    end
  end

  def handle_info({:DOWN, ref, :process, _pid, outcome}, state) do
    case Map.pop(state.asking, ref) do
      {nil, _asking} -> {:noreply, state}
      {node, asking} -> {:noreply, heard(%{state | asking: asking}, node, outcome)}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  # Whom we have asked and not heard from is not asked again.
  defp ask(node, state) do
    if node in Map.values(state.asking) do
      state
    else
      {instance, seen} = {state.instance, state.seen[node]}
      {_pid, ref} = spawn_monitor(fn -> exit({:asked, answer(instance, node, seen)}) end)
      %{state | asking: Map.put(state.asking, ref, node)}
    end
  end

  defp answer(instance, node, seen) do
    began = System.monotonic_time()
    {lane, outcome} = status(instance, node)
    duration = System.monotonic_time() - began
    with {:ok, status} <- outcome, do: {:ok, Health.events(seen, status), duration, lane}
  end

  # Why there is nothing to be read does not matter here: the bridge knows the same.
  defp status(instance, node) do
    with lane when lane != nil <- Opener.any_lane(instance, node),
         {:ok, status} <- Memory.status(lane) do
      {:nif, {:ok, status}}
    else
      _none -> {:dist, asked(node)}
    end
  end

  # Only over a connection that the instance has made: the poller dials nobody.
  defp asked(node) do
    if node in Node.list(:connected),
      do: Reach.ask(node, Ringbridge.Diagnostics, :status, @ask_ms),
      else: {:error, %Error{reason: :not_connected, node: node}}
  end

  defp heard(state, node, {:asked, {:ok, {seen, events}, duration, lane}}) do
    for {event, measurements, metadata} <- events,
        do: tell(state, node, event, measurements, metadata)

    tell(state, node, [:poll, :stop], %{duration: duration}, %{lane: lane})
    %{state | seen: Map.put(state.seen, node, seen)}
  end

  defp heard(state, node, {:asked, {:error, error}}), do: failed(state, node, error)

  # A status that this client cannot read: of a bridge that is much older, or newer.
  defp heard(state, node, reason),
    do: failed(state, node, %Error{reason: {:down, reason}, node: node})

  defp failed(state, node, error) do
    tell(state, node, [:poll, :exception], %{count: 1}, %{
      kind: :error,
      reason: error,
      stacktrace: []
    })

    state
  end

  defp tell(state, node, event, measurements, metadata) do
    Telemetry.polled(state.instance, event, measurements, Map.put(metadata, :node, node))
  end
end
