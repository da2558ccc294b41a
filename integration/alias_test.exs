defmodule Ringbridge.AliasTest do
  @moduledoc """
  Large answers to callers that are there no more. A call's answer goes to an alias. Before OTP 28 it goes in one frame:
  25 keeps what comes in fragments for an alias that is gone, for ever (OTP-18885, mended in 25.3.2.8), and 26.0 and 26.1
  may crash of it. From 28 on, and to pids, it goes in fragments.
  """
  use Ringbridge.BridgeCase

  @bytes 4 * 1_048_576
  @moduletag :smoke

  setup %{node: node} do
    {:ok, to: {Ringbridge.JobDispatcher, node}, payload: :rand.bytes(@bytes)}
  end

  # All binaries of this VM, when no process holds on to one that it needs no more.
  defp binaries do
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    :erlang.memory(:binary)
  end

  test "leave nothing behind in the caller's VM", %{node: node, to: to, payload: payload} do
    assert {:ok, ^payload} = submit(node, :echo, payload)
    before = binaries()

    for _ <- 1..20 do
      request = :gen_server.send_request(to, {:submit, :echo, payload})
      # Not a demonitor, which would end the job: the answer is on its way, and its alias is gone.
      assert :erlang.unalias(request)
      # One dispatcher sends both, in order.
      assert {:ok, "behind"} = submit(node, :echo, "behind")
    end

    await_idle(node)

    Lab.wait_until("what was given up is freed", fn ->
      binaries() - before < 4 * @bytes
    end)

    assert {:ok, ^payload} = submit(node, :echo, payload)
    refute_receive _, 20
  end

  test "are given up half-way by callers that die, and nobody else waits", %{
    node: node,
    to: to,
    payload: payload
  } do
    callers =
      for _ <- 1..8, do: spawn(fn -> GenServer.call(to, {:submit, :echo, payload}, :infinity) end)

    for caller <- callers do
      assert {:ok, "x"} = submit(node, :echo, "x")
      Process.exit(caller, :kill)
    end

    await_idle(node)
    assert {:ok, ^payload} = submit(node, :echo, payload)
  end

  test "come whole by each way there is: to an alias, a pid, in a batch", %{
    node: node,
    payload: payload
  } do
    assert {:ok, ^payload} = submit(node, :echo, payload)
    assert {:ok, ref} = call(node, {:submit_async, :echo, payload})
    assert_receive {:ringbridge, ^ref, {:ok, ^payload}}
    assert {:ok, answers} = call(node, {:submit_many, :echo, [payload, "x", payload]})
    assert answers == [{:ok, payload}, {:ok, "x"}, {:ok, payload}]
    term = {:a, [payload, payload]}
    assert {:ok, ^term} = submit(node, :echo, term)
  end
end
