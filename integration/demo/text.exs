defmodule Demo.Text do
  @moduledoc "Titles, tables and numbers."

  def title(text), do: IO.puts("\n#{text}\n#{String.duplicate("-", String.length(text))}")

  @doc "Columns of these widths; of a negative width: to the right."
  def table(widths, header, rows) do
    for row <- [header | rows] do
      line = Enum.zip_with(widths, row, &cell/2)
      IO.puts(line |> IO.iodata_to_binary() |> String.trim_trailing())
    end
  end

  defp cell(width, text) when width < 0, do: String.pad_leading(text, -width)
  defp cell(width, text), do: String.pad_trailing(text, width)

  @doc "Three figures, whatever the size: errors go from millimetres to a thousand kilometres."
  def figures(km) when km >= 100, do: "#{round(km)}"
  def figures(km) when km >= 10, do: decimals(km, 1)
  def figures(km) when km >= 1, do: decimals(km, 2)
  def figures(km) when km >= 0.01, do: decimals(km, 4)
  def figures(km), do: decimals(km, 6)

  def decimals(value, count), do: :erlang.float_to_binary(value * 1.0, decimals: count)
  def scientific(value), do: :erlang.float_to_binary(abs(value * 1.0), [{:scientific, 0}])
  def milliseconds(us), do: "#{decimals(us / 1000, 1)} ms"

  @doc "With its sign: +0.3 %."
  def percent(share), do: "#{if share >= 0, do: "+"}#{decimals(share * 100, 1)} %"

  @doc "12,345,678"
  def grouped(integer) do
    integer
    |> Integer.to_string()
    |> String.reverse()
    |> String.replace(~r/(\d{3})(?=\d)/, "\\1,")
    |> String.reverse()
  end
end
