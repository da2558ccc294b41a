defmodule Ringbridge.Request do
  @moduledoc """
  A job that was asked for and has no answer yet: what `Ringbridge.async/4` returns.

  It belongs to the process that made it: only that one can wait for it, and its end cancels the job. `Ringbridge.Failover` says
  when it is sent again.
  """
  alias Ringbridge.{Error, Failover, Instance, Route, Telemetry, Trace}

  # How much longer the caller waits than the job may take, so that the bridge's `:deadline_exceeded`, which says more
  # than a timeout does, arrives first.
  @grace_ms 1_000

  # A cancel is answered by the relay at once.
  @cancel_ms 5_000

  # Reasons that no bridge has given.
  @unanswered [:timeout, :not_connected, :not_started, :down]

  # A payload may be large, or a secret.
  @derive {Inspect, only: [:verb, :role, :node, :owner]}
  @enforce_keys [:verb, :role, :owner, :started]
  defstruct [
    :instance,
    :verb,
    :role,
    :payload,
    :owner,
    :started,
    :lane,
    :to,
    :ref,
    :node,
    :epoch,
    :answer,
    :held,
    options: [],
    until_ms: :infinity,
    job_until_ms: :role,
    idempotent?: false,
    tried: []
  ]

  @typedoc "Its fields are nobody else's business."
  @type t :: %__MODULE__{
          instance: Instance.t() | nil,
          verb: :submit | :submit_many | :cast | :stream,
          role: term(),
          payload: term(),
          owner: pid(),
          started: integer(),
          lane: module() | nil,
          to: Ringbridge.Lane.to(),
          ref: reference() | nil,
          node: node() | nil,
          epoch: Route.epoch(),
          answer: {:error, Error.t()} | nil,
          held: Error.t() | nil,
          options: keyword(),
          until_ms: integer() | :infinity,
          job_until_ms: integer() | :infinity | :role,
          idempotent?: boolean(),
          tried: Route.tried()
        }

  @doc "Checks a call; its job is not sent yet."
  @spec new(atom(), :submit | :submit_many | :cast | :stream, term(), term(), term()) :: t()
  def new(name, verb, role, payload, options) do
    request = %__MODULE__{
      verb: verb,
      role: role,
      payload: payload,
      owner: self(),
      started: System.monotonic_time()
    }

    with {:ok, instance} <- Instance.fetch(name),
         {:ok, options} <- options(options) do
      begun(timed(%{request | instance: instance}, options))
    else
      {:error, error} -> %{request | answer: {:error, %{error | role: role}}}
    end
  end

  defp options(options) when is_map(options), do: {:ok, Map.to_list(options)}

  defp options(options) do
    if Keyword.keyword?(options),
      do: {:ok, options},
      else: {:error, %Error{reason: {:bad_request, "options are a keyword list or a map"}}}
  end

  defp timed(request, options) do
    {timeout, options} = Keyword.pop(options, :timeout, default(request))
    {idempotent?, options} = Keyword.pop(options, :idempotent, false)
    retry = Keyword.get(options, :retry, 0)

    request = %{
      request
      | options: options,
        idempotent?: idempotent? or (is_integer(retry) and retry > 0)
    }

    case timeout do
      ms when is_integer(ms) and ms >= 0 ->
        %{request | job_until_ms: now_ms() + ms, until_ms: now_ms() + ms + @grace_ms}

      endless when endless in [:infinity, :role] ->
        %{request | job_until_ms: endless}

      other ->
        why = "timeout is milliseconds (0 or more), :infinity or :role; got: #{inspect(other)}"
        %{request | answer: {:error, %Error{reason: {:bad_request, why}, role: request.role}}}
    end
  end

  # A stream takes as long as its consumer does, so it has a deadline only if the call gives one (docs/streams.md).
  defp default(%{verb: :stream}), do: :role
  defp default(request), do: request.instance.timeout

  defp begun(%{answer: nil} = request) do
    options =
      case {Keyword.has_key?(request.options, :trace), Trace.current()} do
        {false, traceparent} when traceparent != nil -> [{:trace, traceparent} | request.options]
        _ -> request.options
      end

    request = %{request | options: options}
    measurements = %{system_time: System.system_time()}
    Telemetry.job(request.instance, :start, measurements, metadata(request))
    request
  end

  defp begun(request), do: request

  @doc "Sends the job and waits for its answer."
  @spec run(t()) :: Ringbridge.answer()
  def run(%{answer: nil} = request) do
    case target(request) do
      {:ok, request} ->
        outcome = request.lane.call(request.to, message(request), left(request.until_ms))
        settle(request, outcome)

      {:error, reason} ->
        unreachable(request, reason)
    end
  end

  def run(request), do: request.answer

  @doc "Sends the job."
  @spec submit(t()) :: t()
  def submit(%{answer: nil} = request) do
    case target(request) do
      {:ok, request} -> %{request | ref: request.lane.submit(request.to, message(request))}
      {:error, reason} -> %{request | answer: unreachable(request, reason)}
    end
  end

  def submit(request), do: request

  @doc "Sends the job for nobody."
  @spec cast(t()) :: :ok | {:error, Error.t()}
  def cast(%{answer: nil} = request) do
    request = %{request | options: Keyword.put(request.options, :orphan, :finish)}

    case target(request) do
      {:ok, request} ->
        :ok = request.lane.cast(request.to, message(request))
        finish(request, :ok)

      {:error, reason} ->
        unreachable(request, reason)
    end
  end

  def cast(request), do: request.answer

  @doc "Waits; a job without an answer by then is cancelled."
  @spec await(t(), timeout()) :: Ringbridge.answer()
  def await(%{answer: nil} = request, timeout) do
    request = %{request | until_ms: min(request.until_ms, from_now(timeout))}

    case request.lane.await(request.to, request.ref, left(request.until_ms)) do
      :timeout ->
        case request.lane.cancel(request.to, request.ref) do
          :ok -> settle(request, :timeout)
          outcome -> settle(request, outcome)
        end

      outcome ->
        settle(request, outcome)
    end
  end

  def await(request, _timeout), do: request.answer

  @doc "Waits; `nil` when there is no answer by then, and the job goes on."
  @spec yield(t(), timeout()) :: Ringbridge.answer() | nil
  def yield(%{answer: nil} = request, timeout) do
    case request.lane.await(request.to, request.ref, timeout) do
      :timeout -> nil
      outcome -> conclude(request, outcome)
    end
  end

  def yield(request, _timeout), do: request.answer

  @doc "Cancels; its answer if that was there already, else `nil`."
  @spec shutdown(t()) :: Ringbridge.answer() | nil
  def shutdown(%{answer: nil} = request) do
    case request.lane.cancel(request.to, request.ref) do
      :ok -> finish(request, nil)
      outcome -> conclude(request, outcome)
    end
  end

  def shutdown(request), do: request.answer

  @doc "The answer, if that is what the message is."
  @spec check(t(), term()) :: Ringbridge.answer() | :other
  def check(%{answer: nil} = request, message) do
    case request.lane.check(request.to, request.ref, message) do
      :other -> :other
      outcome -> conclude(request, outcome)
    end
  end

  def check(_request, _message), do: :other

  @doc "Cancels what is another's, by reference or id, at its bridge."
  @spec cancel(node(), reference() | non_neg_integer()) :: :ok | {:error, Error.t()}
  def cancel(node, job) do
    case Ringbridge.Lane.Dist.call(node, {:cancel, job}, @cancel_ms) do
      {:answer, :ok} -> :ok
      {:answer, {:error, reason}} -> {:error, %Error{reason: reason, node: node}}
      {:down, reason} -> {:error, %Error{reason: {:down, reason}, node: node}}
      :timeout -> {:error, %Error{reason: :timeout, node: node}}
    end
  end

  # --- Which bridge, and what it is sent ---------------------------------------------------------------------

  @doc false
  @spec target(t()) :: {:ok, t()} | {:error, :not_connected | :not_started}
  def target(request) do
    case Instance.target(request.instance, request.role, request.tried, request.until_ms) do
      {:ok, lane, to, {node, epoch}} ->
        {:ok, %{request | lane: lane, to: to, node: node, epoch: epoch}}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @doc false
  @spec message(t()) :: Ringbridge.Lane.message()
  def message(%{verb: :cast} = request), do: message(%{request | verb: :submit})

  def message(request) do
    {request.verb, request.role, request.payload, bridge_options(request)}
  end

  @doc false
  @spec bridge_options(t()) :: keyword()
  def bridge_options(request) do
    case request.job_until_ms do
      :role -> request.options
      :infinity -> [{:timeout, :infinity} | request.options]
      until_ms -> [{:timeout, left(until_ms)} | request.options]
    end
  end

  # --- What came of it ---------------------------------------------------------------------------------------

  defp settle(request, outcome) do
    case answer(request, outcome) do
      {:error, error} -> again(request, error)
      answer -> finish(request, answer)
    end
  end

  defp again(request, error) do
    with {:ok, request} <- Failover.retry(request, error),
         {:ok, next} <- target(request) do
      Failover.tell(request, next.node, error)
      run(request)
    else
      _ -> finish(request, {:error, Failover.verdict(request, error)})
    end
  end

  defp unreachable(request, reason),
    do: finish(request, {:error, %Error{reason: reason, role: request.role}})

  defp conclude(request, outcome), do: finish(request, answer(request, outcome))

  defp answer(request, {:answer, {:ok, answers}}) when request.verb == :submit_many,
    do: {:ok, Enum.map(answers, &element(request, &1))}

  defp answer(request, {:answer, answer}), do: element(request, answer)
  defp answer(request, {:down, reason}), do: {:error, error(request, {:down, reason})}
  defp answer(request, :timeout), do: {:error, error(request, :timeout)}

  defp element(request, {:error, reason}), do: {:error, error(request, reason)}
  defp element(_request, ok), do: ok

  @doc false
  @spec error(t(), Error.reason()) :: Error.t()
  def error(request, reason), do: %Error{reason: reason, role: request.role, node: request.node}

  @doc false
  @spec finish(t(), answer) :: answer when answer: term()
  def finish(request, answer) do
    measurements = %{duration: System.monotonic_time() - request.started}

    case answer do
      {:error, %Error{} = error} ->
        if Error.name(error.reason) in @unanswered,
          do:
            told(request, :exception, measurements, %{kind: :error, reason: error, stacktrace: []}),
          else: told(request, :stop, measurements, %{outcome: :error, error: error})

      nil ->
        told(request, :stop, measurements, %{outcome: :shutdown, error: nil})

      _ok ->
        told(request, :stop, measurements, %{outcome: :ok, error: nil})
    end

    answer
  end

  defp told(request, event, measurements, more) do
    metadata = request |> metadata() |> Map.put(:node, request.node) |> Map.merge(more)
    Telemetry.job(request.instance, event, measurements, metadata)
  end

  defp metadata(request) do
    %{verb: request.verb, role: request.role, trace: Keyword.get(request.options, :trace)}
  end

  defp left(:infinity), do: :infinity
  defp left(until_ms), do: max(0, until_ms - now_ms())
  defp from_now(:infinity), do: :infinity
  defp from_now(ms), do: now_ms() + ms
  defp now_ms, do: System.monotonic_time(:millisecond)
end
