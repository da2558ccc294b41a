defmodule Demo.Picture do
  @moduledoc "Pictures: those that workers made, and one of dots that is made here."

  @doc "Writes a PNG and says where."
  def save(png, folder, name) do
    <<137, "PNG\r\n", 26, 10, _length::32, "IHDR", width::32, height::32, _::binary>> = png
    file = Path.join(folder, name)
    File.write!(file, png)
    IO.puts("Picture, #{width} x #{height}: #{Path.relative_to_cwd(file)}")
  end

  @doc "A square of `size` pixels, black but for the dots: `{x, y}` from the upper left => `{r, g, b}`."
  def of_dots(dots, size) do
    lines =
      for y <- 0..(size - 1) do
        [0 | for(x <- 0..(size - 1), do: Tuple.to_list(Map.get(dots, {x, y}, {8, 10, 24})))]
      end

    header = <<size::32, size::32, 8, 2, 0, 0, 0>>

    IO.iodata_to_binary([
      <<137, "PNG\r\n", 26, 10>>,
      chunk("IHDR", header),
      chunk("IDAT", :zlib.compress(lines)),
      chunk("IEND", "")
    ])
  end

  defp chunk(kind, body) do
    [<<byte_size(body)::32>>, kind, body, <<:erlang.crc32([kind, body])::32>>]
  end
end
