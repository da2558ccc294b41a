defmodule Ringbridge.Backoff do
  @moduledoc """
  How long to wait before the next attempt: doubling from a least to a most, with up to a half taken off at random.

  Pure: chance is an argument. The same rule as the bridge's own dialling (docs/node.md, "Stay connected").
  """

  @enforce_keys [:min_ms, :max_ms]
  defstruct [:min_ms, :max_ms, failures: 0]

  @type t :: %__MODULE__{
          min_ms: pos_integer(),
          max_ms: pos_integer(),
          failures: non_neg_integer()
        }

  @doc """
  After one more failure: the pause in milliseconds. `chance` is in 0.0..1.0.

      iex> backoff = %Ringbridge.Backoff{min_ms: 100, max_ms: 300}
      iex> {100, backoff} = Ringbridge.Backoff.next(backoff, 0.0)
      iex> {200, backoff} = Ringbridge.Backoff.next(backoff, 0.0)
      iex> {300, backoff} = Ringbridge.Backoff.next(backoff, 0.0)
      iex> {150, _backoff} = Ringbridge.Backoff.next(backoff, 1.0)
      iex> backoff.failures
      3
  """
  @spec next(t(), float()) :: {non_neg_integer(), t()}
  def next(%__MODULE__{} = backoff, chance) do
    # 2 ** 20 times the least is more than any most; the shift must not grow for ever.
    whole = min(backoff.min_ms * Bitwise.bsl(1, min(backoff.failures, 20)), backoff.max_ms)
    {round(whole - whole / 2 * chance), %{backoff | failures: backoff.failures + 1}}
  end

  @doc "After a success: the next failure is the first one again."
  @spec reset(t()) :: t()
  def reset(%__MODULE__{} = backoff), do: %{backoff | failures: 0}
end
