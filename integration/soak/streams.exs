defmodule Ringbridge.Soak.Streams do
  @moduledoc """
  A consumer of a stream, by hand (docs/streams.md): no more comes than was asked for, what comes are the primes in
  their order without a gap, and after the end nothing.
  """

  alias Ringbridge.Soak.{Calls, Judge, Payloads}

  @patience_ms 90_000

  @spec make(atom(), Calls.t()) :: Judge.label()
  def make(kind, calls) do
    {_name, bridge} = calls.target
    streams = {Ringbridge.Streams, bridge}
    ref = Process.monitor(streams)
    job = {:primes, "#{Payloads.primes_limit()}", %{timeout: 10_000}}
    say(streams, ref, {:subscribe, nil, [job: job]})

    # Wherever it stops: before the first part, in the middle, at the end.
    stop_at = if kind == :stream_stop, do: :rand.uniform(length(Payloads.primes())) - 1
    stream = %{streams: streams, ref: ref, asked: 0, rest: Payloads.primes(), stop_at: stop_at}
    label = consume(Map.put(stream, :taken, 0))
    Process.demonitor(ref, [:flush])
    barrier(streams, calls)
    label
  end

  defp say(streams, ref, what), do: send(streams, {:"$gen_producer", {self(), ref}, what})

  defp consume(%{stop_at: at, taken: taken} = stream) when at != nil and taken >= at do
    say(stream.streams, stream.ref, {:cancel, :enough})
    listen(stream, :stopped)
  end

  defp consume(%{asked: 0} = stream) do
    if :rand.uniform(10) == 1, do: Process.sleep(:rand.uniform(20))
    count = Enum.random([1, 10, 500, 3_000])
    say(stream.streams, stream.ref, {:ask, count})
    listen(%{stream | asked: count}, :going)
  end

  defp consume(stream), do: listen(stream, :going)

  defp listen(%{ref: ref} = stream, state) do
    receive do
      {:"$gen_consumer", {_pid, ^ref}, events} when is_list(events) ->
        take(stream, events, length(events), state)

      {:"$gen_consumer", {_pid, ^ref}, {:cancel, reason}} ->
        ended(stream, reason)

      {:DOWN, ^ref, _, _, reason} ->
        Calls.except(ref)
        Judge.label(nil, {:exit, reason})
    after
      @patience_ms -> {:wrong, "a stream stands after #{stream.taken} parts"}
    end
  end

  defp take(%{asked: asked}, _events, count, _state) when count > asked,
    do: {:wrong, "#{count} parts came where #{asked} were asked for"}

  defp take(stream, events, count, state) do
    {expected, rest} = Enum.split(stream.rest, count)
    stream = %{stream | rest: rest, taken: stream.taken + count, asked: stream.asked - count}

    cond do
      events !== expected -> {:wrong, "not its own parts: #{Judge.brief(events)}"}
      state == :stopped -> listen(stream, :stopped)
      true -> consume(stream)
    end
  end

  defp ended(%{rest: []}, :normal), do: :ok
  defp ended(stream, :normal), do: {:wrong, "a stream ended after #{stream.taken} parts"}
  defp ended(%{stop_at: at}, :enough) when at != nil, do: :stopped
  defp ended(_stream, reason), do: Judge.reason(reason)

  # Answers of the streams' own process: what it sent before is here by then. It knows no calls, and says so.
  defp barrier(streams, calls) do
    {:error, {:bad_request, _}} = GenServer.call(streams, :are_you_there, @patience_ms)
  catch
    :exit, _reason when calls.may_lose -> :lost
  end
end
