defmodule Ringbridge.StallTest do
  @moduledoc """
  The interpreter is held for a second, with its global lock: what goes on is done without it.

  RINGBRIDGE_TEST_STALL=1 lets Diagnostics take {:stall, milliseconds}; without it there is no such request.
  """
  use Ringbridge.BridgeCase, env: [{"RINGBRIDGE_TEST_STALL", "1"}]

  @stall_ms 1_000

  # Runs `during` while the interpreter is held, and proves that it was: the registry, which Python
  # answers, does not answer before the second is over.
  defp stalled(node, during) do
    warm_up(node)
    stall = Task.async(fn -> diagnostics(node, {:stall, @stall_ms}) end)
    python = Task.async(fn -> timed(fn -> slow_registry(node) end) end)
    began = System.monotonic_time(:millisecond)
    wait_until_stalled(node)
    result = during.()
    took = System.monotonic_time(:millisecond) - began
    assert took < @stall_ms, "it took #{took} ms, so it may have waited for the interpreter"
    assert Task.yield(stall, 0) == nil, "the interpreter was free again before the end"
    assert :ok = Task.await(stall)
    {python_ms, {:ok, _}} = Task.await(python)
    assert python_ms > div(@stall_ms, 2)
    result
  end

  defp warm_up(node) do
    for role <- [:echo, :sleep], do: os_pid_of_worker(node, role)
    {:ok, _} = submit(node, :echo, "warm")
  end

  defp diagnostics(node, request), do: GenServer.call({Ringbridge.Diagnostics, node}, request)

  # Asked shortly after the stall began; its answer waits for the end of it.
  defp slow_registry(node) do
    Process.sleep(50)
    GenServer.call({Ringbridge.WorkerRegistry, node}, :list)
  end

  # The stall has begun when Python answers no more. 60 ms: a free interpreter answers in one.
  defp wait_until_stalled(node) do
    Lab.wait_until("the interpreter is held", 500, fn ->
      match?({:timeout, _}, catch_exit_of(fn -> registry_within(node, 60) end))
    end)
  end

  defp registry_within(node, ms) do
    GenServer.call({Ringbridge.WorkerRegistry, node}, :stats, ms)
  end

  defp catch_exit_of(fun) do
    fun.()
  catch
    :exit, reason -> reason
  end

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

  test "a worker killed in that second has its caller answered", %{node: node} do
    task = Task.async(fn -> submit(node, :sleep, "10000", %{}, 20_000) end)
    os_pid = await_busy(node, :sleep)

    answer =
      stalled_without_warm_up(node, fn ->
        Program.kill(os_pid, "KILL")
        {ms, answer} = timed(fn -> Task.await(task) end)
        assert ms <= 200
        answer
      end)

    assert {:error, {:worker_crashed, %{signal: 9}}} = answer
    assert {:ok, _} = submit(node, :sleep, "0")
  end

  test "a deadline that passes in it is answered", %{node: node} do
    answer =
      stalled(node, fn ->
        {ms, answer} = timed(fn -> submit(node, :sleep, "10000", %{timeout: 200}) end)
        assert ms in 190..500
        answer
      end)

    assert answer == {:error, :deadline_exceeded}
    assert {:ok, _} = submit(node, :sleep, "0")
  end

  test "a caller that gives up in it frees its worker", %{node: node} do
    stalled(node, fn ->
      assert {:timeout, _} = catch_exit(submit(node, :sleep, "10000", %{}, 100))
      assert {:ok, _} = submit(node, :sleep, "0", %{}, 600)
    end)
  end

  defp stalled_without_warm_up(node, during) do
    stall = Task.async(fn -> diagnostics(node, {:stall, @stall_ms}) end)
    wait_until_stalled(node)
    result = during.()
    assert Task.yield(stall, 0) == nil, "the interpreter was free again before the end"
    assert :ok = Task.await(stall)
    result
  end
end

defmodule Ringbridge.NoStallTest do
  use Ringbridge.BridgeCase

  test "without the variable there is no such request", %{node: node} do
    assert {:error, {:bad_request, _}} =
             GenServer.call({Ringbridge.Diagnostics, node}, {:stall, 1_000})
  end
end
