defmodule Ringbridge.SchemaGuardTest do
  @moduledoc "A job's declaration against what a bridge tells of its role; the same calls against a bridge are in integration/jobs_test.exs."
  # Registers the names of a bridge's services on this VM.
  use ExUnit.Case

  Code.require_file("support/fake_bridge.exs", __DIR__)

  alias MyApp.Repeat
  alias Ringbridge.{Error, FakeBridge, LayoutLoader, SchemaGuard}
  alias Ringbridge.SchemaGuard.Schema

  doctest Ringbridge.SchemaGuard
  doctest Ringbridge.SchemaGuard.Schema

  @payload %{"map" => %{"text" => %{"binary" => [1, 64]}, "times" => %{"integer" => [1, 9]}}}
  @operation %{opcode: 0, name: "repeat", version: nil, payload: @payload}

  defp role(fields \\ %{}) do
    role = %{operations: [@operation], workers: [], layout: LayoutLoader.layout()}
    Map.merge(role, Map.new(fields))
  end

  defp compare(role, changes \\ %{}),
    do: Repeat.__job__() |> Map.merge(changes) |> SchemaGuard.compare(role)

  describe "a job and its role" do
    test "that agree, or of which one says nothing" do
      assert compare(role()) == :ok
      assert compare(role(operations: [])) == :ok
      assert compare(%{}) == :ok
      assert compare(role(operations: [%{@operation | version: 4}])) == :ok
      assert compare(role(), %{version: 4}) == :ok
      # The role takes more than the job allows.
      wide = %{"map" => %{"text" => "binary", "times" => "number", "how?" => "atom"}}
      assert compare(role(operations: [%{@operation | payload: wide}])) == :ok
      assert compare(role(operations: [%{@operation | payload: %{"newer" => 1}}])) == :ok
    end

    test "of another number, name or version" do
      assert {:schema_mismatch, why} = compare(role(), %{opcode: 7})

      assert why =~
               "role echo has no operation of opcode 7, which MyApp.Repeat asks for; it has repeat (0)"

      assert {:schema_mismatch, why} = compare(role(), %{op: :again})
      assert why =~ "opcode 0 of role echo is repeat, and again for MyApp.Repeat"
      assert {:schema_mismatch, why} = compare(role(), %{opcode: nil, op: :again})
      assert why =~ "no operation of name again"

      assert {:schema_mismatch, why} =
               compare(role(operations: [%{@operation | version: 4}]), %{version: 3})

      assert why =~ "MyApp.Repeat is of version 3, operation repeat of role echo of 4"
    end

    test "that takes less than the job allows: the field, both sides, and the way out" do
      # {what the role takes, what the job's field is told to be}
      narrow = [
        {%{"map" => %{"text" => %{"binary" => [1, 63]}, "times" => "integer"}},
         ~r/Repeat.text is a binary of 1 to 64 bytes, .* has it a binary of 1 to 63 bytes/},
        {%{"map" => %{"text" => %{"binary" => [2]}, "times" => "integer"}}, ~r/Repeat.text/},
        {%{"map" => %{"text" => "binary", "times" => %{"integer" => [2, 9]}}},
         ~r/Repeat.times is an integer of 1 to 9, .* of 2 to 9/},
        {%{"map" => %{"text" => "binary", "times" => "float"}},
         ~r/Repeat.times .* has it a float/},
        {%{"map" => %{"text" => "binary"}}, ~r/Repeat.times .* has it unknown/},
        {%{"map" => %{"text" => "binary", "times" => "integer", "how" => "atom"}},
         ~r/Repeat.how is not there/},
        {"binary", ~r/Repeat is a map of text, times, .* has it a binary/},
        {%{"list" => "any"}, ~r/has it a list/}
      ]

      for {payload, why} <- narrow do
        assert {:schema_mismatch, said} =
                 compare(role(operations: [%{@operation | payload: payload}]))

        assert said =~ why
        assert said =~ "payload of [roles.echo.ops.repeat]"
      end
    end

    test "and what its workers have declared" do
      worker = %{id: 7, operations: [%{opcode: 0, name: "repeat", takes: [:term]}]}
      assert compare(role(operations: [], workers: [worker])) == :ok
      assert compare(role(workers: [%{worker | operations: []}])) == :ok
      raw = %{worker | operations: [%{opcode: 0, name: "repeat", takes: [:raw, :parts]}]}
      assert {:schema_mismatch, why} = compare(role(workers: [worker, raw]))
      assert why =~ "worker 7 of role echo takes repeat as raw, and MyApp.Repeat sends it as term"
      other = %{worker | operations: [%{opcode: 3, name: "other", takes: []}]}
      assert {:schema_mismatch, why} = compare(role(workers: [other]))
      assert why =~ "worker 7 of role echo has no operation of opcode 0"
    end

    test "of another layout" do
      strange = %{LayoutLoader.layout() | digest: String.duplicate("ab", 32)}
      assert {:layout_mismatch, why} = compare(role(layout: strange))
      assert why =~ "the bridge's layout is 3.1 (abababababab)"
      assert why =~ "another csrc/layout.toml"
    end
  end

  describe "a schema" do
    test "as TOML is what the bridge reads, for every form" do
      for module <- [RealJobs.Heights, RealJobs.Orbits, RealJobs.Route, RealJobs.Query, Repeat] do
        assert {:ok, _} = module |> Schema.of() |> Schema.toml() |> from_toml() |> Schema.parse()

        theirs =
          module |> Schema.of() |> Schema.toml() |> from_toml() |> Schema.parse() |> elem(1)

        assert Schema.within(Schema.of(module), theirs) == :ok, inspect(module)
      end

      assert Schema.of(RealJobs.Heights) == {:binary, {64, 64}}
      assert Schema.of(RealJobs.Orbits) == {:binary, {24 + 64, 24 + 64 * 64}}
    end

    test "that excludes a bound has the next integer, and no next float" do
      above = &{&1, {{:above, 0}, nil}}
      from_one = &{&1, {{:min, 1}, nil}}
      assert Schema.within(above.(:integer), from_one.(:integer)) == :ok
      assert {:error, [], _, _} = Schema.within(above.(:float), from_one.(:float))
      below = {:number, {nil, {:below, 1}}}
      assert {:error, [], _, _} = Schema.within(below, {:number, {nil, {:max, 0}}})
    end

    test "of bounds that are written in another way than ours is not known" do
      assert Schema.parse(%{"integer" => %{"least" => 1}}) == :error
      assert Schema.parse(%{"binary" => [1, 2, 3]}) == :error
    end

    test "is within itself, and not within one whose one bound is tighter, at random" do
      for seed <- 1..300 do
        :rand.seed(:exsss, {seed, 11, 13})
        schema = random(3)
        assert Schema.within(schema, schema) == :ok, "seed #{seed}: #{inspect(schema)}"
        assert Schema.within(schema, :any) == :ok

        case tighter(schema) do
          ^schema ->
            :ok

          tight ->
            assert match?({:error, _, _, _}, Schema.within(schema, tight)),
                   "seed #{seed}: #{inspect({schema, tight})}"
        end
      end
    end

    defp random(0) do
      low = :rand.uniform(20)

      Enum.random([
        {:integer, {{:min, low}, {:max, low + 5}}},
        {:float, {{:min, low * 1.0}, {:max, low + 0.5}}},
        {:number, {{:min, low}, {:max, low + 5}}},
        {:binary, {low, low + 3}},
        {:atom, ["a", "b"]}
      ])
    end

    defp random(depth) do
      case :rand.uniform(4) do
        1 -> {:list, random(depth - 1), {1, 3}}
        2 -> {:tuple, [random(depth - 1), random(0)]}
        3 -> {:map, [{:a, random(depth - 1), false}, {:b, random(0), true}], false}
        4 -> random(0)
      end
    end

    # The same but for one thing deep inside.
    defp tighter({:list, of, size}), do: {:list, tighter(of), size}

    defp tighter({:tuple, [first, second]}),
      do: Enum.random([{:tuple, [tighter(first), second]}, {:tuple, [first, tighter(second)]}])

    defp tighter({:map, [{a, of, false}, b], open}),
      do:
        Enum.random([{:map, [{a, tighter(of), false}, b], open}, {:map, [{a, of, false}], open}])

    defp tighter({:binary, {low, high}}), do: {:binary, {low, high - 1}}
    defp tighter({:atom, _}), do: {:atom, ["a"]}

    defp tighter({kind, {{:min, low}, high}}),
      do:
        {kind,
         Enum.random([{{:min, low + 1}, high}, {{:min, low}, {:max, elem(high, 1) - 0.25}}])}

    # TOML's inline tables as Elixir's maps: enough of it for what we write.
    defp from_toml(text) do
      text
      |> String.replace(~r/(\w+) = /, "\"\\1\" => ")
      |> String.replace(~r/"([\w?]+)" = /, "\"\\1\" => ")
      |> String.replace("{", "%{")
      |> String.replace("-inf", "-1.0e308")
      |> Code.eval_string()
      |> elem(0)
    end
  end

  describe "before a job" do
    defmodule Registry do
      @moduledoc false
      use GenServer

      def start_link({test, answer}),
        do: GenServer.start_link(__MODULE__, {test, answer}, name: Ringbridge.WorkerRegistry)

      @impl GenServer
      def init(state), do: {:ok, state}

      @impl GenServer
      def handle_call({:answer, answer}, _from, {test, _}), do: {:reply, :ok, {test, answer}}

      def handle_call(request, _from, {test, answer} = state) do
        send(test, {:registry, request})
        if answer == :silent, do: {:noreply, state}, else: {:reply, answer, state}
      end
    end

    setup context do
      name = FakeBridge.start_instance(Module.concat(__MODULE__, "I#{context.line}"), :up)
      {:ok, name: name}
    end

    defp registry(answer), do: start_supervised!({Registry, {self(), answer}})

    @answer {:ok, %{text: "catcat", times: 2}}
    @cat %Repeat{text: "cat", times: 2}

    test "the bridge is asked once for a module and a connection", %{name: name} do
      FakeBridge.start_dispatcher(@answer)
      registry({:ok, role()})
      for _ <- 1..3, do: assert({:ok, %Repeat.Result{}} = Ringbridge.call(name, @cat))
      assert_received {:registry, {:lookup, :echo}}
      refute_received {:registry, _}
      # Another connection, another bridge perhaps.
      :ets.update_element(name, {:bridge, node()}, {5, 2})
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert_received {:registry, {:lookup, :echo}}
      # Plain calls ask nobody.
      assert {:ok, %{}} = Ringbridge.call(name, :echo, "x")
      refute_received {:registry, _}
    end

    test "a mismatch is refused, nothing is sent, and is mended by a reload of the bridge", %{
      name: name
    } do
      FakeBridge.start_dispatcher(@answer)
      registry = registry({:ok, role(operations: [%{@operation | opcode: 3}])})

      assert {:error, %Error{reason: {:schema_mismatch, why}, role: :echo} = error} =
               Ringbridge.call(name, @cat)

      assert why =~ "no operation of opcode 0"
      assert Error.not_run?(error)

      assert {:error, %Error{reason: {:schema_mismatch, _}}} =
               name |> Ringbridge.async(@cat) |> Ringbridge.await()

      assert {:error, %Error{reason: {:schema_mismatch, _}}} = Ringbridge.call_many(name, [@cat])

      assert {:error, %Error{reason: {:schema_mismatch, _}}} =
               Ringbridge.pipeline(name, [:sleep, Repeat], "1")

      assert {:error, %Error{reason: {:schema_mismatch, _}}} = SchemaGuard.check(name, [Repeat])

      assert_raise Error, ~r/no operation of opcode 0/, fn ->
        SchemaGuard.check!(name, [Repeat])
      end

      refute_received {:asked, {:submit, :echo, _, _}}
      :ok = GenServer.call(registry, {:answer, {:ok, role()}})
      assert SchemaGuard.check!(name, [Repeat]) == :ok
      assert {:ok, _} = Ringbridge.call(name, @cat)
    end

    test "a verdict is asked for anew beside a job when it is old, and before it when it is a minute old",
         %{name: name} do
      FakeBridge.start_dispatcher(@answer)
      registry = registry({:ok, role()})
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert_received {:registry, _}
      key = {:schema, node(), Repeat}
      now_ms = System.monotonic_time(:millisecond)
      [{^key, _epoch, :ok, until_ms}] = :ets.lookup(name, key)
      assert until_ms <= now_ms + 5_000
      # The bridge has read its settings again, and the job no longer fits; nobody has told us.
      :ok =
        GenServer.call(registry, {:answer, {:ok, role(operations: [%{@operation | opcode: 3}])}})

      assert {:ok, _} = Ringbridge.call(name, @cat)
      refute_received {:registry, _}
      :ets.update_element(name, key, {4, now_ms})
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert_receive {:registry, {:lookup, :echo}}, 60_000
      refused(name, System.monotonic_time(:millisecond) + 60_000)
      # A minute old, of the same connection.
      [{^key, epoch, {:schema_mismatch, _}, _until_ms}] = :ets.lookup(name, key)
      :ets.insert(name, {key, epoch, :ok, System.monotonic_time(:millisecond) - 60_000})
      assert {:error, %Error{reason: {:schema_mismatch, _}}} = Ringbridge.call(name, @cat)
    end

    defp refused(name, until_ms) do
      case Ringbridge.call(name, @cat) do
        {:error, %Error{reason: {:schema_mismatch, _}}} -> :ok
        {:ok, _} -> if System.monotonic_time(:millisecond) < until_ms, do: refused(name, until_ms)
      end
    end

    test "what the bridge refuses by itself is looked at anew", %{name: name} do
      FakeBridge.start_dispatcher(
        {:error, {:bad_request, "submit: payload.times must be an integer of 3 to 9"}}
      )

      registry({:ok, role()})

      for _ <- 1..2,
          do: assert({:error, %Error{reason: {:bad_request, _}}} = Ringbridge.call(name, @cat))

      assert_received {:registry, _}
      assert_received {:registry, _}
    end

    test "a bridge that has no registry, or knows no such thing, has the last word itself", %{
      name: name
    } do
      FakeBridge.start_dispatcher(@answer)
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert {:error, %Error{reason: {:down, :noproc}}} = SchemaGuard.check(name, [Repeat])
      registry({:error, {:bad_request, "there is no role echo"}})
      assert {:error, %Error{reason: {:bad_request, _}}} = SchemaGuard.check(name, [Repeat])
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert {:error, %Error{reason: :not_started}} = SchemaGuard.check(Nowhere, [Repeat])

      assert_raise ArgumentError, ~r/String is no job/, fn ->
        SchemaGuard.check(name, [String])
      end
    end

    test "a registry that stands still holds up one job, not each", %{name: name} do
      FakeBridge.start_dispatcher(@answer)
      registry(:silent)
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert {:ok, _} = Ringbridge.call(name, @cat)
      assert_received {:registry, _}
      refute_received {:registry, _}
    end
  end
end
