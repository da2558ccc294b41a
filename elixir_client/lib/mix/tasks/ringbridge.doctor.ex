defmodule Mix.Tasks.Ringbridge.Doctor do
  @shortdoc "Looks at everything between this VM and an answer of a bridge"
  @moduledoc """
  Looks at everything between this VM and an answer of a bridge: versions, name, cookie, epmd, port, handshake, versions and layout of both
  sides, clocks, roles, and a job. What is not as it should be is followed by what it means and by the way out.

      mix ringbridge.doctor
      mix ringbridge.doctor --node bridge@db.example.org --cookie-file /run/bridge.cookie

    * `--node NAME`, `--cookie-file FILE`, `--cookie COOKIE` - as of `mix ipc.inspect`
    * `--json` - the findings as JSON

  `ok` is well, `hm` is what calls can do without, `bad` what they cannot. Exit status: 1 if something is bad, 2 if the arguments are wrong.

  This is the caller's side. What the bridge needs on its own machine is looked at by `ringbridge doctor` there.
  """
  use Mix.Task

  alias Ringbridge.Doctor
  alias Ringbridge.Inspect.{Json, Table}

  @requirements ["loadpaths"]
  @styles %{ok: :green, hm: :yellow, bad: :red}

  @impl Mix.Task
  def run(argv) do
    {options, rest} = Mix.Ringbridge.parse!(argv, json: :boolean)
    Mix.Ringbridge.none!(rest)
    {node, source} = Mix.Ringbridge.target!(options)
    Mix.Ringbridge.quiet()
    findings = Doctor.examine(node, source, where(options))

    if options[:json],
      do: IO.puts(Json.encode(findings)),
      else: Mix.Ringbridge.print(lines(findings))

    if Enum.any?(findings, &(&1.verdict == :bad)), do: exit({:shutdown, 1})
  end

  defp where(options) do
    cond do
      options[:cookie_file] -> "of #{options[:cookie_file]}"
      options[:cookie] -> "of --cookie, which every user of this machine can read"
      Node.alive?() -> "this VM's own"
      variable = System.get_env("RINGBRIDGE_COOKIE") -> variable(variable)
      true -> "of ~/.erlang.cookie"
    end
  end

  defp variable("/" <> _ = path), do: "of #{path}, by RINGBRIDGE_COOKIE"
  defp variable(_cookie), do: "of RINGBRIDGE_COOKIE"

  defp lines(findings) do
    width = findings |> Enum.map(&String.length(&1.name)) |> Enum.max()
    Enum.flat_map(findings, &lines(&1, width)) ++ [[], related()]
  end

  defp lines(finding, width) do
    verdict = String.pad_trailing("#{finding.verdict}", 4)
    name = String.pad_trailing(finding.name, width + 2)
    room = String.duplicate(" ", width + 6)
    more = for text <- [finding.means, finding.mend], text != "", do: [room, Table.clean(text)]
    [[{@styles[finding.verdict], verdict}, name, Table.clean(finding.found)] | more]
  end

  defp related, do: ["What the bridge needs on its own machine: `ringbridge doctor`, there."]
end
