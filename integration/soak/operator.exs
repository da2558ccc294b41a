defmodule Ringbridge.Soak.Operator do
  @moduledoc """
  Somebody who changes the running bridge without a pause: settings, drains, upgrades, restarts, breakers,
  suspended services (docs/operations.md). At the end all of it is put back.
  """

  alias Ringbridge.{Lab, Program}
  alias Ringbridge.Soak.Callers

  @every_ms 400
  @roles [:echo, :sleep, :tight, :again, :ordered, :primes]

  # A pack of cards: each move so often before any comes again.
  @moves [
    configure: 10,
    reload: 3,
    hangup: 2,
    workers: 2,
    drain_role: 3,
    drain_node: 1,
    upgrade: 3,
    restart: 2,
    drain_worker: 2,
    breaker_open: 2,
    breaker_close: 1,
    suspend: 2,
    suspend_streams: 2,
    status: 3,
    refused: 1
  ]
  @pack for {move, count} <- @moves, _ <- 1..count, do: move

  @doc "A process that goes on until the callers are told to stop; it then puts everything back and ends."
  @spec start(Callers.t(), Lab.t()) :: pid()
  def start(callers, bridge) do
    spawn(fn ->
      :rand.seed(:exsss, {callers.seed, -2, 0})
      operate([], callers, bridge)
    end)
  end

  defp operate([], callers, bridge), do: operate(Enum.shuffle(@pack), callers, bridge)

  defp operate([move | pack], callers, bridge) do
    Process.sleep(:rand.uniform(2 * @every_ms))

    if Callers.stopping?(callers) do
      put_back(callers, bridge.node)
    else
      make(move, callers, bridge)
      operate(pack, callers, bridge)
    end
  end

  defp put_back(callers, node) do
    Callers.move(callers, "the operator puts everything back")
    for role <- @roles, do: :ok = ask(node, {:breaker, role, :auto})
    :ok = ask(node, :resume_node)
    for role <- @roles, do: :ok = ask(node, {:resume_role, role})

    Lab.wait_until("the file's settings hold again", 60_000, fn ->
      Process.sleep(100)
      match?({:ok, _}, ask(node, :reload))
    end)

    Lab.wait_until("no upgrade goes on", 60_000, fn ->
      Process.sleep(100)
      Enum.all?(@roles, &(not going?(node, &1)))
    end)

    # A worker that was drained by itself does not come back by itself.
    for worker <- workers(node), worker.state == :drained, do: ask(node, {:restart, worker.id})
  end

  defp going?(node, role) do
    {:ok, %{upgrade: upgrade}} = ask(node, {:lookup, role})
    upgrade != nil and upgrade.state in [:running, :rolling_back]
  end

  # ---- the moves

  defp make(:configure, callers, %{node: node}) do
    role = Enum.random(@roles)

    {key, value} =
      Enum.random([
        {"roles.#{role}.depth_max", 2 + :rand.uniform(4_000)},
        {"roles.#{role}.credit_us", :rand.uniform(1_000)},
        {"roles.#{role}.order.aging_ms", :rand.uniform(1_000) - 1},
        {"roles.#{role}.order.patience_ms", :rand.uniform(2_000) - 1},
        {"roles.#{role}.choice.steal", Enum.random([true, false])},
        {"roles.#{role}.choice.ramp_ms", :rand.uniform(500) - 1},
        {"roles.#{role}.choice.policy",
         Enum.random(~w(shortest_queue round_robin weighted two_choices consistent_hash sticky))},
        {"roles.#{role}.admission.on_full", Enum.random(~w(reject drop_oldest defer))},
        {"roles.#{role}.admission.node_depth_max", :rand.uniform(200) - 1},
        {"roles.#{role}.admission.tenant_depth_max", :rand.uniform(200) - 1},
        {"roles.#{role}.admission.adaptive.limit_max", Enum.random([0, 50, 500])},
        {"roles.#{role}.admission.rate.kind",
         Enum.random(~w(none token_bucket leaky_bucket sliding_window))},
        {"roles.#{role}.breaker.failure_percent", Enum.random([0, 50])},
        {"tenants.one.weight", :rand.uniform(50)},
        {"limits.kept_bytes_max", Enum.random([67_108_864, 33_554_432])}
      ])

    expect_ok(callers, node, {:configure, key, value})
  end

  defp make(:reload, callers, %{node: node}), do: expect_ok(callers, node, :reload)

  defp make(:hangup, callers, bridge) do
    Callers.move(callers, "SIGHUP")
    Program.signal(bridge.program, "HUP")
    Callers.count(callers, :operator, :sighup)
  end

  defp make(:workers, callers, %{node: node}) do
    role = Enum.random([:echo, :again, :ordered, :sleep])
    expect_ok(callers, node, {:configure, "roles.#{role}.workers", :rand.uniform(4)})
  end

  defp make(:drain_role, callers, %{node: node}) do
    role = Enum.random(@roles)
    expect_ok(callers, node, {:drain_role, role})
    Process.sleep(:rand.uniform(150))
    expect_ok(callers, node, {:resume_role, role})
  end

  defp make(:drain_node, callers, %{node: node}) do
    expect_ok(callers, node, :drain_node)
    Process.sleep(:rand.uniform(100))
    expect_ok(callers, node, :resume_node)
  end

  # One that begins while another goes on, or while a worker is being replaced, may be refused in words.
  defp make(:upgrade, callers, %{node: node}),
    do: expect_ok(callers, node, {:upgrade, Enum.random(@roles)})

  defp make(:restart, callers, %{node: node}) do
    expect_ok(callers, node, {:restart, Enum.random(workers(node)).id})
  end

  defp make(:drain_worker, callers, %{node: node}) do
    worker = Enum.random(workers(node))
    expect_ok(callers, node, {:drain, worker.id})
    Process.sleep(:rand.uniform(200))
    expect_ok(callers, node, {:restart, worker.id})
  end

  defp make(:breaker_open, callers, %{node: node}), do: breaker(callers, node, :open)
  defp make(:breaker_close, callers, %{node: node}), do: breaker(callers, node, :close)

  defp make(:suspend, callers, %{node: node}),
    do: suspend(callers, {Ringbridge.JobDispatcher, node})

  defp make(:suspend_streams, callers, %{node: node}),
    do: suspend(callers, {Ringbridge.Streams, node})

  defp make(:status, callers, %{node: node}) do
    {:ok, %{roles: _}} = GenServer.call({Ringbridge.Diagnostics, node}, :status, 30_000)
    _state = :sys.get_state({Ringbridge.JobDispatcher, node}, 30_000)
    Callers.count(callers, :operator, :status)
  end

  # What breaks a rule changes nothing, and says why.
  defp make(:refused, callers, %{node: node}) do
    case ask(node, {:configure, "roles.echo.depth_max", 0}) do
      {:error, {:bad_request, _}} -> Callers.count(callers, :operator, :refused)
      other -> Callers.violation(callers, "a depth of 0 was answered #{inspect(other)}")
    end
  end

  defp breaker(callers, node, how) do
    role = Enum.random(@roles)
    expect_ok(callers, node, {:breaker, role, how})
    Process.sleep(:rand.uniform(150))
    expect_ok(callers, node, {:breaker, role, :auto})
  end

  defp suspend(callers, {name, _node} = service) do
    ms = :rand.uniform(200)
    Callers.move(callers, "#{inspect(name)} is suspended for #{ms} ms")
    :ok = :sys.suspend(service, 30_000)
    Process.sleep(ms)
    :ok = :sys.resume(service, 30_000)
    Callers.count(callers, :operator, :suspend)
  end

  defp expect_ok(callers, node, request) do
    Callers.move(callers, inspect(request))
    kind = if is_tuple(request), do: elem(request, 0), else: request

    case ask(node, request) do
      :ok -> Callers.count(callers, :operator, kind)
      {:ok, _} -> Callers.count(callers, :operator, kind)
      {:error, {:bad_request, why}} -> refused(callers, kind, why)
      other -> Callers.violation(callers, "#{inspect(request)} was answered #{inspect(other)}")
    end
  end

  defp refused(callers, kind, why) do
    Callers.move(callers, "refused: #{why}")
    Callers.count(callers, :operator_refused, kind)
  end

  defp ask(node, request),
    do: GenServer.call({Ringbridge.WorkerRegistry, node}, request, 60_000)

  defp workers(node) do
    {:ok, workers} = ask(node, :list)
    workers
  end
end
