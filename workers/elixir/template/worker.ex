defmodule MyApp.Worker do
  @moduledoc """
  A worker of the role `my_role`, in Elixir. In a supervisor of yours:

      {Ringbridge.BeamWorkerLoop,
       bridge: :"bridge@127.0.0.1", role: "my_role", module: MyApp.Worker, slots: 4}

  and in the bridge's ringbridge.toml:

      [roles.my_role]
      workers = 0
      [roles.my_role.remote]
      nodes = ["my_app@127.0.0.1"]
  """
  @behaviour Ringbridge.BeamWorkerLoop

  alias Ringbridge.BeamWorkerLoop.Job

  # Once, before the first job. What it gives is given to every job, which runs in a process of its own.
  @impl true
  def init(argument), do: {:ok, argument}

  @impl true
  def handle_job(%Job{opcode: 0, payload: payload}, _state) when is_binary(payload),
    do: {:ok, String.upcase(payload)}

  def handle_job(%Job{opcode: opcode}, _state),
    do: {:error, 3, "opcode #{opcode} is not served here"}
end
