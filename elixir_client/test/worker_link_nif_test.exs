Code.require_file("support/link_loopback.exs", __DIR__)

defmodule Ringbridge.WorkerLinkNifTest do
  @moduledoc "A worker's end of a link in the NIF (csrc/nif/worker_link.c), beside a relay's end that is played."
  use ExUnit.Case, async: true

  alias Ringbridge.Lane.Native
  alias Ringbridge.LinkLoopback
  import Bitwise

  @patience_ms 60_000

  if why = LinkLoopback.missing(), do: @moduletag(skip: why)

  setup do
    {:ok, relay: start_supervised!({LinkLoopback, 1})}
  end

  defp wait_until(check) do
    unless check.() do
      Process.sleep(5)
      wait_until(check)
    end
  end

  # The link's next job, waiting at its bell for it; or what else there is.
  defp next(link, wake \\ make_ref()) do
    case Native.worker_next(link, wake) do
      :more ->
        next(link, wake)

      :parked ->
        assert_receive {:select, ^link, ^wake, :ready_input}, @patience_ms
        next(link, wake)

      other ->
        other
    end
  end

  # It waits at its bell, for what does not come while its job is open.
  defp park(link) do
    {:job, id, _, _, _, _, _, _, {:raw, _}} = next(link)
    {0, 0} = Native.worker_watch(link, make_ref(), 0)
    id
  end

  # It waits at its bell for a job.
  defp rest(link) do
    case Native.worker_next(link, make_ref()) do
      :parked ->
        :ok

      {:job, id, _, _, _, _, _, _, {:raw, bytes}} ->
        :ok = Native.worker_say(link, id, 0, 0, 0, 0, bytes)
        rest(link)
    end
  end

  defp refused(call) do
    assert_raise ArgumentError, call
  end

  test "jobs are answered, one after the other", %{relay: relay} do
    link = LinkLoopback.open(relay)

    for _ <- 1..100 do
      assert {:job, id, 0, -1, _, _, -1, 0, {:raw, bytes}} = next(link)
      assert Native.worker_say(link, id, 0, 0, 0, 0, bytes) == :ok
    end

    wait_until(fn -> LinkLoopback.figures(relay).answered == 100 end)
    assert LinkLoopback.wrong(relay) == []
  end

  describe "a link that was closed" do
    test "is over for whatever is asked of it, from then on", %{relay: relay} do
      # A file is none of epoll's: what waits there is closed later, by another thread.
      for kind <- [?q | List.duplicate(?f, 200)] do
        link = LinkLoopback.open(relay, kind)
        rest(link)
        assert Native.worker_close(link) == :ok
        assert Native.worker_beat(link, 1) == :over
        assert Native.worker_pulse(link) == :over
        assert Native.worker_next(link, make_ref()) == :over
        assert Native.worker_bytes_max(link) == :over
        assert Native.worker_greet(link, "test", 1, "echo", "") == :over
        assert Native.worker_close(link) == :ok
      end

      wait_until(fn -> LinkLoopback.figures(relay).open == 0 end)
    end

    test "amid a job is over for the job, too", %{relay: relay} do
      link = LinkLoopback.open(relay)
      id = park(link)
      assert Native.worker_close(link) == :ok
      assert Native.worker_watch(link, make_ref(), 0) == :over
      assert Native.worker_say(link, id, 0, 0, 0, 0, "") == :over
      assert Native.worker_say(link, id, 0, 0, 0, 0, :binary.copy("x", 1 <<< 20)) == :over
    end

    test "leaves nothing, however it came to that", %{relay: relay} do
      for way <- [:close, :exit, :kill, :forget] do
        task =
          Task.async(fn ->
            Process.flag(:trap_exit, true)
            link = LinkLoopback.open(relay)
            park(link)
            if way == :close, do: Native.worker_close(link)
            if way == :kill, do: Process.exit(self(), :kill)
            way
          end)

        Process.unlink(task.pid)
        Task.yield(task, @patience_ms)
        wait_until(fn -> LinkLoopback.figures(relay).open == 0 end)
      end
    end
  end

  test "is its opener's: others are refused, and change nothing", %{relay: relay} do
    link = LinkLoopback.open(relay)
    id = park(link)

    Task.async(fn ->
      refused(fn -> Native.worker_next(link, make_ref()) end)
      refused(fn -> Native.worker_watch(link, make_ref(), 0) end)
      refused(fn -> Native.worker_say(link, id, 0, 0, 0, 0, "") end)
      refused(fn -> Native.worker_say(link, id, 0, 0, 0, 0, :binary.copy("x", 1 <<< 20)) end)
      refused(fn -> Native.worker_beat(link, 1) end)
      refused(fn -> Native.worker_pulse(link) end)
      refused(fn -> Native.worker_bytes_max(link) end)
      refused(fn -> Native.worker_greet(link, "test", 1, "echo", "") end)
      refused(fn -> Native.worker_close(link) end)
    end)
    |> Task.await(@patience_ms)

    assert Native.worker_say(link, id, 1, 7, 0, 0, "") == :ok
    assert {:job, _, _, _, _, _, _, _, _} = next(link)
  end

  # They wait for a socket that never answers, as files may wait for a disk: a bridge that hears no beat takes the worker for dead.
  test "it beats while every dirty IO thread is held by others", %{relay: relay} do
    link = LinkLoopback.open(relay)
    socket = LinkLoopback.socket(relay)
    threads = :erlang.system_info(:dirty_io_schedulers)
    token = LinkLoopback.token(?s)
    # Whatever is called below has been loaded by then: code comes from files.
    look = fn -> {LinkLoopback.figures(relay).waiting, Task.yield(Task.async(fn -> :ok end))} end
    assert {0, {:ok, :ok}} = look.()

    held =
      for _ <- 1..(threads + 2),
          do: Task.async(fn -> Native.worker_open(socket, token, @patience_ms) end)

    wait_until(fn -> LinkLoopback.figures(relay).waiting == threads end)
    assert Native.worker_beat(link, 1) == :ok
    assert Native.worker_trim(link) == :ok
    assert Enum.all?(held, &(Task.yield(&1, 0) == nil))
    stop_supervised!(LinkLoopback)
    assert [{:error, _} | _] = Task.await_many(held, @patience_ms)
  end

  test "the pages of a large answer go back to the system in bites", %{relay: relay} do
    link = LinkLoopback.open(relay)
    {:job, id, _, _, _, _, _, _, {:raw, _}} = next(link)
    size = Native.worker_bytes_max(link)
    assert Native.worker_say(link, id, 0, 0, 0, 0, :binary.copy(<<id>>, size)) == :ok
    # All but the first MiB, of 256 KiB each, once the relay has let go of it.
    wait_until(fn -> Native.worker_trim(link) == :more end)

    bites =
      Stream.repeatedly(fn -> Native.worker_trim(link) end) |> Enum.take_while(&(&1 == :more))

    assert length(bites) == div(size - (1 <<< 20), 256 <<< 10) - 2
    assert Native.worker_trim(link) == :ok
    assert LinkLoopback.wrong(relay) == []
  end

  # The relay gives the place of its payload to other jobs at once; a handler must see none of these.
  test "a job whose link is let go of as it begins is not begun, or has its own payload whole",
       %{relay: relay} do
    for _ <- 1..5 do
      link = LinkLoopback.open(relay, ?t)

      case next(link) do
        {:job, _, _, _, _, _, _, _, {:raw, <<first, _::binary>> = bytes}} ->
          assert bytes == :binary.copy(<<first>>, byte_size(bytes))

        :over ->
          :ok
      end

      Native.worker_close(link)
    end
  end
end
