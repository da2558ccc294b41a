defmodule Behaviour.Watching do
  @moduledoc "Monitors, links, exits, aliases: who hears of what, and what it hears."
  use Behaviour.Case

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
end
