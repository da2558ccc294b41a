defmodule Ringbridge.RemoteWorkersTest do
  @moduledoc "Workers that are processes of BEAM nodes (docs/remote-workers.md), held to it from real nodes."
  use Ringbridge.BridgeCase,
    roles: """
    [roles.remote]
    workers = 0
    idempotent = true
    atoms = ["answered"]
    cancel_term_ms = 400
    cancel_kill_ms = 400
    [roles.remote.remote]
    nodes = ["test*@127.0.0.1", "other*@127.0.0.1"]
    slots_max = 8

    [roles.closed]
    workers = 0
    [roles.closed.remote]
    nodes = ["nobody@127.0.0.1"]
    """

  alias Ringbridge.{BeamWorkerLoop, RemoteJobs}

  Code.require_file("support/remote_jobs.exs", __DIR__)

  @patience_ms 50_000
  @moduletag timeout: 240_000

  setup context do
    Process.put(:lane, context[:lane] || :dist)
    :ok
  end

  defp loop(node, options \\ []) do
    lane = Process.get(:lane)
    defaults = [bridge: node, role: "remote", module: RemoteJobs, slots: 2, lane: lane]
    options = Keyword.merge(defaults, [{:init_arg, {:tells, self()}} | options])
    id = make_ref()
    loop = start_supervised!(Supervisor.child_spec({BeamWorkerLoop, options}, id: id))
    serving(node, loop)
    {loop, id}
  end

  # It is welcome before the relay has heard the hello of each slot.
  defp serving(node, loop) do
    Lab.wait_until("the loop serves", @patience_ms, fn ->
      info = BeamWorkerLoop.info(loop)
      ready = for %{state: :ready, id: id} <- remote(node), do: id
      info.phase == :serving and info.workers -- ready == [] and on_its_lane?(info)
    end)
  end

  # Its slots' jobs come over shared memory where that was asked for, and nowhere else.
  defp on_its_lane?(info) do
    case Process.get(:lane) do
      :nif -> length(info.links) == length(info.workers)
      :dist -> info.links == []
    end
  end

  defp remote(node), do: workers(node, :remote)

  defp nobody(node),
    do: Lab.wait_until("no remote worker is left", @patience_ms, fn -> remote(node) == [] end)

  defp ask(node, payload, opcode, options \\ []) do
    options = Keyword.merge([opcode: opcode, timeout: @patience_ms], options)
    submit(node, :remote, payload, options, @patience_ms + 5_000)
  end

  defp code_path,
    do: inspect(for path <- :code.get_path(), to_string(path) =~ "ringbridge", do: path)

  # A VM of its own with a loop; its program and its node.
  defp worker_vm(node, options) do
    options =
      Keyword.merge(
        [
          bridge: node,
          role: "remote",
          slots: 2,
          init_arg: {:tells, self()},
          lane: Process.get(:lane)
        ],
        options
      )

    file = Path.expand("support/remote_jobs.exs", __DIR__)

    program =
      Lab.start_node("""
      Enum.each(#{code_path()}, &Code.prepend_path/1)
      Code.require_file(#{inspect(file)})
      pid = #{inspect(:erlang.term_to_binary(self()), limit: :infinity)} |> :erlang.binary_to_term()
      options = [module: Ringbridge.RemoteJobs] ++ Keyword.put(#{inspect(Keyword.delete(options, :init_arg))}, :init_arg, {:tells, pid})
      Node.connect(:"#{node}")
      {:ok, _} = Supervisor.start_link([{Ringbridge.BeamWorkerLoop, options}], strategy: :one_for_one)
      IO.puts("I serve as " <> Atom.to_string(node()))
      Process.sleep(:infinity)
      """)

    "I serve as " <> name = Program.await_line(program, ~r/^I serve as /, @patience_ms)
    # This VM listens nowhere, so it is the one that connects.
    true = Node.connect(String.to_atom(name))
    there = fn -> Enum.any?(remote(node), &(&1.state == :ready)) end
    Lab.wait_until("its loop serves", @patience_ms, there)
    program
  end

  defp events(0), do: []

  defp events(count) do
    assert_receive {:"$gen_consumer", _, events} when is_list(events), @patience_ms
    events ++ events(count - length(events))
  end

  # As a GenStage consumer subscribes, with a demand of two.
  defp subscribe(node, payload) do
    to = {Ringbridge.Streams, node}
    ref = Process.monitor(to)
    options = [job: {:remote, payload, %{opcode: 3}}, cancel: :temporary]
    send(to, {:"$gen_producer", {self(), ref}, {:subscribe, nil, options}})
    send(to, {:"$gen_producer", {self(), ref}, {:ask, 2}})
    %{to: to, ref: ref}
  end

  # The same jobs, the same answers, the same ends, whichever way they come.
  for lane <- [:dist, :nif] do
    describe "over #{lane}:" do
      @describetag lane: lane

      test "jobs of every kind are answered as by any worker", %{node: node} do
        {_loop, id} = loop(node)
        assert {:ok, "hello"} = ask(node, "hello", 0)
        large = :crypto.strong_rand_bytes(3_000_000)
        assert {:ok, ^large} = ask(node, large, 0)
        assert {:ok, ""} = ask(node, "", 0)
        term = %{list: [1, 2.5, "three"], tuple: {:remote, self(), make_ref()}}
        assert {:ok, ^term} = ask(node, term, 0)
        assert {:ok, {:answered, ^term}} = ask(node, term, 10)
        assert {:error, {:job_failed, 7, "as asked"}} = ask(node, "", 1)
        assert {:error, {:job_failed, 65_282, why}} = ask(node, "", 5)
        assert why =~ "on purpose"
        assert {:error, {:job_failed, 65_282, why}} = ask(node, "", 6)
        assert why =~ "killed"
        assert {:error, {:job_failed, 65_281, _}} = ask(node, "", 11)
        assert {:error, {:job_failed, 65_280, _}} = ask(node, "60000000", 7)
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert {:ok, about} = ask(node, "", 9, trace: trace, priority: :high, timeout: 30_000)
        assert %{trace: ^trace, priority: 1, left: left} = about

        # A loop counts whole milliseconds, and one more, so that it never finds a job late before the bridge does.
        assert left in 1..30_001

        assert {:ok, "x", %{worker: worker, run_us: run_us}} = ask(node, "x", 0, detail: true)
        assert is_integer(run_us)
        assert worker in Enum.map(remote(node), & &1.id)
        stop_supervised!(id)
        nobody(node)
        assert {:error, :no_worker} = ask(node, "hello", 0)
      end

      test "many callers at once: every answer is its own", %{node: node} do
        {loop, _} = loop(node, slots: 4)

        callers =
          for n <- 1..32 do
            Task.async(fn -> for k <- 1..30, do: {{n, k}, ask(node, "#{n} #{k}", 0)} end)
          end

        for {{n, k}, answer} <- List.flatten(Task.await_many(callers, 3 * @patience_ms)) do
          assert answer == {:ok, "#{n} #{k}"}
        end

        # The one that is told of an answer is not told of the loop's count.
        Lab.wait_until("all are counted", fn -> BeamWorkerLoop.info(loop).done == 960 end)
        assert %{running: 0, waiting: 0} = BeamWorkerLoop.info(loop)
      end

      test "the registry shows where the work is done", %{node: node} do
        {loop, _} = loop(node, slots: 3)
        found = remote(node)
        assert Enum.map(found, & &1.remote.slot) == [0, 1, 2]

        for worker <- found do
          assert %{state: :ready, os_pid: nil, kit: "elixir", attached: false} = worker
          assert worker.remote.pid == loop and worker.remote.node == node()
          assert worker.health.ready
        end

        assert Enum.map(found, & &1.id) == BeamWorkerLoop.info(loop).workers
        assert is_nil(hd(workers(node, :echo)).remote)

        :ok = BeamWorkerLoop.set_ready(loop, false)
        not_ready = fn -> Enum.all?(remote(node), &(&1.health.ready == false)) end
        Lab.wait_until("it is shown as not ready", @patience_ms, not_ready)
        :ok = BeamWorkerLoop.set_ready(loop, true)
        assert {:ok, "again"} = ask(node, "again", 0)
      end

      test "a caller that leaves takes its job along", %{node: node} do
        {loop, _} = loop(node)
        caller = spawn(fn -> ask(node, "", 8) end)
        assert_receive {:runs, job, _id}, @patience_ms
        watch = Process.monitor(job)
        Process.exit(caller, :kill)
        assert_receive {:DOWN, ^watch, :process, ^job, :killed}, @patience_ms
        assert {:ok, "next"} = ask(node, "next", 0)
        assert Enum.all?(remote(node), &(&1.state == :ready))
        assert BeamWorkerLoop.info(loop).running == 0
      end

      test "a deadline ends the job, and jobs behind it are not lost", %{node: node} do
        loop(node, slots: 1, credit: 4)
        behind = Task.async(fn -> ask(node, "behind", 0) end)
        assert {:error, :deadline_exceeded} = ask(node, "", 8, timeout: 200)
        assert_receive {:runs, job, _id}, @patience_ms
        assert {:ok, "behind"} = Task.await(behind, @patience_ms)
        watch = Process.monitor(job)
        assert_receive {:DOWN, ^watch, :process, ^job, _}, @patience_ms
      end

      test "parts go as far as they are asked for, and progress is told", %{node: node} do
        loop(node)
        options = %{opcode: 4, timeout: @patience_ms}
        {:ok, ref} = call(node, {:submit_async, :remote, "", options})

        for n <- 1..3 do
          assert_receive {:ringbridge, ^ref, {:progress, %{step: ^n}}}, @patience_ms
          assert_receive {:runs, job, _id}, @patience_ms
          send(job, :go_on)
        end

        assert_receive {:ringbridge, ^ref, {:ok, "done"}}, @patience_ms

        stream = subscribe(node, "5")
        assert ["part 1", "part 2"] = events(2)
        refute_received {:"$gen_consumer", _, _}
        send(stream.to, {:"$gen_producer", {self(), stream.ref}, {:ask, 10}})
        assert ["part 3", "part 4", "part 5"] = events(3)
        assert_receive {:"$gen_consumer", _, {:cancel, :normal}}, @patience_ms
      end

      test "drain and restart of a slot, and an exit signal to its pid", %{node: node} do
        {loop, _} = loop(node)
        [first, second] = remote(node)
        registry = {Ringbridge.WorkerRegistry, node}
        assert :ok = GenServer.call(registry, {:restart, first.id})

        Lab.wait_until("slot 0 has a new life", @patience_ms, fn ->
          Enum.any?(
            remote(node),
            &(&1.remote.slot == 0 and &1.id > second.id and &1.state == :ready)
          )
        end)

        assert {:ok, "both"} = ask(node, "both", 0)
        assert BeamWorkerLoop.info(loop).phase == :serving

        [%{pid: pid} | _] = remote(node)
        Process.exit(pid, :kill)

        Lab.wait_until("it has come back", @patience_ms, fn ->
          Enum.all?(remote(node), &(&1.pid != pid)) and length(remote(node)) == 2
        end)

        serving(node, loop)

        watch = Process.monitor(loop)
        for %{id: id} <- remote(node), do: :ok = GenServer.call(registry, {:drain, id})
        assert_receive {:DOWN, ^watch, :process, ^loop, {:shutdown, {:drained, _}}}, @patience_ms
        nobody(node)
      end

      test "a node that the settings no longer name is drained, and let in again", %{node: node} do
        {loop, _} = loop(node)
        registry = {Ringbridge.WorkerRegistry, node}
        names = "roles.remote.remote.nodes"

        {:ok, [%{was: before}]} =
          GenServer.call(registry, {:configure, names, ["nobody@127.0.0.1"]})

        nobody(node)
        assert {:error, :no_worker} = ask(node, "x", 0)
        assert BeamWorkerLoop.info(loop).phase != :serving
        assert {:ok, [_]} = GenServer.call(registry, {:configure, names, before})
        serving(node, loop)
        assert {:ok, "x"} = ask(node, "x", 0)
      end

      test "a VM that is killed with SIGKILL: what it ran is crashed, the rest runs elsewhere", %{
        node: node
      } do
        vm = worker_vm(node, slots: 1, credit: 4)
        running = Task.async(fn -> ask(node, "", 8) end)
        assert_receive {:runs, _, _}, @patience_ms
        waiting = for n <- 1..3, do: Task.async(fn -> ask(node, "#{n}", 0) end)
        loop(node, slots: 1)
        Program.signal(vm, "KILL")

        assert {:error, {:worker_crashed, %{signal: 9, stderr: stderr}}} =
                 Task.await(running, @patience_ms)

        assert stderr =~ "noconnection"

        assert Enum.sort(Task.await_many(waiting, @patience_ms)) ==
                 for(n <- 1..3, do: {:ok, "#{n}"})
      end

      test "a VM that is stopped is found by its heartbeat, and comes back when it goes on", %{
        node: node
      } do
        vm = worker_vm(node, slots: 1)
        running = Task.async(fn -> ask(node, "", 8) end)
        assert_receive {:runs, job, _}, @patience_ms
        Program.signal(vm, "STOP")
        assert {:error, {:worker_broke, :no_heartbeat}} = Task.await(running, @patience_ms)
        nobody(node)
        Program.signal(vm, "CONT")
        watch = Process.monitor(job)
        assert_receive {:DOWN, ^watch, :process, ^job, _}, @patience_ms

        Lab.wait_until("it has come back", @patience_ms, fn ->
          match?([%{state: :ready}], remote(node))
        end)

        assert {:ok, "again"} = ask(node, "again", 0)
      end

      test "a bridge that is killed with SIGKILL and returns is served again" do
        name = Lab.unique("returning")

        roles =
          "[roles.remote]\nworkers = 0\n[roles.remote.remote]\nnodes = [\"test*@127.0.0.1\"]\n"

        bridge = Lab.start_bridge(name: name, roles: roles)
        {loop, _} = loop(bridge.node)
        caller = spawn(fn -> ask(bridge.node, "", 8) end)
        assert_receive {:runs, job, _}, @patience_ms
        watch = Process.monitor(job)
        Program.signal(bridge.program, "KILL")
        assert_receive {:DOWN, ^watch, :process, ^job, :killed}, @patience_ms
        stop_supervised!(name)
        Process.exit(caller, :kill)

        bridge = Lab.start_bridge(name: name, roles: roles)

        Lab.wait_until("the loop has come back", @patience_ms, fn ->
          Enum.count(remote(bridge.node), &(&1.state == :ready)) == 2
        end)

        assert BeamWorkerLoop.info(loop).phase == :serving
        assert {:ok, "again"} = ask(bridge.node, "again", 0)
      end
    end
  end

  test "whom the settings do not name is refused, clearly and for now", %{node: node} do
    {:ok, loop} =
      BeamWorkerLoop.start_link(bridge: node, role: "closed", module: RemoteJobs, slots: 1)

    send_hello(node, %{})

    assert_receive {:ringbridge_worker, :refused,
                    %{reason: :unauthorized, why: why, again: true}},
                   @patience_ms

    assert why =~ "[roles.closed.remote] nodes"
    assert BeamWorkerLoop.info(loop).phase != :serving
    GenServer.stop(loop)
  end

  test "a hello that breaks a rule is refused with the reason", %{node: node} do
    for {change, reason, word} <- [
          {%{version: 2}, :version, "version 1"},
          {%{role: "nowhere"}, :no_role, "nowhere"},
          {%{slots: 0, role: "closed"}, :unauthorized, "nodes"},
          {%{slots: 0}, :bad_hello, "slots"},
          {%{slots: 9}, :full, "slots_max"},
          {%{credit: "many"}, :bad_hello, "credit"},
          {%{kit: ""}, :bad_hello, "kit"},
          {%{ops: [%{opcode: 1}]}, :bad_hello, "name"},
          {%{ops: [%{opcode: 1, name: "a", takes: [[]]}]}, :bad_hello, "takes"},
          {%{ops: [%{opcode: 1, name: "a", takes: [%{}]}]}, :bad_hello, "takes"},
          {%{ops: [%{opcode: 1, name: "a", takes: List.duplicate(:parts, 16_384)}]}, :bad_hello,
           "takes"},
          {%{ops: [%{opcode: 1, name: <<"a", 0, "b">>}]}, :bad_hello, "name"}
        ] do
      send_hello(node, Map.merge(%{role: "remote"}, change))

      assert_receive {:ringbridge_worker, :refused, %{reason: ^reason, why: why} = said},
                     @patience_ms

      assert why =~ word
      if reason == :version, do: assert(said.versions == [1])
    end
  end

  defp send_hello(node, change) do
    hello = %{
      version: 1,
      ref: make_ref(),
      pid: self(),
      role: "closed",
      slots: 1,
      credit: 4,
      kit: "test",
      kit_version: {1, 0}
    }

    send({:remote_workers, node}, {:ringbridge_worker, :hello, Map.merge(hello, change)})
  end

  test "the command line shows where the work is done", %{bridge: bridge, node: node} do
    loop(node)
    [program | arguments] = Lab.command()
    env = [{"RINGBRIDGE_COOKIE", Atom.to_string(Lab.cookie())}, {"COLUMNS", "200"}]
    env = [{"PYTHONPATH", Lab.root()} | env]
    asked = ["workers", "remote", "--config", bridge.config, "--name", Atom.to_string(node)]
    {said, 0} = System.cmd(program, arguments ++ asked, env: env, stderr_to_stdout: true)
    assert said =~ Atom.to_string(node())
    assert said =~ "elixir"
  end

  # A worker that is this very process.
  defp register(node, change \\ %{}) do
    send_hello(node, Map.merge(%{role: "remote", credit: 4}, change))
    assert_receive {:ringbridge_worker, :welcome, welcome}, @patience_ms
    beat(welcome.desk)
    welcome
  end

  defp beat(desk), do: say(desk, :heartbeat, %{ready: true})
  defp say(desk, kind, said), do: send(desk, {:ringbridge_worker, kind, said})
  defp say(desk, kind, said, bytes), do: send(desk, {:ringbridge_worker, kind, said, bytes})

  defp given(node, options \\ []) do
    task = Task.async(fn -> ask(node, "work", 0, options) end)
    assert_receive {:ringbridge_worker, :job, job, {:raw, "work"}}, @patience_ms
    {task, job.job}
  end

  defp lies do
    [
      unknown_job: {"remote_unknown_job", fn desk, _job -> say(desk, :started, %{job: 1}) end},
      complete_twice:
        {"remote_unknown_job",
         fn desk, job ->
           say(desk, :started, %{job: job})
           for _ <- 1..2, do: say(desk, :complete, %{job: job, status: :ok}, {:raw, "work"})
         end},
      not_begun:
        {"remote_out_of_turn",
         fn desk, job -> say(desk, :complete, %{job: job, status: :ok}, {:raw, "work"}) end},
      begun_twice:
        {"remote_out_of_turn",
         fn desk, job -> for _ <- 1..2, do: say(desk, :started, %{job: job}) end},
      part_not_asked:
        {"remote_part_without_demand",
         fn desk, job ->
           say(desk, :started, %{job: job})
           say(desk, :part, %{job: job}, {:raw, "part"})
         end},
      too_large:
        {"remote_too_large",
         fn desk, job ->
           say(desk, :started, %{job: job})
           large = {:raw, :binary.copy("x", 17 * 1024 * 1024)}
           say(desk, :complete, %{job: job, status: :ok}, large)
         end},
      credit: {"remote_credit", fn desk, _job -> say(desk, :credit, %{credit: 100_000}) end},
      no_message: {"remote_bad_message", fn desk, _job -> say(desk, :sing, %{}) end},
      no_map: {"remote_bad_message", fn desk, _job -> say(desk, :started, []) end},
      no_status: {"remote_bad_message", fn desk, job -> say(desk, :complete, %{job: job}) end},
      code:
        {"remote_bad_message",
         fn desk, job ->
           said = %{job: job, status: :failed, code: 70_000}
           say(desk, :complete, said, {:raw, "no"})
         end},
      compressed:
        {"remote_bad_message",
         fn desk, job ->
           say(desk, :started, %{job: job})
           bytes = :erlang.term_to_binary(List.duplicate(0, 10_000), compressed: 9)
           say(desk, :complete, %{job: job, status: :ok}, {:term, bytes})
         end},
      bad_term:
        {"term_",
         fn desk, job ->
           say(desk, :started, %{job: job})
           bytes = :erlang.term_to_binary(self(), minor_version: 2)
           say(desk, :complete, %{job: job, status: :ok}, {:term, bytes})
         end}
    ]
  end

  test "a worker that lies is ended by the rule's name, and nothing else moves", %{node: node} do
    {loop, _} = loop(node, slots: 1)
    [honest] = remote(node)
    honest_ids = fn -> for %{remote: %{pid: ^loop}} = worker <- remote(node), do: worker.id end
    others = for worker <- workers(node, :echo) ++ workers(node, :sleep), do: worker.id
    :ok = BeamWorkerLoop.set_ready(loop, false)

    Lab.wait_until("jobs go to the liar", @patience_ms, fn ->
      Enum.any?(remote(node), &(&1.id == honest.id and not &1.health.ready))
    end)

    for {name, {rule, lie}} <- lies() do
      %{desk: desk} = register(node)
      {task, job} = given(node)
      lie.(desk, job)

      assert_receive {:ringbridge_worker, :ended, %{reason: :broke} = said},
                     @patience_ms,
                     "#{name}"

      assert said.why =~ rule, "#{name}: #{said.why}"
      assert said.again
      _whatever = Task.shutdown(task, :brutal_kill)
    end

    :ok = BeamWorkerLoop.set_ready(loop, true)
    assert {:ok, "true"} = ask(node, "true", 0)
    assert honest_ids.() == [honest.id]
    assert others == for(worker <- workers(node, :echo) ++ workers(node, :sleep), do: worker.id)
  end

  test "one that does not heed a cancel is ended, and so is one that never beats", %{node: node} do
    %{desk: desk} = register(node)
    {task, job} = given(node)
    say(desk, :started, %{job: job})
    heart = spawn_link(fn -> beat_on(desk) end)
    Task.shutdown(task, :brutal_kill)
    assert_receive {:ringbridge_worker, :cancel, %{job: ^job}}, @patience_ms
    assert_receive {:ringbridge_worker, :ended, %{reason: :broke, why: why}}, @patience_ms
    assert why =~ "remote_cancel_ignored"
    Process.unlink(heart)
    Process.exit(heart, :kill)

    register(node)
    assert_receive {:ringbridge_worker, :ended, %{reason: :hung, again: true}}, @patience_ms
  end

  defp beat_on(desk) do
    beat(desk)
    Process.sleep(200)
    beat_on(desk)
  end
end
