defmodule Ringbridge.RouteTest do
  @moduledoc "Which of several bridges is asked, by what stands in the table."
  use ExUnit.Case, async: true

  alias Ringbridge.Route

  setup do
    {:ok, table: :ets.new(:route, [:public])}
  end

  # name => {status, distance}, in the order of the option :nodes.
  defp table(table, rows) do
    for {{node, {status, distance}}, epoch} <- Enum.with_index(rows),
        do: :ets.insert(table, {{:bridge, node}, self(), status, distance, epoch})

    Keyword.keys(rows)
  end

  defp pick(table, nodes, tried \\ []) do
    with {node, _epoch} <- Route.pick(table, nodes, :echo, tried), do: node
  end

  defp near(us), do: Route.distance(true, us)
  defp far(us), do: Route.distance(false, us)

  test "one that is up, before one that is not there or not yet known", %{table: table} do
    assert pick(table, [:a@h, :b@h]) == nil
    nodes = table(table, a@h: {:down, near(1)}, b@h: {:up, far(90_000)})
    assert pick(table, nodes ++ [:c@h]) == :b@h
    assert pick(table, [:a@h]) == nil
  end

  test "this host's before others, then the shorter way, then the order of the list", %{
    table: table
  } do
    nodes =
      table(table,
        a@h: {:up, far(40)},
        b@h: {:up, near(900)},
        c@h: {:up, near(70)},
        d@h: {:up, near(90)}
      )

    assert pick(table, nodes) == :c@h
    assert pick(table, Enum.reverse(nodes)) == :d@h
    assert pick(table, [:a@h, :b@h]) == :b@h
  end

  test "one that does not answer its probes goes last, and is asked when it is the only one", %{
    table: table
  } do
    nodes = table(table, a@h: {:up, near(:late)}, b@h: {:up, far(80_000)})
    assert pick(table, nodes) == :b@h
    assert pick(table, nodes, [:b@h]) == :a@h
  end

  test "what the call has tried is not asked again: a bridge, or a connection that was lost", %{
    table: table
  } do
    nodes = table(table, a@h: {:up, near(1)}, b@h: {:up, near(1)})
    assert pick(table, nodes, [:a@h]) == :b@h
    assert pick(table, nodes, [:a@h, :b@h]) == nil
    {:a@h, epoch} = Route.pick(table, nodes, :echo, [])
    assert pick(table, nodes, [{:a@h, epoch}]) == :b@h
    # It is back: that is another connection.
    assert pick(table, nodes, [{:a@h, epoch + 100}]) == :a@h
  end

  test "one that takes no jobs of a role goes last, for that role and for a while", %{
    table: table
  } do
    nodes = table(table, a@h: {:up, near(1)}, b@h: {:up, far(1)})
    Route.shun(table, :a@h, :echo)
    assert pick(table, nodes) == :b@h
    assert {:a@h, _} = Route.pick(table, nodes, :other, [])
    assert pick(table, nodes, [:b@h]) == :a@h
    # As if the while were over.
    :ets.insert(table, {{:shunned, :a@h, :echo}, System.monotonic_time(:millisecond) - 1})
    assert pick(table, nodes) == :a@h
  end
end
