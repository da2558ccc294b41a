defmodule Ringbridge.TlsTest do
  @moduledoc """
  Tests of the other files once more, with TLS between the nodes: what holds for a plain connection holds for
  one under TLS, also while the interpreter is held.

  A VM is told its carrier when it starts, so they run in another VM, with a certificate of its own.
  """
  use ExUnit.Case

  @moduletag timeout: 240_000
  @root Path.expand("..", __DIR__)
  @again ["integration/stall_test.exs", "integration/main_job_test.exs"]

  setup_all do
    folder = Path.join(System.tmp_dir!(), "ringbridge-tls-#{System.pid()}")
    on_exit(fn -> File.rm_rf!(folder) end)
    {_, 0} = System.cmd(Path.join(@root, "scripts/make-test-certificates"), [folder])
    {:ok, folder: folder}
  end

  for version <- ["1.2", "1.3"] do
    test "they pass over TLS #{version}", %{folder: folder} do
      {said, status} =
        System.cmd("mix", ["test" | @again],
          cd: @root,
          env: [
            {"ERL_EPMD_PORT", nil},
            {"ERL_FLAGS", erl_flags(folder, unquote(version))},
            {"RINGBRIDGE_TEST_TLS", folder}
          ],
          stderr_to_stdout: true
        )

      assert status == 0, said
      assert said =~ ~r/ 0 failures|Result: \d+ passed/, said
    end
  end

  defp erl_flags(folder, version) do
    optfile = Path.join(folder, "app-#{version}.config")
    options = File.read!(Path.join(folder, "app.config"))
    one = "{versions,['tlsv#{version}']},{certfile"
    File.write!(optfile, String.replace(options, "{certfile", one))
    "-proto_dist inet_tls -ssl_dist_optfile #{optfile}"
  end
end
