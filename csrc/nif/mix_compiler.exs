defmodule Mix.Tasks.Compile.RingbridgeNif do
  @moduledoc """
  Compiles the NIF of the lane over shared memory (csrc/nif, and the core that it stands on) into the application's priv.

  Needs a C compiler (`cc`, or `CC`) and `erl_nif.h` of the Erlang that runs this. Without them, or when it does not
  compile, there is a warning and the client uses the distribution alone: `RINGBRIDGE_NIF=require` makes that an error,
  `RINGBRIDGE_NIF=off` compiles nothing. Does nothing when neither source nor command has changed.
  """
  use Mix.Task.Compiler

  @root Path.expand("../..", __DIR__)
  @manifest "compile.ringbridge_nif"

  # As the core's own Makefile has them; nothing of it is to be seen from outside but what erl_nif needs.
  @flags ~w(-std=gnu99 -Wall -Wextra -O2 -g -fPIC -shared -fvisibility=hidden -pthread -Wl,-z,now -Wl,-z,relro)

  # What the lane's client and the worker's end of a link are made of; the relay's ends are no business of a BEAM.
  @core ~w(crc32c crc32c_fold envelope gate lane_attach lane_dial lane_drain lane_parts lane_send lane_telemetry
           link_memory link_parts link_worker ops proxy region telemetry version)

  @impl Mix.Task.Compiler
  def run(_arguments), do: compile(System.get_env("RINGBRIDGE_NIF", ""))

  @impl Mix.Task.Compiler
  def manifests, do: [manifest()]

  @impl Mix.Task.Compiler
  def clean do
    File.rm(library())
    File.rm(manifest())
    :ok
  end

  defp compile("off") do
    clean()
    {:noop, []}
  end

  defp compile(wish) do
    with {:ok, compiler} <- compiler(), {:ok, include} <- include() do
      command = [compiler | flags() ++ ["-isystem", include] ++ includes() ++ sources()]
      stamp = :erlang.md5(:erlang.term_to_binary([command | Enum.map(inputs(), &File.read!/1)]))

      if File.read(manifest()) == {:ok, stamp} and File.regular?(library()),
        do: {:noop, []},
        else: build(command, stamp, wish)
    else
      {:error, why} -> failed(why, wish)
    end
  end

  # Not into the file that may be mapped by a VM just now: a new one takes its name.
  defp build(command, stamp, wish) do
    File.mkdir_p!(Path.dirname(library()))
    fresh = "#{library()}.#{System.pid()}"
    [compiler | arguments] = command ++ ["-o", fresh]

    case System.cmd(compiler, arguments, stderr_to_stdout: true, cd: @root) do
      {_warnings, 0} ->
        File.rename!(fresh, library())
        File.mkdir_p!(Path.dirname(manifest()))
        File.write!(manifest(), stamp)
        Mix.shell().info("Compiled the NIF of the lane over shared memory")
        {:ok, []}

      {said, _status} ->
        File.rm(fresh)
        failed("it does not compile:\n#{said}", wish)
    end
  end

  defp failed(why, "require"),
    do: Mix.raise("the NIF of the lane over shared memory: #{why} (RINGBRIDGE_NIF=require)")

  # An older one would speak another layout.
  defp failed(why, _wish) do
    clean()

    Mix.shell().error(
      "warning: no NIF for the lane over shared memory: #{why}\n  Calls go over the distribution " <>
        "(RINGBRIDGE_NIF=require makes this an error, RINGBRIDGE_NIF=off is silent)"
    )

    {:noop, []}
  end

  defp compiler do
    [name | _] = OptionParser.split(System.get_env("CC") || "cc")

    cond do
      :os.type() != {:unix, :linux} -> {:error, "it needs Linux"}
      found = System.find_executable(name) -> {:ok, found}
      true -> {:error, "no C compiler (#{name}); on Debian: apt-get install gcc libc6-dev"}
    end
  end

  # What CC says behind the compiler's name, and CFLAGS last, as make has them.
  defp flags do
    [_name | of_cc] = OptionParser.split(System.get_env("CC") || "cc")
    of_cc ++ @flags ++ OptionParser.split(System.get_env("CFLAGS") || "")
  end

  defp include do
    root = List.to_string(:code.root_dir())
    places = [Path.join(root, "usr/include") | Path.wildcard(Path.join(root, "erts-*/include"))]

    case Enum.find(places, &File.regular?(Path.join(&1, "erl_nif.h"))) do
      nil -> {:error, "no erl_nif.h in #{hd(places)}; on Debian: apt-get install erlang-dev"}
      place -> {:ok, place}
    end
  end

  defp includes, do: ["-I", "csrc/include", "-I", "csrc"]

  defp sources, do: wildcard("csrc/nif/*.c") ++ Enum.map(@core, &"csrc/core/#{&1}.c")

  defp inputs do
    headers = wildcard("csrc/nif/*.h") ++ wildcard("csrc/core/*.h")
    all = sources() ++ headers ++ wildcard("csrc/include/**/*.h")
    Enum.map(all, &Path.join(@root, &1))
  end

  defp wildcard(pattern) do
    @root |> Path.join(pattern) |> Path.wildcard() |> Enum.map(&Path.relative_to(&1, @root))
  end

  defp library, do: Path.join([Mix.Project.app_path(), "priv", "ringbridge_nif.so"])
  defp manifest, do: Path.join(Mix.Project.manifest_path(), @manifest)
end
