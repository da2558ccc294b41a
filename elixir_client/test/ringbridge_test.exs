defmodule RingbridgeTest do
  @moduledoc "The facade without a bridge: instances whose roles are functions, and bridges that are not there."
  use ExUnit.Case

  alias Ringbridge.{Error, Request}

  doctest Ringbridge
  doctest Ringbridge.Backoff
  doctest Ringbridge.Deadline
  doctest Ringbridge.Error
  doctest Ringbridge.LocalNode
  doctest Ringbridge.Options
  doctest Ringbridge.Route
  doctest Ringbridge.Telemetry
  doctest Ringbridge.Trace

  @roles %{
    :echo => &__MODULE__.echo/1,
    :refuse => &__MODULE__.refuse/1,
    :raise => &__MODULE__.raise_it/1,
    :upto => &__MODULE__.upto/1,
    :options => &__MODULE__.options/2
  }

  def echo(payload), do: {:ok, payload}
  def refuse(reason), do: {:error, reason}
  def raise_it(text), do: raise(ArgumentError, text)
  def upto(n), do: {:ok, 1..n}
  def options(_payload, options), do: {:ok, Enum.sort(options)}

  setup context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    start_supervised!({Ringbridge, name: name, mode: :inline, roles: @roles})
    {:ok, name: name}
  end

  describe "call/4" do
    test "gives what the role answers, and every reason as an error", %{name: name} do
      assert Ringbridge.call(name, :echo, {1, "x"}) == {:ok, {1, "x"}}

      for reason <- [:draining, {:overloaded, %{retry_after_ms: 5}}, {:job_failed, 3, "no"}] do
        assert {:error, %Error{reason: ^reason, role: :refuse}} =
                 Ringbridge.call(name, :refuse, reason)
      end
    end

    test "turns what a function raises into the error of a handler that raised", %{name: name} do
      assert {:error, %Error{reason: {:job_failed, 65_282, "ArgumentError: oh"}}} =
               Ringbridge.call(name, :raise, "oh")
    end

    test "passes options on, a map or a keyword list, without its own", %{name: name} do
      given = [key: "k", idempotent: true, timeout: :role]
      assert Ringbridge.call(name, :options, "", given) == {:ok, [key: "k"]}
      assert Ringbridge.call(name, :options, "", Map.new(given)) == {:ok, [key: "k"]}
      assert {:ok, [timeout: ms]} = Ringbridge.call(name, :options, "", timeout: 900)
      assert ms in 0..900
      assert {:ok, [timeout: ms]} = Ringbridge.call(name, :options, "")
      assert ms in 0..5_000
    end

    test "says what is wrong with options that cannot be meant", %{name: name} do
      assert {:error, %Error{reason: {:bad_request, why}}} =
               Ringbridge.call(name, :echo, "", timeout: :soon)

      assert why =~ "timeout" and why =~ ":soon"
      assert {:error, %Error{reason: {:bad_request, _}}} = Ringbridge.call(name, :echo, "", 7)
    end

    test "of an instance that is not there is an error", %{name: name} do
      stop_supervised!({Ringbridge, name})
      assert {:error, %Error{reason: :not_started, role: :echo}} = Ringbridge.call(name, :echo, 1)
      assert {:error, %Error{reason: :not_started}} = Ringbridge.cast(name, :echo, 1)
      assert {:error, %Error{reason: :not_started}} = Ringbridge.call_many(name, :echo, [1])

      assert {:error, %Error{reason: :not_started}} =
               Ringbridge.await(Ringbridge.async(name, :echo, 1))

      assert_raise Error, ~r/not|no such/, fn ->
        Enum.to_list(Ringbridge.stream(name, :upto, 1))
      end
    end

    test "call!/4 raises the same error", %{name: name} do
      assert Ringbridge.call!(name, :echo, 1) == 1
      error = assert_raise Error, fn -> Ringbridge.call!(name, :refuse, :no_worker) end
      assert error.reason == :no_worker
    end
  end

  test "the options of a job are those of docs/calling.md, and one of the client" do
    page = File.read!(Path.expand("../../docs/calling.md", __DIR__))
    [_, table] = String.split(page, "| option | value | meaning |", parts: 2)
    [table, _] = String.split(table, "\n\n", parts: 2)

    bridge =
      for [name] <- Regex.scan(~r/^\| `(\w+)` \|/m, table, capture: :all_but_first), do: name

    {:ok, types} = Code.Typespec.fetch_types(Ringbridge)

    {:type, {:option, {:type, _, :union, options}, []}} =
      Enum.find(types, &match?({:type, {:option, _, _}}, &1))

    ours = for {:type, _, :tuple, [{:atom, _, name}, _type]} <- options, do: Atom.to_string(name)
    assert length(bridge) >= 16
    assert Enum.sort(ours) == Enum.sort(["idempotent" | bridge])
  end

  describe "a request" do
    test "is awaited, yielded, checked, shut down; and leaves nothing", %{name: name} do
      assert Ringbridge.await(Ringbridge.async(name, :echo, 1)) == {:ok, 1}
      assert Ringbridge.yield(Ringbridge.async(name, :echo, 2)) == {:ok, 2}
      assert Ringbridge.shutdown(Ringbridge.async(name, :echo, 3)) == {:ok, 3}

      request = Ringbridge.async(name, :echo, 4)
      assert Ringbridge.check(request, :something) == :other
      assert_receive message
      assert Ringbridge.check(request, message) == {:ok, 4}
      refute_receive _, 10
    end

    test "is its owner's", %{name: name} do
      request = Ringbridge.async(name, :echo, 1)
      task = Task.async(fn -> catch_error(Ringbridge.await(request)) end)
      assert %ArgumentError{message: message} = Task.await(task, 60_000)
      assert message =~ inspect(self())
      assert Ringbridge.await(request) == {:ok, 1}
    end
  end

  describe "batches, stages and parts" do
    test "are answered as a bridge answers them", %{name: name} do
      assert Ringbridge.call_many(name, :refuse, [:draining]) ==
               {:ok, [{:error, %Error{reason: :draining, role: :refuse}}]}

      assert Ringbridge.pipeline(name, [:echo, {:options, 4}], "", key: 1, timeout: :role) ==
               {:ok, [key: 1, opcode: 4]}

      assert {:error, %Error{reason: {:stage, 2, :refuse, "x"}}} =
               Ringbridge.pipeline(name, [:echo, :refuse], "x")

      assert Ringbridge.pipeline(name, [{:map, :echo}, [:echo, {:options, 2}], :echo], [1, "b"],
               timeout: :role
             ) ==
               {:ok, [[1, "b"], [opcode: 2]]}

      assert {:error, %Error{reason: {:stage, 1, {:map, :refuse, 0}, :draining}} = error} =
               Ringbridge.pipeline(name, [{:map, :refuse}, :echo], [:draining, "x"])

      # The others may have run, in a bridge.
      refute Error.not_run?(error)
      refute Error.elsewhere?(error)

      assert {:error, %Error{reason: {:stage, 2, {:fan_out, :refuse, 1}, "x"}}} =
               Ringbridge.pipeline(name, [:echo, [:echo, :refuse]], "x")

      assert {:error, %Error{reason: {:stage, 2, :echo, {:bad_request, _}}}} =
               Ringbridge.pipeline(name, [:echo, {:map, {:echo, 3}}], "no list")

      assert Enum.to_list(Ringbridge.stream(name, :upto, 4)) == [1, 2, 3, 4]
      assert Enum.zip(Ringbridge.stream(name, :upto, 9), [:a, :b]) == [{1, :a}, {2, :b}]

      assert_raise Error, ~r/draining/, fn ->
        Enum.to_list(Ringbridge.stream(name, :refuse, :draining))
      end

      refute_receive _, 10
    end
  end

  describe "an instance of functions answers as a bridge would" do
    test "with detail", %{name: name} do
      assert {:ok, 1, detail} = Ringbridge.call(name, :echo, 1, detail: true)
      assert %{job: _, worker: _, queue_us: 0, run_us: us} = detail
      assert is_integer(us)
      assert {1, %{}} = Ringbridge.call!(name, :echo, 1, detail: true)
      assert {:ok, [{:ok, 1, %{}}]} = Ringbridge.call_many(name, :echo, [1], detail: true)
      assert {:ok, 1, %{}} = Ringbridge.pipeline(name, [:echo, :echo], 1, detail: true)
      assert {:error, %Error{}} = Ringbridge.call(name, :refuse, :draining, detail: true)
      assert {:ok, 1} = Ringbridge.call(name, :echo, 1, detail: false)
    end

    test "where a part raises, and not where its consumer does", %{name: name} do
      raising = Stream.map([1, 2], &if(&1 == 2, do: raise("oh"), else: &1))
      stream = Ringbridge.stream(name, :echo, raising)
      assert Enum.take(stream, 1) == [1]
      error = assert_raise Error, fn -> Enum.to_list(stream) end
      assert error.reason == {:job_failed, 65_282, "RuntimeError: oh"}

      error = assert_raise Error, fn -> Enum.to_list(Ringbridge.stream(name, :echo, :no_list)) end
      assert {:job_failed, 65_282, "Protocol.UndefinedError" <> _} = error.reason

      fine = Ringbridge.stream(name, :upto, 3)
      assert_raise ArithmeticError, fn -> Enum.map(fine, &div(&1, &1 - 1)) end
    end

    test "to stages that are none, and has no producer", %{name: name} do
      for reason <- [
            Ringbridge.pipeline(name, [:echo | :echo], 1),
            Ringbridge.producer(name, :upto, 3)
          ] do
        assert {:error, %Error{reason: {:bad_request, _why}}} = reason
      end
    end
  end

  describe "a child spec" do
    test "is of the instance's name, and shows no cookie" do
      spec = Ringbridge.child_spec(name: A, nodes: [:"b@127.0.0.1"], cookie: "geheim")
      assert %{id: {Ringbridge, A}, type: :supervisor} = spec
      refute inspect(spec) =~ "geheim"
      assert Ringbridge.child_spec(name: B).id != spec.id
    end

    test "of a name that is taken is an error, and the first goes on", %{name: name} do
      options = [name: name, mode: :inline, roles: @roles]
      assert {:error, {:already_started, _pid}} = Ringbridge.start_link(options)
      assert Ringbridge.call(name, :echo, 1) == {:ok, 1}
    end

    test "wrong options name the option, the value and the way out" do
      for {options, words} <- [
            {[], ~w(:name required)},
            {[name: A], ~w(:nodes required)},
            {[name: A, nodes: [:b, :b]], ~w(:nodes bridge@127.0.0.1 got:)},
            {[name: A, nodes: [:b@h], timeout: -1], ~w(:timeout :infinity -1)},
            {[name: A, nodes: [:b@h], cookie: 7], ~w(:cookie)},
            {[name: A, nodes: [:b@h], cookie: "a", cookie_file: "b"], ~w(:cookie :cookie_file)},
            {[name: A, nodes: [:b@h], backoff_max_ms: 1], ~w(:backoff_max_ms 100 1)},
            {[name: A, nodes: [:b@h], roles: %{a: &echo/1}], ~w(:roles :inline)},
            {[name: A, mode: :inline, nodes: [:b@h]], ~w(:nodes :inline b@h)},
            {[name: A, mode: :inline, roles: %{a: 1}], ~w(:roles function)},
            {[nam: A], ~w(:nam :name)},
            {[colour: A], ~w(:colour :nodes)}
          ] do
        error = assert_raise ArgumentError, fn -> Ringbridge.start_link(options) end
        for word <- words, do: assert(error.message =~ word, "#{word} in #{error.message}")
        refute error.message =~ "geheim"
      end
    end
  end

  test "a request shows what it is", %{name: name} do
    assert %Request{} = Ringbridge.async(name, :echo, 1)
    assert_receive {[:alias | _ref], {:ok, 1}}
  end
end
