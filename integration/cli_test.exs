defmodule Ringbridge.CliTest do
  @moduledoc "The command beside a running bridge: what it prints, and its exit status."
  use Ringbridge.BridgeCase

  defp run(arguments, env \\ []) do
    [program | first] = Lab.command()
    cookie = {"RINGBRIDGE_COOKIE", Atom.to_string(Lab.cookie())}
    env = [cookie, {"PYTHONPATH", Lab.root()}, {"COLUMNS", "120"} | env]
    System.cmd(program, first ++ arguments, env: env, cd: Lab.root(), stderr_to_stdout: true)
  end

  test "status shows roles and workers, for people and for programs", %{
    node: node,
    bridge: bridge
  } do
    assert {:ok, "x"} = submit(node, :echo, "x")
    {said, 0} = run(["status", "--name", "#{node}"])
    for word <- ["echo", "sleep", "simulation", "small", "ready"], do: assert(said =~ word)

    {json, 0} = run(["status", "--name", "#{node}", "--json"])
    assert json =~ ~s("os_pid": #{Program.os_pid(bridge.program)})
    refute json =~ Atom.to_string(Lab.cookie())
  end

  test "status of a bridge that is not there says so, with status 1" do
    {said, 1} = run(["status", "--name", "nobody@127.0.0.1"])
    assert said =~ "nobody@127.0.0.1"
    refute said =~ "Traceback"
  end

  test "status with a wrong cookie says so, with status 1", %{node: node} do
    {said, 1} = run(["status", "--name", "#{node}"], [{"RINGBRIDGE_COOKIE", "wrong"}])
    assert said =~ "cookie"
    refute said =~ "Traceback"
  end

  test "doctor finds nothing missing where these tests run" do
    {said, 0} = run(["doctor", "--config", "ringbridge.toml"])
    assert said =~ "epmd"
    refute said =~ Atom.to_string(Lab.cookie())
  end

  test "a wrong configuration is told with file, key, rule and mend", %{bridge: bridge} do
    file = Path.join(bridge.directory, "wrong.toml")
    File.write!(file, "[roles.echo]\ncommand = [\"/bin/true\"]\nworkrs = 2\n")

    {said, status} =
      run(["serve", "--config", file, "--name", "#{Lab.unique("wrong")}@127.0.0.1"])

    assert status != 0
    for word <- [file, "workrs", "workers"], do: assert(said =~ word)
    refute said =~ "Traceback"
  end
end
