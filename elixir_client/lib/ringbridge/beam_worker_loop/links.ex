defmodule Ringbridge.BeamWorkerLoop.Links do
  @moduledoc false
  # The slots of a loop whose jobs come over shared memory, as the loop's process keeps them: `links`, slot -> {process, worker id};
  # `counts`, of those how many jobs have ended, and of each slot whether one runs; `links_lost`, how often one was of late, and
  # `link_lost_ms`, when the last one was.
  #
  # All of it is called by the loop's process, so that what it says arrives in its order.
  require Logger

  alias Ringbridge.BeamWorkerLoop.{Desk, Link, State}
  alias Ringbridge.LocalNode

  # Before it is told to the bridge that a slot which lost its link may have one again.
  @again_min_ms 1_000
  @again_max_ms 60_000
  # Who has lost none for so long begins with the shortest pause again.
  @settled_ms 2 * @again_max_ms

  @type links :: %{non_neg_integer() => {pid(), pos_integer()}}

  @doc "The kit as a hello names it."
  @spec kit() :: {binary(), {non_neg_integer(), non_neg_integer()}}
  defdelegate kit, to: Link

  @doc """
  A hello that says so where this VM and the bridge may share memory. Which way jobs come is then the bridge's to decide, slot by slot.
  """
  @spec with_memory(map(), map()) :: map()
  def with_memory(said, %{lane: :dist}), do: said
  def with_memory(said, %{bridge: pid}) when is_pid(pid), do: said

  def with_memory(said, options) do
    with true <- options.lane == :nif or LocalNode.same_host?(options.bridge),
         {:ok, memory} <- Link.memory() do
      Map.put(said, :memory, memory)
    else
      false ->
        said

      {:error, why} ->
        level = if options.lane == :nif, do: :warning, else: :debug
        Logger.log(level, "worker of #{options.role}: jobs come as messages: #{why}")
        said
    end
  end

  @doc "The slot's jobs come over shared memory from here on, until its link ends."
  @spec start(map(), State.t()) :: State.t()
  def start(offer, loop) do
    loop = stop(offer.slot, loop)

    pid = Link.start_link(offer, loop.options, loop.state, loop.bounds, loop.counts, loop.ready)

    put_in(loop.links[offer.slot], {pid, offer.worker})
  end

  @doc "What the process of a slot says of its end: `:drained`, or `{:lost, why}`. Of an earlier life of the slot it is nothing."
  @spec ended(non_neg_integer(), pos_integer(), :drained | {:lost, String.t()}, State.t()) ::
          State.t()
  def ended(slot, worker, said, loop) do
    case loop.links do
      %{^slot => {_pid, ^worker}} ->
        told(said, slot, worker, without(slot, loop))

      _ ->
        loop
    end
  end

  @doc "A process linked with the loop has ended: one of a slot that had not told, or a job's."
  @spec exited(pid(), term(), State.t()) :: State.t()
  def exited(pid, reason, loop) do
    case Enum.find(loop.links, fn {_slot, {its, _worker}} -> its == pid end) do
      {slot, {_pid, worker}} -> ended(slot, worker, {:lost, inspect(reason, limit: 10)}, loop)
      nil -> loop
    end
  end

  @doc "It is time to tell the bridge that there may be links again."
  @spec again(State.t()) :: State.t()
  def again(loop) do
    case Link.memory() do
      {:ok, _memory} ->
        Desk.tell(loop, :links, %{})
        loop

      {:error, _why} ->
        later(loop)
    end
  end

  @spec set_ready(State.t(), boolean()) :: :ok
  def set_ready(loop, ready?) do
    for {_slot, {pid, _worker}} <- loop.links, do: Link.set_ready(pid, ready?)
    :ok
  end

  @doc "How many jobs have ended, and how many run."
  @spec counted(State.t()) :: {non_neg_integer(), non_neg_integer()}
  def counted(%{counts: counts, options: options}) do
    running = for slot <- 0..(options.slots - 1), do: :counters.get(counts, running_of(slot))
    {:counters.get(counts, 1), Enum.sum(running)}
  end

  @doc "`counts` of a loop with so many slots."
  @spec counts(pos_integer()) :: :counters.counters_ref()
  def counts(slots), do: :counters.new(1 + slots, [])

  @doc "Where `counts` says whether a job of the slot runs: what a process that was killed has left there the loop clears."
  @spec running_of(non_neg_integer()) :: pos_integer()
  def running_of(slot), do: 2 + slot

  @doc "Nothing that was given out is answered any more: each ends, and what it runs."
  @spec forget(State.t()) :: State.t()
  def forget(loop) do
    loop = Enum.reduce(Map.keys(loop.links), loop, &stop/2)
    {done, _running} = counted(loop)
    pauses = if done > 0, do: 0, else: loop.pauses
    %{loop | done: loop.done + done, counts: counts(loop.options.slots), pauses: pauses}
  end

  defp stop(slot, loop) do
    with {pid, _worker} <- loop.links[slot], do: Process.exit(pid, :shutdown)
    without(slot, loop)
  end

  # Nothing of it runs any more.
  defp without(slot, loop) do
    :counters.put(loop.counts, running_of(slot), 0)
    %{loop | links: Map.delete(loop.links, slot)}
  end

  defp told(:drained, slot, worker, loop) do
    Desk.tell(loop, :drained, %{slot: slot, worker: worker})
    loop
  end

  defp told({:lost, why}, slot, worker, loop) do
    level = if loop.options.lane == :nif, do: :warning, else: :info
    text = "worker of #{loop.options.role}: slot #{slot} has no link: #{why}"
    Logger.log(level, text <> "; its jobs come as messages")
    Desk.tell(loop, :no_link, %{slot: slot, worker: worker, why: why})
    later(loop)
  end

  defp later(loop) do
    now_ms = System.monotonic_time(:millisecond)
    settled? = now_ms - (loop.link_lost_ms || now_ms) > @settled_ms
    lost = if settled?, do: 0, else: loop.links_lost
    pause_ms = min(@again_min_ms * 2 ** min(lost, 10), @again_max_ms)
    Process.send_after(self(), {:links_again, loop.desk}, pause_ms)
    %{loop | links_lost: lost + 1, link_lost_ms: now_ms}
  end
end
