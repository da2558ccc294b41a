defmodule Ringbridge.MixTasksTest do
  @moduledoc "The mix tasks as programs of their own, beside a running bridge: what they print, and their exit status."
  use Ringbridge.BridgeCase

  @moduletag timeout: 180_000

  # What the one who runs the tests may have told this VM must not decide.
  @plain ~w(env -u RINGBRIDGE_COOKIE -u NO_COLOR)

  defp start(arguments, options \\ []) do
    env = [{"HOME", Lab.home()}, {"MIX_ENV", "test"} | Keyword.get(options, :env, [])]
    cd = Keyword.get(options, :cd, Lab.root())
    name = Lab.unique("mix")
    argv = Keyword.get(options, :through, []) ++ @plain ++ ["mix" | arguments]
    start_supervised!({Program, {argv, name: name, env: env, cd: cd}})
  end

  # Its lines and its exit status.
  defp mix(arguments, options \\ []) do
    program = start(arguments, options)
    status = Program.await_exit(program, 150_000)
    {Program.lines(program), status}
  end

  # Several, side by side.
  defp at_once(commands) do
    for program <- Enum.map(commands, &start/1) do
      status = Program.await_exit(program, 150_000)
      {Program.lines(program), status}
    end
  end

  # With a parser that is none of ours.
  defp from_json(line, expression) do
    code = "import json,sys; it=json.loads(sys.argv[1]); print(#{expression})"
    {said, 0} = System.cmd(Lab.python(), ["-c", code, line], stderr_to_stdout: true)
    String.trim(said)
  end

  describe "mix ipc.inspect" do
    test "shows roles, workers and what went wrong, aligned and without colours in a pipe", %{
      node: node
    } do
      assert {:ok, "x"} = submit(node, :echo, "x")
      Program.kill(os_pid_of_worker(node, :small), "SEGV")

      Lab.wait_until("the death is told", 60_000, fn ->
        {:ok, status} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
        Enum.any?(status.recent_errors, &(&1.role == "small"))
      end)

      {lines, 0} = mix(["ipc.inspect", "--node", "#{node}"])
      page = Enum.join(lines, "\n")
      refute page =~ "\e"
      assert page =~ "#{node}  0.1.0, layout 3."
      assert page =~ ~r/^echo +running +closed +1 of 1 +0 of 4,096 +0 +[1-9] +0/m
      assert page =~ ~r/workers that ended wrongly.*\n.*\n.* small +\S.*signal/
      # The headings stand over their columns.
      heading = Enum.find(lines, &(&1 =~ ~r/^role +state/))
      row = Enum.find(lines, &(&1 =~ ~r/^echo /))
      assert String.length(heading) == String.length(row)
    end

    test "gives programs what the bridge answers, of one role", %{node: node} do
      {[line], 0} = mix(["ipc.inspect", "--node", "#{node}", "--role", "sleep", "--json"])

      assert from_json(line, "it['node'], [r['name'] for r in it['status']['roles']]") ==
               "#{node} ['sleep']"

      assert from_json(line, "it['rates']['over_ms'] >= 500, it['status']['layout']['digest']") ==
               "True #{Base.encode16(Ringbridge.Layout.digest(), case: :lower)}"
    end

    test "says what is wrong in a line, by its exit status too", %{node: node} do
      assert [
               {[nobody], 1},
               {[cookie], 1},
               {[role], 1},
               {[option], 2}
             ] =
               at_once([
                 ["ipc.inspect", "--node", "nobody@127.0.0.1"],
                 ["ipc.inspect", "--node", "#{node}", "--cookie", "WRONG"],
                 ["ipc.inspect", "--node", "#{node}", "--role", "paint"],
                 ["ipc.inspect", "--rol", "echo"]
               ])

      assert nobody =~ "does not know that name; it knows" and nobody =~ "ringbridge serve"
      assert cookie =~ "its cookie is another one than ours"
      refute cookie =~ "WRONG"
      assert role =~ "no role paint" and role =~ "echo, sleep"
      assert option =~ "--rol: no such option"
    end
  end

  describe "mix ringbridge.doctor" do
    test "finds nothing missing beside a bridge, and shows no cookie", %{node: node} do
      {lines, 0} = mix(["ringbridge.doctor", "--node", "#{node}"])
      page = Enum.join(lines, "\n")

      for name <- ~w(versions cookie connection answers layout clock),
          do: assert(page =~ ~r/^ok +#{name} /m)

      assert page =~ ~r/^ok +a job +echo answered what it was sent/m
      assert page =~ ~r/^hm +admin .*\n.*\n.*"ringbridge-\*@127.0.0.1"/m
      refute page =~ Atom.to_string(Lab.cookie())
    end

    test "names the step that fails, with status 1", %{node: node, bridge: bridge} do
      file = Path.join(bridge.directory, "wrong-cookie")
      File.write!(file, "WRONG")
      File.chmod!(file, 0o400)

      [{cookie, 1}, {[json], 1}] =
        at_once([
          ["ringbridge.doctor", "--node", "#{node}", "--cookie-file", file],
          ["ringbridge.doctor", "--node", "nobody@127.0.0.1", "--json"]
        ])

      assert Enum.find(cookie, &(&1 =~ ~r/^bad /)) =~ "handshake"
      refute Enum.join(cookie) =~ "WRONG"
      assert from_json(json, "[f['name'] for f in it if f['verdict'] == 'bad']") == "['name']"
    end
  end

  test "mix ipc.inspect --watch outlives its bridge, and shows the next one" do
    name = Lab.unique("watched")
    bridge = Lab.start_bridge(name: name)
    program = start(["ipc.inspect", "--node", "#{bridge.node}", "--watch", "100", "--json"])
    Program.await_line(program, ~r/"rates":\{/, 120_000)

    stop_supervised!(name)
    Program.await_line(program, ~r/cannot be reached any more/, 60_000)

    next = Lab.start_bridge(name: name)
    os_pid = Program.os_pid(next.program)
    line = Program.await_line(program, ~r/"os_pid":#{os_pid},.*/, 60_000)
    assert from_json(line, "it['status']['os_pid']") == "#{os_pid}"
    refute Program.ended?(program)
  end
end
