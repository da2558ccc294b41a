defmodule Ringbridge.Bench.Histogram do
  @moduledoc """
  Times counted in classes that are 1/32 of themselves wide, so that a run of any length takes a few kilobytes and a
  percentile is true to 3 %. The longest one is kept as it was.

      iex> times = Enum.reduce(1..1_000, Ringbridge.Bench.Histogram.new(), &Ringbridge.Bench.Histogram.add(&2, &1))
      iex> Ringbridge.Bench.Histogram.count(times)
      1_000
      iex> Ringbridge.Bench.Histogram.percentile(times, 50) in 485..516
      true
      iex> times.longest
      1_000
  """
  import Bitwise

  # 2 ** 6 - 2 ** 5 = 32 classes for each doubling.
  @bits 6

  defstruct classes: %{}, longest: 0

  @type t :: %__MODULE__{
          classes: %{non_neg_integer() => pos_integer()},
          longest: non_neg_integer()
        }

  @doc "Of no times yet."
  @spec new() :: t()
  def new, do: %__MODULE__{}

  @doc "Counts one time, of any unit."
  @spec add(t(), non_neg_integer()) :: t()
  def add(%{classes: classes, longest: longest} = histogram, time) do
    classes = Map.update(classes, class(time), 1, &(&1 + 1))
    %{histogram | classes: classes, longest: max(longest, time)}
  end

  @doc "Of the times of both."
  @spec merge(t(), t()) :: t()
  def merge(one, other) do
    classes = Map.merge(one.classes, other.classes, fn _class, m, n -> m + n end)
    %__MODULE__{classes: classes, longest: max(one.longest, other.longest)}
  end

  @doc "How many times it has."
  @spec count(t()) :: non_neg_integer()
  def count(histogram), do: histogram.classes |> Map.values() |> Enum.sum()

  @doc "The time that so many percent of all do not exceed; `nil` of none."
  @spec percentile(t(), number()) :: non_neg_integer() | nil
  def percentile(histogram, percent) do
    wanted = ceil(count(histogram) * percent / 100)

    histogram.classes
    |> Enum.sort()
    |> Enum.reduce_while(0, fn {class, n}, seen ->
      if seen + n >= wanted,
        do: {:halt, {:found, min(middle(class), histogram.longest)}},
        else: {:cont, seen + n}
    end)
    |> case do
      {:found, time} -> time
      _none -> nil
    end
  end

  # Below 2 ** @bits each time is a class of its own; above, what its highest bits say.
  defp class(time) when time < 1 <<< @bits, do: time

  defp class(time) do
    shift = length(Integer.digits(time, 2)) - @bits
    (shift <<< @bits) + (time >>> shift)
  end

  defp middle(class) when class < 1 <<< @bits, do: class

  defp middle(class) do
    shift = class >>> @bits
    lowest = (class &&& (1 <<< @bits) - 1) <<< shift
    lowest + (1 <<< shift >>> 1)
  end
end
