# elixir demo.exs BRIDGE FOLDER ROLE...
#
# Gives work to native workers by plain GenServer.call, holds each answer against a source outside this project, and
# says by how much they differ. Nothing here is ours but the shape of a request: no library, no NIF, no flags.
#
# FOLDER is what `python -m integration.demo` prepared; the pictures are written there, too.

for file <- ~w(bridge text picture solar_system sea_route terrain flights small_calls) do
  Code.require_file("#{file}.exs", __DIR__)
end

defmodule Demo do
  import Demo.Text

  @shows %{
    "simulation" => Demo.SolarSystem,
    "pathfinding" => Demo.SeaRoute,
    "worldgen" => Demo.Terrain,
    "analytics" => Demo.Flights
  }

  def main([bridge, folder | roles]) do
    bridge = String.to_atom(bridge)
    Demo.Bridge.join(bridge)

    # Each show prints what it did and returns what it compared: {what, with, deviation, allowed, within?}.
    checks = Enum.flat_map(roles, &Map.fetch!(@shows, &1).show(bridge, folder))
    Demo.SmallCalls.show(bridge)

    title("What was compared with sources outside this project")
    table([32, 24, -26, -20], ["", "with", "largest deviation", "allowed"], rows(checks))
    verdict(for {what, _, _, _, false} <- checks, do: what)
  end

  defp rows(checks) do
    for {what, with_what, deviation, allowed, within?} <- checks do
      [what, with_what, deviation, if(within?, do: allowed, else: "#{allowed}: BEYOND")]
    end
  end

  defp verdict([]), do: IO.puts("\nEvery answer is within what it is allowed.")
  defp verdict(beyond), do: Demo.Bridge.stop("beyond what is allowed: #{Enum.join(beyond, ", ")}")
end

Demo.main(System.argv())
