defmodule MyApp.Repeat do
  @moduledoc "The job of the doctests."
  use Ringbridge.Job, role: :echo, op: :repeat, opcode: 0

  payload do
    field :text, :binary, size: 1..64
    field :times, :integer, in: 1..9
  end

  result do
    field :text, :binary
    field :times, :integer, in: 1..9
  end
end
