defmodule Demo.Terrain do
  @moduledoc """
  A tile of terrain, by a Zig worker: its heights against PyPI's opensimplex, and its picture.

  The folder has terrain.request, and in terrain.reference what opensimplex says at every tenth sample.
  """
  import Demo.Text

  @every 10
  # Both sum the same terms, in another order (docs/worldgen.md).
  @rounding 4.0e-15

  def show(bridge, folder) do
    title("Terrain, by a worker in Zig")
    request = File.read!(Path.join(folder, "terrain.request"))
    <<1::16-little, octaves::16-little, width::32-little, height::32-little, _::binary>> = request

    {heights, run_us} = Demo.Bridge.submit(bridge, :worldgen, request)
    reference = floats(File.read!(Path.join(folder, "terrain.reference")))
    deviation = deviation(heights, width, height, reference)

    IO.puts(
      "#{width} x #{height} heights of #{octaves} octaves: #{milliseconds(run_us)} in the worker; " <>
        "#{grouped(length(reference))} of them beside opensimplex: #{scientific(deviation)} apart at most"
    )

    {png, _run_us} = Demo.Bridge.submit(bridge, :worldgen, request, %{opcode: 1})
    Demo.Picture.save(png, folder, "terrain.png")

    what = "worldgen: #{grouped(length(reference))} heights"
    allowed = scientific(@rounding)
    [{what, "PyPI's opensimplex", scientific(deviation), allowed, deviation <= @rounding}]
  end

  defp deviation(heights, width, height, reference) do
    places = for y <- 0..(height - 1)//@every, x <- 0..(width - 1)//@every, do: y * width + x

    places
    |> Enum.zip_with(reference, fn place, expected ->
      <<value::float-little>> = binary_part(heights, 8 * place, 8)
      abs(value - expected)
    end)
    |> Enum.max()
  end

  defp floats(binary), do: for(<<value::float-little <- binary>>, do: value)
end
