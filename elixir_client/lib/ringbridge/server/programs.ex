defmodule Ringbridge.Server.Programs do
  @moduledoc """
  Where the programs of a bridge are: what starts it, and the shepherd that guards it.

  The shepherd belongs to the same release as the bridge, so it is looked for beside it: in the site-packages of the environment that
  the command is in (a wheel brings it along), then in `build/bin` of a checkout, then in the PATH. Option `:shepherd` goes before that,
  and then `RINGBRIDGE_SHEPHERD`, by which the bridge finds those of its workers: what either names is taken, or is the error.

  Without a command it is the environment that `mix ringbridge.install` made, or that `Ringbridge.Release` put into a release: both lie
  two folders above this application, in `_build/ENV` as in a release. Else it is `ringbridge` of the PATH.
  """

  @shepherd "ringbridge-shepherd"
  @variable "RINGBRIDGE_SHEPHERD"

  @enforce_keys [:command, :shepherd]
  defstruct [:command, :shepherd]

  @type t :: %__MODULE__{command: [String.t(), ...], shepherd: Path.t()}

  @doc "Both as absolute paths. An error says which option helps."
  @spec find(String.t() | [String.t()] | nil, Path.t() | nil) :: {:ok, t()} | {:error, String.t()}
  def find(command, shepherd) do
    with {:ok, command} <- command(command),
         {:ok, shepherd} <- shepherd(shepherd, hd(command)) do
      {:ok, %__MODULE__{command: command, shepherd: shepherd}}
    end
  end

  @doc "Where the environment is that belongs to this build, or this release; it may not be there."
  @spec environment() :: Path.t()
  def environment, do: :ringbridge |> Application.app_dir() |> beside()

  @doc "The environment of a build or a release, whose libraries are in `lib` of that folder."
  @spec environment(Path.t()) :: Path.t()
  def environment(root), do: Path.join(root, "ringbridge-venv")

  defp beside(app_dir), do: app_dir |> Path.join("../..") |> Path.expand() |> environment()

  @doc """
  How the bridge of an environment is started: not by its script, which holds the path that it was written at. `-I`: nothing of the
  folder that this VM runs in, and of its environment, takes the place of a module.
  """
  @spec in_environment(Path.t()) :: [String.t(), ...]
  def in_environment(python), do: [python, "-I", "-m", "bridge"]

  defp command(nil) do
    case {executable(Path.join(environment(), "bin/python")), executable("ringbridge")} do
      {nil, nil} ->
        {:error,
         "no bridge is installed: neither by `mix ringbridge.install` (docs/packaging.md), nor as `ringbridge` in the PATH; " <>
           "or give option :command"}

      {nil, path} ->
        {:ok, [path]}

      {python, _path} ->
        {:ok, in_environment(python)}
    end
  end

  defp command(program) when is_binary(program), do: command([program])

  defp command([program | more]) do
    case executable(program) do
      nil -> {:error, "option :command: there is no program #{inspect(program)}"}
      path -> {:ok, [path | more]}
    end
  end

  defp shepherd(nil, program) do
    case System.get_env(@variable, "") do
      "" -> beside_program(program)
      path -> named(path, "the environment's #{@variable}")
    end
  end

  defp shepherd(path, _program), do: named(path, "option :shepherd")

  defp beside_program(program) do
    beside = Path.dirname(program)

    places =
      Path.wildcard(Path.join(beside, "../lib/python*/site-packages/bridge/bin/#{@shepherd}")) ++
        [Path.expand("../../build/bin/#{@shepherd}", beside), System.find_executable(@shepherd)]

    case Enum.find(places, &(&1 != nil and executable(&1) != nil)) do
      nil ->
        {:error,
         "there is no program `#{@shepherd}` beside #{program}, nor in the PATH: a wheel of ringbridge brings it; or give option " <>
           ":shepherd"}

      path ->
        {:ok, Path.expand(path)}
    end
  end

  defp named(path, by) do
    case executable(path) do
      nil -> {:error, "#{by}: there is no program #{inspect(path)}"}
      path -> {:ok, path}
    end
  end

  # With a slash it is a path, from the VM's own directory; without one it is looked for.
  defp executable(program) do
    if String.contains?(program, "/"),
      do: System.find_executable(Path.expand(program)),
      else: System.find_executable(program)
  end
end
