defmodule Ringbridge.Job.Violation do
  @moduledoc """
  A value that breaks its declaration: which field, which value, which rule.

  `path` leads to it from the struct: names of fields, and places in lists and tuples from 0. An empty path is the whole.

      iex> to_string(%Ringbridge.Job.Violation{record: MyApp.Orbits, path: [:bodies, 3, :gm], value: -1.0, rule: "a float of 0 or more"})
      "MyApp.Orbits.bodies[3].gm must be a float of 0 or more, got: -1.0"
  """

  @enforce_keys [:record, :path, :rule]
  defstruct [:record, :path, :value, :rule, redact: false]

  @type step :: atom() | binary() | non_neg_integer()

  @type t :: %__MODULE__{
          record: module(),
          path: [step()],
          value: term(),
          rule: String.t(),
          redact: boolean()
        }

  # A value may be a megabyte, and this is one line of a log.
  @shown [limit: 8, printable_limit: 80]

  @doc "It in one line."
  @spec text(t()) :: String.t()
  def text(%__MODULE__{} = it) do
    "#{inspect(it.record)}#{place(it.path)} must be #{it.rule}, got: #{shown(it)}"
  end

  @doc "A path as one would write it."
  @spec place([step()]) :: String.t()
  def place(path), do: Enum.map_join(path, &step/1)

  defp step(index) when is_integer(index), do: "[#{index}]"
  defp step(name), do: ".#{name}"

  defp shown(%{redact: true}), do: "(redacted)"
  defp shown(%{value: value}), do: inspect(value, @shown)

  defimpl String.Chars do
    defdelegate to_string(violation), to: Ringbridge.Job.Violation, as: :text
  end
end
