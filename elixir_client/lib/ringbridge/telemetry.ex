defmodule Ringbridge.Telemetry do
  @moduledoc """
  What the client tells [telemetry](https://hexdocs.pm/telemetry), where that package is there. It is no dependency: an
  instance looks for it once, when it starts. Durations are in native units, as telemetry's own are.

  | event | when | measurements | metadata |
  |---|---|---|---|
  | `[:ringbridge, :job, :start]` | a job is about to be sent | `system_time` | `instance`, `verb`, `role`, `trace` |
  | `[:ringbridge, :job, :stop]` | the bridge has answered, be it with an error, or the caller has shut the job down | `duration` | those, `node`, `outcome`, `error` |
  | `[:ringbridge, :job, :exception]` | no bridge answered: a timeout, a lost bridge, none connected | `duration` | those, `kind` (`:error`), `reason` (a `Ringbridge.Error`), `stacktrace` (`[]`) |
  | `[:ringbridge, :job, :failover]` | the job is sent again, to the bridge `to` | `count` (1) | `instance`, `role`, `node` (the first), `to`, `error` |
  | `[:ringbridge, :lane, :up]` | a bridge is connected | `round_trip_us` | `instance`, `node` |
  | `[:ringbridge, :lane, :down]` | it is lost | `up_us` | `instance`, `node`, `reason` |
  | `[:ringbridge, :lane, :open]` | a lane over shared memory is open | `open_us` | `instance`, `node`, `lane` (`:nif`) |
  | `[:ringbridge, :lane, :figures]` | every five seconds while it is open | `sent`, `answered`, `dropped`, `cancelled`, `full`, `wakes`, `open`, `held_bytes` | those |
  | `[:ringbridge, :lane, :close]` | it has ended | `up_us` | those, `reason` |
  | `[:ringbridge, :lane, :fallback]` | there is none to be had: calls go over the distribution | `count` (1) | `instance`, `node`, `reason` (text) |
  | `[:ringbridge, :lane, :retry]` | an attempt to connect has failed | `attempt` | `instance`, `node`, `reason` |

  `verb` is `:submit`, `:submit_many`, `:cast` or `:stream`; `outcome` is `:ok`, `:error` or `:shutdown`; `error` is a
  `Ringbridge.Error` or `nil`; `trace` the traceparent or `nil`. Of a batch `outcome` is the whole's: look at its answers for
  the elements'. A process that is killed while it waits tells nothing; nor is a subscription of `Ringbridge.producer/5` told, whose
  end is its consumer's.

  `attach_default_logger/1` writes a line for what is worth one, `metrics/0` is the list of metrics as data.
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
       tags: [:instance, :node], description: "bridges that were lost"}
    ]
  end

  @doc "The same as structs of `Telemetry.Metrics`, for a reporter; raises where that package is not there."
  @spec telemetry_metrics() :: [struct()]
  def telemetry_metrics do
    for {kind, name, options} <- metrics(), do: apply(Telemetry.Metrics, kind, [name, options])
  end
end
