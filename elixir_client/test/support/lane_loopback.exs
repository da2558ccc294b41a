defmodule Ringbridge.LaneLoopback do
  @moduledoc """
  A bridge's end of lanes without a bridge: the program of csrc/nif/tests/loopback.c, and the name that openers ask.

  Its roles are told there; several of them are lies.
  """
  use GenServer

  alias Ringbridge.Instance
  alias Ringbridge.Lane.{Native, Opener}

  @root Path.expand("../../..", __DIR__)
  @program Path.join(@root, "build/tests/lane-loopback")

  @doc "Why lanes cannot be tried here, or nil."
  @spec missing() :: String.t() | nil
  def missing do
    cond do
      Native.status() != :ok -> "the NIF is not built"
      not File.regular?(@program) -> "no #{@program} (make core)"
      true -> nil
    end
  end

  @doc "Starts it under the test's supervisor. Options: `:slots`, `:result_mib`, `:answer` (instead of a lane)."
  @spec start(keyword()) :: pid()
  def start(options \\ []), do: ExUnit.Callbacks.start_supervised!({__MODULE__, options})

  @doc "An instance's table, and the opener of its lane; the lane when there is one."
  @spec open(atom(), keyword()) :: {Instance.t(), pid()}
  def open(name, options \\ []) do
    Ringbridge.FakeBridge.start_instance(name, :up, self(), options)
    {:ok, instance} = Instance.fetch(name)
    {instance, ExUnit.Callbacks.start_supervised!({Opener, {instance, node()}})}
  end

  @doc "Waits for the lane; where a lane's calls go."
  @spec await_lane(Instance.t(), reference() | nil) :: {reference(), node()}
  def await_lane(instance, other_than \\ nil) do
    case Opener.lane(instance, node(), 1) do
      lane when lane not in [nil, other_than] ->
        {lane, node()}

      _ ->
        Process.sleep(5)
        await_lane(instance, other_than)
    end
  end

  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: Ringbridge.Lanes)

  @impl GenServer
  def init(options) do
    name = "ringbridge-loopback-#{System.pid()}-#{System.unique_integer([:positive])}"
    sizes = ["#{options[:slots] || 1024}", "#{options[:result_mib] || 64}"]
    # It ends when its stdin is closed: with this process.
    port = Port.open({:spawn_executable, @program}, [:binary, args: [name | sizes]])

    receive do
      {^port, {:data, "ready" <> _}} -> {:ok, %{name: name, answer: options[:answer], asked: []}}
    end
  end

  @impl GenServer
  def handle_call({:open, wanted}, _from, %{answer: nil} = state) do
    answer = {:ok, %{socket: <<0, state.name::binary>>, token: :binary.copy(<<7>>, 32)}}
    {:reply, answer, %{state | asked: [wanted | state.asked]}}
  end

  def handle_call({:open, _wanted}, _from, state), do: {:reply, state.answer, state}
  def handle_call(:asked, _from, state), do: {:reply, state.asked, state}
  def handle_call({:answer, answer}, _from, state), do: {:reply, :ok, %{state | answer: answer}}

  @impl GenServer
  def handle_info(_exit_or_data, state), do: {:noreply, state}
end
