defmodule Ringbridge.Failover do
  @moduledoc """
  When a job is sent again, and where not to.

    * A bridge refused it in a way that another one may not (`:draining`, `:no_worker`, `:overloaded`, `:circuit_open`, or
      no dispatcher at all): to the next nearest, each bridge once. If all refuse, the first refusal is the answer.
    * The bridge was lost while the job was there: only if the call says that running it twice does no harm, by
      `idempotent: true` or a `retry:` above 0. To another bridge, or to the same one once it is back. Of `retry:` that is one;
      how many of them the lost bridge had used nobody knows.

  Both within the call's own timeout. `yield/2` and `check/2` of `Ringbridge` hear one bridge only: they give what it said.
  """
  alias Ringbridge.{Error, Request, Route, Telemetry}
  alias Ringbridge.Request.Options

  @doc "The request for its next attempt, if it may have one."
  @spec retry(Request.t(), Error.t()) :: {:ok, Request.t()} | :no
  def retry(request, error) do
    cond do
      request.node == nil ->
        :no

      Error.elsewhere?(error) ->
        shun(request, error)
        {:ok, %{request | tried: [request.node | request.tried], held: request.held || error}}

      match?({:down, _}, error.reason) ->
        lost(request, error, Options.retry(request.options))

      true ->
        :no
    end
  end

  defp lost(%{idempotent?: false}, _error, 0), do: :no
  defp lost(request, error, 0), do: over_another(request, error)

  defp lost(request, error, retry) do
    options = Keyword.put(request.options, :retry, retry - 1)
    over_another(%{request | options: options}, error)
  end

  # Not over the connection that was lost, but the same bridge may be back before another one is there. Each is lost
  # twice at most.
  defp over_another(request, error) do
    if length(request.tried) < 2 * length(request.instance.nodes) do
      {:ok, %{request | tried: [{request.node, request.epoch} | request.tried], held: error}}
    else
      :no
    end
  end

  # What concerns all callers. An overload may be one tenant's, so it is this call's affair alone.
  defp shun(request, error) do
    if Error.name(error.reason) in [:draining, :no_worker],
      do: Route.shun(request.instance.name, request.node, request.role)
  rescue
    ArgumentError -> :ok
  end

  @doc """
  What its caller is told when there is no next attempt: the last error, unless that is a refusal and there was one before. A
  loss comes before any refusal, for the job may have run.
  """
  @spec verdict(Request.t(), Error.t()) :: Error.t()
  def verdict(request, error) do
    if Error.elsewhere?(error), do: request.held || error, else: error
  end

  @doc "Tells that it is sent again, to the bridge `to`."
  @spec tell(Request.t(), node(), Error.t()) :: :ok
  def tell(request, to, error) do
    metadata = %{id: request.id, role: request.role, node: request.node, to: to, error: error}
    Telemetry.job(request.instance, :failover, %{count: 1}, metadata)
  end
end
