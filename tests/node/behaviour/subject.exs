defmodule Behaviour.Server do
  @moduledoc """
  The process that the battery (battery.exs) is run against, on a BEAM. `Server` in subject.py is the same in Python;
  a request that one of them knows, the other knows too.
  """
  use GenServer

  @doc "Registered as :behaviour: it starts the others."
  def start_root, do: GenServer.start(__MODULE__, [trap_exit: false], name: :behaviour)

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, Keyword.get(options, :trap_exit, false))
    {:ok, %{messages: [], state: 0}}
  end

  @impl GenServer
  def handle_call(:pid, _from, s), do: {:reply, self(), s}
  def handle_call({:echo, term}, _from, s), do: {:reply, term, s}

  def handle_call({:start, options}, _from, s) do
    name = if options[:name], do: [name: options[:name]], else: []
    {:reply, GenServer.start(__MODULE__, options, name), s}
  end

  def handle_call({:add, n}, _from, s), do: {:reply, s.state + n, %{s | state: s.state + n}}
  def handle_call(:never, _from, s), do: {:noreply, s}

  def handle_call({:later, ms, reply}, from, s) do
    Process.send_after(self(), {:"$later", from, reply}, ms)
    {:noreply, s}
  end

  def handle_call({:twice, a, b}, from, s) do
    Process.send_after(self(), {:"$later", from, b}, 30)
    {:reply, a, s}
  end

  def handle_call({:block, ms}, _from, s) do
    Process.sleep(ms)
    {:reply, :unblocked, s}
  end

  def handle_call({:stop, reason, reply}, _from, s), do: {:stop, reason, reply, s}
  def handle_call({:stop, reason}, _from, s), do: {:stop, reason, s}
  def handle_call({:link, pid}, _from, s), do: {:reply, Process.link(pid), s}
  def handle_call({:unlink, pid}, _from, s), do: {:reply, Process.unlink(pid), s}

  def handle_call({:monitor, target}, _from, s), do: {:reply, Process.monitor(target), s}

  def handle_call({:demonitor, ref}, _from, s), do: {:reply, Process.demonitor(ref), s}
  def handle_call({:exit, pid, reason}, _from, s), do: {:reply, Process.exit(pid, reason), s}

  def handle_call({:send, to, messages}, _from, s) do
    Enum.each(messages, &send(to, &1))
    {:reply, :sent, s}
  end

  def handle_call({:send_and_stop, to, message, reason}, _from, s) do
    send(to, message)
    {:stop, reason, s}
  end

  def handle_call(:messages, _from, s),
    do: {:reply, Enum.reverse(s.messages), %{s | messages: []}}

  @impl GenServer
  def handle_cast({:add, n}, s), do: {:noreply, %{s | state: s.state + n}}
  def handle_cast({:stop, reason}, s), do: {:stop, reason, s}

  def handle_cast({:send, to, message}, s) do
    send(to, message)
    {:noreply, s}
  end

  @impl GenServer
  def handle_info({:"$later", from, reply}, s) do
    GenServer.reply(from, reply)
    {:noreply, s}
  end

  def handle_info(message, s), do: {:noreply, %{s | messages: [message | s.messages]}}
end

defmodule Behaviour.Functions do
  @moduledoc "What rpc and erpc of the battery call."

  def add(a, b), do: a + b
  def echo(term), do: term
  def a_throw(term), do: throw(term)
  def an_exit(reason), do: exit(reason)
  def an_error(reason), do: :erlang.error(reason)
  def state_41(server), do: %{server | state: 41}
  def tell(pid, message), do: send(pid, message)

  def sleep(ms) do
    Process.sleep(ms)
    :slept
  end
end
