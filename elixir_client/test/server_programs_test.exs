defmodule Ringbridge.Server.ProgramsTest do
  @moduledoc "Where a server's shepherd is looked for, and which place goes before which."
  use ExUnit.Case

  alias Ringbridge.Server.Programs

  @variable "RINGBRIDGE_SHEPHERD"

  setup do
    directory = Path.join(System.tmp_dir!(), "ringbridge-#{System.pid()}-programs")
    on_exit(fn -> File.rm_rf!(directory) end)
    before = Map.take(System.get_env(), [@variable, "PATH"])
    System.delete_env(@variable)
    on_exit(fn -> System.put_env(Map.merge(%{@variable => nil}, before)) end)

    places =
      ~w(option variable venv/bin venv/lib/python3.11/site-packages/bridge/bin build/bin path)

    made = for place <- places, do: {place, program(Path.join(directory, place))}
    command = Path.join(directory, "venv/bin/ringbridge")
    File.write!(command, "")
    File.chmod!(command, 0o700)
    {:ok, directory: directory, made: Map.new(made), command: command}
  end

  defp program(folder) do
    File.mkdir_p!(folder)
    path = Path.join(folder, "ringbridge-shepherd")
    File.write!(path, "")
    File.chmod!(path, 0o700)
    path
  end

  defp found(context, shepherd \\ nil) do
    with {:ok, programs} <- Programs.find(context.command, shepherd), do: programs.shepherd
  end

  test "each place goes before the next", %{made: made} = context do
    System.put_env("PATH", Path.dirname(made["path"]) <> ":" <> System.get_env("PATH"))
    System.put_env(@variable, made["variable"])
    assert found(context, made["option"]) == made["option"]
    assert found(context) == made["variable"]
    # Set to nothing is not set, as for the bridge itself.
    System.put_env(@variable, "")
    installed = made["venv/lib/python3.11/site-packages/bridge/bin"]
    assert found(context) == installed
    File.rm!(installed)
    assert found(context) == made["build/bin"]
    File.rm!(made["build/bin"])
    assert found(context) == made["path"]
    File.rm!(made["path"])
    assert {:error, why} = found(context)
    assert why =~ "there is no program `ringbridge-shepherd` beside #{context.command}"
  end

  test "what is named has to be there: no other takes its place", %{made: made} = context do
    System.put_env(@variable, "/nowhere/shepherd")
    assert {:error, why} = found(context)
    assert why =~ "RINGBRIDGE_SHEPHERD: there is no program \"/nowhere/shepherd\""
    assert found(context, made["option"]) == made["option"]
    assert {:error, "option :shepherd: there is no program" <> _} = found(context, "/nowhere")
  end
end
