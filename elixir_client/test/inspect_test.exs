Code.require_file("support/looks.exs", __DIR__)

defmodule Ringbridge.InspectTest do
  @moduledoc "What is shown of a bridge, from its answers to the screen; no bridge is needed for it."
  use ExUnit.Case, async: true

  alias Ringbridge.{Error, Inspect, Looks}
  alias Ringbridge.Inspect.{Jobs, Json, Page, Screen, Table, Units, Watch}

  doctest Ringbridge.Inspect.Units
  doctest Ringbridge.Inspect.Json
  doctest Ringbridge.Inspect.Table

  defp text(lines), do: Enum.map_join(lines, "\n", &Table.render(&1, false))

  describe "rates" do
    test "are differences of two looks, by the time between them" do
      then = Looks.look()

      relay = %{
        then.status.relay
        | answered: %{ok: 300},
          refused: %{overloaded: 20},
          bytes_in: 4_096
      }

      roles = [Looks.role("echo", %{accepted: 300, answered: %{ok: 300}}), Looks.role("new")]
      status = Looks.status(%{relay: relay, roles: roles, uptime_ms: 67_000})
      rates = Inspect.rates(then, %{then | status: status, at_us: 2_000_000})

      assert %{over_ms: 2_000, answers: 150.0, refusals: 10.0, bytes_in: 2_048.0} = rates
      assert rates.roles == %{"echo" => %{answers: 150.0, refusals: 0.0}}
    end

    test "there are none before a second look, nor across a restart of the bridge" do
      then = Looks.look()
      later = %{then | at_us: 1_000_000}
      assert Inspect.rates(nil, then) == nil
      assert Inspect.rates(then, %{later | status: Looks.status(%{os_pid: 4_712})}) == nil
      # Another one under the same process id, in a container say.
      assert Inspect.rates(then, %{later | status: Looks.status(%{uptime_ms: 1_000})}) == nil
    end

    test "a role that went and came again has none" do
      then = Looks.look(status: Looks.status(%{roles: [Looks.role("echo", %{accepted: 9})]}))
      now = %{Looks.look() | at_us: 1_000_000}
      assert Inspect.rates(then, now).roles == %{}
    end
  end

  describe "one role" do
    test "has its own workers, links and errors" do
      link = %{id: 1, from: 1, from_role: :echo, to: 2, to_role: :sleep, since_ms: 0}
      error = %{at: "2026", worker: 7, role: "sleep", why: "killed"}
      look = Looks.look(links: [link], status: Looks.status(%{recent_errors: [error]}))

      assert {:ok, echo} = Inspect.only(look, "echo")
      assert [%{name: "echo"}] = echo.status.roles
      assert [%{id: 1}] = echo.status.workers
      assert echo.status.recent_errors == []
      assert echo.links == [link]
      assert Inspect.only(look, "paint") == :error
      assert Inspect.only(look, nil) == {:ok, look}
    end
  end

  describe "a page" do
    test "aligns its columns and gives numbers their units" do
      roles = [Looks.role("a_long_name", %{queued: 1_234}), Looks.role("b")]
      look = Looks.look(status: Looks.status(%{roles: roles}))
      [_title, heading, first, second] = look |> Page.roles(nil) |> then(&[[] | &1])
      [heading, first, second] = Enum.map([heading, first, second], &Table.render(&1, false))

      assert first =~ "1,234 of 4,096"
      assert String.length(heading) == String.length(first)
      assert String.length(first) == String.length(second)
      {at, _} = :binary.match(heading, "state")
      for line <- [first, second], do: assert(String.slice(line, at, 7) == "running")
    end

    test "says what nobody knows yet, and nothing instead of it" do
      worker =
        Looks.worker(3, :echo, %{
          state: :starting,
          health: nil,
          link: nil,
          os_pid: nil,
          kit: nil,
          breaker: nil,
          credit: nil,
          in_flight: nil,
          done: nil,
          lost: nil,
          silent_ms: nil
        })

      look = Looks.look(status: Looks.status(%{workers: [worker]}))
      page = text(Page.lines(look, nil))
      assert page =~ "now: not known before a second look"
      assert page =~ ~r/3  echo 0  starting  -  +-  -  +-  +-  +-  +-  +-  +-  +-  +0/
    end

    test "shows a bridge that is older than what it shows" do
      status = Map.drop(Looks.status(), [:layout, :recent_errors])
      roles = Enum.map(status.roles, &Map.delete(&1, :depth_max))
      page = text(Page.lines(Looks.look(status: %{status | roles: roles}), nil))
      assert page =~ "bridge@127.0.0.1"
      refute page =~ "layout"
    end

    test "tells breakers, refusals, drains, upgrades, and who is silent" do
      role =
        Looks.role("echo", %{
          state: :draining,
          breaker: :open,
          deferred: 3,
          overloaded_by: %{role_depth: 5, pool: 0},
          upgrade: %{state: :rolled_back, replaced: 1, of: 2, why: "it ended"}
        })

      workers = [
        Looks.worker(1, :echo, %{silent_ms: 61_000}),
        Looks.worker(2, :echo, %{breaker: :half_open})
      ]

      look = Looks.look(status: Looks.status(%{roles: [role], workers: workers}))

      assert Inspect.noteworthy(look) == [
               "echo: it drains: `ringbridge resume echo` takes jobs again",
               "echo: its circuit breaker is open: its workers failed too often of late",
               "echo: 3 jobs wait outside its queue (deferred)",
               "echo: jobs refused as overloaded since its start, by rule: role_depth 5",
               "echo: upgrade rolled_back, 1 of 2 workers replaced: it ended",
               "worker 1 (echo): no sign of life for 61 s: `ringbridge restart 1` replaces it",
               "worker 2 (echo): its circuit breaker is half_open"
             ]

      assert Inspect.noteworthy(Looks.look()) == []
    end

    test "tells lanes over shared memory, open ones and such as end" do
      lane = %{lane: 1, node: "web@h", os_pid: 7, uid: 0, state: "open", age_ms: 65_000}
      open = Map.merge(lane, %{requests: 15_261, answered: 15_245, open: 16, lent_blocks: 2})
      ending = %{lane | lane: 2, state: "granted"}
      page = text(Page.lines(Looks.look(status: Looks.status(%{lanes: [open, ending]})), nil))
      assert page =~ ~r/1  web@h +7  open +15,261 +15,245 +16 +2  0:01:05/
      assert page =~ ~r/2  web@h +7  granted +- +- +- +-  0:01:05/
    end

    test "obeys nothing that a worker wrote" do
      error = %{
        at: "2026",
        worker: 7,
        role: "echo",
        why: "it said \e[2J\n\e]0;owned\a" <> <<255>>
      }

      page = text(Page.lines(Looks.look(status: Looks.status(%{recent_errors: [error]})), nil))
      assert page =~ "it said [2J ]0;owned"
      refute page =~ "\e"
    end
  end

  describe "the screen" do
    test "is written over, never cleared but at first" do
      lines = [["one"], [{:red, "two"}]]
      first = IO.iodata_to_binary(Screen.frame(lines, {80, 24}, true, false))
      next = IO.iodata_to_binary(Screen.frame(lines, {80, 24}, false, false))
      assert first == "\e[2J\e[H" <> "one\e[K\r\ntwo\e[K\e[J"
      assert next == "\e[Hone\e[K\r\ntwo\e[K\e[J"
    end

    test "has no line longer, and no more of them, than the terminal" do
      lines = for n <- 1..50, do: ["#{n} ", {:red, String.duplicate("x", 100)}]
      frame = IO.iodata_to_binary(Screen.frame(lines, {40, 10}, false, false))
      shown = frame |> String.replace(~r/\e\[[A-Z]/, "") |> String.split("\r\n")
      assert length(shown) == 10
      assert Enum.at(shown, 0) == "1 " <> String.duplicate("x", 37) <> "~"
      assert List.last(shown) =~ "41 lines more"
    end

    test "styles count for no width" do
      assert Table.width([{:red, "abc"}, "d"]) == 4
      assert Table.render([{:red, "abc"}, "d"], true) =~ "\e[31mabc\e[0md"
      assert Table.render([{:red, "abc"}, "d"], false) == "abcd"
    end
  end

  describe "watching" do
    @gone {:error, %Error{reason: {:down, :noconnection}, node: :"bridge@127.0.0.1"}}

    test "a bridge that restarts stays on the screen, and comes back without rates of the other life" do
      watch = Watch.new(:"bridge@127.0.0.1", nil)
      watch = Watch.turn(watch, {:ok, Looks.look()}, 0)
      watch = Watch.turn(watch, {:ok, Looks.look(at_us: 1_000_000)}, 1_000_000)
      assert watch.rates.answers == 0.0

      watch = Watch.turn(watch, @gone, 2_000_000)
      watch = Watch.turn(watch, @gone, 5_000_000)
      page = text(Watch.lines(watch, 5_000_000))
      assert page =~ "cannot be reached any more. Trying again, for 0:00:03 now"
      assert page =~ "echo 0"

      back = Looks.look(status: Looks.status(%{os_pid: 4_712, uptime_ms: 10}), at_us: 6_000_000)
      watch = Watch.turn(watch, {:ok, back}, 6_000_000)
      assert watch.rates == nil
      refute text(Watch.lines(watch, 6_000_000)) =~ "Trying again"
    end

    test "a role that goes is said, and found again" do
      watch = Watch.turn(Watch.new(:"bridge@127.0.0.1", "echo"), {:ok, Looks.look()}, 0)
      gone = Looks.look(status: Looks.status(%{roles: [Looks.role("sleep")]}))
      watch = Watch.turn(watch, {:ok, gone}, 1_000_000)
      assert text(Watch.lines(watch, 1_000_000)) =~ "has no role echo"
      watch = Watch.turn(watch, {:ok, Looks.look()}, 2_000_000)
      assert watch.error == nil
    end
  end

  describe "jobs" do
    @job %{job: 5, role: "sleep", state: :queued, worker: nil, age_ms: 10}

    test "stand in a table, with what their callers noted" do
      jobs = [@job, %{@job | job: 12, state: :placed, worker: 3} |> Map.put(:meta, %{a: "\e[2J"})]
      assert [_heading, first, second] = jobs |> Jobs.lines() |> text() |> String.split("\n")
      assert first == "  5  sleep  queued       -  10 ms  -"
      assert second =~ "12  sleep  placed       3  10 ms  %{a:" and not (second =~ "\e")
      assert text(Jobs.lines([])) == "no job waits or runs"
    end

    test "that come, are placed and go are told once each" do
      placed = %{@job | state: :placed, worker: 3, age_ms: 20}
      other = %{@job | job: 6}
      assert text(Jobs.changes([], [@job])) == "+ job 5 queued, 10 ms old"
      assert text(Jobs.changes([@job], [placed])) == "  job 5 placed at worker 3, 20 ms old"
      assert Jobs.changes([placed], [%{placed | age_ms: 30}]) == []

      assert text(Jobs.changes([placed], [other])) ==
               "+ job 6 queued, 10 ms old\n- job 5 has ended, seen for 20 ms"
    end

    test "of a while are summed by what they were answered" do
      then = %{name: "echo", answered: %{ok: 5, job_failed: 1}, refused: %{overloaded: 2}}
      now = %{name: "echo", answered: %{ok: 1_505, job_failed: 1}, refused: %{overloaded: 3}}

      assert text([Jobs.summary(then, now, 2_000)]) ==
               "echo: 1,500 answered in 2 s: ok 1,500; refused: overloaded 1"

      assert text([Jobs.summary(then, then, 500)]) == "echo: 0 answered in 500 ms"
    end
  end

  test "JSON of a look is what the bridge said, without pids" do
    json = Looks.look() |> Inspect.to_map(nil) |> Json.encode() |> IO.iodata_to_binary()
    assert json =~ ~s("uptime_ms":65000)
    assert json =~ ~s("rates":null)
    refute json =~ "#PID"
  end

  test "units fit into a rate that nobody knows" do
    assert Units.rate(nil) == "-"
  end
end
