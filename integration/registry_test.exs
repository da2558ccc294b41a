defmodule Ringbridge.RegistryTest do
  @moduledoc "Workers as an operator sees and moves them, from any node: listed, drained, restarted, watched."
  use Ringbridge.BridgeCase

  defp ready(node, role) do
    os_pid_of_worker(node, role)
    Enum.find(workers(node, role), &(&1.state == :ready))
  end

  test "lists every worker with what it does", %{node: node} do
    assert {:ok, "x"} = submit(node, :echo, "x")
    worker = ready(node, :echo)
    assert %{id: id, role: :echo, kit: "c", os_pid: os_pid, in_flight: 0, restarts: _} = worker
    assert is_integer(id) and worker.done >= 1
    assert Proc.cmdline(os_pid) =~ "rb-echo"
  end

  test "looks a role up by atom and by binary, and says which roles there are", %{node: node} do
    assert {:ok, %{role: :echo, state: :running, workers: [_]}} = registry(node, {:lookup, :echo})
    assert {:ok, %{role: :echo}} = registry(node, {:lookup, "echo"})
    assert {:error, {:bad_request, why}} = registry(node, {:lookup, :nobody})
    for role <- ~w(echo sleep simulation small), do: assert(why =~ role)
  end

  test "a drained worker finishes what it has; its role says :draining until restarted",
       context do
    node = context.node
    worker = ready(node, :small)
    assert :ok = registry(node, {:drain, worker.id})

    Lab.wait_until("the role is drained", fn ->
      match?({:error, :draining}, submit(node, :small, "x"))
    end)

    Lab.wait_until("it has ended", fn -> not Proc.alive?(worker.os_pid) end)
    assert :ok = registry(node, {:restart, worker.id})
    assert {:ok, "back"} = submit(node, :small, "back")
  end

  test "a restart loses no job", %{node: node} do
    callers = nap_callers(node, :sleep, 8, 40)

    for _ <- 1..4 do
      assert :ok = registry(node, {:restart, ready(node, :sleep).id})
      Process.sleep(50)
    end

    answers = await_answers(callers)
    assert length(answers) == 8 * 40
    assert [] = Enum.reject(answers, &match?({:ok, _}, &1))
  end

  test "an id or a request that is none is refused in words", %{node: node} do
    for request <- [{:drain, 999_999}, {:drain, :echo}, {:restart, -1}, {:restart, nil}, {:drain}] do
      assert {:error, {:bad_request, why}} = registry(node, request)
      assert String.valid?(why) and why != ""
    end
  end

  describe "a worker's pid" do
    test "goes down with how the worker ended", %{node: node} do
      worker = ready(node, :echo)
      assert node(worker.pid) == node
      ref = Process.monitor(worker.pid)
      Program.kill(worker.os_pid, "SEGV")
      assert_receive {:DOWN, ^ref, :process, _, {:worker_crashed, %{signal: 11}}}
      assert {:ok, "x"} = submit(node, :echo, "x")
    end

    test "killed by exit/2 ends the worker, and another takes its place", %{node: node} do
      worker = ready(node, :echo)
      ref = Process.monitor(worker.pid)
      Process.exit(worker.pid, :kill)
      assert_receive {:DOWN, ^ref, :process, _, _reason}
      Lab.wait_until("it has ended", fn -> not Proc.alive?(worker.os_pid) end)
      assert {:ok, "x"} = submit(node, :echo, "x")
      refute ready(node, :echo).os_pid == worker.os_pid
    end
  end
end
