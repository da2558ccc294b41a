defmodule Demo.Flights do
  @moduledoc """
  Questions about the 336,776 flights that left New York in 2013, answered by a Python worker.

  The folder has flights.etf: what DuckDB says to the same questions in SQL (prepare.py), by their names.
  """
  import Demo.Text

  @questions [
    {"late", "The airlines with the most departures over two hours late, from JFK and LaGuardia",
     %{
       where: [{:dep_delay, :>, 120}, {:origin, :in, ["JFK", "LGA"]}],
       group_by: [:carrier],
       select: [:count, {:median, :dep_delay}],
       order_by: [{1, :desc}],
       limit: 5
     }},
    {"airports", "How late they arrived, minutes, by the airport that they left",
     %{
       group_by: [:origin],
       select: [
         :count,
         {:mean, :arr_delay},
         {:std, :arr_delay},
         {:quantile, :arr_delay, 0.99}
       ],
       order_by: [{0, :asc}]
     }},
    {"days", "The three worst days",
     %{
       group_by: [:month, :day],
       select: [:count, {:mean, :dep_delay}],
       order_by: [{3, :desc}],
       limit: 3
     }}
  ]
  # Sums of floats depend on their order: DuckDB's does on its threads.
  @rounding 1.0e-9

  def show(bridge, folder) do
    title("336,776 flights from New York, by a worker in Python")
    duckdb = folder |> Path.join("flights.etf") |> File.read!() |> :erlang.binary_to_term()
    deviations = Enum.flat_map(@questions, &ask(bridge, &1, duckdb))
    worst = Enum.max(deviations)
    what = "analytics: #{length(@questions)} questions"

    [
      {what, "DuckDB on the same CSV", scientific(worst), scientific(@rounding),
       worst <= @rounding}
    ]
  end

  defp ask(bridge, {name, text, query}, duckdb) do
    {%{"columns" => columns, "rows" => rows}, run_us} =
      Demo.Bridge.submit(bridge, :analytics, query)

    theirs = Map.fetch!(duckdb, name)
    IO.puts("\n#{text}: #{milliseconds(run_us)}")

    lines =
      for {row, expected} <- Enum.zip(rows, theirs), {who, values} <- both(row, expected) do
        [who | Enum.map(values, &written/1)]
      end

    widths = Enum.map(columns, &(-max(String.length(&1) + 2, 16)))
    table([8 | widths], ["" | columns], lines)

    if length(rows) != length(theirs),
      do: Demo.Bridge.stop("#{name}: #{length(rows)} rows, DuckDB has #{length(theirs)}")

    for {row, expected} <- Enum.zip(rows, theirs),
        {ours, their} <- Enum.zip(row, expected),
        do: apart(name, ours, their)
  end

  defp both(row, expected), do: [{"worker", row}, {"DuckDB", expected}]

  defp written(value) when is_float(value), do: decimals(value, 6)
  defp written(value), do: "#{value}"

  # Relative, for numbers; words and counts are equal or it is no answer to the question.
  defp apart(_name, ours, ours), do: 0.0

  defp apart(_name, ours, theirs) when is_float(ours) and is_float(theirs),
    do: abs(ours - theirs) / max(abs(theirs), 1.0)

  defp apart(name, ours, theirs),
    do: Demo.Bridge.stop("#{name}: #{inspect(ours)}, DuckDB has #{inspect(theirs)}")
end
