defmodule Ringbridge.ServerTest do
  @moduledoc """
  `Ringbridge.Server`: a bridge under a shepherd under this VM, or under one that is killed here (docs/server.md).
  """
  use ExUnit.Case

  import ExUnit.CaptureLog

  alias Ringbridge.{Lab, Proc, Program, Server}

  @moduletag timeout: 240_000
  @moduletag :capture_log

  # For a machine that is busy with other suites.
  @patience_ms 60_000

  setup do
    directory = Path.join(System.tmp_dir!(), Lab.unique("ringbridge-#{System.pid()}-server"))
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    config = Path.join(directory, "ringbridge.toml")
    File.write!(config, settings())
    name = :"#{__MODULE__}.Bridge#{System.unique_integer([:positive])}"
    {:ok, config: config, name: name}
  end

  defp options(context, more \\ []) do
    [
      name: context.name,
      config: context.config,
      command: Lab.command(),
      shepherd: Path.join(Lab.root(), "build/bin/ringbridge-shepherd"),
      env: %{"PYTHONPATH" => Lab.root()},
      backoff_min_ms: 20,
      backoff_max_ms: 200
    ]
    |> Keyword.merge(more)
  end

  defp start(context, more \\ []) do
    start_supervised!({Server, options(context, more)})
    ready(context)
  end

  defp ready(context) do
    :ok = Server.await(context.name, @patience_ms)
    {:ok, status} = Server.status(context.name)
    status
  end

  # The bridge that comes after this one.
  defp next_life(context, before) do
    Lab.wait_until("the next bridge is ready", @patience_ms, fn ->
      match?(
        {:ok, %{state: :ready, starts: starts}} when starts > before.starts,
        Server.status(context.name)
      )
    end)

    ready(context)
  end

  defp client(context) do
    name = :"#{context.name}.Client"

    start_supervised!(
      {Ringbridge, name: name, server: context.name, connect_timeout: @patience_ms}
    )

    name
  end

  # The shepherd, the bridge, the shepherds of its workers, their inits, and the workers.
  defp family(status), do: [status.shepherd_os_pid | Proc.descendants(status.shepherd_os_pid)]

  defp await_workers(node) do
    Lab.wait_until("the workers are ready", @patience_ms, fn ->
      {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, node}, :list, @patience_ms)
      Enum.all?(workers, &(&1.state == :ready))
    end)
  end

  defp gone(os_pids) do
    Lab.wait_until("all of #{inspect(os_pids)} are gone", @patience_ms, fn ->
      not Enum.any?(os_pids, &Proc.alive?/1)
    end)
  end

  describe "in this VM" do
    test "an instance finds its server's bridge; its cookie is on no command line and in no environment",
         context do
      status = start(context)

      assert {:ok, "hello"} =
               Ringbridge.call(client(context), :echo, "hello", timeout: @patience_ms)

      assert {:ok, status.node} == Server.node(context.name)
      await_workers(status.node)

      for os_pid <- family(status) do
        refute Proc.cmdline(os_pid) =~ Atom.to_string(Lab.cookie())
        refute Proc.environ(os_pid) =~ Atom.to_string(Lab.cookie())
      end
    end

    test "it logs to our Logger, and stopped in order it ends with status 0, and nothing is left",
         context do
      log =
        capture_log(fn ->
          status = start(context)
          await_workers(status.node)
          family = family(status)
          assert length(family) == 5
          stop_supervised!({Server, context.name})
          # No wait: all of it has ended when its supervisor has.
          refute Enum.any?(family, &Proc.alive?/1)
        end)

      # What the bridge logs is in the Logger, with its level and fields.
      assert log =~ ~r/\[info\].* ready node=\S+ port=\d+ roles=\["echo"\]/
      assert log =~ "stopping: no new jobs"
      assert log =~ "has ended"
      refute log =~ "[error]"
    end

    test "two servers side by side, one with a cookie that this VM does not have", context do
      start(context)
      other = %{context | name: :"#{context.name}Other"}
      start(other, cookie: "onlyfortheirs")
      assert {:ok, "one"} = Ringbridge.call(client(context), :echo, "one", timeout: @patience_ms)
      assert {:ok, "two"} = Ringbridge.call(client(other), :echo, "two", timeout: @patience_ms)
      assert Server.node(context.name) != Server.node(other.name)
    end
  end

  describe "killed" do
    test "the bridge, its shepherd, or both: the next one has the same name, and calls go on",
         context do
      capture_log(fn ->
        start(context)
        client = client(context)

        for keys <- [[:os_pid], [:shepherd_os_pid], [:shepherd_os_pid, :os_pid]] do
          {:ok, status} = Server.status(context.name)
          await_workers(status.node)
          family = family(status)
          for key <- keys, do: Program.kill(Map.fetch!(status, key), "KILL")
          after_it = next_life(context, status)
          gone(family)
          assert after_it.node == status.node
          assert after_it.os_pid != status.os_pid
          options = [timeout: @patience_ms, idempotent: true]
          assert {:ok, "on"} = Ringbridge.call(client, :echo, "on", options)
        end
      end)
    end

    test "the owner: the shepherd ends the bridge, and the next one begins when it has ended",
         context do
      capture_log(fn ->
        status = start(context)
        await_workers(status.node)
        family = family(status)
        context.name |> Module.concat(Owner) |> Process.whereis() |> Process.exit(:kill)
        :ok = Server.await(context.name, @patience_ms)
        refute Proc.alive?(status.os_pid)
        refute Proc.alive?(status.shepherd_os_pid)
        gone(family)
        assert {:ok, %{os_pid: os_pid}} = Server.status(context.name)
        assert os_pid != status.os_pid
      end)
    end

    test "the owner, its shepherd being stopped: the watcher wakes it", context do
      log =
        capture_log(fn ->
          status = start(context)
          await_workers(status.node)
          family = family(status)
          Program.kill(status.shepherd_os_pid, "STOP")
          context.name |> Module.concat(Owner) |> Process.whereis() |> Process.exit(:kill)
          :ok = Server.await(context.name, @patience_ms)
          gone(family)
        end)

      assert log =~ "sending SIGCONT"
    end

    test "the watcher: nothing happens to the bridge, and the next one knows it", context do
      capture_log(fn ->
        status = start(context)
        watcher = Module.concat(context.name, Watcher)
        pid = Process.whereis(watcher)
        Process.exit(pid, :kill)

        Lab.wait_until("another watcher", @patience_ms, fn ->
          Process.whereis(watcher) not in [nil, pid]
        end)

        assert {:ok, %{os_pid: os_pid}} = Server.status(context.name)
        assert os_pid == status.os_pid
        Program.kill(status.shepherd_os_pid, "STOP")
        context.name |> Module.concat(Owner) |> Process.whereis() |> Process.exit(:kill)
        :ok = Server.await(context.name, @patience_ms)
        refute Proc.alive?(status.os_pid)
      end)
    end

    test "the server's supervisor: nothing is left", context do
      Process.flag(:trap_exit, true)

      capture_log(fn ->
        {:ok, server} = Server.start_link(options(context))
        status = ready(context)
        await_workers(status.node)
        family = family(status)
        Process.exit(server, :kill)
        assert_receive {:EXIT, ^server, :killed}, @patience_ms
        gone(family)
      end)
    end

    test "the server's supervisor, under one of few restarts: the next begins when the last has ended",
         context do
      capture_log(fn ->
        options = [strategy: :one_for_one, max_restarts: 1]
        {:ok, application} = Supervisor.start_link([{Server, options(context)}], options)
        status = ready(context)
        family = family(status)
        server = Process.whereis(context.name)
        ref = Process.monitor(server)
        Process.unlink(application)
        Process.exit(server, :kill)
        assert_receive {:DOWN, ^ref, :process, ^server, :killed}, @patience_ms

        Lab.wait_until("the next server has its table, or there is none", @patience_ms, fn ->
          not Process.alive?(application) or Server.fetch(context.name) != {:error, :not_started}
        end)

        assert Process.alive?(application)
        assert ready(context).node == status.node
        gone(family)
        Supervisor.stop(application)
      end)
    end
  end

  describe "a bridge that cannot run" do
    setup do
      Process.flag(:trap_exit, true)
      :ok
    end

    test "says why in the Logger, is tried a few times with pauses, and the server gives up",
         context do
      File.write!(context.config, "[roles.echo]\ncommand = 7\n")

      log =
        capture_log(fn ->
          {:ok, server} = Server.start_link(options(context, max_failures: 3))
          {:error, {:gave_up, ending}} = Server.await(context.name, @patience_ms)
          assert %{how: {:status, 1}, said: said} = ending
          assert said =~ "roles.echo.command"
          assert_receive {:EXIT, ^server, :shutdown}, @patience_ms
        end)

      assert length(String.split(log, "roles.echo.command")) > 3
      assert log =~ ~r/starting it again in \d+ ms/
      assert log =~ "giving up after 3 in a row"
    end

    test "with :ready_timeout the start itself fails and says why", context do
      File.write!(context.config, "[roles.echo]\ncommand = 7\n")

      capture_log(fn ->
        options = options(context, max_failures: 1, ready_timeout: @patience_ms)
        assert {:error, {:shutdown, why}} = Server.start_link(options)
        assert inspect(why) =~ "roles.echo.command"
      end)
    end

    test "with :ready_timeout the start returns when the bridge answers", context do
      {:ok, server} = Server.start_link(options(context, ready_timeout: @patience_ms))
      assert {:ok, %{state: :ready}} = Server.status(context.name)
      Supervisor.stop(server)
    end

    test "its program is not to be executed", context do
      capture_log(fn ->
        command = ["/bin/true", "\x01"]
        options = options(context, command: command, max_failures: 1)
        {:ok, _server} = Server.start_link(options)
        {:error, {:gave_up, ending}} = Server.await(context.name, @patience_ms)
        # It ends before it is ready, though with status 0.
        assert ending.how == {:status, 0}
      end)
    end

    test "its environment is too large: for a frame, or for the kernel", context do
      for {bytes, words} <- [{300_000, "262144 at most"}, {140_000, "argument list too long"}] do
        env = %{"LARGE" => String.duplicate("x", bytes)}

        capture_log(fn ->
          {:ok, _server} = Server.start_link(options(context, env: env, max_failures: 1))
          {:error, {:gave_up, %{how: how}}} = Server.await(context.name, @patience_ms)
          assert {:not_started, why} = how
          assert why =~ words
          assert_receive {:EXIT, _server, :shutdown}, @patience_ms
        end)
      end
    end

    test "a function of :env is asked at each start; its failure is a failure like others",
         context do
      {:ok, asked} = Agent.start_link(fn -> 0 end)

      env = fn ->
        # Once by the check of the options, then by each start.
        if Agent.get_and_update(asked, &{&1, &1 + 1}) == 2, do: raise("s3cret")
        %{"PYTHONPATH" => Lab.root()}
      end

      log =
        capture_log(fn ->
          {:ok, server} = Server.start_link(options(context, env: env))
          before = ready(context)
          Program.kill(before.os_pid, "KILL")
          next_life(context, before)
          Supervisor.stop(server)
        end)

      assert log =~ "was not started: the function of option :env raised RuntimeError"
      refute log =~ "s3cret"
    end

    test "an owner that crashes shows neither cookie nor environment", context do
      env = %{"PYTHONPATH" => Lab.root(), "PASSWORD" => "s3cret"}

      log =
        capture_log(fn ->
          {:ok, server} = Server.start_link(options(context, env: env, cookie: "sesame"))
          before = ready(context)
          owner = Process.whereis(Module.concat(context.name, Owner))
          states = for pid <- [owner, server], do: {:sys.get_status(pid), :sys.get_state(pid)}
          shown = inspect(states, limit: :infinity, printable_limit: :infinity)
          refute shown =~ "s3cret" or shown =~ "sesame"
          catch_exit(GenServer.call(owner, :nobody_knows_this))
          next_life(context, %{before | starts: 0})
          Supervisor.stop(server)
        end)

      assert log =~ "nobody_knows_this"
      refute log =~ "s3cret" or log =~ "sesame"
    end

    test "its shepherd ends before it has read what it is to start", context do
      # More than a pipe holds, so that the port is still writing.
      env = %{"LARGE" => String.duplicate("x", 120_000), "TOO" => String.duplicate("x", 120_000)}
      options = options(context, shepherd: "/bin/true", env: env, max_failures: 2)

      capture_log(fn ->
        {:ok, _server} = Server.start_link(options)
        assert {:error, {:gave_up, %{how: how}}} = Server.await(context.name, @patience_ms)
        assert how == :shepherd_killed
      end)
    end

    test "its shepherd is away for a while, as in an upgrade: it is tried again", context do
      shepherd = Path.join(Path.dirname(context.config), "shepherd")
      File.cp!(options(context)[:shepherd], shepherd)

      capture_log(fn ->
        options = options(context, shepherd: shepherd, max_failures: :infinity)
        {:ok, server} = Server.start_link(options)
        before = ready(context)
        File.rename!(shepherd, shepherd <> ".old")
        Program.kill(before.os_pid, "KILL")

        Lab.wait_until(
          "it has failed more often than a supervisor would let it",
          @patience_ms,
          fn ->
            match?({:ok, %{failures: failures}} when failures > 5, Server.status(context.name))
          end
        )

        {:ok, %{last_end: %{how: {:not_started, why}}}} = Server.status(context.name)
        assert why =~ "no such file"
        File.rename!(shepherd <> ".old", shepherd)
        next_life(context, before)
        Supervisor.stop(server)
      end)
    end

    test "there is no epmd, and the settings forbid to start one", context do
      File.write!(context.config, settings("epmd = \"fail\""))
      {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(socket)
      :ok = :gen_tcp.close(socket)
      env = %{"PYTHONPATH" => Lab.root(), "ERL_EPMD_PORT" => "#{port}"}

      capture_log(fn ->
        {:ok, _server} = Server.start_link(options(context, env: env, max_failures: 1))
        {:error, {:gave_up, %{said: said}}} = Server.await(context.name, @patience_ms)
        assert said =~ "epmd"
      end)
    end

    test "its name is taken: it says so, and has it as soon as it is free", context do
      node = :"#{Lab.unique("taken")}@127.0.0.1"

      capture_log(fn ->
        {:ok, first} = Server.start_link(options(context, node: node))
        ready(context)
        second = %{context | name: :"#{context.name}Second"}
        {:ok, server} = Server.start_link(options(second, node: node, max_failures: :infinity))

        Lab.wait_until("the second is refused", @patience_ms, fn ->
          match?({:ok, %{last_end: %{how: {:status, 1}}}}, Server.status(second.name))
        end)

        {:ok, %{last_end: %{said: said}}} = Server.status(second.name)
        assert said =~ "#{node}" or said =~ "taken"
        Supervisor.stop(first)
        assert :ok = Server.await(second.name, @patience_ms)
        Supervisor.stop(server)
      end)
    end
  end

  describe "the VM" do
    # Another VM with a server of its own; it says who is who.
    setup context do
      script = """
      {:ok, _} = Supervisor.start_link([{Ringbridge.Server, #{inspect(options(context))}}], strategy: :one_for_one)
      :ok = Ringbridge.Server.await(#{inspect(context.name)}, #{@patience_ms})
      {:ok, status} = Ringbridge.Server.status(#{inspect(context.name)})
      IO.puts("I have \#{status.shepherd_os_pid} \#{status.os_pid} \#{status.node}")
      # The supervisor is linked to this process.
      Process.sleep(:infinity)
      """

      ebin = Application.app_dir(:ringbridge, "ebin")
      argv = ["elixir", "-pa", ebin, "--no-halt", "-e", script]
      vm = start_supervised!({Program, {argv, name: "vm", env: [{"HOME", Lab.home()}]}})
      line = Program.await_line(vm, ~r/^I have /, @patience_ms)
      ["I", "have", shepherd, bridge, node] = String.split(line)

      status = %{
        shepherd_os_pid: String.to_integer(shepherd),
        os_pid: String.to_integer(bridge),
        node: String.to_atom(node)
      }

      true = Node.connect(status.node)
      await_workers(status.node)
      {:ok, vm: vm, status: status, family: family(status)}
    end

    test "is killed: nothing is left", context do
      Program.signal(context.vm, "KILL")
      gone(context.family)
    end

    test "is killed with the shepherd: nothing is left", context do
      Program.signal(context.vm, "KILL")
      Program.kill(context.status.shepherd_os_pid, "KILL")
      gone(context.family)
    end

    test "is killed while the shepherd is stopped: nothing is left", context do
      Program.kill(context.status.shepherd_os_pid, "STOP")
      Program.signal(context.vm, "KILL")
      gone(context.family)
    end

    test "is killed while the bridge is stopped: nothing is left", context do
      Program.kill(context.status.os_pid, "STOP")
      Program.signal(context.vm, "KILL")
      gone(context.family)
    end

    test "ends by itself: nothing is left", context do
      Program.signal(context.vm, "TERM")
      gone(context.family)
    end

    test "is stopped: the bridge answers others, and is its own when it goes on", context do
      Program.signal(context.vm, "STOP")

      for _n <- 1..50 do
        assert {:ok, "there"} =
                 GenServer.call(
                   {Ringbridge.JobDispatcher, context.status.node},
                   {:submit, :echo, "there"},
                   @patience_ms
                 )
      end

      Program.signal(context.vm, "CONT")
      Program.signal(context.vm, "TERM")
      gone(context.family)
    end
  end

  defp settings(more \\ "") do
    """
    [node]
    drain_ms = 1_000
    #{more}

    [roles.echo]
    command = ["#{Lab.root()}/build/bin/rb-echo"]
    """
  end
end
