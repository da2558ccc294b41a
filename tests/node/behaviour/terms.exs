defmodule Behaviour.Terms do
  @moduledoc """
  Terms of every type at random, the same ones for the same seed, and what becomes of them on a trip to a process on
  another node and back.

  What comes back must be `=:=` to what went, and give the same bytes from `term_to_binary`: -0.0 and 0.0, 1 and 1.0,
  a charlist and its integers, each is itself. Maps are compared by `=:=` and in the order of their keys, since the
  external format leaves their order open.
  """

  @doc "The seeds of `seeds` whose term does not come back as it went, with both, as text."
  @spec lost(GenServer.server(), Enumerable.t()) :: [{integer(), String.t(), String.t()}]
  def lost(server, seeds) do
    for seed <- seeds,
        went = term(seed),
        came = GenServer.call(server, {:echo, went}, 20_000),
        not same?(went, came) do
      {seed, show(went), show(came)}
    end
  end

  @doc "Do many atoms, more than a connection's cache has room for, come back? The number that do not."
  @spec lost_atoms(GenServer.server(), pos_integer(), pos_integer()) :: non_neg_integer()
  def lost_atoms(server, count, at_once) do
    1..count
    |> Enum.map(&:"cache_me_#{rem(&1 * 7919, count)}")
    |> Enum.chunk_every(at_once)
    |> Enum.count(fn atoms -> GenServer.call(server, {:echo, atoms}, 20_000) !== atoms end)
  end

  def same?(went, came), do: went === came and bytes(went) == bytes(came)

  # Maps with more than 32 keys have an order of their own in each VM run, and small ones may be told otherwise.
  defp bytes(term), do: :erlang.term_to_binary(ordered(term), minor_version: 2)

  defp ordered(map) when is_map(map) do
    {:"$map", map |> :maps.to_list() |> ordered() |> Enum.sort_by(&:erlang.term_to_binary/1)}
  end

  defp ordered(tuple) when is_tuple(tuple) do
    tuple |> Tuple.to_list() |> Enum.map(&ordered/1) |> List.to_tuple()
  end

  defp ordered([head | tail]), do: [ordered(head) | ordered(tail)]
  defp ordered(term), do: term

  defp show(term), do: inspect(term, limit: 50, printable_limit: 200)

  @spec term(integer()) :: term()
  def term(seed) do
    :rand.seed(:exsss, {seed, 7, 11})
    any(5)
  end

  defp any(0), do: leaf(pick(14))

  defp any(depth) do
    case pick(13) do
      1 ->
        List.to_tuple(some(depth, pick(6) - 1))

      2 ->
        some(depth, pick(6) - 1)

      3 ->
        improper(some(depth, pick(4)), leaf(pick(14)))

      4 ->
        Map.new(some(depth, pick(5) - 1), &{&1, any(depth - 1)})

      # Keys that are one key for those who do not look closely.
      5 ->
        Map.new(
          Enum.take_random([1, 1.0, true, -0.0, "1", ~c"1", {1}, {1.0}, [], %{}], 4),
          &{&1, any(0)}
        )

      6 ->
        Map.new(1..(30 + pick(10)), &{any_key(&1), any(0)})

      7 ->
        a_fun(any(depth - 1), any(depth - 1))

      8 ->
        some(depth, pick(8))

      _ ->
        any(0)
    end
  end

  defp some(depth, count), do: for(_ <- 1..count//1, do: any(depth - 1))
  defp improper(elements, tail) when is_list(tail), do: elements ++ [tail | :tail]
  defp improper(elements, tail), do: elements ++ tail
  defp any_key(n), do: Enum.at([n, n * 1.0, {n}, "#{n}", [n | n]], pick(5) - 1)

  defp leaf(1), do: pick(300) - 20
  defp leaf(2), do: (pick(3) - 2) * Bitwise.bsl(1, pick(70)) + pick(3) - 2
  defp leaf(3), do: (pick(3) - 2) * Bitwise.bsl(pick(Bitwise.bsl(1, 62)), pick(3000))
  defp leaf(4), do: :rand.normal() * :math.pow(10, pick(300) - 150)
  defp leaf(5), do: Enum.at([0.0, -0.0, 1.0, -1.0, 1.0e300, 5.0e-324, 255.0], pick(7) - 1)
  defp leaf(6), do: Enum.at([true, false, nil, :undefined, :ok, :"", :"with blank"], pick(7) - 1)
  defp leaf(7), do: List.to_atom(for(_ <- 1..pick(40), do: pick(0xD7FF)))
  defp leaf(8), do: :rand.bytes(pick(40) - 1)
  defp leaf(9), do: <<pick(Bitwise.bsl(1, 20))::size(pick(20))>>
  defp leaf(10), do: for(_ <- 1..pick(30), do: pick(256) - 1)
  defp leaf(11), do: identifier(pick(9))
  defp leaf(12), do: Enum.at([&:lists.map/2, &nil.true/0, &Enum.map/255], pick(3) - 1)
  defp leaf(13), do: []
  defp leaf(14), do: String.duplicate("é", pick(200))

  # Of this node, and of nodes that are gone or were never there: with creations and words of every width.
  defp identifier(1), do: self()
  defp identifier(2), do: make_ref()
  defp identifier(3), do: hd(Port.list())
  defp identifier(4), do: :erlang.alias()
  defp identifier(5), do: made(<<88, name()::binary, word()::32, word()::32, word()::32>>)
  defp identifier(6), do: made(<<103, name()::binary, pick(1000)::32, 0::32, pick(3)>>)
  defp identifier(7), do: made(<<89, name()::binary, pick(1000)::32, word()::32>>)
  defp identifier(8), do: made(<<120, name()::binary, word()::32, word()::32, word()::32>>)

  defp identifier(9) do
    words = pick(5)
    numbers = for _ <- 1..words, into: <<>>, do: <<word()::32>>
    made(<<90, words::16, name()::binary, word()::32, numbers::binary>>)
  end

  defp made(bytes), do: :erlang.binary_to_term(<<131, bytes::binary>>)
  defp name, do: <<119, 14, "gone@127.0.0.1">>
  defp word, do: pick(0x100000000) - 1

  defp a_fun(a, b) do
    case pick(3) do
      1 -> fn -> :ok end
      2 -> fn x -> {x, a} end
      3 -> fn x, y -> {x, y, a, b} end
    end
  end

  defp pick(n), do: :rand.uniform(n)
end
