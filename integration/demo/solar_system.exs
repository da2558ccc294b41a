defmodule Demo.SolarSystem do
  @moduledoc """
  The solar system, integrated by a C worker for a month or a year and held against JPL's ephemeris DE421.

  `solar/` in the folder has payloads, and index.terms with JPL's answers (integration/solar/states.py).
  """
  import Demo.Text

  @au_km 149_597_870.7
  @sun 10
  @colours %{
    199 => {190, 180, 170},
    299 => {240, 200, 110},
    399 => {90, 160, 255},
    4 => {240, 100, 70}
  }

  def show(bridge, folder) do
    title("The solar system, by a worker in C")
    {bodies, jobs} = read(Path.join(folder, "solar"))
    results = jobs |> Enum.map(&Task.async(fn -> run(bridge, &1) end)) |> Task.await_many(300_000)

    year = Enum.find(results, fn {job, _} -> job.name == "2000-01-01 +365.25d" end)
    print_case(year, bodies)
    print_summary(results, bodies)
    draw_orbits(bridge, folder, elem(year, 0))

    {share, id, job} = results |> Enum.map(&worst/1) |> Enum.max()
    what = "#{length(results)} runs, #{length(bodies)} bodies"
    worst = "#{round(share * 100)} %: #{name(bodies, id)} #{job.start}"
    [{"simulation: #{what}", "JPL's DE421", worst, "the derived bound", share <= 1}]
  end

  defp read(folder) do
    {:ok, terms} = :file.consult(Path.join(folder, "index.terms"))
    {:bodies, bodies} = List.keyfind(terms, :bodies, 0)

    jobs =
      for {:simulation, job} <- terms do
        %{job | payload: File.read!(Path.join(folder, job.payload))}
      end

    {bodies, jobs}
  end

  defp run(bridge, job) do
    {answer, run_us} = Demo.Bridge.submit(bridge, :simulation, job.payload)
    {job, Map.put(decode(answer), :run_us, run_us)}
  end

  # docs/simulation.md, "Payload": little endian, a header of 48 bytes, then 56 for each body.
  defp decode(
         <<1::16-little, count::16-little, _flags::32, header::binary-size(40), rest::binary>>
       ) do
    <<_end_jd::float-little, _span::float-little, energy_error::float-little, steps::64-little,
      _evaluations::64-little>> = header

    positions =
      for <<id::32-little, _zero::32, x::float-little, y::float-little, z::float-little,
            _velocity::binary-size(24) <- rest>>,
          into: %{},
          do: {id, {x, y, z}}

    ^count = map_size(positions)
    %{positions: positions, energy_error: energy_error, steps: steps}
  end

  defp error_km(job, answer, id) do
    {x, y, z} = Map.fetch!(answer.positions, id)
    {rx, ry, rz, _, _, _} = Map.fetch!(job.reference, id)
    :math.sqrt(square(x - rx) + square(y - ry) + square(z - rz))
  end

  defp square(x), do: x * x

  # The body that came closest to its bound, or went beyond.
  defp worst({job, answer}) do
    job.bound_km
    |> Enum.map(fn {id, km} -> {error_km(job, answer, id) / km, id, job} end)
    |> Enum.max()
  end

  defp name(bodies, id), do: bodies |> List.keyfind(id, 0) |> elem(1)

  ## Tables

  defp print_case({job, answer}, bodies) do
    IO.puts("""
    #{job.start} + #{job.span_days} days, #{model(job)}: #{answer.steps} steps, \
    #{milliseconds(answer.run_us)} in the worker, energy kept to #{scientific(answer.energy_error)}
    Positions on #{job.end} (JD #{job.start_jd + job.span_days} TDB), from the solar system's barycentre, \
    equator of J2000, in km\
    """)

    rows =
      for {id, name} <- bodies, {who, position, more} <- both(job, answer, id) do
        [if(who == "worker", do: name, else: ""), who | position ++ more]
      end

    widths = [9, 9, -18, -18, -18, -11, -10]
    table(widths, ["", "", "x", "y", "z", "error km", "bound km"], rows)
  end

  defp both(job, answer, id) do
    {x, y, z} = Map.fetch!(answer.positions, id)
    {rx, ry, rz, _, _, _} = Map.fetch!(job.reference, id)
    error = [figures(error_km(job, answer, id)), figures(Map.fetch!(job.bound_km, id))]

    [
      {"worker", Enum.map([x, y, z], &tenths/1), ["", ""]},
      {"JPL", Enum.map([rx, ry, rz], &tenths/1), error}
    ]
  end

  defp print_summary(results, bodies) do
    IO.puts("\nAll runs, and in each the body that came closest to its bound")
    header = ["from", "to", "model", "body", "error km", "bound km", "of bound", "run"]

    rows =
      for {job, answer} = result <- results, {share, id, _} = worst(result) do
        error = figures(error_km(job, answer, id))
        numbers = [error, figures(job.bound_km[id]), "#{round(share * 100)} %"]
        words = [job.start, job.end, model(job), name(bodies, id)]
        words ++ numbers ++ [milliseconds(answer.run_us)]
      end

    table([12, 12, 28, 9, -10, -10, -10, -9], header, rows)
  end

  defp model(%{relativistic: true}), do: "Newton and Einstein (1PN)"
  defp model(%{relativistic: false}), do: "Newton, point masses"

  defp tenths(value) do
    rounded = round(abs(value) * 10)
    sign = if value < 0 and rounded > 0, do: "-", else: ""
    "#{sign}#{grouped(div(rounded, 10))}.#{rem(rounded, 10)}"
  end

  ## A picture: the same start with other spans, a hundred and more jobs at once

  @points 120
  @size 800

  defp draw_orbits(bridge, folder, job) do
    <<head::binary-size(16), _span::float-little, rest::binary>> = job.payload

    dots =
      1..@points
      |> Task.async_stream(
        fn point ->
          span = 687.0 * point / @points
          payload = <<head::binary, span::float-little, rest::binary>>
          {answer, _run_us} = Demo.Bridge.submit(bridge, :simulation, payload)
          dots(decode(answer).positions)
        end,
        max_concurrency: 16,
        ordered: false
      )
      |> Enum.flat_map(fn {:ok, dots} -> dots end)

    sun = spot({0.0, 0.0}, 6, {255, 240, 160})
    IO.puts("\nMercury to Mars in the 687 days from #{job.start}, #{@points} jobs more:")

    (sun ++ dots)
    |> Map.new()
    |> Demo.Picture.of_dots(@size)
    |> Demo.Picture.save(folder, "orbits.png")
  end

  # Seen from the north of the ecliptic, the Sun in the middle.
  defp dots(positions) do
    {sx, sy, sz} = positions[@sun]

    Enum.flat_map(@colours, fn {id, colour} ->
      {x, y, z} = positions[id]
      tilt = 23.4393 * :math.pi() / 180
      up = (y - sy) * :math.cos(tilt) + (z - sz) * :math.sin(tilt)
      spot({(x - sx) / @au_km, up / @au_km}, 2, colour)
    end)
  end

  # 1.8 astronomical units from the middle to the edge.
  defp spot({x, y}, radius, colour) do
    {column, row} = {round(@size / 2 * (1 + x / 1.8)), round(@size / 2 * (1 - y / 1.8))}

    for dx <- -radius..radius,
        dy <- -radius..radius,
        dx * dx + dy * dy <= radius * radius,
        do: {{column + dx, row + dy}, colour}
  end
end
