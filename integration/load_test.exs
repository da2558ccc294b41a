defmodule Ringbridge.LoadTest do
  @moduledoc "More than there is room for: answered with words, nothing hangs, nothing is lost, memory is bounded."
  use Ringbridge.BridgeCase,
    roles: """
    [roles.shallow]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-sleep"]
    depth_max = 8

    [roles.tight]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-echo"]
    payload_bytes_max = 1_048_576
    pool_bytes = 4_194_304
    """

  @mib 1_048_576

  test "a full queue is an answer, with when to try again", %{node: node} do
    tasks = for _ <- 1..40, do: Task.async(fn -> submit(node, :shallow, "100", %{}, 30_000) end)
    answers = Task.await_many(tasks, 30_000)
    {done, refused} = Enum.split_with(answers, &match?({:ok, _}, &1))

    for answer <- refused do
      assert {:error, {:overloaded, %{retry_after_ms: ms}}} = answer
      assert ms in 1..60_000
    end

    # Eight are in; a few more find room when the first are done.
    assert length(done) in 8..12
    assert {:ok, _} = submit(node, :shallow, "0")
  end

  test "a refusal comes at once, however busy the workers are", %{node: node} do
    hold = fn -> submit(node, :shallow, "600000", %{}, :infinity) end
    first = Task.async(hold)
    await_busy(node, :shallow)
    others = for _ <- 1..12, do: Task.async(hold)
    Lab.wait_until("the queue is full", fn -> queued(node, :shallow) == 8 end)
    assert {:error, {:overloaded, _}} = submit(node, :shallow, "0")
    assert queued(node, :shallow) == 8
    for task <- [first | others], do: Task.shutdown(task, :brutal_kill)
    await_idle(node)
  end

  defp queued(node, role) do
    {:ok, %{roles: roles}} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
    name = Atom.to_string(role)
    %{queued: queued} = Enum.find(roles, &(&1.name == name))
    queued
  end

  test "a full payload pool is an answer too, and all of it comes back", %{node: node} do
    payload = :rand.bytes(@mib)

    for _round <- 1..5 do
      answers =
        1..24
        |> Task.async_stream(fn _ -> submit(node, :tight, payload, %{}, 30_000) end,
          max_concurrency: 24,
          timeout: 40_000
        )
        |> Enum.map(fn {:ok, answer} -> answer end)

      for answer <- answers do
        case answer do
          {:ok, back} -> assert back == payload
          {:error, {:overloaded, %{retry_after_ms: _}}} -> :ok
        end
      end

      assert Enum.any?(answers, &match?({:ok, _}, &1))
    end

    await_idle(node)
    # The pool holds four: all four must be there again, whatever was refused or cancelled before.
    for _ <- 1..20, do: assert({:ok, ^payload} = submit(node, :tight, payload))
  end

  test "payloads given up half-way give their room back", %{node: node} do
    payload = :rand.bytes(@mib)

    for _ <- 1..40 do
      caller = spawn(fn -> submit(node, :tight, payload, %{}, 30_000) end)
      Process.sleep(:rand.uniform(3) - 1)
      Process.exit(caller, :kill)
    end

    await_idle(node)
    for _ <- 1..20, do: assert({:ok, ^payload} = submit(node, :tight, payload))
  end

  test "answers beyond the worker's result region do not hang", %{node: node} do
    # 64 MiB of region: these are 32 callers with 5 MiB each, several times over.
    payload = :rand.bytes(5 * @mib)

    1..64
    |> Task.async_stream(
      fn _ ->
        case submit(node, :echo, payload, %{}, 50_000) do
          {:ok, back} -> byte_size(back) == byte_size(payload)
          {:error, {:overloaded, _}} -> true
        end
      end,
      max_concurrency: 32,
      timeout: 60_000
    )
    |> Enum.each(fn answer -> assert answer == {:ok, true} end)

    assert {:ok, "small"} = submit(node, :echo, "small")
  end

  test "the largest payload that the role takes comes back", %{node: node} do
    payload = :binary.copy(:rand.bytes(@mib), 64)
    assert {:ok, back} = submit(node, :echo, payload, %{}, 50_000)
    assert back == payload
    assert {:error, {:too_large, limit}} = submit(node, :echo, payload <> "x", %{}, 50_000)
    assert limit == 64 * @mib
  end

  test "small calls overtake large ones of other callers", %{node: node} do
    payload = :rand.bytes(5 * @mib)
    large = fn -> {:ok, _} = submit(node, :echo, payload) end
    floods = for _ <- 1..4, do: Task.async(fn -> for _ <- 1..10, do: when_(large) end)
    small = for _ <- 1..50, do: when_(fn -> {:ok, _} = submit(node, :small, "small") end)
    large = floods |> Task.await_many(60_000) |> Enum.concat()
    assert Enum.any?(small, fn one -> Enum.any?(large, &within?(one, &1)) end)
  end

  defp when_(call) do
    began = System.monotonic_time()
    call.()
    {began, System.monotonic_time()}
  end

  defp within?({began, ended}, {from, to}), do: began > from and ended < to

  test "twenty thousand calls of a thousand callers are each answered once", %{node: node} do
    before = stats(node)

    1..1_000
    |> Task.async_stream(
      fn n ->
        for k <- 1..20 do
          payload = <<n::32, k::32>>
          assert {:ok, ^payload} = submit(node, :echo, payload, %{}, 30_000)
        end

        refute_received _
      end,
      max_concurrency: 1_000,
      timeout: 60_000
    )
    |> Enum.each(&assert match?({:ok, _}, &1))

    now = stats(node)
    assert now.accepted - before.accepted == 20_000
    assert now.answered.ok - before.answered.ok == 20_000
  end

  test "the same load again takes no more memory", %{node: node, bridge: bridge} do
    os_pid = Program.os_pid(bridge.program)
    payload = :rand.bytes(5 * @mib)

    round = fn ->
      1..64
      |> Task.async_stream(fn _ -> submit(node, :echo, payload, %{}, 50_000) end,
        max_concurrency: 16,
        timeout: 60_000
      )
      |> Stream.run()

      await_idle(node)
    end

    for _ <- 1..3, do: round.()
    before = Proc.resident_bytes(os_pid)
    for _ <- 1..5, do: round.()

    Lab.wait_until("memory is as before", fn ->
      Proc.resident_bytes(os_pid) - before < 48 * @mib
    end)
  end
end
