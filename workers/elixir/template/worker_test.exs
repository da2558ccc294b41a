defmodule MyApp.WorkerTest do
  use ExUnit.Case, async: true

  alias MyApp.Jobs.MyRole

  # The worker behind a bridge of this VM: the code that runs in production.
  setup do
    roles = %{my_role: MyApp.Worker}
    start_supervised!({Ringbridge.Loopback, name: __MODULE__, roles: roles})
    :ok
  end

  test "the worker answers its job" do
    assert Ringbridge.call(__MODULE__, %MyRole{text: "hello"}) ==
             {:ok, %MyRole.Result{text: "HELLO"}}
  end

  test "an operation that it does not have is a failed job" do
    assert {:error, %Ringbridge.Error{reason: {:job_failed, 3, _}}} =
             Ringbridge.call(__MODULE__, :my_role, "hello", opcode: 9)
  end
end
