defmodule Ringbridge.Deadline do
  @moduledoc """
  Points of this VM's monotonic clock, in milliseconds, and what is left until them.

  `:infinity` is later than all others: in Erlang's order of terms an atom is more than any number, so `min/2` does.
  """

  # The most that a receive can wait, and a timer (Erlang Reference Manual, "Receive"): a little under 50 days. More
  # raises there, when the job has been sent already.
  @most_ms 4_294_967_295

  @type t :: integer() | :infinity

  @doc "The longest wait in milliseconds that an option may ask for."
  @spec most_ms() :: pos_integer()
  def most_ms, do: @most_ms

  @doc "Whether that many milliseconds can be waited for."
  defguard is_wait(ms) when is_integer(ms) and ms >= 0 and ms <= 4_294_967_295

  @doc "The time that comes in so many milliseconds; `:infinity` never does."
  @spec from_now(timeout()) :: t()
  def from_now(:infinity), do: :infinity
  def from_now(ms), do: now_ms() + ms

  @doc """
  The milliseconds until then, as a receive takes them: 0 if it is over, and never more than `most_ms/0`, which a
  deadline with something added to it may be.

      iex> Ringbridge.Deadline.left(Ringbridge.Deadline.from_now(4_294_967_295 + 60_000))
      4_294_967_295
      iex> Ringbridge.Deadline.left(Ringbridge.Deadline.from_now(-1))
      0
  """
  @spec left(t()) :: timeout()
  def left(:infinity), do: :infinity
  def left(until_ms), do: min(max(0, until_ms - now_ms()), @most_ms)

  @doc "Whether it is over."
  @spec past?(t()) :: boolean()
  def past?(until_ms), do: left(until_ms) == 0

  @doc "Now, in milliseconds of the monotonic clock."
  @spec now_ms() :: integer()
  def now_ms, do: System.monotonic_time(:millisecond)
end
