defmodule Ringbridge.StreamPartsTest do
  @moduledoc "A stream's deadline, and when its job begins: against a producer that is a process of the test."
  use ExUnit.Case

  alias Ringbridge.{Error, FakeBridge}
  alias Ringbridge.Lane.Parts

  Code.require_file("support/fake_bridge.exs", __DIR__)

  setup context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    FakeBridge.start_instance(name, :up)
    # We are the bridge that stands still.
    Process.register(self(), Ringbridge.Streams)
    {:ok, name: name}
  end

  @tag timeout: 30_000
  test "a bridge that stands still ends it at its timeout, and the job is cancelled", %{
    name: name
  } do
    stream = Ringbridge.stream(name, :primes, "9", timeout: 10)
    consumer = Task.async(fn -> catch_error(Enum.to_list(stream)) end)
    assert_receive {:"$gen_producer", {pump, ref}, {:subscribe, nil, options}}, 20_000
    assert {:primes, "9", [timeout: _]} = options[:job]
    watch = Process.monitor(pump)
    assert %Error{reason: :timeout, role: :primes} = Task.await(consumer, 20_000)
    assert_receive {:"$gen_producer", {^pump, ^ref}, {:cancel, :normal}}, 20_000
    assert_receive {:DOWN, ^watch, _, _, _}, 20_000
  end

  test "what has come by then is given to a consumer that was slower", %{name: _name} do
    [wanted, later] = [make_ref(), make_ref()]
    state = %Parts{producer: self(), owner: make_ref(), ref: make_ref(), buffer: [[1, 2]]}
    assert {:noreply, state} = Parts.handle_info(:late, state)
    # Sent to a reference that is no alias: nobody gets it, so look at the state.
    assert {:noreply, %{buffer: [], wanted: nil} = state} =
             Parts.handle_info({:next, wanted}, state)

    assert {:stop, :normal, %{ended: {:end, :timeout}}} = Parts.handle_info({:next, later}, state)
    assert_received {:"$gen_producer", _from, {:cancel, :normal}}
    refute_received {:"$gen_producer", _from, {:ask, _}}
  end

  test "nothing begins before a part is asked for", %{name: name} do
    assert Enum.to_list(Stream.zip([[], Ringbridge.stream(name, :primes, "9")])) == []
    refute_receive {:"$gen_producer", _from, _what}, 50
  end
end
