defmodule Ringbridge.Parts do
  @moduledoc """
  A job's parts as an Enumerable over whichever bridge takes the job: `Ringbridge.stream/4`.

  A refusal before the first part goes to the next bridge, as a call's does. Once a part was given the stream has its
  bridge, for nobody knows which parts another one would give again.
  """
  alias Ringbridge.{Error, Failover, JobDispatcher, Request, ResultIngestor}

  @doc "Each enumeration is a job. Raises `Ringbridge.Error` in the consumer where the job does not end well."
  @spec stream(atom(), term(), term(), term()) :: Enumerable.t()
  def stream(name, role, payload, options),
    do: streamed(fn -> Request.new(name, :stream, role, payload, options) end)

  @doc "The same of a job that is a struct; its parts are those that it declares."
  @spec stream(atom(), struct(), term()) :: Enumerable.t()
  def stream(name, job, options),
    do: streamed(fn -> JobDispatcher.new(name, :stream, job, options) end)

  # Nothing begins before a part is asked for: an enumeration may be halted at once (Stream.zip/1 with an empty one).
  defp streamed(make), do: Stream.resource(fn -> {:new, make} end, &next/1, &halt/1)

  @doc "A subscription of a GenStage consumer to the nearest bridge."
  @spec producer(atom(), term(), term(), term(), keyword()) ::
          {:ok, {GenServer.server(), keyword()}} | {:error, Error.t()}
  def producer(name, role, payload, options, subscribe) do
    # Its end is the subscription's affair, so telemetry is told nothing.
    with %{answer: nil} = request <- Request.checked(name, :producer, role, payload, options),
         :ok <- subscribe?(request, subscribe),
         {:ok, request} <- Request.target(request) do
      job = {role, payload, Request.bridge_options(request)}
      subscribe = [cancel: :transient] |> Keyword.merge(subscribe) |> Keyword.put(:job, job)
      {:ok, {{Ringbridge.Streams, request.node}, subscribe}}
    else
      %{answer: error} -> error
      {:error, %Error{} = error} -> {:error, error}
      {:error, reason} -> {:error, %Error{reason: reason, role: role}}
    end
  end

  defp subscribe?(request, subscribe) do
    cond do
      request.instance.mode != :dist ->
        why = "mode: #{inspect(request.instance.mode)} has no producer; stream/4"
        {:error, Request.error(request, {:bad_request, why})}

      not Keyword.keyword?(subscribe) ->
        why = "the options of a subscription are a keyword list"
        {:error, Request.error(request, {:bad_request, why})}

      true ->
        :ok
    end
  end

  # {request, the lane's parts from here on, whether any came}
  defp begin(%{answer: {:error, error}}), do: raise(error)

  defp begin(request) do
    case Request.target(request) do
      {:ok, request} -> {[], {request, open(request), false}}
      {:error, reason} -> {raising(request |> Request.error(reason) |> told(request)), :ended}
    end
  end

  defp open(request) do
    job = {request.role, request.payload, Request.bridge_options(request)}
    parts = request.lane.parts(request.to, job, request.demand, request.until_ms)
    # One event of the lane at a time: the consumer decides when the next one is asked for.
    &Enumerable.reduce(parts, &1, fn event, _last -> {:suspend, event} end)
  end

  defp next(:ended), do: {:halt, :ended}

  defp next({:new, make}), do: begin(make.())

  defp next({request, from_here, any?} = state) do
    case from_here.({:cont, nil}) do
      {:suspended, {:parts, parts}, rest} ->
        ingested(request, parts, rest)

      {:suspended, {:end, :normal}, rest} ->
        close(rest)
        Request.finish(request, {:ok, :parts})
        {:halt, :ended}

      {:suspended, {:end, reason}, rest} ->
        close(rest)
        again(state, Request.error(request, reason), any?)
    end
  end

  # The good ones before a bad one are given; who sends those has nothing else to say.
  defp ingested(request, parts, rest) do
    case ResultIngestor.parts(request.ingest, parts) do
      {parts, :ok} ->
        {parts, {request, rest, true}}

      {good, {:error, reason}} ->
        close(rest)
        error = request |> Request.error(reason) |> told(request)
        {Stream.concat(good, raising(error)), :ended}
    end
  end

  defp again({request, _from_here, _any?}, error, any?) do
    with false <- any?,
         {:ok, next} <- Failover.retry(request, error),
         {:ok, next} <- Request.target(next) do
      Failover.tell(request, next.node, error)
      {[], {next, open(next), false}}
    else
      _ -> {raising(request |> Failover.verdict(error) |> told(request)), :ended}
    end
  end

  # A stream without elements that raises: by then the state is :ended, and nothing is closed or told twice.
  @dialyzer {:no_return, raising: 1}
  @spec raising(Error.t()) :: Enumerable.t()
  defp raising(error), do: Stream.map([error], &raise/1)

  defp told(error, request) do
    Request.finish(request, {:error, error})
    error
  end

  defp halt(:ended), do: :ok

  defp halt({:new, _make}), do: :ok

  defp halt({request, from_here, _any?}) do
    close(from_here)
    Request.finish(request, nil)
  end

  defp close(from_here), do: from_here.({:halt, nil})
end
