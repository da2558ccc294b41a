defmodule Ringbridge.BenchTest do
  @moduledoc "The closed loop of `mix ringbridge.bench` over calls of the test's own, and what is told of it."
  use ExUnit.Case, async: true

  alias Ringbridge.{Bench, Error}
  alias Ringbridge.Bench.{Histogram, Report}
  alias Ringbridge.Inspect.Table

  doctest Ringbridge.Bench.Histogram

  defp times(list), do: Enum.reduce(list, Histogram.new(), &Histogram.add(&2, &1))

  defp run(call, fields \\ %{}) do
    cell = %{callers: 3, payload: "x", warm_up_ms: 5, window_ms: 50, echo?: true, call: call}
    Bench.run(Map.merge(cell, fields))
  end

  test "a percentile is within 1/32 of the true one, of times of every size" do
    :rand.seed(:exsss, {1, 2, 3})

    for scale <- [10, 1_000, 1_000_000, 60_000_000_000] do
      list = for _ <- 1..2_000, do: :rand.uniform(scale)
      sorted = Enum.sort(list)

      for percent <- [1, 50, 99, 100] do
        exact = Enum.at(sorted, ceil(2_000 * percent / 100) - 1)
        assert_in_delta Histogram.percentile(times(list), percent), exact, exact / 32 + 1
      end
    end
  end

  test "two histograms together are that of all their times" do
    {one, other} = {[1, 70, 5_000], [70, 9]}
    assert Histogram.merge(times(one), times(other)) == times(one ++ other)
    assert Histogram.percentile(Histogram.new(), 50) == nil
  end

  test "answers are counted, and callers call at the same time" do
    test = self()

    call = fn payload ->
      send(test, {:called, self()})
      Process.sleep(1)
      {:ok, payload}
    end

    outcome = run(call)
    assert Histogram.count(outcome.times) > 0
    assert outcome.times.longest >= 1_000_000
    assert outcome.errors == %{} and outcome.wrong == 0
    assert Bench.rate(outcome) == Histogram.count(outcome.times) * 20.0
    assert length(Enum.uniq(called())) == 3
  end

  defp called do
    receive do
      {:called, pid} -> [pid | called()]
    after
      0 -> []
    end
  end

  test "errors and wrong answers have no times" do
    outcome = run(fn _ -> {:error, %Error{reason: {:overloaded, %{retry_after_ms: 1}}}} end)
    assert Histogram.count(outcome.times) == 0
    assert outcome.errors.overloaded > 0

    outcome = run(fn _ -> {:ok, "y"} end)
    assert Histogram.count(outcome.times) == 0
    assert outcome.wrong > 0
    # A role that is none of echo answers what it likes.
    outcome = run(fn _ -> {:ok, "y"} end, %{echo?: false})
    assert Histogram.count(outcome.times) > 0
  end

  test "what ended after the window, or began before it, is not counted" do
    late = fn payload ->
      Process.sleep(80)
      {:ok, payload}
    end

    assert Histogram.count(run(late).times) == 0
    early = fn payload -> {:ok, payload} end

    assert Histogram.count(run(early, %{warm_up_ms: 20, window_ms: 1}).times) <=
             Histogram.count(run(early).times)
  end

  describe "the report" do
    defp outcome(fields \\ %{}) do
      list = for _ <- 1..1_500, do: 60_000

      base = %{
        callers: 16,
        bytes: 1_024,
        window_ms: 2_000,
        times: times(list),
        errors: %{},
        wrong: 0
      }

      Map.merge(base, fields)
    end

    defp row(outcome) do
      [_heading, line] = Report.table([{outcome, "dist"}])
      line |> Table.render(false) |> String.split(~r/ {2,}/, trim: true)
    end

    test "gives each number its unit" do
      assert row(outcome()) ==
               ["16", "1 KiB", "dist", "750", "59.9 us", "59.9 us", "60 us", "750 KiB/s", "none"]
    end

    test "says no p99 of few answers, and no time of none" do
      assert Enum.at(row(outcome(%{times: times([5_000])})), 5) == "-"

      assert row(outcome(%{times: Histogram.new(), errors: %{job_failed: 2_000}, wrong: 1})) ==
               [
                 "16",
                 "1 KiB",
                 "dist",
                 "0",
                 "-",
                 "-",
                 "-",
                 "0 B/s",
                 "wrong answers 1, job_failed 2,000"
               ]
    end
  end
end
