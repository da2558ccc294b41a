defmodule Ringbridge.MixTasksTest do
  @moduledoc "The mix tasks as programs of their own, beside a running bridge: what they print, and their exit status."
  use Ringbridge.BridgeCase

  @moduletag timeout: 240_000

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

      Lab.wait_until("the death is told", fn ->
        {:ok, status} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
        Enum.any?(status.recent_errors, &(&1.role == "small"))
      end)

      {lines, 0} = mix(["ipc.inspect", "--node", "#{node}"])
      page = Enum.join(lines, "\n")
      refute page =~ "\e"
      assert page =~ "#{node}  0.1.0, layout 3."
      assert page =~ ~r/^echo +running +closed +1 of 1 +0 of 4,096 +0 +[1-9][\d,]* +0/m
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

    test "ends in order when its reader does, as with `| head`", %{node: node} do
      script = ~S({ "$@"; echo "status $?" >&2; } | head -n 1)
      arguments = ["ipc.inspect", "--node", "#{node}", "--watch", "100", "--json"]
      {lines, 0} = mix(arguments, through: ["sh", "-c", script, "sh"])
      assert ["status 0", "{" <> _page] = Enum.sort(lines)
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

  describe "mix ringbridge.harness" do
    test "goes on to its end when its reader has ended, as with `| head`, and says so by its status" do
      script = ~S({ "$@"; echo "status $?" >&2; } | head -n 1)
      arguments = ["ringbridge.harness", "--seconds", "0.5", "--seed", "3"]
      {lines, 0} = mix(arguments, through: ["sh", "-c", script, "sh"])
      assert ["ring against a model" <> _passed, "status 0"] = Enum.sort(lines)
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

  describe "mix ringbridge.bench" do
    test "measures a role, and says what went wrong", %{node: node} do
      short = ["ringbridge.bench", "--node", "#{node}", "--callers", "2", "--seconds", "1"]
      {[json], 0} = mix(short ++ ["--size", "16", "--json"])
      row = "it['rows'][0]['calls'] > 0, it['rows'][0]['errors'], it['rows'][0]['p50_us'] > 0"
      assert from_json(json, row) == "True {} True"

      [{lines, 1}, {[said], 2}] =
        at_once([
          short ++ ["--role", "sleep", "--payload", "soon", "--plain"],
          ["ringbridge.bench", "--callers", "many"]
        ])

      assert Enum.any?(lines, &(&1 =~ ~r/^ +2 +4 B +dist +0 .*job_failed \d/))

      assert said =~ "--callers is a list such as 1,16,128"
    end
  end

  describe "mix ringbridge.chaos" do
    # What is tried here is the task: the plan's promises are of any machine.
    @plan """
    hypothesis = "A worker that crashes costs its callers an error"
    role = "troubled"
    steady_ms = 200
    trouble_ms = 300
    settle_ms = 200

    [[inject]]
    what = "hook"
    hook = "crash"
    value = 9

    [expect]
    reasons = ["worker_crashed"]
    failed_max = 1_000
    back_within_ms = 60_000
    """

    test "is the program's: its report, and its verdict as exit status" do
      roles = """
      [node]
      admin_nodes = ["ringbridge_*@127.0.0.1"]

      [roles.troubled]
      command = ["#{Lab.root()}/build/bin/rb-echo"]
      chaos = true
      workers = 2
      """

      bridge = Lab.start_bridge(config: roles)
      [program | first] = Lab.command()
      command = Path.join(bridge.directory, "ringbridge")

      File.write!(
        command,
        "#!/bin/sh\nexec '#{program}' #{Enum.map_join(first, " ", &"'#{&1}'")} \"$@\"\n"
      )

      File.chmod!(command, 0o755)
      held = Path.join(bridge.directory, "held.toml")
      File.write!(held, @plan)
      broken = Path.join(bridge.directory, "broken.toml")
      File.write!(broken, @plan <> "answered_min = 1_000_000_000\n")

      run = fn plan ->
        cookie = Path.join(Lab.home(), ".erlang.cookie")
        options = ["--node", "#{bridge.node}", "--command", command, "--cookie-file", cookie]
        mix(["ringbridge.chaos", plan | options], env: [{"PYTHONPATH", Lab.root()}])
      end

      {lines, 0} = run.(held)
      assert Enum.any?(lines, &(&1 =~ "A worker that crashes costs its callers an error"))
      {_lines, 1} = run.(broken)

      [{[no_plan], 1}, {[no_program], 1}] =
        at_once([
          ["ringbridge.chaos", "nowhere.toml"],
          ["ringbridge.chaos", held, "--command", "/nowhere"]
        ])

      assert no_plan =~ "no plan nowhere.toml"
      assert no_program =~ "/nowhere is no program"
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
