defmodule Ringbridge.StreamsTest do
  @moduledoc """
  Streams, asked for by a consumer that speaks GenStage's documented protocol by hand: the test itself.

  docs/streams.md has the same words; `docs_test.exs` runs them.
  """
  use Ringbridge.BridgeCase,
    roles: """
    [roles.primes]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-primes"]
    workers = 2
    cancel_term_ms = 1_000
    cancel_kill_ms = 1_000
    """

  defp streams(node), do: {Ringbridge.Streams, node}

  defp subscribe(node, job, options \\ []) do
    ref = Process.monitor(streams(node))
    options = [job: job] ++ options
    send(streams(node), {:"$gen_producer", {self(), ref}, {:subscribe, nil, options}})
    ref
  end

  defp ask(node, ref, count),
    do: send(streams(node), {:"$gen_producer", {self(), ref}, {:ask, count}})

  defp cancel(node, ref, reason),
    do: send(streams(node), {:"$gen_producer", {self(), ref}, {:cancel, reason}})

  defp take(ref, count, acc \\ [])
  defp take(_ref, 0, acc), do: acc

  defp take(ref, count, acc) do
    assert_receive {:"$gen_consumer", {pid, ^ref}, events} when is_list(events)
    assert node(pid) != node() and events != []
    assert length(events) <= count
    take(ref, count - length(events), acc ++ events)
  end

  defp primes(limit),
    do:
      for(
        n <- 2..limit,
        Enum.all?(2..max(2, floor(:math.sqrt(n))), &(n == &1 or rem(n, &1) != 0)),
        do: n
      )

  defp idle_workers(node) do
    Lab.wait_until("all workers of primes are idle", fn ->
      Enum.all?(workers(node, :primes), &(&1.state == :ready and &1.in_flight == 0))
    end)
  end

  @tag :smoke
  test "events come as far as they are asked for, and normal at the end", %{node: node} do
    ref = subscribe(node, {:primes, "30"})
    refute_receive {:"$gen_consumer", _, _}, 50
    ask(node, ref, 3)
    assert take(ref, 3) == [2, 3, 5]
    refute_receive {:"$gen_consumer", _, _}, 50
    ask(node, ref, 2)
    ask(node, ref, 100)
    assert take(ref, 7) == [7, 11, 13, 17, 19, 23, 29]
    assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, :normal}}
    Process.demonitor(ref)
    refute_receive _, 50
  end

  test "a long stream comes whole and in order, whatever the portions", %{node: node} do
    expected = primes(20_000)

    for portion <- [1, 7, 1_000, 100_000] do
      ref = subscribe(node, {:primes, "20000", %{priority: :high}}, max_demand: portion)

      all =
        Stream.repeatedly(fn -> ask(node, ref, portion) end)
        |> Enum.reduce_while([], fn _asked, acc ->
          wanted = min(portion, length(expected) - length(acc))
          acc = acc ++ take(ref, wanted)
          if length(acc) == length(expected), do: {:halt, acc}, else: {:cont, acc}
        end)

      assert all == expected
      # What is asked for beyond the end brings the end.
      assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, :normal}}
      Process.demonitor(ref)
    end
  end

  test "two subscriptions of one consumer are two streams", %{node: node} do
    one = subscribe(node, {:primes, "100000000"})
    two = subscribe(node, {:primes, "20"})
    ask(node, two, 100)
    assert take(two, 8) == [2, 3, 5, 7, 11, 13, 17, 19]
    ask(node, one, 4)
    assert take(one, 4) == [2, 3, 5, 7]
    cancel(node, one, :enough)
    assert_receive {:"$gen_consumer", {_, ^one}, {:cancel, :enough}}
    idle_workers(node)
  end

  @tag :smoke
  test "a consumer that dies stops its worker", %{node: node} do
    test = self()

    consumer =
      spawn(fn ->
        ref = subscribe(node, {:primes, "100000000"})
        ask(node, ref, 10)
        send(test, {:taken, take(ref, 10)})
        Process.sleep(:infinity)
      end)

    assert_receive {:taken, [2 | _]}
    assert Enum.any?(workers(node, :primes), &(&1.in_flight > 0))
    Process.exit(consumer, :kill)
    idle_workers(node)
  end

  test "a consumer that stops asking holds its worker, and others of the role go on", %{
    node: node
  } do
    held = subscribe(node, {:primes, "100000000"})
    ask(node, held, 1)
    assert take(held, 1) == [2]
    for _ <- 1..20, do: assert({:ok, 4} = submit(node, :primes, "10"))
    ask(node, held, 1)
    assert take(held, 1) == [3]
    cancel(node, held, :shutdown)
    assert_receive {:"$gen_consumer", {_, ^held}, {:cancel, :shutdown}}
  end

  test "a worker that dies amid a stream gives cancel with the reason", %{node: node} do
    ref = subscribe(node, {:primes, "100000000"})
    ask(node, ref, 5)
    assert take(ref, 5) == [2, 3, 5, 7, 11]
    Program.kill(await_busy(node, :primes), "KILL")
    assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, {:worker_crashed, info}}}
    assert %{signal: 9, worker: _, job: _} = info

    Lab.wait_until("both workers are back", fn ->
      Enum.count(workers(node, :primes), &(&1.state == :ready)) == 2
    end)
  end

  test "what cannot begin is cancelled with the reason", %{node: node} do
    for {job, reason} <- [
          {{:nosuch, "1"}, ~r/unknown role nosuch/},
          {{:primes, "1", %{timeuot: 1}}, ~r/timeuot/},
          {{:primes, "1", %{orphan: :finish}}, ~r/no options of a stream/},
          {{:primes}, ~r/role, payload/},
          {:primes, ~r/role, payload/}
        ] do
      ref = subscribe(node, job)
      assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, {:bad_request, why}}}
      assert why =~ reason
    end

    ref = subscribe(node, {:primes, "many"})
    ask(node, ref, 1)

    assert_receive {:"$gen_consumer", {_, ^ref},
                    {:cancel, {:job_failed, 1, "not a number" <> _}}},
                   5_000
  end

  test "a deadline ends a stream", %{node: node} do
    ref = subscribe(node, {:primes, "100000000", %{timeout: 3_000}})
    ask(node, ref, 1)
    assert take(ref, 1) == [2]
    assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, :deadline_exceeded}}
    idle_workers(node)
  end

  test "a word about no subscription is answered, to whoever it is about", %{node: node} do
    ref = make_ref()
    ask(node, ref, 1)
    assert_receive {:"$gen_consumer", {_, ^ref}, {:cancel, :unknown_subscription}}
    # Any term may be a tag.
    send(streams(node), {:"$gen_producer", {self(), {:a, "tag"}}, {:cancel, :enough}})
    assert_receive {:"$gen_consumer", {_, {:a, "tag"}}, {:cancel, :unknown_subscription}}
  end

  test "the process is one of the node's, and its end is told by monitors alone", %{node: node} do
    ref = subscribe(node, {:primes, "100000000"})
    ask(node, ref, 1)
    assert take(ref, 1) == [2]
    assert :sys.get_state(streams(node)).streams == 1
    assert {:error, {:bad_request, why}} = GenServer.call(streams(node), :hello)
    assert why =~ "GenStage"
    pid = :rpc.call(node, :erlang, :whereis, [Ringbridge.Streams])
    assert is_pid(pid)
  end

  test "an asynchronous job tells its progress, in order and before its answer", %{node: node} do
    {:ok, ref} = call(node, {:submit_async, :primes, "20000000"})
    {answer, reports} = await_answer(ref, [])
    assert answer == {:ok, 1_270_607}
    assert length(reports) > 1
    assert reports == Enum.sort(reports) and Enum.all?(reports, &(&1 in 0..100))
    refute_receive {:ringbridge, _, _}, 50
  end

  defp await_answer(ref, reports) do
    receive do
      {:ringbridge, ^ref, {:progress, percent}} -> await_answer(ref, reports ++ [percent])
      {:ringbridge, ^ref, answer} -> {answer, reports}
    after
      20_000 -> flunk("no answer")
    end
  end

  test "nothing is buffered for a consumer that asks for all and takes nothing", %{node: node} do
    # The test's own mailbox takes everything; what is bounded is between worker and socket. So the VM that asks is
    # another one, which is stopped while the events come.
    expression = """
    {streams, ref} = {{Ringbridge.Streams, :'#{node}'}, make_ref()}
    true = Node.connect(:'#{node}')
    send(streams, {:"$gen_producer", {self(), ref}, {:subscribe, nil, [job: {:primes, "100000000"}]}})
    send(streams, {:"$gen_producer", {self(), ref}, {:ask, 1_000_000_000}})
    IO.puts("asked")
    Process.sleep(:infinity)
    """

    other = Lab.start_node(expression)
    Program.await_line(other, ~r/asked/)
    Program.signal(other, "STOP")
    Lab.wait_until("the worker waits", fn -> held_back?(node) end)
    Program.signal(other, "KILL")
    idle_workers(node)
  end

  # No event left within 200 ms, while a stream is open.
  defp held_back?(node) do
    before = :sys.get_state(streams(node))
    Process.sleep(200)
    later = :sys.get_state(streams(node))
    before.streams == 1 and before.events > 0 and later.events == before.events
  end
end
