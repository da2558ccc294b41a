defmodule Ringbridge.BridgeCallsTest do
  @moduledoc "The client's calls over the distribution's lane: what it asks a dispatcher, and what it makes of the answers."
  use ExUnit.Case

  alias Ringbridge.{Error, FakeBridge}

  Code.require_file("support/fake_bridge.exs", __DIR__)

  # What a receive cannot wait for any more.
  @too_long 4_294_967_296

  setup context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    FakeBridge.start_dispatcher(Map.get(context, :answer, {:ok, "answer"}))
    FakeBridge.start_instance(name, Map.get(context, :status, :up))
    {:ok, name: name}
  end

  defp options_asked do
    assert_receive {:asked, {_verb, _role, _payload, options}}, 60_000
    options
  end

  defp assert_bad_request({:error, %Error{reason: {:bad_request, why}}}, word),
    do: assert(why =~ word)

  describe "a timeout" do
    test "may be the longest that Erlang can wait", %{name: name} do
      for options <- [[timeout: @too_long - 1], [timeout: @too_long - 296]] do
        assert Ringbridge.call(name, :echo, "x", options) == {:ok, "answer"}
        request = Ringbridge.async(name, :echo, "x", options)
        assert Ringbridge.await(request, @too_long - 1) == {:ok, "answer"}
        request = Ringbridge.async(name, :echo, "x", options)
        assert Ringbridge.yield(request, @too_long - 1) == {:ok, "answer"}
      end
    end

    test "that cannot be waited for is refused before the job is sent", %{name: name} do
      for timeout <- [@too_long, -1, 1.5, nil, "1"] do
        assert_bad_request(Ringbridge.call(name, :echo, "x", timeout: timeout), "timeout")
        assert_bad_request(Ringbridge.cast(name, :echo, "x", timeout: timeout), "timeout")
      end

      refute_receive _, 10
    end

    @tag answer: nil
    test "of await or yield that cannot be meant leaves the job as it is", %{name: name} do
      request = Ringbridge.async(name, :echo, "x", timeout: :infinity)
      assert_receive {:asked, _}, 60_000

      for timeout <- [@too_long, -1, 1.5, nil] do
        assert_bad_request(Ringbridge.yield(request, timeout), "timeout")
        assert_bad_request(Ringbridge.await(request, timeout), "timeout")
      end

      assert Ringbridge.yield(request, 0) == nil
      assert {:error, %Error{reason: :timeout, role: :echo}} = Ringbridge.await(request, 0)
      refute_received _
    end

    test "of an instance, and its pauses, are no longer than Erlang can wait" do
      for key <- [:timeout, :connect_timeout, :backoff_min_ms, :backoff_max_ms] do
        options = [{key, @too_long}, name: A, nodes: [:b@h]]
        error = assert_raise ArgumentError, fn -> Ringbridge.Options.validate!(options) end
        assert error.message =~ inspect(key) and error.message =~ "4294967295"
      end
    end

    @tag status: :down
    test "is not waited out and a second more when no bridge is there", %{name: name} do
      assert {:error, %Error{reason: :not_connected}} =
               Ringbridge.call(name, :echo, "x", timeout: 0)

      # One look: we stand for the connection.
      assert_received {:wait, _ref, [], _until_ms}
      refute_received {:wait, _ref, [], _until_ms}
    end
  end

  test "a cast has the role's time, unless the call gives one", %{name: name} do
    assert Ringbridge.cast(name, :echo, "x") == :ok
    assert options_asked() == [orphan: :finish]
    assert Ringbridge.cast(name, :echo, "x", timeout: 60_000) == :ok
    assert options_asked()[:timeout] in 1..60_000
    assert Ringbridge.call(name, :echo, "x") == {:ok, "answer"}
    assert options_asked()[:timeout] in 0..5_000
  end

  describe "wrong options are an error" do
    test "of any call", %{name: name} do
      for said <- [nil, 1, "yes"] do
        assert_bad_request(Ringbridge.call(name, :echo, "x", idempotent: said), "idempotent")
      end

      for options <- [nil, 7, [:a], [{:key, 1} | :b]] do
        assert_bad_request(Ringbridge.call(name, :echo, "x", options), "keyword")
        assert_bad_request(Ringbridge.pipeline(name, [:echo], "x", options), "keyword")
        assert_bad_request(Ringbridge.pipeline(name, [:echo, :echo], "x", options), "keyword")
        assert_bad_request(Ringbridge.call_many(name, :echo, ["x"], options), "keyword")
        request = Ringbridge.async(name, :echo, "x", options)
        assert_bad_request(Ringbridge.await(request), "keyword")

        error =
          assert_raise Error, fn -> Enum.to_list(Ringbridge.stream(name, :a, 1, options)) end

        assert {:bad_request, _} = error.reason
      end

      refute_receive _, 10
    end

    test "of stages and batches", %{name: name} do
      for stages <- [[], nil, :echo] do
        assert_bad_request(Ringbridge.pipeline(name, stages, "x"), "stages")
      end

      for payloads <- ["x", nil, ["x" | "y"]] do
        assert_bad_request(Ringbridge.call_many(name, :echo, payloads), "payloads")
      end

      refute_receive _, 10
    end

    test "of a stream, in its consumer", %{name: name} do
      for demand <- [0, -1, "x", nil] do
        stream = Ringbridge.stream(name, :primes, "9", max_demand: demand)
        error = assert_raise Error, fn -> Enum.to_list(stream) end
        assert {:bad_request, why} = error.reason
        assert why =~ "max_demand"
      end
    end

    test "of a cancel" do
      assert_bad_request(Ringbridge.cancel(5, []), "node")
      assert_bad_request(Ringbridge.cancel(5, node: "b@h"), "node")
    end
  end

  describe "whether a job has run" do
    @tag answer: {:error, :no_worker}
    test "is uncertain where the bridge could begin it again", %{name: name} do
      for {options, certain?} <- [{[], true}, {[retry: 0], true}, {[retry: 1], false}] do
        assert {:error, error} = Ringbridge.call(name, :echo, "x", options)
        assert Error.not_run?(error) == certain?
      end

      # The run may be another caller's, who has said `retry`.
      assert {:error, error} = Ringbridge.call(name, :echo, "x", dedupe: "a")
      refute Error.not_run?(error)
    end
  end

  describe "a producer" do
    test "has the options of a subscription as they are given", %{name: name} do
      assert {:ok, {{Ringbridge.Streams, _}, options}} = Ringbridge.producer(name, :primes, "9")
      assert options[:cancel] == :transient

      assert {:ok, {_, options}} =
               Ringbridge.producer(name, :primes, "9", [], cancel: :permanent, max_demand: 5)

      assert Enum.sort(options) == [
               cancel: :permanent,
               job: {:primes, "9", []},
               max_demand: 5
             ]

      assert_bad_request(Ringbridge.producer(name, :primes, "9", [], nil), "subscription")
    end
  end

  describe "a caller that waits for a bridge" do
    @tag status: :down
    test "sees one whose connection has forgotten it", %{name: name} do
      job = Task.async(fn -> Ringbridge.call(name, :echo, "x", timeout: :infinity) end)
      assert_receive {:wait, _ref, [], _until_ms}, 60_000
      # A connection that was begun anew has no list of who waits.
      FakeBridge.put(name, :up)
      assert Task.await(job, 30_000) == {:ok, "answer"}
    end

    @tag status: :down
    test "waits on when the one that came is gone again", %{name: name} do
      job = Task.async(fn -> Ringbridge.call(name, :echo, "x", timeout: :infinity) end)
      assert_receive {:wait, ref, [], _until_ms}, 60_000
      send(ref, {ref, :up})
      assert_receive {:wait, ref, [], _until_ms}, 60_000
      FakeBridge.put(name, :up)
      send(ref, {ref, :up})
      assert Task.await(job, 30_000) == {:ok, "answer"}
    end

    @tag status: :down
    test "also while no connection is there yet", %{name: name} do
      :ets.delete(name, {:bridge, node()})
      job = Task.async(fn -> Ringbridge.call(name, :echo, "x", timeout: :infinity) end)
      # It looks, and nobody is there to be told.
      assert Task.yield(job, 50) == nil
      FakeBridge.put(name, :up)
      assert Task.await(job, 30_000) == {:ok, "answer"}
    end
  end
end
