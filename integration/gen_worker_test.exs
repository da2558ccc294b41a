defmodule Ringbridge.GenWorkerTest do
  @moduledoc "mix ringbridge.gen.worker: what it makes compiles, is served by a bridge, and answers its own test."
  use ExUnit.Case

  alias Mix.Tasks.Ringbridge.Gen
  alias Ringbridge.{Lab, Program, SchemaGuard}

  @moduletag timeout: 240_000

  # An application of somebody's. The client is found as a release has it, compiled already: so nothing is compiled twice.
  setup do
    folder =
      Path.join(
        System.tmp_dir!(),
        "ringbridge-gen-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    on_exit(fn -> File.rm_rf!(folder) end)
    write(folder, "test/test_helper.exs", "ExUnit.start()\n")

    write(folder, "mix.exs", """
    defmodule Atelier.MixProject do
      use Mix.Project
      def project, do: [app: :atelier, version: "0.1.0", prune_code_paths: false, deps: []]
      def application, do: [extra_applications: [:logger, :crypto, :ringbridge]]
    end
    """)

    # The command of this checkout, whichever interpreter it was set up with.
    [python | arguments] = Lab.command()
    quoted = Enum.map_join([python | arguments], " ", &"'#{&1}'")
    write(folder, "ringbridge", "#!/bin/sh\nPYTHONPATH='#{Lab.root()}' exec #{quoted} \"$@\"\n")
    File.chmod!(Path.join(folder, "ringbridge"), 0o755)
    {:ok, folder: folder}
  end

  defp write(folder, path, text) do
    path = Path.join(folder, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
  end

  defp mix(folder, argv, env \\ []) do
    {:ok, [[port]]} = :init.get_argument(:epmd_port)

    env = [
      {"MIX_ENV", "test"},
      {"ERL_LIBS", Path.join(Lab.root(), "build/mix/test/lib")},
      {"ERL_EPMD_PORT", "#{port}"},
      {"HOME", Lab.home()}
      | env
    ]

    System.cmd("mix", argv, cd: folder, env: env, stderr_to_stdout: true)
  end

  # In this VM, which has compiled the client: as `mix` would, but quicker. What it said comes as messages.
  defp gen(folder, argv) do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)

    try do
      Mix.Project.in_project(:atelier, folder, fn _module -> Gen.Worker.run(argv) end)
    after
      Mix.shell(shell)
    end
  end

  defp gen(folder, role, language, more \\ []),
    do: gen(folder, [role, "--lang", language, "--ringbridge", "./ringbridge" | more])

  defp read(folder, path), do: folder |> Path.join(path) |> File.read!()

  test "workers in C, Python and Elixir: made, built, served, called by the test that was made",
       %{folder: folder} do
    argv = ["ringbridge.gen.worker", "my_app", "--lang", "elixir"]
    assert {said, 0} = mix(folder, argv)
    assert said =~ "creating lib/atelier/workers/my_app.ex"

    for {role, language} <- [caps: "c", shout: "python"] do
      gen(folder, "#{role}", language)
      assert File.exists?(Path.join(folder, "lib/atelier/jobs/#{role}.ex"))
    end

    assert {_, 0} =
             System.cmd("make", ["-C", Path.join(folder, "workers/caps")], stderr_to_stdout: true)

    bridge = Lab.start_bridge(name: Lab.unique("gen"), config: read(folder, "ringbridge.toml"))

    # A bridge is not in the Elixir worker's way: it lets it in when it comes.
    assert {_, 0} = mix(folder, ["compile", "--warnings-as-errors"])
    assert {said, 0} = mix(folder, ["test", "--color"], [{"RINGBRIDGE_BRIDGE", "#{bridge.node}"}])
    # Three of each job that a kit serves, two of the worker in Elixir.
    assert said =~ "8 tests, 0 failures" or said =~ "8 passed"
    refute said =~ "skipped"
    # Without a bridge two of them say so.
    assert {said, 0} = mix(folder, ["test"])
    assert said =~ "2 skipped"
    assert Program.ended?(bridge.program) == false
    # The formatter has nothing to do.
    assert {_, 0} =
             mix(folder, [
               "format",
               "--check-formatted",
               "lib/**/*.ex",
               "test/**/*.exs",
               "--dot-formatter",
               Path.join(Lab.root(), ".formatter.exs")
             ])
  end

  test "the operation in the role is what the job declares", %{folder: folder} do
    gen(folder, "caps", "elixir")

    [{module, _} | _] =
      folder |> read("lib/atelier/jobs/caps.ex") |> Code.compile_string() |> Enum.sort()

    assert module == Atelier.Jobs.Caps
    assert read(folder, "ringbridge.toml") =~ SchemaGuard.toml([module])
  end

  test "the other languages have their kit's worker and the same job", %{folder: folder} do
    gen(folder, "fast", "rust", ["--config", "other.toml"])
    gen(folder, "small", "zig", ["--config", "other.toml"])
    assert read(folder, "workers/fast/Cargo.toml") =~ "fast"
    assert read(folder, "workers/small/main.zig") =~ "small"
    settings = read(folder, "other.toml")
    for role <- ["fast", "small"], do: assert(settings =~ "[roles.#{role}]\ncommand = [")
    assert length(String.split(settings, "[node]")) == 2
  end

  test "what cannot be is said, and nothing is written", %{folder: folder} do
    write(folder, "ringbridge.toml", "[roles.caps]\ncommand = [\"x\"]\n")
    write(folder, "lib/atelier/jobs/there.ex", "")

    for {argv, why, status} <- [
          {["Caps", "--lang", "c"], "is no name for a worker", 2},
          {["../up", "--lang", "c"], "is no name for a worker", 2},
          {["paint", "--lang", "perl"], "--lang is one of c, rust, zig, python, elixir", 2},
          {["paint"], "--lang is one of", 2},
          {["--lang", "c"], "one name of a role is needed", 2},
          {["paint", "--lang", "c", "--colour"], "no such option: --colour", 2},
          {["caps", "--lang", "elixir"], "has [roles.caps] already", 1},
          {["there", "--lang", "elixir"], "lib/atelier/jobs/there.ex is there already", 1},
          {["paint", "--lang", "c", "--ringbridge", "./nothing"], "./nothing is no program", 2}
        ] do
      error = assert_raise Mix.Error, fn -> gen(folder, argv) end
      assert Exception.message(error) =~ why
      # The exit status.
      assert error.mix == status
    end

    write(folder, "workers/taken/x", "")
    error = assert_raise Mix.Error, fn -> gen(folder, "taken", "c") end
    assert Exception.message(error) =~ "workers/taken is there already"

    assert Path.wildcard(Path.join(folder, "lib/**/*.ex")) == [
             Path.join(folder, "lib/atelier/jobs/there.ex")
           ]

    assert read(folder, "ringbridge.toml") == "[roles.caps]\ncommand = [\"x\"]\n"
  end
end
