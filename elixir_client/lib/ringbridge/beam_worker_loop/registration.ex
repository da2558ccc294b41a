defmodule Ringbridge.BeamWorkerLoop.Registration do
  @moduledoc false
  # How a loop comes to serve a bridge, and comes back to it: connects, greets, is welcomed or refused, and after every end
  # greets again, with growing pauses.
  #
  #     :away --greet--> :greeting --welcomed--> :serving --(terminate)--> :leaving
  #       ^-- refused, or the bridge is gone --'----------'
  #
  # Of the state it has `phase`, `connecting` while somebody connects for it, `hello`, which the bridge's answer repeats,
  # `watch`, the monitor that tells of the bridge's going, and what a welcome brings: `desk`, `heart`, `bounds`, `welcome_ms`.
  require Logger

  alias Ringbridge.BeamWorkerLoop.{Connecting, Desk, Heart, Lanes, Links, State}

  @version 1
  @service Ringbridge.RemoteWorkers
  @pause_min_ms 50
  @pause_max_ms 5_000
  # Who was let in, and was ended before it had served so long or done a job, pauses longer the next time.
  @settled_ms 10_000

  @doc "Greets the bridge; has the node connected first where it is not. Nothing, unless the loop is away and idle."
  @spec greet(State.t()) :: State.t()
  def greet(%{phase: :away, connecting: nil, options: options} = loop) do
    hello = make_ref()
    service = service(options.bridge)

    case Desk.say(service, :hello, said(hello, options)) do
      :ok ->
        # It tells, too, when nobody has the name.
        watch = Process.monitor(service)
        %{loop | phase: :greeting, hello: hello, watch: watch}

      :noconnect ->
        connecting = Connecting.start(options.connect, options.bridge, options.connect_ms)
        %{loop | connecting: connecting}
    end
  end

  def greet(loop), do: loop

  defp said(hello, options) do
    {kit, kit_version} = Links.kit()

    said = %{
      version: @version,
      ref: hello,
      pid: self(),
      role: options.role,
      slots: options.slots,
      credit: options.credit,
      kit: kit,
      kit_version: kit_version,
      ops: options.ops,
      features: []
    }

    Links.with_memory(said, options)
  end

  defp service(pid) when is_pid(pid), do: pid
  defp service(node), do: {@service, node}

  @doc "The try to connect has ended, as the reason of its DOWN says."
  @spec tried(term(), State.t()) :: State.t()
  def tried(reason, %{connecting: its} = loop) do
    loop = %{loop | connecting: nil}
    if Connecting.connected?(its, reason), do: greet(loop), else: again_later(loop)
  end

  @doc "The bridge has let it in; from here on there are jobs."
  @spec welcomed(map(), State.t()) :: State.t()
  def welcomed(said, loop) do
    Process.demonitor(loop.watch, [:flush])
    heart = Heart.start_link(said.desk, said.heartbeat_ms, loop.ready)
    watch = Process.monitor(said.desk)

    Logger.info(
      "worker of #{loop.options.role} at #{inspect(loop.options.bridge)}: slots #{inspect(said.workers, charlists: :as_lists)}"
    )

    loop = %{loop | phase: :serving, watch: watch, desk: said.desk, heart: heart}
    %{loop | bounds: said, welcome_ms: System.monotonic_time(:millisecond)}
  end

  @doc "The bridge has not let it in."
  @spec refused(map(), State.t()) :: State.t()
  def refused(said, loop) do
    Process.demonitor(loop.watch, [:flush])

    Logger.warning(
      "worker of #{loop.options.role} refused by #{inspect(loop.options.bridge)}: #{said.why}"
    )

    %{loop | phase: :away, watch: nil}
  end

  @doc "The bridge has said that it is over."
  @spec ended(map(), State.t()) :: State.t()
  def ended(said, loop) do
    Process.demonitor(loop.watch, [:flush])

    Logger.info(
      "worker of #{loop.options.role} ended by #{inspect(loop.options.bridge)}: #{said.why}"
    )

    forget(%{loop | watch: nil})
  end

  @doc "The bridge is gone, or its desk, or the name that was greeted, as the reason of the DOWN says."
  @spec lost(term(), State.t()) :: State.t()
  def lost(reason, loop) do
    Logger.info(
      "worker of #{loop.options.role}: #{inspect(loop.options.bridge)} is away: #{inspect(reason)}"
    )

    forget(%{loop | watch: nil})
  end

  @doc "The loop greets again after a pause, unless it is leaving."
  @spec again_later(State.t()) :: State.t()
  def again_later(%{phase: :leaving} = loop), do: loop

  def again_later(loop) do
    pause_ms = min(@pause_min_ms * 2 ** min(loop.pauses, 10), @pause_max_ms)
    # Many loops that lost one bridge do not come back at one moment.
    Process.send_after(self(), :greet, div(pause_ms, 2) + :rand.uniform(div(pause_ms, 2)))
    %{loop | pauses: loop.pauses + 1}
  end

  @doc "Nothing that was given out is answered any more: what runs is ended, and so is what was begun to get here."
  @spec forget(State.t()) :: State.t()
  def forget(loop) do
    loop = loop |> Links.forget() |> Lanes.forget()
    if loop.heart, do: Heart.stop(loop.heart)
    Connecting.stop(loop.connecting)
    phase = if loop.phase == :leaving, do: :leaving, else: :away
    loop = %{loop | phase: phase, pauses: pauses(loop), welcome_ms: nil, connecting: nil}
    %{loop | desk: nil, heart: nil, bounds: nil}
  end

  defp pauses(%{welcome_ms: nil} = loop), do: loop.pauses

  defp pauses(loop) do
    served_ms = System.monotonic_time(:millisecond) - loop.welcome_ms
    if served_ms < @settled_ms, do: loop.pauses, else: 0
  end
end
