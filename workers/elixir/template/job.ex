defmodule MyApp.Jobs.MyRole do
  @moduledoc """
  A job of the role `my_role`: a text, which comes back in capitals.

      {:ok, %MyApp.Jobs.MyRole.Result{text: "HELLO"}} =
        Ringbridge.call(MyApp.Compute, %MyApp.Jobs.MyRole{text: "hello"})
  """
  use Ringbridge.Job, role: :my_role, op: :capitals, opcode: 0

  # A :value that is a binary crosses as raw bytes. Fields of numbers for a worker in C: `payload :packed do`; a map for one
  # in Python or Elixir: `payload :map do` (docs/jobs.md of Ringbridge).
  payload :value do
    field :text, :binary, size: 1..65_536
  end

  result :value do
    field :text, :binary
  end
end
