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

  It knows `{:submit, role, payload}` and `{:submit, role, payload, opts}` with `:opcode`, `:timeout`, `:trace` and `:orphan`, and `:stats`.
  Everything else that a bridge's dispatcher can is answered `{:error, {:bad_request, why}}`. A caller that dies takes its job along, and so does a
  call of the client that gives up (`mode: :local` of `Ringbridge`); one whose own `GenServer.call` times out does so only with the job's
  `:timeout`, as a process cannot see that of another.

  Options:

    * `:roles` (required) - names of roles, atoms or binaries
    * `:depth_max` - how many jobs of a role may wait, rounded up to a power of two; 1024 by default
    * `:timeout` - of a job that names none, in milliseconds; 60000 by default
    * `:starting` - whether jobs of a role without workers wait for one until their deadline, as at a bridge that is starting its workers again;
      false by default: they are answered `:no_worker`
    * `:register` - whether it has the names `Ringbridge.JobDispatcher` and `Ringbridge.RemoteWorkers` of this node; true by default.
      Without, give its pid to `BeamWorkerLoop`'s `:bridge`, and call it by its pid
  """
  use GenServer

  alias Ringbridge.BeamWorkerLoop.Job
  alias Ringbridge.InMemoryRing

  @names [Ringbridge.JobDispatcher, Ringbridge.RemoteWorkers]
  @answer_bytes_max 64 * 1024 * 1024
  @options [:roles, :depth_max, :timeout, :starting, :register]
  # The longest that a timer takes.
  @timeout_max_ms 4_294_967_295

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
       starting?: Keyword.get(options, :starting, false),
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
    defaults = %{opcode: 0, timeout: bridge.timeout, trace: nil, orphan: :cancel}

    if Keyword.keyword?(options) or is_map(options) do
      options = Map.new(options)

      case Enum.find(options, fn {key, value} -> not option?(key, value) end) do
        nil -> {:ok, Map.merge(defaults, options)}
        {key, value} -> {:error, "a local bridge knows no option #{inspect({key, value})}"}
      end
    else
      {:error, "options are a keyword list or a map"}
    end
  end

  defp option?(:opcode, value), do: value in 0..65_535
  defp option?(:timeout, value), do: value == :infinity or value in 0..@timeout_max_ms
  defp option?(:trace, value), do: is_nil(value) or is_binary(value)
  defp option?(:orphan, value), do: value in [:cancel, :finish]
  defp option?(_other, _value), do: false

  defp submit(role, payload, options, from, bridge) do
    id = bridge.last + 1
    ring = bridge.rings[role]

    cond do
      not (bridge.starting? or served?(role, bridge)) ->
        {:reply, {:error, :no_worker}, count(:no_worker, bridge)}

      match?({:error, :full}, InMemoryRing.claim(ring, id)) ->
        {:reply, {:error, {:overloaded, %{retry_after_ms: 10}}}, count(:overloaded, bridge)}

      true ->
        InMemoryRing.publish(ring)
        job = accepted(id, role, payload, options, from)
        bridge = %{bridge | last: id, jobs: Map.put(bridge.jobs, id, job)}
        bridge = update_in(bridge.stats.accepted, &(&1 + 1))
        {:noreply, pump(role, bridge)}
    end
  end

  # Its time runs from here on: one that is refused has none, and leaves its number to the next.
  defp accepted(id, role, payload, %{timeout: timeout} = options, {caller, _} = from) do
    timer = if timeout != :infinity, do: Process.send_after(self(), {:late, id}, timeout)
    until = timer && System.monotonic_time(:millisecond) + timeout
    watch = if options.orphan == :cancel, do: Process.monitor(caller)
    job = %{id: id, role: role, from: from, payload: payload, options: options, until: until}
    Map.merge(job, %{watch: watch, timer: timer, desk: nil, begun?: false})
  end

  defp count(reason, bridge),
    do: update_in(bridge.stats.answered, &Map.update(&1, reason, 1, fn n -> n + 1 end))

  # ---- workers

  @impl GenServer
  def handle_info({:ringbridge_worker, :hello, %{ref: ref, pid: pid} = said}, bridge)
      when is_reference(ref) and is_pid(pid),
      do: {:noreply, greeted(ref, pid, said, bridge)}

  def handle_info({desk, {:gone, reason}}, bridge) when is_map_key(bridge.desks, desk),
    do: {:noreply, leave(desk, reason, bridge)}

  def handle_info({desk, {:ringbridge_worker, kind, said}}, bridge)
      when is_map_key(bridge.desks, desk),
      do: {:noreply, heard(kind, said, nil, desk, bridge)}

  def handle_info({desk, {:ringbridge_worker, kind, said, payload}}, bridge)
      when is_map_key(bridge.desks, desk),
      do: {:noreply, heard(kind, said, payload, desk, bridge)}

  def handle_info({:late, id}, bridge), do: {:noreply, give_up(id, :deadline_exceeded, bridge)}

  # What a relay sees by itself: the client's call has been given up.
  def handle_info({:left, pid, ref}, bridge) do
    ids = for {id, %{from: {^pid, [:alias | ^ref]}}} <- bridge.jobs, do: id
    {:noreply, Enum.reduce(ids, bridge, &give_up(&1, :cancelled, &2))}
  end

  def handle_info({:DOWN, watch, :process, _pid, _reason}, bridge) do
    ids = for {id, %{watch: ^watch}} <- bridge.jobs, do: id
    {:noreply, Enum.reduce(ids, bridge, &give_up(&1, :cancelled, &2))}
  end

  def handle_info(_other, bridge), do: {:noreply, bridge}

  defp greeted(ref, pid, %{role: role, slots: slots, credit: credit} = said, bridge)
       when slots in 1..64 and credit in 1..256 and (is_atom(role) or is_binary(role)) do
    role = to_string(role)

    if is_map_key(bridge.rings, role),
      do: pump(role, let_in(ref, pid, role, said, bridge)),
      else: refuse(ref, pid, :no_role, "there is no role #{role}", bridge)
  end

  defp greeted(ref, pid, _said, bridge),
    do: refuse(ref, pid, :bad_hello, "a hello has role, slots and credit", bridge)

  defp refuse(ref, pid, reason, why, bridge) do
    refused = %{ref: ref, reason: reason, why: why, again: reason == :no_role}
    send(pid, {:ringbridge_worker, :refused, refused})
    bridge
  end

  defp let_in(ref, pid, role, said, bridge) do
    home = self()
    desk = spawn_link(fn -> forward(home, Process.monitor(pid)) end)
    held = Map.new(0..(said.slots - 1), &{&1, []})

    its = %{
      pid: pid,
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

  # One for each registration, so that it is known who speaks. It watches the worker, too: so its end comes behind its last word, and
  # no job that it said to have started is taken for one that it had not.
  defp forward(home, watch) do
    receive do
      :end ->
        :ok

      {:DOWN, ^watch, :process, _pid, reason} ->
        send(home, {self(), {:gone, reason}})
        forward(home, watch)

      message ->
        send(home, {self(), message})
        forward(home, watch)
    end
  end

  defp heard(:started, %{job: id} = said, nil, desk, bridge) do
    if holds?(id, desk, bridge),
      do: put_in(bridge.jobs[id].begun?, true),
      else: broke(:started, said, desk, bridge)
  end

  defp heard(:complete, %{job: id} = said, payload, desk, bridge) do
    case holds?(id, desk, bridge) && outcome(said, payload) do
      {kind, _} = outcome when kind in [:ok, :error] ->
        {job, jobs} = Map.pop(bridge.jobs, id)
        answer = in_time(outcome, job)
        bridge = let_go(id, desk, answer(job, answer, %{bridge | jobs: jobs}))
        pump(bridge.desks[desk].role, drained(desk, bridge))

      _none ->
        broke(:complete, said, desk, bridge)
    end
  end

  defp heard(:heartbeat, %{ready: ready}, nil, desk, bridge) when is_boolean(ready),
    do: pump(bridge.desks[desk].role, put_in(bridge.desks[desk].ready, ready))

  defp heard(:credit, %{credit: credit}, nil, desk, bridge) when credit in 0..256,
    do: pump(bridge.desks[desk].role, put_in(bridge.desks[desk].credit, credit))

  defp heard(:leave, _, nil, desk, bridge),
    do: drained(desk, put_in(bridge.desks[desk].leaves, true))

  # Nobody here asks for parts or progress; who sends them all the same is not held to that.
  defp heard(kind, _, _, _, bridge) when kind in [:part, :progress, :pulse], do: bridge
  defp heard(kind, said, _, desk, bridge), do: broke(kind, said, desk, bridge)

  # A loop begins no job whose time has passed, and may see that before our timer comes.
  defp in_time({:error, :cancelled}, %{until: until} = job) when until != nil do
    if job.from != nil and System.monotonic_time(:millisecond) >= until,
      do: {:error, :deadline_exceeded},
      else: {:error, :cancelled}
  end

  defp in_time(outcome, _job), do: outcome

  defp holds?(id, desk, bridge),
    do: Enum.any?(bridge.desks[desk].held, fn {_, held} -> id in held end)

  # A worker that says what the page does not have is ended by it, as at a bridge.
  defp broke(kind, said, desk, bridge) do
    why =
      "no message of a worker, or of no job that it holds: #{inspect({kind, said}, limit: 10)}"

    ended = %{reason: :broke, why: why, again: true}
    send(bridge.desks[desk].pid, {:ringbridge_worker, :ended, ended})
    leave(desk, why, bridge)
  end

  defp outcome(%{status: :ok}, {kind, bytes} = payload)
       when kind in [:raw, :term] and is_binary(bytes) do
    {:ok, Job.decode(payload)}
  rescue
    ArgumentError -> nil
  end

  defp outcome(%{status: :failed, code: code}, {:raw, text})
       when code in 0..65_535 and is_binary(text),
       do: {:error, {:job_failed, code, text}}

  defp outcome(%{status: :cancelled}, nil), do: {:error, :cancelled}
  defp outcome(_said, _payload), do: nil

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
    send(desk, :end)
    ids = its.held |> Map.values() |> Enum.concat() |> Enum.sort()
    {awaited, left} = Enum.split_with(ids, &bridge.jobs[&1].from)
    {begun, unbegun} = Enum.split_with(awaited, &bridge.jobs[&1].begun?)
    bridge = %{bridge | jobs: Map.drop(bridge.jobs, left)}

    bridge =
      Enum.reduce(begun, bridge, fn id, bridge ->
        {job, jobs} = Map.pop(bridge.jobs, id)
        answer(job, {:error, {:worker_crashed, crash(job, reason)}}, %{bridge | jobs: jobs})
      end)

    bridge = update_in(bridge.returned[its.role], &Enum.sort(unbegun ++ &1))

    if bridge.starting? or served?(its.role, bridge),
      do: pump(its.role, bridge),
      else: refuse_waiting(its.role, bridge)
  end

  defp served?(role, bridge),
    do: Enum.any?(bridge.desks, fn {_, desk} -> desk.role == role end)

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
    held = Map.new(bridge.desks[desk].held, fn {slot, ids} -> {slot, List.delete(ids, id)} end)
    put_in(bridge.desks[desk].held, held)
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
    if job.watch, do: Process.demonitor(job.watch, [:flush])
    if job.timer, do: Process.cancel_timer(job.timer)
    GenServer.reply(job.from, answer)
    count(name(answer), bridge)
  end

  defp name({:ok, _}), do: :ok
  defp name({:error, reason}) when is_atom(reason), do: reason
  defp name({:error, reason}), do: elem(reason, 0)
end
