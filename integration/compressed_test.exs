defmodule Ringbridge.CompressedTest do
  @moduledoc "Payloads and answers as zstd frames, from a BEAM (docs/calling.md, Compressed): OTP's own from 28 on, else frames made before."
  use Ringbridge.BridgeCase

  @moduletag :smoke

  # The bytes 1 to 30 a hundred times over, as OTP 29 compresses them.
  @content :binary.copy(:binary.list_to_bin(Enum.to_list(1..30)), 100)
  @frame Base.decode16!(
           "28B52FFD60B80A350100F00102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E01005E2EF8CA09"
         )

  # What the kit finds on this machine decides.
  setup %{node: node} do
    Lab.wait_until("the role echo is ready", fn ->
      Enum.any?(workers(node, :echo), &(&1.state == :ready))
    end)

    [%{encodings: encodings} | _] = workers(node, :echo)
    {:ok, takes: encodings == [:zstd]}
  end

  defp compressed(node, payload, options) do
    GenServer.call({Ringbridge.JobDispatcher, node}, {:submit, :echo, payload, options}, 30_000)
  end

  test "a frame is answered by its content", %{node: node, takes: takes} do
    if takes do
      assert {:ok, @content} = compressed(node, @frame, encoding: :zstd)
      assert {:ok, {:zstd, frame}} = compressed(node, @frame, encoding: :zstd, accept: :zstd)
      assert byte_size(frame) < 200
      assert {:ok, @content} = compressed(node, frame, encoding: :zstd)
    else
      assert {:error, {:bad_request, why}} = compressed(node, @frame, encoding: :zstd)
      assert why =~ "takes compressed payloads"
    end
  end

  test "half a frame fails its job and nothing else", %{node: node, takes: takes} do
    half = binary_part(@frame, 0, div(byte_size(@frame), 2))

    case compressed(node, half, encoding: :zstd) do
      {:error, {:job_failed, 65_283, why}} when takes -> assert why =~ "no zstd frame"
      {:error, {:bad_request, _}} when not takes -> :ok
    end

    assert {:ok, {:identity, "small"}} = compressed(node, "small", accept: :zstd)
  end

  test "in all ways of asking", %{node: node, takes: takes} do
    assert not takes or
             {:ok, [{:ok, @content}, {:ok, @content}]} ==
               call(node, {:submit_many, :echo, [@frame, @frame], encoding: :zstd}, 30_000)

    assert {:ok, ref} = call(node, {:submit_async, :echo, @content, accept: :zstd})
    assert_receive {:ringbridge, ^ref, {:ok, {encoding, bytes}}}
    assert {encoding, bytes} == {:identity, @content} or (takes and encoding == :zstd)
    assert {:ok, {_, _}, %{job: _}} = compressed(node, @content, accept: :zstd, detail: true)
  end

  if Code.ensure_loaded?(:zstd) do
    test "there and back by OTP's own :zstd", %{node: node, takes: takes} do
      table = Enum.map_join(1..50_000, "\n", &"row #{&1} of a table that repeats itself")
      frame = :zstd.compress(table) |> IO.iodata_to_binary()
      assert byte_size(frame) * 3 < byte_size(table)

      if takes do
        answer = compressed(node, frame, encoding: :zstd, accept: :zstd)
        assert {:ok, {:zstd, back}} = answer
        assert :zstd.decompress(back) |> IO.iodata_to_binary() == table
        assert {:ok, ^table} = compressed(node, frame, encoding: :zstd)
      end
    end
  else
    @tag skip: "OTP has :zstd from 28 on"
    test "there and back by OTP's own :zstd", do: :ok
  end
end
