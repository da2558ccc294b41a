defmodule Ringbridge.Inspect do
  @moduledoc """
  A bridge as it is now: what `mix ipc.inspect` and `Ringbridge.IEx` show, for programs.

      {:ok, look} = Ringbridge.Inspect.look(:"bridge@127.0.0.1")
      look.status.roles

  Nothing is made up here: a look is what the bridge answers to `:status` of its Diagnostics and to `:list` of its LinkManager
  (docs/inspection.md); rates are differences of two looks. `Ringbridge.Inspect.Page` makes lines of it.
  """
  alias Ringbridge.{Error, Reach}

  @enforce_keys [:node, :status, :links, :at, :at_us]
  defstruct [:node, :status, :links, :at, :at_us]

  @typedoc "`at_us` is this VM's monotonic clock, for rates; `at` the time of day, for people."
  @type t :: %__MODULE__{
          node: node(),
          status: map(),
          links: [map()],
          at: DateTime.t(),
          at_us: integer()
        }

  @typedoc "Per second, between two looks; `nil` where there is no earlier one of the same life of the bridge."
  @type rates :: %{
          over_ms: pos_integer(),
          answers: float(),
          refusals: float(),
          bytes_in: float(),
          bytes_out: float(),
          roles: %{String.t() => %{answers: float(), refusals: float()}}
        }

  @doc "Asks a bridge to which this VM is connected, or may connect. Never exits."
  @spec look(node()) :: {:ok, t()} | {:error, Error.t()}
  def look(node) do
    with {:ok, status} <- Reach.ask(node, Ringbridge.Diagnostics, :status),
         {:ok, links} <- Reach.ask(node, Ringbridge.LinkManager, :list) do
      {:ok,
       %__MODULE__{
         node: node,
         status: status,
         links: links,
         at: DateTime.utc_now() |> DateTime.truncate(:second),
         at_us: System.monotonic_time(:microsecond)
       }}
    end
  end

  @doc "The look with one role only, and its workers and links; `:error` if the bridge has no such role."
  @spec only(t(), String.t() | nil) :: {:ok, t()} | :error
  def only(look, nil), do: {:ok, look}

  def only(%{status: status} = look, role) do
    case Enum.filter(status.roles, &(&1.name == role)) do
      [] ->
        :error

      roles ->
        mine? = &(Atom.to_string(&1) == role)
        errors = status |> Map.get(:recent_errors, []) |> Enum.filter(&(&1.role == role))
        workers = Enum.filter(status.workers, &mine?.(&1.role))
        links = Enum.filter(look.links, &(mine?.(&1.from_role) or mine?.(&1.to_role)))
        status = %{status | roles: roles, workers: workers}
        {:ok, %{look | status: Map.put(status, :recent_errors, errors), links: links}}
    end
  end

  @doc """
  What happened between two looks at one life of a bridge. `nil` when there is no earlier one, or when the bridge has begun anew
  since: its counters have, too.
  """
  @spec rates(t() | nil, t()) :: rates() | nil
  def rates(nil, _now), do: nil

  def rates(then, now) do
    same_life? = then.status.os_pid == now.status.os_pid and then.node == now.node
    over_us = now.at_us - then.at_us

    if same_life? and over_us > 0 and then.status.uptime_ms <= now.status.uptime_ms do
      per_s = fn figure -> (figure.(now.status) - figure.(then.status)) * 1_000_000 / over_us end

      %{
        over_ms: max(div(over_us, 1_000), 1),
        answers: per_s.(&total(&1.relay.answered)),
        refusals: per_s.(&total(&1.relay.refused)),
        bytes_in: per_s.(& &1.relay.bytes_in),
        bytes_out: per_s.(& &1.relay.bytes_out),
        roles: role_rates(then.status.roles, now.status.roles, over_us)
      }
    end
  end

  # A role that has come since has no rate yet. One that went and came again counts anew.
  defp role_rates(then, now, over_us) do
    for earlier <- then,
        later <- now,
        earlier.name == later.name and earlier.accepted <= later.accepted,
        into: %{} do
      per_s = fn key ->
        (total(Map.fetch!(later, key)) - total(Map.fetch!(earlier, key))) * 1_000_000 / over_us
      end

      {later.name, %{answers: per_s.(:answered), refusals: per_s.(:refused)}}
    end
  end

  @doc "The whole of a map of counts, such as `answered`."
  @spec total(%{atom() => non_neg_integer()}) :: non_neg_integer()
  def total(counts), do: counts |> Map.values() |> Enum.sum()

  @doc "The look and its rates as one map, for JSON. Pids are left out: no other program has them."
  @spec to_map(t(), rates() | nil) :: map()
  def to_map(look, rates) do
    workers = Enum.map(look.status.workers, &Map.delete(&1, :pid))

    %{
      node: look.node,
      at: DateTime.to_iso8601(look.at),
      status: %{look.status | workers: workers},
      links: look.links,
      rates: rates
    }
  end

  @doc """
  What is not as usual, as sentences that name the way out: breakers, drains, upgrades, workers that are gone, hung or not ready.
  """
  @spec noteworthy(t()) :: [String.t()]
  def noteworthy(%{status: status}) do
    Enum.flat_map(status.roles, &of_role/1) ++ Enum.flat_map(status.workers, &of_worker/1)
  end

  defp of_role(role) do
    [
      role.state == :draining and "it drains: `ringbridge resume #{role.name}` takes jobs again",
      role.state == :given_up and
        "its workers are given up: mend the program, then `ringbridge restart ID`",
      role.breaker != :closed and
        "its circuit breaker is #{role.breaker}: its workers failed too often of late",
      role.deferred > 0 and "#{role.deferred} jobs wait outside its queue (deferred)",
      overloads(role.overloaded_by),
      upgrade(role.upgrade)
    ]
    |> Enum.filter(& &1)
    |> Enum.map(&"#{role.name}: #{&1}")
  end

  defp overloads(by_rule) do
    told = for {rule, count} <- Enum.sort(by_rule), count > 0, do: "#{rule} #{count}"
    told != [] and "jobs refused as overloaded since its start, by rule: #{Enum.join(told, ", ")}"
  end

  defp upgrade(nil), do: false
  defp upgrade(%{state: :done}), do: false

  defp upgrade(upgrade) do
    why = if upgrade.why, do: ": #{upgrade.why}", else: ""
    "upgrade #{upgrade.state}, #{upgrade.replaced} of #{upgrade.of} workers replaced#{why}"
  end

  # A kit says every 500 ms that its process runs.
  @silent_ms 5_000

  defp of_worker(worker) do
    [
      worker.breaker not in [nil, :closed] and "its circuit breaker is #{worker.breaker}",
      is_integer(worker.silent_ms) and worker.silent_ms > @silent_ms and
        "no sign of life for #{div(worker.silent_ms, 1_000)} s: `ringbridge restart #{worker.id}` replaces it",
      match?(%{ready: false}, worker.health) and worker.state == :ready and
        "says that it wants no jobs for now",
      worker.state == :given_up and "is given up: #{worker.last_error}"
    ]
    |> Enum.filter(& &1)
    |> Enum.map(&"worker #{worker.id} (#{worker.role}): #{&1}")
  end
end
