defmodule Ringbridge.Lane.Opener do
  @moduledoc """
  Opens the lane over shared memory to one bridge, hands out what nobody else does, and closes it.

  It is told by the `Ringbridge.Connection` of its bridge when that is up and when it is lost, asks the bridge for a
  lane (docs/nif-lane.md), and writes it into the instance's table:

      {{:lane, node}, epoch, lane}

  Calls that find no such row with the connection's epoch go over the distribution; so they do while a lane is being opened,
  and when there is none to be had, which is one line in the log for each connection to the bridge.

  While nobody submits, answers wake it (`enif_select`). It then hands out all there are, looks a few times more, for
  where one answer is others are near, and sleeps.
  """
  use GenServer

  require Logger

  alias Ringbridge.Lane.Native
  alias Ringbridge.{Backoff, Instance, LocalNode, Telemetry}

  # The bridge answers at once; its socket too.
  @ask_ms 5_000
  @dial_ms 2_000

  # How often it looks again, each time after all that is ready to run has run, before it sleeps.
  @looks 8

  # How often it tells the lane's figures, and finds out that the library was replaced.
  @figures_ms 5_000

  # Pauses after a lane that ended while the connection stayed up.
  @backoff %Backoff{min_ms: 100, max_ms: 10_000}

  # A lane that was up for so long begins with the first pause again.
  @settled_us 10_000_000

  # As a Unix socket's address and the library take them.
  defguardp is_address(socket, token)
            when byte_size(socket) in 1..107 and byte_size(token) == 32

  defstruct [:instance, :node, :epoch, :lane, :wake, :opened_us, looks: 0, backoff: @backoff]

  @typedoc "Why there is no lane, in the words of the log."
  @type why :: String.t()

  @doc "One for an instance and a bridge."
  @spec start_link({Instance.t(), node()}) :: GenServer.on_start()
  def start_link({_instance, _node} = argument), do: GenServer.start_link(__MODULE__, argument)

  @doc "The connection to the bridge is up; its epoch."
  @spec up(Instance.t(), node(), Ringbridge.Route.epoch()) :: :ok
  def up(instance, node, epoch), do: tell(instance, node, {:up, epoch})

  @doc "It is lost, for the reason of a DOWN: so are the requests on the lane."
  @spec down(Instance.t(), node(), reason :: term()) :: :ok
  def down(instance, node, reason), do: tell(instance, node, {:down, reason})

  @doc "The bridge's lane of that connection, or `nil`."
  @spec lane(Instance.t(), node(), Ringbridge.Route.epoch()) :: reference() | nil
  def lane(%{lane: :dist}, _node, _epoch), do: nil

  def lane(instance, node, epoch) do
    case :ets.lookup(instance.name, {:lane, node}) do
      [{_key, ^epoch, lane}] -> lane
      _ -> nil
    end
  rescue
    # The table went meanwhile.
    ArgumentError -> nil
  end

  @doc "The bridge's lane of whatever connection, open or not any more; or `nil`."
  @spec any_lane(atom(), node()) :: reference() | nil
  def any_lane(name, node) do
    case :ets.lookup(name, {:lane, node}) do
      [{_key, _epoch, lane}] -> lane
      [] -> nil
    end
  rescue
    ArgumentError -> nil
  end

  defp tell(%{lane: :dist}, _node, _what), do: :ok

  defp tell(instance, node, what) do
    case :ets.lookup(instance.name, {:opener, node}) do
      [{_key, pid}] -> send(pid, what)
      [] -> :ok
    end

    :ok
  end

  @impl GenServer
  def init({instance, node}) do
    # For terminate/2: a lane's requests hear of its end.
    Process.flag(:trap_exit, true)
    state = %__MODULE__{instance: instance, node: node}
    :ets.insert(instance.name, {{:opener, node}, self()})
    {:ok, state, {:continue, :look}}
  end

  # It may have been begun anew while the connection is up.
  @impl GenServer
  def handle_continue(:look, state) do
    case :ets.lookup(state.instance.name, {:bridge, state.node}) do
      [{_key, _pid, :up, _distance, epoch}] -> {:noreply, open(%{state | epoch: epoch})}
      _ -> {:noreply, state}
    end
  end

  @impl GenServer
  def handle_info({:up, epoch}, %{epoch: epoch} = state), do: {:noreply, state}

  def handle_info({:up, epoch}, state) do
    state = state |> close(:noconnection) |> Map.put(:backoff, Backoff.reset(state.backoff))
    {:noreply, open(%{state | epoch: epoch})}
  end

  def handle_info({:down, reason}, state), do: {:noreply, close(%{state | epoch: nil}, reason)}

  # The connection is still up. A later one asks for a lane of its own.
  def handle_info({:again, epoch}, %{epoch: epoch, lane: nil} = state) do
    told(state, "it has ended; asking for another one")
    {:noreply, open(state)}
  end

  def handle_info({:select, lane, wake, :ready_input}, %{lane: lane, wake: wake} = state),
    do: native(state, fn -> serve(%{state | looks: @looks}) end)

  def handle_info({:serve, lane}, %{lane: lane} = state),
    do: native(state, fn -> serve(state) end)

  def handle_info({:figures, lane}, %{lane: lane} = state),
    do: native(state, fn -> figures(state) end)

  # Of an earlier lane.
  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state), do: close(state, :noconnection)

  # A library that was loaded after the last use of this one's code was purged does not know our lane, and only our end makes the
  # old one close it. We are begun anew.
  defp native(state, work) do
    {:noreply, work.()}
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] ->
      {:stop, {:shutdown, :library_replaced}, state}
  end

  defp figures(state) do
    names = [:sent, :answered, :dropped, :cancelled, :full, :wakes, :open, :held_bytes]
    figures = names |> Enum.zip(Tuple.to_list(Native.figures(state.lane))) |> Map.new()
    Telemetry.lane(state.instance, :figures, figures, %{node: state.node, lane: :nif})
    look_later(state)
  end

  defp look_later(state) do
    Process.send_after(self(), {:figures, state.lane}, @figures_ms)
    state
  end

  # --- Answers ------------------------------------------------------------------------------------------------

  defp serve(state) do
    case Native.drain(state.lane) do
      :more -> again(%{state | looks: @looks})
      :empty when state.looks > 0 -> again(%{state | looks: state.looks - 1})
      :empty -> park(state)
      :ended -> ended(state)
    end
  end

  defp again(state) do
    send(self(), {:serve, state.lane})
    state
  end

  defp park(state) do
    case Native.park(state.lane, state.wake) do
      :ok -> state
      :more -> again(%{state | looks: @looks})
      :ended -> ended(state)
    end
  end

  # By the bridge, or because that is gone: then the connection says so, meanwhile.
  defp ended(state) do
    settled? = now_us() - state.opened_us > @settled_us
    backoff = if settled?, do: Backoff.reset(state.backoff), else: state.backoff
    state = close(state, :noconnection)
    {pause_ms, backoff} = Backoff.next(backoff, :rand.uniform())
    Process.send_after(self(), {:again, state.epoch}, pause_ms)
    %{state | backoff: backoff}
  end

  # --- Opened and closed --------------------------------------------------------------------------------------

  defp open(state) do
    began_us = now_us()

    with :ok <- here(state),
         :ok <- built(),
         {:ok, socket, token} <- ask(state.node),
         {:ok, lane} <- dial(socket, token) do
      opened(%{state | lane: lane, wake: make_ref(), opened_us: now_us()}, began_us)
    else
      {:error, why} -> told(state, why)
    end
  rescue
    # The library's code is being replaced just now.
    _ in [ErlangError, UndefinedFunctionError] ->
      Process.send_after(self(), {:again, state.epoch}, @backoff.min_ms)
      state
  end

  defp opened(state, began_us) do
    :ets.insert(state.instance.name, {{:lane, state.node}, state.epoch, state.lane})
    measurements = %{open_us: now_us() - began_us}
    Telemetry.lane(state.instance, :open, measurements, %{node: state.node, lane: :nif})
    state |> look_later() |> serve()
  end

  defp here(state) do
    if state.instance.lane == :nif or LocalNode.same_host?(state.node),
      do: :ok,
      else: {:error, "it is on another host"}
  end

  defp built do
    case Native.status() do
      :ok -> :ok
      {:error, :not_built} -> {:error, "the NIF is not built"}
      {:error, text} -> {:error, "the NIF does not load: #{text}"}
    end
  end

  defp ask(node) do
    {version, digest} = Native.about()

    wanted = %{
      os_pid: String.to_integer(System.pid()),
      schedulers: System.schedulers(),
      version: version,
      digest: digest
    }

    case GenServer.call({Ringbridge.Lanes, node}, {:open, wanted}, @ask_ms) do
      {:ok, %{socket: socket, token: token}} when is_address(socket, token) ->
        {:ok, socket, token}

      {:error, reason} ->
        {:error, "the bridge says #{inspect(reason)}"}

      other ->
        {:error, "the bridge says #{inspect(other)}"}
    end
  catch
    :exit, {:noproc, _call} -> {:error, "the bridge gives none"}
    :exit, {reason, _call} -> {:error, "the bridge was not to be asked (#{inspect(reason)})"}
  end

  defp dial(socket, token) do
    case Native.open(socket, token, @dial_ms) do
      {:ok, lane} -> {:ok, lane}
      {:error, {name, text}} -> {:error, "#{name}: #{text}"}
    end
  end

  # Requests on it hear the reason. The row goes first: nobody begins on a lane that is being closed.
  defp close(%{lane: nil} = state, _reason), do: state

  defp close(state, reason) do
    :ets.delete(state.instance.name, {:lane, state.node})
    Native.close(state.lane, reason)
    measurements = %{up_us: now_us() - state.opened_us}
    metadata = %{node: state.node, lane: :nif, reason: reason}
    Telemetry.lane(state.instance, :close, measurements, metadata)
    %{state | lane: nil, wake: nil}
  rescue
    # The instance's table, or this lane's library, has gone before.
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> %{state | lane: nil, wake: nil}
  end

  # Who has asked for the lane by name is warned.
  defp told(state, why) do
    level = if state.instance.lane == :nif, do: :warning, else: :info
    text = "#{inspect(state.instance.name)}: no lane over shared memory to #{state.node}: #{why}"
    Logger.log(level, text <> "; calls go over the distribution")
    Telemetry.lane(state.instance, :fallback, %{count: 1}, %{node: state.node, reason: why})
    state
  end

  defp now_us, do: System.monotonic_time(:microsecond)
end
