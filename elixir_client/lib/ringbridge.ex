defmodule Ringbridge do
  @moduledoc """
  Calls native workers through a bridge, a hidden node of the cluster.

  A call needs nothing of this library: every request is a plain `GenServer.call/3` to a name on the
  bridge's node.

      iex> GenServer.call({Ringbridge.JobDispatcher, :"bridge@127.0.0.1"}, {:submit, :echo, "hello"})
      {:ok, "hello"}

  What stands here is comfort: the same requests as functions with types, and the answers' shapes in one place.

  A caller that times out or dies takes its job along: queued work is dropped, running work is told to stop. So
  the timeout of a call is the job's deadline as far as this caller is concerned, and nothing needs to be
  cleaned up after `exit({:timeout, _})`.
  """

  @typedoc "What kind of work is asked for; the bridge's configuration names its roles."
  @type role :: atom() | binary()

  @typedoc """
  The work itself. A binary crosses as raw bytes; any other term as its external term bytes, which the worker's
  kit decodes. Pids, ports, references and funs may only be answered by a worker if the request carried them.
  """
  @type payload :: binary() | term()

  @typedoc """
  Options of one job, as a map or a keyword list; unknown keys are refused.

    * `:opcode` - which of the role's operations, `0..65535`
    * `:timeout` - milliseconds or `:infinity`, from the request's arrival at the bridge, queueing included; the
      role has a default and a cap
    * `:priority` - the band in the role's queue
    * `:key` - jobs with the same key go to the same worker while it lives
    * `:retry` - how often a started job may run again after its worker died, where the role is idempotent
    * `:tenant` - whose depth and rate limit it counts against
    * `:dedupe` with `:ttl` (milliseconds) - joins the running job of that key, or returns its kept answer
    * `:meta` - a small map that is echoed in logs and status
    * `:trace` - a W3C traceparent
    * `:detail` - `true` for `{:ok, result, %{job: _, worker: _, queue_us: _, run_us: _}}`
  """
  @type option ::
          {:opcode, 0..65_535}
          | {:timeout, timeout()}
          | {:priority, term()}
          | {:key, binary() | atom() | integer()}
          | {:retry, non_neg_integer()}
          | {:tenant, term()}
          | {:dedupe, term()}
          | {:ttl, non_neg_integer()}
          | {:meta, map()}
          | {:trace, binary()}
          | {:detail, boolean()}
  @type options :: [option()] | map()

  @typedoc "A raw answer is a binary; a term answer is whatever the worker's kit encoded."
  @type result :: binary() | term()

  @typedoc "Where a job ran and for how long; given with `detail: true`."
  @type detail :: %{
          job: term(),
          worker: term(),
          queue_us: non_neg_integer(),
          run_us: non_neg_integer()
        }

  @typedoc """
  Why there is no result. The same table serves every language.

    * `{:overloaded, %{retry_after_ms: n}}` - the role's queue is full
    * `{:circuit_open, %{retry_after_ms: n}}` - the role's workers failed too often of late
    * `:deadline_exceeded` - the job's timeout passed, in the queue or in the worker
    * `:cancelled` - another caller cancelled it
    * `:no_worker` - no worker is configured for the role, or it was given up
    * `:draining` - the bridge is about to stop and admits no work
    * `{:too_large, limit_bytes}` - the payload is over the limit
    * `{:worker_crashed, map}` - `:worker`, `:job`, `:signal`, `:status`, `:oom`, `:stderr`
    * `{:worker_broke, rule}` - the worker broke a rule of the fabric and was fenced
    * `{:job_failed, code, message}` - the worker says that the job failed
    * `{:bad_request, why}` - the request is not one of those documented here
    * `{:unauthorized, why}` - this caller may not
  """
  @type reason ::
          {:overloaded, %{retry_after_ms: non_neg_integer()}}
          | {:circuit_open, %{retry_after_ms: non_neg_integer()}}
          | :deadline_exceeded
          | :cancelled
          | :no_worker
          | :draining
          | {:too_large, limit_bytes :: non_neg_integer()}
          | {:worker_crashed, map()}
          | {:worker_broke, rule :: term()}
          | {:job_failed, code :: 0..65_535, message :: binary()}
          | {:bad_request, why :: term()}
          | {:unauthorized, why :: term()}

  @type answer :: {:ok, result()} | {:ok, result(), detail()} | {:error, reason()}

  # How much longer the call waits than the job may take, so that the bridge's own `:deadline_exceeded`, which
  # says more than an exit does, arrives first.
  @grace_ms 1_000

  @doc """
  Submits one job to the bridge on `node` and waits for its answer.

  Without a `:timeout` option the call waits as long as `GenServer.call/2` does, 5 seconds. With one, the
  bridge answers `{:error, :deadline_exceeded}` when it has passed and the call itself waits a second longer.

  Exits as `GenServer.call/3` does: `{:noproc, _}`, `{{:nodedown, node}, _}`, `{:timeout, _}`.

      Ringbridge.submit(:"bridge@127.0.0.1", :sleep, "1500", timeout: 2_000)
  """
  @spec submit(node(), role(), payload(), options()) :: answer()
  def submit(node, role, payload, options \\ []) do
    request = {:submit, role, payload, options}
    GenServer.call({Ringbridge.JobDispatcher, node}, request, call_timeout(options))
  end

  defp call_timeout(options) do
    case Access.fetch(options, :timeout) do
      {:ok, :infinity} -> :infinity
      {:ok, ms} when is_integer(ms) and ms >= 0 -> ms + @grace_ms
      # Absent, or no timeout at all: the bridge answers `{:bad_request, why}` to the latter.
      _ -> 5_000
    end
  end
end
