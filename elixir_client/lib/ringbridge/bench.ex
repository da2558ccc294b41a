defmodule Ringbridge.Bench do
  @moduledoc """
  Calls a role of a running bridge as fast as so many callers can, and measures: `mix ringbridge.bench`.

  A closed loop: each caller makes its next call when the last one is answered. So the rate is what these callers get, and a time is
  one that a caller has waited; calls that a stall kept from being made are in no percentile. Counted is what began and ended within the window,
  after a warm-up. Answers of the role `echo` are compared with what was sent.
  """
  alias Ringbridge.Bench.Histogram
  alias Ringbridge.{Error, Instance}

  @typedoc """
  What is run: so many callers, with this payload, for so long; `call` makes one call. `echo?`: the answer has to be the payload. `clock`
  tells the time in native units, as `System.monotonic_time/0` does, which it is by default.
  """
  @type cell :: %{
          required(:callers) => pos_integer(),
          required(:payload) => binary(),
          required(:warm_up_ms) => non_neg_integer(),
          required(:window_ms) => pos_integer(),
          required(:echo?) => boolean(),
          required(:call) => (binary() -> {:ok, term()} | {:error, Error.t()}),
          optional(:clock) => (() -> integer())
        }

  @typedoc "Times in nanoseconds, of the answers without error. `errors` by the reason's name; `wrong`: answers that were not what was sent."
  @type outcome :: %{
          callers: pos_integer(),
          bytes: non_neg_integer(),
          window_ms: pos_integer(),
          times: Histogram.t(),
          errors: %{atom() => pos_integer()},
          wrong: non_neg_integer()
        }

  @doc "Runs one cell. Callers are processes of their own, which end with this one."
  @spec run(cell()) :: outcome()
  def run(cell) do
    cell = Map.put_new(cell, :clock, &System.monotonic_time/0)
    start = cell.clock.() + native(cell.warm_up_ms)
    window = {start, start + native(cell.window_ms)}
    callers = for _ <- 1..cell.callers, do: Task.async(fn -> call_on(cell, window) end)
    parts = Task.await_many(callers, :infinity)

    %{
      callers: cell.callers,
      bytes: byte_size(cell.payload),
      window_ms: cell.window_ms,
      times: parts |> Enum.map(& &1.times) |> Enum.reduce(Histogram.new(), &Histogram.merge/2),
      errors:
        parts
        |> Enum.map(& &1.errors)
        |> Enum.reduce(%{}, &Map.merge(&1, &2, fn _, m, n -> m + n end)),
      wrong: parts |> Enum.map(& &1.wrong) |> Enum.sum()
    }
  end

  defp call_on(cell, window),
    do: call_on(cell, window, %{times: Histogram.new(), errors: %{}, wrong: 0})

  defp call_on(cell, {start, stop} = window, seen) do
    began = cell.clock.()
    answer = cell.call.(cell.payload)
    ended = cell.clock.()

    cond do
      ended > stop -> seen
      began < start -> call_on(cell, window, seen)
      true -> call_on(cell, window, counted(seen, answer, cell, ended - began))
    end
  end

  defp counted(seen, {:ok, payload}, %{payload: payload}, took), do: timed(seen, took)
  defp counted(seen, {:ok, _other}, %{echo?: true}, _took), do: %{seen | wrong: seen.wrong + 1}
  defp counted(seen, {:ok, _result}, _cell, took), do: timed(seen, took)

  defp counted(seen, {:error, error}, _cell, _took) do
    %{seen | errors: Map.update(seen.errors, Error.name(error.reason), 1, &(&1 + 1))}
  end

  defp timed(seen, took) do
    ns = System.convert_time_unit(took, :native, :nanosecond)
    %{seen | times: Histogram.add(seen.times, ns)}
  end

  defp native(ms), do: System.convert_time_unit(ms, :millisecond, :native)

  @doc "Answers per second, without errors."
  @spec rate(outcome()) :: float()
  def rate(outcome), do: Histogram.count(outcome.times) * 1_000 / outcome.window_ms

  @doc "The lane that a call of the instance takes now, in a word."
  @spec lane(Instance.t(), Ringbridge.role()) :: String.t()
  def lane(instance, role) do
    case Instance.target(instance, role, [], Ringbridge.Deadline.from_now(1_000)) do
      {:ok, lane, _to, _bridge} -> lane |> Module.split() |> List.last() |> String.downcase()
      {:error, _why} -> "none"
    end
  end
end
