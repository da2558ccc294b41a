defmodule Ringbridge.JobsTest.Pathfinding do
  @moduledoc "The role, where its worker and the coastline are: cargo is not on every machine (docs/pathfinding.md)."
  alias Ringbridge.Lab

  def there?, do: Enum.all?([worker(), mask()], &File.exists?/1)

  def role do
    if there?(), do: "\n[roles.pathfinding]\ncommand = #{inspect([worker(), mask()])}\n", else: ""
  end

  defp worker, do: Path.join(Lab.root(), "build/bin/rb-pathfinding")
  defp mask, do: Path.join(Lab.root(), "build/data/sea.mask")
end

defmodule Ringbridge.JobsTest do
  @moduledoc "Jobs as structs against a bridge: the real roles, good and bad values, and who refuses what slipped through."
  use Ringbridge.BridgeCase,
    name: "jobs",
    roles:
      """
      [roles.worldgen]
      command = ["#{Ringbridge.Lab.root()}/build/bin/rb-worldgen"]
      timeout_default_ms = 60_000
      [roles.worldgen.ops.heights]
      opcode = 0
      version = 1
      payload = { binary = [64, 64] }
      [roles.worldgen.ops.picture]
      opcode = 1
      payload = { binary = [64, 64] }

      [roles.repeat]
      command = ["#{Ringbridge.Lab.root()}/build/bin/rb-echo"]
      [roles.repeat.ops.repeat]
      opcode = 0
      payload = { map = { text = { binary = [1, 16] }, times = { integer = [1, 5] } } }

      [roles.routes]
      workers = 0
      [roles.routes.remote]
      nodes = ["test*@127.0.0.1"]
      """ <> Ringbridge.JobsTest.Pathfinding.role()

  @moduletag capture_log: true

  alias RealJobs.{Body, Cluster, Heights, Orbits, Picture, Place, Route}
  alias Ringbridge.{Error, SchemaGuard, Worker, WorkerRegistry}

  # What the role `repeat` takes, a little wider than it, and of other numbers and versions: each what a deployment gets wrong.
  for {name, options, high, times} <- [
        {Good, [op: :repeat, opcode: 0], 16, 5},
        {Wide, [op: :repeat, opcode: 0], 16, 9},
        {Other, [op: :again, opcode: 4], 16, 5},
        {Unguarded, [op: :repeat], 16, 5}
      ] do
    defmodule Module.concat(__MODULE__, name) do
      @moduledoc false
      use Ringbridge.Job, [role: :repeat] ++ options

      payload do
        field :text, :binary, size: 1..high
        field :times, :integer, in: 1..times
      end

      result do
        field :text, :binary, size: 1..high
        field :times, :integer, in: 1..times
      end
    end
  end

  defmodule Newer do
    @moduledoc false
    use Ringbridge.Job, role: :worldgen, op: :heights, opcode: 0, version: 2

    payload :packed do
      field :all, {:bytes, 64}
    end
  end

  defmodule Longer do
    @moduledoc false
    use Ringbridge.Job, role: :simulation, op: :orbits, opcode: 0

    payload :map do
      field :bodies, {:list, :any}
    end
  end

  defmodule Shorter do
    @moduledoc "As Heights, but its result promises more than the worker gives."
    use Ringbridge.Job, role: :worldgen, opcode: 0

    payload :packed do
      field :version, :u16, value: 1
      field :octaves, :u16
      field :width, :u32
      field :height, :u32
      pad 4
      field :seed, :i64, default: 0
      field :x, :f64, default: 0.0
      field :y, :f64, default: 0.0
      field :step, :f64, default: 0.01
      field :lacunarity, :f64, default: 2.0
      field :gain, :f64, default: 0.5
    end

    result :packed do
      field :heights, {:list, {:f64, min: 0.9}}
    end
  end

  setup %{node: node} = context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    start_supervised!({Ringbridge, name: name, nodes: [node]})
    {:ok, name: name}
  end

  @tile %Heights{octaves: 3, width: 16, height: 8, seed: 7}

  @tag :smoke
  test "worldgen: a tile as heights, as a picture, in parts", %{name: name} do
    assert {:ok, %Heights.Result{heights: heights}} = Ringbridge.call(name, @tile)
    assert length(heights) == 16 * 8
    picture = struct!(Picture, Map.from_struct(@tile))

    assert {:ok, %Picture.Result{png: <<0x89, "PNG", _::binary>>}} =
             Ringbridge.call(name, picture)

    parts = name |> Ringbridge.stream(%{@tile | part_rows: 3}) |> Enum.to_list()
    assert Enum.map(parts, &{&1.first_row, &1.rows}) == [{0, 3}, {3, 3}, {6, 2}]
    assert Enum.flat_map(parts, & &1.heights) == heights
    assert {:ok, [a, b]} = Ringbridge.call_many(name, [@tile, %{@tile | width: 0}])
    assert {{:ok, %Heights.Result{}}, {:error, %Error{reason: {:invalid_job, [_]}}}} = {a, b}
    refute_received _
  end

  @tag :smoke
  test "simulation: bodies there, and the same bodies back", %{name: name} do
    sun = %Body{id: 10, gm: 1.32712440018e11, position: [0, 0, 0], velocity: [0, 0, 0]}
    earth = %Body{id: 3, gm: 0, position: [1.495978707e8, 0, 0], velocity: [0, 29.7847, 0]}
    job = %Orbits{span: 365.256, bodies: [sun, earth]}

    assert {:ok, %Orbits.Result{bodies: [%{id: 10}, moved], steps: steps}} =
             Ringbridge.call(name, job)

    # A circle, a year long: it is back within a few steps of its own.
    [x, y, _z] = moved.position
    assert steps > 10
    assert_in_delta x, 1.495978707e8, 1.0e6
    assert_in_delta y, 0, 3.0e6
    request = Ringbridge.async(name, %Cluster{bodies: 500, returned: 2, sampled: 50})
    assert {:ok, %Cluster.Result{bodies: 500, states: states}} = Ringbridge.await(request)
    assert length(states) == 12
    # A rule that no declaration has is the worker's own.
    assert {:error, %Error{reason: {:job_failed, 7, _}}} =
             Ringbridge.call(name, %{job | bodies: [sun, %{sun | id: 4}]})
  end

  @tag skip: not __MODULE__.Pathfinding.there?() && "no pathfinding on this machine"
  test "pathfinding: Genoa to Naples, and what its worker refuses", %{name: name} do
    {genoa, naples} =
      {%Place{latitude: 44.4, longitude: 8.9}, %Place{latitude: 40.8, longitude: 14.25}}

    job = %Route{from: genoa, to: naples}
    assert {:ok, %Route.Result{} = route} = Ringbridge.call(name, job, timeout: 60_000)
    # The tables say 335 nautical miles.
    assert_in_delta route.nautical_miles, 335, 10
    assert [%Place{latitude: latitude} | _] = route.points
    assert_in_delta latitude, 44.4, 0.5
    moscow = %Place{latitude: 55.75, longitude: 37.6}

    assert {:error, %Error{reason: {:job_failed, 3, _}}} =
             Ringbridge.call(name, %{job | to: moscow}, timeout: 60_000)

    assert {:error, %Error{reason: {:invalid_job, [_, _]}}} =
             Ringbridge.call(name, %{job | from: nil, to: {1, 2}})
  end

  test "pathfinding's tuples and records, by a worker in Elixir that reads and writes them",
       context do
    defmodule Navigator do
      @behaviour Ringbridge.BeamWorkerLoop

      @impl true
      def handle_job(job, _state) do
        case Ringbridge.Job.read(Route, job.payload) do
          {:ok, %Route{from: from, to: to}} ->
            Ringbridge.Job.write_result(Route, %Route.Result{
              nautical_miles: 60.0,
              points: [from, to]
            })

          {:error, violations} ->
            {:error, 2, Enum.join(violations, "; ")}
        end
      end
    end

    loop = [bridge: context.node, role: "routes", module: Navigator, slots: 1]
    start_supervised!({Ringbridge.BeamWorkerLoop, loop})
    {a, b} = {%Place{latitude: 1, longitude: 2.5}, %Place{latitude: 2, longitude: 2.5}}

    Lab.wait_until("the navigator is there", fn ->
      match?(
        {:ok, %{workers: [%{state: :ready} | _]}},
        WorkerRegistry.lookup(context.name, :routes)
      )
    end)

    {:ok, raw} = Ringbridge.Job.write(%Route{from: a, to: b})
    answer = submit(context.node, :routes, raw)

    assert Ringbridge.ResultIngestor.ingest(Route, answer) ==
             {:ok, %Route.Result{nautical_miles: 60.0, points: [a, b]}}

    assert {:error, {:job_failed, 2, why}} = submit(context.node, :routes, {{91, 0}, {0, 0}})
    assert why =~ "RealJobs.Route.from.latitude must be a number of -90 to 90, got: 91"
  end

  test "stages hand structs on, and the last result is the declared one", %{name: name} do
    job = struct!(__MODULE__.Good, text: "cat", times: 2)
    good = struct!(__MODULE__.Good.Result, text: "cat", times: 2)
    assert Ringbridge.call(name, job) == {:ok, good}

    assert Ringbridge.pipeline(name, [:echo, __MODULE__.Good], %{text: "cat", times: 2}) ==
             {:ok, good}

    assert Ringbridge.pipeline(name, [{:map, __MODULE__.Good}], [job, job]) == {:ok, [good, good]}

    assert Ringbridge.call(name, struct!(__MODULE__.Unguarded, text: "a", times: 1)) |> elem(0) ==
             :ok
  end

  test "what the declarations disagree in is refused before it is sent, with the way out",
       context do
    %{name: name, node: node} = context
    # Until then a worker has said nothing of what it takes.
    os_pid_of_worker(node, :simulation)
    before = stats(node).accepted

    for {job, why} <- [
          {struct!(__MODULE__.Wide, text: "a", times: 1),
           ~r/Wide.times is an integer of 1 to 9, .* of 1 to 5/},
          {struct!(__MODULE__.Other, text: "a", times: 1),
           ~r/no operation of opcode 4, .* it has repeat \(0\)/},
          {%Newer{all: :binary.copy("x", 64)},
           ~r/Newer is of version 2, operation heights of role worldgen of 1/},
          # What its worker has said in its hello: the role itself says nothing.
          {%Longer{bodies: []},
           ~r/worker \d+ of role simulation takes orbits as raw, and .*Longer sends it as term/}
        ] do
      assert {:error, %Error{reason: {:schema_mismatch, said}} = error} =
               Ringbridge.call(name, job)

      assert said =~ why
      assert said =~ "#{node}"
      assert Error.not_run?(error)

      assert {:error, %Error{reason: {:schema_mismatch, _}}} =
               SchemaGuard.check(name, [job.__struct__])
    end

    assert SchemaGuard.check!(name, [Heights, Picture, Orbits, Cluster, __MODULE__.Good]) == :ok
    assert stats(node).accepted == before
  end

  test "what slipped through is refused by the bridge, and what came back wrong here", %{
    name: name,
    node: node
  } do
    # Past the guard: as from a caller that has none.
    {:ok, payload} = Ringbridge.Job.write(struct!(__MODULE__.Wide, text: "a", times: 9))
    assert {:error, {:bad_request, why}} = submit(node, :repeat, payload)
    assert why =~ "payload.times must be an integer of 1 to 5"
    assert {:error, {:bad_request, why}} = submit(node, :worldgen, "short", opcode: 0)
    assert why =~ "payload must be a binary of 64"
    tile = %Shorter{octaves: 1, width: 2, height: 2}

    assert {:error, %Error{reason: {:invalid_result, [violation]}} = error} =
             Ringbridge.call(name, tile)

    assert violation.path == [:heights, 0]

    assert Exception.message(error) =~
             "the worker's answer: Ringbridge.JobsTest.Shorter.Result.heights[0] must be a finite number of 0.9 or more"
  end

  test "a reload of the bridge is noticed", %{name: name, node: node} do
    job = struct!(__MODULE__.Good, text: "cat", times: 5)
    assert {:ok, _} = Ringbridge.call(name, job)
    narrow = %{"map" => %{"text" => "binary", "times" => %{"integer" => [1, 4]}}}
    assert {:ok, [_]} = registry(node, {:configure, "roles.repeat.ops.repeat.payload", narrow})
    # The bridge has the last word, and is asked again.
    assert {:error, %Error{reason: {:bad_request, _}}} = Ringbridge.call(name, job)
    assert {:error, %Error{reason: {:schema_mismatch, why}}} = Ringbridge.call(name, job)
    assert why =~ "Good.times is an integer of 1 to 5"
    wide = %{"map" => %{"text" => "binary", "times" => "integer"}}
    assert {:ok, [_]} = registry(node, {:configure, "roles.repeat.ops.repeat.payload", wide})

    Lab.wait_until("the mended role takes it", fn ->
      match?({:ok, _}, Ringbridge.call(name, job))
    end)

    asked = %{"map" => %{"text" => %{"binary" => [1, 16]}, "times" => %{"integer" => [1, 5]}}}
    assert {:ok, [_]} = registry(node, {:configure, "roles.repeat.ops.repeat.payload", asked})
  end

  describe "the registry" do
    test "lists and looks up workers as structs, by instance and by node", %{
      name: name,
      node: node
    } do
      os_pid_of_worker(node, :echo)

      for where <- [name, node] do
        if where == name, do: {:ok, _} = Ringbridge.call(name, :echo, "connected")
        assert {:ok, workers} = WorkerRegistry.list(where)

        assert %Worker{state: :ready, kit: "c", node: ^node} =
                 Enum.find(workers, &(&1.role == :echo))

        assert {:ok, %{state: :running, workers: [worker | _]} = role} =
                 WorkerRegistry.lookup(where, "simulation")

        assert [%{opcode: 0, name: "orbits"}, %{opcode: 1, name: "cluster"}] = worker.operations
        assert role.operations == []
        # All that the bridge tells has its field.
        assert worker.more == %{}
      end

      assert {:ok, %{operations: [%{name: "repeat", opcode: 0, version: nil}]}} =
               WorkerRegistry.lookup(name, :repeat)

      assert {:error, %Error{reason: {:bad_request, _}, node: ^node}} =
               WorkerRegistry.lookup(node, :nobody)

      assert {:error, %Error{reason: :not_started}} = WorkerRegistry.list(Nowhere)

      assert {:error, %Error{reason: {:down, :noconnection}}} =
               WorkerRegistry.list(:"nobody@127.0.0.1")
    end

    test "tells a watcher of changes as structs, until he has enough", %{node: node} do
      assert {:ok, watch, workers} = WorkerRegistry.watch(node)
      %Worker{id: id} = Enum.find(workers, &(&1.role == :small))
      assert :ok = registry(node, {:restart, id})
      assert %Worker{id: ^id, role: :small} = await_change(watch, id)
      assert WorkerRegistry.change(watch, :anything) == :other
      assert WorkerRegistry.unwatch(watch) == :ok
      # It has another number in its new life, and that is told to nobody any more.
      os_pid_of_worker(node, :small)
      [%{id: id}] = workers(node, :small)
      assert :ok = registry(node, {:restart, id})

      Lab.wait_until("it is another", fn ->
        not match?([%{id: ^id}], workers(node, :small))
      end)

      os_pid_of_worker(node, :small)
      refute_received {:ringbridge_workers, _, _}
    end

    defp await_change(watch, id) do
      receive do
        message ->
          assert {:changed, workers} = WorkerRegistry.change(watch, message)
          Enum.find(workers, &(&1.id == id)) || await_change(watch, id)
      after
        60_000 -> flunk("no change of worker #{id} was told")
      end
    end

    test "the end of a bridge is the end of a watch" do
      other = Lab.start_bridge(name: "jobs_ends")
      assert {:ok, watch, _workers} = WorkerRegistry.watch(other.node)
      Program.kill(Program.os_pid(other.program), "KILL")
      assert_receive {:DOWN, _, :process, {WorkerRegistry, _}, _} = message, 60_000
      assert {:down, :noconnection} = WorkerRegistry.change(watch, message)
    end
  end

  describe "the layout" do
    test "is told by the bridge, and is ours", %{node: node} do
      assert Ringbridge.LayoutLoader.fetch(node) == {:ok, Ringbridge.LayoutLoader.layout()}
      assert {0, "same: " <> _} = Ringbridge.LayoutLoader.run(["--node", "#{node}"])
      assert {1, why} = Ringbridge.LayoutLoader.run(["--node", "nobody@127.0.0.1"])
      assert why =~ "nobody@127.0.0.1 cannot be reached"
    end

    test "is checked where there is no mix, as a release's eval does", %{node: node} do
      {:ok, [[port]]} = :init.get_argument(:epmd_port)
      env = [{"HOME", Lab.home()}, {"ERL_EPMD_PORT", "#{port}"}]
      ebin = Path.join(Lab.root(), "build/mix/test/lib/ringbridge/ebin")

      eval = fn argv ->
        code = "Ringbridge.LayoutLoader.main(#{inspect(argv)}); IO.puts(:goes_on)"
        System.cmd("elixir", ["-pa", ebin, "-e", code], env: env, stderr_to_stdout: true)
      end

      assert {said, 0} = eval.(["--node", "#{node}"])
      assert said =~ "same: the layouts go together"
      assert said =~ "goes_on"
      assert {said, 1} = eval.(["--digest", String.duplicate("0", 64)])
      assert said =~ "mismatch"
      refute said =~ "goes_on"
    end

    test "is checked by mix, with a status", %{bridge: bridge, node: node} do
      {:ok, [[port]]} = :init.get_argument(:epmd_port)

      env = [
        {"MIX_ENV", "test"},
        {"HOME", Lab.home()},
        {"ERL_EPMD_PORT", "#{port}"},
        {"ERL_FLAGS", ""}
      ]

      run = fn argv ->
        System.cmd("mix", ["ringbridge.layout.check" | argv],
          cd: Lab.root(),
          env: env,
          stderr_to_stdout: true
        )
      end

      assert {said, 0} = run.(["--node", "#{node}", "--json"])
      assert said =~ ~r/"verdict": ?"same"/
      assert {said, 1} = run.(["--digest", String.duplicate("0", 64)])
      assert said =~ "mismatch"
      assert {said, 1} = run.(["--node", "nobody@127.0.0.1"])
      assert said =~ "unsure" and said =~ "cannot be reached"
      assert {said, 2} = run.(["--nod", "#{node}"])
      assert said =~ "no such argument: --nod"
      assert bridge.node == node
    end
  end
end
