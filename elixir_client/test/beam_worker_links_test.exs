defmodule Ringbridge.BeamWorkerLinksTest do
  # What a loop knows of its slots' links, without a bridge.
  use ExUnit.Case, async: true

  alias Ringbridge.BeamWorkerLoop.Links

  # A loop that has lost links six times, the last one so long ago.
  defp lose(ago_ms) do
    loop = %{
      links: %{0 => {self(), 5}},
      links_lost: 6,
      link_lost_ms: System.monotonic_time(:millisecond) - ago_ms,
      counts: Links.counts(1),
      options: %{role: "r", lane: :auto, slots: 1},
      desk: self()
    }

    loop = Links.ended(0, 5, {:lost, "a test"}, loop)
    assert_received {:ringbridge_worker, :no_link, %{slot: 0, worker: 5, why: "a test"}}
    loop
  end

  test "the pause before a link is asked for doubles with each that is lost" do
    assert %{links: links, links_lost: 7} = lose(60_000)
    assert links == %{}
  end

  test "a loop that lost its links long ago asks again as soon as one that never did" do
    assert %{links_lost: 1} = lose(3_600_000)
  end
end
