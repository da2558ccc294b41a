defmodule Ringbridge.Soak.Calls do
  @moduledoc """
  One call of a kind, made and judged: what may come back, whose bytes they are, and that nothing else comes.

  Facts it rests on: since OTP 24 a `GenServer.call` is answered to an alias, and the VM drops what comes
  after it was given up. A late or a second answer is therefore only seen by the calls that are made as OTP 23
  made them, with a bare reference (`:old_sleep`, `:old_large`). After giving up they ask for `:stats`: signals
  between two processes keep their order, so whatever arrives after that answer was sent too late.

  One case is excepted: a name on a node whose connection is only being made. The VM then sends the MONITOR
  when the connection is there, but never a DEMONITOR (erts, `demonitor()` in bif.c looks for a connected node), so
  nobody can know that the caller gave up. `cuts` tells whether that may be so: odd while a connection is being cut.
  """

  alias __MODULE__

  @mib 1_048_576
  # Longer than the bridge's own default for a job (60 s): without an answer by then, it hangs.
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
  @type label :: atom()

  # How often each kind is made, of their sum.
  @kinds [
    raw: 30,
    term: 16,
    large: 8,
    tight: 10,
    sleep: 10,
    deadline: 6,
    give_up: 6,
    give_up_large: 8,
    old_sleep: 6,
    old_large: 6,
    request: 6,
    refused: 2
  ]
  @drawn for {kind, weight} <- @kinds, _ <- 1..weight, do: kind
  @drawn_count length(@drawn)

  # How each kind may end besides being overloaded, crashed or cancelled; where none is named, with :ok only.
  @ends %{
    deadline: [:deadline_exceeded],
    give_up: [:gave_up],
    give_up_large: [:ok, :gave_up],
    old_sleep: [:gave_up],
    old_large: [:ok, :gave_up],
    request: [:gave_up],
    refused: [:too_large],
    die: []
  }

  @doc "The bytes that payloads are cut out of; to be called once in a VM."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(Calls, :rand.bytes(2 * @mib))

  @doc "Makes a call of any kind."
  @spec any(t()) :: {t(), atom(), {:fine, label()} | {:wrong, String.t()}}
  def any(calls) do
    kind = Enum.at(@drawn, :rand.uniform(@drawn_count) - 1)
    {calls, verdict} = one(calls, kind)
    {calls, kind, verdict}
  end

  @doc "Makes a call of this kind, and looks that the mailbox is empty after it."
  @spec one(t(), atom()) :: {t(), {:fine, label()} | {:wrong, String.t()}}
  def one(calls, kind) do
    calls = %{calls | number: calls.number + 1}
    {expected, outcome} = make(kind, calls)
    {calls, with({:fine, label} <- judge(kind, expected, outcome, calls), do: alone(label))}
  end

  @doc "After it, whatever the bridge sent to this process before is in the mailbox, or was never sent."
  @spec barrier(t()) :: :ok | :lost
  def barrier(calls) do
    {:ok, %{accepted: _}} = GenServer.call(calls.target, :stats, @patience_ms)
    :ok
  catch
    :exit, _reason when calls.may_lose -> :lost
  end

  @doc "That nothing is in the mailbox."
  @spec alone(label()) :: {:fine, label()} | {:wrong, String.t()}
  def alone(label) do
    receive do
      {ref, _answer} = message when is_reference(ref) ->
        if Process.delete({:excepted, ref}), do: alone(label), else: stray(message, label)

      message ->
        stray(message, label)
    after
      0 -> {:fine, label}
    end
  end

  defp stray(message, label) do
    {:wrong, "a stray message after #{label}: #{brief(message)}"}
  end

  # ---- the kinds: what is expected back, and what came

  defp make(:raw, calls), do: echo(calls, :echo, payload(calls, random_size()))
  defp make(:large, calls), do: echo(calls, :echo, payload(calls, @mib - :rand.uniform(1_000)))
  defp make(:tight, calls), do: echo(calls, :tight, payload(calls, max(20_000, random_size())))
  defp make(:term, calls), do: echo(calls, :echo, term(calls))

  defp make(:sleep, calls) do
    payload = "#{:rand.uniform(20)}"
    {payload, call(calls, {:submit, :sleep, payload}, @patience_ms)}
  end

  defp make(:deadline, calls) do
    ms = 10 + :rand.uniform(90)
    started = now_ms()
    outcome = call(calls, {:submit, :sleep, "5000", %{timeout: ms}}, @patience_ms)
    took = now_ms() - started
    {nil, if(took > ms + @late_ms, do: {:late, took - ms, outcome}, else: outcome)}
  end

  defp make(:give_up, calls) do
    {nil, call(calls, {:submit, :sleep, "5000"}, :rand.uniform(50))}
  end

  # The answer of 1 MiB is on its way when the caller leaves, or has just come.
  defp make(:give_up_large, calls) do
    payload = payload(calls, @mib)
    {payload, call(calls, {:submit, :echo, payload}, :rand.uniform(15))}
  end

  defp make(:old_sleep, calls) do
    {nil, old_call(calls, {:submit, :sleep, "5000"}, :rand.uniform(50))}
  end

  defp make(:old_large, calls) do
    payload = payload(calls, @mib - :rand.uniform(1_000))
    {payload, old_call(calls, {:submit, :echo, payload}, :rand.uniform(15))}
  end

  defp make(:request, calls) do
    id = :gen_server.send_request(calls.target, {:submit, :sleep, "5000"})

    case :gen_server.receive_response(id, :rand.uniform(50)) do
      {:reply, answer} -> {nil, {:answer, answer}}
      {:error, {reason, _server}} -> {nil, {:exit, reason}}
      :timeout -> {nil, {:exit, :timeout}}
    end
  end

  defp make(:refused, calls) do
    {nil, call(calls, {:submit, :tight, payload(calls, 2 * @mib - 100)}, @patience_ms)}
  end

  # rb-echo's opcode 2: its worker dies by that signal.
  defp make(:die, calls) do
    {nil, call(calls, {:submit, :echo, "11", %{opcode: 2}}, @patience_ms)}
  end

  defp echo(calls, role, payload) do
    {payload, call(calls, {:submit, role, payload}, @patience_ms)}
  end

  defp call(calls, request, timeout_ms) do
    {:answer, GenServer.call(calls.target, request, timeout_ms)}
  catch
    :exit, {reason, {GenServer, :call, _}} -> {:exit, reason}
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
        unless uncut, do: Process.put({:excepted, ref}, true)
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

  defp judge(kind, expected, outcome, calls) do
    case label(expected, outcome) do
      {:wrong, why} ->
        {:wrong, "#{kind}: #{why}"}

      # The node was cut off: only one that may be is.
      :lost when calls.may_lose ->
        {:fine, :lost}

      label when label in [:overloaded, :worker_crashed, :cancelled] ->
        {:fine, label}

      label ->
        if label in Map.get(@ends, kind, [:ok]),
          do: {:fine, label},
          else: {:wrong, "#{kind}: must not end with #{label}: #{brief(outcome)}"}
    end
  end

  defp label(expected, {:answer, {:ok, back}}) do
    if back === expected, do: :ok, else: {:wrong, "not its own bytes: #{brief(back)}"}
  end

  defp label(_expected, {:answer, {:error, reason}}), do: reason_label(reason)
  defp label(_expected, {:exit, :timeout}), do: :gave_up
  defp label(_expected, {:exit, {:nodedown, _node}}), do: :lost
  defp label(_expected, {:exit, :noconnection}), do: :lost
  defp label(_expected, {:late, ms, outcome}), do: {:wrong, "#{ms} ms late: #{brief(outcome)}"}
  defp label(_expected, other), do: {:wrong, "no answer of this protocol: #{brief(other)}"}

  defp reason_label({:overloaded, %{retry_after_ms: ms}}) when ms in 1..60_000, do: :overloaded
  defp reason_label({:too_large, @mib}), do: :too_large
  defp reason_label(reason) when reason in [:cancelled, :deadline_exceeded], do: reason

  # The signals that the soak sends; no other may end a worker.
  defp reason_label({:worker_crashed, %{signal: signal, oom: false}}) when signal in [9, 11] do
    :worker_crashed
  end

  defp reason_label(reason), do: {:wrong, "must not fail so: #{brief(reason)}"}

  defp brief(term), do: inspect(term, limit: 12, printable_limit: 60)
  defp now_ms, do: System.monotonic_time(:millisecond)

  # ---- payloads: no two alike, but for the very small

  defp payload(calls, size) do
    bytes = :persistent_term.get(Calls)
    part = binary_part(bytes, :rand.uniform(byte_size(bytes) - size + 1) - 1, size)
    mark = <<calls.id::32, calls.number::32>>
    if size < 8, do: part, else: mark <> binary_part(part, 8, size - 8)
  end

  # Around the sizes at which something changes: nothing, one block, one fragment of the wire, many.
  defp random_size do
    case :rand.uniform(8) do
      1 -> :rand.uniform(4) - 1
      n when n in 2..3 -> :rand.uniform(64)
      n when n in 4..5 -> :rand.uniform(4_200)
      n when n in 6..7 -> 63_000 + :rand.uniform(5_000)
      8 -> :rand.uniform(@mib)
    end
  end

  defp term(calls) do
    {:soak, calls.id, self(), make_ref(), -1.5, 123_456_789_012_345_678_901,
     %{"bytes" => payload(calls, random_size()), list: Enum.to_list(1..:rand.uniform(300))}}
  end
end
