defmodule Ringbridge.Release do
  @moduledoc """
  A step for `mix release` that puts the bridge into the release.

      releases: [
        my_app: [steps: [:assemble, &Ringbridge.Release.add_bridge/1]]
      ]

  It copies the environment that `MIX_ENV=prod mix ringbridge.install ..` made, so that `Ringbridge.Server` finds it there without an option, and
  asks the copy for its version. The interpreter itself is not copied: the machine that runs the release has the same one at the same path
  (docs/packaging.md).
  """

  alias Ringbridge.Install
  alias Ringbridge.Server.Programs

  @doc "Copies the environment of this build into the release. Raises `Mix.Error` when there is none, or one of another version."
  @spec add_bridge(Mix.Release.t()) :: Mix.Release.t()
  def add_bridge(release), do: add_bridge(release, Programs.environment(Mix.Project.build_path()))

  @doc false
  @spec add_bridge(Mix.Release.t(), Path.t()) :: Mix.Release.t()
  def add_bridge(release, from) do
    unless File.exists?(Path.join(from, "bin/python")) do
      Mix.raise(
        "Ringbridge.Release: no bridge is installed in #{from}; first: MIX_ENV=#{Mix.env()} mix ringbridge.install"
      )
    end

    to = Programs.environment(release.path)
    # What an older bridge left there would be imported too.
    File.rm_rf!(to)
    File.cp_r!(from, to)
    check!(to)
    Mix.shell().info("* copying the bridge to #{Path.relative_to_cwd(to)}")
    release
  end

  defp check!(venv) do
    wanted = Install.version()

    case Install.installed_version(venv) do
      {:ok, ^wanted} ->
        :ok

      {:ok, other} ->
        Mix.raise("Ringbridge.Release: the bridge is #{other}, the library #{wanted}")

      {:error, why} ->
        Mix.raise("Ringbridge.Release: #{why}")
    end
  end
end
