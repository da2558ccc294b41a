defmodule Ringbridge.Request.Options do
  @moduledoc """
  The options of one call: those of the client are taken out and checked here, all others are the bridge's to judge.

  What cannot be meant is `:bad_request`, as from the bridge: no call raises for its options.
  """
  import Ringbridge.Deadline, only: [is_wait: 1]

  alias Ringbridge.{Deadline, Error, Request}

  # How much longer the caller waits than the job may take, so that the bridge's `:deadline_exceeded`, which says more
  # than a timeout does, arrives first.
  @grace_ms 1_000

  # Enough that a worker need not wait for a consumer that is quick, and little to hold for one that is slow.
  @demand 100

  # The wait in words, for whoever gave another one.
  @wait "milliseconds, 0 to #{Deadline.most_ms()}"

  @doc "The request with what its options say."
  @spec take(Request.t(), term()) :: {:ok, Request.t()} | {:error, Error.t()}
  def take(request, options) do
    with {:ok, options} <- keyword(options),
         {demand, options} = demand(request, options),
         {timeout, options} = Keyword.pop(options, :timeout, default(request)),
         {idempotent, options} = Keyword.pop(options, :idempotent, false),
         :ok <- demand?(demand),
         :ok <- timeout?(timeout),
         :ok <- idempotent?(idempotent),
         :ok <- payload?(request) do
      request = %{request | options: options, demand: demand, idempotent?: idempotent}
      {:ok, timed(%{request | again?: again?(options)}, timeout)}
    end
  end

  @doc "Whether a `timeout` of await or yield can be waited for."
  @spec wait?(term()) :: :ok | {:error, Error.t()}
  def wait?(:infinity), do: :ok
  def wait?(ms) when is_wait(ms), do: :ok
  def wait?(other), do: bad("timeout is #{@wait}, or :infinity; got: #{inspect(other)}")

  @doc "How often the bridge may begin the job again, as far as that is a number."
  @spec retry(keyword()) :: non_neg_integer()
  def retry(options) do
    case Keyword.get(options, :retry, 0) do
      retry when is_integer(retry) and retry > 0 -> retry
      _ -> 0
    end
  end

  # What stands there may be a payload, which is no message's business.
  defp keyword(options) when is_map(options), do: {:ok, Map.to_list(options)}

  defp keyword(options) do
    if Keyword.keyword?(options),
      do: {:ok, options},
      else: bad("options are a keyword list or a map")
  end

  defp demand(%{verb: :stream}, options), do: Keyword.pop(options, :max_demand, @demand)
  defp demand(_request, options), do: {@demand, options}

  # A stream takes as long as its consumer does, and nobody waits for a cast: they have a deadline of the caller's only if
  # the call gives one (docs/streams.md). Else the role's.
  defp default(%{verb: verb}) when verb in [:stream, :producer, :cast], do: :role
  defp default(request), do: request.instance.timeout

  defp demand?(demand) when is_integer(demand) and demand > 0, do: :ok
  defp demand?(other), do: bad("max_demand is a number, 1 or more; got: #{inspect(other)}")

  defp timeout?(ms) when is_wait(ms), do: :ok
  defp timeout?(endless) when endless in [:infinity, :role], do: :ok

  defp timeout?(other),
    do: bad("timeout is #{@wait}, :infinity or :role; got: #{inspect(other)}")

  defp idempotent?(said) when is_boolean(said), do: :ok
  defp idempotent?(other), do: bad("idempotent is true or false; got: #{inspect(other)}")

  defp payload?(%{verb: :submit_many, payload: payloads}) do
    if is_list(payloads) and not List.improper?(payloads),
      do: :ok,
      else: bad("the payloads of call_many are a proper list")
  end

  defp payload?(_request), do: :ok

  # With `dedupe` the run may be another caller's, who has said `retry`.
  defp again?(options), do: retry(options) > 0 or Keyword.has_key?(options, :dedupe)

  defp timed(request, endless) when is_atom(endless), do: %{request | job_until_ms: endless}

  defp timed(request, ms) do
    until_ms = Deadline.from_now(ms)
    %{request | job_until_ms: until_ms, until_ms: until_ms + @grace_ms}
  end

  defp bad(why), do: {:error, %Error{reason: {:bad_request, why}}}
end
