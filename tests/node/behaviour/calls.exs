defmodule Behaviour.Calls do
  @moduledoc "Calls with every way of giving them up, casts, sends."
  use Behaviour.Case

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
    caller = spawn(fn -> GenServer.call(s.pid, {:later, 60_000, :late}) end)
    ref = GenServer.call(s.pid, {:monitor, caller})
    Process.exit(caller, :kill)
    {is_reference(ref), told(s), GenServer.call(s.pid, {:echo, :alive})}
  end

  scenario "call during which the node is disconnected", s do
    me = self()

    spawn(fn ->
      send(me, {:call, reason(fn -> GenServer.call(s.pid, {:later, 60_000, :x}) end)})
    end)

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
end
