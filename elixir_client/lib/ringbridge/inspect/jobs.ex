defmodule Ringbridge.Inspect.Jobs do
  @moduledoc "Jobs as a bridge tells of them (`{:jobs, role}`, docs/calling.md), as lines; and how a role's jobs come and go."

  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.{Table, Units}

  @doc "A table of jobs, the oldest first."
  @spec lines([map()]) :: [Table.line()]
  def lines([]), do: [["no job waits or runs"]]

  def lines(jobs) do
    jobs
    |> Enum.map(&row/1)
    |> Table.lines([
      {"job", :right},
      {"role", :left},
      {"state", :left},
      {"worker", :right},
      {"age", :right},
      {"meta", :left}
    ])
  end

  defp row(job) do
    [
      Integer.to_string(job.job),
      Table.clean(to_string(job.role)),
      "#{job.state}",
      job.worker && "#{job.worker}",
      Units.microseconds(job.age_ms * 1_000),
      job[:meta] && Table.clean(inspect(job.meta))
    ]
  end

  @doc """
  What is new between two lists of a role's jobs: each that has come, was placed, or has gone. One that came and went between
  two looks is in neither.
  """
  @spec changes([map()], [map()]) :: [Table.line()]
  def changes(then, now) do
    before = Map.new(then, &{&1.job, &1})
    after_ = Map.new(now, &{&1.job, &1})

    came = for job <- now, not is_map_key(before, job.job), do: ["+ ", told(job)]

    moved =
      for job <- now, earlier = before[job.job], earlier.state != job.state, do: ["  ", told(job)]

    gone =
      for job <- then,
          not is_map_key(after_, job.job),
          do: [
            "- ",
            "job #{job.job} has ended, seen for #{Units.microseconds(job.age_ms * 1_000)}"
          ]

    came ++ moved ++ gone
  end

  defp told(job) do
    at = if job.worker, do: " at worker #{job.worker}", else: ""
    meta = if job[:meta], do: ", #{Table.clean(inspect(job.meta))}", else: ""
    "job #{job.job} #{job.state}#{at}, #{Units.microseconds(job.age_ms * 1_000)} old#{meta}"
  end

  @doc "A line for a worker that has changed."
  @spec worker(map()) :: Table.line()
  def worker(worker) do
    error = if worker.last_error, do: ": " <> Table.clean(worker.last_error), else: ""
    ["* ", "worker #{worker.id} is #{worker.state}#{error}"]
  end

  @doc "What a role has answered and refused between two looks at its bridge, by reason."
  @spec summary(map(), map(), pos_integer()) :: Table.line()
  def summary(then, now, over_ms) do
    answered = differences(then.answered, now.answered)
    refused = differences(then.refused, now.refused)
    sum = Look.total(now.answered) - Look.total(then.answered)

    [
      "#{now.name}: #{Units.count(sum)} answered in #{Units.microseconds(over_ms * 1_000)}#{in_words(answered)}" <>
        if(refused == [], do: "", else: "; refused#{in_words(refused)}")
    ]
  end

  defp differences(then, now) do
    for {reason, count} <- Enum.sort(now), more = count - Map.get(then, reason, 0), more > 0 do
      "#{reason} #{Units.count(more)}"
    end
  end

  defp in_words([]), do: ""
  defp in_words(parts), do: ": " <> Enum.join(parts, ", ")
end
