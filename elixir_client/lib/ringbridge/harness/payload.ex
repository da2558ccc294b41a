defmodule Ringbridge.Harness.Payload do
  @moduledoc """
  Payloads that tell when they were changed on the way, and the mock computation: both sides check a CRC-32 and a number.

  A payload is `<<number::64, crc::32, data>>`; the computation answers the same with each byte of the data exclusive-or'ed by 0x5A. So an
  answer that is damaged, cut, another caller's or merely an echo is told from the right one.
  """

  @head 12
  @mask 0x5A

  @doc "The bytes before the data."
  @spec head_bytes() :: pos_integer()
  def head_bytes, do: @head

  @doc "A payload of `size` bytes, at least `head_bytes/0`, of pseudo-random data that `number` tells."
  @spec new(non_neg_integer(), non_neg_integer()) :: binary()
  def new(number, size) when size >= @head, do: pack(number, data(number, size - @head))

  @doc "What the computation answers, or what is wrong with its payload."
  @spec compute(term()) :: {:ok, binary()} | {:error, 1, binary()}
  def compute(payload) do
    case unpack(payload) do
      {:ok, number, data} -> {:ok, pack(number, mask(data))}
      {:error, why} -> {:error, 1, "the payload came #{why}"}
    end
  end

  @doc "Whether it is the computation's answer to `new(number, size)`; else a text."
  @spec check(term(), non_neg_integer(), non_neg_integer()) :: :ok | String.t()
  def check(answer, number, size) do
    case unpack(answer) do
      {:ok, ^number, data} when byte_size(data) == size - @head ->
        if mask(data) == data(number, size - @head), do: :ok, else: "came with other data"

      {:ok, ^number, data} ->
        "came with #{byte_size(data) + @head} bytes instead of #{size}"

      {:ok, other, _data} ->
        "is that of #{other}"

      {:error, why} ->
        "came #{why}"
    end
  end

  defp pack(number, data), do: <<number::64, :erlang.crc32(data)::32, data::binary>>

  defp unpack(<<number::64, crc::32, data::binary>>) do
    if :erlang.crc32(data) == crc, do: {:ok, number, data}, else: {:error, "with a wrong CRC"}
  end

  defp unpack(bytes) when is_binary(bytes), do: {:error, "cut to #{byte_size(bytes)} bytes"}
  defp unpack(_term), do: {:error, "as no binary"}

  # A block of noise that the number chooses, as often as it fits: cheap, and no two numbers' are alike.
  defp data(_number, 0), do: <<>>

  defp data(number, size) do
    block = :crypto.hash(:sha512, <<number::64>>)
    block |> :binary.copy(div(size, 64) + 1) |> binary_part(0, size)
  end

  defp mask(<<>>), do: <<>>
  defp mask(data), do: :crypto.exor(data, :binary.copy(<<@mask>>, byte_size(data)))
end
