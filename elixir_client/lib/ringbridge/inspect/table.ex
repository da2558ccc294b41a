defmodule Ringbridge.Inspect.Table do
  @moduledoc """
  Rows with aligned columns: texts to the left, numbers to the right.

  A line is a list of `t:segment/0`: plain texts and such with a style. Styles are taken away where the output is no
  terminal (`render/2`), and count for no column's width.

      iex> columns = [{"role", :left}, {"queued", :right}]
      iex> rows = [["echo", "1,234"], [{:green, "sleep"}, "5"]]
      iex> rows |> Ringbridge.Inspect.Table.lines(columns) |> Enum.map(&Ringbridge.Inspect.Table.render(&1, false))
      ["role   queued", "echo    1,234", "sleep       5"]
  """

  @typedoc "A text, or one in a style of `IO.ANSI`. It holds no control characters: `clean/1`."
  @type segment :: String.t() | {atom(), String.t()}
  @type line :: [segment()]
  @type column :: {heading :: String.t(), :left | :right}

  @gap "  "

  @doc "The table's lines, its headings first; cells are segments, `nil` is a dash."
  @spec lines([[segment() | nil]], [column()]) :: [line()]
  def lines(rows, columns) do
    headings = Enum.map(columns, fn {heading, _side} -> {:faint, heading} end)
    cells = Enum.map(rows, fn row -> Enum.map(row, &(&1 || "-")) end)
    widths = widths([headings | cells])
    sides = Enum.map(columns, &elem(&1, 1))
    Enum.map([headings | cells], &line(&1, sides, widths))
  end

  defp widths(rows) do
    Enum.zip_with(rows, fn column -> column |> Enum.map(&width/1) |> Enum.max() end)
  end

  defp line(cells, sides, widths) do
    [cells, sides, widths]
    |> Enum.zip_with(fn [cell, side, width] -> padded(cell, side, width - width(cell)) end)
    |> Enum.intersperse([@gap])
    |> Enum.concat()
    |> trimmed()
  end

  defp padded(cell, :left, room), do: [cell, String.duplicate(" ", room)]
  defp padded(cell, :right, room), do: [String.duplicate(" ", room), cell]

  # Blanks at the end of a line are a nuisance to whoever copies it.
  defp trimmed(segments) do
    segments |> Enum.reverse() |> Enum.drop_while(&blank?/1) |> Enum.reverse()
  end

  defp blank?(segment), do: segment |> plain() |> String.trim_leading(" ") == ""

  @doc "How many columns it takes."
  @spec width(line() | segment()) :: non_neg_integer()
  def width(segments) when is_list(segments), do: segments |> Enum.map(&width/1) |> Enum.sum()
  def width(segment), do: segment |> plain() |> String.length()

  @doc "The line, cut to so many columns; what was cut ends in `~`."
  @spec cut(line(), pos_integer() | :infinity) :: line()
  def cut(line, :infinity), do: line

  def cut(line, columns) do
    if width(line) <= columns, do: line, else: taken(line, columns - 1, [])
  end

  defp taken([segment | rest], room, done) do
    case room - width(segment) do
      left when left >= 0 ->
        taken(rest, left, [segment | done])

      _over ->
        Enum.reverse(["~", restyled(segment, String.slice(plain(segment), 0, room)) | done])
    end
  end

  @doc "The line as text, with its styles or without."
  @spec render(line(), boolean()) :: String.t()
  def render(line, styled?) do
    line |> Enum.map(&styled(&1, styled?)) |> IO.ANSI.format(styled?) |> IO.iodata_to_binary()
  end

  defp styled({style, text}, true), do: [style, text, :reset]
  defp styled({_style, text}, false), do: text
  defp styled(text, _styled?), do: text

  @doc """
  Text of others on one line, with nothing in it that a terminal obeys.

      iex> Ringbridge.Inspect.Table.clean("two\\nlines\\e[2J" <> <<255>>)
      "two lines[2J"
  """
  @spec clean(String.t()) :: String.t()
  def clean(text) do
    for <<char::utf8 <- String.replace(valid(text), ~r/\s+/u, " ")>>,
        char >= 32 and char not in 127..159,
        into: "",
        do: <<char::utf8>>
  end

  defp valid(text), do: if(String.valid?(text), do: text, else: valid_part(text, []))

  defp valid_part(<<>>, done), do: done |> Enum.reverse() |> IO.iodata_to_binary()
  defp valid_part(<<c::utf8, rest::binary>>, done), do: valid_part(rest, [<<c::utf8>> | done])
  defp valid_part(<<_byte, rest::binary>>, done), do: valid_part(rest, done)

  defp plain({_style, text}), do: text
  defp plain(text), do: text

  defp restyled({style, _text}, text), do: {style, text}
  defp restyled(_segment, text), do: text
end
