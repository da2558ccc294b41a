defmodule Ringbridge.WorkerDeathTest do
  @moduledoc "A worker may end at any moment; its caller is told within 200 ms and the next call works."
  use Ringbridge.BridgeCase

  @told_ms 200

  # Nothing outside tells that a job has been started, and one that was not is run again by another
  # worker (docs/failure-matrix.md). So a job that has not been answered is killed once more.
  defp kill_in_job(node, signal, tries \\ 3) do
    task = Task.async(fn -> submit(node, :sleep, "30000", %{}, 40_000) end)
    kill_until_answered(node, signal, task, tries)
  end

  defp kill_until_answered(node, signal, task, tries) do
    os_pid = await_busy(node, :sleep)
    Program.kill(os_pid, signal)
    {ms, answer} = timed(fn -> Task.yield(task, 1_000) end)

    case answer do
      {:ok, answer} -> {{ms, answer}, os_pid}
      nil when tries > 1 -> kill_until_answered(node, signal, task, tries - 1)
    end
  end

  for {name, number} <- [KILL: 9, SEGV: 11, ABRT: 6, BUS: 7, FPE: 8] do
    test "SIG#{name} in a job is answered with the signal", %{node: node} do
      {{ms, answer}, os_pid} = kill_in_job(node, unquote(to_string(name)))
      assert {:error, {:worker_crashed, %{signal: unquote(number)} = map}} = answer
      assert ms <= @told_ms
      assert %{worker: _, job: _, status: _, oom: false, stderr: _} = map
      assert {:ok, _} = submit(node, :sleep, "0")
      refute os_pid_of_worker(node, :sleep) == os_pid
    end
  end

  test "each of many jobs gets one answer while workers are being killed", %{node: node} do
    killer = Task.async(fn -> kill_now_and_then(node) end)

    answers =
      1..60
      |> Task.async_stream(
        fn n -> submit(node, :sleep, "#{5 + rem(n, 20)}", %{}, 30_000) end,
        max_concurrency: 20,
        timeout: 40_000
      )
      |> Enum.map(fn {:ok, answer} -> answer end)

    send(killer.pid, :enough)
    assert Task.await(killer, 20_000) > 0
    assert length(answers) == 60

    for answer <- answers do
      case answer do
        {:ok, _} -> :ok
        {:error, {:worker_crashed, %{signal: 9}}} -> :ok
      end
    end

    await_idle(node)
    assert {:ok, _} = submit(node, :sleep, "0", %{}, 20_000)
  end

  # It is told to stop, not killed: a `kill` that it has started would hit the next test's worker.
  defp kill_now_and_then(node, killed \\ 0) do
    receive do
      :enough -> killed
    after
      150 ->
        Program.kill(os_pid_of_worker(node, :sleep), "KILL")
        kill_now_and_then(node, killed + 1)
    end
  end

  test "the role's other workers, and other roles, do not notice", %{node: node} do
    echo = os_pid_of_worker(node, :echo)
    {{_, {:error, _}}, _} = kill_in_job(node, "KILL")
    assert {:ok, "x"} = submit(node, :echo, "x")
    assert os_pid_of_worker(node, :echo) == echo
  end

  test "a worker that dies idle is started again, and nobody is told", %{node: node} do
    os_pid = os_pid_of_worker(node, :sleep)
    Program.kill(os_pid, "KILL")
    assert {:ok, _} = submit(node, :sleep, "1")
    refute os_pid_of_worker(node, :sleep) == os_pid
  end

  test "a stopped worker is no dead worker: its jobs are answered at their deadline", %{
    node: node
  } do
    os_pid = os_pid_of_worker(node, :sleep)
    Program.kill(os_pid, "STOP")
    {ms, answer} = timed(fn -> submit(node, :sleep, "0", %{timeout: 300}, 10_000) end)
    assert answer == {:error, :deadline_exceeded}
    assert ms in 290..2_500
    Program.kill(os_pid, "CONT")
    assert {:ok, _} = submit(node, :sleep, "0", %{}, 10_000)
  end

  test "one that is stopped idle is ended, and what it was given runs elsewhere", %{node: node} do
    os_pid = os_pid_of_worker(node, :sleep)
    Program.kill(os_pid, "STOP")
    assert {:ok, "0"} = submit(node, :sleep, "0", %{timeout: 20_000}, 30_000)
    Lab.wait_until("it has ended", 10_000, fn -> not Proc.alive?(os_pid) end)
    assert {:ok, "0"} = submit(node, :sleep, "0", %{}, 10_000)
  end

  test "one that is stopped in a job is ended by the budgets of its role", %{node: node} do
    assert ended_in_job?(node, 3)
    assert {:ok, "0"} = submit(node, :sleep, "0", %{}, 10_000)
  end

  # Stopped before it had begun the job, it is stopped idle.
  defp ended_in_job?(_node, 0), do: false

  defp ended_in_job?(node, tries) do
    task = Task.async(fn -> submit(node, :sleep, "60000", %{timeout: 300}, 10_000) end)
    os_pid = await_busy(node, :sleep)
    Program.kill(os_pid, "STOP")
    assert {:error, :deadline_exceeded} = Task.await(task, 10_000)

    try do
      Lab.wait_until("it has ended", 5_000, fn -> not Proc.alive?(os_pid) end)
      true
    rescue
      RuntimeError ->
        Program.kill(os_pid, "CONT")
        await_idle(node)
        ended_in_job?(node, tries - 1)
    end
  end
end
