defmodule Mix.Tasks.Ringbridge.Harness do
  @shortdoc "Stresses a loopback, or a real bridge, and holds each answer to its word"

  @moduledoc """
  Stresses buffers, fallbacks and payloads, and says what did not hold.

      mix ringbridge.harness
      mix ringbridge.harness --bridge --seconds 60 --seed 42

  Without `--bridge` bridge and workers are in this VM: nothing native is needed. `Ringbridge.Harness` says what is tried.

    * `--bridge` - two real bridges, by the program `ringbridge` of the PATH or of `.venv/bin`
    * `--command PATH` - the same, by this program
    * `--seconds N` - how long the load is, 10 by default; the rest takes a few seconds more
    * `--seed N` - makes the choices of an earlier run again
    * `--json` - the report as one line of JSON on stdout, and progress on stderr

  Exit status: 0 when everything held, 1 when something did not or the bridge cannot be started, 2 if the arguments are wrong. It runs to
  its end also when nobody reads any more, as with `| head`: the status tells.
  """
  use Mix.Task

  alias Ringbridge.Case.Bridge
  alias Ringbridge.Harness

  @switches [bridge: :boolean, command: :string, seconds: :float, seed: :integer, json: :boolean]

  @impl Mix.Task
  @spec run([String.t()]) :: :ok
  def run(arguments) do
    {options, rest, wrong} = OptionParser.parse(arguments, strict: @switches)

    if wrong != [],
      do: Mix.Ringbridge.usage!("#{wrong |> hd() |> elem(0)}: no such option, or no value")

    if rest != [], do: Mix.Ringbridge.usage!("what is #{hd(rest)}?")
    Mix.Task.run("app.start")
    shell = Mix.shell()
    line = if options[:json], do: &IO.puts(:stderr, &1), else: &shell.info/1
    say = fn text -> Mix.Ringbridge.while_read(fn -> line.(text) end) end

    report =
      options
      |> Keyword.take([:seconds, :seed])
      |> Keyword.merge(say: say, bridge: bridge(options))
      |> silently()

    Mix.Ringbridge.while_read(fn ->
      if options[:json], do: IO.puts(Ringbridge.Inspect.Json.encode(report)), else: tell(report)
    end)

    unless report.passed?,
      do: Mix.Ringbridge.fail!("#{report.wrong} did not hold, seed #{report.seed}")

    :ok
  end

  defp bridge(options) do
    cond do
      options[:command] ->
        options[:command]

      options[:bridge] ->
        Bridge.command() || Mix.Ringbridge.fail!("no ringbridge in PATH or .venv/bin")

      true ->
        nil
    end
  end

  # The harness kills workers on purpose: their lines would be all that is seen. What comes after it in this VM logs as before.
  defp silently(options) do
    level = Logger.level()
    Logger.configure(level: :critical)

    try do
      harness(options)
    after
      Logger.configure(level: level)
    end
  end

  defp harness(options) do
    Harness.run(options)
  rescue
    error in RuntimeError -> Mix.Ringbridge.fail!(Exception.message(error))
  end

  defp tell(report) do
    Mix.shell().info("")

    counts = Enum.frequencies_by(report.checks, & &1.status)

    answered =
      Enum.map_join(report.answered, ", ", fn {reason, count} -> "#{reason} #{count}" end)

    Mix.shell().info("""
    #{report.target}#{if report.native?, do: " with rb-echo"}, seed #{report.seed}: #{report.accepted} jobs accepted
    answered: #{answered}
    #{Map.get(counts, :passed, 0)} held, #{report.wrong} did not, #{Map.get(counts, :skipped, 0)} not tried here\
    """)
  end
end
