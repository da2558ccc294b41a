defmodule Ringbridge.LargeTest do
  @moduledoc """
  A payload as large as its role allows, there and back: RINGBRIDGE_LARGE_BYTES of it (64 MiB; `make large` has 1 GiB,
  which needs six times as much memory on the machine).
  """
  use ExUnit.Case

  import Ringbridge.BridgeCase, only: [submit: 3, submit: 5, stats: 1, await_idle: 1]
  alias Ringbridge.Lab

  @bytes String.to_integer(System.get_env("RINGBRIDGE_LARGE_BYTES") || "67108864")
  @chunk 1_048_576
  @deadline_ms 600_000
  @moduletag timeout: 2 * @deadline_ms

  # Room for two of them, as integration/bench/large.py has it. A power of two, as the link wants it.
  @config """
  [limits]
  outgoing_bytes_max = #{max(2 * @bytes, 134_217_728)}

  [link]
  result_bytes = #{2 * @bytes}

  [roles.echo]
  command = ["#{Lab.root()}/build/bin/rb-echo"]
  payload_bytes_max = #{@bytes}
  pool_bytes = #{2 * @bytes}
  """

  test "comes back as it went, while small calls are answered; one byte more is refused" do
    bridge = Lab.start_bridge(config: @config)
    payload = payload(@bytes)
    large = Task.async(fn -> submit(bridge.node, :echo, payload, %{}, @deadline_ms) end)
    small = beside(bridge.node, large, 0)

    # Not by assert, which would print both.
    same = Task.await(large, @deadline_ms) == {:ok, payload}
    assert same
    assert small > 0

    assert {:error, {:too_large, @bytes}} = submit(bridge.node, :echo, payload <> "x")
    assert {:ok, "x"} = submit(bridge.node, :echo, "x")
    await_idle(bridge.node)
    assert %{answered: %{ok: answered}} = stats(bridge.node)
    assert answered == small + 2
  end

  # Chunks that differ: a part that was lost, doubled or exchanged shows.
  defp payload(bytes) do
    random = :rand.bytes(@chunk)

    chunks =
      for number <- 0..(div(bytes, @chunk) - 1),
          do: [<<number::64>>, binary_part(random, 8, @chunk - 8)]

    IO.iodata_to_binary(chunks)
  end

  defp beside(node, large, answered) do
    assert {:ok, "small"} = submit(node, :echo, "small", %{}, @deadline_ms)
    if Process.alive?(large.pid), do: beside(node, large, answered + 1), else: answered + 1
  end
end
