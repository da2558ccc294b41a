defmodule Mix.Tasks.Ringbridge.Install do
  @shortdoc "Installs the bridge for Ringbridge.Server"
  @moduledoc """
  Installs the bridge, with its shepherd, into an environment of its own, where `Ringbridge.Server` finds it.

      mix ringbridge.install --from vendor/ringbridge
      mix ringbridge.install --from ringbridge-0.1.0-cp311-cp311-linux_x86_64.whl --index pip
      mix ringbridge.install --from https://example.org/ringbridge-0.1.0-cp311-cp311-linux_x86_64.whl --sha256 SUM --index pip
      mix ringbridge.install --index https://pypi.example.org/simple --sha256 SUM

  Nothing is fetched that these do not name. The sha256 of the wheel is checked before any of it runs: against `--sha256`, or the file `SHA256SUMS` beside it.

    * `--from FOLDER` - a folder with the wheel, those of the packages that it needs, and `SHA256SUMS` of all (`make wheelhouse`)
    * `--from FILE` or `--from ADDRESS` - the wheel alone
    * `--index ADDRESS` - the index to fetch packages from, and the wheel too when there is no `--from`; `--index pip`: the one of pip's configuration
    * `--sha256 SUM` - of the wheel; required for what comes over the network
    * `--no-deps` - the packages are there already
    * `--venv FOLDER` - the environment; by default `ringbridge-venv` of this build (`_build/dev/ringbridge-venv`)
    * `--python PROGRAM` - the interpreter, 3.11 or later, which the wheel must fit (default `python3`)

  The environment is that of one `MIX_ENV`: for a release install with `MIX_ENV=prod`, and add `Ringbridge.Release.add_bridge/1` to its steps
  (docs/packaging.md). Exit status: 1 if it cannot be installed, 2 if the arguments are wrong.
  """
  use Mix.Task

  alias Ringbridge.Install
  alias Ringbridge.Server.Programs

  @requirements ["loadpaths"]

  @switches [
    from: :string,
    index: :string,
    sha256: :string,
    deps: :boolean,
    venv: :string,
    python: :string
  ]

  @impl Mix.Task
  def run(argv) do
    options = parse!(argv)
    venv = options[:venv] || Programs.environment(Mix.Project.build_path())

    case Install.plan([venv: venv] ++ options) do
      {:ok, plan} -> install(plan)
      {:error, why} -> wrong(why)
    end
  end

  defp install(plan) do
    case Install.run(plan, fn text -> Mix.shell().info(text) end) do
      {:ok, _venv} -> :ok
      {:error, why} -> Mix.raise("mix ringbridge.install: #{why}")
    end
  end

  defp parse!(argv) do
    case OptionParser.parse(argv, strict: @switches) do
      {options, [], []} ->
        options

      {_options, [word | _], []} ->
        wrong("takes no #{word}; see mix help ringbridge.install")

      {_options, _words, [{switch, _} | _]} ->
        wrong("no #{switch}; see mix help ringbridge.install")
    end
  end

  @spec wrong(String.t()) :: no_return()
  defp wrong(why) do
    Mix.shell().error("mix ringbridge.install: #{why}")
    exit({:shutdown, 2})
  end
end
