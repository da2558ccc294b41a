defmodule MyApp.Jobs.MyRoleTest do
  use ExUnit.Case, async: true

  alias MyApp.Jobs.MyRole

  # A worker's part played by a function of its payload: jobs go the way that they go in production, but for the process.
  test "a job brings the declared result" do
    start_supervised!(
      {Ringbridge.Loopback, name: __MODULE__, roles: %{my_role: &{:ok, String.upcase(&1)}}}
    )

    assert Ringbridge.call(__MODULE__, %MyRole{text: "hello"}) ==
             {:ok, %MyRole.Result{text: "HELLO"}}
  end

  test "what breaks the declaration is told, and not sent" do
    assert {:error, [violation]} = Ringbridge.Job.write(%MyRole{text: ""})
    assert violation.path == [:text]
  end

  # RINGBRIDGE_BRIDGE=bridge@127.0.0.1 mix test: with `ringbridge serve` and the worker of ringbridge.toml.
  @bridge System.get_env("RINGBRIDGE_BRIDGE")
  @tag skip: @bridge == nil && "RINGBRIDGE_BRIDGE names no bridge"
  test "the bridge's role takes the job, and its worker answers" do
    start_supervised!({Ringbridge, name: __MODULE__, nodes: [String.to_atom("#{@bridge}")]})
    assert Ringbridge.SchemaGuard.check!(__MODULE__, [MyRole]) == :ok

    assert Ringbridge.call(__MODULE__, %MyRole{text: "hello"}) ==
             {:ok, %MyRole.Result{text: "HELLO"}}
  end
end
