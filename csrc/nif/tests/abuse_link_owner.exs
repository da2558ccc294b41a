defmodule Ringbridge.AbuseLinkOwner do
  @moduledoc """
  One process of abuse_links.exs, at random: it has links of one kind, one after the other, and does with them what it may and what it
  may not; or it calls for the links of others.
  """
  alias Ringbridge.{AbuseArguments, AbuseLinks, LinkLoopback}
  alias Ringbridge.Lane.Native
  import Bitwise

  @compile {:no_warn_undefined, AbuseLinks}

  # What the loopback's links hold (link_loopback.c); what a part and progress may have.
  @result_bytes 4 <<< 20
  @part_bytes 1 <<< 20
  @progress_bytes 4096
  @statuses %{ok: 0, failed: 1, cancelled: 2, part: 3, progress: 4}
  @patience_ms 60_000

  @doc "`kind`: of link_loopback.c, or `:stranger`."
  @spec run(char() | :stranger, integer()) :: :ok
  def run(kind, until_ms) do
    if now_ms() < until_ms do
      if kind == :stranger, do: meddle(), else: have(kind, until_ms)
      run(kind, until_ms)
    else
      :ok
    end
  end

  # A link is its opener's alone.
  defp meddle do
    case AbuseLinks.some_link() do
      link when is_reference(link) ->
        refused(fn -> AbuseArguments.call_for(link) end)

      nil ->
        Process.sleep(1)
    end

    AbuseArguments.call_with_anything(nil)
  end

  defp have(kind, until_ms) do
    timeout_ms = if kind == ?s or chance(20), do: Enum.random([0, 1, 20]), else: @patience_ms

    library = library()

    case native(library, fn -> open(kind, timeout_ms) end) do
      {:ok, link} ->
        count(:links)
        AbuseLinks.has(link)

        s = %{
          kind: kind,
          link: link,
          wake: make_ref(),
          job: nil,
          until_ms: until_ms,
          drained: false
        }

        ended = native(library, fn -> with(:ok <- greet(link), do: serve(s)) end)
        AbuseLinks.has(nil)
        part(ended, link, library)
        # The relay's end is one thread: what lies is short-lived, and costs it a link each time.
        if kind != ?h, do: Process.sleep(20)

      {:error, text} when is_binary(text) ->
        Process.sleep(1)

      :no_library ->
        Process.sleep(1)
    end

    flush()
  end

  defp open(kind, timeout_ms),
    do: Native.worker_open(AbuseLinks.socket(), LinkLoopback.token(kind), timeout_ms)

  defp greet(link), do: Native.worker_greet(link, "abuse", 1, "echo", "")

  # With a word, without one, or with all that it holds.
  defp part(:no_library, _link, _library), do: Process.exit(self(), :kill)

  defp part(_ended, link, library) do
    case :rand.uniform(3) do
      1 -> native(library, fn -> closed(link) end)
      2 -> :erlang.garbage_collect()
      3 -> Process.exit(self(), :kill)
    end
  end

  # Whatever is asked of it from then on, and as often as one likes.
  defp closed(link) do
    for _ <- 1..2, do: expect(:ok, Native.worker_close(link), "a close")
    expect(:over, Native.worker_beat(link, 1), "a beat of what is closed")
    expect(:over, Native.worker_pulse(link), "a pulse of what is closed")
    expect(:over, Native.worker_bytes_max(link), "the size of what is closed")
    expect(:over, greet(link), "a greeting of what is closed")
    # With a job under way no other is given, and without one none is under way.
    for call <- [&Native.worker_next(link, &1), &Native.worker_watch(link, &1, 0)],
        said = or_refused(fn -> call.(make_ref()) end),
        said not in [:over, :refused],
        do: wrong("of what is closed one hears #{inspect(said)}")
  end

  # --- A link's life --------------------------------------------------------------------------------------------

  defp serve(%{until_ms: until_ms} = s) do
    now? = now_ms() < until_ms

    case if(now?, do: step(s), else: :done) do
      %{} = s -> serve(s)
      ended -> ended
    end
  end

  defp step(s) do
    case :rand.uniform(1_000) do
      n when n <= 3 -> count_killed()
      4 -> :done
      n when n <= 30 -> side_step(s)
      _ when s.job == nil -> next(s)
      _ -> work(s)
    end
  end

  # What is refused, and what changes nothing.
  defp side_step(%{link: link} = s) do
    case :rand.uniform(5) do
      1 -> alive(s, Native.worker_beat(link, :rand.uniform(2) - 1))
      2 -> alive(s, Native.worker_pulse(link))
      3 -> tap(s, fn _ -> AbuseArguments.call_with_anything(link) end)
      4 -> tap(s, fn _ -> wrongly(link, if(s.job, do: s.job.id, else: 1)) end)
      5 -> tap(s, fn _ -> expect(@result_bytes, Native.worker_bytes_max(link), "its size") end)
    end
  end

  defp alive(s, :ok), do: s
  defp alive(_s, :over), do: over()

  defp next(%{link: link, wake: wake, kind: kind} = s) do
    case Native.worker_next(link, wake) do
      {:job, id, opcode, left_ms, priority, trace, parts, progress, {form, bytes}}
      when (id > 0 or kind == ?l) and opcode in 0..65_535 and left_ms >= -1 and priority in 0..255 and
             (is_binary(trace) or trace == :undefined) and parts >= -1 and progress in 0..1 and
             form in [:raw, :term] and is_binary(bytes) ->
        count(:jobs)
        if s.drained and kind == ?h, do: wrong("a job after all was drained")

        if kind == ?h and not whole?(form, bytes),
          do: wrong("a payload of #{byte_size(bytes)} bytes is torn")

        %{
          s
          | job: %{
              id: id,
              parts: parts,
              form: form,
              bytes: bytes,
              md5: :erlang.md5(bytes),
              cancelled: false
            }
        }

      {:cancelled, id} ->
        answer(
          %{
            s
            | job: %{
                id: id,
                form: :raw,
                bytes: "",
                md5: :erlang.md5(""),
                parts: -1,
                cancelled: true
              }
          },
          :cancelled
        )

      :more ->
        s

      :parked ->
        count(:parked)
        if chance(20), do: AbuseArguments.call_with_anything(link)
        wait(s)

      :drained ->
        Process.sleep(1)
        %{s | drained: true}

      :over ->
        over()

      :broke ->
        if kind == ?h, do: wrong("a link of an honest relay is broken")
        :broke

      other ->
        wrong("next gives #{inspect(other, limit: 12)}")
    end
  end

  # As the loopback fills them.
  defp whole?(:term, bytes), do: whole?(:raw, :erlang.binary_to_term(bytes))
  defp whole?(:raw, ""), do: true

  defp whole?(:raw, <<first, _::binary>> = bytes),
    do: bytes == :binary.copy(<<first>>, byte_size(bytes))

  # A relay that lies need not ring.
  defp wait(%{link: link, wake: wake, kind: kind} = s) do
    receive do
      {:select, ^link, ^wake, :ready_input} -> s
    after
      if(kind == ?h, do: @patience_ms, else: 5) ->
        if kind == ?h, do: wrong("it was not woken")
        s
    end
  end

  defp work(%{link: link, wake: wake, job: job} = s) do
    case :rand.uniform(12) do
      1 -> watch(s)
      2 -> say(s, :progress, some(@progress_bytes))
      3 when job.parts > 0 -> say(s, :part, some(@part_bytes))
      4 -> tap(s, fn _ -> wrongly(link, job.id) end)
      5 -> tap(s, fn _ -> refused(fn -> Native.worker_next(link, wake) end) end)
      6 -> tap(s, fn _ -> :erlang.yield() end)
      7 -> answer(s, :failed)
      _ -> answer(s, :ok)
    end
  end

  defp watch(%{link: link, wake: wake, job: job} = s) do
    case Native.worker_watch(link, wake, 0) do
      {cancelled, parts} when cancelled in 0..1 and parts >= 0 ->
        %{s | job: %{job | cancelled: job.cancelled or cancelled == 1}}

      :over ->
        over()
    end
  end

  # Of others, of nobody, of another generation, of no status; words that are too long, terms that are none.
  defp wrongly(link, id) do
    for {job, status, code, run_us, term, bytes} <- [
          {id + 1, 0, 0, 0, 0, ""},
          {id - 1, 0, 0, 0, 0, ""},
          {(1 <<< 64) - 1, 0, 0, 0, 0, ""},
          {bxor(id, 1 <<< 32), 0, 0, 0, 0, ""},
          {id, 5, 0, 0, 0, ""},
          {id, 1, 65_536, 0, 0, ""},
          {id, 0, 0, (1 <<< 64) - 1, 0, ""},
          {id, 0, 0, 0, 2, ""},
          {id, 0, 0, 0, 1, ""},
          {id, 0, 0, 0, 1, "no term"},
          {id, 0, 0, 0, 1, <<131, 80, 0, 0>>},
          {id, 1, 0, 0, 0, :binary.copy("x", 1025)},
          {id, 2, 0, 0, 0, "x"},
          {id, 3, 0, 0, 0, :binary.copy("x", @part_bytes + 1)},
          {id, 4, 0, 0, 0, :binary.copy("x", @progress_bytes + 1)}
        ],
        do: refused(fn -> Native.worker_say(link, job, status, code, run_us, term, bytes) end)
  end

  # The job's own bytes, or so many of one kind: none, a few, many, more than the link holds.
  defp some(most) do
    case :rand.uniform(20) do
      1 -> 0
      2 -> most
      3 -> :rand.uniform(most)
      4 -> :rand.uniform(min(most, 70_000))
      5 -> :echo
      _ -> :rand.uniform(100)
    end
  end

  defp answer(%{job: job} = s, status) do
    if :erlang.md5(job.bytes) != job.md5, do: wrong("a payload has changed")

    case {status, job.cancelled and chance(2)} do
      {:cancelled, _} -> say(s, :cancelled, 0)
      {_, true} -> say(s, :cancelled, 0)
      {:failed, _} -> say(s, :failed, :rand.uniform(1024))
      {:ok, _} -> say(s, :ok, some(if(chance(30), do: 2 * @result_bytes, else: @result_bytes)))
    end
  end

  defp say(%{link: link, job: job} = s, status, what) do
    {term, bytes} = content(job, what, status)
    run_us = Enum.random([0, 1, 1_000_000_000])

    case Native.worker_say(link, job.id, @statuses[status], 7, run_us, term, bytes) do
      :ok ->
        said(s, status, {term, bytes})

      # Progress never waits; an answer does, for as long as it takes.
      :full when status == :progress ->
        s

      :full ->
        Process.sleep(1)
        if chance(50), do: count_killed()
        say(s, if(status == :part, do: :progress, else: status), 0)

      :too_large ->
        if byte_size(bytes) <= @result_bytes, do: wrong("#{byte_size(bytes)} bytes are too large")
        say(s, :failed, 10)

      :over ->
        over()

      :broke ->
        if s.kind == ?h, do: wrong("a link of an honest relay is broken")
        :broke
    end
  end

  defp said(%{job: job} = s, status, _) when status in [:part, :progress],
    do: %{s | job: if(status == :part, do: %{job | parts: job.parts - 1}, else: job)}

  # It is answered, once and for all.
  defp said(%{link: link, wake: wake, job: job} = s, status, {term, bytes}) do
    count(:answers)

    if chance(10) do
      refused(fn -> Native.worker_say(link, job.id, @statuses[status], 7, 0, term, bytes) end)
      refused(fn -> Native.worker_watch(link, wake, 0) end)
    end

    %{s | job: nil}
  end

  defp content(%{form: form, bytes: bytes} = job, :echo, status) do
    most = %{ok: @result_bytes, part: @part_bytes, progress: @progress_bytes}[status]
    if byte_size(bytes) <= most, do: {is_term(form), bytes}, else: content(job, 1, status)
  end

  defp content(%{id: id}, size, _), do: {0, :binary.copy(<<id>>, size)}

  defp is_term(:term), do: 1
  defp is_term(:raw), do: 0

  # --- Its end, and what is expected -----------------------------------------------------------------------------

  defp over do
    count(:over)
    :over
  end

  defp count_killed do
    count(:killed)
    Process.exit(self(), :kill)
    Process.sleep(:infinity)
  end

  # The library may be another one than the link's by now, or none: then its calls are refused.
  defp native(library, work) do
    work.()
  rescue
    error in [ArgumentError, ErlangError, UndefinedFunctionError] ->
      if library() == library and rem(library, 2) == 0,
        do: reraise(error, __STACKTRACE__),
        else: :no_library
  end

  defp refused(call) do
    said = call.()
    wrong("what should be refused is #{inspect(said, limit: 12)}")
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> count(:refused)
  end

  defp or_refused(call) do
    call.()
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :refused
  end

  defp expect(wanted, wanted, _what), do: :ok
  defp expect(_wanted, said, what), do: wrong("#{what} is #{inspect(said)}")

  defp flush do
    receive do
      _ -> flush()
    after
      0 -> :ok
    end
  end

  defp count(name), do: AbuseLinks.count(name)
  defp wrong(what), do: AbuseLinks.wrong(what)
  defp library, do: AbuseLinks.library()
  defp chance(n), do: :rand.uniform(n) == 1
  defp now_ms, do: System.monotonic_time(:millisecond)
end
