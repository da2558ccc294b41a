defmodule Ringbridge.BeamWorkerLoopTest do
  @moduledoc "The loop at a LocalBridge, and at a desk that this test plays: no native part, no other node."
  use ExUnit.Case, async: true
  import ExUnit.CaptureLog

  alias Ringbridge.{BeamWorkerLoop, LocalBridge}
  alias Ringbridge.BeamWorkerLoop.Job

  @patience_ms 30_000
  @moduletag capture_log: true
  @moduletag timeout: 120_000

  defmodule Worker do
    @behaviour BeamWorkerLoop
    alias BeamWorkerLoop.Job

    @impl true
    def init(:fails), do: {:error, :on_purpose}
    def init(state), do: {:ok, state}

    @impl true
    def handle_job(%{opcode: 0, payload: payload}, _), do: {:ok, payload}
    def handle_job(%{opcode: 1}, _), do: raise("on purpose")
    def handle_job(%{opcode: 2}, _), do: {:error, 7, "as asked"}

    # Says that it runs, and goes on when it is told.
    def handle_job(%{opcode: 3} = job, test) do
      send(test, {:runs, self(), job.payload})
      receive do: (:go_on -> {:ok, job.payload})
    end

    def handle_job(%{opcode: 4} = job, _) do
      for n <- 1..job.payload, do: :ok = Job.emit(job, n)
      {:ok, Job.cancelled?(job)}
    end

    def handle_job(%{opcode: 5} = job, test) do
      send(test, {:runs, self(), job.payload})
      until_cancelled(job)
    end

    # Hears no exit signal but :kill.
    def handle_job(%{opcode: 6} = job, test) do
      Process.flag(:trap_exit, true)
      send(test, {:runs, self(), job.payload})
      Process.sleep(:infinity)
    end

    defp until_cancelled(job) do
      if Job.cancelled?(job), do: :cancelled, else: Process.sleep(5) && until_cancelled(job)
    end
  end

  describe "at a LocalBridge" do
    setup do
      bridge =
        start_supervised!({LocalBridge, roles: [:work, "other"], depth_max: 4, register: false})

      {:ok, bridge: bridge}
    end

    defp loop(bridge, options \\ []) do
      defaults = [bridge: bridge, role: :work, module: Worker, slots: 2, init_arg: self()]
      options = Keyword.merge(defaults, options)
      loop = start_supervised!(Supervisor.child_spec({BeamWorkerLoop, options}, id: make_ref()))
      wait(fn -> BeamWorkerLoop.info(loop).phase == :serving end)
      loop
    end

    defp submit(bridge, payload, options \\ []) do
      GenServer.call(bridge, {:submit, :work, payload, options}, @patience_ms)
    end

    test "jobs are answered; failures are the job's own", %{bridge: bridge} do
      loop(bridge)
      assert {:ok, "raw"} = submit(bridge, "raw")
      term = %{a: {:b, self()}}
      assert {:ok, ^term} = submit(bridge, term)
      assert {:error, {:job_failed, 65_282, why}} = submit(bridge, "", opcode: 1)
      assert why =~ "on purpose"
      assert {:error, {:job_failed, 7, "as asked"}} = submit(bridge, "", opcode: 2)
      assert {:ok, %{accepted: 4, in_flight: 0}} = GenServer.call(bridge, :stats)
    end

    test "as many at once as there are slots, the others in their order", %{bridge: bridge} do
      loop(bridge, credit: 1)
      tasks = for n <- 1..5, do: Task.async(fn -> submit(bridge, n, opcode: 3) end)
      assert_receive {:runs, one, _}, @patience_ms
      assert_receive {:runs, two, _}, @patience_ms
      refute_received {:runs, _, _}

      last =
        Enum.reduce(1..3, one, fn _, running ->
          send(running, :go_on)
          assert_receive {:runs, next, _}, @patience_ms
          refute_received {:runs, _, _}
          next
        end)

      send(last, :go_on)
      send(two, :go_on)
      for {:ok, n} <- Task.await_many(tasks, @patience_ms), do: assert(n in 1..5)
    end

    test "a full ring is an answer, and so is a role without workers", %{bridge: bridge} do
      assert {:error, :no_worker} = submit(bridge, "")
      assert {:error, {:bad_request, why}} = GenServer.call(bridge, {:submit, :nowhere, ""})
      assert why =~ "nowhere"
      loop(bridge, slots: 1, credit: 1)
      running = Task.async(fn -> submit(bridge, "first", opcode: 3) end)
      assert_receive {:runs, first, "first"}, @patience_ms
      waiting = for n <- 1..4, do: Task.async(fn -> submit(bridge, n) end)
      wait(fn -> match?({:ok, %{in_flight: 5}}, GenServer.call(bridge, :stats)) end)
      assert {:error, {:overloaded, %{retry_after_ms: _}}} = submit(bridge, "one too many")
      send(first, :go_on)
      assert {:ok, "first"} = Task.await(running, @patience_ms)
      assert Enum.sort(Task.await_many(waiting, @patience_ms)) == for(n <- 1..4, do: {:ok, n})
    end

    test "a caller's death and a deadline end the job, and the next one runs", %{bridge: bridge} do
      loop(bridge, slots: 1)
      caller = spawn(fn -> submit(bridge, "left alone", opcode: 3) end)
      assert_receive {:runs, job, "left alone"}, @patience_ms
      watch = Process.monitor(job)
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^watch, _, _, :killed}, @patience_ms
      assert {:error, :deadline_exceeded} = submit(bridge, "late", opcode: 3, timeout: 50)
      assert {:ok, "next"} = submit(bridge, "next")
    end

    test "a loop that is killed loses what it had begun; the rest runs elsewhere", %{
      bridge: bridge
    } do
      {:ok, doomed} =
        start_unlinked(bridge: bridge, role: :work, module: Worker, slots: 1, init_arg: self())

      wait(fn -> BeamWorkerLoop.info(doomed).phase == :serving end)
      running = Task.async(fn -> submit(bridge, "lost", opcode: 3) end)
      assert_receive {:runs, job, "lost"}, @patience_ms
      waiting = Task.async(fn -> submit(bridge, "saved") end)
      wait(fn -> BeamWorkerLoop.info(doomed).waiting == 1 end)
      watch = Process.monitor(job)
      loop(bridge, slots: 1)
      Process.exit(doomed, :kill)
      assert {:error, {:worker_crashed, %{signal: 9}}} = Task.await(running, @patience_ms)
      assert {:ok, "saved"} = Task.await(waiting, @patience_ms)
      assert_receive {:DOWN, ^watch, _, _, _}, @patience_ms
    end

    test "one that is shut down finishes what it has", %{bridge: bridge} do
      {:ok, loop} =
        start_unlinked(bridge: bridge, role: :work, module: Worker, slots: 1, init_arg: self())

      wait(fn -> BeamWorkerLoop.info(loop).phase == :serving end)
      running = Task.async(fn -> submit(bridge, "finished", opcode: 3) end)
      assert_receive {:runs, job, "finished"}, @patience_ms
      stopping = Task.async(fn -> GenServer.stop(loop, :shutdown, @patience_ms) end)
      drains = {:current_function, {BeamWorkerLoop, :drain, 2}}
      wait(fn -> Process.info(loop, :current_function) == drains end)
      send(job, :go_on)
      assert {:ok, "finished"} = Task.await(running, @patience_ms)
      Task.await(stopping, @patience_ms)
      assert {:error, :no_worker} = submit(bridge, "")
    end
  end

  # Under no supervisor, so that its death is not mended, and not the test's.
  defp start_unlinked(options) do
    {:ok, loop} = Task.await(Task.async(fn -> start_and_unlink(options) end), @patience_ms)
    {:ok, loop}
  end

  defp start_and_unlink(options) do
    {:ok, loop} = BeamWorkerLoop.start_link(options)
    Process.unlink(loop)
    {:ok, loop}
  end

  describe "at a desk" do
    # The test is the bridge: it is greeted by its pid.
    defp greeted(options \\ []) do
      defaults = [bridge: self(), role: "work", module: Worker, slots: 1, init_arg: self()]
      loop = start_supervised!({BeamWorkerLoop, Keyword.merge(defaults, options)})
      {loop, hello()}
    end

    defp hello do
      assert_receive {:ringbridge_worker, :hello, hello}, @patience_ms
      hello
    end

    # A desk passes on what it hears.
    defp welcome(hello, options \\ []) do
      test = self()
      desk = spawn_link(fn -> pass_on(test) end)

      bounds = %{answer_bytes_max: 1_000, heartbeat_ms: 20, hang_ms: 100, workers: [1]}
      said = Map.merge(bounds, %{version: 1, ref: hello.ref, desk: desk, features: []})
      send(hello.pid, {:ringbridge_worker, :welcome, Map.merge(said, Map.new(options))})
      desk
    end

    defp pass_on(test) do
      receive do
        message -> send(test, {:heard, message})
      end

      pass_on(test)
    end

    defp give(hello, id, payload, more \\ %{}, encoded \\ nil) do
      job = %{job: id, slot: 0, opcode: 0, deadline_ms: nil, priority: 2, trace: nil}
      job = Map.merge(Map.merge(job, %{parts: nil, progress: false}), more)
      send(hello.pid, {:ringbridge_worker, :job, job, encoded || Job.encode(payload)})
    end

    defp heard(kind) do
      assert_receive {:heard, message} when elem(message, 1) == kind, @patience_ms
      message
    end

    test "it says hello as the page has it" do
      {loop, hello} = greeted(slots: 3, credit: 5)
      assert %{version: 1, pid: ^loop, role: "work", slots: 3, credit: 5, kit: "elixir"} = hello
      assert is_reference(hello.ref) and hello.kit_version == {0, 1} and hello.features == []
    end

    test "it begins before it completes, in order, and beats all the while" do
      {_, hello} = greeted()
      welcome(hello)
      for id <- [7, 8], do: give(hello, id, "#{id}")

      for id <- [7, 8] do
        assert {_, :started, %{job: ^id}} = heard(:started)

        assert {_, :complete, %{job: ^id, status: :ok, run_us: us}, {:raw, bytes}} =
                 heard(:complete)

        assert bytes == "#{id}" and us >= 0
      end

      for _ <- 1..3, do: assert({_, :heartbeat, %{ready: true}} = heard(:heartbeat))
    end

    test "an answer above the bound is the job's failure" do
      {_, hello} = greeted()
      welcome(hello)
      give(hello, 1, :binary.copy("x", 1_001))
      assert {_, _, %{job: 1, status: :failed, code: 65_280}, {:raw, _}} = heard(:complete)
    end

    test "parts wait for their demand, and a cancel ends the wait" do
      {_, hello} = greeted(cancel_ms: 10_000)
      welcome(hello)
      give(hello, 1, 3, %{opcode: 4, parts: 1})
      assert {_, :part, %{job: 1}, {:term, _}} = heard(:part)
      refute_received {:heard, {_, :part, _, _}}
      send(hello.pid, {:ringbridge_worker, :demand, %{job: 1, parts: 3}})
      for _ <- 2..3, do: heard(:part)
      assert {_, _, %{status: :ok}, _} = heard(:complete)
      give(hello, 2, 3, %{opcode: 4, parts: 0})
      heard(:started)
      send(hello.pid, {:ringbridge_worker, :cancel, %{job: 2}})
      assert {_, _, %{job: 2}} = heard(:complete)
    end

    test "with cancel_ms a handler leaves by itself, and without it is ended" do
      {_, hello} = greeted(cancel_ms: 20_000)
      welcome(hello)
      give(hello, 1, "", %{opcode: 5})
      assert_receive {:runs, job, _}, @patience_ms
      watch = Process.monitor(job)
      send(hello.pid, {:ringbridge_worker, :cancel, %{job: 1}})
      assert {_, :complete, %{job: 1, status: :cancelled}} = heard(:complete)
      assert_receive {:DOWN, ^watch, _, _, :normal}, @patience_ms
    end

    test "with safe: true a payload makes no new atoms" do
      for safe <- [false, true] do
        {_, hello} = greeted(safe: safe)
        welcome(hello)
        name = "an_atom_of_nobody_#{System.unique_integer([:positive])}"
        bytes = <<131, 119, byte_size(name), name::binary>>
        give(hello, 1, "", %{}, {:term, bytes})
        status = if safe, do: :failed, else: :ok
        assert {_, :complete, %{job: 1, status: ^status}, _} = heard(:complete)
        give(hello, 2, {:known, name})
        assert {_, :complete, %{job: 2, status: :ok}, _} = heard(:complete)
        stop_supervised!(BeamWorkerLoop.child_spec(bridge: self(), role: "work").id)
      end
    end

    test "a job that is cancelled before its turn is never begun" do
      {_, hello} = greeted()
      welcome(hello)
      give(hello, 1, "first", %{opcode: 3})
      assert_receive {:runs, first, _}, @patience_ms
      give(hello, 2, "never", %{opcode: 3})
      send(hello.pid, {:ringbridge_worker, :cancel, %{job: 2}})
      send(first, :go_on)
      assert {_, _, %{job: 1, status: :ok}, _} = heard(:complete)
      assert {_, :complete, %{job: 2, status: :cancelled}} = heard(:complete)
      refute_received {:runs, _, "never"}
    end

    test "when its desk goes it ends what runs and says hello again" do
      {loop, hello} = greeted()
      desk = welcome(hello)
      give(hello, 1, "", %{opcode: 3})
      assert_receive {:runs, job, _}, @patience_ms
      watch = Process.monitor(job)
      Process.unlink(desk)
      Process.exit(desk, :kill)
      assert_receive {:DOWN, ^watch, _, _, :killed}, @patience_ms
      again = hello()
      assert again.ref != hello.ref and again.pid == loop
      welcome(again)
      give(again, 2, "works")
      assert {_, _, %{job: 2, status: :ok}, _} = heard(:complete)
    end

    test "who is let in and ended at once asks less and less often" do
      {loop, hello} = greeted()

      hello =
        for times <- 1..4, reduce: hello do
          hello ->
            welcome(hello)
            ended(loop)
            again = hello()
            assert :sys.get_state(loop).pauses == times
            again
        end

      # A job that was done is the proof that all is well.
      welcome(hello)
      give(hello, 1, "works")
      assert {_, _, %{job: 1, status: :ok}, _} = heard(:complete)
      ended(loop)
      hello()
      assert :sys.get_state(loop).pauses == 1
    end

    defp ended(loop) do
      send(loop, {:ringbridge_worker, :ended, %{reason: :stopped, why: "no", again: true}})
    end

    test "what is too late when its turn comes is never begun" do
      {_, hello} = greeted()
      welcome(hello)
      give(hello, 1, "first", %{opcode: 3})
      assert_receive {:runs, first, _}, @patience_ms
      give(hello, 2, "never", %{opcode: 3, deadline_ms: 0})
      give(hello, 3, "in time", %{deadline_ms: 60_000})
      send(first, :go_on)
      assert {_, _, %{job: 1, status: :ok}, _} = heard(:complete)
      assert {_, :complete, %{job: 2, status: :cancelled}} = heard(:complete)
      assert {_, _, %{job: 3, status: :ok}, _} = heard(:complete)
      refute_received {:runs, _, "never"}
    end

    test "when it ends nothing of it stays: neither its heart nor a job that hears no exit" do
      for reason <- [:normal, :shutdown], opcode <- [3, 6] do
        {:ok, loop} =
          start_unlinked(
            bridge: self(),
            role: "work",
            module: Worker,
            slots: 1,
            init_arg: self(),
            drain_ms: 1
          )

        hello = hello()
        desk = welcome(hello)
        give(hello, 1, "", %{opcode: opcode})
        assert_receive {:runs, job, _}, @patience_ms
        heart = :sys.get_state(loop).heart
        watches = for pid <- [heart, job], do: Process.monitor(pid)
        GenServer.stop(loop, reason, @patience_ms)
        for watch <- watches, do: assert_receive({:DOWN, ^watch, _, _, _}, @patience_ms)
        Process.unlink(desk)
        Process.exit(desk, :kill)
      end
    end

    test "while it drains it answers" do
      {:ok, loop} =
        start_unlinked(bridge: self(), role: "work", module: Worker, slots: 1, init_arg: self())

      hello = hello()
      welcome(hello)
      give(hello, 1, "", %{opcode: 3})
      assert_receive {:runs, job, _}, @patience_ms
      stopping = Task.async(fn -> GenServer.stop(loop, :shutdown, @patience_ms) end)
      heard(:leave)
      assert %{phase: :leaving, running: 1} = BeamWorkerLoop.info(loop)
      assert :ok = BeamWorkerLoop.set_ready(loop, false)
      send(job, :go_on)
      heard(:complete)
      send(loop, {:ringbridge_worker, :ended, %{reason: :drained, why: "", again: false}})
      Task.await(stopping, @patience_ms)
    end

    test "a connect that raises, is killed or does not return is tried again" do
      test = self()

      for how <- [:raises, :killed, :stays] do
        connect = fn _node ->
          send(test, {:connects, how})

          case how do
            :raises -> raise "on purpose"
            :killed -> Process.exit(self(), :kill)
            :stays -> Process.sleep(:infinity)
          end
        end

        id = make_ref()
        options = [bridge: :"nobody@127.0.0.1", role: "work", module: Worker, init_arg: test]
        options = options ++ [connect: connect, connect_ms: 50]
        start_supervised!(Supervisor.child_spec({BeamWorkerLoop, options}, id: id))
        for _ <- 1..3, do: assert_receive({:connects, ^how}, @patience_ms)
        stop_supervised!(id)
      end
    end

    test "a refusal for now is tried again, one for good ends it" do
      {loop, hello} = greeted()
      refused = %{ref: hello.ref, reason: :full, why: "full", again: true}
      send(loop, {:ringbridge_worker, :refused, refused})
      hello = hello()
      watch = Process.monitor(loop)

      log =
        capture_log(fn ->
          refused = %{
            ref: hello.ref,
            reason: :version,
            why: "speaks 9",
            versions: [9],
            again: false
          }

          send(loop, {:ringbridge_worker, :refused, refused})
          assert_receive {:DOWN, ^watch, _, _, {:shutdown, {:refused, :version, _}}}, @patience_ms
        end)

      assert log =~ "speaks 9"
    end
  end

  test "wrong options are named" do
    right = [bridge: node(), role: :work, module: Worker]

    for {wrong, word} <- [
          {[bridge: nil], ":bridge"},
          {[role: 3], ":role"},
          {[module: Enum], ":module"},
          {[slots: 0], ":slots"},
          {[credit: 257], ":credit"},
          {[cancel_ms: -1], ":cancel_ms"},
          {[slot: 1], ":slot"}
        ] do
      error =
        assert_raise ArgumentError, fn ->
          BeamWorkerLoop.start_link(Keyword.merge(right, wrong))
        end

      assert Exception.message(error) =~ word
    end
  end

  test "a module whose init fails does not start" do
    Process.flag(:trap_exit, true)
    options = [bridge: node(), role: :work, module: Worker, init_arg: :fails]
    assert {:error, :on_purpose} = BeamWorkerLoop.start_link(options)
  end

  defp wait(ready) do
    unless ready.() do
      Process.sleep(5)
      wait(ready)
    end
  end
end
