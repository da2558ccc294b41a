defmodule Ringbridge.WorkerDeathTest do
  @moduledoc "A worker may end at any moment; its caller is told and the next call works."
  use Ringbridge.BridgeCase

  # Nothing outside tells that a job has been started, and one that was not is run again by another
  # worker (docs/failure-matrix.md). So a job that has not been answered is killed once more.
  defp kill_in_job(node, signal, tries \\ 3) do
    task = Task.async(fn -> submit(node, :sleep, "600000") end)
    kill_until_answered(node, signal, task, tries)
  end

  defp kill_until_answered(node, signal, task, tries) do
    os_pid = await_begun(node, :sleep)
    Program.kill(os_pid, signal)

    case answered_or_elsewhere(node, task, os_pid) do
      {:ok, answer} -> {answer, os_pid}
      :elsewhere when tries > 1 -> kill_until_answered(node, signal, task, tries - 1)
    end
  end

  defp answered_or_elsewhere(node, task, os_pid) do
    Task.yield(task, 50) ||
      if(match?(%{os_pid: other} when other != os_pid, begun(node, :sleep)), do: :elsewhere) ||
      answered_or_elsewhere(node, task, os_pid)
  end

  for {name, number} <- [KILL: 9, SEGV: 11, ABRT: 6, BUS: 7, FPE: 8] do
    test "SIG#{name} in a job is answered with the signal", %{node: node} do
      {answer, os_pid} = kill_in_job(node, unquote(to_string(name)))
      assert {:error, {:worker_crashed, %{signal: unquote(number)} = map}} = answer
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
        fn n -> submit(node, :sleep, "#{5 + rem(n, 20)}") end,
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
    assert {:ok, _} = submit(node, :sleep, "0")
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
    {{:error, _}, _} = kill_in_job(node, "KILL")
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
    assert {:error, :deadline_exceeded} = submit(node, :sleep, "0", %{timeout: 300})
    Program.kill(os_pid, "CONT")
    assert {:ok, _} = submit(node, :sleep, "0")
  end

  test "one that is stopped idle is ended, and what it was given runs elsewhere", %{node: node} do
    os_pid = os_pid_of_worker(node, :sleep)
    Program.kill(os_pid, "STOP")
    assert {:ok, "0"} = submit(node, :sleep, "0", %{timeout: 20_000}, 30_000)
    Lab.wait_until("it has ended", fn -> not Proc.alive?(os_pid) end)
    assert {:ok, "0"} = submit(node, :sleep, "0")
  end

  test "one that is stopped in a job is ended by the budgets of its role", %{node: node} do
    assert ended_in_job?(node, 3)
    assert {:ok, "0"} = submit(node, :sleep, "0")
  end

  defp ended_in_job?(_node, 0), do: false

  defp ended_in_job?(node, tries) do
    # Less than the role's hang_ms, which would end it too.
    task = Task.async(fn -> submit(node, :sleep, "600000", %{timeout: 1_500}) end)

    with {:begun, os_pid} <- begun_or_answered(node, task),
         :ok = Program.kill(os_pid, "STOP"),
         {:error, :deadline_exceeded} <- Task.await(task, 60_000) do
      Lab.wait_until("it has ended", fn -> not Proc.alive?(os_pid) end)
      true
    else
      # Its deadline passed before it was seen, or it was stopped so late that it was hung by then.
      {:ok, {:error, :deadline_exceeded}} -> ended_in_job?(node, tries - 1)
      {:error, {:worker_broke, :no_heartbeat}} -> ended_in_job?(node, tries - 1)
    end
  end

  defp begun_or_answered(node, task) do
    case begun(node, :sleep) do
      %{os_pid: os_pid} -> {:begun, os_pid}
      nil -> Task.yield(task, 20) || begun_or_answered(node, task)
    end
  end
end
