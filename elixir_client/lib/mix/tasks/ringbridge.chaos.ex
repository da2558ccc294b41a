defmodule Mix.Tasks.Ringbridge.Chaos do
  @shortdoc "Makes the trouble of a plan in a running bridge, and judges what callers saw"
  @moduledoc """
  Makes the trouble of a plan in a running bridge of this machine, while callers call it, and judges what they saw: by the program `ringbridge`, whose
  `chaos run` this is (docs/chaos.md has the plans).

      mix ringbridge.chaos integration/chaos/plans/crash.toml
      mix ringbridge.chaos plan.toml --node bridge@127.0.0.1 --json

    * `--node NAME` - the bridge; default what `ringbridge` itself takes, by its ringbridge.toml
    * `--cookie-file FILE`, `--cookie COOKIE` - its cookie; handed on in the environment, never as an argument
    * `--config FILE` - the bridge's ringbridge.toml
    * `--command PATH` - the program; else what `mix ringbridge.install` has put there, else `ringbridge` of the PATH, else `.venv/bin/ringbridge`
    * `--json` - the report for programs

  It runs as the bridge's user, on the bridge's machine, and is one of its admin nodes (`admin_nodes = ["ringbridge_*@127.0.0.1"]`). Exit status: the
  program's: 0, the plan's hypothesis held; 1, it did not, or could not be tried. 2 if the arguments are wrong.
  """
  use Mix.Task

  alias Ringbridge.Case.Bridge
  alias Ringbridge.Server.Programs

  @requirements ["loadpaths"]
  @switches [config: :string, command: :string, json: :boolean]

  @impl Mix.Task
  def run(argv) do
    case Mix.Ringbridge.parse!(argv, @switches) do
      {options, [plan]} -> run(plan, options)
      {_options, []} -> Mix.Ringbridge.usage!("which plan? mix ringbridge.chaos PLAN.toml")
      {_options, [_plan | rest]} -> Mix.Ringbridge.none!(rest)
    end
  end

  defp run(plan, options) do
    {node, _source} = Mix.Ringbridge.target!(options)

    File.regular?(plan) ||
      Mix.Ringbridge.fail!("there is no plan #{plan}; docs/chaos.md says what one is")

    arguments =
      ["chaos", "run", Path.expand(plan)] ++
        if(options[:node], do: ["--name", "#{node}"], else: []) ++
        path("--config", options[:config]) ++
        path("--cookie-file", options[:cookie_file]) ++
        if(options[:json], do: ["--json"], else: [])

    env = if options[:cookie], do: [{"RINGBRIDGE_COOKIE", options[:cookie]}], else: []

    [program | first] = command!(options)
    output = IO.binstream(:stdio, :line)
    {_output, status} = System.cmd(program, first ++ arguments, env: env, into: output)
    if status != 0, do: exit({:shutdown, status})
  end

  defp path(_option, nil), do: []
  defp path(option, path), do: [option, Path.expand(path)]

  # As `Ringbridge.Server` finds it; and in a checkout, where it is in .venv/bin.
  defp command!(options) do
    case {options[:command], Programs.find(nil, nil), Bridge.command()} do
      {nil, {:ok, programs}, _in_checkout} ->
        programs.command

      {nil, {:error, why}, nil} ->
        Mix.Ringbridge.fail!(why |> String.replace("option :command", "--command"))

      {nil, {:error, _why}, command} ->
        [command]

      {command, _found, _in_checkout} ->
        [executable!(command)]
    end
  end

  defp executable!(command) do
    System.find_executable(Path.expand(command)) || System.find_executable(command) ||
      Mix.Ringbridge.fail!("#{command} is no program that can be run")
  end
end
