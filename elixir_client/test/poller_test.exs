Code.require_file("support/looks.exs", __DIR__)

defmodule Ringbridge.PollerTest do
  @moduledoc "What a status becomes for telemetry, and how the poller takes what cannot be asked."
  use ExUnit.Case, async: true

  alias Ringbridge.{Looks, Poller}
  alias Ringbridge.Poller.Health

  defp of(events, name), do: for({^name, measurements, who} <- events, do: {measurements, who})

  test "each worker and each role is told of" do
    roles = [Looks.role("echo", %{queued: 3, answered: %{ok: 5, job_failed: 1}})]

    workers = [
      Looks.worker(1, :echo, %{in_flight: 2, done: 6}),
      Looks.worker(2, :echo, %{in_flight: 1})
    ]

    {_seen, events} = Health.events(nil, Looks.status(%{roles: roles, workers: workers}))

    assert [{load, %{role: "echo", state: :running, breaker: :closed}}] =
             of(events, [:role, :load])

    assert %{queued: 3, running: 3, answered: 6, refused: 0, workers_ready: 1, depth_max: 4_096} =
             load

    assert [{first, who}, {_second, %{worker: 2}}] = of(events, [:worker, :health])
    assert %{in_flight: 2, done: 6, silent_ms: 250, waiting: 0, still_ms: 0} = first
    assert %{role: "echo", worker: 1, state: :ready, ready: true, os_pid: 29_814} = who
  end

  test "what nobody knows of a worker is left out, and no zero" do
    worker =
      Looks.worker(1, :echo, %{
        state: :starting,
        health: nil,
        in_flight: nil,
        done: nil,
        silent_ms: nil
      })

    {_seen, events} = Health.events(nil, Looks.status(%{workers: [worker]}))
    [{measurements, %{state: :starting, ready: nil}}] = of(events, [:worker, :health])

    for key <- [:in_flight, :done, :silent_ms, :waiting],
        do: refute(is_map_key(measurements, key))
  end

  test "workers that come and go are told once; at the first look nobody comes" do
    {seen, events} = Health.events(nil, Looks.status())
    assert of(events, [:worker, :up]) == []

    errors = [%{worker: 1, role: "echo", at: "2026", why: "signal 9"}]

    workers = [
      Looks.worker(3, :echo, %{restarts: 1}),
      Looks.worker(2, :sleep, %{state: :draining})
    ]

    status = Looks.status(%{workers: workers, recent_errors: errors})
    {seen, events} = Health.events(seen, status)
    assert [{%{count: 1, restarts: 1}, %{worker: 3}}] = of(events, [:worker, :up])

    downs =
      for {_measurements, who} <- of(events, [:worker, :down]),
          do: {who.worker, who.state, who.why}

    assert Enum.sort(downs) == [{1, :gone, "signal 9"}, {2, :draining, nil}]

    {_seen, events} = Health.events(seen, status)
    assert of(events, [:worker, :up]) ++ of(events, [:worker, :down]) == []
  end

  test "of another life of the bridge nobody has gone" do
    {seen, _events} = Health.events(nil, Looks.status())

    {_seen, events} =
      Health.events(seen, Looks.status(%{os_pid: 5, workers: [Looks.worker(1, :sleep)]}))

    assert of(events, [:worker, :up]) ++ of(events, [:worker, :down]) == []
  end

  test "its options are checked, by their names" do
    assert_raise ArgumentError, ~r/:instance/, fn -> Poller.start_link([]) end

    assert_raise ArgumentError, ~r/:every_ms/, fn ->
      Poller.start_link(instance: A, every_ms: 5)
    end

    assert_raise ArgumentError, ~r/:evry/, fn -> Poller.start_link(instance: A, evry: 5_000) end
  end

  test "without telemetry it asks nobody" do
    pid = start_supervised!({Poller, instance: __MODULE__.None, every_ms: 100})
    assert %{asking: asking} = :sys.get_state(pid)
    assert asking == %{}
    assert {:messages, []} = Process.info(pid, :messages)
  end
end
