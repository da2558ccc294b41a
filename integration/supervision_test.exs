defmodule Ringbridge.SupervisionTest do
  @moduledoc "Workers that fall together, change in number, and are watched, under calls from real nodes."
  @root Path.expand("..", __DIR__)
  use Ringbridge.BridgeCase,
    roles: """
    [roles.crew]
    command = ["#{@root}/build/bin/rb-sleep"]
    workers = 3
    strategy = "one_for_all"
    max_restarts = 1_000
    backoff_max_ms = 50
    """

  defp ready(node, role, count) do
    Lab.wait_until("#{count} workers of #{role} are ready", fn ->
      found = workers(node, role)
      length(found) == count and Enum.all?(found, &(&1.state == :ready))
    end)

    workers(node, role)
  end

  test "a crew falls as one, and no call is refused for it", %{node: node} do
    before = ready(node, :crew, 3)
    refs = Map.new(before, &{Process.monitor(&1.pid), &1.id})

    callers = nap_callers(node, :crew, 6, 30)
    [_, %{id: id, os_pid: os_pid}, _] = before
    Program.kill(os_pid, "KILL")

    reasons =
      for _ <- 1..3, into: %{} do
        assert_receive {:DOWN, ref, :process, _, reason} when is_map_key(refs, ref)
        {refs[ref], reason}
      end

    assert {:worker_crashed, %{signal: 9}} = reasons[id]
    assert [:shutdown, :shutdown] = Map.values(Map.delete(reasons, id))

    # Those in the killed one's hands, and none else; the others waited.
    answers = await_answers(callers)
    assert length(answers) == 180
    for {:error, reason} <- answers, do: assert({:worker_crashed, %{signal: 9}} = reason)
    now = ready(node, :crew, 3)
    assert Enum.min(Enum.map(now, & &1.id)) > Enum.max(Enum.map(before, & &1.id))
    for %{os_pid: old} <- before, do: refute(Proc.alive?(old))
  end

  test "killed again and again, in any order, they come back", %{node: node} do
    for place <- [0, 2, 1] do
      %{os_pid: os_pid} = Enum.at(ready(node, :crew, 3), place)
      Program.kill(os_pid, Enum.random(["KILL", "SEGV", "ABRT"]))
      Lab.wait_until("it has ended", fn -> not Proc.alive?(os_pid) end)
    end

    ready(node, :crew, 3)
    assert {:ok, "1"} = submit(node, :crew, "1", %{}, 20_000)
  end

  test "more and fewer workers under load lose no job", %{node: node} do
    callers = nap_callers(node, :sleep, 8, 40)

    for count <- [4, 2, 3, 1] do
      assert {:ok, [%{key: "roles.sleep.workers", now: ^count}]} =
               registry(node, {:scale, :sleep, count})

      ready(node, :sleep, count)
    end

    answers = await_answers(callers)
    assert length(answers) == 8 * 40
    assert [] = Enum.reject(answers, &match?({:ok, _}, &1))
    assert {:error, {:bad_request, why}} = registry(node, {:scale, :sleep, 0})
    assert why =~ "at least 1"
  end

  test "a watcher hears of a crash and of the return", %{node: node} do
    assert {:ok, ref, workers} = registry(node, :watch)
    %{id: id, os_pid: os_pid} = Enum.find(workers, &(&1.role == :small))
    Program.kill(os_pid, "ABRT")
    assert %{state: :restarting, last_error: error} = await_change(ref, &(&1.id == id))
    assert error =~ "SIGABRT"
    returned = await_change(ref, &(&1.role == :small and &1.state == :ready))
    assert returned.id > id and returned.restarts == 1
    assert :ok = registry(node, :unwatch)
    assert {:ok, %{why: why, signal: 6, output: output}} = registry(node, {:crash_report, id})
    assert why =~ "SIGABRT" and is_binary(output)
  end

  test "a watching node that dies is forgotten", %{node: node} do
    watch = "{:ok, _, _} = GenServer.call({Ringbridge.WorkerRegistry, :\"#{node}\"}, :watch)"
    other = Lab.start_node("#{watch}; Process.sleep(:infinity)")
    watchers = fn -> elem(registry(node, :stats), 1).watchers end
    Lab.wait_until("it watches", fn -> watchers.() == 1 end)
    Program.signal(other, "KILL")
    Lab.wait_until("it is forgotten", fn -> watchers.() == 0 end)
  end

  defp await_change(ref, fits) do
    assert_receive {:ringbridge_workers, ^ref, changed}
    Enum.find(changed, fits) || await_change(ref, fits)
  end
end
