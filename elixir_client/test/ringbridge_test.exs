defmodule RingbridgeTest do
  use ExUnit.Case

  # A stand-in for the bridge on this very node: it answers with the request that it was sent.
  defmodule Mirror do
    use GenServer

    @impl GenServer
    def init(nil), do: {:ok, nil}

    @impl GenServer
    def handle_call({:submit, :sleep, ms, _options}, _from, state) do
      Process.sleep(String.to_integer(ms))
      {:reply, {:ok, "slept"}, state}
    end

    def handle_call(request, _from, state), do: {:reply, {:ok, request}, state}
  end

  setup do
    start_supervised!(%{
      id: Mirror,
      start: {GenServer, :start_link, [Mirror, nil, [name: Ringbridge.JobDispatcher]]}
    })

    :ok
  end

  describe "submit/4" do
    test "is the documented request, sent to the dispatcher's name on the node" do
      assert Ringbridge.submit(node(), :echo, "hi") == {:ok, {:submit, :echo, "hi", []}}
    end

    test "passes options on as they are, a map or a keyword list" do
      assert {:ok, {:submit, "echo", {1, 2}, %{timeout: 10, meta: %{}}}} =
               Ringbridge.submit(node(), "echo", {1, 2}, %{timeout: 10, meta: %{}})

      assert {:ok, {:submit, :echo, "", [timeout: :infinity]}} =
               Ringbridge.submit(node(), :echo, "", timeout: :infinity)
    end

    test "waits longer than the job's own timeout, so that the bridge's answer arrives first" do
      assert Ringbridge.submit(node(), :sleep, "50", timeout: 1) == {:ok, "slept"}
    end

    test "exits with noproc where no bridge is" do
      stop_supervised!(Mirror)
      assert {:noproc, _} = catch_exit(Ringbridge.submit(node(), :echo, "hi"))
    end
  end
end
