defmodule Ringbridge.Inspect.Units do
  @moduledoc "Numbers as people read them, each with its unit."

  @units [{"GiB", 1_073_741_824}, {"MiB", 1_048_576}, {"KiB", 1_024}]

  @doc """
      iex> Ringbridge.Inspect.Units.count(1_234_567)
      "1,234,567"
      iex> Ringbridge.Inspect.Units.count(-1_000)
      "-1,000"
  """
  @spec count(integer()) :: String.t()
  def count(number) when number < 0, do: "-" <> count(-number)

  def count(number) do
    number
    |> Integer.digits()
    |> Enum.reverse()
    |> Enum.chunk_every(3)
    |> Enum.map_join(",", &Enum.join/1)
    |> String.reverse()
  end

  @doc """
      iex> Enum.map([0, 1_023, 1_536, 67_108_864, 3 * 1_073_741_824], &Ringbridge.Inspect.Units.bytes/1)
      ["0 B", "1,023 B", "1.5 KiB", "64 MiB", "3 GiB"]
  """
  @spec bytes(number()) :: String.t()
  def bytes(number) do
    case Enum.find(@units, fn {_unit, size} -> number >= size end) do
      nil -> "#{count(round(number))} B"
      {unit, size} -> "#{tenth(number / size)} #{unit}"
    end
  end

  @doc """
      iex> Enum.map([0, 999, 1_500, 250_000, 12_000_000], &Ringbridge.Inspect.Units.microseconds/1)
      ["0 us", "999 us", "1.5 ms", "250 ms", "12 s"]
  """
  @spec microseconds(number()) :: String.t()
  def microseconds(us) when us < 1_000, do: "#{tenth(us)} us"
  def microseconds(us) when us < 1_000_000, do: "#{tenth(us / 1_000)} ms"
  def microseconds(us), do: "#{tenth(us / 1_000_000)} s"

  @doc """
      iex> Enum.map([0, 65_000, 90_061_000], &Ringbridge.Inspect.Units.duration/1)
      ["0:00:00", "0:01:05", "1 d 1:01:01"]
  """
  @spec duration(non_neg_integer()) :: String.t()
  def duration(ms) do
    seconds = div(ms, 1_000)
    days = div(seconds, 86_400)
    clock = Enum.map([div(seconds, 60), seconds], &(&1 |> rem(60) |> two()))
    time = Enum.join([rem(div(seconds, 3_600), 24) | clock], ":")
    if days > 0, do: "#{days} d #{time}", else: time
  end

  @doc """
  A rate; `nil`, for one that nobody knows yet, is a dash.

      iex> Enum.map([nil, 0, 0.5, 12.34, 1_234.6], &Ringbridge.Inspect.Units.rate/1)
      ["-", "0", "0.5", "12.3", "1,235"]
  """
  @spec rate(number() | nil) :: String.t()
  def rate(nil), do: "-"
  def rate(number) when number >= 100, do: count(round(number))
  def rate(number), do: tenth(number)

  defp tenth(number) do
    rounded = round(number * 10)
    whole = count(div(rounded, 10))
    if rem(rounded, 10) == 0, do: whole, else: "#{whole}.#{rem(rounded, 10)}"
  end

  defp two(number), do: String.pad_leading(Integer.to_string(number), 2, "0")
end
