defmodule Ringbridge.Bench.Shapes do
  @moduledoc """
  Loads of other shapes than the closed loop of `Ringbridge.Bench.Load`, whose commands these are:

      closed SIDE ROLE PAYLOAD CALLERS MILLISECONDS  ->  result CALLS WINDOW_US
      open SIDE ROLE PAYLOAD RATE MILLISECONDS    ->  result OK P50 P99 REFUSED P50 P99 OTHER  (ns)
      beside SIDE BYTES SMALL MILLISECONDS        ->  result LARGE MEDIAN SMALL P50 P99 ERRORS (ns)
      many SIDE K BYTES CALLERS MILLISECONDS      ->  result JOBS ERRORS WINDOW_US

  `open` makes calls at times that do not depend on the answers: independent arrivals (a Poisson process) of RATE a
  second. What is late by the timer's millisecond starts late; its time counts from when it started.
  `beside` has one caller of BYTES (0: none) and one of 16 bytes where SMALL is 1, at the same time.
  `many` has callers that hand over K payloads in one call.
  """

  @timeout_ms 30_000
  @long_ms 600_000

  @type target :: GenServer.server()

  @spec closed(target, String.t(), binary, pos_integer, pos_integer) :: String.t()
  def closed(target, role, payload, callers, milliseconds) do
    request = {:submit, String.to_atom(role), payload}

    case call(target, request) do
      {:ok, _answer} ->
        counts = together(callers, target, request, 1, milliseconds)
        "result #{counts |> Enum.map(&elem(&1, 0)) |> Enum.sum()} #{milliseconds * 1000}"

      other ->
        "refused " <> inspect(other, limit: 5, printable_limit: 80)
    end
  end

  @spec open(target, String.t(), binary, pos_integer, pos_integer) :: String.t()
  def open(target, role, payload, rate, milliseconds) do
    role = String.to_atom(role)
    now = System.monotonic_time()
    mean = System.convert_time_unit(1, :second, :native) / rate
    ends = now + native(milliseconds)
    request = {:submit, role, payload}
    :rand.seed(:exsss, {1, 2, rate})
    started = arrivals(target, request, now, mean, ends, 0)

    answers =
      for _ <- 1..started//1 do
        receive do
          {:answered, answer, ns} -> {answer, ns}
        end
      end

    ok = for {:ok, ns} <- answers, do: ns
    refused = for {:refused, ns} <- answers, do: ns

    "result #{length(ok)} #{percentile(ok, 0.5)} #{percentile(ok, 0.99)} " <>
      "#{length(refused)} #{percentile(refused, 0.5)} #{percentile(refused, 0.99)} " <>
      "#{started - length(ok) - length(refused)}"
  end

  defp arrivals(target, request, due, mean, ends, started) do
    now = System.monotonic_time()

    cond do
      due > ends ->
        started

      due > now ->
        Process.sleep(1)
        arrivals(target, request, due, mean, ends, started)

      true ->
        parent = self()

        spawn_link(fn ->
          {ns, answer} = timed(fn -> call(target, request) end)
          send(parent, {:answered, kind(answer), ns})
        end)

        next = due + round(-mean * :math.log(1.0 - :rand.uniform()))
        arrivals(target, request, next, mean, ends, started + 1)
    end
  end

  defp kind({:ok, _answer}), do: :ok
  defp kind({:error, {:overloaded, %{retry_after_ms: _}}}), do: :refused
  defp kind(_other), do: :other

  @spec beside(target, non_neg_integer, 0 | 1, pos_integer) :: String.t()
  def beside(target, bytes, small, milliseconds) do
    ends = System.monotonic_time() + native(milliseconds)
    parent = self()

    # The payload is made where it is used: a copy of a message would cost as much as the call.
    callers =
      for {size, wanted} <- [{bytes, bytes > 0}, {16, small == 1}] do
        wanted &&
          spawn_link(fn ->
            payload = :binary.copy(<<7>>, size)

            send(
              parent,
              {self(), echoes(target, {:submit, :echo, payload}, payload, ends, [], 0)}
            )
          end)
      end

    [{large, large_errors}, {small, small_errors}] =
      for pid <- callers, do: if(pid, do: receive(do: ({^pid, found} -> found)), else: {[], 0})

    "result #{length(large)} #{percentile(large, 0.5)} #{length(small)} " <>
      "#{percentile(small, 0.5)} #{percentile(small, 0.99)} #{large_errors + small_errors}"
  end

  # At least one, however long it takes.
  defp echoes(target, request, payload, ends, times, errors) do
    {ns, answer} = timed(fn -> call(target, request) end)

    {times, errors} =
      if answer == {:ok, payload}, do: {[ns | times], errors}, else: {times, errors + 1}

    if System.monotonic_time() < ends,
      do: echoes(target, request, payload, ends, times, errors),
      else: {times, errors}
  end

  @spec many(target, map, pos_integer, pos_integer, pos_integer, pos_integer) :: String.t()
  def many(target, options, k, bytes, callers, milliseconds) do
    payloads = for _ <- 1..k, do: :rand.bytes(bytes)
    wanted = Enum.map(payloads, &{:ok, &1})
    request = {:submit_many, :echo, payloads, options}

    case call(target, request) do
      {:ok, ^wanted} ->
        counts = together(callers, target, request, k, milliseconds)
        jobs = counts |> Enum.map(&elem(&1, 0)) |> Enum.sum()
        errors = counts |> Enum.map(&elem(&1, 1)) |> Enum.sum()
        "result #{jobs} #{errors} #{milliseconds * 1000}"

      other ->
        "refused " <> inspect(other, limit: 5, printable_limit: 80)
    end
  end

  defp together(callers, target, request, k, milliseconds) do
    ends = System.monotonic_time() + native(milliseconds)
    parent = self()

    pids =
      for _ <- 1..callers do
        spawn_link(fn -> send(parent, {self(), batches(target, request, k, ends, 0, 0)}) end)
      end

    for pid <- pids, do: receive(do: ({^pid, counts} -> counts))
  end

  defp batches(target, request, k, ends, jobs, errors) do
    answer = call(target, request)

    cond do
      System.monotonic_time() > ends -> {jobs, errors}
      match?({:ok, _}, answer) -> batches(target, request, k, ends, jobs + k, errors)
      true -> batches(target, request, k, ends, jobs, errors + 1)
    end
  end

  defp call(target, request) do
    timeout = if large?(request), do: @long_ms, else: @timeout_ms
    GenServer.call(target, request, timeout)
  catch
    :exit, {reason, _call} -> {:error, {:exit, reason}}
  end

  defp large?({:submit, _role, payload}), do: byte_size(payload) > 1_000_000
  defp large?(_request), do: false

  defp native(milliseconds), do: System.convert_time_unit(milliseconds, :millisecond, :native)

  defp timed(fun) do
    before = System.monotonic_time()
    result = fun.()
    {System.convert_time_unit(System.monotonic_time() - before, :native, :nanosecond), result}
  end

  defp percentile([], _share), do: 0

  defp percentile(values, share) do
    sorted = Enum.sort(values)
    Enum.at(sorted, min(length(sorted) - 1, trunc(length(sorted) * share)))
  end
end
