defmodule Ringbridge.Server.Json do
  @moduledoc """
  Reads a line of the bridge's log. Elixir has a JSON reader of its own only from 1.18 on, and OTP from 27 on.

  Objects become maps with binary keys, as everywhere. Nothing is raised for what is no JSON: a log may hold anything.
  """

  # A line of a log is flat but for a traceback.
  @depth_max 32

  @type json ::
          nil | boolean() | number() | String.t() | [json()] | %{optional(String.t()) => json()}

  @doc """
      iex> Ringbridge.Server.Json.decode(~S({"event": "ready", "port": 9100, "roles": ["echo"]}))
      {:ok, %{"event" => "ready", "port" => 9100, "roles" => ["echo"]}}
      iex> Ringbridge.Server.Json.decode("Traceback (most recent call last):")
      :error
  """
  @spec decode(binary()) :: {:ok, json()} | :error
  def decode(text) do
    {value, rest} = value(text, @depth_max)
    if blank(rest) == "", do: {:ok, value}, else: :error
  catch
    :no_json -> :error
  end

  defp blank(<<c, rest::binary>>) when c in ~c" \t\r\n", do: blank(rest)
  defp blank(rest), do: rest

  defp value(_text, 0), do: throw(:no_json)
  defp value(text, depth), do: text |> blank() |> read(depth)

  defp read("null" <> rest, _depth), do: {nil, rest}
  defp read("true" <> rest, _depth), do: {true, rest}
  defp read("false" <> rest, _depth), do: {false, rest}
  defp read("\"" <> rest, _depth), do: string(rest, [])

  defp read("[" <> rest, depth) do
    case blank(rest) do
      "]" <> rest -> {[], rest}
      rest -> items(rest, depth, [])
    end
  end

  defp read("{" <> rest, depth) do
    case blank(rest) do
      "}" <> rest -> {%{}, rest}
      rest -> members(rest, depth, %{})
    end
  end

  defp read(text, _depth) do
    case Regex.run(~r/\A-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?/, text) do
      [number | parts] -> {number(number, parts), after_bytes(text, byte_size(number))}
      nil -> throw(:no_json)
    end
  end

  defp items(text, depth, so_far) do
    {item, rest} = value(text, depth - 1)

    case blank(rest) do
      "," <> rest -> items(rest, depth, [item | so_far])
      "]" <> rest -> {Enum.reverse([item | so_far]), rest}
      _other -> throw(:no_json)
    end
  end

  defp members(text, depth, so_far) do
    with "\"" <> rest <- blank(text),
         {key, rest} = string(rest, []),
         ":" <> rest <- blank(rest) do
      {item, rest} = value(rest, depth - 1)
      so_far = Map.put(so_far, key, item)

      case blank(rest) do
        "," <> rest -> members(rest, depth, so_far)
        "}" <> rest -> {so_far, rest}
        _other -> throw(:no_json)
      end
    else
      _other -> throw(:no_json)
    end
  end

  defp number(text, []), do: String.to_integer(text)

  # A float is a float to Erlang only with a point in it; one that is too large for it is left as it is.
  defp number(text, parts) do
    pointed = if hd(parts) == "", do: String.replace(text, ~r/[eE]/, ".0e"), else: text
    String.to_float(pointed)
  rescue
    ArgumentError -> text
  end

  defp string("\"" <> rest, so_far), do: {so_far |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string("\\u" <> rest, so_far) do
    {code, rest} = code_unit(rest)
    {character, rest} = character(code, rest)
    string(rest, [character | so_far])
  end

  defp string(<<"\\", c, rest::binary>>, so_far) do
    case c do
      ?n -> string(rest, ["\n" | so_far])
      ?t -> string(rest, ["\t" | so_far])
      ?r -> string(rest, ["\r" | so_far])
      ?b -> string(rest, ["\b" | so_far])
      ?f -> string(rest, ["\f" | so_far])
      c when c in ~c(\"\\/) -> string(rest, [c | so_far])
      _other -> throw(:no_json)
    end
  end

  defp string(<<c::utf8, rest::binary>>, so_far), do: string(rest, [<<c::utf8>> | so_far])
  defp string(_end_or_no_utf8, _so_far), do: throw(:no_json)

  defp code_unit(<<hex::binary-size(4), rest::binary>>) do
    case Integer.parse(hex, 16) do
      {code, ""} when code >= 0 -> {code, rest}
      _other -> throw(:no_json)
    end
  end

  defp code_unit(_short), do: throw(:no_json)

  # A pair of surrogates is one character; a single one is none.
  defp character(high, "\\u" <> rest) when high in 0xD800..0xDBFF do
    case code_unit(rest) do
      {low, rest} when low in 0xDC00..0xDFFF ->
        {<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>>, rest}

      _other ->
        throw(:no_json)
    end
  end

  defp character(code, _rest) when code in 0xD800..0xDFFF, do: throw(:no_json)
  defp character(code, rest), do: {<<code::utf8>>, rest}

  defp after_bytes(text, count), do: binary_part(text, count, byte_size(text) - count)
end
