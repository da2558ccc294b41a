# Each test runs over both lanes, with a bridge for each: same calls, same answers, same ends.
for lane <- [:dist, :nif] do
  defmodule Module.concat(Ringbridge, "ClientCall#{Macro.camelize("#{lane}")}Test") do
    @moduledoc "The Elixir client's calls against one bridge: answers, deadlines, what a caller's end means, and what is left."
    @lane lane

    use Ringbridge.BridgeCase,
      name: "client_call_#{@lane}",
      roles: """
      [roles.primes]
      command = ["#{Ringbridge.Lab.root()}/build/bin/rb-primes"]
      workers = 2
      cancel_term_ms = 1_000
      cancel_kill_ms = 1_000
      """

    alias Ringbridge.Error

    # It outlasts every test: what is left over would be seen.
    @long "30000"

    setup %{node: node} = context do
      name = Module.concat(__MODULE__, "I#{context.line}")
      start_supervised!({Ringbridge, name: name, nodes: [node], lane: @lane})
      on_exit(fn -> await_idle(node, 20_000) end)
      await_lane(name, node, @lane)
      {:ok, name: name}
    end

    # All that a test may have left in its own mailbox. What was sent before an answer of the same bridge is here by then.
    defp assert_nothing_left(context) do
      assert {:ok, "last"} = Ringbridge.call(context.name, :echo, "last")
      refute_received _
    end

    test "the lane is the one that was asked for", %{name: name, node: node} do
      sent = sent(name, node)
      assert Ringbridge.call(name, :echo, "x") == {:ok, "x"}
      assert Ringbridge.call(name, :echo, {:a, 1}) == {:ok, {:a, 1}}
      assert Ringbridge.call_many(name, :echo, ["x"]) == {:ok, [{:ok, "x"}]}
      assert Ringbridge.await(Ringbridge.async(name, :echo, "x", priority: :high)) == {:ok, "x"}
      assert sent(name, node) == if(@lane == :nif, do: sent + 4)
    end

    @tag :smoke
    test "the first call waits for the connection, and is answered", %{name: name} = context do
      assert Ringbridge.call(name, :echo, "hello") == {:ok, "hello"}
      assert Ringbridge.call(name, "echo", {:a, [1.5]}) == {:ok, {:a, [1.5]}}
      assert {:ok, "x", %{run_us: _}} = Ringbridge.call(name, :echo, "x", detail: true)
      assert {"x", %{job: _}} = Ringbridge.call!(name, :echo, "x", %{detail: true})
      assert_nothing_left(context)
    end

    test "the bridge's reasons come as errors that name role and bridge", %{
      name: name,
      node: node
    } do
      assert {:error, error} = Ringbridge.call(name, :nobody, "x")
      assert %Error{reason: {:bad_request, _}, role: :nobody, node: ^node} = error

      assert {:error, %Error{reason: {:too_large, 65_536}}} =
               Ringbridge.call(name, :small, :binary.copy("x", 70_000))

      assert {:error, %Error{reason: {:bad_request, _}}} =
               Ringbridge.call(name, :echo, "x", retry: :often)
    end

    @tag :smoke
    test "a deadline is the bridge's answer, and frees the worker", %{name: name} = context do
      assert {:error, %Error{reason: :deadline_exceeded}} =
               Ringbridge.call(name, :sleep, @long, timeout: 100)

      assert_nothing_left(context)
    end

    @tag :smoke
    test "a bridge that stands still makes a call a timeout, not an exit", context do
      pid = Program.os_pid(context.bridge.program)
      assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
      Program.kill(pid, "STOP")
      answer = Ringbridge.call(context.name, :echo, "x", timeout: 100)
      Program.kill(pid, "CONT")
      assert {:error, %Error{reason: :timeout}} = answer
      assert_nothing_left(context)
    end

    @tag :smoke
    test "stages hand on what they answer, and the one that fails is named",
         %{name: name} = context do
      assert Ringbridge.pipeline(name, [:echo, "echo", {:sleep, 0}], "5") == {:ok, "5"}
      assert Ringbridge.pipeline(name, [:echo], {:a, 1}) == {:ok, {:a, 1}}

      assert {:error, %Error{reason: {:stage, 2, :small, {:too_large, 65_536}}, role: :echo}} =
               Ringbridge.pipeline(name, [:echo, :small, :echo], :binary.copy("x", 70_000))

      assert {:error, %Error{reason: {:stage, 2, :sleep, :deadline_exceeded}} = error} =
               Ringbridge.pipeline(name, [:echo, :sleep], @long, timeout: 200)

      assert Exception.message(error) =~ "stage 2 (sleep): the job's timeout passed"
      request = Ringbridge.async(name, :echo, @long, stages: [:sleep], timeout: :infinity)
      await_busy(context.node, :sleep)
      assert Ringbridge.shutdown(request) == nil
      await_idle(context.node, 20_000)
      assert_nothing_left(context)
    end

    @tag :smoke
    test "a batch, a cast", %{name: name, node: node} = context do
      assert {:ok, answers} =
               Ringbridge.call_many(name, :small, ["a", :binary.copy("b", 70_000), "c"])

      assert [{:ok, "a"}, {:error, %Error{reason: {:too_large, _}}}, {:ok, "c"}] = answers

      before = stats(node)
      assert Ringbridge.cast(name, :sleep, "50") == :ok
      Lab.wait_until("the cast has run", fn -> ended(stats(node)) > ended(before) end)
      assert_nothing_left(context)
    end

    defp ended(stats), do: Map.get(stats.answered, :ok, 0)

    @tag :smoke
    test "a cast goes on when its caller has ended", %{name: name, node: node} do
      before = stats(node)
      {caller, ref} = spawn_monitor(fn -> Ringbridge.cast(name, :sleep, "300") end)
      assert_receive {:DOWN, ^ref, :process, ^caller, :normal}, 20_000
      Lab.wait_until("the cast has run", fn -> ended(stats(node)) > ended(before) end)
    end

    describe "a request" do
      @tag :smoke
      test "is waited for again after a yield, and answered", %{name: name} = context do
        request = Ringbridge.async(name, :sleep, "2000")
        assert Ringbridge.yield(request, 0) == nil
        assert {:ok, _} = Ringbridge.await(request)
        assert_nothing_left(context)
      end

      @tag :smoke
      test "that is shut down, or given up by await, frees its worker", %{name: name} = context do
        for {give_up, said} <- [
              {&Ringbridge.shutdown/1, nil},
              {&Ringbridge.await(&1, 0), :timeout},
              {&Ringbridge.cancel/1, :ok}
            ] do
          request = Ringbridge.async(name, :sleep, @long, timeout: :infinity)
          await_busy(context.node, :sleep)

          case give_up.(request) do
            {:error, %Error{reason: reason}} -> assert reason == said
            other -> assert other == said
          end

          await_idle(context.node, 20_000)
        end

        assert_nothing_left(context)
      end

      @tag :smoke
      test "ends with its owner, however that ends", %{name: name, node: node} do
        for reason <- [:kill, :shutdown] do
          {owner, ref} =
            spawn_monitor(fn ->
              Ringbridge.async(name, :sleep, @long, timeout: :infinity)
              Process.sleep(:infinity)
            end)

          await_busy(node, :sleep)
          Process.exit(owner, reason)
          assert_receive {:DOWN, ^ref, _, _, _}
          await_idle(node, 20_000)
        end
      end

      test "of a GenServer is heard among its messages", %{name: name} = context do
        request = Ringbridge.async(name, :echo, "x")
        send(self(), :another)
        assert_receive :another
        assert Ringbridge.check(request, :another) == :other
        assert_receive message, 20_000
        assert Ringbridge.check(request, message) == {:ok, "x"}
        assert_nothing_left(context)
      end
    end

    describe "a cancel" do
      @tag :smoke
      test "of another's job, by its reference and by its id",
           %{name: name, node: node} = context do
        assert {:ok, ref} = call(node, {:submit_async, :sleep, @long})
        assert Ringbridge.cancel(ref) == :ok
        assert_receive {:ringbridge, ^ref, {:error, :cancelled}}, 20_000
        assert {:error, %Error{reason: :unknown_job}} = Ringbridge.cancel(ref)

        task = Task.async(fn -> Ringbridge.call(name, :sleep, @long, timeout: :infinity) end)
        await_busy(node, :sleep)
        assert {:ok, [%{job: id}]} = call(node, {:jobs, :sleep})
        assert Ringbridge.cancel(id, node: node) == :ok
        assert {:error, %Error{reason: :cancelled}} = Task.await(task, 20_000)
        assert_nothing_left(context)
      end
    end

    describe "callers" do
      @tag :smoke
      test "that trap exits get errors and no EXIT", %{name: name, node: node} = context do
        Process.flag(:trap_exit, true)
        assert {:error, %Error{}} = Ringbridge.call(name, :sleep, @long, timeout: 50)
        assert Enum.take(Ringbridge.stream(name, :primes, "100000000"), 3) == [2, 3, 5]
        request = Ringbridge.async(name, :sleep, @long)
        Ringbridge.shutdown(request)
        stop_supervised!({Ringbridge, name})
        assert {:error, %Error{reason: :not_started}} = Ringbridge.call(name, :echo, "x")
        refute_received _
        await_idle(node, 20_000)
        # For the next look the instance must be there again.
        start_supervised!({Ringbridge, name: name, nodes: [node], lane: @lane})
        assert_nothing_left(context)
      end

      test "a thousand that die while they wait leave nothing anywhere",
           %{name: name, node: node} = context do
        assert {:ok, "x"} = Ringbridge.call(name, :echo, "x")
        processes = length(Process.list())

        callers =
          for i <- 1..1_000 do
            spawn(fn ->
              case rem(i, 3) do
                0 -> Ringbridge.call(name, :sleep, @long, timeout: :infinity)
                1 -> Ringbridge.await(Ringbridge.async(name, :sleep, @long, timeout: :infinity))
                2 -> Ringbridge.call_many(name, :sleep, [@long, @long], timeout: :infinity)
              end
            end)
          end

        Lab.wait_until("all of their jobs are there", fn ->
          stats(node).in_flight > 1_000
        end)

        Enum.each(callers, &Process.exit(&1, :kill))
        await_idle(node, 60_000)
        Lab.wait_until("they are gone", fn -> length(Process.list()) <= processes end)
        assert_nothing_left(context)
      end
    end

    describe "a stream" do
      @tag :smoke
      test "gives the parts in order, whatever is asked for at a time", %{name: name} = context do
        few = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
        assert Enum.to_list(Ringbridge.stream(name, :primes, "30")) == few
        assert Enum.to_list(Ringbridge.stream(name, :primes, "30", max_demand: 1)) == few
        many = Ringbridge.stream(name, :primes, "20000")
        assert Enum.count(many) == 2_262
        assert Enum.count(many) == 2_262
        assert_nothing_left(context)
      end

      @tag :smoke
      test "that is halted, suspended or left with its owner stops its worker",
           %{name: name} = context do
        endless = Ringbridge.stream(name, :primes, "100000000")
        assert Enum.take(endless, 2) == [2, 3]
        await_idle(context.node, 20_000)
        assert Enum.zip(endless, [:a, :b]) == [{2, :a}, {3, :b}]
        await_idle(context.node, 20_000)

        owner = spawn(fn -> Enum.each(endless, fn _ -> Process.sleep(10) end) end)
        await_busy(context.node, :primes)
        Process.exit(owner, :kill)
        await_idle(context.node, 20_000)
        assert_nothing_left(context)
      end

      test "that ends badly raises the error in its consumer", %{name: name} = context do
        # What is busy then has this stream.
        await_free(context.node, :primes)
        endless = Ringbridge.stream(name, :primes, "100000000")

        error =
          assert_raise Error, fn ->
            Enum.reduce(endless, :alive, fn
              _, :alive -> Program.kill(await_busy(context.node, :primes), "KILL") && :killed
              _, :killed -> :killed
            end)
          end

        assert {:worker_crashed, %{signal: _}} = error.reason

        assert_raise Error, ~r/unknown role/, fn ->
          Enum.to_list(Ringbridge.stream(name, :nobody, ""))
        end

        assert_nothing_left(context)
      end

      test "of a bridge that stands still ends at its timeout", context do
        pid = Program.os_pid(context.bridge.program)
        endless = Ringbridge.stream(context.name, :primes, "100000000", timeout: 3_000)

        stopped =
          Stream.map(endless, fn prime ->
            if prime == 2, do: Program.kill(pid, "STOP")
            prime
          end)

        error = catch_error(Enum.each(stopped, & &1))
        Program.kill(pid, "CONT")
        assert %Error{reason: :timeout, role: :primes} = error
        await_idle(context.node, 20_000)
        assert_nothing_left(context)
      end

      test "is a GenStage subscription to the same bridge", %{name: name, node: node} do
        assert {:ok, {{Ringbridge.Streams, ^node}, options}} =
                 Ringbridge.producer(name, :primes, "30", [priority: :low], max_demand: 5)

        assert options == [
                 job: {:primes, "30", [priority: :low]},
                 cancel: :transient,
                 max_demand: 5
               ]
      end
    end
  end
end
