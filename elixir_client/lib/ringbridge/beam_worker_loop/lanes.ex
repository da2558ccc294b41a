defmodule Ringbridge.BeamWorkerLoop.Lanes do
  @moduledoc false
  # The jobs of a loop that come as messages: each slot that has any has a lane, its jobs in their order. The first of a lane
  # runs (Runner), or is about to; the others wait for it.
  #
  # Of the state it has `lanes`, `running`, and in `done` the jobs that have ended. Every job that came is completed once,
  # unless the bridge is gone before (forget/1).
  alias Ringbridge.BeamWorkerLoop.{Desk, Job, Runner, State}

  @type lanes :: %{non_neg_integer() => :queue.queue(Job.t())}

  @typedoc "What runs, by the ref under which its process and the loop know it; `timer`, once it was cancelled, ends it."
  @type running :: %{
          reference() => %{
            id: pos_integer(),
            slot: non_neg_integer(),
            pid: pid(),
            monitor: reference(),
            timer: reference() | nil
          }
        }

  @doc "How many jobs run, and how many wait."
  @spec counted(State.t()) :: {running :: non_neg_integer(), waiting :: non_neg_integer()}
  def counted(loop) do
    held = loop.lanes |> Map.values() |> Enum.map(&:queue.len/1) |> Enum.sum()
    running = map_size(loop.running)
    {running, held - running}
  end

  # ---- what the bridge says

  @doc "A job has come; it is begun if its slot is idle."
  @spec take(map(), Job.payload(), State.t()) :: State.t()
  def take(said, payload, loop) do
    # The clock is cut to milliseconds, so one more: what is found too late here is too late for the bridge.
    deadline =
      said.deadline_ms &&
        System.monotonic_time(:millisecond) + said.deadline_ms + min(said.deadline_ms, 1)

    job = %Job{
      id: said.job,
      slot: said.slot,
      opcode: said.opcode,
      payload: payload,
      deadline: deadline,
      priority: said.priority,
      trace: said.trace,
      parts: said.parts,
      progress?: said.progress,
      term?: elem(payload, 0) == :term,
      loop: self(),
      server: self(),
      ref: make_ref()
    }

    lane = Map.get(loop.lanes, job.slot, :queue.new())
    idle? = :queue.is_empty(lane)
    loop = put_lane(loop, job.slot, :queue.in(job, lane))
    if idle?, do: next(job.slot, loop), else: loop
  end

  @doc "Nobody waits for the job any more: one that runs is told, and ended in its time; one that waits is not begun."
  @spec cancel(pos_integer(), State.t()) :: State.t()
  def cancel(id, loop) do
    case running(id, loop) do
      {ref, %{timer: nil} = its} ->
        send(its.pid, {ref, :cancel})
        timer = Process.send_after(self(), {:end_of, ref}, loop.options.cancel_ms)
        put_in(loop.running[ref], %{its | timer: timer})

      {_ref, _told} ->
        loop

      nil ->
        update_waiting(id, loop, &%{&1 | ref: nil})
    end
  end

  @doc "The job may send so many parts of its answer, counted from its first."
  @spec demand(pos_integer(), non_neg_integer(), State.t()) :: State.t()
  def demand(id, parts, loop) do
    with {ref, its} <- running(id, loop), do: send(its.pid, {ref, :demand, parts})
    update_waiting(id, loop, &%{&1 | parts: parts})
  end

  # ---- what the processes of jobs say

  @doc "A part of the answer, or how far it is."
  @spec said(reference(), :part | :progress, Job.payload(), State.t()) :: State.t()
  def said(ref, kind, payload, loop) do
    Desk.tell(loop, kind, %{job: loop.running[ref].id}, payload)
    loop
  end

  @spec pulse(reference(), State.t()) :: State.t()
  def pulse(ref, loop) do
    Desk.tell(loop, :pulse, %{job: loop.running[ref].id})
    loop
  end

  @doc "The job has ended; the next one of its slot is begun."
  @spec finish(reference(), Runner.outcome(), non_neg_integer(), State.t()) :: State.t()
  def finish(ref, outcome, run_us, loop) do
    {%{timer: timer} = its, running} = Map.pop(loop.running, ref)
    Process.demonitor(its.monitor, [:flush])
    if timer, do: Process.cancel_timer(timer)
    outcome = if timer, do: Runner.stopped(outcome), else: outcome
    complete(its.id, outcome, run_us, loop)
    loop = %{loop | running: running, done: loop.done + 1, pauses: 0}
    next(its.slot, drop_first(its.slot, loop))
  end

  @doc "A process has ended without a word; if it was a job's, that has failed."
  @spec died(reference(), term(), State.t()) :: State.t()
  def died(monitor, reason, loop) do
    case Enum.find(loop.running, fn {_ref, its} -> its.monitor == monitor end) do
      {ref, _its} -> finish(ref, Runner.died(reason), 0, loop)
      nil -> loop
    end
  end

  @doc "A cancelled job's time is over. The DOWN of its process finishes it."
  @spec overdue(reference(), State.t()) :: State.t()
  def overdue(ref, loop) do
    with %{pid: pid} <- loop.running[ref], do: Process.exit(pid, :kill)
    loop
  end

  @doc "What runs is ended, and no job is answered."
  @spec forget(State.t()) :: State.t()
  def forget(loop) do
    for {_ref, its} <- loop.running do
      Process.demonitor(its.monitor, [:flush])
      if its.timer, do: Process.cancel_timer(its.timer)
      Process.exit(its.pid, :kill)
    end

    %{loop | lanes: %{}, running: %{}}
  end

  # ---- a slot's next job

  # The first job of the slot is begun, if there is one; those that nobody waits for, or are too late, are ended unbegun.
  defp next(slot, loop) do
    case :queue.peek(Map.get(loop.lanes, slot, :queue.new())) do
      :empty ->
        loop

      {:value, job} ->
        if job.ref && Job.time_left(job) > 0 do
          begin(job, slot, loop)
        else
          complete(job.id, :cancelled, nil, loop)
          next(slot, drop_first(slot, %{loop | done: loop.done + 1}))
        end
    end
  end

  defp begin(job, slot, loop) do
    Desk.tell(loop, :started, %{job: job.id})
    most = loop.bounds.answer_bytes_max
    {pid, monitor} = Runner.start(loop.options, loop.state, job, most)
    its = %{id: job.id, slot: slot, pid: pid, monitor: monitor, timer: nil}
    put_in(loop.running[job.ref], its)
  end

  defp complete(id, :cancelled, _run_us, loop),
    do: Desk.tell(loop, :complete, %{job: id, status: :cancelled})

  defp complete(id, {:ok, payload}, run_us, loop),
    do: Desk.tell(loop, :complete, %{job: id, status: :ok, run_us: run_us}, payload)

  defp complete(id, {:failed, code, message}, run_us, loop) do
    said = %{job: id, status: :failed, code: code, run_us: run_us}
    Desk.tell(loop, :complete, said, {:raw, message})
  end

  defp running(id, loop), do: Enum.find(loop.running, fn {_ref, its} -> its.id == id end)

  # One that runs has its own copy.
  defp update_waiting(id, loop, change) do
    lanes =
      Map.new(loop.lanes, fn {slot, lane} ->
        {slot, :queue.filter(&if(&1.id == id, do: [change.(&1)], else: true), lane)}
      end)

    %{loop | lanes: lanes}
  end

  defp put_lane(loop, slot, lane), do: %{loop | lanes: Map.put(loop.lanes, slot, lane)}
  defp drop_first(slot, loop), do: put_lane(loop, slot, :queue.drop(loop.lanes[slot]))
end
