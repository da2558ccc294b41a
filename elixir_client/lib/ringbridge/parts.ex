defmodule Ringbridge.Parts do
  @moduledoc """
  A job's parts as an Enumerable over whichever bridge takes the job: `Ringbridge.stream/4`.

  A refusal before the first part goes to the next bridge, as a call's does. Once a part was given the stream has its
  bridge, for nobody knows which parts another one would give again.
  """
  alias Ringbridge.{Error, Failover, Request}

  # Enough that a worker need not wait for a consumer that is quick, and little to hold for one that is slow.
  @demand 100

  @doc "Each enumeration is a job. Raises `Ringbridge.Error` in the consumer where the job does not end well."
  @spec stream(atom(), term(), term(), term()) :: Enumerable.t()
  def stream(name, role, payload, options) do
    Stream.resource(
      fn -> begin(name, role, payload, options) end,
      &next/1,
      &halt/1
    )
  end

  @doc "A subscription of a GenStage consumer to the nearest bridge."
  @spec producer(atom(), term(), term(), term(), keyword()) ::
          {:ok, {GenServer.server(), keyword()}} | {:error, Error.t()}
  def producer(name, role, payload, options, subscribe) do
    with %{answer: nil} = request <- Request.new(name, :stream, role, payload, options),
         {:ok, request} <- Request.target(request) do
      job = {role, payload, Request.bridge_options(request)}
      {:ok, {{Ringbridge.Streams, request.node}, [{:job, job} | subscribe]}}
    else
      %{answer: error} -> error
      {:error, reason} -> {:error, %Error{reason: reason, role: role}}
    end
  end

  defp begin(name, role, payload, options) do
    {demand, options} = Access.pop(options, :max_demand)
    begin(Request.new(name, :stream, role, payload, options), demand || @demand)
  end

  # {request, demand, the lane's parts from here on, whether any came}
  defp begin(%{answer: {:error, error}}, _demand), do: raise(error)

  defp begin(request, demand) do
    case Request.target(request) do
      {:ok, request} -> {request, demand, open(request, demand), false}
      {:error, reason} -> raise Request.error(request, reason) |> told(request)
    end
  end

  defp open(request, demand) do
    job = {request.role, request.payload, Request.bridge_options(request)}
    parts = request.lane.parts(request.to, job, demand)
    # One event of the lane at a time: the consumer decides when the next one is asked for.
    &Enumerable.reduce(parts, &1, fn event, _last -> {:suspend, event} end)
  end

  defp next(:ended), do: {:halt, :ended}

  defp next({request, demand, from_here, any?} = state) do
    case from_here.({:cont, nil}) do
      {:suspended, {:parts, parts}, rest} ->
        {parts, {request, demand, rest, true}}

      {:suspended, {:end, :normal}, rest} ->
        close(rest)
        Request.finish(request, {:ok, :parts})
        {:halt, :ended}

      {:suspended, {:end, reason}, rest} ->
        close(rest)
        again(state, Request.error(request, reason), any?)
    end
  end

  defp again({request, demand, _from_here, _any?}, error, any?) do
    with false <- any?,
         {:ok, next} <- Failover.retry(request, error),
         {:ok, next} <- Request.target(next) do
      Failover.tell(request, next.node, error)
      {[], {next, demand, open(next, demand), false}}
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

  defp halt({request, _demand, from_here, _any?}) do
    close(from_here)
    Request.finish(request, nil)
  end

  defp close(from_here), do: from_here.({:halt, nil})
end
