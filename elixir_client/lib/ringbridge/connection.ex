defmodule Ringbridge.Connection do
  @moduledoc """
  The connection to one bridge: makes it, watches it, makes it again when it is lost, and measures how far the bridge is.

  What it knows it writes into the instance's table, where callers read it (`Ringbridge.Route`). It is up when the
  bridge's dispatcher has answered, and down from the DOWN of the dispatcher on: that comes when the connection
  breaks, and when the bridge is stopped.

  `Node.connect/1` blocks it, for seven seconds at most (kernel's `net_setuptime`); nobody waits for it meanwhile but
  those who have no bridge to ask. A bridge is a hidden node, so the connection is hidden and reaches nobody else.
  """
  use GenServer

  # The tag of a call by alias is such a list (gen.erl).
  @dialyzer :no_improper_lists

  require Logger

  alias Ringbridge.{Backoff, Instance, LocalNode, Route, Telemetry}

  # How often a bridge's distance is measured, and how long its answer may take before others go first.
  @probe_ms 5_000

  # How often callers that wait for a connection are looked through for those that wait no more.
  @sweep_ms 1_000

  defstruct [
    :instance,
    :node,
    :backoff,
    :monitor,
    :probe,
    :up_at,
    :epoch,
    round_trip_us: nil,
    status: :new,
    waiting: []
  ]

  @spec start_link({Instance.t(), node(), Backoff.t()}) :: GenServer.on_start()
  def start_link(argument), do: GenServer.start_link(__MODULE__, argument)

  @doc """
  Returns when one of the instance's bridges is connected (anew, if it is in `tried`), or at `until_ms` (monotonic).
  Leaves no message: what comes late goes to an alias that is no more.
  """
  @spec await_any(Instance.t(), Route.tried(), integer()) ::
          :ok | {:error, :not_connected | :not_started}
  def await_any(instance, tried, until_ms) do
    # The monitor on the supervisor ends the wait when the instance does.
    ref = :erlang.monitor(:process, instance.name, alias: :reply_demonitor)
    for pid <- connections(instance), do: send(pid, {:wait, ref, tried, until_ms})

    receive do
      {^ref, :up} -> :ok
      {:DOWN, ^ref, _, _, _} -> {:error, :not_started}
    after
      max(0, until_ms - now_ms()) -> give_up(ref)
    end
  end

  defp give_up(ref) do
    Process.demonitor(ref, [:flush])

    receive do
      {^ref, :up} -> :ok
    after
      0 -> {:error, :not_connected}
    end
  end

  defp connections(instance) do
    for [pid] <- :ets.match(instance.name, {{:bridge, :_}, :"$1", :_, :_, :_}), do: pid
  rescue
    ArgumentError -> []
  end

  @impl GenServer
  def init({instance, node, backoff}) do
    state = %__MODULE__{instance: instance, node: node, backoff: backoff}
    write(state, :down, :late)
    {:ok, state, {:continue, :connect}}
  end

  @impl GenServer
  def handle_continue(:connect, state), do: connect(state)

  # Blocks as long as Node.connect does.
  @impl GenServer
  def handle_info(:connect, %{monitor: nil} = state), do: connect(state)

  # A caller may have heard before us that this connection is lost.
  def handle_info({:wait, ref, tried, until_ms}, state) do
    if state.status == :up and not Route.tried?(state.node, state.epoch, tried) do
      send(ref, {ref, :up})
      {:noreply, state}
    else
      if state.waiting == [], do: Process.send_after(self(), :sweep, @sweep_ms)
      {:noreply, %{state | waiting: [{ref, until_ms} | state.waiting]}}
    end
  end

  # Those who have given up, or died: nobody tells us of them.
  def handle_info(:sweep, state) do
    now_ms = now_ms()
    waiting = for {ref, until_ms} <- state.waiting, until_ms > now_ms, do: {ref, until_ms}
    if waiting != [], do: Process.send_after(self(), :sweep, @sweep_ms)
    {:noreply, %{state | waiting: waiting}}
  end

  def handle_info({[:alias | ref], {:ok, _stats}}, %{probe: {ref, sent_us}} = state) do
    {:noreply, measured(%{state | probe: nil}, now_us() - sent_us)}
  end

  def handle_info({:DOWN, ref, :process, _name, reason}, %{monitor: ref} = state) do
    {:noreply, lost(state, reason)}
  end

  def handle_info(:probe, %{status: :up, probe: nil} = state), do: {:noreply, probe(state)}

  # It has not answered the last one for all that time: others go first, and it is asked on.
  def handle_info(:probe, %{status: :up} = state) do
    write(state, :up, :late)
    Process.send_after(self(), :probe, @probe_ms)
    {:noreply, state}
  end

  # Timers and answers of an earlier connection.
  def handle_info(_other, state), do: {:noreply, state}

  defp connect(state) do
    with :ok <- LocalNode.ensure(state.instance.nodes, state.instance.cookie),
         true <- Node.connect(state.node) do
      monitor = Process.monitor({Ringbridge.JobDispatcher, state.node})
      {:noreply, probe(%{state | monitor: monitor})}
    else
      {:error, why} -> {:noreply, lost(state, why)}
      _false_or_ignored -> {:noreply, lost(state, :noconnection)}
    end
  end

  # A request that the relay answers by itself, so it tells of the way and not of the interpreter's load.
  defp probe(state) do
    to = {Ringbridge.JobDispatcher, state.node}
    ref = :erlang.monitor(:process, to, alias: :reply_demonitor)
    send(to, {:"$gen_call", {self(), [:alias | ref]}, :stats})
    %{state | probe: {ref, now_us()}}
  end

  defp measured(%{status: :up} = state, us) do
    # An eighth of the new one, as TCP smooths its round trip (RFC 6298): one slow answer moves nothing.
    us = div(7 * state.round_trip_us + us, 8)
    write(state, :up, us)
    Process.send_after(self(), :probe, @probe_ms)
    %{state | round_trip_us: us}
  end

  defp measured(state, us) do
    if state.status == :down, do: Logger.info("#{name(state)}: connected to #{state.node} again")
    state = %{state | epoch: System.unique_integer([:positive])}
    write(state, :up, us)
    for {ref, _until_ms} <- state.waiting, do: send(ref, {ref, :up})
    Telemetry.lane(state.instance, :up, %{round_trip_us: us}, %{node: state.node})
    Process.send_after(self(), :probe, @probe_ms)
    backoff = Backoff.reset(state.backoff)
    %{state | status: :up, round_trip_us: us, waiting: [], backoff: backoff, up_at: now_us()}
  end

  defp lost(state, reason) do
    write(state, :down, :late)
    tell(state, reason)
    if state.monitor, do: Process.demonitor(state.monitor, [:flush])
    {pause_ms, backoff} = Backoff.next(state.backoff, :rand.uniform())
    Process.send_after(self(), :connect, pause_ms)
    %{state | status: :down, monitor: nil, probe: forget(state.probe), backoff: backoff}
  end

  defp forget(nil), do: nil

  defp forget({ref, _sent_us}) do
    Process.demonitor(ref, [:flush])
    nil
  end

  # One line when a bridge is lost or not there; none for the attempts after it.
  defp tell(%{status: :up} = state, reason) do
    Logger.warning("#{name(state)}: lost #{state.node} (#{inspect(reason)}); trying again")
    measurements = %{up_us: now_us() - state.up_at}
    Telemetry.lane(state.instance, :down, measurements, %{node: state.node, reason: reason})
  end

  defp tell(state, reason) do
    if state.status == :new, do: Logger.warning("#{name(state)}: " <> unreachable(state, reason))
    measurements = %{attempt: state.backoff.failures + 1}
    Telemetry.lane(state.instance, :retry, measurements, %{node: state.node, reason: reason})
  end

  defp unreachable(_state, why) when is_binary(why), do: why

  defp unreachable(state, :noproc) do
    "#{state.node} is up but is no bridge, or its dispatcher begins anew; trying again"
  end

  defp unreachable(state, reason) do
    "cannot connect to #{state.node} (#{inspect(reason)}); trying again. Is the name right, is the cookie the " <>
      "same, does `epmd -names` show it?"
  end

  defp write(state, status, round_trip) do
    distance = Route.distance(LocalNode.same_host?(state.node), round_trip)
    row = {{:bridge, state.node}, self(), status, distance, state.epoch}
    :ets.insert(state.instance.name, row)
  end

  defp name(state), do: inspect(state.instance.name)
  defp now_ms, do: System.monotonic_time(:millisecond)
  defp now_us, do: System.monotonic_time(:microsecond)
end
