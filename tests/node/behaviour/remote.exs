defmodule Behaviour.Remote do
  @moduledoc "Functions of the subject that we run: rpc, erpc, spawns."
  use Behaviour.Case

  @group "rpc and erpc"

  for {label, module} <- [rpc: :rpc, erpc: :erpc] do
    scenario "#{label}: a value", s do
      unquote(module).call(s.node, Behaviour.Functions, :add, [1, 2])
    end

    scenario "#{label}: an argument list that travels as a string", s do
      unquote(module).call(s.node, Behaviour.Functions, :echo, [65])
    end

    scenario "#{label}: a throw", s do
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :a_throw, [{:ball, 1}]) end)
    end

    scenario "#{label}: an exit", s do
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :an_exit, [{:out, 1}]) end)
    end

    scenario "#{label}: an error", s do
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :an_error, [{:wrong, 1}]) end)
    end

    scenario "#{label}: a function that is not there", s do
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :no_such, [1, 2]) end)
    end

    scenario "#{label}: a function that is there with another arity", s do
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :add, [1]) end)
    end

    scenario "#{label}: a module that is not there", s do
      seen(fn -> unquote(module).call(s.node, :no_such_module, :f, []) end)
    end

    scenario "#{label}: a timeout", s do
      answer =
        seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :sleep, [300], @late_ms) end)

      Process.sleep(400)
      {answer, messages()}
    end

    scenario "#{label}: cast", s do
      answer = unquote(module).cast(s.node, Behaviour.Functions, :tell, [self(), :cast])
      {answer, expect()}
    end

    scenario "#{label}: cast of a function that is not there", s do
      {unquote(module).cast(s.node, Behaviour.Functions, :no_such, []), settle(s)}
    end

    scenario "#{label}: multicall", s do
      unquote(module).multicall([s.node, s.node], Behaviour.Functions, :add, [1, 2])
    end

    scenario "#{label}: multicall of an error", s do
      seen(fn -> unquote(module).multicall([s.node], Behaviour.Functions, :a_throw, [:ball]) end)
    end

    scenario "#{label}: during which the node is disconnected", s do
      spawn(fn -> Process.sleep(@late_ms) && Node.disconnect(s.node) end)
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :sleep, [60_000]) end)
    end
  end

  scenario "rpc: block_call", s do
    :rpc.block_call(s.node, Behaviour.Functions, :add, [1, 2])
  end

  scenario "rpc: async_call and yield", s do
    key = :rpc.async_call(s.node, Behaviour.Functions, :add, [1, 2])
    :rpc.yield(key)
  end

  scenario "rpc: server_call", s do
    :rpc.server_call(s.node, :nobody_at_all, :wrapper, :request)
  end

  scenario "erpc: send_request and receive_response", s do
    id = :erpc.send_request(s.node, Behaviour.Functions, :add, [1, 2])
    :erpc.receive_response(id, 2_000)
  end

  scenario "erpc: send_request of an error", s do
    id = :erpc.send_request(s.node, Behaviour.Functions, :an_exit, [:out])
    seen(fn -> :erpc.receive_response(id, 2_000) end)
  end

  @group "spawns"

  scenario "spawn of a function that is not there", s do
    {pid, ref} = :erlang.spawn_monitor(s.node, :no_such_module, :f, [1])
    {node(pid), down(ref)}
  end

  scenario "spawn_link of a function that is not there", s do
    Process.flag(:trap_exit, true)
    pid = :erlang.spawn_link(s.node, :no_such_module, :f, [])
    {node(pid), expect()}
  end

  scenario "spawn without a link or monitor", s do
    pid = :erlang.spawn(s.node, Behaviour.Functions, :tell, [self(), :spawned])
    {node(pid), expect()}
  end

  scenario "spawn_monitor of a function that returns", s do
    {_pid, ref} = :erlang.spawn_monitor(s.node, Behaviour.Functions, :add, [1, 2])
    down(ref)
  end

  scenario "spawn_monitor of a function that exits", s do
    {_pid, ref} = :erlang.spawn_monitor(s.node, Behaviour.Functions, :an_exit, [:over])
    down(ref)
  end

  scenario "spawn_link of a function that exits", s do
    Process.flag(:trap_exit, true)
    :erlang.spawn_link(s.node, Behaviour.Functions, :an_exit, [{:over, 2}])
    expect()
  end

  scenario "spawn_request and its reply", s do
    request = :erlang.spawn_request(s.node, Behaviour.Functions, :tell, [self(), :hi], [:monitor])

    kinds = for _ <- 1..3, do: with(m when is_tuple(m) <- expect(), do: elem(m, 0))
    {is_reference(request), Enum.sort(kinds)}
  end

  scenario "a spawned process is killed", s do
    {pid, ref} = :erlang.spawn_monitor(s.node, Behaviour.Functions, :sleep, [5_000])
    Process.exit(pid, :kill)
    down(ref)
  end

  scenario "a spawned process dies with the one that it is linked with", s do
    me = self()

    parent =
      spawn(fn ->
        send(me, :erlang.spawn_link(s.node, Behaviour.Functions, :sleep, [5_000]))
        receive do: (:end -> exit(:over))
      end)

    watching = Process.monitor(expect())
    settle(s)
    send(parent, :end)
    down(watching)
  end
end
