defmodule Ringbridge.LinkedWorkersTest do
  @moduledoc """
  Workers in Elixir whose jobs come over shared memory: how they come by it, lose it and get it back. That jobs are then the same as over messages
  is remote_workers_test's.
  """
  use Ringbridge.BridgeCase,
    roles: """
    [roles.linked]
    workers = 0
    atoms = ["answered"]
    cancel_term_ms = 300
    cancel_kill_ms = 300
    [roles.linked.remote]
    nodes = ["test*@127.0.0.1"]
    slots_max = 8
    """

  alias Ringbridge.BeamWorkerLoop
  alias Ringbridge.BeamWorkerLoop.Link
  alias Ringbridge.Lane.Native

  @patience_ms 60_000
  @moduletag timeout: 240_000

  defmodule Counting do
    # Counts how often each payload was run; "hold" tells the test, and goes on when it says so.
    @behaviour BeamWorkerLoop

    @impl true
    def handle_job(%{payload: "hold" <> _} = job, {table, test}) do
      count(table, job.payload)
      send(test, {:runs, self(), job.payload})

      receive do
        :go_on -> {:ok, job.payload}
      end
    end

    def handle_job(job, {table, _test}) do
      count(table, job.payload)
      {:ok, job.payload}
    end

    defp count(table, payload), do: :ets.update_counter(table, payload, 1, {payload, 0})
  end

  setup %{node: node} do
    on_exit(fn -> configure(node, "lanes.lanes_max", 64) end)
    {:ok, table: :ets.new(:counts, [:public])}
  end

  defp loop(node, table, options \\ []) do
    defaults = [bridge: node, role: "linked", module: Counting, slots: 2, lane: :nif]
    options = Keyword.merge(defaults, [{:init_arg, {table, self()}} | options])
    loop = start_supervised!(Supervisor.child_spec({BeamWorkerLoop, options}, id: make_ref()))
    links(node, loop, options[:slots])
    loop
  end

  # Until so many slots of the loop have their jobs over shared memory, and all are ready.
  defp links(node, loop, count) do
    Lab.wait_until("#{count} slots have links", @patience_ms, fn ->
      info = BeamWorkerLoop.info(loop)
      ready = for %{state: :ready, id: id} <- workers(node, :linked), do: id

      info.phase == :serving and length(info.links) == count and
        length(ready) == length(info.workers)
    end)
  end

  defp ask(node, payload, options \\ []) do
    options = Keyword.merge([timeout: @patience_ms], options)
    submit(node, :linked, payload, options, @patience_ms + 5_000)
  end

  defp configure(node, name, value),
    do: GenServer.call({Ringbridge.WorkerRegistry, node}, {:configure, name, value})

  # The processes that serve a loop's slots.
  defp servers(loop), do: for({_slot, {pid, _worker}} <- :sys.get_state(loop).links, do: pid)

  test "jobs under way are finished where they began, and the next ones come the other way",
       %{node: node, table: table} do
    loop = loop(node, table)
    held = Task.async(fn -> ask(node, "hold") end)
    assert_receive {:runs, job, "hold"}, @patience_ms

    callers =
      for caller <- 1..8 do
        Task.async(fn -> for n <- 1..150, do: {"#{caller} #{n}", ask(node, "#{caller} #{n}")} end)
      end

    {:ok, _} = configure(node, "lanes.lanes_max", 0)
    Lab.wait_until("one slot has no link", @patience_ms, fn -> length(servers(loop)) == 1 end)
    send(job, :go_on)
    assert {:ok, "hold"} = Task.await(held, @patience_ms)
    links(node, loop, 0)
    assert {:ok, "by message"} = ask(node, "by message")
    {:ok, _} = configure(node, "lanes.lanes_max", 64)
    links(node, loop, 2)

    for {payload, answer} <- List.flatten(Task.await_many(callers, @patience_ms)),
        do: assert(answer == {:ok, payload})

    # None was lost, and none done twice.
    runs = :ets.tab2list(table)
    assert length(runs) == 8 * 150 + 2
    assert Enum.all?(runs, &match?({_payload, 1}, &1))
    assert BeamWorkerLoop.info(loop).phase == :serving
  end

  test "a slot's process that is killed: its job is lost, the waiting ones are not, and its link comes back",
       %{node: node, table: table} do
    loop = loop(node, table, slots: 1)
    held = Task.async(fn -> ask(node, "hold") end)
    assert_receive {:runs, job, "hold"}, @patience_ms
    waiting = for n <- 1..5, do: Task.async(fn -> ask(node, "#{n}") end)
    watch = Process.monitor(job)
    [server] = servers(loop)
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^watch, :process, ^job, _}, @patience_ms
    assert {:error, {:worker_crashed, %{stderr: stderr}}} = Task.await(held, @patience_ms)
    assert stderr =~ "lost its link"
    assert Enum.sort(Task.await_many(waiting, @patience_ms)) == for(n <- 1..5, do: {:ok, "#{n}"})
    links(node, loop, 1)
    assert {:ok, "again"} = ask(node, "again")
    assert Enum.all?(:ets.tab2list(table), &match?({_payload, 1}, &1))
    # What was lost runs no more.
    Lab.wait_until("nothing runs", @patience_ms, fn -> BeamWorkerLoop.info(loop).running == 0 end)
  end

  test "the NIF's code is purged: the job that ran is lost, and links come back with the new code",
       %{node: node, table: table} do
    loop = loop(node, table, slots: 1)
    held = Task.async(fn -> ask(node, "hold") end)
    assert_receive {:runs, _job, "hold"}, @patience_ms
    waiting = for n <- 1..5, do: Task.async(fn -> ask(node, "#{n}") end)
    :code.purge(Native)
    true = :code.delete(Native)
    :code.purge(Native)
    assert {:error, {:worker_crashed, _}} = Task.await(held, @patience_ms)
    assert Enum.sort(Task.await_many(waiting, @patience_ms)) == for(n <- 1..5, do: {:ok, "#{n}"})
    {:module, Native} = :code.ensure_loaded(Native)
    links(node, loop, 1)
    assert {:ok, "again"} = ask(node, "again")
    assert Enum.all?(:ets.tab2list(table), &match?({_payload, 1}, &1))
  after
    {:module, Native} = :code.ensure_loaded(Native)
  end

  test "a loop that is killed takes its links along", %{node: node, table: table} do
    loop = loop(node, table, slots: 1)
    [server] = servers(loop)
    held = Task.async(fn -> ask(node, "hold") end)
    assert_receive {:runs, job, "hold"}, @patience_ms
    watches = for pid <- [server, job], do: {Process.monitor(pid), pid}
    Process.exit(loop, :kill)

    for {watch, pid} <- watches,
        do: assert_receive({:DOWN, ^watch, :process, ^pid, _}, @patience_ms)

    assert {:error, {:worker_crashed, _}} = Task.await(held, @patience_ms)
  end

  # ---- a worker that is this very process

  defp register(node) do
    {:ok, memory} = Link.memory()

    hello = %{
      version: 1,
      ref: make_ref(),
      pid: self(),
      role: "linked",
      slots: 1,
      credit: 4,
      kit: "test",
      kit_version: {1, 0},
      memory: memory
    }

    send({:remote_workers, node}, {:ringbridge_worker, :hello, hello})
    assert_receive {:ringbridge_worker, :welcome, welcome}, @patience_ms
    assert_receive {:ringbridge_worker, :link, offer}, @patience_ms
    {welcome.desk, offer}
  end

  defp fetch(offer) do
    assert {:ok, link} = Native.worker_open(offer.socket, offer.token, 5_000)
    assert :ok = Native.worker_greet(link, "test", 65_536, "linked", "")
    link
  end

  # The next job, begun; the caller's task.
  defp given(node, link, options \\ []) do
    task = Task.async(fn -> ask(node, "work", options) end)
    {task, next(link, make_ref())}
  end

  defp next(link, wake) do
    case Native.worker_next(link, wake) do
      :parked ->
        assert_receive {:select, ^link, ^wake, :ready_input}, @patience_ms
        next(link, wake)

      :more ->
        next(link, wake)

      {:job, id, _, _, _, _, _, _, {:raw, "work"}} ->
        id
    end
  end

  defp say(desk, kind, said), do: send(desk, {:ringbridge_worker, kind, said})

  defp ended(reason) do
    assert_receive {:ringbridge_worker, :ended, %{reason: ^reason} = said}, @patience_ms
    said.why
  end

  # The relay tells by the link that it has let go of it.
  defp over(link) do
    Lab.wait_until("the link is over", @patience_ms, fn ->
      Native.worker_beat(link, 1) == :over
    end)
  end

  defp gone(node),
    do: Lab.wait_until("it is gone", @patience_ms, fn -> workers(node, :linked) == [] end)

  test "a link is fetched once, by its process, and used by the one that fetched it", %{
    node: node
  } do
    {desk, offer} = register(node)
    link = fetch(offer)
    assert {:error, why} = Native.worker_open(offer.socket, offer.token, 5_000)
    assert why =~ "good once"

    Lab.wait_until("it is ready", @patience_ms, fn ->
      match?([%{state: :ready}], workers(node, :linked))
    end)

    {task, id} = given(node, link)
    other = Task.async(fn -> catch_error(Native.worker_say(link, id, 0, 0, 0, 0, "stolen")) end)
    assert Task.await(other) == :badarg
    assert_raise ArgumentError, fn -> Native.worker_next(link, make_ref()) end
    assert_raise ArgumentError, fn -> Native.worker_say(link, id + 1, 0, 0, 0, 0, "other") end
    assert_raise ArgumentError, fn -> Native.worker_say(link, id, 5, 0, 0, 0, "no status") end
    assert_raise ArgumentError, fn -> Native.worker_say(link, id, 0, 0, 0, 1, "no term") end
    assert :ok = Native.worker_say(link, id, 0, 0, 0, 0, "done")
    assert_raise ArgumentError, fn -> Native.worker_say(link, id, 0, 0, 0, 0, "twice") end
    assert {:ok, "done"} = Task.await(task, @patience_ms)
    Native.worker_close(link)
    assert :over = Native.worker_next(link, make_ref())
    say(desk, :drained, %{slot: offer.slot, worker: offer.worker})
    ended(:drained)
    gone(node)
  end

  test "a cancel that is seen while a part waits for room is told to the job", %{node: node} do
    {_desk, offer} = register(node)
    link = fetch(offer)
    {:ok, %{os_pid: bridge}} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
    {task, id} = given(node, link, timeout: 500)
    assert {:error, :deadline_exceeded} = Task.await(task, @patience_ms)
    cancelled = fn -> match?({1, _}, Native.worker_watch(link, make_ref(), 0)) end
    Lab.wait_until("the job is to stop", @patience_ms, cancelled)
    job = %{id: id, ref: make_ref(), pid: self(), timer: nil, watched?: true, parts?: true}
    job = Map.merge(job, %{sent: 0, told: 9})
    s = %Link{loop: self(), link: link, wake: make_ref(), job: job, options: %{cancel_ms: 60_000}}

    # The bell has been read already: nothing but this look tells of the cancel.
    try do
      {_, 0} = System.cmd("kill", ["-STOP", "#{bridge}"])
      fill(link, id)
      {:noreply, s} = Link.handle_info({job.ref, :part, {:raw, "part"}}, s)
      assert s.job.timer
      assert_received {ref, :cancel} when ref == job.ref
    after
      System.cmd("kill", ["-CONT", "#{bridge}"])
    end
  end

  # Until the link has no room for another word; its relay takes nothing meanwhile.
  defp fill(link, id) do
    if Native.worker_say(link, id, 4, 0, 0, 0, "progress") == :ok, do: fill(link, id)
  end

  test "one that does not fetch its link, or cannot, has its jobs as messages", %{node: node} do
    {desk, offer} = register(node)
    say(desk, :no_link, %{slot: offer.slot, worker: offer.worker, why: "not today"})
    task = Task.async(fn -> ask(node, "work") end)
    assert_receive {:ringbridge_worker, :job, %{job: id}, {:raw, "work"}}, @patience_ms
    assert {:error, _} = Native.worker_open(offer.socket, offer.token, 5_000)
    say(desk, :started, %{job: id})

    send(
      desk,
      {:ringbridge_worker, :complete, %{job: id, status: :ok, run_us: 1}, {:raw, "done"}}
    )

    assert {:ok, "done"} = Task.await(task, @patience_ms)
    say(desk, :leave, %{})
    ended(:drained)
    gone(node)
  end

  test "a worker that lies about its link is ended by the rule's name", %{node: node} do
    for {rule, lie} <- [
          {"remote_bad_message",
           fn desk, offer, _link, _job ->
             say(desk, :drained, %{slot: offer.slot, worker: offer.worker + 1})
           end},
          {"remote_bad_message",
           fn desk, offer, _link, _job ->
             say(desk, :no_link, %{slot: 7, worker: offer.worker, why: ""})
           end},
          # Its jobs are the link's: nobody speaks of them by messages.
          {"remote_unknown_job",
           fn desk, _offer, _link, job -> say(desk, :started, %{job: job}) end},
          {"term_",
           fn _desk, _offer, link, job ->
             bytes = :erlang.term_to_binary(self(), minor_version: 2)
             Native.worker_say(link, job, 0, 0, 0, 1, bytes)
           end},
          # Whose process nobody here can end is let go of; its handler may run for ever.
          {"cancel_ignored", fn _desk, _offer, _link, _job -> :ok end}
        ] do
      {desk, offer} = register(node)
      link = fetch(offer)
      {task, job} = given(node, link)
      lie.(desk, offer, link, job)
      if rule == "cancel_ignored", do: Task.shutdown(task, :brutal_kill)
      beats = spawn_link(fn -> beat(desk) end)
      assert ended(:broke) =~ rule
      over(link)
      Task.shutdown(task, :brutal_kill)
      Process.unlink(beats)
      Process.exit(beats, :kill)
      Native.worker_close(link)
      gone(node)
    end
  end

  defp beat(desk) do
    say(desk, :heartbeat, %{ready: true})
    Process.sleep(200)
    beat(desk)
  end

  test "one that says it is done while it is not has lost its job, and a link is judged by its own beats",
       %{node: node} do
    {desk, offer} = register(node)
    link = fetch(offer)
    {task, _job} = given(node, link)
    say(desk, :drained, %{slot: offer.slot, worker: offer.worker})
    assert {:error, {:worker_crashed, _}} = Task.await(task, @patience_ms)
    ended(:drained)
    over(link)
    gone(node)

    # It beats by messages, and its link stands still.
    {desk, offer} = register(node)
    fetch(offer)
    beats = spawn_link(fn -> beat(desk) end)
    ended(:hung)
    Process.unlink(beats)
    Process.exit(beats, :kill)
    gone(node)
  end
end
