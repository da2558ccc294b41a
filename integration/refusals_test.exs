defmodule Ringbridge.RefusalsTest do
  @moduledoc "What the bridge does not let in, and does not start with: one clear log line each."
  use ExUnit.Case

  import Ringbridge.BridgeCase, only: [submit: 3, log: 2]
  alias Ringbridge.{Lab, Proc, Program}

  @moduletag timeout: 240_000

  test "a wrong cookie is refused, with a log line that names the peer" do
    bridge = Lab.start_bridge()
    Node.disconnect(bridge.node)
    Node.set_cookie(bridge.node, :not_the_cookie)
    refute Node.connect(bridge.node)
    Program.await_line(bridge.program, ~r/cookie.*#{Node.self()}|#{Node.self()}.*cookie/)
    assert [_one] = log(bridge, ~r/cookie.*#{Node.self()}|#{Node.self()}.*cookie/)
    assert log(bridge, ~r/Traceback/) == []

    Node.set_cookie(bridge.node, Lab.cookie())
    assert Node.connect(bridge.node)
    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
  end

  test "the cookie is in no log line, no argument and no worker's environment" do
    bridge = Lab.start_bridge()
    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
    cookie = Atom.to_string(Lab.cookie())
    assert log(bridge, ~r/#{cookie}/) == []

    family = Proc.descendants(Program.os_pid(bridge.program))
    assert length(family) > 3

    for pid <- family do
      refute Proc.cmdline(pid) =~ cookie
      refute Proc.environ(pid) =~ cookie
    end
  end

  test "a name that is taken at epmd is an error that says so" do
    bridge = Lab.start_bridge()
    [alive, _] = bridge.node |> Atom.to_string() |> String.split("@")
    options = [name: alive, await: false]
    second = start_second(options)
    assert Program.await_exit(second.program) != 0
    said = second.program |> Program.lines() |> Enum.join("\n")
    assert said =~ alive
    assert said =~ ~r/taken|in use|already/
    refute said =~ "Traceback"
    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
  end

  test "a worker built for another layout is refused, naming both digests" do
    directory = Path.join(System.tmp_dir!(), Lab.unique("ringbridge-layout"))
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {program, ours, theirs} = other_layout(directory)

    bridge =
      Lab.start_bridge(
        roles: """
        [roles.stranger]
        command = ["#{program}"]
        max_restarts = 1
        """
      )

    line = Program.await_line(bridge.program, ~r/#{theirs}/)
    assert line =~ ours
    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
    assert {:error, :no_worker} = submit(bridge.node, :stranger, "x")
  end

  test "a program that is no worker at all is given up, and the others work" do
    bridge =
      Lab.start_bridge(
        roles: """
        [roles.stranger]
        command = ["/bin/false"]
        max_restarts = 1
        """
      )

    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
    assert {:error, :no_worker} = submit(bridge.node, :stranger, "x")
  end

  # The echo worker as if built for another layout: one bit of the digest turned wherever its first
  # eight bytes stand in the program, as bytes (in data or in instructions) and as text.
  defp other_layout(directory) do
    header = File.read!(Path.join(Lab.root(), "csrc/include/ringbridge/layout.h"))
    [_, ours] = Regex.run(~r/RB_LAYOUT_DIGEST_HEX "([0-9a-f]{64})"/, header)
    <<head::binary-size(16), tail::binary>> = ours
    <<first, rest::binary>> = bytes = Base.decode16!(head, case: :lower)
    other = <<Bitwise.bxor(first, 1), rest::binary>>
    other_head = Base.encode16(other, case: :lower)

    echo = File.read!(Path.join(Lab.root(), "build/bin/rb-echo"))
    assert :binary.match(echo, bytes) != :nomatch
    changed = echo |> :binary.replace(bytes, other, [:global])
    changed = :binary.replace(changed, head, other_head, [:global])

    program = Path.join(directory, "rb-stranger")
    File.write!(program, changed)
    File.chmod!(program, 0o755)
    {program, ours, other_head <> tail}
  end

  defp start_second(options) do
    # Another supervised program under the same name needs an id of its own.
    directory = Path.join(System.tmp_dir!(), Lab.unique("ringbridge-second"))
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    config = Path.join(directory, "ringbridge.toml")
    File.write!(config, Lab.config())
    argv = ["serve", "--config", config, "--name", "#{options[:name]}@127.0.0.1"]
    env = [{"RINGBRIDGE_COOKIE", Atom.to_string(Lab.cookie())}, {"PYTHONPATH", Lab.root()}]
    program = start_supervised!({Program, {Lab.command() ++ argv, name: "second", env: env}})
    %{program: program}
  end
end
