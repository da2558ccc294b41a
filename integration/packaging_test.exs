defmodule Ringbridge.PackagingTest do
  @moduledoc """
  From a wheel to a bridge in a release: built, checked, installed into an environment of its own, copied into a release, and started there
  by `Ringbridge.Server`, with nothing of this checkout and no compiler within reach (docs/packaging.md).

  The packages that the bridge needs are those of our own environment: the tests fetch nothing. `make package` does the whole with what it
  fetches, and a release that is built and run.
  """
  use ExUnit.Case

  import ExUnit.CaptureLog

  alias Ringbridge.{Install, Lab, Proc, Release, Server}

  @moduletag timeout: 300_000
  @patience_ms 60_000

  @worker """
  from ringbridge_worker import serve
  serve(lambda job: bytes(job.payload).upper())
  """

  setup do
    directory = Path.join(System.tmp_dir!(), Lab.unique("ringbridge-#{System.pid()}-packaging"))
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory}
  end

  defp wheel do
    {said, status} = System.cmd("make", ["wheel"], cd: Lab.root(), stderr_to_stdout: true)
    assert status == 0, said
    [wheel] = Path.wildcard(Path.join(Lab.root(), "build/wheel/*.whl"))
    wheel
  end

  # An environment whose packages are ours, but for ringbridge itself: a plain line of a .pth is a folder, and the .pth files
  # of that folder, which lead to the checkout, are not read (site's documentation).
  defp with_packages(venv) do
    {_said, 0} = System.cmd(Lab.python(), ["-m", "venv", venv])
    [ours] = Path.wildcard(Path.join(Lab.root(), ".venv/lib/python3*/site-packages"))
    [theirs] = Path.wildcard(Path.join(venv, "lib/python3*/site-packages"))
    File.write!(Path.join(theirs, "packages.pth"), ours <> "\n")
  end

  defp exe(os_pid), do: File.read_link!("/proc/#{os_pid}/exe")

  test "a wheel, an environment, a release, a bridge, an answer", %{directory: directory} do
    venv = Path.join(directory, "venv")
    with_packages(venv)
    {:ok, plan} = Install.plan(from: wheel(), deps: false, venv: venv, python: Lab.python())
    us = self()
    assert {:ok, ^venv} = Install.run(plan, &send(us, {:said, &1}))
    assert_received {:said, "ringbridge-" <> _}
    assert Install.installed_version(venv) == {:ok, Install.version()}

    # The copy has to stand by itself.
    root = Path.join(directory, "rel")
    File.mkdir_p!(root)
    %{path: ^root} = Release.add_bridge(%{path: root}, venv)
    File.rm_rf!(venv)
    copy = Server.Programs.environment(root)
    python = Path.join(copy, "bin/python")
    File.write!(Path.join(directory, "worker.py"), @worker)
    config = Path.join(directory, "ringbridge.toml")

    File.write!(
      config,
      "[roles.upper]\ncommand = [\"python\", \"-I\", \"worker.py\"]\n"
    )

    server = [
      name: :"#{__MODULE__}.Bridge",
      config: config,
      command: Server.Programs.in_environment(python),
      # No compiler, and nothing else but the copy.
      env: %{"PATH" => Path.dirname(python), "PYTHONPATH" => nil}
    ]

    capture_log(fn ->
      start_supervised!({Server, server})
      assert Server.await(server[:name], @patience_ms) == :ok
      start_supervised!({Ringbridge, name: :"#{__MODULE__}.Client", server: server[:name]})
      options = [timeout: @patience_ms]
      assert {:ok, "HELLO"} = Ringbridge.call(:"#{__MODULE__}.Client", :upper, "hello", options)
      {:ok, %{shepherd_os_pid: shepherd}} = Server.status(server[:name])
      # Both kinds of shepherds are those of the wheel.
      shepherds =
        for pid <- [shepherd | Proc.descendants(shepherd)], exe(pid) =~ "shepherd", do: exe(pid)

      assert length(shepherds) == 3
      assert Enum.all?(shepherds, &String.starts_with?(&1, copy))
    end)
  end
end
