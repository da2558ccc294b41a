defmodule MyApp.Reports do
  @moduledoc false
  @behaviour Ringbridge.BeamWorkerLoop

  @impl true
  def handle_job(job, _state), do: {:ok, "report of " <> job.payload}
end

# The example of the page is read from it, compiled, and run with the other tests.
{:docs_v1, _, _, _, %{"en" => page}, _, _} = Code.fetch_docs(Ringbridge.Case)
[example] = Regex.run(~r/^    defmodule MyApp.ReportsTest do\n(?:    .*\n|\n)*?    end\n/m, page)
Code.eval_string(example)

defmodule Ringbridge.CaseTest do
  @moduledoc "The case template over loopback: what a test gets, and that a leak fails it."
  use Ringbridge.Case,
    async: true,
    cancel_ms: 0,
    roles: [
      half: &{:ok, div(&1, 2)},
      sleep: &__MODULE__.sleep/1,
      about: &__MODULE__.about/2,
      leave: &__MODULE__.leave/1
    ]

  @moduletag capture_log: true

  def sleep(:for_ever), do: Process.sleep(:infinity)
  def about(payload, job), do: {:ok, {payload, job.opcode}}

  def leave(:unlinked), do: Task.start(fn -> Process.sleep(:infinity) end)

  test "a call is answered by a worker in another process", %{compute: compute} do
    assert Ringbridge.call(compute, :half, 84) == {:ok, 42}
    assert Ringbridge.call(compute, :about, 1, opcode: 7) == {:ok, {1, 7}}
    assert {:error, %{reason: {:job_failed, 65_282, _}}} = Ringbridge.call(compute, :half, "x")
    assert_nothing_leaked(compute)
  end

  # About as long as the compiler lets it be; its instance's name has the module's before it, and parts of it their roles' behind.
  test String.duplicate("a long name ", 18), %{compute: compute} do
    assert Ringbridge.call(compute, :half, 84) == {:ok, 42}
    assert_nothing_leaked(compute)
  end

  test "what a job's worker died in is told, and the worker comes back", %{compute: compute} do
    request = Ringbridge.async(compute, :sleep, :for_ever, timeout: :infinity)
    await_busy(compute, :sleep)
    crash_worker(compute, :sleep)
    assert {:error, %{reason: {:worker_crashed, %{signal: 9}}}} = Ringbridge.await(request)
    await_workers(compute, :sleep)
    assert [_pid] = workers(compute, :sleep)
    assert_nothing_leaked(compute)
  end

  @tag ringbridge: [slots: 1, depth_max: 1]
  test "a full queue refuses, and a test says how full", %{compute: compute} do
    requests = for _ <- 1..3, do: Ringbridge.async(compute, :sleep, :for_ever)
    # One runs, one waits; which of the three was refused is known by its answer.
    assert {:error, %{reason: {:overloaded, _}}} =
             Enum.find_value(requests, &Ringbridge.yield(&1, 100))

    for request <- requests, do: Ringbridge.shutdown(request)
    assert_nothing_leaked(compute)
  end

  test "a caller that dies, or gives up, takes its job along", %{compute: compute} do
    {pid, ref} =
      spawn_monitor(fn -> Ringbridge.call(compute, :sleep, :for_ever, timeout: 60_000) end)

    await_busy(compute, :sleep)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, _, _, _}, 60_000
    request = Ringbridge.async(compute, :sleep, :for_ever, timeout: 60_000)
    await_busy(compute, :sleep)
    assert Ringbridge.shutdown(request) == nil
    assert_nothing_leaked(compute)
  end

  test "a cast runs without its caller", %{compute: compute} do
    test = self()
    spawn(fn -> Ringbridge.cast(compute, :about, test) end)

    # Nobody is told of it but the bridge's books.
    assert :ok =
             Ringbridge.Case.Wait.until("it was accepted", 60_000, fn ->
               match?({:ok, %{accepted: 1, in_flight: 0, answered: %{ok: 1}}}, stats(compute))
             end)
  end

  defp stats(compute), do: GenServer.call(Ringbridge.Loopback.bridge(compute), :stats)

  test "a job without an answer is a leak", %{compute: compute} do
    _request = Ringbridge.async(compute, :sleep, :for_ever, timeout: :infinity)
    await_busy(compute, :sleep)

    assert_raise ExUnit.AssertionError, ~r/1 jobs have none/, fn ->
      assert_nothing_leaked(compute, 50)
    end
  end

  test "an answer that nobody fetched is a leak", %{compute: compute} do
    request = Ringbridge.async(compute, :half, 84)
    assert Ringbridge.yield(request) == {:ok, 42}
    _request = Ringbridge.async(compute, :half, 84)

    assert_raise ExUnit.AssertionError, ~r/answers that nobody fetched/, fn ->
      assert_nothing_leaked(compute)
    end
  end

  test "a process that a handler has left behind is a leak", %{compute: compute} do
    assert {:ok, pid} = Ringbridge.call(compute, :leave, :unlinked)
    assert Process.alive?(pid)

    error =
      assert_raise ExUnit.AssertionError, ~r/no process of the instance lives/, fn ->
        assert_nothing_leaked(compute, 50)
      end

    assert error.message =~ inspect(pid)
    Process.exit(pid, :kill)
  end

  test "instances stand side by side", %{compute: compute} do
    start_supervised!({Ringbridge.Loopback, name: __MODULE__.Other, roles: %{half: &{:ok, &1}}})
    assert Ringbridge.call(__MODULE__.Other, :half, 84) == {:ok, 84}
    assert Ringbridge.call(compute, :half, 84) == {:ok, 42}
  end

  test "mode: :local asks a bridge in this VM, and no node" do
    {:ok, bridge} = Ringbridge.LocalBridge.start_link(roles: [:half], register: false)
    start = &Ringbridge.start_link([name: __MODULE__.Local, mode: :local] ++ &1)
    assert_raise ArgumentError, ~r/:bridge is required/, fn -> start.([]) end

    assert_raise ArgumentError, ~r/leave out :nodes/, fn ->
      start.(bridge: bridge, nodes: [:a@b])
    end

    # What is the default may be said, too.
    assert {:ok, _pid} = start.(bridge: bridge, timeout: 5_000, connect_timeout: 5_000)
    assert {:error, %{reason: :no_worker}} = Ringbridge.call(__MODULE__.Local, :half, 84)
    GenServer.stop(bridge)
    assert {:error, %{reason: {:down, :noproc}}} = Ringbridge.call(__MODULE__.Local, :half, 84)

    assert_raise ArgumentError, ~r/:bridge is for mode: :local/, fn ->
      Ringbridge.start_link(name: __MODULE__.Local, nodes: [:a@b], bridge: bridge)
    end
  end

  test "options are checked by name" do
    alias Ringbridge.Loopback
    start = &Loopback.start_link([name: __MODULE__.Wrong] ++ &1)
    assert_raise ArgumentError, ~r/no option :role\b/, fn -> start.(role: 1) end
    assert_raise ArgumentError, ~r/:roles is a map/, fn -> start.(roles: []) end
    assert_raise ArgumentError, ~r/the role :a is a module/, fn -> start.(roles: %{a: Enum}) end
  end
end

defmodule Ringbridge.LoopbackTest do
  @moduledoc "The examples of the loopback's page."
  use ExUnit.Case, async: true
  @moduletag capture_log: true
  doctest Ringbridge.Loopback
end
