defmodule Behaviour.Scenario do
  @moduledoc false

  @doc "One case: `perform(name, s)`, as ExUnit's test."
  defmacro scenario(name, subject, do: body) do
    body = Macro.escape(body, unquote: true)

    quote bind_quoted: [name: name, subject: Macro.escape(subject), body: body] do
      def perform(unquote(name), unquote(subject)), do: unquote(body)
      @cases {@group, name}
    end
  end
end

defmodule Behaviour.Battery do
  @moduledoc """
  What a BEAM sees of a process on another node, as a list of cases.

  A case gets `s`, a fresh server of the subject (subject.exs, subject.py), and gives what it saw. It runs in a process
  of its own; what is in that process's mailbox at the end belongs to the transcript, and so does its death. Pids,
  references and the two nodes' names become labels, so that the transcripts of two subjects can be compared.
  """

  import Behaviour.Scenario

  @late_ms 60
  @case_ms 10_000
  @at_once 6

  defstruct [:node, :root, :pid, :name]

  Module.register_attribute(__MODULE__, :cases, accumulate: true)

  @group "calls"

  scenario "call by pid", s do
    GenServer.call(s.pid, {:echo, {:a, "b", ~c"c", 1.5, [x: nil]}})
  end

  scenario "call by name", s do
    GenServer.call({s.name, s.node}, {:add, 2})
  end

  scenario "call answered by another process, later", s do
    GenServer.call(s.pid, {:later, 10, :later})
  end

  scenario "call answered twice", s do
    {GenServer.call(s.pid, {:twice, :first, :second}), Process.sleep(@late_ms), settle(s)}
  end

  scenario "call to a name that nobody has", s do
    reason(fn -> GenServer.call({:nobody_at_all, s.node}, :hello) end)
  end

  scenario "call to a process that has ended", s do
    GenServer.stop(s.pid)
    reason(fn -> GenServer.call(s.pid, :hello) end)
  end

  scenario "call to a name whose process has ended", s do
    GenServer.stop(s.pid)
    reason(fn -> GenServer.call({s.name, s.node}, :hello) end)
  end

  scenario "call that times out", s do
    {reason(fn -> GenServer.call(s.pid, :never, @late_ms) end), settle(s)}
  end

  scenario "call that times out, by name", s do
    {reason(fn -> GenServer.call({s.name, s.node}, :never, @late_ms) end), settle(s)}
  end

  scenario "call whose answer comes too late", s do
    given_up = reason(fn -> GenServer.call(s.pid, {:later, 2 * @late_ms, :late}, @late_ms) end)
    Process.sleep(3 * @late_ms)
    {given_up, settle(s), messages()}
  end

  scenario "call to a busy server that times out, and the next one", s do
    given_up = reason(fn -> GenServer.call(s.pid, {:block, 2 * @late_ms}, @late_ms) end)
    {given_up, GenServer.call(s.pid, {:echo, :next}), messages()}
  end

  scenario "call whose caller is killed", s do
    caller = spawn(fn -> GenServer.call(s.pid, {:later, @late_ms, :late}) end)
    ref = GenServer.call(s.pid, {:monitor, caller})
    Process.exit(caller, :kill)
    {is_reference(ref), told(s), GenServer.call(s.pid, {:echo, :alive})}
  end

  scenario "call during which the node is disconnected", s do
    me = self()
    spawn(fn -> send(me, {:call, reason(fn -> GenServer.call(s.pid, {:later, 200, :x}) end)}) end)
    Process.sleep(@late_ms)
    {Node.disconnect(s.node), expect(), GenServer.call({:behaviour, s.node}, {:echo, :back})}
  end

  scenario "call that the server answers and stops", s do
    ref = Process.monitor(s.pid)
    {GenServer.call(s.pid, {:stop, :done, :last_words}), expect(), is_reference(ref)}
  end

  scenario "call that the server does not answer but stops", s do
    reason(fn -> GenServer.call(s.pid, {:stop, {:because, [1]}}) end)
  end

  scenario "call that the server does not answer but stops normally", s do
    reason(fn -> GenServer.call(s.pid, {:stop, :normal}) end)
  end

  scenario "call while the server is killed", s do
    spawn(fn -> Process.sleep(@late_ms) && Process.exit(s.pid, :kill) end)
    reason(fn -> GenServer.call(s.pid, :never) end)
  end

  scenario "multi_call", s do
    GenServer.multi_call([s.node], s.name, {:add, 3}, 2_000)
  end

  scenario "multi_call to a name that nobody has", s do
    GenServer.multi_call([s.node], :nobody_at_all, {:add, 3}, 2_000)
  end

  scenario "multi_call that times out", s do
    answer = GenServer.multi_call([s.node], s.name, {:later, 2 * @late_ms, :late}, @late_ms)
    Process.sleep(3 * @late_ms)
    {answer, messages()}
  end

  scenario "send_request and receive_response", s do
    id = :gen_server.send_request(s.pid, {:echo, :x})
    :gen_server.receive_response(id, 2_000)
  end

  scenario "send_request that is given up", s do
    id = :gen_server.send_request(s.pid, {:later, 2 * @late_ms, :late})
    answer = :gen_server.receive_response(id, @late_ms)
    Process.sleep(3 * @late_ms)
    {answer, messages()}
  end

  scenario "send_request that is waited for twice", s do
    id = :gen_server.send_request(s.pid, {:later, 2 * @late_ms, :late})
    {:gen_server.wait_response(id, @late_ms), :gen_server.wait_response(id, 2_000)}
  end

  scenario "send_request to a name that nobody has", s do
    id = :gen_server.send_request({:nobody_at_all, s.node}, :x)
    :gen_server.receive_response(id, 2_000)
  end

  scenario "send_request whose server stops", s do
    id = :gen_server.send_request(s.pid, {:stop, :enough})
    :gen_server.receive_response(id, 2_000)
  end

  scenario "gen_statem-style call", s do
    :gen_statem.call(s.pid, {:echo, :statem}, 2_000)
  end

  scenario "gen_statem-style call that times out cleanly", s do
    {reason(fn -> :gen_statem.call(s.pid, :never, {:clean_timeout, @late_ms}) end), messages()}
  end

  scenario "call with a bare reference as its tag", s do
    tag = make_ref()
    send(s.pid, {:"$gen_call", {self(), tag}, {:echo, :bare}})
    {answer_of(tag), settle(s)}
  end

  scenario "call with any term as its tag", s do
    send(s.pid, {:"$gen_call", {self(), {:any, ["tag"]}}, {:echo, :any}})
    expect()
  end

  @group "casts and sends"

  scenario "casts by pid and by name are handled in order", s do
    GenServer.cast(s.pid, {:add, 1})
    GenServer.cast({s.name, s.node}, {:add, 10})
    GenServer.call(s.pid, {:add, 100})
  end

  scenario "cast to a name that nobody has", s do
    {GenServer.cast({:nobody_at_all, s.node}, :x), settle(s)}
  end

  scenario "abcast", s do
    answer = GenServer.abcast([s.node], s.name, {:add, 5})
    {answer, GenServer.call(s.pid, {:add, 0})}
  end

  scenario "sends of every kind of message arrive as they are", s do
    reference = make_ref()

    for m <- [:atom, 1, -0.0, "é", [1 | 2], %{1 => 1.0}, {self(), reference}, <<5::3>>, []] do
      send(s.pid, m)
    end

    seen = GenServer.call(s.pid, :messages)
    {seen, List.keyfind(seen, self(), 0) == {self(), reference}}
  end

  scenario "sends by name and by pid keep their order", s do
    for n <- 1..5, do: send(if(rem(n, 2) == 0, do: s.pid, else: {s.name, s.node}), n)
    GenServer.call(s.pid, :messages)
  end

  scenario "messages from the subject keep their order", s do
    GenServer.call(s.pid, {:send, self(), Enum.to_list(1..5)})
    messages()
  end

  scenario "message to a dead process and to a name that nobody has", s do
    GenServer.stop(s.pid)
    send(s.pid, :nobody)
    send({:nobody_at_all, s.node}, :nobody)
    settle(s)
  end

  scenario "messages that only look like calls", s do
    odd = [{:"$gen_call", :x}, {:"$gen_call", :from, :x}, {:system, :from, :get_state}, {:reply}]

    # A gen_server of a BEAM would crash of the second and the third: only what it takes too is sent.
    send(s.pid, hd(odd))
    send(s.pid, List.last(odd))
    GenServer.call(s.pid, :messages)
  end

  scenario "a message sent before the process ends comes before its DOWN", s do
    Process.monitor(s.pid)
    me = self()
    :gen_server.send_request(s.pid, {:send_and_stop, me, :last, :done})
    settle(%{s | pid: s.root})
    {expect(), expect(), length(messages())}
  end

  @group "monitors"

  for {label, reason} <- [normal: :normal, shutdown: :shutdown, custom: {:custom, "reason"}] do
    scenario "monitor by pid: end with #{label}", s do
      ref = Process.monitor(s.pid)
      GenServer.cast(s.pid, {:stop, unquote(Macro.escape(reason))})
      {down(ref), messages()}
    end

    scenario "monitor by name: end with #{label}", s do
      ref = Process.monitor({s.name, s.node})
      GenServer.cast(s.pid, {:stop, unquote(Macro.escape(reason))})
      {down(ref), messages()}
    end
  end

  scenario "monitor of a process that is killed", s do
    ref = Process.monitor(s.pid)
    Process.exit(s.pid, :kill)
    down(ref)
  end

  scenario "monitor of a dead pid", s do
    GenServer.stop(s.pid)
    down(Process.monitor(s.pid))
  end

  scenario "monitor of a name that nobody has", s do
    down(Process.monitor({:nobody_at_all, s.node}))
  end

  scenario "two monitors of one process, by pid and by name", s do
    refs = [Process.monitor(s.pid), Process.monitor(s.pid), Process.monitor({s.name, s.node})]
    GenServer.stop(s.pid, :shutdown)
    Enum.map(refs, &down/1)
  end

  scenario "demonitor, and nothing comes", s do
    ref = Process.monitor(s.pid)
    true = Process.demonitor(ref)
    GenServer.stop(s.pid)
    {settle(s), messages()}
  end

  scenario "demonitor with flush and info", s do
    ref = Process.monitor(s.pid)
    GenServer.stop(s.pid)
    settle(s)
    {:erlang.demonitor(ref, [:flush, :info]), messages()}
  end

  scenario "monitor when the node is disconnected", s do
    refs = [Process.monitor(s.pid), Process.monitor({s.name, s.node})]
    Node.disconnect(s.node)
    Enum.map(refs, &down/1)
  end

  scenario "monitor with its own tag", s do
    ref = :erlang.monitor(:process, s.pid, tag: :my_down)
    GenServer.stop(s.pid)
    {is_reference(ref), expect()}
  end

  scenario "the subject watches us by pid", s do
    pid = spawn(fn -> receive do: (reason -> exit(reason)) end)
    ref = GenServer.call(s.pid, {:monitor, pid})
    send(pid, {:our, :reason})
    [{:DOWN, ^ref, :process, ^pid, why}] = told(s)
    why
  end

  scenario "the subject watches us by name", s do
    pid = spawn(fn -> receive do: (reason -> exit(reason)) end)
    Process.register(pid, :battery_watched)
    ref = GenServer.call(s.pid, {:monitor, {:battery_watched, node()}})
    send(pid, :normal)
    [{:DOWN, ^ref, :process, who, why}] = told(s)
    {who, why}
  end

  scenario "the subject watches a dead pid, and a name that nobody has", s do
    {pid, ref} = spawn_monitor(fn -> :ok end)
    down(ref)
    GenServer.call(s.pid, {:monitor, pid})
    GenServer.call(s.pid, {:monitor, {:nobody_at_all, node()}})
    for {:DOWN, _, :process, _, why} <- told(s), do: why
  end

  scenario "the subject takes its monitor back", s do
    pid = spawn(fn -> receive do: (reason -> exit(reason)) end)
    ref = GenServer.call(s.pid, {:monitor, pid})
    gone = GenServer.call(s.pid, {:demonitor, ref})
    send(pid, :over)
    Process.sleep(@late_ms)
    {gone, GenServer.call(s.pid, :messages)}
  end

  @group "links and exits"

  for {label, reason} <- [
        normal: :normal,
        shutdown: :shutdown,
        custom: {:custom, "reason"},
        kill_as_a_reason: :kill
      ] do
    scenario "link, trapping: the subject ends with #{label}", s do
      Process.flag(:trap_exit, true)
      Process.link(s.pid)
      settle(s)
      GenServer.cast(s.pid, {:stop, unquote(Macro.escape(reason))})
      {expect(), messages()}
    end

    scenario "link, not trapping: the subject ends with #{label}", s do
      {pid, ref} = linked_with(s)
      GenServer.cast(s.pid, {:stop, unquote(Macro.escape(reason))})

      receive do
        {:DOWN, ^ref, :process, ^pid, why} -> {:died, why}
      after
        300 -> {:lives, Process.alive?(pid)}
      end
    end

    scenario "link: we end with #{label}, the subject traps", s do
      trapping = start(s, trap_exit: true)
      {pid, ref} = linked_with(trapping)
      send(pid, {:end, unquote(Macro.escape(reason))})
      down(ref)
      told(trapping)
    end

    scenario "link: we end with #{label}, the subject does not trap", s do
      {pid, ref} = linked_with(s)
      watching = Process.monitor(s.pid)
      send(pid, {:end, unquote(Macro.escape(reason))})
      down(ref)

      receive do
        {:DOWN, ^watching, _, _, why} -> {:died, why}
      after
        300 -> {:lives, GenServer.call(s.pid, {:echo, :alive})}
      end
    end

    scenario "exit/2 with #{label} to the subject", s do
      watching = Process.monitor(s.pid)
      Process.exit(s.pid, unquote(Macro.escape(reason)))

      receive do
        {:DOWN, ^watching, _, _, why} -> {:died, why}
      after
        300 -> {:lives, GenServer.call(s.pid, {:echo, :alive})}
      end
    end

    scenario "exit/2 with #{label} to the subject, which traps", s do
      trapping = start(s, trap_exit: true)
      watching = Process.monitor(trapping.pid)
      Process.exit(trapping.pid, unquote(Macro.escape(reason)))

      receive do
        {:DOWN, ^watching, _, _, why} -> {:died, why}
      after
        300 -> GenServer.call(trapping.pid, :messages)
      end
    end

    scenario "exit/2 with #{label} from the subject", s do
      {pid, ref} = spawn_monitor(fn -> Process.sleep(:infinity) end)
      true = GenServer.call(s.pid, {:exit, pid, unquote(Macro.escape(reason))})

      receive do
        {:DOWN, ^ref, _, _, why} -> {:died, why}
      after
        300 -> {:lives, Process.exit(pid, :kill)}
      end
    end

    scenario "exit/2 with #{label} from the subject to one who traps", s do
      Process.flag(:trap_exit, true)

      {pid, ref} =
        spawn_monitor(fn ->
          Process.flag(:trap_exit, true)
          receive do: (message -> exit({:got, message}))
        end)

      settle(s)
      Process.sleep(20)
      true = GenServer.call(s.pid, {:exit, pid, unquote(Macro.escape(reason))})
      down(ref)
    end
  end

  scenario "link with a dead pid, trapping", s do
    GenServer.stop(s.pid)
    Process.flag(:trap_exit, true)
    {Process.link(s.pid), expect()}
  end

  scenario "link with a dead pid, not trapping", s do
    GenServer.stop(s.pid)
    {_pid, ref} = spawn_monitor(fn -> Process.link(s.pid) && Process.sleep(500) end)
    down(ref)
  end

  scenario "link twice, one EXIT", s do
    Process.flag(:trap_exit, true)
    Process.link(s.pid)
    Process.link(s.pid)
    GenServer.stop(s.pid, :shutdown)
    {expect(), settle(s), messages()}
  end

  scenario "unlink, and nothing comes", s do
    Process.flag(:trap_exit, true)
    Process.link(s.pid)
    Process.unlink(s.pid)
    GenServer.stop(s.pid, :shutdown)
    {settle(s), messages()}
  end

  scenario "unlink and link again", s do
    Process.flag(:trap_exit, true)
    for _ <- 1..3, do: Process.link(s.pid) && Process.unlink(s.pid)
    Process.link(s.pid)
    GenServer.stop(s.pid, :shutdown)
    {expect(), settle(s), messages()}
  end

  scenario "the subject links with us and ends", s do
    Process.flag(:trap_exit, true)
    true = GenServer.call(s.pid, {:link, self()})
    GenServer.cast(s.pid, {:stop, :its_reason})
    {expect(), messages()}
  end

  scenario "the subject links with us and unlinks", s do
    Process.flag(:trap_exit, true)
    true = GenServer.call(s.pid, {:link, self()})
    true = GenServer.call(s.pid, {:unlink, self()})
    GenServer.stop(s.pid, :shutdown)
    {settle(s), messages()}
  end

  scenario "the subject links with a dead pid", s do
    {pid, ref} = spawn_monitor(fn -> :ok end)
    down(ref)
    trapping = start(s, trap_exit: true)
    true = GenServer.call(trapping.pid, {:link, pid})
    told(trapping)
  end

  scenario "a message sent before the process ends comes before its EXIT", s do
    Process.flag(:trap_exit, true)
    Process.link(s.pid)
    :gen_server.send_request(s.pid, {:send_and_stop, self(), :last, :done})
    Enum.filter([expect(), expect(), expect()], &(&1 == :last or elem(&1, 0) == :EXIT))
  end

  scenario "link when the node is disconnected", s do
    Process.flag(:trap_exit, true)
    Process.link(s.pid)
    settle(s)
    Node.disconnect(s.node)
    expect()
  end

  scenario "the subject's links and monitors when the node is disconnected", s do
    trapping = start(s, trap_exit: true)
    GenServer.call(trapping.pid, {:link, self()})
    GenServer.call(trapping.pid, {:monitor, self()})
    Process.flag(:trap_exit, true)
    Node.disconnect(s.node)
    {:EXIT, _, :noconnection} = expect()
    Enum.sort(for m <- told(trapping), do: {elem(m, 0), last(m)})
  end

  @group "aliases"

  scenario "a send to an alias", s do
    ref = :erlang.alias()
    GenServer.call(s.pid, {:send, ref, [:one, :two]})
    {settle(s), messages()}
  end

  scenario "a send to an alias that is given back", s do
    ref = :erlang.alias()
    :erlang.unalias(ref)
    GenServer.call(s.pid, {:send, ref, [:one]})
    {settle(s), messages()}
  end

  scenario "an alias for one reply", s do
    ref = :erlang.alias([:reply])
    GenServer.call(s.pid, {:send, ref, [:one, :two]})
    {settle(s), messages()}
  end

  scenario "a monitor with an alias for one reply", s do
    ref = :erlang.monitor(:process, s.pid, alias: :reply_demonitor)
    GenServer.call(s.pid, {:send, ref, [:one, :two]})
    GenServer.stop(s.pid)
    {settle(s), messages()}
  end

  scenario "a monitor with an alias whose process ends", s do
    ref = :erlang.monitor(:process, s.pid, alias: :demonitor)
    GenServer.stop(s.pid)
    seen = down(ref)
    root = %{s | pid: s.root}
    GenServer.call(root.pid, {:send, ref, [:too_late]})
    {seen, settle(root), messages()}
  end

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
      seen(fn -> unquote(module).call(s.node, Behaviour.Functions, :sleep, [500]) end)
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

  # ---- how they are run

  @doc "What was seen of each case, as `[{group, case, text}]`."
  @spec run(node()) :: [{String.t(), String.t(), String.t()}]
  def run(node) do
    # They mostly wait, so several run at once; but not those that take the connection down.
    {alone, together} = Enum.split_with(Enum.reverse(@cases), fn {_, name} -> alone?(name) end)
    options = [max_concurrency: @at_once, timeout: :infinity]
    all = Task.async_stream(together, &told_of(&1, node), options)
    for({:ok, each} <- all, do: each) ++ Enum.map(alone, &told_of(&1, node))
  end

  defp alone?(name), do: name =~ "disconnect"
  defp told_of({group, name}, node), do: {group, name, transcript(name, node)}

  def transcript(name, node) do
    {pid, ref} =
      spawn_monitor(fn ->
        root = GenServer.call({:behaviour, node}, :pid)
        s = start(%__MODULE__{node: node, root: root}, [])

        saw =
          try do
            perform(name, s)
          catch
            kind, reason -> {kind, reason}
          end

        exit({:saw, saw, messages()})
      end)

    receive do
      {:DOWN, ^ref, _, _, {:saw, saw, []}} -> shown(saw, node)
      {:DOWN, ^ref, _, _, {:saw, saw, mailbox}} -> shown({saw, mailbox: mailbox}, node)
      {:DOWN, ^ref, _, _, reason} -> shown({:case_died, reason}, node)
    after
      @case_ms ->
        Process.exit(pid, :kill)
        Process.demonitor(ref, [:flush])
        "no end within #{@case_ms} ms"
    end
  end

  defp start(s, options) do
    name = :"behaviour#{System.unique_integer([:positive])}"
    {:ok, pid} = GenServer.call(s.root, {:start, [{:name, name} | options]})
    %{s | pid: pid, name: name}
  end

  # A process of ours that is linked with the subject's, which knows of it; and our monitor of it.
  defp linked_with(s) do
    me = self()

    {pid, ref} =
      spawn_monitor(fn ->
        Process.link(s.pid)
        send(me, :linked)
        receive do: ({:end, reason} -> exit(reason))
      end)

    receive do: (:linked -> :ok)
    settle(s)
    {pid, ref}
  end

  # Returns when the subject has handled all that we sent it, and what it sent us is here.
  defp settle(s) do
    GenServer.call(s.root, {:echo, :settled})
    Process.sleep(20)
    :settled
  end

  # The messages that the subject got, as soon as there are any.
  defp told(s, tries \\ 100) do
    case GenServer.call(s.pid, :messages) do
      [] when tries > 0 ->
        Process.sleep(20)
        told(s, tries - 1)

      some ->
        settle(s)
        some ++ GenServer.call(s.pid, :messages)
    end
  end

  defp reason(fun) do
    {:answered, fun.()}
  catch
    :exit, {reason, {module, function, _arguments}} -> {:exit, reason, module, function}
    kind, reason -> {kind, reason}
  end

  # What a remote function did to its caller; stack traces name files and lines, so only the first place stays.
  defp seen(fun) do
    {:returned, without_stack(fun.())}
  catch
    kind, reason -> {kind, without_stack(reason)}
  end

  defp without_stack([{module, function, a, extra} | _])
       when is_atom(module) and is_list(extra) do
    if is_list(a), do: {:undefined, module, function, a}, else: :stack
  end

  defp without_stack(tuple) when is_tuple(tuple) do
    tuple |> Tuple.to_list() |> Enum.map(&without_stack/1) |> List.to_tuple()
  end

  defp without_stack([head | tail]), do: [without_stack(head) | without_stack(tail)]
  defp without_stack(term), do: term

  defp down(ref) do
    receive do
      {:DOWN, ^ref, :process, who, why} -> {:down, who, why}
    after
      2_000 -> :no_down
    end
  end

  defp expect do
    receive do
      message -> message
    after
      2_000 -> :nothing
    end
  end

  defp answer_of(tag) do
    receive do
      {^tag, answer} -> answer
    after
      2_000 -> :nothing
    end
  end

  defp messages do
    receive do
      message -> [message | messages()]
    after
      0 -> []
    end
  end

  defp last(tuple), do: elem(tuple, tuple_size(tuple) - 1)

  # ---- labels

  defp shown(term, node) do
    Process.put(:labels, %{})
    term |> labelled(node) |> inspect(limit: :infinity, printable_limit: :infinity, width: 100)
  end

  defp labelled(term, node) when is_pid(term), do: label(:pid, place(node(term), node), term)

  defp labelled(term, node) when is_reference(term),
    do: label(:ref, place(node(term), node), term)

  defp labelled(term, _node) when is_function(term), do: :a_fun
  defp labelled(node, node), do: :subject

  defp labelled(term, _node) when is_atom(term) do
    cond do
      term == node() -> :driver
      String.starts_with?(Atom.to_string(term), "behaviour") -> :a_name
      true -> term
    end
  end

  defp labelled(%_{} = struct, node) do
    struct |> Map.from_struct() |> labelled(node) |> Map.put(:struct, struct.__struct__)
  end

  defp labelled(term, node) when is_map(term) do
    Map.new(term, fn {k, v} -> {labelled(k, node), labelled(v, node)} end)
  end

  defp labelled(term, node) when is_tuple(term) do
    term |> Tuple.to_list() |> labelled(node) |> List.to_tuple()
  end

  defp labelled([head | tail], node), do: [labelled(head, node) | labelled(tail, node)]
  defp labelled(term, _node), do: term

  defp place(node, node), do: :subject
  defp place(_other, _node), do: :driver

  defp label(kind, place, term) do
    labels = Process.get(:labels)
    count = Enum.count(labels, fn {_, {k, p, _}} -> {k, p} == {kind, place} end)
    label = Map.get(labels, term, {kind, place, count + 1})
    Process.put(:labels, Map.put(labels, term, label))
    label
  end
end
