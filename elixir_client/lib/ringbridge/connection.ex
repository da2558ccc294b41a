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

  alias Ringbridge.{Backoff, Deadline, Instance, LocalNode, Route, Server, Telemetry}
  alias Ringbridge.Lane.Opener

  # How often a bridge's distance is measured, and how long its answer may take before others go first.
  @probe_ms 5_000

  # How often callers that wait for a connection are looked through for those that wait no more.
  @sweep_ms 1_000

  # How long a caller waits before it looks again, and tells the connections of itself again: one of them may have been
  # begun anew meanwhile, or may not be there yet.
  @look_again_ms 250
  @none_yet_ms 10

  defstruct [
    :instance,
    :node,
    :backoff,
    :monitor,
    :probe,
    :sweep,
    :up_at,
    :epoch,
    probe_ms: @probe_ms,
    round_trip_us: nil,
    status: :new,
    waiting: []
  ]

  @doc "One for an instance and a bridge."
  @spec start_link({Instance.t(), node(), Backoff.t()}) :: GenServer.on_start()
  def start_link(argument), do: GenServer.start_link(__MODULE__, argument)

  @doc """
  Returns when one of the instance's bridges is connected (anew, if it is in `tried`), or when it is time to look again,
  at `until_ms` (monotonic) at the latest. Leaves no message: what comes late goes to an alias that is no more.
  """
  @spec await_any(Instance.t(), Route.tried(), Deadline.t()) :: :ok | {:error, :not_started}
  def await_any(instance, tried, until_ms) do
    # The monitor on the supervisor ends the wait when the instance does.
    ref = :erlang.monitor(:process, instance.name, alias: :reply_demonitor)
    pids = connections(instance)
    pause_ms = if pids == [], do: @none_yet_ms, else: @look_again_ms
    until_ms = min(until_ms, Deadline.from_now(pause_ms))
    for pid <- pids, do: send(pid, {:wait, ref, tried, until_ms})

    receive do
      {^ref, :up} -> :ok
      {:DOWN, ^ref, _, _, _} -> {:error, :not_started}
    after
      Deadline.left(until_ms) -> give_up(ref)
    end
  end

  defp give_up(ref) do
    Process.demonitor(ref, [:flush])

    receive do
      {^ref, :up} -> :ok
    after
      0 -> :ok
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

    # A bridge of this VM says when it can be connected to; without it the pauses would grow with its start.
    if instance.server, do: Server.announce_to(instance.server, node, :connect)
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
      {:noreply, sweeping(%{state | waiting: [{ref, until_ms} | state.waiting]})}
    end
  end

  # Those who have given up, or died: nobody tells us of them.
  def handle_info(:sweep, state) do
    waiting = Enum.reject(state.waiting, fn {_ref, until_ms} -> Deadline.past?(until_ms) end)
    {:noreply, sweeping(%{state | waiting: waiting, sweep: nil})}
  end

  def handle_info({[:alias | ref], {:ok, _stats}}, %{probe: {ref, sent_us}} = state) do
    {:noreply, measured(%{state | probe: nil}, now_us() - sent_us)}
  end

  def handle_info({:DOWN, ref, :process, _name, reason}, %{monitor: ref} = state) do
    {:noreply, lost(state, reason)}
  end

  # The epoch: a timer of an earlier connection would take the answer that is under way for a late one.
  def handle_info({:probe, epoch}, %{status: :up, epoch: epoch, probe: nil} = state),
    do: {:noreply, probe(state)}

  # It has not answered the last one for all that time: others go first, and it is asked on.
  def handle_info({:probe, epoch}, %{status: :up, epoch: epoch} = state) do
    write(state, :up, :late)
    {:noreply, probe_later(state)}
  end

  # Timers and answers of an earlier connection.
  def handle_info(_other, state), do: {:noreply, state}

  defp connect(state) do
    with :ok <- LocalNode.admit(state.node, state.instance.cookie),
         true <- Node.connect(state.node),
         {:ok, monitor} <- watch(state.node) do
      {:noreply, probe(%{state | monitor: monitor})}
    else
      {:error, why} -> {:noreply, lost(state, why)}
      _false_or_ignored -> {:noreply, lost(state, :noconnection)}
    end
  end

  # Raises in a VM that is no node: distribution may have been stopped since.
  defp watch(node) do
    {:ok, Process.monitor({Ringbridge.JobDispatcher, node})}
  rescue
    ArgumentError -> {:error, :noconnection}
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
    probe_later(%{state | round_trip_us: us})
  end

  defp measured(state, us) do
    if state.status == :down, do: Logger.info("#{name(state)}: connected to #{state.node} again")
    state = %{state | epoch: System.unique_integer([:positive])}
    write(state, :up, us)
    Opener.up(state.instance, state.node, state.epoch)
    for {ref, _until_ms} <- state.waiting, do: send(ref, {ref, :up})
    Telemetry.lane(state.instance, :up, %{round_trip_us: us}, %{node: state.node})
    backoff = Backoff.reset(state.backoff)

    probe_later(%{
      state
      | status: :up,
        round_trip_us: us,
        waiting: [],
        backoff: backoff,
        up_at: now_us()
    })
  end

  defp probe_later(state) do
    Process.send_after(self(), {:probe, state.epoch}, state.probe_ms)
    state
  end

  # One timer, and only while somebody waits.
  defp sweeping(%{sweep: nil, waiting: [_ | _]} = state),
    do: %{state | sweep: Process.send_after(self(), :sweep, @sweep_ms)}

  defp sweeping(state), do: state

  defp lost(state, reason) do
    write(state, :down, :late)
    if state.status == :up, do: Opener.down(state.instance, state.node, reason)
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
    if state.status == :new and not Server.starting?(state.instance.server, state.node),
      do: Logger.warning("#{name(state)}: " <> unreachable(state, reason))

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
  defp now_us, do: System.monotonic_time(:microsecond)
end
