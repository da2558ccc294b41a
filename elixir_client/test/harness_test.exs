defmodule Ringbridge.HarnessTest do
  @moduledoc "The harness over loopback: what holds is said to hold, and what does not is found."
  use ExUnit.Case, async: true

  alias Ringbridge.Harness
  alias Ringbridge.Harness.Payload

  @moduletag capture_log: true, timeout: 180_000

  doctest Harness

  test "every check has been made, and holds" do
    test = self()
    report = Harness.run(seconds: 0.3, seed: 11, say: &send(test, {:said, &1}))
    assert for(check <- report.checks, check.status == :failed, do: check) == []
    assert [%{name: "bridge drains"}] = Enum.filter(report.checks, &(&1.status == :skipped))
    assert report.passed? and report.accepted > 2_000 and report.answered.worker_crashed >= 10
    assert_received {:said, "load" <> _}
  end

  test "a worker whose answers are changed on the way is found" do
    report = Harness.run(seconds: 0.1, seed: 11, compute: :lies)
    refute report.passed?
    failed = for check <- report.checks, check.status == :failed, do: check
    assert Enum.any?(failed, &(&1.name == "sizes around limits" and &1.detail =~ "wrong CRC"))
    assert Enum.any?(failed, &(&1.name == "load" and &1.detail =~ "wrong CRC"))
  end

  test "a payload tells what became of it" do
    {:ok, right} = Payload.compute(Payload.new(7, 100))
    assert Payload.check(right, 7, 100) == :ok
    assert Payload.check(right, 8, 100) =~ "is that of 7"
    assert Payload.check(right, 7, 101) =~ "100 bytes instead of 101"
    assert Payload.check(binary_part(right, 0, 5), 7, 100) =~ "cut to 5"
    assert Payload.check(Payload.new(7, 100), 7, 100) =~ "other data"
    assert Payload.check(:term, 7, 100) =~ "no binary"

    for at <- 0..(byte_size(right) - 1) do
      rest = binary_part(right, at + 1, byte_size(right) - at - 1)
      byte = Bitwise.bxor(:binary.at(right, at), 64)
      changed = binary_part(right, 0, at) <> <<byte>> <> rest
      assert is_binary(Payload.check(changed, 7, 100)), "a change of byte #{at} is not seen"
    end

    assert {:error, 1, "the payload came with a wrong CRC"} =
             Payload.compute(<<0::64, 1::32, "data">>)
  end

  test "the task says what it does not know" do
    run = &Mix.Tasks.Ringbridge.Harness.run/1

    for {arguments, why, status} <- [
          {["--secnds", "1"], ~r/--secnds/, 2},
          {["fast"], ~r/what is fast/, 2},
          {["--command", "/nowhere/ringbridge"], ~r/no program .*nowhere/, 1}
        ] do
      error = assert_raise Mix.Error, why, fn -> run.(arguments) end
      # The exit status.
      assert error.mix == status
    end
  end
end
