defmodule Ringbridge.Soak.Calls do
  @moduledoc """
  One call of a kind, made and judged: what may come back, whose bytes they are, and that nothing else comes.

  Facts it rests on: since OTP 24 a `GenServer.call` is answered to an alias, and the VM drops what comes
  after it was given up. A late or a second answer is therefore only seen where it comes as a message of its own
  (`Ways`, `Streams`) and by the calls that are made as OTP 23 made them, with a bare reference (`:old_sleep`,
  `:old_large`). After such a call they ask for `:stats`: signals between two processes keep their order, so
  whatever arrives after that answer was sent too late.

  One case is excepted: a name on a node whose connection is only being made. The VM then sends the MONITOR
  when the connection is there, but never a DEMONITOR (erts, `demonitor()` in bif.c looks for a connected node), so
  nobody can know that the caller gave up. `cuts` tells whether that may be so: odd while a connection is being cut.
  """

  alias __MODULE__
  alias Ringbridge.Soak.{Judge, Payloads, Streams, Ways}

  @mib 1_048_576
  # Longer than any job here may take: without an answer by then, it hangs.
  @patience_ms 90_000
  @late_ms 5_000

  @enforce_keys [:target, :id, :may_lose, :cuts]
  defstruct [:target, :id, :may_lose, :cuts, number: 0]

  @typedoc "`may_lose`: whether its node is cut off from the bridge now and then."
  @type t :: %Calls{
          target: {atom(), node()},
          id: pos_integer(),
          may_lose: boolean(),
          cuts: :atomics.atomics_ref(),
          number: non_neg_integer()
        }
  @type verdict :: {:fine, atom()} | {:wrong, String.t()}

  # How often each kind is made, of their sum.
  @kinds [
    raw: 30,
    optioned: 20,
    term: 16,
    large: 8,
    huge: 1,
    tight: 10,
    sleep: 10,
    again: 8,
    deadline: 6,
    give_up: 6,
    give_up_large: 8,
    old_sleep: 6,
    old_large: 6,
    request: 6,
    refused: 2,
    many: 6,
    many_give_up: 3,
    map: 5,
    map_give_up: 3,
    fan_out: 4,
    async: 10,
    async_cancel: 4,
    async_progress: 2,
    orphan: 3,
    dedupe: 6,
    ordered: 5,
    stream: 5,
    stream_stop: 5
  ]
  @drawn for {kind, weight} <- @kinds, _ <- 1..weight, do: kind
  @drawn_count length(@drawn)

  # How each kind may end besides what may become of any job; where none is named, with :ok only.
  @ends %{
    deadline: [],
    give_up: [:gave_up],
    give_up_large: [:ok, :gave_up],
    old_sleep: [:gave_up],
    old_large: [:ok, :gave_up],
    request: [:gave_up],
    refused: [:too_large],
    many_give_up: [:ok, :gave_up],
    map_give_up: [:ok, :gave_up],
    orphan: [:left],
    stream_stop: [:ok, :stopped],
    die: []
  }
  # A job that may run again more often than workers die here is lost to none of them.
  @never %{again: [:worker_crashed, :worker_hung]}

  @doc "Makes a call of any kind."
  @spec any(t()) :: {t(), atom(), verdict()}
  def any(calls) do
    kind = Enum.at(@drawn, :rand.uniform(@drawn_count) - 1)
    {calls, verdict} = one(calls, kind)
    {calls, kind, verdict}
  end

  @doc "Makes a call of this kind, and looks that the mailbox is empty after it."
  @spec one(t(), atom()) :: {t(), verdict()}
  def one(calls, kind) do
    calls = %{calls | number: calls.number + 1}
    label = make(kind, calls)
    {calls, with({:fine, label} <- judge(kind, label, calls), do: alone(label))}
  end

  @doc "After it, whatever the bridge sent to this process before is in the mailbox, or was never sent."
  @spec barrier(t()) :: :ok | :lost
  def barrier(calls) do
    {:ok, %{accepted: _}} = GenServer.call(calls.target, :stats, @patience_ms)
    :ok
  catch
    :exit, _reason when calls.may_lose -> :lost
  end

  @doc "Nothing that comes with this reference is wrong any more: its connection was lost, and nobody knows when."
  @spec except(reference()) :: true
  def except(ref), do: Process.put({:excepted, ref}, true) || true

  @doc "That nothing is in the mailbox."
  @spec alone(atom()) :: verdict()
  def alone(label) do
    receive do
      message ->
        if Process.get({:excepted, of(message)}), do: alone(label), else: stray(message, label)
    after
      0 -> {:fine, label}
    end
  end

  defp of({ref, _answer}) when is_reference(ref), do: ref
  defp of({:ringbridge, ref, _answer}), do: ref
  defp of({:"$gen_consumer", {_streams, ref}, _events}), do: ref
  defp of(_message), do: nil

  defp stray(message, label) do
    {:wrong, "a stray message after #{label}: #{Judge.brief(message)}"}
  end

  @doc "A call; without an answer in time, or with the connection lost, how it ended."
  @spec call(t(), term(), timeout()) :: Judge.outcome()
  def call(calls, request, timeout_ms \\ @patience_ms) do
    case lane(calls.target) do
      nil -> {:answer, GenServer.call(calls.target, request, timeout_ms)}
      to -> over(to, request, timeout_ms)
    end
  catch
    :exit, {reason, {GenServer, :call, _}} -> {:exit, reason}
  end

  # Every other call of this node, while its instance has a lane over shared memory (Ringbridge.Lane.Nif).
  defp lane({_name, node}) do
    with instance when instance != nil <- :persistent_term.get({__MODULE__, :instance}, nil),
         [{_key, _epoch, lane}] <- :ets.lookup(instance, {:lane, node}),
         true <- :rand.uniform(2) == 1,
         do: {lane, node},
         else: (_ -> nil)
  end

  defp over(to, request, timeout_ms) do
    case Ringbridge.Lane.Nif.call(to, request, timeout_ms) do
      {:answer, answer} -> {:answer, answer}
      {:down, reason} -> {:exit, reason}
      :timeout -> {:exit, :timeout}
    end
  end

  # ---- the kinds: what came back, by its label

  defp make(:raw, calls), do: echo(calls, :echo, Payloads.bytes(calls, Payloads.size()))

  defp make(:optioned, calls) do
    options = Payloads.options(calls)
    echo(calls, :echo, Payloads.bytes(calls, Payloads.size()), options)
  end

  defp make(:large, calls), do: echo(calls, :echo, Payloads.bytes(calls, nearly(@mib)))
  defp make(:huge, calls), do: echo(calls, :echo, Payloads.bytes(calls, :rand.uniform(8 * @mib)))

  defp make(:tight, calls),
    do: echo(calls, :tight, Payloads.bytes(calls, max(20_000, Payloads.size())))

  defp make(:term, calls), do: echo(calls, :echo, Payloads.term(calls))

  defp make(:sleep, calls),
    do: echo(calls, :sleep, Payloads.nap(calls, 20), Payloads.options(calls))

  # Long enough to be met by a death.
  defp make(:again, calls) do
    options = Map.put(Payloads.options(calls), :retry, 100)
    echo(calls, :again, Payloads.nap(calls, 150), options)
  end

  defp make(:deadline, calls) do
    ms = 10 + :rand.uniform(90)
    started = now_ms()
    outcome = call(calls, {:submit, :sleep, "5000", %{timeout: ms}})
    took = now_ms() - started
    Judge.label(nil, if(took > ms + @late_ms, do: {:late, took - ms, outcome}, else: outcome))
  end

  defp make(:give_up, calls) do
    Judge.label(nil, call(calls, {:submit, :sleep, "5000"}, :rand.uniform(50)))
  end

  # The answer of 1 MiB is on its way when the caller leaves, or has just come.
  defp make(:give_up_large, calls) do
    payload = Payloads.bytes(calls, @mib)
    Judge.label(payload, call(calls, {:submit, :echo, payload}, :rand.uniform(15)))
  end

  defp make(:old_sleep, calls) do
    Judge.label(nil, old_call(calls, {:submit, :sleep, "5000"}, :rand.uniform(50)))
  end

  defp make(:old_large, calls) do
    payload = Payloads.bytes(calls, nearly(@mib))
    Judge.label(payload, old_call(calls, {:submit, :echo, payload}, :rand.uniform(15)))
  end

  defp make(:request, calls) do
    id = :gen_server.send_request(calls.target, {:submit, :sleep, "5000"})

    case :gen_server.receive_response(id, :rand.uniform(50)) do
      {:reply, answer} -> Judge.label(nil, {:answer, answer})
      {:error, {reason, _server}} -> Judge.label(nil, {:exit, reason})
      :timeout -> Judge.label(nil, {:exit, :timeout})
    end
  end

  defp make(:refused, calls) do
    Judge.label(nil, call(calls, {:submit, :tight, Payloads.bytes(calls, 2 * @mib - 100)}))
  end

  # rb-echo's opcode 2: its worker dies by that signal.
  defp make(:die, calls) do
    Judge.label(nil, call(calls, {:submit, :echo, "11", %{opcode: 2}}))
  end

  defp make(kind, calls) when kind in [:stream, :stream_stop], do: Streams.make(kind, calls)
  defp make(kind, calls), do: Ways.make(kind, calls)

  defp nearly(size), do: size - :rand.uniform(1_000)

  defp echo(calls, role, payload, options \\ %{}) do
    Judge.label(payload, call(calls, {:submit, role, payload, options}))
  end

  defp old_call(calls, request, timeout_ms) do
    cuts = :atomics.get(calls.cuts, 1)
    barrier(calls)
    ref = Process.monitor(calls.target)
    send(calls.target, {:"$gen_call", {self(), ref}, request})

    receive do
      {^ref, answer} ->
        Process.demonitor(ref, [:flush])
        {:answer, answer}

      {:DOWN, ^ref, _, _, reason} ->
        {:exit, reason}
    after
      timeout_ms ->
        Process.demonitor(ref, [:flush])
        uncut = rem(cuts, 2) == 0 and :atomics.get(calls.cuts, 1) == cuts
        unless uncut, do: except(ref)
        barrier(calls)
        crossed(ref)
    end
  end

  # One answer may have been under way to us when we gave up; what follows it is stray.
  defp crossed(ref) do
    receive do
      {^ref, answer} -> {:answer, answer}
    after
      0 -> {:exit, :timeout}
    end
  end

  # ---- verdicts

  defp judge(kind, label, calls) do
    may = Map.get(@ends, kind, [:ok]) ++ (Judge.everyday() -- Map.get(@never, kind, []))

    case label do
      {:wrong, why} -> {:wrong, "#{kind}: #{why}"}
      # The node was cut off: only one that may be is.
      :lost when calls.may_lose -> {:fine, :lost}
      label -> if label in may, do: {:fine, label}, else: {:wrong, "#{kind}: ended with #{label}"}
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
