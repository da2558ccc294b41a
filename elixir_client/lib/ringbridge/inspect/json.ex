defmodule Ringbridge.Inspect.Json do
  @moduledoc """
  Terms as JSON (RFC 8259), for programs that read what a task prints: Elixir has no such module before 1.18.

  Atoms and binaries are texts, but for `true`, `false` and `nil`; bytes that are no UTF-8 become U+FFFD; tuples and keyword lists are
  arrays; pids, references and functions what `inspect/1` shows.

      iex> term = %{role: :echo, answered: [ok: 3], why: nil, said: "a\\n\\"b\\"", us: 1.5}
      iex> IO.iodata_to_binary(Ringbridge.Inspect.Json.encode(term))
      ~S({"answered":[["ok",3]],"role":"echo","said":"a\\n\\"b\\"","us":1.5,"why":null})
  """

  @doc "Keys of maps stand in order, so that the same term is the same text."
  @spec encode(term()) :: iodata()
  def encode(nil), do: "null"
  def encode(true), do: "true"
  def encode(false), do: "false"
  def encode(atom) when is_atom(atom), do: text(Atom.to_string(atom))
  def encode(number) when is_integer(number), do: Integer.to_string(number)
  def encode(number) when is_float(number), do: Float.to_string(number)
  def encode(binary) when is_binary(binary), do: text(binary)
  def encode(struct) when is_struct(struct), do: encode(Map.from_struct(struct))

  def encode(map) when is_map(map) do
    pairs =
      map
      |> Enum.map(fn {key, value} -> {key(key), value} end)
      |> Enum.sort_by(&elem(&1, 0))
      |> Enum.map(fn {key, value} -> [text(key), ":", encode(value)] end)

    ["{", Enum.intersperse(pairs, ","), "}"]
  end

  def encode(list) when is_list(list) do
    if List.improper?(list),
      do: text(inspect(list)),
      else: ["[", list |> Enum.map(&encode/1) |> Enum.intersperse(","), "]"]
  end

  def encode(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> encode()
  def encode(other), do: text(inspect(other))

  defp key(key) when is_atom(key), do: Atom.to_string(key)
  defp key(key) when is_binary(key), do: key
  defp key(key), do: inspect(key)

  defp text(binary), do: [?", escape(binary, []), ?"]

  defp escape(<<>>, done), do: Enum.reverse(done)
  defp escape(<<?", rest::binary>>, done), do: escape(rest, ["\\\"" | done])
  defp escape(<<?\\, rest::binary>>, done), do: escape(rest, ["\\\\" | done])
  defp escape(<<?\n, rest::binary>>, done), do: escape(rest, ["\\n" | done])
  defp escape(<<?\r, rest::binary>>, done), do: escape(rest, ["\\r" | done])
  defp escape(<<?\t, rest::binary>>, done), do: escape(rest, ["\\t" | done])

  # DEL and what follows it need no escape, but terminals obey some of them.
  defp escape(<<char::utf8, rest::binary>>, done) when char < 32 or char in 127..159,
    do: escape(rest, [["\\u", hex(char)] | done])

  defp escape(<<char::utf8, rest::binary>>, done), do: escape(rest, [<<char::utf8>> | done])
  defp escape(<<_byte, rest::binary>>, done), do: escape(rest, ["\\ufffd" | done])

  defp hex(char), do: char |> Integer.to_string(16) |> String.pad_leading(4, "0")
end
