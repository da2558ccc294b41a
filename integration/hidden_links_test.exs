defmodule Ringbridge.HiddenLinksTest do
  @moduledoc """
  docs/guides/cluster.md: what goes over the hidden connections to a bridge and what does not, between nodes that others see.
  """
  use Ringbridge.BridgeCase

  @moduletag timeout: 240_000
  @patience_ms 60_000

  # Two nodes as applications are, not hidden; the test's own VM looks into them over hidden connections.
  setup_all %{node: bridge} do
    [a, b] = for _ <- 1..2, do: visible()
    for node <- [a, b], do: true = on(node, Node, :connect, [bridge])
    {:ok, a: a, b: b}
  end

  defp visible do
    name = Lab.unique("guide")
    expression = ~s[IO.puts("I am here")]
    argv = ["elixir", "--name", "#{name}@127.0.0.1", "--no-halt", "-e", expression]
    spec = {Program, {argv, name: name, env: [{"HOME", Lab.home()}]}}
    program = start_supervised!(spec)
    Program.await_line(program, ~r/^I am here/, @patience_ms)
    node = :"#{name}@127.0.0.1"
    true = Node.connect(node)
    node
  end

  defp on(node, module, function, arguments),
    do: :erpc.call(node, module, function, arguments, @patience_ms)

  # Code that no module has there.
  defp evaluated(node, code, binding \\ []) do
    {value, _binding} = on(node, Code, :eval_string, [code, binding])
    value
  end

  defp apart(a, b) do
    on(a, Node, :disconnect, [b])
    Lab.wait_until("they are apart", @patience_ms, fn -> b not in on(a, Node, :list, []) end)
  end

  test "a bridge is in the list of hidden nodes only, and makes nobody known to others",
       context do
    %{a: a, b: b, node: bridge} = context
    apart(a, b)
    assert bridge in on(a, Node, :list, [:hidden])
    assert bridge in on(b, Node, :list, [:hidden])
    refute bridge in on(a, Node, :list, [])
    # Both are connected with the bridge, and neither has come to know the other.
    refute b in on(a, Node, :list, [:connected])
    refute a in on(b, Node, :list, [:connected])
  end

  test "both call it, as any node they are connected with", %{a: a, b: b, node: bridge} do
    for node <- [a, b] do
      request = [{Ringbridge.JobDispatcher, bridge}, {:submit, :echo, "from #{node}"}]
      assert on(node, GenServer, :call, request) == {:ok, "from #{node}"}
    end
  end

  test "whoever waits for nodes hears of it only if they ask for hidden ones", context do
    %{a: a, node: bridge} = context

    heard =
      evaluated(
        a,
        """
        on = fn options ->
          Task.async(fn ->
            :ok = :net_kernel.monitor_nodes(true, options)
            true = Node.disconnect(bridge)
            true = Node.connect(bridge)

            receive do
              {:nodeup, ^bridge, _} -> :heard
              {:nodeup, ^bridge} -> :heard
            after
              1_000 -> :silent
            end
          end)
          |> Task.await(60_000)
        end

        {on.([]), on.([node_type: :visible]), on.([node_type: :all])}
        """,
        bridge: bridge
      )

    assert heard == {:silent, :silent, :heard}

    # One node's own monitor asks no such thing.
    assert evaluated(
             a,
             """
             Task.async(fn ->
               true = Node.monitor(bridge, true)
               true = Node.disconnect(bridge)
               answer = receive do: ({:nodedown, ^bridge} -> :down), after: (60_000 -> :silent)
               true = Node.connect(bridge)
               answer
             end) |> Task.await(:infinity)
             """,
             bridge: bridge
           ) == :down
  end

  test "pg: members of visible nodes find each other; the bridge's processes are no members",
       context do
    %{a: a, b: b, node: bridge} = context
    true = on(a, Node, :connect, [b])

    for node <- [a, b],
        do:
          evaluated(
            node,
            "spawn(fn -> {:ok, _} = :pg.start(:guide); Process.sleep(:infinity) end)"
          )

    started = fn node -> on(node, Process, :whereis, [:guide]) != nil end
    Lab.wait_until("pg is there", @patience_ms, fn -> started.(a) and started.(b) end)

    join =
      "pid = spawn(fn -> Process.sleep(:infinity) end); :ok = :pg.join(:guide, :compute, pid); pid"

    member = evaluated(b, join)

    Lab.wait_until("a knows it", @patience_ms, fn ->
      member in on(a, :pg, :get_members, [:guide, :compute])
    end)

    # A worker's pid is another node's: pg takes its own only.
    [worker | _] = workers(bridge, :echo)

    joined =
      evaluated(a, "try do :pg.join(:guide, :compute, pid) catch kind, why -> {kind, why} end",
        pid: worker.pid
      )

    assert {:error, {:nolocal, _}} = joined

    # A hidden BEAM with the same scope is left out of it, though it is connected.
    {:ok, _} = :pg.start_link(:guide)
    :ok = :pg.join(:guide, :compute, self())
    on(a, :pg, :get_members, [:guide, :compute])
    refute self() in on(a, :pg, :get_members, [:guide, :compute])
    assert :pg.get_members(:guide, :compute) == [self()]

    # What does work: a process of one's own is the member, and asks the bridge for those who are not connected with it.
    to = {Ringbridge.JobDispatcher, bridge}
    start = "{:ok, pid} = Agent.start(fn -> to end); :ok = :pg.join(:guide, :desk, pid); pid"
    desk = evaluated(a, start, to: to)
    found = fn -> on(b, :pg, :get_members, [:guide, :desk]) == [desk] end
    Lab.wait_until("b knows it", @patience_ms, found)
    on(b, Node, :disconnect, [bridge])
    request = {:submit, :echo, "by way of a"}
    assert on(b, Agent, :get, [desk, GenServer, :call, [request]]) == {:ok, "by way of a"}
    refute bridge in on(b, Node, :list, [:connected])
    true = on(b, Node, :connect, [bridge])
  end

  test "global: a bridge takes no part in it, but a node may give a name to one of its pids",
       context do
    %{a: a, b: b, node: bridge} = context
    true = on(a, Node, :connect, [b])
    [%{pid: worker} | _] = workers(bridge, :echo)
    assert on(a, :global, :register_name, [:guide_worker, worker]) == :yes
    known = fn node -> on(node, :global, :whereis_name, [:guide_worker]) == worker end
    Lab.wait_until("b knows the name", @patience_ms, fn -> known.(b) end)
    # Its node is no member of the protocol, so it does not know the name, and is not asked.
    assert on(a, :global, :unregister_name, [:guide_worker])
  end
end
