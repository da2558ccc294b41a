defmodule Ringbridge.FakeBridge do
  @moduledoc """
  A dispatcher in this VM, and an instance whose table says what a test wants of the connections: the client's calls without a
  bridge, whose every answer is the test's.
  """
  alias Ringbridge.{Instance, Route}

  defmodule Dispatcher do
    @moduledoc false
    use GenServer

    def start_link({test, answer}),
      do: GenServer.start_link(__MODULE__, {test, answer}, name: Ringbridge.JobDispatcher)

    @impl GenServer
    def init(state), do: {:ok, state}

    # Everything that it is asked the test hears of.
    @impl GenServer
    def handle_call(request, _from, {test, answer} = state) do
      send(test, {:asked, request})

      if answer, do: {:reply, answer, state}, else: {:noreply, state}
    end
  end

  @doc "Starts a dispatcher that gives everybody this answer, or `nil`: none."
  def start_dispatcher(answer),
    do: ExUnit.Callbacks.start_supervised!({Dispatcher, {self(), answer}})

  @doc "Starts an instance of that name with a row for this VM as its only bridge: connected, or not, through `connection`."
  def start_instance(name, status, connection \\ self(), fields \\ []) do
    instance = %Instance{
      name: name,
      nodes: [node()],
      mode: :dist,
      timeout: 5_000,
      connect_timeout: 60_000,
      telemetry?: false
    }

    start = fn ->
      :ets.new(name, [:named_table, :public, :set])
      :ets.insert(name, {:instance, struct!(instance, fields)})
    end

    spec = %{id: name, start: {Agent, :start_link, [start, [name: name]]}}
    ExUnit.Callbacks.start_supervised!(spec)
    put(name, status, connection)
  end

  @doc "What its connection would write."
  def put(name, status, connection \\ self()) do
    row = {{:bridge, node()}, connection, status, Route.distance(true, 100), 1}
    :ets.insert(name, row)
    name
  end
end
