defmodule Ringbridge.Bench.Report do
  @moduledoc "What a bench has measured, as lines, and as a map for programs; with what one has to know to read it."

  alias Ringbridge.Bench
  alias Ringbridge.Bench.Histogram
  alias Ringbridge.Inspect.{Table, Units}

  # Of fewer answers a 99th percentile says little but how long the longest took.
  @p99_least 1_000

  @columns [
    {"callers", :right},
    {"payload", :right},
    {"lane", :left},
    {"calls/s", :right},
    {"p50", :right},
    {"p99", :right},
    {"slowest", :right},
    {"payload/s", :right},
    {"errors", :left}
  ]

  @doc "The table; each row an outcome and its lane."
  @spec table([{Bench.outcome(), String.t()}]) :: [Table.line()]
  def table(rows), do: rows |> Enum.map(&row/1) |> Table.lines(@columns)

  defp row({outcome, lane}) do
    rate = Bench.rate(outcome)

    [
      Units.count(outcome.callers),
      Units.bytes(outcome.bytes),
      lane,
      Units.rate(rate),
      time(Histogram.percentile(outcome.times, 50)),
      time(p99(outcome)),
      time(if(Histogram.count(outcome.times) > 0, do: outcome.times.longest)),
      Units.bytes(rate * outcome.bytes) <> "/s",
      errors(outcome)
    ]
  end

  defp p99(outcome) do
    if Histogram.count(outcome.times) >= @p99_least, do: Histogram.percentile(outcome.times, 99)
  end

  defp time(nil), do: nil
  defp time(ns), do: Units.microseconds(ns / 1_000)

  defp errors(%{errors: errors, wrong: 0}) when errors == %{}, do: "none"

  defp errors(%{errors: errors, wrong: wrong}) do
    told = for {reason, count} <- Enum.sort(errors), do: "#{reason} #{Units.count(count)}"
    told = if wrong > 0, do: ["wrong answers #{Units.count(wrong)}" | told], else: told
    {:red, Enum.join(told, ", ")}
  end

  @doc "What stands above the table: between whom, on what, for how long."
  @spec head(map()) :: [Table.line()]
  def head(about) do
    place = if about.same_host?, do: "on this host", else: "on another host"
    both = if about.same_host?, do: ", shared by callers, bridge and workers", else: ""

    [
      [
        {:bright, "#{about.node}"},
        "  #{about.version}, #{place}, role #{about.role} with #{about.workers} workers ready"
      ],
      [
        "this VM: Elixir #{about.elixir}, OTP #{about.otp}, #{about.schedulers} schedulers#{both}; #{load(about.load)}"
      ],
      [
        "each row: #{Units.microseconds(about.window_ms * 1_000)} after #{Units.microseconds(about.warm_up_ms * 1_000)} " <>
          "of warming up, by #{about.how}"
      ]
    ]
  end

  defp load(nil), do: "load unknown"
  defp load(load), do: "load average of the last minute #{load} before the run"

  @doc "What stands below it."
  @spec foot() :: [Table.line()]
  def foot do
    [
      [
        "A caller makes its next call when the last is answered: what a stall kept from being asked is in no percentile."
      ],
      [
        "Times are what callers waited, of answers without error, true to 3 %; no p99 of fewer than #{Units.count(@p99_least)} answers."
      ]
    ]
  end

  @doc "The same for programs; times in microseconds."
  @spec to_map(map(), [{Bench.outcome(), String.t()}]) :: map()
  def to_map(about, rows) do
    %{about: about, rows: Enum.map(rows, &row_map/1)}
  end

  defp row_map({outcome, lane}) do
    %{
      callers: outcome.callers,
      bytes: outcome.bytes,
      lane: lane,
      calls: Histogram.count(outcome.times),
      calls_per_s: Bench.rate(outcome),
      p50_us: us(Histogram.percentile(outcome.times, 50)),
      p99_us: us(p99(outcome)),
      slowest_us: us(if(Histogram.count(outcome.times) > 0, do: outcome.times.longest)),
      errors: outcome.errors,
      wrong: outcome.wrong
    }
  end

  defp us(nil), do: nil
  defp us(ns), do: ns / 1_000
end
