# Read when the module below is compiled, as a user's is that lies in the project.
File.mkdir_p!(Path.join(System.tmp_dir!(), "ringbridge-case-#{System.pid()}"))

"ringbridge-case-#{System.pid()}/ringbridge.toml"
|> Path.expand(System.tmp_dir!())
|> File.write!(Ringbridge.Lab.config())

defmodule Ringbridge.ClientCaseTest do
  @moduledoc "The case template with a real bridge: the same helpers, and a leak there is seen, too."
  @directory Path.join(System.tmp_dir!(), "ringbridge-case-#{System.pid()}")

  use Ringbridge.Case,
    config: Path.join(@directory, "ringbridge.toml"),
    command: Ringbridge.Lab.command(),
    env: [{"PYTHONPATH", Ringbridge.Lab.root()}]

  alias Ringbridge.{Case, Lab, Proc}

  @moduletag timeout: 240_000
  setup_all do: on_exit(fn -> File.rm_rf!(@directory) end)

  test "a test has an instance of its own at the module's bridge", context do
    assert Ringbridge.call(context.compute, :echo, "hello") == {:ok, "hello"}
    assert context.bridge in Node.list(:hidden)
    assert_nothing_leaked(context.compute)
  end

  test "a worker that dies is told of, and comes back", %{compute: compute} do
    await_workers(compute, :sleep)
    request = Ringbridge.async(compute, :sleep, "60000", timeout: 60_000)
    await_busy(compute, :sleep)
    crash_worker(compute, :sleep)
    assert {:error, %{reason: {:worker_crashed, _}}} = Ringbridge.await(request)
    await_workers(compute, :sleep)
    assert Ringbridge.call(compute, :sleep, "1") == {:ok, "1"}
    assert_nothing_leaked(compute)
  end

  test "a job without an answer is a leak", %{compute: compute} do
    request = Ringbridge.async(compute, :sleep, "60000", timeout: 60_000)
    await_busy(compute, :sleep)

    assert_raise ExUnit.AssertionError, ~r/1 jobs have none/, fn ->
      assert_nothing_leaked(compute, 50)
    end

    Ringbridge.shutdown(request)
    assert_nothing_leaked(compute)
  end

  test "a bridge ends with its process, and all of its processes with it", _context do
    options = [config: Path.join(@directory, "ringbridge.toml"), command: Lab.command()]
    env = [env: [{"PYTHONPATH", Lab.root()}]]
    {:ok, bridge} = Case.Bridge.start_link(options ++ env)
    os_pid = Case.Bridge.os_pid(bridge)
    family = [os_pid | Proc.descendants(os_pid)]
    assert length(family) > 4
    GenServer.stop(bridge)

    Lab.wait_until("none of #{inspect(family)} is left", fn ->
      not Enum.any?(family, &Proc.alive?/1)
    end)
  end

  test "one that says it is ready and cannot be reached is not left" do
    Process.flag(:trap_exit, true)
    pid_file = Path.join(@directory, "pid")
    command = Path.join(@directory, "liar")

    File.write!(
      command,
      "#!/bin/sh\necho $$ > #{pid_file}\necho '{\"name\": 1}'\nexec sleep 600\n"
    )

    File.chmod!(command, 0o755)
    options = [config: Path.join(@directory, "ringbridge.toml"), command: command]
    assert {:error, {:shutdown, why}} = Case.Bridge.start_link(options)
    assert why =~ "cannot connect"
    refute pid_file |> File.read!() |> String.trim() |> String.to_integer() |> Proc.alive?()
  end

  test "one that cannot start says why" do
    Process.flag(:trap_exit, true)
    File.write!(Path.join(@directory, "wrong.toml"), "[roles.echo]\nkommand = 1\n")
    options = [config: Path.join(@directory, "wrong.toml"), command: Lab.command()]
    env = [env: [{"PYTHONPATH", Lab.root()}]]
    assert {:error, {:shutdown, why}} = Case.Bridge.start_link(options ++ env)
    assert why =~ "kommand"
  end
end
