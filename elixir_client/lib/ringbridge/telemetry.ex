defmodule Ringbridge.Telemetry do
  @moduledoc """
  What the client tells [telemetry](https://hexdocs.pm/telemetry), where that package is there. It is no dependency: an
  instance looks for it once, when it starts. Durations are in native units, as telemetry's own are.

  | event | when | measurements | metadata |
  |---|---|---|---|
  | `[:ringbridge, :job, :start]` | a job is about to be sent | `system_time` | `instance`, `verb`, `role`, `trace`, `id` |
  | `[:ringbridge, :job, :stop]` | the bridge has answered, be it with an error, or the caller has shut the job down | `duration`; `queue_us`, `run_us` if known | those, `node`, `outcome`, `error`, `job`, `worker` |
  | `[:ringbridge, :job, :exception]` | no bridge answered: a timeout, a lost bridge, none connected | `duration` | those, `kind` (`:error`), `reason` (a `Ringbridge.Error`), `stacktrace` (`[]`) |
  | `[:ringbridge, :job, :failover]` | the job is sent again, to the bridge `to` | `count` (1) | `instance`, `id`, `role`, `node` (the first), `to`, `error` |
  | `[:ringbridge, :lane, :up]` | a bridge is connected | `round_trip_us` | `instance`, `node` |
  | `[:ringbridge, :lane, :down]` | it is lost | `up_us` | `instance`, `node`, `reason` |
  | `[:ringbridge, :lane, :open]` | a lane over shared memory is open | `open_us` | `instance`, `node`, `lane` (`:nif`) |
  | `[:ringbridge, :lane, :figures]` | every five seconds while it is open | `sent`, `answered`, `dropped`, `cancelled`, `full`, `wakes`, `open`, `held_bytes` | those |
  | `[:ringbridge, :lane, :close]` | it has ended | `up_us` | those, `reason` |
  | `[:ringbridge, :lane, :fallback]` | there is none to be had: calls go over the distribution | `count` (1) | `instance`, `node`, `reason` (text) |
  | `[:ringbridge, :lane, :retry]` | an attempt to connect has failed | `attempt` | `instance`, `node`, `reason` |
  | `[:ringbridge, :worker, :health]` | `Ringbridge.Poller` has asked, or looked: one for each worker | those of `in_flight`, `done`, `lost`, `credit`, `service_us`, `silent_ms`, `restarts`, `waiting`, `failed`, `last_run_us`, `pulses`, `still_ms` that the bridge knows | `instance`, `node`, `role`, `worker`, `index`, `state`, `breaker`, `os_pid`, `kit`, `ready` |
  | `[:ringbridge, :worker, :up]` | a worker takes jobs that did not at the last poll | `count` (1), `restarts` | those but `ready` |
  | `[:ringbridge, :worker, :down]` | a worker takes none that did | `count` (1), `done` | those, `state` now or `:gone`, `why` if it ended wrongly |
  | `[:ringbridge, :role, :load]` | as `health`: one for each role | `queued`, `deferred`, `running`, `workers_ready`, `accepted`, `answered`, `refused`, `depth_max` | `instance`, `node`, `role`, `state`, `breaker` |
  | `[:ringbridge, :poll, :stop]` | a bridge has answered the poller, or its memory was read | `duration` | `instance`, `node`, `lane` (`:dist`, `:nif`) |
  | `[:ringbridge, :poll, :exception]` | it has not answered, or cannot be asked | `count` (1) | `instance`, `node`, `kind` (`:error`), `reason` (a `Ringbridge.Error`), `stacktrace` (`[]`) |
  | `[:ringbridge, :server, :start]` | a `Ringbridge.Server` is about to start its bridge | `system_time`, `starts` (this one is the n-th) | `server`, `node` |
  | `[:ringbridge, :server, :ready]` | the bridge answers | `start_us` | those, `os_pid` |
  | `[:ringbridge, :server, :exit]` | it has ended, or was not started | `up_us` since it was ready, else 0 | `server`, `node`, `how` (`t:Ringbridge.Server.ending/0`), `stopped` (whether it was asked to) |
  | `[:ringbridge, :server, :restart]` | it will be started again, after a pause | `pause_ms`, `failures` in a row | `server`, `node`, `how` |
  | `[:ringbridge, :server, :give_up]` | it will not: the server ends | `failures` | those |

  `verb` is `:submit`, `:submit_many`, `:cast` or `:stream`; `outcome` is `:ok`, `:error` or `:shutdown`; `error` is a
  `Ringbridge.Error` or `nil`; `trace` the traceparent or `nil`. Of a batch `outcome` is the whole's: look at its answers for
  the elements'. A process that is killed while it waits tells nothing; nor is a subscription of `Ringbridge.producer/5` told, whose
  end is its consumer's, nor the end of a bridge whose server was killed with it.

  ## From a call to a worker's line in the log

  Each event of one job has the same `id`, made by the client. `job` and `worker` of `:stop` are the bridge's ids, which stand in its log beside each line that a
  worker writes (`worker output`, `job lost`), and in `{:jobs, role}`. They are known of an answer with `detail: true`, and of a
  worker's death; of every call's answer if the instance has `correlate: true`, which asks for the detail and keeps it from the caller. They are `nil` otherwise. Before the answer
  a job is found by what the call gave as `meta:`, in `{:jobs, role}` and, when it is lost, in the log; the worker itself is handed `trace`.

  ## The rest

  `attach_default_logger/1` writes a line for what is worth one. `metrics/0` is the list of metrics as data, `definitions/0` the same as structs where
  `Telemetry.Metrics` is loaded.
  """
  @compile {:no_warn_undefined, [:telemetry, Telemetry.Metrics]}

  require Logger

  @handler "ringbridge-default-logger"

  @doc "Whether the package `telemetry` is there."
  @spec available?() :: boolean()
  def available?,
    do: Code.ensure_loaded?(:telemetry) and function_exported?(:telemetry, :execute, 3)

  @doc false
  @spec job(Ringbridge.Instance.t(), atom(), map(), map()) :: :ok
  def job(instance, event, measurements, metadata),
    do: execute(instance, [:ringbridge, :job, event], measurements, metadata)

  @doc false
  @spec lane(Ringbridge.Instance.t(), atom(), map(), map()) :: :ok
  def lane(instance, event, measurements, metadata),
    do: execute(instance, [:ringbridge, :lane, event], measurements, metadata)

  @doc false
  @spec polled(atom(), [atom()], map(), map()) :: :ok
  def polled(instance, event, measurements, metadata),
    do:
      execute(%{telemetry?: true, name: instance}, [:ringbridge | event], measurements, metadata)

  # A server is no instance, and is named by itself.
  @doc false
  @spec server(boolean(), atom(), map(), map()) :: :ok
  def server(true, event, measurements, metadata),
    do: :telemetry.execute([:ringbridge, :server, event], measurements, metadata)

  def server(false, _event, _measurements, _metadata), do: :ok

  defp execute(%{telemetry?: true} = instance, event, measurements, metadata),
    do: :telemetry.execute(event, measurements, Map.put(metadata, :instance, instance.name))

  defp execute(_instance, _event, _measurements, _metadata), do: :ok

  @doc """
  Writes a log line for each job without an answer, each failover, and each bridge that comes or goes.

  Options: `:level` (default `:info`). `{:error, :no_telemetry}` where the package is not there.
  """
  @spec attach_default_logger(keyword()) :: :ok | {:error, :already_exists | :no_telemetry}
  def attach_default_logger(options \\ []) do
    if available?() do
      level = Keyword.get(options, :level, :info)
      :telemetry.attach_many(@handler, logged(), &__MODULE__.log/4, %{level: level})
    else
      {:error, :no_telemetry}
    end
  end

  @doc "Takes it back."
  @spec detach_default_logger() :: :ok | {:error, :not_found | :no_telemetry}
  def detach_default_logger do
    if available?(), do: :telemetry.detach(@handler), else: {:error, :no_telemetry}
  end

  defp logged do
    for {group, event} <- [job: :exception, job: :failover, lane: :up, lane: :down],
        do: [:ringbridge, group, event]
  end

  @doc false
  @spec log([atom()], map(), map(), map()) :: :ok
  def log([:ringbridge, _group, event], measurements, metadata, %{level: level}) do
    Logger.log(level, fn ->
      "#{inspect(metadata.instance)}: " <> line(event, measurements, metadata)
    end)
  end

  defp line(:exception, %{duration: duration}, %{reason: error}) do
    ms = System.convert_time_unit(duration, :native, :millisecond)
    "no answer after #{ms} ms: #{Exception.message(error)}"
  end

  defp line(:failover, _measurements, %{to: to, error: error}),
    do: "sent again to #{to}: #{Exception.message(error)}"

  defp line(:up, %{round_trip_us: us}, %{node: node}), do: "#{node} is connected, #{us} us away"

  defp line(:down, %{up_us: us}, %{node: node, reason: reason}),
    do: "#{node} is lost (#{inspect(reason)}) after #{div(us, 1_000_000)} s"

  @doc """
  The metrics worth having, as data: kind, name, tags and unit in the words of `Telemetry.Metrics`.

      iex> hd(Ringbridge.Telemetry.metrics())
      {:counter, "ringbridge.job.stop.duration", [tags: [:instance, :role, :outcome], description: "jobs that were answered"]}
  """
  @spec metrics() :: [{atom(), String.t(), keyword()}]
  def metrics do
    [
      {:counter, "ringbridge.job.stop.duration",
       tags: [:instance, :role, :outcome], description: "jobs that were answered"},
      {:distribution, "ringbridge.job.stop.duration",
       tags: [:instance, :role],
       unit: {:native, :millisecond},
       description: "how long an answer took",
       reporter_options: [buckets: [1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 30_000]]},
      {:counter, "ringbridge.job.exception.duration",
       tags: [:instance, :role], description: "jobs that nobody answered"},
      {:counter, "ringbridge.job.failover.count",
       tags: [:instance, :node], description: "jobs that were sent again to another bridge"},
      {:last_value, "ringbridge.lane.up.round_trip_us",
       tags: [:instance, :node], description: "how far a bridge was when it was connected"},
      {:counter, "ringbridge.lane.down.up_us",
       tags: [:instance, :node], description: "bridges that were lost"},
      {:last_value, "ringbridge.worker.health.in_flight",
       tags: [:node, :role, :worker], description: "jobs that a worker has in hand"},
      {:last_value, "ringbridge.worker.health.silent_ms",
       tags: [:node, :role, :worker],
       unit: :millisecond,
       description: "since a worker's last heartbeat"},
      {:last_value, "ringbridge.worker.health.still_ms",
       tags: [:node, :role, :worker],
       unit: :millisecond,
       description: "how long a worker has had jobs without a sign of them"},
      {:counter, "ringbridge.worker.down.count",
       tags: [:node, :role], description: "workers that took jobs and do no more"},
      {:last_value, "ringbridge.role.load.queued",
       tags: [:node, :role], description: "jobs that wait"},
      {:last_value, "ringbridge.role.load.workers_ready",
       tags: [:node, :role], description: "workers that take jobs"},
      {:last_value, "ringbridge.role.load.refused",
       tags: [:node, :role], description: "jobs not taken in, since the bridge began"},
      {:counter, "ringbridge.poll.exception.count",
       tags: [:node], description: "questions that a bridge has not answered"},
      {:last_value, "ringbridge.server.ready.start_us",
       tags: [:server],
       unit: :microsecond,
       description: "how long a bridge of this VM took to start"},
      {:counter, "ringbridge.server.restart.pause_ms",
       tags: [:server], description: "bridges of this VM that ended and are started again"},
      {:counter, "ringbridge.server.give_up.failures",
       tags: [:server], description: "servers that gave up"}
    ]
  end

  @doc "The same as structs of `Telemetry.Metrics`, for a reporter; raises where that package is not there."
  @spec telemetry_metrics() :: [struct()]
  def telemetry_metrics do
    for {kind, name, options} <- metrics(), do: apply(Telemetry.Metrics, kind, [name, options])
  end

  @doc "Structs of `Telemetry.Metrics` where that package is loaded, else the same as data: for a reporter of either kind."
  @spec definitions() :: [struct()] | [{atom(), String.t(), keyword()}]
  def definitions,
    do: if(Code.ensure_loaded?(Telemetry.Metrics), do: telemetry_metrics(), else: metrics())
end
