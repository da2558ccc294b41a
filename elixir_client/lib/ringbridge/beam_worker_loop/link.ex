defmodule Ringbridge.BeamWorkerLoop.Link do
  @moduledoc false
  # Serves one slot of a loop whose link is shared memory (docs/remote-workers.md): takes its jobs out of the link's ring, runs each in a
  # process of its own, and answers there. To the loop, which knows the bridge: {:link, slot, worker, :drained | {:lost, why}}.
  #
  # It never waits for a job: it is always there to beat, to see a cancel, and to end with its loop.
  use GenServer, restart: :temporary

  alias Ringbridge.BeamWorkerLoop.{Job, Links, Runner}
  alias Ringbridge.Lane.Native
  alias Ringbridge.Layout

  @dial_ms 2_000
  # How long a job runs unwatched: most have ended by then, and a look at the bell costs more than they do.
  @unwatched_ms 1
  # For room in the link, which the relay gives back without a word.
  @room_ms 1

  @kit "elixir"
  @kit_version {0, 1}
  @takes %{raw: 1, term: 2, parts: 4}

  defstruct [
    :loop,
    :slot,
    :worker,
    :link,
    :wake,
    :options,
    :state,
    :bounds,
    :counts,
    :job,
    ready: true
  ]

  # What runs: its ref, process, monitor, timer of its end once it was cancelled; the parts that were sent, and that it knows it may send.
  @typep running :: %{
           id: pos_integer(),
           ref: reference(),
           pid: pid(),
           monitor: reference(),
           timer: reference() | nil,
           watched?: boolean(),
           parts?: boolean(),
           sent: non_neg_integer(),
           told: non_neg_integer()
         }

  @doc "The kit as a hello names it."
  @spec kit() :: {binary(), {non_neg_integer(), non_neg_integer()}}
  def kit, do: {@kit, @kit_version}

  @doc "What a hello says of this VM where it can have links itself; `nil`, with a reason, where not."
  @spec memory() :: {:ok, map()} | {:error, String.t()}
  def memory do
    case Native.status() do
      :ok ->
        {version, digest} = Native.worker_about()
        {:ok, %{os_pid: String.to_integer(System.pid()), version: version, digest: digest}}

      {:error, :not_built} ->
        {:error, "the NIF is not built"}

      {:error, text} ->
        {:error, "the NIF does not load: #{text}"}
    end
  rescue
    _ in [ErlangError, UndefinedFunctionError] -> {:error, "the NIF is being replaced"}
  end

  @doc "`offer`: what the bridge said, with `:slot`, `:worker`, `:socket` and `:token`. It is fetched, and served until its end."
  @spec start_link(map(), map(), term(), map(), :counters.counters_ref(), boolean()) :: pid()
  def start_link(offer, options, state, bounds, counts, ready?) do
    {:ok, pid} =
      GenServer.start_link(__MODULE__, {self(), offer, options, state, bounds, counts, ready?})

    pid
  end

  @spec set_ready(pid(), boolean()) :: :ok
  def set_ready(pid, ready?) do
    send(pid, {:set_ready, ready?})
    :ok
  end

  @impl GenServer
  def init({loop, offer, options, state, bounds, counts, ready?}) do
    # For terminate/2, which ends what runs.
    Process.flag(:trap_exit, true)

    link = %__MODULE__{
      loop: loop,
      slot: offer.slot,
      worker: offer.worker,
      wake: make_ref(),
      options: options,
      state: state,
      bounds: bounds,
      counts: counts,
      ready: ready?
    }

    {:ok, link, {:continue, {:open, offer}}}
  end

  @impl GenServer
  def handle_continue({:open, offer}, s) do
    native(s, fn ->
      with :ok <- rung_at_bell(offer),
           {:ok, link} <- Native.worker_open(offer.socket, offer.token, @dial_ms),
           s = %{s | link: link},
           room when is_integer(room) <- Native.worker_bytes_max(link),
           s = bounded(s, room),
           :ok <- greet(s) do
        beat(s)
        next(s)
      else
        :over -> over(s, "the bridge has let go of it")
        {:error, why} -> over(s, why)
      end
    end)
  end

  # The NIF rings there and nowhere else (csrc/include/ringbridge/proxy.h).
  defp rung_at_bell(%{bell: true}), do: :ok
  defp rung_at_bell(_offer), do: {:error, "the bridge does not hear a link's bell"}

  # A job is told that it is too large by its own handler, before anything goes into the link.
  defp bounded(s, room) do
    bounds =
      s.bounds
      |> Map.update!(:answer_bytes_max, &min(&1, room))
      |> Map.put(:part_bytes_max, min(Layout.part_bytes_max(), room))

    %{s | bounds: bounds}
  end

  defp greet(s) do
    {major, minor} = @kit_version
    version = major * 65_536 + minor
    role = to_string(s.options.role)
    ops = for op <- s.options.ops, into: "", do: operation(op)
    Native.worker_greet(s.link, @kit, version, role, ops)
  end

  # struct.worker_op of csrc/layout.toml. What the bridge has let in breaks no rule.
  defp operation(%{opcode: opcode, name: name} = op) do
    takes = op |> Map.get(:takes, []) |> Enum.map(&Map.fetch!(@takes, &1)) |> Enum.sum()
    padding = 28 - byte_size(name)
    <<opcode::native-16, takes::native-16, name::binary, 0::size(padding)-unit(8)>>
  end

  # ---- what it hears

  @impl GenServer
  def handle_info({:select, link, wake, _ready}, %{link: link, wake: wake} = s),
    do: native(s, fn -> look(s) end)

  def handle_info(:look, s), do: native(s, fn -> look(s) end)
  def handle_info(:timeout, %{job: job} = s) when job != nil, do: native(s, fn -> watch(s) end)

  def handle_info({ref, kind, payload}, %{job: %{ref: ref}} = s) when kind in [:part, :progress],
    do: native(s, fn -> said(kind, payload, s) end)

  def handle_info({ref, :pulse}, %{job: %{ref: ref}} = s) do
    native(s, fn ->
      Native.worker_pulse(s.link)
      go_on(s)
    end)
  end

  def handle_info({ref, :done, outcome, run_us}, %{job: %{ref: ref}} = s),
    do: native(s, fn -> finish(outcome, run_us, s) end)

  def handle_info({:DOWN, monitor, :process, _pid, reason}, %{job: %{monitor: monitor}} = s),
    do: native(s, fn -> finish(Runner.died(reason), 0, s) end)

  def handle_info({:end_of, ref}, %{job: %{ref: ref, pid: pid}} = s) do
    Process.exit(pid, :kill)
    go_on(s)
  end

  def handle_info(:beat, s), do: native(s, fn -> beaten(beat(s), s) end)
  def handle_info(:trim, s), do: native(s, fn -> beaten(trim(s), s) end)

  def handle_info({:set_ready, ready?}, s) do
    s = %{s | ready: ready?}
    native(s, fn -> beaten(Native.worker_beat(s.link, number(ready?)), s) end)
  end

  # Of a job that has ended.
  def handle_info(_other, s), do: go_on(s)

  @impl GenServer
  def terminate(_reason, s) do
    if s.job, do: Process.exit(s.job.pid, :kill)
    if s.link, do: Native.worker_close(s.link)
  rescue
    # The library is another one by now: the link is closed by our end.
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :ok
  end

  # The library that has the link may be gone: then so is the link.
  defp native(s, work) do
    work.()
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] ->
      over(s, "the NIF was replaced")
  end

  defp why(:over), do: "the bridge has let go of it"
  defp why(:broke), do: "the bridge broke a rule of the link"

  defp over(s, why) do
    send(s.loop, {:link, s.slot, s.worker, {:lost, why}})
    {:stop, :normal, s}
  end

  defp beat(s) do
    Process.send_after(self(), :beat, s.bounds.heartbeat_ms)
    with :ok <- Native.worker_beat(s.link, number(s.ready)), do: trim(s)
  end

  # What large answers have taken goes back to the system, a bite at a time: what comes meanwhile is heard.
  defp trim(s) do
    with :more <- Native.worker_trim(s.link) do
      send(self(), :trim)
      :ok
    end
  end

  # A job that runs hears of its cancel by the next beat, should nobody have rung.
  defp beaten(:ok, %{job: nil} = s), do: go_on(s)
  defp beaten(:ok, s), do: watch(s)
  defp beaten(:over, s), do: over(s, "the bridge has let go of it")

  defp number(true), do: 1
  defp number(false), do: 0

  # A job that runs for longer is watched from then on.
  defp go_on(%{job: %{watched?: false}} = s), do: {:noreply, s, @unwatched_ms}
  defp go_on(s), do: {:noreply, s}

  # ---- jobs

  defp look(%{job: nil} = s), do: next(s)
  defp look(s), do: watch(s)

  defp next(s) do
    case Native.worker_next(s.link, s.wake) do
      {:job, _, _, _, _, _, _, _, _} = job ->
        go_on(begin(job, s))

      {:cancelled, id} ->
        with :ok <- say(s, id, Layout.status_cancelled(), 0, 0, {:raw, ""}) do
          :counters.add(s.counts, 1, 1)
          next(s)
        else
          lost -> over(s, why(lost))
        end

      :parked ->
        {:noreply, s}

      :more ->
        send(self(), :look)
        {:noreply, s}

      :drained ->
        # The last one counts every job.
        Native.worker_beat(s.link, number(s.ready))
        send(s.loop, {:link, s.slot, s.worker, :drained})
        {:stop, :normal, s}

      lost when lost in [:over, :broke] ->
        over(s, why(lost))
    end
  end

  defp begin({:job, id, opcode, left_ms, priority, trace, parts, progress, payload}, s) do
    # The clock is cut to milliseconds, so one more: what is found too late here is too late for the bridge.
    deadline = if left_ms >= 0, do: System.monotonic_time(:millisecond) + left_ms + 1

    job = %Job{
      id: id,
      slot: s.slot,
      opcode: opcode,
      payload: payload,
      deadline: deadline,
      priority: priority,
      trace: if(trace != :undefined, do: trace),
      parts: if(parts >= 0, do: parts),
      progress?: progress == 1,
      term?: elem(payload, 0) == :term,
      loop: s.loop,
      server: self(),
      part_bytes_max: s.bounds.part_bytes_max,
      ref: make_ref()
    }

    {pid, monitor} = Runner.start(s.options, s.state, job, s.bounds.answer_bytes_max)
    :counters.put(s.counts, Links.running_of(s.slot), 1)

    running = %{
      id: id,
      ref: job.ref,
      pid: pid,
      monitor: monitor,
      timer: nil,
      watched?: false,
      parts?: parts >= 0,
      sent: 0,
      told: max(parts, 0)
    }

    %{s | job: running}
  end

  defp finish(outcome, run_us, %{job: %{timer: timer} = job} = s) do
    Process.demonitor(job.monitor, [:flush])
    if timer, do: Process.cancel_timer(timer)
    outcome = if timer, do: Runner.stopped(outcome), else: outcome

    case end_with(outcome, run_us, s) do
      :ok ->
        :counters.put(s.counts, Links.running_of(s.slot), 0)
        :counters.add(s.counts, 1, 1)
        next(%{s | job: nil})

      lost ->
        over(s, why(lost))
    end
  end

  defp end_with(:cancelled, run_us, s),
    do: say(s, s.job.id, Layout.status_cancelled(), 0, run_us, {:raw, ""})

  defp end_with({:failed, code, message}, run_us, s),
    do: say(s, s.job.id, Layout.status_failed(), code, run_us, {:raw, message})

  defp end_with({:ok, payload}, run_us, s),
    do: say(s, s.job.id, Layout.status_ok(), 0, run_us, payload)

  # Progress never waits.
  defp said(:progress, {kind, bytes}, s) do
    status = Layout.status_progress()

    case Native.worker_say(s.link, s.job.id, status, 0, 0, is_term(kind), bytes) do
      lost when lost in [:over, :broke] -> over(s, why(lost))
      _ -> go_on(s)
    end
  end

  defp said(:part, payload, s) do
    case say(s, s.job.id, Layout.status_part(), 0, 0, payload) do
      :ok ->
        s = put_in(s.job.sent, s.job.sent + 1)
        if s.job.sent >= s.job.told, do: watch(s), else: go_on(s)

      # The looks for room have read the bell: nothing else tells of it.
      :cancelled ->
        watch(s)

      lost ->
        over(s, why(lost))
    end
  end

  # :ok | :over | :broke; of a part also :cancelled: it was not sent. While there is no room it waits, beats, and goes with its loop; a job
  # that was cancelled meanwhile needs none.
  defp say(s, id, status, code, run_us, {kind, bytes} = payload) do
    case Native.worker_say(s.link, id, status, code, run_us, is_term(kind), bytes) do
      :ok ->
        :ok

      lost when lost in [:over, :broke] ->
        lost

      :too_large ->
        why = "an answer of #{byte_size(bytes)} bytes is more than the link holds"
        say(s, id, Layout.status_failed(), 65_280, run_us, {:raw, why})

      :full ->
        case wait_for_room(s) do
          :over -> :over
          :ok -> say(s, id, status, code, run_us, payload)
          :cancelled when status <= 2 -> say(s, id, Layout.status_cancelled(), 0, 0, {:raw, ""})
          :cancelled -> :cancelled
        end
    end
  end

  defp wait_for_room(%{loop: loop} = s) do
    receive do
      {:EXIT, ^loop, reason} -> exit(reason)
      :beat -> if beat(s) == :over, do: :over, else: :ok
    after
      @room_ms ->
        case Native.worker_watch(s.link, s.wake, if(s.job, do: s.job.sent, else: 0)) do
          :over -> :over
          {1, _parts} -> if s.job, do: :cancelled, else: :ok
          {0, _parts} -> :ok
        end
    end
  end

  defp is_term(:term), do: 1
  defp is_term(:raw), do: 0

  # The job under way: told to stop, or asked for more?
  @spec watch(%__MODULE__{job: running()}) :: term()
  defp watch(%{job: job} = s) do
    case Native.worker_watch(s.link, s.wake, job.sent) do
      :over ->
        over(s, "the bridge has let go of it")

      {cancelled, more} ->
        job = if cancelled == 1, do: cancel(job, s.options.cancel_ms), else: job
        {:noreply, %{s | job: %{demand(job, job.sent + more) | watched?: true}}}
    end
  end

  defp cancel(%{timer: nil} = job, cancel_ms) do
    send(job.pid, {job.ref, :cancel})
    %{job | timer: Process.send_after(self(), {:end_of, job.ref}, cancel_ms)}
  end

  defp cancel(job, _cancel_ms), do: job

  defp demand(%{parts?: true, told: told} = job, asked) when asked > told do
    send(job.pid, {job.ref, :demand, asked})
    %{job | told: asked}
  end

  defp demand(job, _asked), do: job
end
