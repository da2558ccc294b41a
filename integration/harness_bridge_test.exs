defmodule Ringbridge.HarnessBridgeTest do
  @moduledoc "mix ringbridge.harness over real bridges: everything holds there, and the task says so in JSON and by its status."
  use ExUnit.Case

  import ExUnit.CaptureIO
  alias Ringbridge.Lab

  @moduletag timeout: 240_000, capture_log: true

  # The tests' interpreter, as a program with a name.
  setup do
    directory = Path.join(System.tmp_dir!(), "ringbridge-harness-test-#{System.pid()}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    command = Path.join(directory, "ringbridge")
    argv = Enum.map_join(Lab.command(), " ", &"'#{&1}'")
    File.write!(command, "#!/bin/sh\nexport PYTHONPATH='#{Lab.root()}'\nexec #{argv} \"$@\"\n")
    File.chmod!(command, 0o755)
    level = Logger.level()
    on_exit(fn -> Logger.configure(level: level) end)
    {:ok, command: command}
  end

  test "two bridges with workers of this VM, and rb-echo, hold", %{command: command} do
    arguments = ["--command", command, "--seconds", "1.0", "--seed", "5", "--json"]

    said =
      capture_io(:stderr, fn ->
        {failed, json} =
          with_io(fn -> failure(fn -> Mix.Tasks.Ringbridge.Harness.run(arguments) end) end)

        assert failed == nil, json
        assert json =~ ~s("passed?":true)
        assert json =~ ~s("target":"bridge")
        assert json =~ ~s("native?":true)
      end)

    assert said =~ "was killed"
    assert Enum.count(String.split(said, "\n"), &(&1 =~ "skipped")) == 1
  end

  # What the task has said by then would be lost with it.
  defp failure(fun) do
    fun.()
    nil
  rescue
    error in Mix.Error -> error
  end
end
