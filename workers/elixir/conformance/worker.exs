# The conformance job language (docs/workers-conformance.md), served by a BeamWorkerLoop.
defmodule Conformance do
  @behaviour Ringbridge.BeamWorkerLoop
  import Bitwise

  alias Ringbridge.BeamWorkerLoop
  alias Ringbridge.BeamWorkerLoop.Job

  @bad_payload 1
  @refused 2
  @unknown 3

  @impl true
  def handle_job(job, _state), do: serve(job.opcode, job.payload, job)

  defp serve(0, payload, job), do: {:ok, if(job.term?, do: {:term, payload}, else: payload)}
  defp serve(1, <<code::little-16, message::binary>>, _), do: {:error, code, message}
  defp serve(2, <<ms::little-32>>, job), do: sleep(job, until(ms))

  defp serve(3, <<count::little-32, size::little-32, as_term>>, job),
    do: emit(job, 0, count, size, as_term)

  defp serve(4, <<count::little-32, size::little-32, as_term>>, job) do
    told = Enum.frequencies_by(each(count), &Job.progress(job, part(&1, size, as_term)))

    case told do
      %{{:error, :too_large} => _} -> {:error, @refused, "too_large"}
      _ -> {:ok, <<Map.get(told, :ok, 0)::little-32>>}
    end
  end

  defp serve(5, <<size::little-64, seed>>, _) do
    row = for k <- 0..250, into: <<>>, do: <<rem(k + seed, 251)>>
    {:ok, binary_part(:binary.copy(row, div(size, 251) + 1), 0, size)}
  end

  defp serve(6, <<2, _::binary>>, _), do: :no_answer
  defp serve(6, <<3, _::binary>>, _), do: raise("told to collapse")

  # A VM does not end for a job.
  defp serve(6, <<how, _value>>, _) when how in [0, 1],
    do: {:error, @unknown, "end of kind #{how} is not served here"}

  defp serve(7, <<ms::little-32>>, _), do: hold(until(ms))
  defp serve(8, term, %{term?: true}), do: {:ok, {:ok, term}}

  defp serve(13, <<count::little-32>>, job) do
    for _ <- each(count), do: Job.pulse(job)
    {:ok, ""}
  end

  # The loop answers calls while its jobs run.
  defp serve(14, <<ready>>, job) do
    BeamWorkerLoop.set_ready(job.loop, ready == 1)
    {:ok, ""}
  end

  defp serve(15, "", job) do
    wants = if(job.parts, do: 1, else: 0) ||| if(job.progress?, do: 2, else: 0)
    {trace, span, flags} = trace(job.trace)
    deadline = (job.deadline || 0) * 1_000_000
    # A BEAM's monotonic time may be negative: what is not nothing is told as a bit pattern.
    {:ok,
     <<job.id::little-64, deadline::little-64, job.parts || 0::little-32, wants, trace::binary,
       span::binary, flags>>}
  end

  defp serve(opcode, _payload, _job) when opcode in [1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15],
    do: {:error, @bad_payload, "not what opcode #{opcode} takes"}

  defp serve(opcode, _payload, _job),
    do: {:error, @unknown, "opcode #{opcode} is not served here"}

  # In microseconds: a clock that is cut to milliseconds ends a sleep too early.
  defp until(ms), do: System.monotonic_time(:microsecond) + 1_000 * ms

  defp sleep(job, until) do
    left = until - System.monotonic_time(:microsecond)

    cond do
      Job.cancelled?(job) -> :cancelled
      left <= 0 -> {:ok, ""}
      true -> Process.sleep(min(div(left, 1_000) + 1, 5)) && sleep(job, until)
    end
  end

  defp emit(_job, count, count, _size, _as_term), do: {:ok, ""}

  defp emit(job, number, count, size, as_term) do
    case Job.emit(job, part(number, size, as_term)) do
      :ok -> emit(job, number + 1, count, size, as_term)
      {:error, :cancelled} -> :cancelled
      {:error, why} -> {:error, @refused, Atom.to_string(why)}
    end
  end

  defp part(number, size, as_term) do
    bytes = :binary.copy(<<rem(number, 251)>>, size)
    if as_term == 1, do: {:term, bytes}, else: bytes
  end

  defp hold(until) do
    if System.monotonic_time(:microsecond) < until, do: hold(until), else: {:ok, ""}
  end

  defp trace(nil), do: {<<0::128>>, <<0::64>>, 0}

  defp trace("00-" <> <<trace::binary-32, "-", span::binary-16, "-", flags::binary-2>>),
    do: {hex(trace), hex(span), String.to_integer(flags, 16)}

  defp hex(text), do: Base.decode16!(text, case: :lower)
  defp each(0), do: []
  defp each(count), do: 0..(count - 1)
end

defmodule Conformance.Application do
  # An application of the VM, so that SIGTERM shuts its supervisor down and the loop leaves in order.
  use Application

  @impl true
  def start(_type, children), do: Supervisor.start_link(children, strategy: :one_for_one)
end

env! = &(System.get_env(&1) || raise("#{&1} is not set: the conformance battery sets it"))
bridge = String.to_atom(env!.("RINGBRIDGE_CONFORMANCE_BRIDGE"))
[_, host] = String.split(Atom.to_string(bridge), "@")
name = :"worker#{System.pid()}@#{host}"
{:ok, _} = :net_kernel.start(name, %{name_domain: :longnames, hidden: true, dist_listen: false})
Node.set_cookie(bridge, String.to_atom(env!.("RINGBRIDGE_CONFORMANCE_COOKIE")))

ops =
  for {opcode, name, takes} <- [
        {0, "echo", [:raw, :term]},
        {1, "fail", [:raw]},
        {2, "sleep", [:raw]},
        {3, "emit", [:raw, :parts]},
        {4, "progress", [:raw]},
        {5, "large", [:raw]},
        {6, "end", [:raw]},
        {7, "hold", [:raw]},
        {8, "term", [:term]},
        {13, "pulse", [:raw]},
        {14, "ready", [:raw]},
        {15, "about", [:raw]}
      ],
      do: %{opcode: opcode, name: name, takes: takes}

loop =
  {Ringbridge.BeamWorkerLoop,
   bridge: bridge,
   role: env!.("RINGBRIDGE_ROLE"),
   module: Conformance,
   slots: 4,
   credit: 8,
   ops: ops,
   cancel_ms: 1_000}

about = [
  vsn: '1',
  modules: [],
  registered: [],
  applications: [:kernel, :stdlib, :elixir, :logger]
]

:ok =
  :application.load(
    {:application, :conformance, [mod: {Conformance.Application, [loop]}] ++ about}
  )

:ok = Application.start(:conformance, :permanent)
Process.sleep(:infinity)
