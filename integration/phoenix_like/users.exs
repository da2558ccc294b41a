defmodule Ringbridge.PhoenixLike.Users do
  @moduledoc """
  Those who use the shop: each connects, asks, and holds the answer against what it must be. Some hang up before it comes; some ask for
  what outlasts its process.
  """
  alias Ringbridge.PhoenixLike.Endpoint

  # A worker was killed, the queue is full, or the time was short. Nothing else is an excuse.
  @excuses [:worker_crashed, :worker_broke, :overloaded, :deadline_exceeded, :timeout]
  @patience_ms 60_000

  # The smallest primes, by the sieve.
  @primes for n <- 2..400, Enum.all?(2..(n - 1)//1, &(rem(n, &1) != 0)), do: n

  @doc "One user, until `until_ms`; counts in `counts`, wrong answers in it, too, as `{:wrong, text}`."
  @spec run(:ets.table(), integer(), integer(), integer()) :: :ok
  def run(counts, seed, number, until_ms) do
    :rand.seed(:exsss, {seed, number, 2})
    turn(counts, Endpoint.port(), number * 1_000_000, until_ms)
  end

  defp turn(counts, port, number, until_ms) do
    if System.monotonic_time(:millisecond) < until_ms do
      {request, patience_ms} = request(:rand.uniform(20), number)
      ask(counts, port, request, patience_ms)
      turn(counts, port, number + 1, until_ms)
    else
      :ok
    end
  end

  # What is asked, and how long its user waits for it.
  defp request(n, number) when n <= 8, do: {{:echo, nil, payload(number)}, @patience_ms}
  defp request(n, number) when n <= 10, do: {{:later, nil, payload(number)}, @patience_ms}
  defp request(11, _number), do: {{:nap, nil, :rand.uniform(20)}, @patience_ms}
  defp request(12, _number), do: {{:impatient, nil, 20 + :rand.uniform(20)}, @patience_ms}

  defp request(13, number),
    do: {{:many, nil, for(n <- 1..10, do: "#{number}/#{n}")}, @patience_ms}

  defp request(14, _number), do: {{:primes, nil, 1 + :rand.uniform(60)}, @patience_ms}
  # Its process is ended in the middle.
  defp request(n, _number) when n <= 16, do: {{:nap, :rand.uniform(15), 5_000}, @patience_ms}
  # Its user hangs up in the middle.
  defp request(n, _number) when n <= 18, do: {{:nap, nil, 5_000}, :rand.uniform(15)}
  defp request(_n, number), do: {{:echo, nil, payload(number)}, :rand.uniform(3) - 1}

  defp payload(number) do
    size = Enum.random([10, 100, 1_000, 70_000, 200_000])
    filler = :binary.copy("#{number} ", div(size, 8) + 1)
    if rem(number, 3) == 0, do: {number, filler, [self: number]}, else: "#{number}:#{filler}"
  end

  defp ask(counts, port, request, patience_ms) do
    options = [:binary, packet: 4, active: false]

    with {:ok, socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, options, @patience_ms),
         :ok <- :gen_tcp.send(socket, :erlang.term_to_binary(request)) do
      label = judge(request, :gen_tcp.recv(socket, 0, patience_ms), patience_ms)
      :gen_tcp.close(socket)
      count(counts, {elem(request, 0), label})
    else
      {:error, why} -> count(counts, {:wrong, "no connection: #{inspect(why)}"})
    end
  end

  defp judge(_request, {:error, :timeout}, patience_ms) when patience_ms < @patience_ms,
    do: :hung_up

  # A process that was ended by its time limit closes its connection.
  defp judge({:nap, limit, 5_000}, {:error, :closed}, _patience) when limit != nil, do: :ended
  # The limit of all requests, on a machine that is slow.
  defp judge(_request, {:error, :closed}, _patience), do: :closed

  defp judge(request, {:ok, bytes}, _patience),
    do: answered(request, :erlang.binary_to_term(bytes))

  defp judge(request, other, _patience), do: wrong(request, other)

  defp answered(_request, {:error, reason}) when reason in @excuses, do: reason

  defp answered({kind, _, payload} = request, {:ok, result}) when kind in [:echo, :later],
    do: right(payload === result, request, result)

  defp answered({kind, _, ms} = request, {:ok, text}) when kind in [:nap, :impatient],
    do: right("#{ms}" === text, request, text)

  defp answered({:primes, _, count} = request, {:ok, primes}),
    do: right(Enum.take(@primes, count) === primes, request, primes)

  defp answered({:many, _, payloads} = request, {:ok, answers}),
    do: each(payloads, answers, request)

  defp answered(request, other), do: wrong(request, other)

  defp each(payloads, answers, request) do
    right? =
      length(payloads) == length(answers) and
        Enum.all?(Enum.zip(payloads, answers), fn
          {payload, {:ok, payload}} -> true
          {_payload, {:error, reason}} -> reason in @excuses
          _other -> false
        end)

    right(right?, request, answers)
  end

  defp right(true, _request, _answer), do: :ok
  defp right(false, request, answer), do: wrong(request, answer)

  defp wrong(request, answer),
    do: {:wrong, inspect({request, answer}, limit: 8, printable_limit: 80)}

  @doc "Counts one; a wrong answer is its own key."
  @spec count(:ets.table(), term()) :: integer()
  def count(counts, {_kind, {:wrong, text}}), do: count(counts, {:wrong, text})
  def count(counts, what), do: :ets.update_counter(counts, what, 1, {what, 0})
end
