defmodule Ringbridge.BeamWorkerLoop.Job do
  @moduledoc """
  A job as its handler sees it, and what the handler may say before its answer.

  The functions here are for the process that runs the handler.
  """

  @enforce_keys [:id, :slot, :opcode, :payload, :loop, :server, :ref]
  defstruct [
    :id,
    :slot,
    :opcode,
    :payload,
    :deadline,
    :trace,
    :parts,
    :loop,
    :server,
    :ref,
    # The most that a part can have, where the slot's link holds less than parts may have.
    part_bytes_max: nil,
    priority: 2,
    term?: false,
    progress?: false
  ]

  @typedoc """
  `payload` is a binary as it was sent, or with `term?` the decoded term. `deadline` is a time of
  `System.monotonic_time(:millisecond)`, or nil. `parts`: nil, or the answer goes in parts (`emit/2`). `trace` is a W3C
  traceparent or nil. `loop` is the loop's process; `server`, the one that hears what the handler says, and `ref` are its own.
  """
  @type t :: %__MODULE__{
          id: pos_integer(),
          slot: non_neg_integer(),
          opcode: 0..65_535,
          payload: binary() | term(),
          term?: boolean(),
          deadline: integer() | nil,
          priority: 0..3,
          trace: binary() | nil,
          parts: non_neg_integer() | nil,
          progress?: boolean(),
          loop: pid(),
          server: pid(),
          ref: reference()
        }

  @typedoc "Bytes as the messages have them."
  @type payload :: {:raw, binary()} | {:term, binary()}

  # Atoms in UTF-8, as the distribution has them: the names in pids and references must equal those of the request.
  @external [minor_version: 2]

  @doc """
  Sends one part of the answer, a binary raw and any other value as a term; waits until parts are asked for.
  """
  @spec emit(t(), term()) :: :ok | {:error, :cancelled | :not_wanted | :too_large}
  def emit(%__MODULE__{parts: nil}, _value), do: {:error, :not_wanted}

  def emit(%__MODULE__{ref: ref} = job, value) do
    {sent, asked} = Process.get(ref, {0, job.parts})

    cond do
      cancelled?(job) ->
        {:error, :cancelled}

      sent < asked ->
        most = job.part_bytes_max || Ringbridge.Layout.part_bytes_max()

        say(job, :part, value, most, fn ->
          Process.put(ref, {sent + 1, asked})
        end)

      true ->
        receive do
          {^ref, :demand, asked} -> Process.put(ref, {sent, asked})
          {^ref, :cancel} -> Process.put({ref, :cancelled}, true)
        end

        emit(job, value)
    end
  end

  @doc "Reports how far the job is, if somebody wants to know. Never waits."
  @spec progress(t(), term()) :: :ok | {:error, :too_large}
  def progress(%__MODULE__{progress?: false} = job, _value), do: pulse(job)

  def progress(job, value),
    do: say(job, :progress, value, Ringbridge.Layout.progress_bytes_max(), fn -> :ok end)

  @doc "Says that the job gets on, for a role with `progress_timeout_ms`."
  @spec pulse(t()) :: :ok
  def pulse(job) do
    send(job.server, {job.ref, :pulse})
    :ok
  end

  @doc """
  Whether nobody waits for the job any more. A loop without `:cancel_ms` ends the handler's process at once
  instead, so only one that has it need ask.
  """
  @spec cancelled?(t()) :: boolean()
  def cancelled?(%__MODULE__{ref: ref}) do
    receive do
      {^ref, :cancel} -> Process.put({ref, :cancelled}, true)
    after
      0 -> :ok
    end

    Process.get({ref, :cancelled}, false)
  end

  @doc "Milliseconds left of its time, `:infinity` without a deadline; 0 when it has passed."
  @spec time_left(t()) :: timeout()
  def time_left(%__MODULE__{deadline: nil}), do: :infinity
  def time_left(job), do: max(job.deadline - System.monotonic_time(:millisecond), 0)

  @doc false
  @spec encode(term()) :: payload()
  def encode({:term, value}), do: {:term, :erlang.term_to_binary(value, @external)}
  def encode(value) when is_binary(value), do: {:raw, value}
  def encode(value), do: {:term, :erlang.term_to_binary(value, @external)}

  @doc false
  @spec decode(payload(), safe? :: boolean()) :: term()
  def decode(payload, safe? \\ false)
  def decode({:raw, bytes}, _safe?), do: bytes
  def decode({:term, bytes}, true), do: :erlang.binary_to_term(bytes, [:safe])
  def decode({:term, bytes}, false), do: :erlang.binary_to_term(bytes)

  @doc false
  # As it counts against a bound: the version byte of a term does not lie in a ring.
  @spec size(payload()) :: non_neg_integer()
  def size({:raw, bytes}), do: byte_size(bytes)
  def size({:term, bytes}), do: byte_size(bytes) - 1

  defp say(job, kind, value, bytes_max, said) do
    payload = encode(value)

    if size(payload) <= bytes_max do
      said.()
      send(job.server, {job.ref, kind, payload})
      :ok
    else
      {:error, :too_large}
    end
  end
end
