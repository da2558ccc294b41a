defmodule Ringbridge.Request do
  @moduledoc """
  A job that was asked for and has no answer yet: what `Ringbridge.async/4` returns.

  It belongs to the process that made it: only that one can wait for it, and its end cancels the job. `Ringbridge.Failover` says
  when it is sent again.
  """
  alias Ringbridge.{
    Deadline,
    Error,
    Failover,
    Instance,
    ResultIngestor,
    Route,
    SchemaGuard,
    Telemetry,
    Trace
  }

  alias Ringbridge.Request.Options

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
    :id,
    :started,
    :lane,
    :to,
    :ref,
    :node,
    :epoch,
    :answer,
    :held,
    :demand,
    :ingest,
    jobs: [],
    options: [],
    until_ms: :infinity,
    job_until_ms: :role,
    idempotent?: false,
    correlated?: false,
    again?: false,
    tried: []
  ]

  @type verb :: :submit | :submit_many | :cast | :stream | :producer

  @typedoc "Its fields are nobody else's business."
  @type t :: %__MODULE__{
          instance: Instance.t() | nil,
          verb: verb(),
          role: term(),
          payload: term(),
          owner: pid(),
          id: pos_integer() | nil,
          started: integer(),
          lane: module() | nil,
          to: Ringbridge.Lane.to(),
          ref: reference() | nil,
          node: node() | nil,
          epoch: Route.epoch(),
          answer: {:error, Error.t()} | nil,
          held: Error.t() | nil,
          demand: pos_integer() | nil,
          ingest: ResultIngestor.plan(),
          jobs: [module()],
          options: keyword(),
          until_ms: Deadline.t(),
          job_until_ms: Deadline.t() | :role,
          idempotent?: boolean(),
          correlated?: boolean(),
          again?: boolean(),
          tried: Route.tried()
        }

  @doc """
  Checks a call, and tells that it begins; its job is not sent yet. `more`: of jobs that are structs (`Ringbridge.JobDispatcher`),
  their modules, how their answer is read, and the answer if they are refused already.
  """
  @spec new(atom(), verb(), term(), term(), term(), keyword()) :: t()
  def new(name, verb, role, payload, options, more \\ []),
    do: begun(checked(name, verb, role, payload, options, more))

  @doc "The same without a word to telemetry, for a job whose end is told elsewhere."
  @spec checked(atom(), verb(), term(), term(), term(), keyword()) :: t()
  def checked(name, verb, role, payload, options, more \\ []) do
    request = %__MODULE__{
      verb: verb,
      role: role,
      payload: payload,
      owner: self(),
      id: System.unique_integer([:positive]),
      started: System.monotonic_time(),
      ingest: more[:ingest],
      jobs: Keyword.get(more, :jobs, []),
      answer: more[:answer]
    }

    with {:ok, instance} <- Instance.fetch(name),
         {:ok, request} <- Options.take(%{request | instance: instance}, options) do
      request |> traced() |> correlated()
    else
      {:error, error} -> refused(request, error)
    end
  end

  @doc "A request that is answered already: by what is wrong with it, the first of several."
  @spec refused(t(), Error.t()) :: t()
  def refused(%{answer: nil} = request, error),
    do: %{request | answer: {:error, %{error | role: request.role}}}

  def refused(request, _error), do: request

  defp traced(request) do
    case {Keyword.has_key?(request.options, :trace), Trace.current()} do
      {false, traceparent} when traceparent != nil ->
        %{request | options: [{:trace, traceparent} | request.options]}

      _ ->
        request
    end
  end

  # The detail is asked for, told to telemetry, and kept from a caller who has not asked for it.
  defp correlated(%{verb: :submit, instance: %{telemetry?: true, correlate?: true}} = request) do
    if Keyword.get(request.options, :detail) == true,
      do: request,
      else: %{request | correlated?: true, options: [{:detail, true} | request.options]}
  end

  defp correlated(request), do: request

  defp begun(%{answer: nil} = request) do
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
        outcome = request.lane.call(request.to, message(request), Deadline.left(request.until_ms))
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
        case request.lane.cast(request.to, message(request)) do
          :ok -> finish(request, :ok)
          outcome -> conclude(request, outcome)
        end

      {:error, reason} ->
        unreachable(request, reason)
    end
  end

  def cast(request), do: request.answer

  @doc "Waits; a job without an answer by then is cancelled. A timeout that cannot be meant leaves it as it is."
  @spec await(t(), timeout()) :: Ringbridge.answer()
  def await(%{answer: nil} = request, timeout) do
    with :ok <- wait?(request, timeout) do
      request = %{request | until_ms: min(request.until_ms, Deadline.from_now(timeout))}

      case request.lane.await(request.to, request.ref, Deadline.left(request.until_ms)) do
        :timeout -> settle(request, given_up(request))
        outcome -> settle(request, outcome)
      end
    end
  end

  def await(request, _timeout), do: request.answer

  # An answer that has come by now is the answer.
  defp given_up(request) do
    with :ok <- request.lane.cancel(request.to, request.ref), do: :timeout
  end

  @doc "Waits; `nil` when there is no answer by then, and the job goes on."
  @spec yield(t(), timeout()) :: Ringbridge.answer() | nil
  def yield(%{answer: nil} = request, timeout) do
    with :ok <- wait?(request, timeout) do
      case request.lane.await(request.to, request.ref, timeout) do
        :timeout -> nil
        outcome -> conclude(request, outcome)
      end
    end
  end

  def yield(request, _timeout), do: request.answer

  defp wait?(request, timeout) do
    with {:error, error} <- Options.wait?(timeout), do: {:error, %{error | role: request.role}}
  end

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
    # A VM that is no node reaches only itself; to ask for more raises.
    if Node.alive?() or node == Node.self(),
      do: ask_to_cancel(node, job),
      else: {:error, %Error{reason: :not_connected, node: node}}
  end

  defp ask_to_cancel(node, job) do
    case Ringbridge.Lane.Dist.call(node, {:cancel, job}, @cancel_ms) do
      {:answer, :ok} -> :ok
      {:answer, {:error, reason}} -> {:error, %Error{reason: reason, node: node}}
      {:down, reason} -> {:error, %Error{reason: {:down, reason}, node: node}}
      :timeout -> {:error, %Error{reason: :timeout, node: node}}
    end
  end

  # --- Which bridge, and what it is sent ---------------------------------------------------------------------

  @doc false
  @spec target(t()) :: {:ok, t()} | {:error, Error.reason()}
  def target(request) do
    until_ms = connect_until_ms(request)

    case Instance.target(request.instance, request.role, request.tried, until_ms) do
      {:ok, lane, to, {node, epoch}} ->
        request = %{request | lane: lane, to: to, node: node, epoch: epoch}
        with :ok <- SchemaGuard.admit(request), do: {:ok, request}

      {:error, reason} ->
        {:error, reason}
    end
  end

  # Not the grace: that is for an answer, and without a bridge none will come.
  defp connect_until_ms(%{job_until_ms: endless} = request) when is_atom(endless),
    do: request.until_ms

  defp connect_until_ms(request), do: min(request.job_until_ms, request.until_ms)

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
      until_ms -> [{:timeout, Deadline.left(until_ms)} | request.options]
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

  defp element(request, answer) do
    with {:error, reason} <- ResultIngestor.answer(request.ingest, answer) do
      SchemaGuard.refused(request, reason)
      {:error, error(request, reason)}
    end
  end

  @doc false
  @spec error(t(), Error.reason()) :: Error.t()
  def error(request, reason) do
    %Error{reason: reason, role: request.role, node: request.node, again?: request.again?}
  end

  @doc false
  @spec finish(t(), answer) :: answer when answer: term()
  def finish(request, answer) do
    measurements = %{duration: System.monotonic_time() - request.started}

    case answer do
      {:error, %Error{} = error} ->
        if Error.name(error.reason) in @unanswered,
          do:
            told(request, :exception, measurements, %{kind: :error, reason: error, stacktrace: []}),
          else: stopped(request, measurements, :error, error, ids(error.reason))

      nil ->
        stopped(request, measurements, :shutdown, nil, %{})

      {:ok, _result, detail} when is_map(detail) ->
        measurements = Map.merge(measurements, Map.take(detail, [:queue_us, :run_us]))
        stopped(request, measurements, :ok, nil, detail)

      _ok ->
        stopped(request, measurements, :ok, nil, %{})
    end

    asked_for(request, answer)
  end

  # Who did it, as far as the answer tells.
  defp ids({:worker_crashed, ids}) when is_map(ids), do: ids
  defp ids({:stage, _at, _role, reason}), do: ids(reason)
  defp ids(_reason), do: %{}

  defp stopped(request, measurements, outcome, error, ids) do
    more = %{outcome: outcome, error: error, job: ids[:job], worker: ids[:worker]}
    told(request, :stop, measurements, more)
  end

  defp asked_for(%{correlated?: true}, {:ok, result, _detail}), do: {:ok, result}
  defp asked_for(_request, answer), do: answer

  defp told(request, event, measurements, more) do
    metadata = request |> metadata() |> Map.put(:node, request.node) |> Map.merge(more)
    Telemetry.job(request.instance, event, measurements, metadata)
  end

  defp metadata(request) do
    %{
      id: request.id,
      verb: request.verb,
      role: request.role,
      trace: Keyword.get(request.options, :trace)
    }
  end
end
