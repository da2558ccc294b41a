defmodule Ringbridge.Lane.Nif do
  @moduledoc """
  The lane over shared memory to a bridge on this host (docs/nif-lane.md).

  A request is copied into memory that the relay reads; answers are handed out by whoever submits next, or else by the
  opener (`Ringbridge.Lane.Opener`), as messages `{:ringbridge_lane, ref, kind, data}`. A monitor inside the NIF cancels
  what a process has submitted when it ends.

  What the lane does not carry goes over `Ringbridge.Lane.Dist`, to the same relay: streams, casts, requests too large for
  it, and those that find it full or closed.
  """
  @behaviour Ringbridge.Lane

  # The tag of a call by alias is such a list (gen.erl).
  @dialyzer :no_improper_lists

  alias Ringbridge.Lane.{Dist, Native}

  # The library takes so many at once.
  @parts_max 64

  # What the lane's number for "the role's own" is not (lane.h).
  @raw_timeout_max 4_294_967_294

  # The reference is made where it is received, so that a caller with a long mailbox does not search it.
  @impl Ringbridge.Lane
  def call({lane, node}, message, timeout) do
    ref = make_ref()

    case hand(lane, ref, message) do
      sent when sent in [:ok, :near] ->
        if sent == :near, do: look(lane, ref)

        receive do
          {:ringbridge_lane, ^ref, kind, data} -> outcome(kind, data)
        after
          timeout ->
            case forget(lane, ref) do
              :ok -> :timeout
              outcome -> outcome
            end
        end

      _not_over_it ->
        Dist.call(node, message, timeout)
    end
  end

  @impl Ringbridge.Lane
  def submit({lane, node}, message) do
    ref = make_ref()

    case hand(lane, ref, message) do
      sent when sent in [:ok, :near] -> ref
      _not_over_it -> mark(Dist.submit(node, message))
    end
  end

  # Who calls alone is sooner woken by itself than by the opener. Whoever else is ready on this scheduler runs meanwhile.
  defp look(lane, ref) do
    if Native.look(lane, ref) == :again do
      :erlang.yield()
      look(lane, ref)
    end
  rescue
    # As of hand/3; the message comes all the same.
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :ok
  end

  # Few: those that found the lane full or closed. References do not tell whose they are.
  defp mark(ref) do
    Process.put({__MODULE__, ref}, :dist)
    ref
  end

  @impl Ringbridge.Lane
  def await({_lane, node}, ref, timeout) do
    receive do
      {:ringbridge_lane, ^ref, kind, data} -> outcome(kind, data)
      {[:alias | ^ref], _answer} = message -> by_dist(node, ref, message)
      {:DOWN, ^ref, _, _, _reason} = message -> by_dist(node, ref, message)
    after
      timeout -> :timeout
    end
  end

  defp by_dist(node, ref, message) do
    Process.delete({__MODULE__, ref})
    Dist.check(node, ref, message)
  end

  @impl Ringbridge.Lane
  def cancel({lane, node}, ref) do
    case Process.delete({__MODULE__, ref}) do
      :dist -> Dist.cancel(node, ref)
      nil -> forget(lane, ref)
    end
  end

  @impl Ringbridge.Lane
  def check(_to, ref, {:ringbridge_lane, ref, kind, data}), do: outcome(kind, data)

  def check({_lane, node}, ref, message) do
    case Dist.check(node, ref, message) do
      :other ->
        :other

      outcome ->
        Process.delete({__MODULE__, ref})
        outcome
    end
  end

  # Nobody waits for it, so there is nothing to win; and it must outlive the caller, and the lane.
  @impl Ringbridge.Lane
  def cast({_lane, node}, message), do: Dist.cast(node, message)

  @impl Ringbridge.Lane
  def parts({_lane, node}, job, demand, until_ms), do: Dist.parts(node, job, demand, until_ms)

  # --- There --------------------------------------------------------------------------------------------------

  # A binary with nothing but a timeout, which is most of all calls, goes as its bytes: no term is made.
  defp hand(lane, ref, {:submit, role, payload, options} = message)
       when is_binary(payload) and (is_atom(role) or is_binary(role)) do
    with name when byte_size(name) in 1..255 <- name(role),
         ms when is_integer(ms) <- timeout(options) do
      Native.submit_raw(lane, ref, name, ms, payload)
    else
      _other -> term(lane, ref, message)
    end
  rescue
    # The library was unloaded, or replaced by one that does not know this lane.
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :closed
  end

  defp hand(lane, ref, {verb, _, _, _} = message) when verb in [:submit, :submit_many] do
    term(lane, ref, message)
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :closed
  end

  defp hand(_lane, _ref, _message), do: :not_of_it

  defp name(role) when is_binary(role), do: role
  defp name(role), do: Atom.to_string(role)

  defp timeout([]), do: -1
  defp timeout(timeout: ms) when is_integer(ms) and ms in 0..@raw_timeout_max, do: ms
  defp timeout(_other), do: nil

  # Large binaries stay where they are until the library copies them into the lane. The first byte is the format's version,
  # which no message of the distribution has either.
  defp term(lane, ref, message) do
    # Atoms in UTF-8, as the distribution has them, also before OTP 26: names of nodes in pids and references of the answer must be
    # byte for byte those of the request, and workers write them so.
    case :erlang.term_to_iovec(message, minor_version: 2) do
      [<<131, first::binary>> | rest] when length(rest) < @parts_max ->
        Native.submit_term(lane, ref, [first | rest])

      many ->
        <<131, all::binary>> = IO.iodata_to_binary(many)
        Native.submit_term(lane, ref, [all])
    end
  end

  # --- And back -----------------------------------------------------------------------------------------------

  defp outcome(:raw, bytes), do: {:answer, {:ok, bytes}}
  defp outcome(:term, bytes), do: decoded(bytes)
  defp outcome(:down, reason), do: {:down, reason}

  # Large, and too much of the region is held, or to be decoded, which only memory of our own may be.
  defp outcome(:copy, held), do: {:answer, {:ok, Native.copy(held, :copy)}}

  defp outcome(:copy_term, held), do: held |> Native.copy(:copy_term) |> decoded()

  # An answer is a tuple (SMALL_TUPLE_EXT, LARGE_TUPLE_EXT of the external term format). Any other first byte is a relay's lie; of a
  # compressed term (80) it would be one that fills the memory. Who is lied to is told what the lane's end would tell him.
  defp decoded(<<131, tag, _::binary>> = bytes) when tag in [104, 105] do
    {:answer, :erlang.binary_to_term(bytes)}
  rescue
    ArgumentError -> {:down, :noconnection}
  end

  defp decoded(_no_answer), do: {:down, :noconnection}

  # What was answered already is in the mailbox, or another scheduler is about to put it there. Unless it was to tell of the lane's end in
  # the name of a process that was killed as it did.
  @about_to_ms 5_000

  defp forget(lane, ref) do
    case Native.cancel(lane, ref) do
      :ok ->
        :ok

      :answered ->
        receive do
          {:ringbridge_lane, ^ref, kind, data} -> outcome(kind, data)
        after
          @about_to_ms -> {:down, :noconnection}
        end
    end
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] ->
      receive do
        {:ringbridge_lane, ^ref, kind, data} -> outcome(kind, data)
      after
        0 -> :ok
      end
  end
end
