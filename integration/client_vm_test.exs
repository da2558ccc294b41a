defmodule Ringbridge.ClientVmTest do
  @moduledoc "The Elixir client in VMs of their own: without a name, with one, and with the cookies of several clusters."
  use ExUnit.Case

  import ExUnit.CaptureLog, only: [with_log: 1]
  alias Ringbridge.{Error, Lab, Program}

  @moduletag timeout: 240_000, capture_log: true

  @other_cookie "ANOTHERCLUSTERSCOOKIE"

  # Without what the one who runs the tests may have told this VM.
  @plain ~w(env -u RINGBRIDGE_COOKIE -u MIX_BUILD_PATH)

  # A VM as `mix run` starts it, with nothing but the client in its path; what it prints.
  defp run(script, options \\ []) do
    ebin = Keyword.get(options, :ebin, Application.app_dir(:ringbridge, "ebin"))
    flags = Keyword.get(options, :flags, [])

    argv =
      ["elixir"] ++ flags ++ ["-pa", ebin, "-e", "try do #{script} after IO.puts(\"end\") end"]

    env = [{"HOME", Lab.home()} | Keyword.get(options, :env, [])]
    program = start_supervised!({Program, {argv, name: Lab.unique("vm"), env: env}})
    Program.await_line(program, ~r/^end$/, 60_000)
    Program.lines(program)
  end

  defp say(what), do: "IO.inspect(#{what}, limit: :infinity, width: :infinity);"

  setup_all do
    {:ok, bridge: Lab.start_bridge()}
  end

  @tag :smoke
  test "a VM without a name gets its first answer, and nobody can find it", %{bridge: bridge} do
    lines =
      run("""
      {:ok, _} = Ringbridge.start_link(name: Plain, nodes: [#{inspect(bridge.node)}])
      #{say(~s|Ringbridge.call(Plain, :echo, "first")|)}
      #{say("{:visible, Node.list(), :hidden, Node.list(:hidden)}")}
      #{say(":net_kernel.get_state()")}
      {:ok, names} = :erl_epmd.names({127, 0, 0, 1})
      #{say("{:listed, Enum.any?(names, fn {name, _} -> hd(String.split(to_string(node()), \"@\")) == to_string(name) end)}")}
      file = String.trim(File.read!(Path.join(System.user_home!(), ".erlang.cookie")))
      #{say("{:private, to_string(Node.get_cookie()) != file}")}
      """)

    assert ~s|{:ok, "first"}| in lines
    assert "{:visible, [], :hidden, [#{inspect(bridge.node)}]}" in lines
    assert "{:listed, false}" in lines
    assert "{:private, true}" in lines
  end

  test "without the NIF calls go over the distribution, and one line says so", %{bridge: bridge} do
    ebin = Path.join(bridge.directory, "bare/ringbridge/ebin")
    File.mkdir_p!(ebin)
    File.cp_r!(Application.app_dir(:ringbridge, "ebin"), ebin)

    lines =
      run(
        """
        {:ok, _} = Ringbridge.start_link(name: Bare, nodes: [#{inspect(bridge.node)}], lane: :nif)
        #{say(~s|Ringbridge.call(Bare, :echo, "first")|)}
        [opener] = for {{Ringbridge.Lane.Opener, _}, pid, _, _} <- Supervisor.which_children(Bare), do: pid
        :sys.get_state(opener)
        #{say(~s|Ringbridge.call(Bare, :echo, "second")|)}
        Logger.flush()
        """,
        ebin: ebin
      )

    assert ~s|{:ok, "first"}| in lines
    assert ~s|{:ok, "second"}| in lines
    assert [line] = Enum.filter(lines, &(&1 =~ "no lane over shared memory"))
    assert line =~ "the NIF is not built"
  end

  test "a new mix application with one more child gets its first answer", %{bridge: bridge} do
    directory = Path.join(bridge.directory, "newcomer")
    child = "{Ringbridge, name: Newcomer.Compute, nodes: [#{inspect(bridge.node)}]}"
    mix(["new", "--sup", directory], bridge.directory)

    edit(
      Path.join(directory, "mix.exs"),
      ~r/# {:dep_from_hexpm.*/,
      "{:ringbridge, path: #{inspect(Lab.root())}}"
    )

    edit(Path.join(directory, "lib/newcomer/application.ex"), ~r/# {Newcomer.Worker, arg}/, child)

    lines =
      mix(["run", "-e", say(~s|Ringbridge.call(Newcomer.Compute, :echo, "first")|)], directory)

    assert ~s|{:ok, "first"}| in lines

    # The client's tasks are there, too, and start nothing of the application's.
    page = ["ipc.inspect", "--node", "#{bridge.node}"] |> mix(directory) |> Enum.join("\n")
    assert page =~ ~r/^echo +running +closed +1 of 1/m
    refute page =~ "Newcomer"
  end

  defp mix(arguments, directory) do
    env = [{"HOME", Lab.home()}, {"MIX_ENV", "dev"}]
    name = Lab.unique("mix")

    program =
      start_supervised!(
        {Program, {@plain ++ ["mix" | arguments], name: name, env: env, cd: directory}}
      )

    status = Program.await_exit(program, 100_000)
    assert status == 0, Enum.join(Program.lines(program), "\n")
    Program.lines(program)
  end

  defp edit(path, what, instead) do
    text = File.read!(path)
    assert text =~ what
    File.write!(path, Regex.replace(what, text, fn _ -> instead end))
  end

  @tag :smoke
  test "instances with the cookies of two clusters stand side by side in one VM", %{
    bridge: bridge
  } do
    other = Lab.start_bridge(cookie: @other_cookie, await: false)
    Program.await_line(other.program, ~r/ready|serving|listening/i, 60_000)
    path = Path.join(other.directory, "cookie")
    File.write!(path, @other_cookie <> "\n")
    File.chmod!(path, 0o400)

    lines =
      run("""
      {:ok, _} = Ringbridge.start_link(name: One, nodes: [#{inspect(bridge.node)}])
      {:ok, _} = Ringbridge.start_link(name: Two, nodes: [#{inspect(other.node)}], cookie_file: #{inspect(path)})
      #{say(~s|{Ringbridge.call(One, :echo, "1"), Ringbridge.call(Two, :echo, "2")}|)}
      """)

    assert ~s|{{:ok, "1"}, {:ok, "2"}}| in lines

    # This VM has a name and a cookie, which stays as it is.
    ours = Node.get_cookie()
    start_supervised!({Ringbridge, name: Three, nodes: [other.node], cookie: @other_cookie})
    assert Ringbridge.call(Three, :echo, "3") == {:ok, "3"}
    assert Node.get_cookie() == ours

    # Nobody who looks into it sees the cookie.
    pids = for {_id, pid, _type, _modules} <- Supervisor.which_children(Three), do: pid
    shown = [Enum.map(pids, &:sys.get_state/1), :sys.get_state(Three), :ets.tab2list(Three)]
    refute inspect(shown, limit: :infinity) =~ @other_cookie
  end

  test "what cannot become a node, or not connect, says why", %{bridge: bridge} do
    open = Path.join(bridge.directory, "open")
    File.write!(open, "COOKIE")
    File.chmod!(open, 0o644)

    lines =
      run("""
      Process.flag(:trap_exit, true)
      #{say("Ringbridge.start_link(name: A, nodes: [:\"b@short\", :\"b@127.0.0.1\"])")}
      #{say("Ringbridge.start_link(name: B, nodes: [:\"b@127.0.0.1\"], cookie_file: #{inspect(open)})")}
      #{say("Ringbridge.start_link(name: C, nodes: [:\"b@127.0.0.1\"], cookie_file: \"/nowhere\")")}
      """)

    said = Enum.join(lines, "\n")
    assert said =~ "has a long name" and said =~ "a short one"
    assert said =~ "chmod 400 #{open}"
    assert said =~ "/nowhere: no such file"
  end

  test "a cookie that cannot be had any more is one more failed attempt, and no end of the instance" do
    lines =
      run("""
      asked = :counters.new(1, [])
      cookie = fn -> :counters.add(asked, 1, 1); if :counters.get(asked, 1) > 1, do: raise("GEHEIM"), else: "COOKIE" end
      {:ok, instance} = Ringbridge.start_link(name: Lost, nodes: [:"nobody@127.0.0.1"], cookie: cookie, backoff_min_ms: 1, backoff_max_ms: 10)
      often? = fn _ -> Process.sleep(10); :counters.get(asked, 1) > 20 end
      #{say("{:often, Enum.any?(1..6_000, often?), Process.alive?(instance)}")}
      """)

    assert "{:often, true, true}" in lines
    refute Enum.join(lines, "\n") =~ "GEHEIM"
    assert [_one] = Enum.filter(lines, &(&1 =~ "option :cookie raised RuntimeError"))
  end

  test "a VM whose user has stopped distribution is named by no attempt to connect" do
    lines =
      run("""
      {:ok, _} = Ringbridge.start_link(name: Lost, nodes: [:"nobody@127.0.0.1"], backoff_min_ms: 1, backoff_max_ms: 10)
      [connection] = for {{Ringbridge.Connection, _}, pid, _, _} <- Supervisor.which_children(Lost), do: pid
      :ok = :net_kernel.stop()
      before = :sys.get_state(connection).backoff.failures
      more? = fn _ -> Process.sleep(10); :sys.get_state(connection).backoff.failures > before + 3 end
      #{say("{:tried, Enum.any?(1..6_000, more?), :alive, Node.alive?()}")}
      {:error, error} = Ringbridge.call(Lost, :echo, "x", timeout: 10)
      #{say("error.reason")}
      """)

    assert "{:tried, true, :alive, false}" in lines
    assert ":not_connected" in lines
  end

  test "a VM that is no node, or no more since the bridge was chosen, gets errors" do
    lines =
      run("""
      alias Ringbridge.Lane.Dist
      job = {:submit, :echo, "x", []}
      {:error, error} = Ringbridge.cancel(5, node: :b@h)
      #{say("{:cancel, error.reason}")}
      #{say("{:call, Dist.call(:b@h, job, 60_000)}")}
      #{say("{:async, Dist.await(:b@h, Dist.submit(:b@h, job), 60_000)}")}
      #{say("{:shutdown, Dist.cancel(:b@h, Dist.submit(:b@h, job))}")}
      #{say("{:cast, Dist.cast(:b@h, job)}")}
      #{say("{:left, Process.info(self(), :messages)}")}
      """)

    assert "{:cancel, :not_connected}" in lines
    for what <- [:call, :async, :cast], do: assert("{:#{what}, {:down, :noconnection}}" in lines)
    assert "{:shutdown, :ok}" in lines
    assert "{:left, {:messages, []}}" in lines
  end

  test "instances that start at once find the user's cookie, whichever names the VM" do
    lines =
      run("""
      file = File.read!(Path.join(System.user_home!(), ".erlang.cookie")) |> String.trim() |> String.to_atom()
      Process.flag(:trap_exit, true)
      starts = for i <- 1..8, do: Task.async(fn ->
        node = :"nobody\#{i}@127.0.0.1"
        {:ok, _} = Ringbridge.start_link(name: :"At\#{i}", nodes: [node])
        :auth.get_cookie(node) == file
      end)
      #{say("{:found, starts |> Task.await_many(60_000) |> Enum.uniq()}")}
      """)

    assert "{:found, [true]}" in lines
  end

  test "a bridge that is not there: an error in time, one line in the log, no more" do
    lines =
      run("""
      {:ok, _} = Ringbridge.start_link(name: Lost, nodes: [:"nobody@127.0.0.1"], backoff_max_ms: 100)
      #{say(~s|Ringbridge.call(Lost, :echo, "x", timeout: 1_500)|)}
      [connection] = for {{Ringbridge.Connection, _}, pid, _, _} <- Supervisor.which_children(Lost), do: pid
      nobody? = fn _ -> Process.sleep(100); :sys.get_state(connection).waiting == [] end
      #{say("{:forgotten, Enum.any?(1..600, nobody?)}")}
      """)

    # Nobody is waited for who has given up.
    assert "{:forgotten, true}" in lines

    assert Enum.any?(lines, &(&1 =~ "%Ringbridge.Error{" and &1 =~ ":not_connected"))
    assert [_one] = Enum.filter(lines, &(&1 =~ "cannot connect to nobody@127.0.0.1"))
  end

  test "a wrong cookie is an error in time, and not in the log", %{bridge: bridge} do
    # The connection that this VM has by its own cookie ends here; a new one is refused.
    {answer, log} =
      with_log(fn ->
        start_supervised!({Ringbridge, name: Wrong, nodes: [bridge.node], cookie: "WRONGCOOKIE"})
        Node.disconnect(bridge.node)
        answer = Ringbridge.call(Wrong, :echo, "x", timeout: 500)
        stop_supervised!({Ringbridge, Wrong})
        answer
      end)

    refute log =~ "WRONGCOOKIE"
    Node.set_cookie(bridge.node, Lab.cookie())
    assert {:error, %Error{reason: reason}} = answer
    assert reason in [:not_connected, {:down, :noconnection}]
    assert Node.connect(bridge.node)
  end
end
