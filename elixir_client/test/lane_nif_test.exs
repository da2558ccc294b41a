Code.require_file("support/fake_bridge.exs", __DIR__)
Code.require_file("support/lane_loopback.exs", __DIR__)

defmodule Ringbridge.LaneNifTest do
  @moduledoc "The lane over shared memory against a relay's end that is played, and that lies: this VM must live."
  use ExUnit.Case

  import Bitwise, only: [<<<: 2]
  import ExUnit.CaptureLog

  alias Ringbridge.{FakeBridge, LaneLoopback}
  alias Ringbridge.Lane.{Native, Nif, Opener}

  @moduletag capture_log: true, timeout: 120_000

  if why = LaneLoopback.missing() do
    @moduletag skip: why
  end

  @patience_ms 60_000

  setup context do
    if context[:loopback] != false, do: LaneLoopback.start(context[:loopback] || [])
    :ok
  end

  defp lane(context, options \\ []) do
    {instance, opener} = LaneLoopback.open(Module.concat(__MODULE__, "I#{context.line}"), options)
    {LaneLoopback.await_lane(instance), instance, opener}
  end

  defp submit(role, payload, options \\ []), do: {:submit, role, payload, options}
  defp call(to, message), do: Nif.call(to, message, @patience_ms)

  @names [:sent, :answered, :dropped, :cancelled, :full, :wakes, :open, :held_bytes]
  defp figures({lane, _node}),
    do: @names |> Enum.zip(Tuple.to_list(Native.figures(lane))) |> Map.new()

  defp wait_until(ready) do
    unless ready.() do
      Process.sleep(5)
      wait_until(ready)
    end
  end

  # What was sent before the answer to this is here by then.
  defp assert_nothing_left(to) do
    assert call(to, submit(:echo, "last")) == {:answer, {:ok, "last"}}
    refute_received _
  end

  describe "a call" do
    test "of a binary, of a term, of many", context do
      {to, _, _} = lane(context)
      assert call(to, submit(:echo, "x")) == {:answer, {:ok, "x"}}
      assert call(to, submit("echo", "", timeout: 1_000)) == {:answer, {:ok, ""}}
      assert call(to, submit(:echo, {:a, self()})) == {:answer, {:ok, <<0::32>>}}
      assert call(to, submit(:echo, "x", detail: true)) == {:answer, {:ok, <<0::32>>}}
      assert call(to, {:submit_many, :echo, ["a"], []}) == {:answer, {:ok, <<0::32>>}}
      large = for i <- 1..200, do: {i, :crypto.strong_rand_bytes(100)}
      assert call(to, submit(:echo, large)) == {:answer, {:ok, <<0::32>>}}
      assert %{sent: 6, answered: 6, open: 0} = figures(to)
      assert_nothing_left(to)
    end

    test "of every size comes back as it went", context do
      {to, _, _} = lane(context)

      for size <- [63, 64, 65, 4095, 4096, 32_767, 32_768, 65_536, 65_537, 1_000_000] do
        bytes = :crypto.strong_rand_bytes(size)
        assert call(to, submit(:echo, bytes)) == {:answer, {:ok, bytes}}
      end
    end

    test "that times out is cancelled, and leaves nothing", context do
      {to, _, _} = lane(context)
      assert Nif.call(to, submit(:hold, "x"), 20) == :timeout
      wait_until(fn -> figures(to).dropped == 1 end)
      assert %{open: 0, cancelled: 1} = figures(to)
      # At the edge: whichever is first, the other one leaves nothing either.
      for n <- 1..200, do: Nif.call(to, submit(:sleep, "#{rem(n, 4)}"), rem(n, 5))
      assert_nothing_left(to)
    end

    # Else its caller would wait for ever, whatever its timeout: a cancel waits for what was answered.
    test "that the relay drops though somebody waits is told as lost", context do
      {to, _, _} = lane(context)
      assert call(to, submit(:drop, "x")) == {:down, :noconnection}
      ref = Nif.submit(to, submit(:drop, "x"))
      wait_until(fn -> figures(to).open == 0 end)
      assert Nif.cancel(to, ref) == {:down, :noconnection}
      assert %{dropped: 2} = figures(to)
      assert_nothing_left(to)
    end

    test "too large for the lane, or for which it has no room, goes over the distribution",
         context do
      {{lane, _} = to, _, _} = lane(context)
      FakeBridge.start_dispatcher({:ok, "by the distribution"})
      huge = :binary.copy("x", 8 <<< 20)
      assert Nif.call(to, submit(:echo, huge), @patience_ms) == by_dist()

      # A scheduler's ring and the shared one: of the scheduler that this process stays on, else it
      # may go on to one whose ring is empty. (The flag is ERTS' own, for its tests and benchmarks.)
      :erlang.process_flag(:scheduler, 1)
      held = for _ <- 1..2_500, do: Nif.submit(to, submit(:hold, "x"))
      assert figures(to).full > 0
      assert Nif.call(to, submit(:echo, "x"), @patience_ms) == by_dist()
      ref = Nif.submit(to, submit(:echo, "y"))
      assert Nif.await(to, ref, @patience_ms) == by_dist()
      ref = Nif.submit(to, submit(:echo, "z"))
      assert_receive {[:alias | ^ref], _} = message, @patience_ms
      assert Nif.check(to, ref, message) == by_dist()

      for ref <- held, do: Nif.cancel(to, ref)
      wait_until(fn -> figures(to).open == 0 end)
      assert Process.get() |> Enum.filter(&match?({{Nif, _}, _}, &1)) == []
      Native.close(lane, :noconnection)
      assert Nif.call(to, submit(:echo, "x"), @patience_ms) == by_dist()
    end

    defp by_dist, do: {:answer, {:ok, "by the distribution"}}
  end

  describe "a caller who is alone" do
    # The answer may be later than a look is long: then another process, whose first look is as long again.
    test "hands out its own answer, and needs no opener", context do
      {to, _, opener} = lane(context)
      :sys.suspend(opener)
      wait_until(fn -> Task.await(Task.async(fn -> looked?(to, "x") end)) end)
      :sys.resume(opener)
      wait_until(fn -> figures(to).open == 0 end)
    end

    test "that has looked for long enough is told by the opener", context do
      {to, _, _} = lane(context)
      for _ <- 1..50, do: assert(call(to, submit(:sleep, "2")) == {:answer, {:ok, "2"}})
      assert_nothing_left(to)
    end

    # The second request of a process on a scheduler is that of one who is alone. It may have changed schedulers.
    defp looked?({lane, _} = to, payload) do
      Nif.submit(to, submit(:echo, payload))
      ref = make_ref()

      case Native.submit_raw(lane, ref, "echo", -1, payload) do
        :near ->
          look(lane, ref)
          {:messages, found} = Process.info(self(), :messages)
          Enum.any?(found, &match?({:ringbridge_lane, ^ref, :raw, ^payload}, &1))

        :ok ->
          false
      end
    end

    defp look(lane, ref), do: if(Native.look(lane, ref) == :again, do: look(lane, ref))
  end

  describe "a request" do
    test "is waited for again, found among messages, taken back", context do
      {to, _, _} = lane(context)
      ref = Nif.submit(to, submit(:sleep, "30"))
      assert Nif.await(to, ref, 0) == :timeout
      assert Nif.await(to, ref, @patience_ms) == {:answer, {:ok, "30"}}

      ref = Nif.submit(to, submit(:echo, "x"))
      assert_receive {:ringbridge_lane, ^ref, _, _} = message, @patience_ms
      assert Nif.check(to, ref, :another) == :other
      assert Nif.check(to, ref, message) == {:answer, {:ok, "x"}}

      ref = Nif.submit(to, submit(:hold, "x"))
      assert Nif.cancel(to, ref) == :ok
      ref = Nif.submit(to, submit(:echo, "there"))
      wait_until(fn -> figures(to).open == 0 end)
      assert Nif.cancel(to, ref) == {:answer, {:ok, "there"}}
      assert_nothing_left(to)
    end

    test "ends with its owner, of ten thousand that die", context do
      {to, _, _} = lane(context)

      # In waves, of no more than the lane takes.
      for wave <- 1..20 do
        owners = for n <- 1..500, do: spawn(fn -> wait(to, rem(n + wave, 2)) end)
        wait_until(fn -> figures(to).open == 500 end)
        for pid <- owners, do: Process.exit(pid, :kill)
        wait_until(fn -> figures(to).open == 0 end)
      end

      assert %{sent: 10_000, cancelled: 10_000, dropped: 10_000, answered: 0} = figures(to)
    end

    defp wait(to, 0), do: Nif.call(to, submit(:hold, "x"), :infinity)

    defp wait(to, 1) do
      Nif.submit(to, submit(:hold, "x"))
      Process.sleep(:infinity)
    end

    @tag loopback: [slots: 64]
    test "whose owner dies while it is copied on a dirty scheduler is cancelled too", context do
      {to, _, _} = lane(context)
      bytes = :binary.copy("x", 1_000_000)

      for _ <- 1..300 do
        pid = spawn(fn -> Nif.call(to, submit(:hold, bytes), :infinity) end)
        if :rand.uniform(2) == 1, do: :erlang.yield()
        Process.exit(pid, :kill)
      end

      wait_until(fn -> figures(to).open == 0 end)
      assert_nothing_left(to)
    end
  end

  describe "a large answer" do
    @tag loopback: [result_mib: 8]
    test "is a binary in the lane's region, until nobody holds it", context do
      {to, _, _} = lane(context)
      bytes = :crypto.strong_rand_bytes(1 <<< 20)
      {:answer, {:ok, answer}} = call(to, submit(:echo, bytes))
      assert answer == bytes
      assert figures(to).held_bytes >= 1 <<< 20
      part = :binary.part(answer, 5, 10)
      other = spawn_link(fn -> receive do: ({answer, test} -> send(test, hash(answer))) end)
      send(other, {answer, self()})
      hash = hash(bytes)
      assert_receive ^hash, @patience_ms
      assert part == :binary.part(bytes, 5, 10)
    end

    defp hash(bytes), do: :erlang.md5(bytes)

    @tag loopback: [result_mib: 8]
    test "is copied when half of the region is held, and all is given back", context do
      {to, _, _} = lane(context)
      bytes = :crypto.strong_rand_bytes(1 <<< 20)

      holder =
        Task.async(fn ->
          answers = for _ <- 1..40, do: call(to, submit(:echo, bytes))
          {Enum.all?(answers, &(&1 == {:answer, {:ok, bytes}})), figures(to).held_bytes}
        end)

      assert {true, held} = Task.await(holder, @patience_ms)
      assert held in (4 <<< 20)..(6 <<< 20)
      wait_until(fn -> figures(to).held_bytes == 0 end)
    end

    test "that is a term is decoded from memory of the BEAM's own", context do
      {to, _, _} = lane(context)
      assert call(to, submit(:term, "3000000")) == {:answer, {:ok, <<0::24_000_000>>}}
      wait_until(fn -> figures(to).held_bytes == 0 end)
    end

    test "outlives its lane, the relay's process, and the library's code", context do
      {to, instance, opener} = lane(context)
      bytes = :crypto.strong_rand_bytes(1 <<< 20)
      {:answer, {:ok, answer}} = call(to, submit(:echo, bytes))
      Process.exit(opener, :kill)
      stop_supervised!(LaneLoopback)
      assert answer == bytes
      :ets.delete(instance.name, {:lane, node()})
      :code.purge(Native)
      :code.delete(Native)
      :code.purge(Native)
      assert {:module, Native} = Code.ensure_loaded(Native)
      assert answer == bytes
      assert hash(answer) == hash(bytes)
    end
  end

  describe "the lane's end" do
    test "by the relay is each waiting request's end, and another one is opened", context do
      {{lane, _} = to, instance, _} = lane(context)
      held = for _ <- 1..10, do: Nif.submit(to, submit(:hold, "x"))
      assert Nif.call(to, submit(:end, ""), @patience_ms) == {:down, :noconnection}
      for ref <- held, do: assert(Nif.await(to, ref, @patience_ms) == {:down, :noconnection})
      to = LaneLoopback.await_lane(instance, lane)
      assert_nothing_left(to)
    end

    test "by the relay's death, amid calls", context do
      {to, _, _} = lane(context)
      test = self()

      callers =
        for _ <- 1..20 do
          spawn_link(fn -> send(test, {:end, until_down(to)}) end)
        end

      Nif.submit(to, submit(:exit, ""))
      for _ <- callers, do: assert_receive({:end, {:down, :noconnection}}, @patience_ms)
    end

    defp until_down(to) do
      with {:answer, {:ok, "x"}} <- call(to, submit(:echo, "x")), do: until_down(to)
    end

    test "by the opener's, however that ends", context do
      {{lane, _} = to, instance, opener} = lane(context)
      ref = Nif.submit(to, submit(:hold, "x"))
      Process.exit(opener, :kill)
      assert Nif.await(to, ref, @patience_ms) == {:down, :noconnection}
      assert Native.submit_raw(lane, make_ref(), "echo", -1, "x") == :closed
      {other, _} = to = LaneLoopback.await_lane(instance, lane)
      assert_nothing_left(to)
      ref = Nif.submit(to, submit(:hold, "x"))
      stop_supervised!(Opener)
      assert Nif.await(to, ref, @patience_ms) == {:down, :noconnection}
      assert Opener.lane(instance, node(), 1) == nil
      assert Native.drain(other) == :ended
    end

    test "lets its memory go, though processes keep its term", context do
      {to, instance, opener} = lane(context)
      assert mapped() != []
      {:answer, {:ok, held}} = call(to, submit(:echo, :binary.copy("x", 100_000)))
      Opener.down(instance, node(), :shutdown)
      :sys.get_state(opener)
      # Of the binary alone.
      assert mapped() != []
      assert hash(held) == hash(:binary.copy("x", 100_000))
      await_unmapped()
      assert Nif.submit(to, submit(:echo, "x")) |> is_reference()
    end

    defp await_unmapped do
      :erlang.garbage_collect()
      wait_until(fn -> mapped() == [] end)
    end

    defp mapped do
      for line <- File.stream!("/proc/self/maps"), line =~ "ringbridge-lane", do: line
    end

    test "by the connection's carries its reason", context do
      {to, instance, opener} = lane(context)
      ref = Nif.submit(to, submit(:hold, "x"))
      Opener.down(instance, node(), :shutdown)
      assert Nif.await(to, ref, @patience_ms) == {:down, :shutdown}
      assert Opener.lane(instance, node(), 1) == nil
      send(opener, {:up, 2})
      wait_until(fn -> Opener.lane(instance, node(), 2) != nil end)
    end
  end

  @lies ~w(lie_number lie_generation lie_status lie_place lie_bytes lie_twice lie_tail lie_back)

  describe "a relay that lies" do
    for lie <- @lies do
      test "(#{lie}) loses its lane, and this VM nothing", context do
        {{lane, _} = to, instance, _} = lane(context)
        held = for _ <- 1..10, do: Nif.submit(to, submit(:hold, "x"))
        lie = Nif.call(to, submit(unquote(lie), "0123456789"), @patience_ms)
        assert lie in [{:down, :noconnection}, {:answer, {:ok, "0123456789"}}]
        for ref <- held, do: assert(Nif.await(to, ref, @patience_ms) == {:down, :noconnection})
        assert_nothing_left(LaneLoopback.await_lane(instance, lane))
      end
    end

    test "about a term is told to its caller alone, who neither raises nor unpacks it", context do
      {to, _, _} = lane(context)
      <<131, compressed::binary>> = :erlang.term_to_binary({:ok, <<0::80_000>>}, [:compressed])
      assert <<80, _::binary>> = compressed

      for lie <- ["no term", compressed, <<104, 2, 119>>, <<105>>, ""],
          do: assert(Nif.call(to, submit(:lie_term, lie), @patience_ms) == {:down, :noconnection})

      assert_nothing_left(to)
    end

    test "at random, many times over", context do
      {_, instance, opener} = lane(context)

      for epoch <- 2..200 do
        # As after another connection: no pause.
        send(opener, {:up, epoch})
        wait_until(fn -> Opener.lane(instance, node(), epoch) != nil end)
        to = {Opener.lane(instance, node(), epoch), node()}
        noise = submit(:lie_noise, :binary.copy("n", rem(epoch, 80)))
        refs = for _ <- 1..5, do: Nif.submit(to, noise)
        # A binary whose place is a lie may be shown: of the region it is.
        for ref <- refs, do: Nif.await(to, ref, 2)
      end
    end
  end

  describe "the library's code" do
    test "is loaded anew under a lane that is in use: the lane goes on", context do
      {to, _, _} = lane(context)
      ref = Nif.submit(to, submit(:sleep, "50"))

      for _ <- 1..5 do
        assert {:module, Native} = :code.load_file(Native)
        assert_nothing_left_but(to, ref)
        :code.purge(Native)
        assert_nothing_left_but(to, ref)
      end

      assert Nif.await(to, ref, @patience_ms) == {:answer, {:ok, "50"}}
    end

    defp assert_nothing_left_but(to, _ref),
      do: assert(call(to, submit(:echo, "x")) == {:answer, {:ok, "x"}})

    test "is deleted and purged: calls take the other way, and a lane comes again", context do
      {{lane, _} = to, instance, opener} = lane(context)
      FakeBridge.start_dispatcher({:ok, "by the distribution"})
      ref = Nif.submit(to, submit(:hold, "x"))
      :code.purge(Native)
      :code.delete(Native)
      :code.purge(Native)
      # It is loaded again by this call, and does not know the lane of the library before.
      assert Nif.call(to, submit(:echo, "x"), @patience_ms) == by_dist()
      assert_received {:asked, _}
      send(opener, {:figures, lane})
      assert Nif.await(to, ref, @patience_ms) == {:down, :noconnection}
      assert_nothing_left(LaneLoopback.await_lane(instance, lane))
    end
  end

  describe "no lane" do
    for {why, answer, said} <- [
          {"is given", {:error, {:refused, :policy}}, "refused"},
          {"is behind the token",
           {:ok, %{socket: <<0, "ringbridge-nowhere">>, token: :binary.copy(<<1>>, 32)}},
           "refused"},
          {"is described", {:ok, %{socket: "x", token: "short"}}, "short"},
          {"is known", :what, ":what"}
        ] do
      @tag loopback: [answer: answer]
      test "#{why}: one line in the log", context do
        log = capture_log(fn -> fallen_back(context) end)
        assert log =~ unquote(said)
        assert length(String.split(log, "no lane over shared memory")) == 2
      end
    end

    @tag loopback: false
    test "is offered by a bridge that knows of none: one line in the log", context do
      log = capture_log(fn -> fallen_back(context) end)
      assert log =~ "the bridge gives none"
      assert length(String.split(log, "no lane over shared memory")) == 2
    end

    @tag loopback: [answer: {:error, {:refused, :policy}}]
    test "is asked for by lane: :dist", context do
      {instance, _opener} =
        LaneLoopback.open(Module.concat(__MODULE__, "I#{context.line}"), lane: :dist)

      assert Opener.lane(instance, node(), 1) == nil
    end

    defp fallen_back(context) do
      {instance, opener} = LaneLoopback.open(Module.concat(__MODULE__, "I#{context.line}"))
      # It has asked when it answers this.
      :sys.get_state(opener)
      assert Opener.lane(instance, node(), 1) == nil
    end
  end

  test "wrong arguments are refused, not followed", context do
    {{lane, _}, _, _} = lane(context)
    ref = make_ref()

    for {function, arguments} <- [
          submit_raw: [make_ref(), ref, "echo", -1, "x"],
          submit_raw: [lane, :no_ref, "echo", -1, "x"],
          submit_raw: [lane, ref, "", -1, "x"],
          submit_raw: [lane, ref, :binary.copy("r", 256), -1, "x"],
          submit_raw: [lane, ref, "echo", -2, "x"],
          submit_raw: [lane, ref, "echo", 1 <<< 32, "x"],
          submit_raw: [lane, ref, "echo", -1, <<1::3>>],
          submit_term: [lane, ref, []],
          submit_term: [lane, ref, ["a" | "b"]],
          submit_term: [lane, ref, List.duplicate("a", 65)],
          cancel: [lane, 1],
          copy: [lane, :copy],
          drain: [ref],
          park: [lane, nil],
          close: [ref, :x],
          figures: [nil],
          open: ["", :binary.copy(<<1>>, 32), 0],
          open: [:binary.copy("n", 108), :binary.copy(<<1>>, 32), 0],
          open: ["n", :binary.copy(<<1>>, 31), 0],
          open: ["n", :binary.copy(<<1>>, 32), -1]
        ] do
      assert_raise ArgumentError, fn -> apply(Native, function, arguments) end
    end
  end
end
