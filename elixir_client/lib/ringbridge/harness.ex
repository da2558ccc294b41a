defmodule Ringbridge.Harness do
  @moduledoc """
  Stresses a bridge and holds it to its word: `mix ringbridge.harness` in a terminal, `run/1` in a program.

  The bridge is a loopback in this VM with a mock computation, or real ones (`Ringbridge.Harness.Target`). What is tried:

    * buffers: the ring against a model, payloads of sizes around every limit, a queue that is full to the last place, rings that wrap
      around (`Ringbridge.Harness.Buffers`)
    * fallbacks: workers that die, or want no more jobs; a bridge that is overloaded, drains, or is killed (`Ringbridge.Harness.Fallbacks`)
    * load: callers of all kinds at once for the rest of the time, of whom some die and some give up, while workers are killed
      (`Ringbridge.Harness.Load`)

  Payloads and answers carry a number and a CRC-32; large ones are shared and not copied within a VM, which is looked at, too. In the
  end each accepted job must have had one answer, and nothing may be left.

      iex> report = Ringbridge.Harness.run(seconds: 1, seed: 7)
      iex> {report.passed?, report.wrong, report.target}
      {true, 0, :loopback}
  """
  alias Ringbridge.Harness.{Buffers, Fallbacks, Load, Target}

  @checks [
    {"ring against a model", &Buffers.model/2},
    {"sizes around limits", &Buffers.sizes/2},
    {"full queue", &Buffers.full/2},
    {"wrap-around", &Buffers.wrap/2},
    {"zero copy", &Buffers.shared/2},
    {"worker dies", &Fallbacks.worker_dies/2},
    {"worker wants no jobs", &Fallbacks.not_ready/2},
    {"bridge overloaded", &Fallbacks.overloaded/2},
    {"bridge drains", &Fallbacks.drains/2},
    {"load", &Load.run/2},
    {"the books", &__MODULE__.books/2}
  ]

  # What ends a bridge, and its books with it.
  @last [{"bridge lost", &Fallbacks.bridge_lost/2}, {"nothing left", &__MODULE__.left/2}]

  @typedoc "One check: what came of it, and what there is to tell."
  @type check :: %{
          name: String.t(),
          status: :passed | :failed | :skipped,
          detail: String.t(),
          ms: non_neg_integer()
        }

  @type report :: %{
          target: :loopback | :bridge,
          native?: boolean(),
          seed: integer(),
          seconds: number(),
          checks: [check()],
          accepted: non_neg_integer(),
          answered: %{atom() => non_neg_integer()},
          wrong: non_neg_integer(),
          passed?: boolean()
        }

  @typedoc "What a check gets beside the target."
  @type settings :: %{seed: integer(), load_ms: pos_integer(), say: (String.t() -> term())}

  @doc """
  Runs it all; raises `RuntimeError` when the target cannot be started.

    * `:seconds` - about so long, 10 by default; the checks before and behind the load take about two of a loopback, five to ten of bridges
    * `:seed` - an integer; the same one chooses the same payloads and the same order of trouble
    * `:bridge` - the program `ringbridge` with its first arguments, a text or a list; without it a loopback
    * `:say` - a function that is given lines of progress
  """
  @spec run(keyword()) :: report()
  def run(options \\ []) do
    seed = Keyword.get_lazy(options, :seed, fn -> :rand.uniform(1_000_000_000) end)
    seconds = Keyword.get(options, :seconds, 10)
    say = Keyword.get(options, :say, fn _line -> :ok end)
    kind = if options[:bridge], do: {:bridge, List.wrap(options[:bridge])}, else: :loopback
    settings = %{seed: seed, load_ms: max(round(seconds * 1_000), 1), say: say}

    # In a process of its own, so that it neither reads nor leaves a message of its caller's.
    task = Task.async(fn -> apart(kind, Keyword.get(options, :compute, :compute), settings) end)

    case Task.await(task, :infinity) do
      {:ok, report} -> Map.merge(report, %{seed: seed, seconds: seconds})
      {:error, why} -> raise "the target cannot be started: #{text(why)}"
    end
  end

  defp apart(kind, compute, settings) do
    Process.flag(:trap_exit, true)

    with {:ok, target} <- Target.start(kind, compute) do
      checks = for {name, check} <- @checks, do: check(name, check, target, settings)
      books = Target.books(target)
      checks = checks ++ for {name, check} <- @last, do: check(name, check, target, settings)
      failed = Enum.count(checks, &(&1.status == :failed))

      {:ok,
       %{
         target: target.kind,
         native?: target.native?,
         checks: checks,
         accepted: books.accepted,
         answered: Map.filter(books.answered, fn {_reason, count} -> count > 0 end),
         wrong: failed,
         passed?: failed == 0
       }}
    end
  end

  defp check(name, check, target, settings) do
    began = System.monotonic_time(:millisecond)
    # Each check has its own sequence: one that is left out moves no other.
    :rand.seed(:exsss, {settings.seed, :erlang.phash2(name), 0})
    {status, detail} = caught(fn -> check.(target, settings) end)
    ms = System.monotonic_time(:millisecond) - began

    settings.say.(
      "#{String.pad_trailing(name, 22)} #{status}#{if detail != "", do: ": "}#{detail}"
    )

    %{name: name, status: status, detail: detail, ms: ms}
  end

  # A check that raises has failed; the next one is made all the same.
  defp caught(check) do
    case check.() do
      {:skipped, why} -> {:skipped, why}
      {:ok, detail} -> {:passed, detail}
    end
  catch
    kind, reason -> {:failed, Exception.format_banner(kind, reason, __STACKTRACE__)}
  end

  @doc "Each accepted job has had one answer, and no more is under way."
  @spec books(Target.t(), settings()) :: {:ok, String.t()}
  def books(target, _settings) do
    settled!("no job is in flight", fn -> Target.books(target).in_flight == 0 end)
    books = Target.books(target)
    # What was refused at the door is told among the answers, and was not accepted.
    answered = books.answered |> Map.values() |> Enum.sum()
    if answered < books.accepted, do: raise("#{books.accepted} accepted, #{answered} answered")
    {:ok, "#{books.accepted} accepted"}
  end

  @doc "Ends the target: no process of it is left, and no answer that nobody fetched."
  @spec left(Target.t(), settings()) :: {:ok, String.t()}
  def left(target, _settings) do
    case {Target.stop(target), messages()} do
      {[], []} -> {:ok, ""}
      {left, messages} -> raise "#{Enum.join(left, "; ")} #{inspect(messages, limit: 10)}"
    end
  end

  # What no caller fetched would lie here; exits of the target's processes and late words of gates do not count.
  defp messages do
    {:messages, messages} = Process.info(self(), :messages)

    Enum.filter(messages, fn
      {[:alias | _], _answer} -> true
      {:ringbridge, _ref, _answer} -> true
      {:ringbridge_lane, _ref, _kind, _data} -> true
      _other -> false
    end)
  end

  @doc false
  @spec settled!(String.t(), (() -> boolean())) :: :ok
  def settled!(what, look), do: Ringbridge.Case.Wait.until(what, 60_000, look)

  defp text(why) when is_binary(why), do: why
  defp text({:shutdown, why}), do: text(why)
  defp text({why, child}) when elem(child, 0) == :child, do: text(why)
  defp text(why), do: inspect(why)
end
