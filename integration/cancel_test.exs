defmodule Ringbridge.CancelTest do
  @moduledoc "The caller's life is the job's life (DESIGN, section 3): plain calls get it, no API is needed."
  use Ringbridge.BridgeCase

  # A sleep of ten seconds that is left over would be seen by every test after it.
  @long "10000"

  setup %{node: node} do
    on_exit(fn -> await_idle(node) end)
  end

  defp assert_free_again(node) do
    {ms, answer} = timed(fn -> submit(node, :sleep, "0") end)
    assert {:ok, _} = answer
    assert ms < 2_000, "the worker was busy for #{ms} ms more"
    assert stats(node).in_flight == 0
  end

  test "a call that times out frees its worker, and no late answer comes", %{node: node} do
    before = stats(node)
    assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 200))
    assert_free_again(node)
    assert Map.get(stats(node).answered, :ok, 0) - Map.get(before.answered, :ok, 0) == 1
    refute_receive _, 100
  end

  test "a caller that is killed frees its worker", %{node: node} do
    {caller, ref} = spawn_monitor(fn -> submit(node, :sleep, @long, %{}, :infinity) end)
    await_busy(node, :sleep)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, :process, ^caller, :killed}
    assert_free_again(node)
  end

  test "a queued job of a caller that is gone never runs", %{node: node} do
    first = Task.async(fn -> submit(node, :sleep, "400") end)
    await_busy(node, :sleep)
    assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 50))
    assert {:ok, _} = Task.await(first)
    assert_free_again(node)
  end

  test "a request given up by send_request's deadline frees its worker", %{node: node} do
    request = {:submit, :sleep, @long}
    id = :gen_server.send_request({Ringbridge.JobDispatcher, node}, request)
    await_busy(node, :sleep)
    assert :timeout = :gen_server.receive_response(id, 50)
    assert_free_again(node)
  end

  test "a multi_call that times out frees its worker", %{node: node} do
    request = {:submit, :sleep, @long}
    nodes = [node]
    assert {[], ^nodes} = GenServer.multi_call(nodes, Ringbridge.JobDispatcher, request, 150)
    assert_free_again(node)
  end

  test "a forwarded call is cancelled when the one who asked dies", %{node: node} do
    {caller, ref} =
      spawn_monitor(fn ->
        message = {:"$gen_call", {self(), make_ref()}, {:submit, :sleep, @long}}
        send({Ringbridge.JobDispatcher, node}, message)
        Process.sleep(:infinity)
      end)

    await_busy(node, :sleep)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, _, _, :killed}
    assert_free_again(node)
  end

  test "jobs of a node that goes down are cancelled", %{node: node} do
    request = {:submit, :sleep, @long}
    target = {Ringbridge.JobDispatcher, node}
    other = Lab.start_node("GenServer.call(#{inspect(target)}, #{inspect(request)}, :infinity)")
    await_busy(node, :sleep)
    Program.signal(other, "KILL")
    assert_free_again(node)
  end

  test "a thousand callers that all give up leave nothing", %{node: node} do
    1..1_000
    |> Task.async_stream(
      fn _ -> assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 100)) end,
      max_concurrency: 1_000,
      timeout: 30_000
    )
    |> Stream.run()

    await_idle(node, 2_000)
    assert_free_again(node)
  end
end
