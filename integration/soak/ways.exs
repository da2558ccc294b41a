defmodule Ringbridge.Soak.Ways do
  @moduledoc """
  The ways of asking beside a plain call (docs/calling.md): many at once, over several
  and joined, asynchronously, once for many, and in the order of a key. Each gives the label of how it ended.
  """

  alias Ringbridge.Soak.{Calls, Judge, Payloads}

  @patience_ms 90_000

  @spec make(atom(), Calls.t()) :: Judge.label()
  def make(:many, calls) do
    payloads = payloads(calls)
    many(payloads, Calls.call(calls, {:submit_many, :echo, payloads, Payloads.options(calls)}))
  end

  # Left with some of its jobs answered and some not; their answers are in the bridge and must go.
  def make(:many_give_up, calls) do
    payloads = for _ <- 1..(5 + :rand.uniform(20)), do: "#{:rand.uniform(30) - 1}"
    many(payloads, Calls.call(calls, {:submit_many, :sleep, payloads}, :rand.uniform(60)))
  end

  # Each by a job of its own, and their list by one more: the very list, or the first of them that did not end well.
  def make(:map, calls) do
    payloads = payloads(calls)
    step = Enum.random([{:map, :echo}, {:map, {:echo, 0}}])
    options = Map.put(Payloads.options(calls), :stages, [:echo])
    Judge.label(payloads, Calls.call(calls, {:submit, step, payloads, options}))
  end

  def make(:map_give_up, calls) do
    payloads = for _ <- 1..(5 + :rand.uniform(20)), do: "#{:rand.uniform(30) - 1}"
    request = {:submit, {:map, :sleep}, payloads, %{stages: [{:map, :sleep}]}}
    Judge.label(payloads, Calls.call(calls, request, :rand.uniform(120)))
  end

  def make(:fan_out, calls) do
    payload = Payloads.nap(calls, 20)
    roles = Enum.take_random([:sleep, :echo, :again, :echo], :rand.uniform(4))
    expected = Enum.map(roles, fn _ -> payload end)
    Judge.label(expected, Calls.call(calls, {:submit, roles, payload, %{}}))
  end

  def make(:async, calls) do
    payload = Payloads.bytes(calls, Payloads.size())
    options = orphan(Payloads.options(calls))

    {label, _reports} =
      ask_async(calls, {:submit_async, :echo, payload, options}, payload, fn _ -> :ok end)

    label
  end

  # By its reference, from another process, before it runs, while it does, or when it is over.
  def make(:async_cancel, calls) do
    payload = "#{:rand.uniform(40)}"
    after_ms = :rand.uniform(40) - 1

    cancel = fn ref ->
      spawn(fn ->
        Process.sleep(after_ms)
        Calls.call(calls, {:cancel, ref})
      end)
    end

    request = {:submit_async, :sleep, payload, orphan(%{})}
    {label, _reports} = ask_async(calls, request, payload, cancel)
    label
  end

  def make(:async_progress, calls) do
    limit = Payloads.primes_limit()
    request = {:submit_async, :primes, "#{limit}"}
    count = length(Payloads.primes())
    {label, reports} = ask_async(calls, request, count, fn _ -> :ok end)
    rising = reports == Enum.sort(reports) and Enum.all?(reports, &(&1 in 0..100))
    if rising, do: label, else: {:wrong, "progress goes back: #{inspect(reports)}"}
  end

  # Its caller is gone before the answer: cancelled, or run to its end and told to nobody.
  def make(:orphan, calls) do
    request = {:submit_async, :sleep, "#{:rand.uniform(60)}", orphan(%{})}
    lives_ms = :rand.uniform(10) - 1

    {_pid, ref} =
      spawn_monitor(fn ->
        case Calls.call(calls, request) do
          {:answer, {:ok, ref}} when is_reference(ref) -> Process.sleep(lives_ms)
          other -> exit({:shutdown, Judge.label(nil, other)})
        end
      end)

    receive do
      {:DOWN, ^ref, _, _, :normal} -> :left
      {:DOWN, ^ref, _, _, {:shutdown, label}} -> label
      {:DOWN, ^ref, _, _, reason} -> {:wrong, "an orphan's caller ended: #{inspect(reason)}"}
    end
  end

  # Callers with one key: each has the bytes, and who has an answer has it of the same run.
  def make(:dedupe, calls) do
    nap = {:again, Payloads.nap(calls, 40)}
    {role, payload} = Enum.random([nap, {:echo, Payloads.bytes(calls, Payloads.small_size())}])
    key = "#{node()} #{calls.id} #{calls.number}"
    options = orphan(%{dedupe: key, ttl: 5_000, detail: true})
    request = {:submit, role, payload, options}
    ask = fn -> Calls.call(calls, request) end
    others = for _ <- 1..:rand.uniform(3), do: Task.async(ask)
    # One more comes when there may be an answer to keep.
    outcomes = [ask.() | Task.await_many(others, :infinity)] ++ [ask.()]
    labels = Enum.map(outcomes, &Judge.label(payload, &1))
    runs = for {:answer, {:ok, _, %{job: job}}} <- outcomes, uniq: true, do: job

    cond do
      wrong = Enum.find(labels, &match?({:wrong, _}, &1)) -> wrong
      length(runs) > 1 -> {:wrong, "one key had runs #{inspect(runs)}"}
      true -> Enum.find(labels, :ok, &(&1 != :ok))
    end
  end

  # Jobs of a key run one after the other: their ends come in the order in which they were asked for, whoever
  # dies meanwhile. Those that never ran (refused, cancelled, late) stand in no order. They sleep long enough to
  # wait for each other, and their zeros tell them apart.
  def make(:ordered, calls) do
    key = "#{node()} #{calls.id} #{calls.number}"
    monitor = Process.monitor(calls.target)

    asked =
      for i <- 1..(3 + :rand.uniform(12)) do
        payload = Payloads.zeros(i, "#{:rand.uniform(5) - 1}")
        options = %{key: key, retry: :rand.uniform(3) - 1, priority: Enum.random([:high, :low])}
        {i, payload, Calls.call(calls, {:submit_async, :ordered, payload, options})}
      end

    waiting = for {i, payload, {:answer, {:ok, ref}}} <- asked, into: %{}, do: {ref, {i, payload}}
    refused = for {_, _, outcome} <- asked, not match?({:answer, {:ok, _}}, outcome), do: outcome
    ends = collect(waiting, monitor, [])
    Process.demonitor(monitor, [:flush])
    Calls.barrier(calls)
    ran = for {i, label} <- ends, label in [:ok, :worker_crashed, :worker_hung], do: i
    labels = Enum.map(refused, &Judge.label(nil, &1)) ++ Enum.map(ends, &elem(&1, 1))

    cond do
      wrong = Enum.find(labels, &match?({:wrong, _}, &1)) -> wrong
      ran != Enum.sort(ran) -> {:wrong, "a key's jobs ended in the order #{inspect(ran)}"}
      true -> Enum.find(labels, :ok, &(&1 != :ok))
    end
  end

  # ---- many

  defp payloads(calls) do
    case :rand.uniform(4) do
      1 -> for _ <- 1..:rand.uniform(4), do: Payloads.bytes(calls, Payloads.size())
      2 -> for _ <- 1..:rand.uniform(20), do: Payloads.term(calls)
      _ -> for _ <- 1..:rand.uniform(100), do: Payloads.bytes(calls, Payloads.small_size())
    end
  end

  defp many(payloads, {:answer, {:ok, answers}}) do
    if length(answers) == length(payloads) do
      labels = Enum.zip_with(payloads, answers, &Judge.label(&1, {:answer, &2}))

      Enum.find(labels, fn label -> match?({:wrong, _}, label) end) ||
        Enum.find(labels, :ok, &(&1 != :ok))
    else
      {:wrong, "#{length(payloads)} payloads had #{length(answers)} answers"}
    end
  end

  defp many(_payloads, outcome), do: Judge.label(nil, outcome)

  # ---- asynchronously

  defp orphan(options) do
    case :rand.uniform(3) do
      1 -> Map.put(options, :orphan, :finish)
      2 -> Map.put(options, :orphan, :cancel)
      3 -> options
    end
  end

  defp ask_async(calls, request, expected, meanwhile) do
    monitor = Process.monitor(calls.target)

    result =
      case Calls.call(calls, request) do
        {:answer, {:ok, ref}} when is_reference(ref) ->
          meanwhile.(ref)
          {outcome, reports} = await(ref, monitor, [])
          {Judge.label(expected, outcome), reports}

        other ->
          {Judge.label(nil, other), []}
      end

    Process.demonitor(monitor, [:flush])
    Calls.barrier(calls)
    result
  end

  defp await(ref, monitor, reports) do
    receive do
      {:ringbridge, ^ref, {:progress, percent}} -> await(ref, monitor, [percent | reports])
      {:ringbridge, ^ref, answer} -> {{:answer, answer}, Enum.reverse(reports)}
      {:DOWN, ^monitor, _, _, reason} -> {lost(ref, reason), Enum.reverse(reports)}
    after
      @patience_ms -> {{:late, @patience_ms, :no_answer}, []}
    end
  end

  defp lost(ref, reason) do
    Calls.except(ref)
    {:exit, reason}
  end

  defp collect(waiting, _monitor, ends) when waiting == %{}, do: Enum.reverse(ends)

  defp collect(waiting, monitor, ends) do
    receive do
      {:ringbridge, ref, answer} when is_map_key(waiting, ref) ->
        {{i, payload}, waiting} = Map.pop!(waiting, ref)
        collect(waiting, monitor, [{i, Judge.label(payload, {:answer, answer})} | ends])

      {:DOWN, ^monitor, _, _, reason} ->
        for {ref, _} <- waiting, do: Calls.except(ref)
        Enum.reverse([{0, Judge.label(nil, {:exit, reason})} | ends])
    after
      @patience_ms -> [{0, {:wrong, "no answer for #{inspect(Map.values(waiting), limit: 3)}"}}]
    end
  end
end
