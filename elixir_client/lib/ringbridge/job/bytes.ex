defmodule Ringbridge.Job.Bytes do
  @moduledoc false
  # Records as packed bytes, as workers in C want them: the fields one behind the other, without gaps.

  alias Ringbridge.Job.{Record, Type}

  import Bitwise
  import Record, only: [broken: 3, each: 2]

  @quiet_nan {0x7FC0_0000, 0x7FF8_0000_0000_0000}
  @infinity {0x7F80_0000, 0x7FF0_0000_0000_0000}
  @neg_infinity {0xFF80_0000, 0xFFF0_0000_0000_0000}

  @spec write(Record.t(), struct(), list()) :: binary()
  def write(record, struct, path), do: IO.iodata_to_binary(written(record, struct, path))

  defp written(record, struct, path) do
    each(record.fields, fn
      %{kind: :pad, type: {:binary, {count, count}}} ->
        <<0::size(count)-unit(8)>>

      %{kind: :constant} = field ->
        put(field.type, field.value, record.endian, path)

      %{kind: :count} = field ->
        list = Map.fetch!(struct, field.name)
        count = if is_list(list) and not List.improper?(list), do: length(list), else: 0
        # Too many for the count is told by the list's own size, or here.
        Type.scalar?(field.type, count) ||
          broken([field.name | path], list, "as many as a count takes: #{Type.words(field.type)}")

        put(field.type, count, record.endian, path)

      field ->
        put(field.type, Map.fetch!(struct, field.name), record.endian, [field.name | path])
    end)
  end

  # --- Writing -----------------------------------------------------------------------------------------------

  defp put({:array, of, count}, value, endian, path),
    do: put({:list, of, {count, count}}, value, endian, path)

  defp put({:list, of, size} = type, value, endian, path) do
    proper? = is_list(value) and not List.improper?(value)
    (proper? and Type.fits?(length(value), size)) || broken(path, value, Type.words(type))
    elements(of, value, endian, path, 0)
  end

  defp put({:record, module} = type, value, _endian, path) do
    is_struct(value, module) || broken(path, value, Type.words(type))
    written(module.__record__(), value, path)
  end

  defp put(type, value, endian, path) do
    Type.scalar?(type, value) || broken(path, value, Type.words(type))
    raw(type, value, endian)
  end

  defp elements(_of, [], _endian, _path, _at), do: []

  defp elements(of, [value | rest], endian, path, at),
    do: [put(of, value, endian, [at | path]) | elements(of, rest, endian, path, at + 1)]

  defp raw({:binary, _size}, value, _endian), do: value

  defp raw({:int, word, _bounds}, value, endian) do
    {bits, _signed?} = Type.integer(word)
    if endian == :little, do: <<value::size(bits)-little>>, else: <<value::size(bits)-big>>
  end

  defp raw({:ieee, word, _bounds, _non_finite}, value, endian) when is_atom(value),
    do: pattern(value, word, endian)

  defp raw({:ieee, :f32, _, _}, value, :little), do: <<value::float-size(32)-little>>
  defp raw({:ieee, :f32, _, _}, value, :big), do: <<value::float-size(32)-big>>
  defp raw({:ieee, :f64, _, _}, value, :little), do: <<value::float-size(64)-little>>
  defp raw({:ieee, :f64, _, _}, value, :big), do: <<value::float-size(64)-big>>

  # Erlang's floats are finite ones, so the others are written bit by bit.
  defp pattern(name, word, endian) do
    {bits32, bits64} =
      case name do
        :nan -> @quiet_nan
        :infinity -> @infinity
        :neg_infinity -> @neg_infinity
      end

    case {word, endian} do
      {:f32, :little} -> <<bits32::32-little>>
      {:f32, :big} -> <<bits32::32-big>>
      {:f64, :little} -> <<bits64::64-little>>
      {:f64, :big} -> <<bits64::64-big>>
    end
  end

  # --- Reading -----------------------------------------------------------------------------------------------

  @spec read(Record.t(), term(), list()) :: struct()
  def read(record, payload, path) do
    is_binary(payload) || broken(path, payload, "a packed binary, not a term")
    least = least_bytes(record)
    long = byte_size(payload)
    exact = if record.bytes, do: "#{least} bytes", else: "#{least} bytes or more"

    if long < least or (record.bytes && long != least),
      do: broken(path, payload, "#{exact} long; these are #{long}")

    taken(record, payload, path)
  end

  @doc false
  # The bytes of the fields of certain size, and the least of the last one.
  @spec least_bytes(Record.t()) :: non_neg_integer()
  def least_bytes(record), do: record.fields |> Enum.map(&least(&1.type)) |> Enum.sum()

  @doc false
  @spec most_bytes(Record.t()) :: non_neg_integer() | nil
  def most_bytes(record) do
    most = Enum.map(record.fields, &most(&1.type))
    if Enum.all?(most), do: Enum.sum(most)
  end

  defp least({:list, of, {low, _high}}), do: low * Type.bytes(of)
  defp least({:binary, {low, _high}}), do: low
  defp least(type), do: Type.bytes(type) || least_bytes(elem(type, 1).__record__())

  defp most({:list, of, {_low, high}}), do: high && high * Type.bytes(of)
  defp most({:binary, {_low, high}}), do: high
  defp most(type), do: Type.bytes(type) || most_bytes(elem(type, 1).__record__())

  defp taken(record, payload, path) do
    # Where each field lies: the last one has what is left.
    {placed, _end} =
      Enum.map_reduce(record.fields, 0, fn field, at ->
        size = Type.bytes(field.type) || byte_size(payload) - at
        {Map.put(field, :wire, binary_part(payload, at, size)), at + size}
      end)

    read =
      each(placed, fn field ->
        value =
          if field.kind != :pad, do: get(field.type, field.wire, record, [field.name | path])

        if field.kind == :constant and value != field.value,
          do: broken([field.name | path], value, inspect(field.value))

        {field, value}
      end)

    counted!(read, path)
    struct(record.module, for({%{kind: :value} = field, value} <- read, do: {field.name, value}))
  end

  defp counted!(read, path) do
    for {%{kind: :count, name: name}, count} <- read,
        {%{kind: :value, name: ^name}, list} <- read,
        count != length(list),
        do:
          broken([name | path], list, "the #{count} that are counted; there are #{length(list)}")
  end

  defp get({:array, of, count}, bytes, record, path),
    do: get({:list, of, {count, count}}, bytes, record, path)

  defp get({:list, of, size} = type, bytes, record, path) do
    one = Type.bytes(of)

    if rem(byte_size(bytes), one) != 0,
      do:
        broken(path, bytes, "whole elements of #{one} bytes; these are #{byte_size(bytes)} bytes")

    count = div(byte_size(bytes), one)
    Type.fits?(count, size) || broken(path, count, Type.words(type))
    listed(of, one, bytes, record, path, count)
  end

  defp get({:record, module}, bytes, _record, path), do: taken(module.__record__(), bytes, path)

  defp get(type, bytes, record, path) do
    value = value(type, bytes, record.endian)
    Type.scalar?(type, value) || broken(path, shown(value), Type.words(type))
    value
  end

  defp listed(of, one, bytes, record, path, count) do
    for at <- 0..(count - 1)//1,
        do: get(of, binary_part(bytes, at * one, one), record, [at | path])
  end

  defp shown({:non_finite, name}), do: name
  defp shown(value), do: value

  defp value({:binary, _size}, bytes, _endian), do: bytes

  # Without size(bits) in a pattern: Elixir 1.20 wants a pin there, which 1.14 does not know.
  defp value({:int, word, _bounds}, bytes, endian) do
    {bits, signed?} = Type.integer(word)
    value = :binary.decode_unsigned(bytes, endian)
    if signed? and value >= 1 <<< (bits - 1), do: value - (1 <<< bits), else: value
  end

  # A pattern of a float does not match what is no finite one.
  defp value({:ieee, word, _bounds, non_finite?}, bytes, endian) do
    number =
      case {word, endian} do
        {:f32, :little} -> with(<<value::float-size(32)-little>> <- bytes, do: value)
        {:f32, :big} -> with(<<value::float-size(32)-big>> <- bytes, do: value)
        {:f64, :little} -> with(<<value::float-size(64)-little>> <- bytes, do: value)
        {:f64, :big} -> with(<<value::float-size(64)-big>> <- bytes, do: value)
      end

    cond do
      is_float(number) -> number
      non_finite? -> non_finite(word, bytes, endian)
      true -> {:non_finite, non_finite(word, bytes, endian)}
    end
  end

  defp non_finite(word, bytes, endian) do
    cond do
      bytes == pattern(:infinity, word, endian) -> :infinity
      bytes == pattern(:neg_infinity, word, endian) -> :neg_infinity
      true -> :nan
    end
  end
end
