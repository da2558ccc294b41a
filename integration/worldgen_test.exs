defmodule Ringbridge.WorldgenTest do
  @moduledoc "Terrain by a Zig worker, streamed (docs/worldgen.md); its values are held in tests/worldgen."
  use Ringbridge.BridgeCase,
    roles: """
    [roles.worldgen]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-worldgen"]
    """

  @width 300
  @height 200

  defp request(rows \\ 0) do
    <<1::little-16, 5::little-16, @width::little-32, @height::little-32, rows::little-32>> <>
      <<3::little-64, -7.3::little-float, 4.1::little-float, 0.01::little-float>> <>
      <<2.0::little-float, 0.5::little-float>>
  end

  # The events of a stream to its end, asked for a few at a time, as a GenStage consumer does.
  defp stream(node, job) do
    streams = {Ringbridge.Streams, node}
    ref = Process.monitor(streams)
    send(streams, {:"$gen_producer", {self(), ref}, {:subscribe, nil, [job: job]}})
    events = take(streams, ref, [])
    Process.demonitor(ref, [:flush])
    events
  end

  defp take(streams, ref, acc) do
    send(streams, {:"$gen_producer", {self(), ref}, {:ask, 3}})
    take_portion(streams, ref, acc, 3)
  end

  defp take_portion(streams, ref, acc, 0), do: take(streams, ref, acc)

  defp take_portion(streams, ref, acc, left) do
    receive do
      {:"$gen_consumer", {_, ^ref}, {:cancel, :normal}} ->
        acc

      {:"$gen_consumer", {_, ^ref}, [_ | _] = events} ->
        take_portion(streams, ref, acc ++ events, left - length(events))
    after
      10_000 -> flunk("the stream stands still after #{length(acc)} events")
    end
  end

  @tag :smoke
  test "the parts of a tile are its rows, in order and whole", %{node: node} do
    assert {:ok, whole} = submit(node, :worldgen, request())
    assert byte_size(whole) == 8 * @width * @height

    parts = stream(node, {:worldgen, request(30)})
    heads = for <<first::little-32, rows::little-32, _::binary>> <- parts, do: {first, rows}
    assert heads == [{0, 30}, {30, 30}, {60, 30}, {90, 30}, {120, 30}, {150, 30}, {180, 20}]
    assert IO.iodata_to_binary(for <<_::64, rows::binary>> <- parts, do: rows) == whole
  end

  test "a picture that was streamed is the picture", %{node: node} do
    assert {:ok, <<0x89, "PNG\r\n", 0x1A, "\n", _::binary>> = png} =
             submit(node, :worldgen, request(), %{opcode: 1})

    assert IO.iodata_to_binary(stream(node, {:worldgen, request(), %{opcode: 1}})) == png
    assert binary_part(png, byte_size(png), -8) == <<"IEND", 0xAE426082::32>>
  end

  test "what breaks a rule is refused in words", %{node: node} do
    assert {:error, {:job_failed, 10, "a request has 64 bytes"}} = submit(node, :worldgen, "wide")
    assert {:error, {:job_failed, 11, _}} = submit(node, :worldgen, request(), %{opcode: 7})
  end
end
