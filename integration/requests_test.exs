defmodule Ringbridge.RequestsTest do
  @moduledoc "Requests that break a rule: an answer with the rule in words, and nothing else suffers."
  use Ringbridge.BridgeCase

  # Whatever was sent, the next good call works, and exactly one answer came.
  setup %{node: node} do
    on_exit(fn -> assert {:ok, "after"} = submit(node, :echo, "after") end)
  end

  defp refused(node, request, words) do
    assert {:error, {:bad_request, why}} = call(node, request)
    assert is_binary(why) and String.valid?(why)
    assert why =~ words
    refute_receive _, 20
  end

  describe "an unknown request" do
    test "is refused, saying what is known", %{node: node} do
      for request <- [:hello, {:hello, 1}, "hello", 17, [], {}, %{a: 1}, {:submit}, self()] do
        refused(node, request, ~r/known|takes|submit/)
      end
    end

    test "of the registry is refused too", %{node: node} do
      assert {:error, {:bad_request, why}} =
               GenServer.call({Ringbridge.WorkerRegistry, node}, {:explode, 1})

      assert why =~ ":list"
    end
  end

  describe "an unknown role" do
    test "is refused, by atom and by binary", %{node: node} do
      for role <- [:no_such_role, "no such role", String.duplicate("r", 200)] do
        refused(node, {:submit, role, "x"}, ~r/role/)
        refused(node, {:submit, role, "x", %{detail: true}}, ~r/role/)
      end
    end

    test "is refused also when a large payload comes with it", %{node: node} do
      refused(node, {:submit, :no_such_role, :rand.bytes(3_000_000)}, ~r/no_such_role/)
    end
  end

  describe "a malformed submit" do
    test "names what must be there", %{node: node} do
      refused(node, {:submit, :echo}, ~r/submit/)
      refused(node, {:submit, :echo, "x", %{}, :more}, ~r/submit/)
      refused(node, {:submit, 5, "x"}, ~r/role.*atom or a binary.*5/)
      refused(node, {:submit, ~c"echo", "x"}, ~r/role.*atom or a binary/)
    end

    test "names a key that it does not know", %{node: node} do
      refused(node, {:submit, :echo, "x", %{timeuot: 5}}, ~r/timeuot.*timeout/)
      refused(node, {:submit, :echo, "x", [timeuot: 5]}, ~r/timeuot.*timeout/)
    end

    test "names an option's rule and value", %{node: node} do
      for {options, words} <- [
            {%{timeout: -1}, ~r/timeout.*-1/},
            {%{timeout: "5"}, ~r/timeout/},
            {%{timeout: 1.5}, ~r/timeout/},
            {%{opcode: 65_536}, ~r/opcode.*65535.*65536/},
            {%{opcode: :one}, ~r/opcode.*:one/},
            {%{priority: 7}, ~r/priority.*7/},
            {%{priority: :urgent}, ~r/priority.*:urgent/},
            {%{detail: :maybe}, ~r/detail.*:maybe/},
            {%{trace: "00-nonsense"}, ~r/trace/},
            {%{"detail" => true}, ~r/key.*atom/},
            {:detail, ~r/map or a keyword list/},
            {[:detail], ~r/key, value|pair/},
            {"detail", ~r/map or a keyword list/},
            {{:detail, true}, ~r/map or a keyword list/}
          ] do
        refused(node, {:submit, :echo, "x", options}, words)
        refused(node, {:submit, :echo, :rand.bytes(100_000), options}, words)
      end
    end

    test "is refused when its list of options is improper", %{node: node} do
      refused(node, {:submit, :echo, "x", [{:detail, true} | :tail]}, ~r/list/)
    end
  end

  describe "a payload over the role's limit" do
    test "is answered with the limit", %{node: node} do
      limit = 65_536
      payload = :rand.bytes(limit)
      assert {:ok, ^payload} = submit(node, :small, payload)

      for size <- [limit + 1, 2 * limit, 20 * limit] do
        assert {:error, {:too_large, ^limit}} = submit(node, :small, :rand.bytes(size))
      end
    end

    test "counts a term by its external size", %{node: node} do
      assert {:error, {:too_large, 65_536}} = submit(node, :small, Enum.to_list(1..100_000))
    end

    test "is not kept in memory on its way", %{bridge: bridge, node: node} do
      os_pid = Program.os_pid(bridge.program)
      before = Proc.resident_bytes(os_pid)
      payload = :binary.copy(<<7>>, 100 * 1_048_576)
      assert {:error, {:too_large, 65_536}} = submit(node, :small, payload, %{}, 30_000)
      assert Proc.resident_bytes(os_pid) - before < 16 * 1_048_576
    end

    test "leaves its connection and the others' order intact", %{node: node} do
      1..60
      |> Task.async_stream(
        fn n ->
          if rem(n, 3) == 0 do
            assert {:error, {:too_large, _}} = submit(node, :small, :rand.bytes(300_000))
          else
            payload = :rand.bytes(n * 1_000)
            assert {:ok, ^payload} = submit(node, :small, payload)
          end
        end,
        max_concurrency: 20,
        timeout: 20_000
      )
      |> Enum.each(&assert match?({:ok, _}, &1))
    end
  end

  describe ":stats" do
    test "counts what was accepted and how it was answered", %{node: node} do
      before = stats(node)
      assert {:ok, _} = submit(node, :echo, "x")
      assert {:ok, _} = submit(node, :echo, "y")
      assert {:error, {:too_large, _}} = submit(node, :small, :rand.bytes(70_000))
      after_ = stats(node)
      assert after_.accepted - before.accepted >= 2
      assert after_.in_flight == 0
      assert answered(after_, :ok) - answered(before, :ok) == 2
      assert after_.refused.too_large - before.refused.too_large == 1
    end
  end

  describe "a job's own timeout" do
    test "is answered when it passes, in the worker", %{node: node} do
      {ms, answer} = timed(fn -> submit(node, :sleep, "600000", %{timeout: 150}) end)
      assert answer == {:error, :deadline_exceeded}
      assert ms >= 140
    end

    test "is answered when it passes, in the queue", %{node: node} do
      first = Task.async(fn -> submit(node, :sleep, "600000") end)
      await_busy(node, :sleep)
      {ms, answer} = timed(fn -> submit(node, :sleep, "0", %{timeout: 100}) end)
      assert answer == {:error, :deadline_exceeded}
      assert ms >= 90
      assert Task.yield(first, 0) == nil
      Task.shutdown(first, :brutal_kill)
      await_idle(node)
    end
  end

  defp answered(stats, reason), do: Map.get(stats.answered, reason, 0)
end
