defmodule Ringbridge.Inspect.Page do
  @moduledoc "A look at a bridge as lines for people (`Ringbridge.Inspect.Table`): the bridge, its roles, workers, links, what went wrong."

  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.{Table, Units}

  @hops [
    socket_to_queue_us: "socket to queue",
    queue_to_ring_us: "queue to ring",
    ring_to_answer_us: "ring to answer",
    worker_run_us: "of it in the worker",
    answer_to_socket_us: "answer to socket"
  ]

  @doc "All of it; `rates` of `Ringbridge.Inspect.rates/2`."
  @spec lines(Look.t(), Look.rates() | nil) :: [Table.line()]
  def lines(look, rates) do
    [
      head(look),
      figures(look, rates),
      section("roles", roles(look, rates)),
      section("workers", workers(look.status.workers)),
      links(look.links),
      lanes(Map.get(look.status, :lanes)),
      noteworthy(Look.noteworthy(look)),
      errors(Map.get(look.status, :recent_errors))
    ]
    |> Enum.reject(&(&1 == []))
    |> Enum.intersperse([[]])
    |> Enum.concat()
  end

  defp head(%{status: status} = look) do
    layout = if layout = status[:layout], do: ", layout #{layout.version}", else: ""

    [
      [
        {:bright, Table.clean(status.node)},
        "  #{Table.clean(status.version)}#{layout}, process #{status.os_pid}, up #{Units.duration(status.uptime_ms)}, ",
        "at #{look.at}"
      ]
    ]
  end

  defp figures(%{status: %{relay: relay} = status}, rates) do
    others = Enum.map_join(status.connections, ", ", &Table.clean/1)

    [
      [
        "jobs: #{Units.count(relay.accepted)} accepted, #{Units.count(relay.in_flight)} in flight; ",
        "answered: #{counts(relay.answered)}; refused: #{counts(relay.refused)}"
      ],
      ["now: " <> now(rates)],
      ["connected: #{others}"],
      hops(status.hops)
    ]
    |> Enum.reject(&(&1 == nil))
  end

  defp now(nil), do: "not known before a second look"

  defp now(rates) do
    "#{Units.rate(rates.answers)} answers/s, #{Units.rate(rates.refusals)} refusals/s, " <>
      "#{Units.bytes(rates.bytes_in)}/s in, #{Units.bytes(rates.bytes_out)}/s out " <>
      "(over #{Units.microseconds(rates.over_ms * 1_000)})"
  end

  defp counts(by_reason) do
    case for {name, count} <- Enum.sort(by_reason), count > 0, do: "#{name} #{Units.count(count)}" do
      [] -> "none"
      told -> Enum.join(told, ", ")
    end
  end

  # Averages of a sample of the jobs since the start.
  defp hops(%{samples: 0}), do: nil

  defp hops(hops) do
    parts =
      Enum.map_join(@hops, ", ", fn {key, words} ->
        "#{words} #{Units.microseconds(Map.fetch!(hops, key))}"
      end)

    ["a job's way: #{parts} (mean of #{Units.count(hops.samples)})"]
  end

  @doc "The roles as a table."
  @spec roles(Look.t(), Look.rates() | nil) :: [Table.line()]
  def roles(%{status: status}, rates) do
    status.roles
    |> Enum.map(&role(&1, workers_of(status, &1.name), rates && rates.roles[&1.name]))
    |> Table.lines([
      {"role", :left},
      {"state", :left},
      {"breaker", :left},
      {"ready", :right},
      {"queued", :right},
      {"running", :right},
      {"answered", :right},
      {"answers/s", :right},
      {"refused", :right},
      {"refusals/s", :right}
    ])
  end

  defp role(role, workers, rates) do
    running = workers |> Enum.map(&(&1.in_flight || 0)) |> Enum.sum()

    [
      Table.clean(role.name),
      coloured(role.state),
      coloured(role.breaker),
      "#{role.workers_ready} of #{length(workers)}",
      filled(role.queued, role[:depth_max]),
      Units.count(running),
      Units.count(Look.total(role.answered)),
      Units.rate(rates && rates.answers),
      Units.count(Look.total(role.refused)),
      Units.rate(rates && rates.refusals)
    ]
  end

  defp workers_of(status, role),
    do: Enum.filter(status.workers, &(Atom.to_string(&1.role) == role))

  @doc "Workers as a table."
  @spec workers([map()]) :: [Table.line()]
  def workers(workers) do
    workers
    |> Enum.map(&worker/1)
    |> Table.lines([
      {"worker", :right},
      {"role", :left},
      {"state", :left},
      {"breaker", :left},
      {"process", :right},
      {"kit", :left},
      {"in ring", :right},
      {"credit", :right},
      {"running", :right},
      {"done", :right},
      {"lost", :right},
      {"last job", :right},
      {"silent", :right},
      {"restarts", :right}
    ])
  end

  defp worker(worker) do
    health = worker.health || %{}

    [
      Integer.to_string(worker.id),
      "#{worker.role} #{worker.index}",
      coloured(worker.state),
      worker.breaker && coloured(worker.breaker),
      process(worker),
      worker.kit && Table.clean("#{worker.kit} #{worker.kit_version}"),
      health[:waiting] && filled(health[:waiting], worker.link && worker.link.slots),
      number(worker.credit),
      number(worker.in_flight),
      number(worker.done),
      number(worker.lost),
      worker.done not in [nil, 0] && health[:last_run_us] &&
        Units.microseconds(health[:last_run_us]),
      worker.silent_ms && Units.microseconds(worker.silent_ms * 1_000),
      number(worker.restarts)
    ]
  end

  defp process(%{remote: %{node: node}}), do: Table.clean(to_string(node))
  defp process(%{os_pid: nil}), do: nil
  defp process(%{os_pid: os_pid}), do: Integer.to_string(os_pid)

  defp number(nil), do: nil
  defp number(number), do: Units.count(number)

  defp filled(count, nil), do: Units.count(count)

  defp filled(count, most) do
    text = "#{Units.count(count)} of #{Units.count(most)}"
    # Four fifths: soon it will refuse, or wait.
    if count * 5 >= most * 4, do: {:yellow, text}, else: text
  end

  defp links([]), do: []

  defp links(links) do
    rows =
      for link <- links do
        [
          Integer.to_string(link.id),
          "#{link.from} (#{link.from_role})",
          "#{link.to} (#{link.to_role})",
          link.since_ms
          |> DateTime.from_unix!(:millisecond)
          |> DateTime.truncate(:second)
          |> to_string()
        ]
      end

    columns = [{"link", :right}, {"worker", :left}, {"asks", :left}, {"since", :left}]
    section("links between workers", Table.lines(rows, columns))
  end

  # A bridge that is older than these.
  defp lanes(nil), do: []
  defp lanes([]), do: []

  defp lanes(lanes) do
    rows =
      for lane <- lanes do
        [
          "#{lane.lane}",
          Table.clean(to_string(lane.node)),
          "#{lane.os_pid}",
          {if(lane.state == "open", do: :green, else: :yellow), Table.clean(lane.state)},
          number(lane[:requests]),
          number(lane[:answered]),
          number(lane[:open]),
          lane[:lent_blocks] && number(lane.lent_blocks),
          lane[:age_ms] && Units.duration(lane.age_ms)
        ]
      end

    columns = [
      {"lane", :right},
      {"node", :left},
      {"process", :right},
      {"state", :left},
      {"requests", :right},
      {"answered", :right},
      {"open", :right},
      {"lent blocks", :right},
      {"age", :right}
    ]

    section("lanes over shared memory", Table.lines(rows, columns))
  end

  defp noteworthy([]), do: []

  defp noteworthy(sentences),
    do: section("not as usual", Enum.map(sentences, &[{:yellow, Table.clean(&1)}]))

  defp errors(nil), do: []
  defp errors([]), do: []

  defp errors(errors) do
    rows =
      for error <- errors do
        [
          Table.clean(error.at),
          Integer.to_string(error.worker),
          Table.clean(error.role),
          {:red, Table.clean(error.why)}
        ]
      end

    columns = [{"at", :left}, {"worker", :right}, {"role", :left}, {"why", :left}]
    section("workers that ended wrongly, the last first", Table.lines(rows, columns))
  end

  defp section(title, lines), do: [[{:bright, title}] | lines]

  defp coloured(state) when state in [:running, :ready, :closed], do: {:green, "#{state}"}
  defp coloured(state) when state in [:given_up, :open, :held_open], do: {:red, "#{state}"}
  defp coloured(state), do: {:yellow, "#{state}"}
end
