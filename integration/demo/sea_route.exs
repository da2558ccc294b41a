defmodule Demo.SeaRoute do
  @moduledoc """
  The shortest ways between ports that touch no land, by a Rust worker on the real coastline.

  Held against the distances of LINER-LIB's dist_dense.csv (Brouer, Alvarez, Plum, Pisinger and Sigurd,
  Transportation Science 48(2), 2014), made from Pub. 151, "Distances Between Ports"; nautical miles.
  """
  import Demo.Text

  @ports %{
    "Rotterdam" => {51.91667, 4.5},
    "Singapore" => {1.2812, 103.8437},
    "Cape Town" => {-33.9166, 18.416666},
    "Yokohama" => {35.45, 139.55},
    "Oakland" => {37.81105, -122.26795},
    "Buenos Aires" => {-34.612, -58.466667},
    "Los Angeles" => {34.0522, -118.2428},
    "Sydney" => {-33.888888, 151.2}
  }
  @published [
    {"Rotterdam", "Singapore", 11_760, "by the Cape: canals are closed"},
    {"Rotterdam", "Cape Town", 6_180, ""},
    {"Yokohama", "Oakland", 4_541, ""},
    {"Sydney", "Los Angeles", 6_511, "across 180 degrees"},
    {"Buenos Aires", "Los Angeles", 7_259, "by the Strait of Magellan"}
  ]
  # The shortest way hugs the coast and a ship does not (docs/pathfinding.md).
  @shorter -0.035
  @longer 0.005

  def show(bridge, folder) do
    title("Ways by sea, by a worker in Rust")

    found =
      @published
      |> Enum.map(&Task.async(fn -> {&1, route(bridge, &1)} end))
      |> Task.await_many(120_000)

    rows =
      for {{from, to, published, how}, {miles, points, run_us}} <- found do
        numbers = [grouped(published), decimals(miles, 1), percent(miles / published - 1)]
        [from, to | numbers] ++ ["#{length(points)}", milliseconds(run_us), "  #{how}"]
      end

    header = ["from", "to", "table nm", "worker nm", "deviation", "points", "run", ""]
    table([14, 13, -10, -11, -11, -8, -11, 0], header, rows)
    print_turns(found)

    {answer, _run_us} =
      Demo.Bridge.submit(bridge, :pathfinding, ends("Rotterdam", "Singapore"), %{opcode: 1})

    Demo.Picture.save(answer, folder, "route.png")

    deviations = for {{_, _, published, _}, {miles, _, _}} <- found, do: miles / published - 1
    worst = Enum.max_by(deviations, &abs/1)
    within? = Enum.all?(deviations, &(&1 >= @shorter and &1 <= @longer))
    allowed = "#{percent(@shorter)} to #{percent(@longer)}"
    what = "pathfinding: #{length(found)} ways"
    [{what, "Pub. 151, by LINER-LIB", percent(worst), allowed, within?}]
  end

  defp ends(from, to), do: {Map.fetch!(@ports, from), Map.fetch!(@ports, to)}

  defp route(bridge, {from, to, _published, _how}) do
    {{miles, points}, run_us} = Demo.Bridge.submit(bridge, :pathfinding, ends(from, to))
    {miles, points, run_us}
  end

  defp print_turns([{{from, to, _, _}, {_, points, _}} | _]) do
    {south, east} = Enum.min(points)

    IO.puts("""
    #{from} to #{to} turns furthest south at #{decimals(-south, 2)} S, #{decimals(east, 2)} E; \
    Cape Agulhas lies at 34.83 S, 20.00 E\
    """)
  end
end
