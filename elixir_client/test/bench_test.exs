defmodule Ringbridge.BenchTest do
  @moduledoc "The closed loop of `mix ringbridge.bench` over calls of the test's own, and what is told of it."
  use ExUnit.Case, async: true

  alias Ringbridge.{Bench, Error}
  alias Ringbridge.Bench.{Histogram, Report}
  alias Ringbridge.Inspect.Table

  doctest Ringbridge.Bench.Histogram

  defp times(list), do: Enum.reduce(list, Histogram.new(), &Histogram.add(&2, &1))

  # Each caller has a clock of its own, which a call moves on: 5 ms of warming up, 50 ms that count.
  defp run(call, fields \\ %{}) do
    cell = %{callers: 3, payload: "x", warm_up_ms: 5, window_ms: 50, echo?: true, call: call}
    Bench.run(cell |> Map.put(:clock, fn -> Process.get(:now, 0) end) |> Map.merge(fields))
  end

  defp takes(ms, answer) do
    took = System.convert_time_unit(ms, :millisecond, :native)
    Process.put(:now, Process.get(:now, 0) + took)
    answer
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

  test "calls are counted that began and ended within the window" do
    outcome = run(&takes(1, {:ok, &1}))
    assert Histogram.count(outcome.times) == 3 * 50
    assert outcome.times.longest == 1_000_000
    assert outcome.errors == %{} and outcome.wrong == 0
    assert Bench.rate(outcome) == 3_000.0

    # The first begins before it, the eighth ends after it.
    assert Histogram.count(run(&takes(7, {:ok, &1})).times) == 3 * 6
    assert Histogram.count(run(&takes(80, {:ok, &1})).times) == 0
  end

  test "callers call at the same time, each from a process of its own" do
    test = self()

    # Nobody is answered before all have called.
    call = fn payload ->
      send(test, {:called, self()})
      receive do: (:go -> takes(60, {:ok, payload}))
    end

    bench = Task.async(fn -> run(call) end)
    callers = for _ <- 1..3, do: assert_receive({:called, pid}, 60_000) && pid
    assert callers == Enum.uniq(callers)
    Enum.each(callers, &send(&1, :go))
    assert Task.await(bench, 60_000).errors == %{}
  end

  test "errors and wrong answers have no times" do
    overloaded = {:error, %Error{reason: {:overloaded, %{retry_after_ms: 1}}}}
    outcome = run(fn _ -> takes(1, overloaded) end)
    assert Histogram.count(outcome.times) == 0
    assert outcome.errors == %{overloaded: 150}

    outcome = run(fn _ -> takes(1, {:ok, "y"}) end)
    assert Histogram.count(outcome.times) == 0
    assert outcome.wrong == 150
    # A role that is none of echo answers what it likes.
    outcome = run(fn _ -> takes(1, {:ok, "y"}) end, %{echo?: false})
    assert Histogram.count(outcome.times) == 150
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
