defmodule Ringbridge.TestTest do
  @moduledoc "The fake for users' tests: whose stub answers whom."
  use ExUnit.Case, async: true

  alias Ringbridge.{Error, Test}

  doctest Ringbridge.Test

  @name __MODULE__.Compute

  setup_all do
    start_supervised!({Test, name: @name})
    :ok
  end

  # Two tests of two modules at the same time, played by two processes.
  defp owner(test) do
    task =
      Task.async(fn ->
        receive do
          :go -> test.()
        end
      end)

    # A Task has its starter among its callers, and so the starter's stubs.
    send(task.pid, :go)
    Task.await(task, 60_000)
  end

  test "a stub answers who said it, and tells him" do
    Test.stub(@name, :scale, fn payload, options -> {:ok, {payload, options[:key]}} end)
    assert Ringbridge.call(@name, :scale, 1, key: "k") == {:ok, {1, "k"}}
    assert_received {Test, :scale, 1, options}
    assert options[:key] == "k"
  end

  test "and the tasks and servers that he started, which may say otherwise" do
    Test.stub(@name, :half, &{:ok, div(&1, 2)})
    assert owner(fn -> Ringbridge.call(@name, :half, 4) end) == {:ok, 2}

    assert owner(fn ->
             Test.stub(@name, :half, fn _ -> {:error, :draining} end)
             Ringbridge.call(@name, :half, 4)
           end) == {:error, %Error{reason: :draining, role: :half}}

    agent = stranger()
    assert Agent.get(agent, fn _ -> Ringbridge.call(@name, :half, 8) end) |> elem(0) == :error
    own = Agent.start_link(fn -> nil end) |> elem(1)
    assert Agent.get(own, fn _ -> Ringbridge.call(@name, :half, 8) end) == {:ok, 4}
    Test.allow(@name, self(), agent)
    assert Agent.get(agent, fn _ -> Ringbridge.call(@name, :half, 8) end) == {:ok, 4}
  end

  # An Agent that no test has started.
  defp stranger do
    test = self()
    spawn(fn -> send(test, Agent.start(fn -> nil end)) end)
    assert_receive {:ok, agent}
    agent
  end

  test "a stranger has none, and is told what to do" do
    test = self()
    Test.stub(@name, :half, &{:ok, div(&1, 2)})
    spawn(fn -> send(test, Ringbridge.call(@name, :half, 4)) end)
    assert_receive {:error, %Error{reason: {:bad_request, why}}}
    assert why =~ "allow/3"
  end

  test "the dead are forgotten" do
    {pid, ref} = spawn_monitor(fn -> Test.stub(@name, :once, &{:ok, &1}) end)
    assert_receive {:DOWN, ^ref, :process, ^pid, :normal}
    Test.stub(@name, :half, &{:ok, &1})
    assert :ets.match(@name, {{:stub, pid, :_}, :_}) == []
  end

  test "streams, batches and pipelines ask the same stubs" do
    Test.stub(@name, :upto, &{:ok, 1..&1})
    Test.stub(@name, :half, &{:ok, div(&1, 2)})
    assert @name |> Ringbridge.stream(:upto, 9) |> Enum.take(2) == [1, 2]
    assert Ringbridge.call_many(@name, :half, [2, 4]) == {:ok, [ok: 1, ok: 2]}
    assert Ringbridge.pipeline(@name, [:half, :half], 8) == {:ok, 2}
  end
end
