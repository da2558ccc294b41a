defmodule Ringbridge.Job.Type do
  @moduledoc """
  The types that a field may have: read from a declaration once, when its module is compiled, and then held against values.

  Of terms, as docs/ops.md has them:

  | declared | is | options |
  |---|---|---|
  | `:any` | any term | |
  | `:integer`, `:float`, `:number` | an integer, a float, either | bounds |
  | `:binary` | a binary | `size:` in bytes |
  | `:atom`, `{:atom, [:a, :b]}`, `:boolean` | an atom, one of these, true or false | |
  | `{:list, type}` | a proper list | `size:` |
  | `{:tuple, [type]}`, `{:map, [key: type]}` | with these elements, with these keys | |
  | `{:one_of, [type]}` | like the first of them that it fits | |
  | a module with `use Ringbridge.Job.Record` | its struct; a map or a tuple on the way | |

  Of packed payloads, where a field is bytes:

  | declared | bytes | options |
  |---|---|---|
  | `:u8` `:u16` `:u32` `:u64`, `:i8` .. `:i64` | an integer | bounds |
  | `:f32`, `:f64` | IEEE 754 binary32, binary64; integers are taken too. Value and bounds are what arrives of them | bounds, `non_finite: true`: also `:nan`, `:infinity`, `:neg_infinity` |
  | `{:bytes, n}` | n bytes | |
  | `:bytes` | those up to the end; the last field | `size:` |
  | `{:array, type, n}` | n of a type, a list | |
  | `{:list, type}` | as many as there are up to the end; the last field | `size:` |
  | a module with `use Ringbridge.Job.Record` | its fields | |

  Bounds are `in: low..high` or `in: {low, high}`, `min:`, `max:`, and `above:`, `below:`, which are not reached themselves. A
  size is a number or a range. Inside another type options stand in a tuple: `{:list, {:u16, in: 1..5}}`.
  """

  @integers %{
    u8: {0, 0xFF},
    u16: {0, 0xFFFF},
    u32: {0, 0xFFFF_FFFF},
    u64: {0, 0xFFFF_FFFF_FFFF_FFFF},
    i8: {-0x80, 0x7F},
    i16: {-0x8000, 0x7FFF},
    i32: {-0x8000_0000, 0x7FFF_FFFF},
    i64: {-0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF}
  }
  @bits %{u8: 8, u16: 16, u32: 32, u64: 64, i8: 8, i16: 16, i32: 32, i64: 64}
  @float_max %{f32: 3.4028234663852886e38, f64: 1.7976931348623157e308}
  @non_finite [:nan, :infinity, :neg_infinity]

  @typedoc "An end of a range: none, one that is reached, or one that is not."
  @type low :: nil | {:min, number()} | {:above, number()}
  @type high :: nil | {:max, number()} | {:below, number()}
  @type bounds :: {low(), high()}
  @type size :: {non_neg_integer(), non_neg_integer() | nil}

  @typedoc "A type that was read; `{:int, ..}` to `{:array, ..}` are of packed payloads only."
  @type t ::
          :any
          | {:integer | :float | :number, bounds()}
          | {:binary, size()}
          | {:atom, [atom()] | nil}
          | {:list, t(), size()}
          | {:tuple, [t()]}
          | {:map, [{atom(), t()}]}
          | {:one_of, [t()]}
          | {:record, module()}
          | {:int, atom(), bounds()}
          | {:ieee, :f32 | :f64, bounds(), non_finite :: boolean()}
          | {:array, t(), pos_integer()}

  # --- Reading a declaration ---------------------------------------------------------------------------------

  @doc "Reads a declared type with its options. Raises `ArgumentError` that says what cannot be meant."
  @spec read!(term(), keyword(), :term | :packed) :: t()
  def read!(declared, options \\ [], kind) do
    {type, left} = read(declared, options, kind)

    if left != [] do
      fail("#{inspect(declared)} has no option #{inspect(hd(Keyword.keys(left)))}")
    end

    type
  end

  defp read(:any, options, :term), do: {:any, options}
  defp read(:boolean, options, :term), do: {{:atom, [true, false]}, options}
  defp read(:atom, options, :term), do: {{:atom, nil}, options}

  defp read({:atom, [first | _] = atoms}, options, :term) when is_atom(first) do
    Enum.all?(atoms, &is_atom/1) || fail("{:atom, ..} is a list of atoms: #{inspect(atoms)}")
    {{:atom, atoms}, options}
  end

  defp read(number, options, :term) when number in [:integer, :float, :number] do
    {bounds, left} = bounds(options, nil, nil)
    number == :integer and Enum.each(ends(bounds), &whole!/1)
    {{number, bounds}, left}
  end

  defp read(:binary, options, :term), do: sized(options, &{:binary, &1})
  defp read(:bytes, options, :packed), do: sized(options, &{:binary, &1})

  defp read({:bytes, count}, options, :packed) when is_integer(count) and count >= 0,
    do: {{:binary, {count, count}}, options}

  defp read({:list, of}, options, kind) do
    of = read!(of, [], kind)
    kind == :packed and fixed!(of)
    sized(options, &{:list, of, &1})
  end

  defp read({:array, of, count}, options, :packed) when is_integer(count) and count > 0,
    do: {{:array, fixed!(read!(of, [], :packed)), count}, options}

  defp read({:tuple, [_ | _] = types}, options, :term),
    do: {{:tuple, Enum.map(types, &read!(&1, [], :term))}, options}

  defp read({:one_of, [_ | _] = types}, options, :term),
    do: {{:one_of, Enum.map(types, &read!(&1, [], :term))}, options}

  defp read({:map, [_ | _] = pairs}, options, :term),
    do: {{:map, Enum.map(pairs, fn {key, type} -> {key, read!(type, [], :term)} end)}, options}

  defp read(word, options, :packed) when is_map_key(@integers, word) do
    {low, high} = @integers[word]
    {bounds, left} = bounds(options, {:min, low}, {:max, high})

    for bound <- ends(bounds) do
      whole!(bound)
      bound in low..high || fail("a #{word} is #{low} to #{high}; the bound #{bound} is not")
    end

    {{:int, word, bounds}, left}
  end

  defp read(word, options, :packed) when is_map_key(@float_max, word) do
    most = @float_max[word]
    {non_finite, options} = Keyword.pop(options, :non_finite, false)
    {bounds, left} = bounds(options, {:min, -most}, {:max, most})

    # A number above it has no bytes: writing it would raise.
    for bound <- ends(bounds), abs(bound) > most do
      fail("a #{word} is #{-most} to #{most}; the bound #{bound} is not")
    end

    {{:ieee, word, sent_bounds(word, bounds), non_finite}, left}
  end

  # Options in a tuple, where a type stands inside another one.
  defp read({type, [{option, _} | _] = inner}, options, kind) when is_atom(option),
    do: read(type, inner ++ options, kind)

  defp read({:list, of, inner}, options, kind) when is_list(inner),
    do: read({:list, of}, inner ++ options, kind)

  defp read(module, options, kind) when is_atom(module) do
    record? = match?("Elixir." <> _, Atom.to_string(module)) and record?(module)
    record? || fail("#{inspect(module)} is no type of a #{kind} field (Ringbridge.Job.Type)")
    packed? = module.__record__().form == :packed

    if packed? != (kind == :packed),
      do: fail("#{inspect(module)} is #{module.__record__().form}, its field is in a #{kind} one")

    {{:record, module}, options}
  end

  defp read(other, _options, kind),
    do: fail("#{inspect(other)} is no type of a #{kind} field (Ringbridge.Job.Type)")

  defp record?(module) do
    match?({:module, _}, Code.ensure_compiled(module)) and
      function_exported?(module, :__record__, 0)
  end

  # An element of a packed list has one size, or nobody could tell where the next one begins; and with none, how many there are.
  defp fixed!(type) do
    case bytes(type) do
      nil -> fail("the elements of a packed list have one size; #{words(type)} has not")
      0 -> fail("the elements of a packed list have a byte or more; #{words(type)} has none")
      _bytes -> type
    end
  end

  defp sized(options, make) do
    {size, left} = Keyword.pop(options, :size)

    case size do
      nil -> {make.({0, nil}), left}
      count when is_integer(count) and count >= 0 -> {make.({count, count}), left}
      low..high//1 when low >= 0 and low <= high -> {make.({low, high}), left}
      {low, nil} when is_integer(low) and low >= 0 -> {make.({low, nil}), left}
      other -> fail("size: is a number, a range, or {least, nil}; got: #{inspect(other)}")
    end
  end

  defp bounds(options, low, high) do
    {within, options} = Keyword.pop(options, :in)

    {low, high} =
      case within do
        nil -> {low, high}
        first..last//1 when first <= last -> {{:min, first}, {:max, last}}
        {a, b} when is_number(a) and is_number(b) and a <= b -> {{:min, a}, {:max, b}}
        other -> fail("in: is low..high or {low, high}; got: #{inspect(other)}")
      end

    {low, options} = bound(options, [:min, :above], low)
    {high, options} = bound(options, [:max, :below], high)
    room?(low, high) || fail("no number is both #{bound(low)} and #{bound(high)}")
    {{low, high}, options}
  end

  defp room?({:min, low}, {:max, high}), do: low <= high
  defp room?({_, low}, {_, high}), do: low < high
  defp room?(_low, _high), do: true

  defp bound(options, words, given) do
    Enum.reduce(words, {given, options}, fn word, {given, options} ->
      case Keyword.pop(options, word) do
        {nil, options} -> {given, options}
        {number, options} when is_number(number) -> {{word, number}, options}
        {other, _} -> fail("#{word}: is a number; got: #{inspect(other)}")
      end
    end)
  end

  # As numbers of this type: with a bound of 0.1 the f32 that 0.1 becomes on the way would be above it.
  defp sent_bounds(word, {{low_word, low}, {high_word, high}}) do
    {low, high} = {{low_word, sent(word, low)}, {high_word, sent(word, high)}}
    room?(low, high) || fail("no #{word} is both #{bound(low)} and #{bound(high)}")
    {low, high}
  end

  defp ends({low, high}), do: for({_word, number} <- [low, high], do: number)

  defp whole!(number),
    do: is_integer(number) || fail("bounds of integers are integers: #{number}")

  @spec fail(String.t()) :: no_return()
  defp fail(why), do: raise(ArgumentError, why)

  # --- What is told of a type --------------------------------------------------------------------------------

  @doc "The bytes of a packed type; nil where they depend on the value."
  @spec bytes(t()) :: non_neg_integer() | nil
  def bytes({:int, word, _bounds}), do: div(@bits[word], 8)
  def bytes({:ieee, :f32, _bounds, _}), do: 4
  def bytes({:ieee, :f64, _bounds, _}), do: 8
  def bytes({:binary, {size, size}}), do: size
  def bytes({:array, of, count}), do: with(size when size != nil <- bytes(of), do: size * count)
  def bytes({:list, of, {size, size}}), do: with(one when one != nil <- bytes(of), do: one * size)
  def bytes({:record, module}), do: module.__record__().bytes
  def bytes(_type), do: nil

  @doc "The bits of a packed integer, and whether it may be negative."
  @spec integer(atom()) :: {pos_integer(), signed :: boolean()}
  def integer(word), do: {@bits[word], elem(@integers[word], 0) < 0}

  @doc """
  A type in words, as in "must be ...".

      iex> alias Ringbridge.Job.Type
      iex> Type.words(Type.read!(:u16, [in: 1..16], :packed))
      "an integer of 1 to 16 (u16)"
      iex> Type.words(Type.read!({:list, {:float, above: 0}}, [size: 1..3], :term))
      "a list of 1 to 3, each a float above 0"
  """
  @spec words(t()) :: String.t()
  def words(:any), do: "any term"
  def words({:integer, bounds}), do: "an integer" <> range(bounds)
  def words({:float, bounds}), do: "a float" <> range(bounds)
  def words({:number, bounds}), do: "a number" <> range(bounds)
  def words({:binary, size}), do: "a binary" <> count(size, " of ", " bytes")
  def words({:atom, nil}), do: "an atom"
  def words({:atom, atoms}), do: "one of " <> Enum.map_join(atoms, ", ", &inspect/1)
  def words({:list, of, size}), do: "a list" <> count(size, " of ", "") <> ", each " <> words(of)
  def words({:array, of, count}), do: words({:list, of, {count, count}})

  def words({:tuple, types}),
    do: "a tuple of #{length(types)}: " <> Enum.map_join(types, ", ", &words/1)

  def words({:map, pairs}),
    do: "a map with the keys " <> Enum.map_join(pairs, ", ", fn {key, _} -> inspect(key) end)

  def words({:one_of, types}), do: Enum.map_join(types, " or ", &words/1)
  def words({:record, module}), do: "a %#{inspect(module)}{}"
  def words({:int, word, bounds}), do: "an integer" <> range(bounds) <> " (#{word})"

  def words({:ieee, word, {low, high}, non_finite}) do
    most = @float_max[word]
    low = if low == {:min, -most}, do: nil, else: low
    high = if high == {:max, most}, do: nil, else: high
    {low, high} = {shown(word, low), shown(word, high)}
    finite = if non_finite, do: "", else: "finite "
    "a #{finite}number" <> range({low, high}) <> " (#{word})"
  end

  # The shortest number that is this f32: 0.1, and not 0.10000000149011612.
  defp shown(:f32, {kind, number}) when is_float(number) do
    short =
      Enum.find_value(1..8, number, fn digits ->
        near = number |> :erlang.float_to_binary(scientific: digits) |> String.to_float()
        if abs(near) <= @float_max.f32 and sent(:f32, near) == number, do: near
      end)

    {kind, short}
  end

  defp shown(_word, bound), do: bound

  defp range({nil, nil}), do: ""
  defp range({{:min, low}, {:max, low}}), do: " #{low}"
  defp range({{:min, low}, {:max, high}}), do: " of #{low} to #{high}"
  defp range({low, nil}), do: " " <> bound(low)
  defp range({nil, high}), do: " " <> bound(high)
  defp range({low, high}), do: " " <> bound(low) <> " and " <> bound(high)

  defp bound({:min, number}), do: "of #{number} or more"
  defp bound({:max, number}), do: "of #{number} or less"
  defp bound({word, number}), do: "#{word} #{number}"

  defp count({0, nil}, _before, _behind), do: ""
  defp count({same, same}, before, behind), do: "#{before}#{same}#{behind}"
  defp count({low, nil}, before, behind), do: "#{before}#{low} or more#{behind}"
  defp count({low, high}, before, behind), do: "#{before}#{low} to #{high}#{behind}"

  # --- Values ------------------------------------------------------------------------------------------------

  @doc "Whether a number lies within bounds."
  @spec within?(number(), bounds()) :: boolean()
  def within?(number, {low, high}), do: over?(number, low) and under?(number, high)

  defp over?(_number, nil), do: true
  defp over?(number, {:min, low}), do: number >= low
  defp over?(number, {:above, low}), do: number > low
  defp under?(_number, nil), do: true
  defp under?(number, {:max, high}), do: number <= high
  defp under?(number, {:below, high}), do: number < high

  @doc """
  A number as it arrives: a f32 has 24 bits of it. One that is no larger than the type's largest.

      iex> Ringbridge.Job.Type.sent(:f32, 0.99999999)
      1.0
      iex> Ringbridge.Job.Type.sent(:f64, 0.99999999)
      0.99999999
  """
  @spec sent(:f32 | :f64, number()) :: number()
  def sent(:f32, number) do
    <<arrives::float-size(32)>> = <<number::float-size(32)>>
    # A number that is not changed stays what it was, an integer too.
    if arrives == number, do: number, else: arrives
  end

  # Of integers past 2**53 a f64 has not all.
  def sent(:f64, number) when is_integer(number) do
    arrives = number / 1
    if arrives == number, do: number, else: arrives
  end

  def sent(:f64, number), do: number

  @doc "Whether a count lies within a size."
  @spec fits?(non_neg_integer(), size()) :: boolean()
  def fits?(count, {low, high}), do: count >= low and (high == nil or count <= high)

  @doc "Whether a value without others in it is of the type."
  @spec scalar?(t(), term()) :: boolean()
  def scalar?(:any, _value), do: true
  def scalar?({:integer, bounds}, value), do: is_integer(value) and within?(value, bounds)
  def scalar?({:float, bounds}, value), do: is_float(value) and within?(value, bounds)
  def scalar?({:number, bounds}, value), do: is_number(value) and within?(value, bounds)
  def scalar?({:binary, size}, value), do: is_binary(value) and fits?(byte_size(value), size)
  def scalar?({:atom, nil}, value), do: is_atom(value)
  def scalar?({:atom, atoms}, value), do: value in atoms
  def scalar?({:int, _word, bounds}, value), do: is_integer(value) and within?(value, bounds)

  def scalar?({:ieee, _word, _bounds, true}, value) when value in @non_finite, do: true

  # By what arrives: the other side holds that against the same bounds.
  def scalar?({:ieee, word, bounds, _non_finite}, value) do
    most = @float_max[word]
    is_number(value) and value >= -most and value <= most and within?(sent(word, value), bounds)
  end
end
