defmodule Behaviour.Inside do
  @moduledoc "Names, sys, and the node itself."
  use Behaviour.Case

  @group "names"

  scenario "a name is taken once", s do
    {:error, {:already_started, pid}} = GenServer.call(s.root, {:start, [name: s.name]})
    pid == s.pid
  end

  scenario "a name is free again when its process has ended", s do
    GenServer.stop(s.pid)
    {:ok, pid} = GenServer.call(s.root, {:start, [name: s.name]})
    {pid == s.pid, GenServer.call({s.name, s.node}, :pid) == pid}
  end

  scenario "a name is a process's other address", s do
    {GenServer.call({s.name, s.node}, :pid) == s.pid, node(s.pid)}
  end

  @group "sys"

  scenario "sys: get_state after a cast", s do
    GenServer.cast(s.pid, {:add, 7})
    {:sys.get_state(s.pid).state, :sys.get_state({s.name, s.node}).state}
  end

  scenario "sys: get_status", s do
    {:status, pid, {:module, module}, [dictionary, running, parent, debug, misc]} =
      :sys.get_status(s.pid)

    {pid == s.pid, is_atom(module), is_list(dictionary), running, is_pid(parent), debug,
     for(item <- misc, do: elem(item, 0))}
  end

  scenario "sys: replace_state", s do
    answer = reason(fn -> :sys.replace_state(s.pid, &Behaviour.Functions.state_41/1) end)
    {answer, GenServer.call(s.pid, {:add, 1})}
  end

  scenario "sys: suspend holds calls and casts, resume lets them go", s do
    :ok = :sys.suspend(s.pid)
    id = :gen_server.send_request(s.pid, {:add, 1})
    GenServer.cast(s.pid, {:add, 10})
    send(s.pid, :plain)
    {:status, _, _, [_, running | _]} = :sys.get_status(s.pid)
    waiting = :gen_server.wait_response(id, @late_ms)
    :ok = :sys.resume(s.pid)
    {running, waiting, :gen_server.wait_response(id, 2_000), :sys.get_state(s.pid).state}
  end

  scenario "sys: suspend and resume twice", s do
    {:sys.suspend(s.pid), :sys.suspend(s.pid), :sys.resume(s.pid), :sys.resume(s.pid),
     GenServer.call(s.pid, {:echo, :alive})}
  end

  scenario "sys: a suspended process still dies", s do
    :sys.suspend(s.pid)
    ref = Process.monitor(s.pid)
    Process.exit(s.pid, :enough)
    down(ref)
  end

  scenario "sys: terminate", s do
    ref = Process.monitor(s.pid)
    {:sys.terminate(s.pid, :told_to), down(ref)}
  end

  scenario "sys: terminate while suspended", s do
    :sys.suspend(s.pid)
    ref = Process.monitor(s.pid)
    {:sys.terminate(s.pid, :told_to), down(ref)}
  end

  scenario "sys: statistics", s do
    none = :sys.statistics(s.pid, :get)
    :ok = :sys.statistics(s.pid, true)
    GenServer.call(s.pid, {:echo, 1})
    GenServer.cast(s.pid, {:add, 1})
    send(s.pid, :x)
    {:ok, counts} = :sys.statistics(s.pid, :get)
    off = :sys.statistics(s.pid, false)
    {none, Keyword.keys(counts), counts[:messages_in], counts[:messages_out], off}
  end

  scenario "sys: trace", s do
    {:sys.trace(s.pid, true), GenServer.call(s.pid, {:echo, 1}), :sys.trace(s.pid, false)}
  end

  scenario "sys: log", s do
    :ok = :sys.log(s.pid, true)
    GenServer.call(s.pid, {:echo, 1})
    {:ok, events} = :sys.log(s.pid, :get)
    {length(events) > 0, :sys.log(s.pid, false), :sys.log(s.pid, :get)}
  end

  scenario "sys: no_debug", s do
    :sys.statistics(s.pid, true)
    {:sys.no_debug(s.pid), :sys.statistics(s.pid, :get)}
  end

  scenario "sys: a request that nobody knows", s do
    :gen.call(s.pid, :system, :nonsense, 2_000)
  end

  scenario "sys: of a process that has ended", s do
    GenServer.stop(s.pid)
    reason(fn -> :sys.get_state(s.pid) end)
  end

  scenario "GenServer.stop with a reason", s do
    ref = Process.monitor(s.pid)
    {GenServer.stop(s.pid, :enough), down(ref), messages()}
  end

  scenario "GenServer.stop by name, twice", s do
    {GenServer.stop({s.name, s.node}), reason(fn -> GenServer.stop({s.name, s.node}) end)}
  end

  @group "the node"

  scenario "ping", s do
    {Node.ping(s.node), Node.connect(s.node)}
  end

  scenario "ping of a node that is not there", _s do
    Node.ping(:"not-there@127.0.0.1")
  end

  scenario "a node monitor sees the disconnection", s do
    Node.monitor(s.node, true)
    Node.disconnect(s.node)
    expect()
  end
end
