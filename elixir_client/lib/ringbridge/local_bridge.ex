defmodule Ringbridge.LocalBridge do
  @moduledoc """
  A bridge without native parts, in this VM: for tests, and for machines that native workers do not run on.

  It answers the same requests under the same names as a bridge's node, so callers need not know:

      children = [
        {Ringbridge.LocalBridge, roles: ["reports"]},
        {Ringbridge.BeamWorkerLoop, bridge: node(), role: "reports", module: MyApp.Reports}
      ]

      GenServer.call({Ringbridge.JobDispatcher, node()}, {:submit, :reports, payload})

  Workers are `Ringbridge.BeamWorkerLoop`s, which say to it what they say to a bridge
  (`docs/remote-workers.md`): the code that runs in production is the code that runs here. What waits is in an
  `Ringbridge.InMemoryRing` for each role, bounded as a bridge's queue is.

  It knows `{:submit, role, payload}` and `{:submit, role, payload, opts}` with `:opcode`, `:timeout` and `:trace`, and `:stats`. Everything
  else that a bridge's dispatcher can is answered `{:error, {:bad_request, why}}`. A caller that dies takes its job along; one whose
  own `GenServer.call` times out does so only with the job's `:timeout`, as a process cannot see that of another.

  Options:

    * `:roles` (required) - names of roles, atoms or binaries
    * `:depth_max` - how many jobs of a role may wait, rounded up to a power of two; 1024 by default
    * `:timeout` - of a job that names none, in milliseconds; 60000 by default
    * `:register` - whether it has the names `Ringbridge.JobDispatcher` and `Ringbridge.RemoteWorkers` of this node; true by default.
      Without, give its pid to `BeamWorkerLoop`'s `:bridge`, and call it by its pid
  """
  use GenServer

  alias Ringbridge.BeamWorkerLoop.Job
  alias Ringbridge.InMemoryRing

  @names [Ringbridge.JobDispatcher, Ringbridge.RemoteWorkers]
  @answer_bytes_max 64 * 1024 * 1024
  @options [:roles, :depth_max, :timeout, :register]

  @doc "Options: see the module. Raises ArgumentError that names the option."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    for {key, _} <- options,
        key not in @options,
        do: raise(ArgumentError, "LocalBridge has no option #{inspect(key)}")

    roles = Keyword.get(options, :roles)

    unless is_list(roles) and roles != [] and Enum.all?(roles, &(is_atom(&1) or is_binary(&1))),
      do: raise(ArgumentError, "LocalBridge: :roles is a list of names, not #{inspect(roles)}")

    GenServer.start_link(__MODULE__, options)
  end

  @impl GenServer
  def init(options) do
    if Keyword.get(options, :register, true),
      do: for(name <- @names, do: Process.register(self(), name))

    slots = power_of_two(Keyword.get(options, :depth_max, 1_024))
    roles = Map.new(options[:roles], &{to_string(&1), InMemoryRing.new(slots)})

    {:ok,
     %{
       rings: roles,
       # Jobs that a worker left unbegun: before those that wait in the ring of their role.
       returned: Map.new(roles, fn {role, _} -> {role, []} end),
       timeout: Keyword.get(options, :timeout, 60_000),
       # All that are not answered, or cancelled and not ended by their worker: id -> map
       jobs: %{},
       # desk -> %{pid, watch, role, credit, ready, held: slot -> [id], oldest first}
       desks: %{},
       last: 0,
       stats: %{accepted: 0, answered: %{}}
     }}
  end

  defp power_of_two(n, power \\ 1)
  defp power_of_two(n, power) when power >= n, do: power
  defp power_of_two(n, power), do: power_of_two(n, 2 * power)

  # ---- callers

  @impl GenServer
  def handle_call({:submit, role, payload}, from, bridge),
    do: handle_call({:submit, role, payload, []}, from, bridge)

  def handle_call({:submit, role, payload, options}, from, bridge) do
    with {:ok, role} <- role(role, bridge),
         {:ok, options} <- options(options, bridge) do
      submit(role, payload, options, from, bridge)
    else
      {:error, why} -> {:reply, {:error, {:bad_request, why}}, bridge}
    end
  end

  def handle_call(:stats, _from, bridge) do
    in_flight = Enum.count(bridge.jobs, fn {_, job} -> job.from != nil end)
    {:reply, {:ok, Map.put(bridge.stats, :in_flight, in_flight)}, bridge}
  end

  def handle_call(request, _from, bridge) do
    why =
      "a local bridge knows {:submit, role, payload, opts} and :stats, not #{inspect(request, limit: 5)}"

    {:reply, {:error, {:bad_request, why}}, bridge}
  end

  defp role(role, bridge) when is_atom(role) or is_binary(role) do
    name = to_string(role)
    if is_map_key(bridge.rings, name), do: {:ok, name}, else: {:error, "there is no role #{name}"}
  end

  defp role(role, _), do: {:error, "a role is an atom or a binary, not #{inspect(role)}"}

  defp options(options, bridge) do
    defaults = %{opcode: 0, timeout: bridge.timeout, trace: nil}
    options = Map.new(options)

    case Map.keys(options) -- Map.keys(defaults) do
      [] -> {:ok, Map.merge(defaults, options)}
      [key | _] -> {:error, "a local bridge knows no option #{inspect(key)}"}
    end
  end

  defp submit(role, payload, options, {caller, _} = from, bridge) do
    id = bridge.last + 1

    timer =
      if options.timeout != :infinity,
        do: Process.send_after(self(), {:late, id}, options.timeout)

    until = timer && System.monotonic_time(:millisecond) + options.timeout
    job = %{id: id, role: role, from: from, payload: payload, options: options, until: until}
    ring = bridge.rings[role]

    cond do
      not Enum.any?(bridge.desks, fn {_, desk} -> desk.role == role end) ->
        {:reply, {:error, :no_worker}, count(:no_worker, bridge)}

      match?({:error, :full}, InMemoryRing.claim(ring, id)) ->
        {:reply, {:error, {:overloaded, %{retry_after_ms: 10}}}, count(:overloaded, bridge)}

      true ->
        InMemoryRing.publish(ring)
        watch = Process.monitor(caller)
        job = Map.merge(job, %{watch: watch, timer: timer, desk: nil, begun?: false})
        bridge = %{bridge | last: id, jobs: Map.put(bridge.jobs, id, job)}
        bridge = update_in(bridge.stats.accepted, &(&1 + 1))
        {:noreply, pump(role, bridge)}
    end
  end

  defp count(reason, bridge),
    do: update_in(bridge.stats.answered, &Map.update(&1, reason, 1, fn n -> n + 1 end))

  # ---- workers

  @impl GenServer
  def handle_info({:ringbridge_worker, :hello, %{ref: ref, pid: pid} = said}, bridge) do
    role = to_string(said.role)

    if is_map_key(bridge.rings, role) do
      {:noreply, pump(role, let_in(ref, pid, role, said, bridge))}
    else
      why = "there is no role #{role}"
      refused = %{ref: ref, reason: :no_role, why: why, again: true}
      send(pid, {:ringbridge_worker, :refused, refused})
      {:noreply, bridge}
    end
  end

  def handle_info({desk, {:ringbridge_worker, kind, said}}, bridge)
      when is_map_key(bridge.desks, desk),
      do: {:noreply, heard(kind, said, nil, desk, bridge)}

  def handle_info({desk, {:ringbridge_worker, kind, said, payload}}, bridge)
      when is_map_key(bridge.desks, desk),
      do: {:noreply, heard(kind, said, payload, desk, bridge)}

  def handle_info({:late, id}, bridge), do: {:noreply, give_up(id, :deadline_exceeded, bridge)}

  def handle_info({:DOWN, watch, :process, _pid, reason}, bridge) do
    case Enum.find(bridge.desks, fn {_, desk} -> desk.watch == watch end) do
      {desk, _} ->
        {:noreply, leave(desk, reason, bridge)}

      nil ->
        ids = for {id, %{watch: ^watch}} <- bridge.jobs, do: id
        {:noreply, Enum.reduce(ids, bridge, &give_up(&1, :cancelled, &2))}
    end
  end

  def handle_info(_other, bridge), do: {:noreply, bridge}

  defp let_in(ref, pid, role, said, bridge) do
    home = self()
    desk = spawn_link(fn -> forward(home) end)
    held = Map.new(0..(said.slots - 1), &{&1, []})

    its = %{
      pid: pid,
      watch: Process.monitor(pid),
      role: role,
      credit: said.credit,
      ready: true,
      leaves: false,
      held: held
    }

    welcome = %{
      version: 1,
      ref: ref,
      desk: desk,
      workers: Enum.to_list(1..said.slots),
      heartbeat_ms: Ringbridge.Layout.heartbeat_ms(),
      hang_ms: 0,
      answer_bytes_max: @answer_bytes_max,
      part_bytes_max: Ringbridge.Layout.part_bytes_max(),
      progress_bytes_max: Ringbridge.Layout.progress_bytes_max(),
      features: []
    }

    send(pid, {:ringbridge_worker, :welcome, welcome})
    put_in(bridge.desks[desk], its)
  end

  # One for each registration, so that it is known who speaks.
  defp forward(home) do
    receive do
      :end ->
        :ok

      message ->
        send(home, {self(), message})
        forward(home)
    end
  end

  defp heard(:started, %{job: id}, _, _desk, bridge),
    do: update_in(bridge.jobs[id], &(&1 && %{&1 | begun?: true}))

  defp heard(:complete, %{job: id} = said, payload, desk, bridge) do
    {slot, bridge} = let_go(id, desk, bridge)
    {job, jobs} = Map.pop(bridge.jobs, id)
    if is_nil(slot) or is_nil(job), do: raise("job #{id} is none that #{inspect(desk)} holds")
    bridge = answer(job, outcome(said, payload), %{bridge | jobs: jobs})
    pump(bridge.desks[desk].role, drained(desk, bridge))
  end

  defp heard(:heartbeat, %{ready: ready}, _, desk, bridge) do
    pump(bridge.desks[desk].role, put_in(bridge.desks[desk].ready, ready))
  end

  defp heard(:credit, %{credit: credit}, _, desk, bridge),
    do: pump(bridge.desks[desk].role, put_in(bridge.desks[desk].credit, credit))

  defp heard(:leave, _, _, desk, bridge),
    do: drained(desk, put_in(bridge.desks[desk].leaves, true))

  defp heard(_part_progress_or_pulse, _, _, _, bridge), do: bridge

  defp outcome(%{status: :ok}, payload), do: {:ok, Job.decode(payload)}

  defp outcome(%{status: :failed, code: code}, {:raw, text}),
    do: {:error, {:job_failed, code, text}}

  defp outcome(%{status: :cancelled}, _), do: {:error, :cancelled}

  # A worker that leaves has ended once it holds nothing.
  defp drained(desk, bridge) do
    its = bridge.desks[desk]

    if its.leaves and Enum.all?(its.held, fn {_, held} -> held == [] end) do
      ended = %{reason: :drained, why: "it has left", again: false}
      send(its.pid, {:ringbridge_worker, :ended, ended})
      leave(desk, :normal, bridge)
    else
      bridge
    end
  end

  # It is gone: what it had begun is lost with it, the rest goes to others, in its order.
  defp leave(desk, reason, bridge) do
    {its, bridge} = pop_in(bridge.desks[desk])
    Process.demonitor(its.watch, [:flush])
    send(desk, :end)
    ids = its.held |> Map.values() |> Enum.concat() |> Enum.sort()
    {begun, unbegun} = Enum.split_with(ids, &bridge.jobs[&1].begun?)

    bridge =
      Enum.reduce(begun, bridge, fn id, bridge ->
        {job, jobs} = Map.pop(bridge.jobs, id)
        answer(job, {:error, {:worker_crashed, crash(job, reason)}}, %{bridge | jobs: jobs})
      end)

    bridge = update_in(bridge.returned[its.role], &Enum.sort(unbegun ++ &1))
    nobody? = not Enum.any?(bridge.desks, fn {_, other} -> other.role == its.role end)
    if nobody?, do: refuse_waiting(its.role, bridge), else: pump(its.role, bridge)
  end

  defp crash(job, reason) do
    %{worker: 1, job: job.id, signal: 9, status: nil, oom: false, stderr: inspect(reason)}
  end

  defp refuse_waiting(role, bridge) do
    case take_next(role, bridge) do
      {nil, bridge} -> bridge
      {id, bridge} -> refuse_waiting(role, give_up(id, :no_worker, bridge))
    end
  end

  # ---- from ring to slot

  defp pump(role, bridge) do
    with {desk, slot} <- free_slot(role, bridge),
         {id, bridge} when id != nil <- take_next(role, bridge) do
      pump(role, give(bridge.jobs[id], desk, slot, bridge))
    else
      {nil, bridge} -> bridge
      nil -> bridge
    end
  end

  # The slot that holds the least, below its credit.
  defp free_slot(role, bridge) do
    for(
      {desk, %{role: ^role, ready: true, leaves: false} = its} <- bridge.desks,
      {slot, held} <- its.held,
      length(held) < its.credit,
      do: {length(held), desk, slot}
    )
    |> Enum.min(fn -> nil end)
    |> case do
      nil -> nil
      {_, desk, slot} -> {desk, slot}
    end
  end

  # The next job that somebody still waits for.
  defp take_next(role, bridge) do
    ring = bridge.rings[role]

    case {bridge.returned[role], InMemoryRing.fetch(ring, 0)} do
      {[id | rest], _} ->
        waited(id, role, put_in(bridge.returned[role], rest))

      {[], {:ok, _position, id}} ->
        InMemoryRing.release(ring, 1)
        waited(id, role, bridge)

      {[], :error} ->
        {nil, bridge}
    end
  end

  defp waited(id, role, bridge) do
    if bridge.jobs[id], do: {id, bridge}, else: take_next(role, bridge)
  end

  defp give(job, desk, slot, bridge) do
    left_ms = job.until && max(job.until - System.monotonic_time(:millisecond), 0)

    said = %{
      job: job.id,
      slot: slot,
      opcode: job.options.opcode,
      deadline_ms: left_ms,
      priority: 2,
      trace: job.options.trace,
      parts: nil,
      progress: false
    }

    send(bridge.desks[desk].pid, {:ringbridge_worker, :job, said, Job.encode(job.payload)})
    bridge = put_in(bridge.jobs[job.id].desk, desk)
    update_in(bridge.desks[desk].held[slot], &(&1 ++ [job.id]))
  end

  defp let_go(id, desk, bridge) do
    case Enum.find(bridge.desks[desk].held, fn {_, held} -> id in held end) do
      {slot, _} -> {slot, update_in(bridge.desks[desk].held[slot], &List.delete(&1, id))}
      nil -> {nil, bridge}
    end
  end

  # Nobody waits for it any more: answered, and its worker told to stop; one that waits is not begun.
  defp give_up(id, reason, bridge) do
    case bridge.jobs[id] do
      nil ->
        bridge

      %{desk: nil} = job ->
        answer(job, {:error, reason}, %{bridge | jobs: Map.delete(bridge.jobs, id)})

      %{desk: desk} = job ->
        with %{pid: pid} <- bridge.desks[desk],
             do: send(pid, {:ringbridge_worker, :cancel, %{job: id}})

        bridge = answer(job, {:error, reason}, bridge)
        # A job that went back to the queue is nobody's; one that is held is its worker's to end.
        if is_map_key(bridge.desks, desk),
          do: put_in(bridge.jobs[id].from, nil),
          else: %{bridge | jobs: Map.delete(bridge.jobs, id)}
    end
  end

  defp answer(%{from: nil}, _answer, bridge), do: bridge

  defp answer(job, answer, bridge) do
    Process.demonitor(job.watch, [:flush])
    if job.timer, do: Process.cancel_timer(job.timer)
    GenServer.reply(job.from, answer)
    count(name(answer), bridge)
  end

  defp name({:ok, _}), do: :ok
  defp name({:error, reason}) when is_atom(reason), do: reason
  defp name({:error, reason}), do: elem(reason, 0)
end
