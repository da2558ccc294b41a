defmodule Ringbridge.StallTest do
  @moduledoc """
  The interpreter is held, with its global lock: what goes on is done without it.

  RINGBRIDGE_TEST_STALL=1 lets Diagnostics take {:stall, fifo}; without it there is no such request.
  """
  use Ringbridge.BridgeCase, env: [{"RINGBRIDGE_TEST_STALL", "1"}]

  alias Ringbridge.Lane.Opener
  alias Ringbridge.Poller.Memory

  @long "600000"
  @patience_ms 60_000

  # Runs `during` while the interpreter is held, and proves that it was: the registry, which Python
  # answers, has not answered by the end of it.
  defp stalled(node, during) do
    for role <- [:echo, :sleep], do: os_pid_of_worker(node, role)
    {:ok, _} = submit(node, :echo, "warm")
    stalled_without_warm_up(node, during)
  end

  defp stalled_without_warm_up(node, during) do
    fifo = Path.join(System.tmp_dir!(), "ringbridge-stall-#{System.pid()}")
    File.rm(fifo)
    {_, 0} = System.cmd("mkfifo", [fifo])
    stall = Task.async(fn -> ask(node, :Diagnostics, {:stall, fifo}) end)
    # Its open returns when the interpreter's does; the FIFO's end is its own.
    holder =
      start_supervised!(
        {Program,
         {["sh", "-c", ~s(exec 3>"$0"; echo held; exec sleep 1000), fifo], name: "holder"}}
      )

    Program.await_line(holder, ~r/held/)
    python = Task.async(fn -> ask(node, :WorkerRegistry, :list) end)
    result = during.()
    assert Task.yield(stall, 0) == nil, "the interpreter was free again before the end"
    assert Task.yield(python, 0) == nil, "Python answered, so it was not held"
    stop_supervised!("holder")
    File.rm!(fifo)
    assert Task.await(stall, @patience_ms) == :ok
    assert {:ok, _} = Task.await(python, @patience_ms)
    result
  end

  defp ask(node, service, request),
    do: GenServer.call({Module.concat(Ringbridge, service), node}, request, @patience_ms)

  test "calls go on", %{node: node} do
    done =
      stalled(node, fn ->
        1..16
        |> Task.async_stream(
          fn _ -> for(_ <- 1..50, do: {:ok, "on"} = submit(node, :echo, "on")) |> length() end,
          max_concurrency: 16
        )
        |> Enum.map(fn {:ok, count} -> count end)
        |> Enum.sum()
      end)

    assert done == 800
  end

  if Ringbridge.Lane.Native.status() == :ok do
    test "what the relay knows of its workers is read over a lane, and is of now", %{node: node} do
      start_supervised!({Ringbridge, name: __MODULE__.Read, nodes: [node], lane: :nif})
      await_lane(__MODULE__.Read, node, :nif)

      stalled(node, fn ->
        before = told_done(node)
        for _ <- 1..10, do: {:ok, "x"} = Ringbridge.call(__MODULE__.Read, :echo, "x")
        Lab.wait_until("they are told", @patience_ms, fn -> told_done(node) >= before + 10 end)
      end)
    end

    # As the poller does.
    defp told_done(node) do
      {:ok, status} = Memory.status(Opener.any_lane(__MODULE__.Read, node))
      for(worker <- status.workers, worker.role == "echo", do: worker.done) |> Enum.sum()
    end
  end

  test "large calls, refusals and statistics go on", %{node: node} do
    payload = :rand.bytes(2_000_000)

    stalled(node, fn ->
      assert {:ok, ^payload} = submit(node, :echo, payload)
      assert {:error, _} = submit(node, :no_such_role, "x")
      assert {:error, {:bad_request, _}} = call(node, :no_such_request)
      assert {:error, {:too_large, _}} = submit(node, :small, payload)
      assert %{in_flight: 0} = stats(node)
    end)
  end

  test "a worker killed while it is held has its caller answered", %{node: node} do
    task = Task.async(fn -> submit(node, :sleep, @long) end)
    os_pid = await_begun(node, :sleep)

    answer =
      stalled_without_warm_up(node, fn ->
        Program.kill(os_pid, "KILL")
        Task.await(task, @patience_ms)
      end)

    assert {:error, {:worker_crashed, %{signal: 9}}} = answer
    assert {:ok, _} = submit(node, :sleep, "0")
  end

  test "a deadline that passes meanwhile is answered", %{node: node} do
    answer = stalled(node, fn -> submit(node, :sleep, @long, %{timeout: 200}) end)
    assert answer == {:error, :deadline_exceeded}
    assert {:ok, _} = submit(node, :sleep, "0")
  end

  test "a caller that gives up meanwhile frees its worker", %{node: node} do
    stalled(node, fn ->
      assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 100))
      assert {:ok, _} = submit(node, :sleep, "0")
    end)
  end
end

defmodule Ringbridge.NoStallTest do
  use Ringbridge.BridgeCase

  test "without the variable there is no such request", %{node: node} do
    assert {:error, {:bad_request, _}} =
             GenServer.call({Ringbridge.Diagnostics, node}, {:stall, "/dev/null"})
  end
end
