defmodule Ringbridge.NothingLeftTest do
  @moduledoc """
  SIGKILL of the bridge, or of a shepherd: within a second no worker, grandchild, shepherd, descriptor or memfd
  is left (DESIGN, section 6).
  """
  use ExUnit.Case

  import Ringbridge.BridgeCase, only: [submit: 3, submit: 5, await_busy: 2, os_pid_of_worker: 2]
  alias Ringbridge.{Lab, Proc, Program}

  @moduletag timeout: 240_000
  @within_ms 1_000

  # A worker that is only a shell: it starts a daemon that leaves its session and its parent, then
  # becomes the echo worker. The daemon's argument is how we find it again.
  defp family_role(mark) do
    echo = Path.join(Lab.root(), "build/bin/rb-echo")

    """
    [roles.family]
    command = ["/bin/sh", "-c", "(setsid sleep #{mark} </dev/null >/dev/null 2>&1 &); exec #{echo}"]
    """
  end

  setup do
    mark = 100_000 + System.unique_integer([:positive])
    bridge = Lab.start_bridge(roles: family_role(mark))
    {:ok, bridge: bridge, node: bridge.node, mark: mark}
  end

  defp busy_family(context) do
    assert {:ok, "x"} = submit(context.node, :family, "x")
    task = Task.async(fn -> outcome(context.node) end)
    await_busy(context.node, :sleep)
    bridge = Program.os_pid(context.bridge.program)
    family = [bridge | Proc.descendants(bridge)]
    assert Enum.any?(family, &(Proc.cmdline(&1) =~ "#{context.mark}")), "the daemon is not there"
    assert length(family) >= 1 + 3 * 5
    {bridge, family, task}
  end

  # A job that outlasts the tests, and what its caller sees.
  defp outcome(node) do
    {:answer, submit(node, :sleep, "30000", %{}, 40_000)}
  catch
    :exit, reason -> {:exit, reason}
  end

  test "SIGKILL of the bridge, with a job running and a daemon in the tree", context do
    {bridge, family, task} = busy_family(context)
    links = Proc.memfds(family)
    assert links != []
    Program.kill(bridge, "KILL")
    assert_gone(family, links)
    assert {:exit, {{:nodedown, _}, _}} = Task.await(task, 60_000)
    assert Proc.with_argument("#{context.mark}") == []
  end

  test "SIGTERM of the bridge ends it with status 0 and leaves nothing either", context do
    {bridge, family, task} = busy_family(context)
    links = Proc.memfds(family)
    Program.kill(bridge, "TERM")
    assert Program.await_exit(context.bridge.program, 20_000) == 0
    assert_gone(family, links)
    assert {:answer, {:error, _}} = Task.await(task, 60_000)
  end

  test "SIGKILL of a shepherd ends its worker's whole tree, and the worker is started again",
       context do
    {_bridge, _family, task} = busy_family(context)
    worker = os_pid_of_worker(context.node, :family)
    shepherd = shepherd_of(worker)
    tree = [shepherd | Proc.descendants(shepherd)]
    assert Enum.any?(tree, &(Proc.cmdline(&1) =~ "#{context.mark}"))
    Program.kill(shepherd, "KILL")
    assert_gone(tree, [])
    assert {:ok, "again"} = submit(context.node, :family, "again")
    Task.shutdown(task, :brutal_kill)
  end

  test "a stopped bridge that is then killed leaves nothing", context do
    {bridge, family, task} = busy_family(context)
    Program.kill(bridge, "STOP")
    Program.kill(bridge, "KILL")
    assert_gone(family, Proc.memfds(family))
    assert {:exit, {{:nodedown, _}, _}} = Task.await(task, 60_000)
  end

  test "crashes leave no descriptor behind in the bridge", context do
    crash = fn ->
      Program.kill(os_pid_of_worker(context.node, :echo), "KILL")
      assert {:ok, _} = submit(context.node, :echo, "next")
    end

    # The registry gives up a worker that dies too often in a minute: stay below that.
    for _ <- 1..2, do: crash.()
    before = settled_descriptors(context.bridge)
    for _ <- 1..5, do: crash.()
    assert settled_descriptors(context.bridge) <= before
  end

  defp assert_gone(pids, links) do
    Lab.wait_until("none of #{inspect(pids)} is left", @within_ms, fn ->
      Enum.all?(pids, &(not Proc.alive?(&1)))
    end)

    assert Proc.still_mapped(links) == []
  end

  # worker <- init <- shepherd
  defp shepherd_of(worker), do: worker |> Proc.parent() |> Proc.parent()

  defp settled_descriptors(bridge) do
    count = fn -> Proc.descriptors(Program.os_pid(bridge.program)) end

    # What is closed in the wake of a restart is closed soon; a leak stays.
    settle(count, count.(), 0)
  end

  defp settle(_count, last, 10), do: last

  defp settle(count, last, quiet) do
    Process.sleep(50)
    now = count.()
    if now == last, do: settle(count, now, quiet + 1), else: settle(count, now, 0)
  end
end
