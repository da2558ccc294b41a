defmodule Ringbridge.MainJobTest do
  @moduledoc "The main job: an Elixir node calls, a worker process of another language answers."
  use Ringbridge.BridgeCase

  @kib 1_024
  @mib 1_048_576

  describe "a binary payload" do
    # Around each border that it crosses: inline in an envelope or in the pool, one fragment of the
    # distribution or several, one block of the pool or several.
    for size <-
          [0, 1, 63, 64, 65, 4 * @kib - 1, 4 * @kib, 4 * @kib + 1] ++
            [64 * @kib - 1, 64 * @kib, 65 * @kib, @mib, 5 * @mib] do
      test "of #{size} bytes comes back as it went", %{node: node} do
        payload = :rand.bytes(unquote(size))
        assert {:ok, ^payload} = submit(node, :echo, payload)
      end
    end

    test "comes back to each of many callers, whatever the sizes around it", %{node: node} do
      1..400
      |> Task.async_stream(
        fn n ->
          payload = :rand.bytes(rem(n * 7_919, 70 * @kib))
          assert {:ok, ^payload} = submit(node, :echo, payload)
        end,
        max_concurrency: 64,
        timeout: 30_000
      )
      |> Enum.each(&assert match?({:ok, _}, &1))
    end
  end

  describe "a term as payload" do
    test "comes back equal, whatever its kind", %{node: node} do
      for term <- terms() do
        assert {:ok, back} = submit(node, :echo, term)
        assert back === term
      end
    end

    test "keeps apart what is equal by == only", %{node: node} do
      assert {:ok, 1.0} = submit(node, :echo, 1.0)
      assert {:ok, <<1::64-float>> = one} = submit(node, :echo, <<1::64-float>>)
      assert one == <<63, 240, 0, 0, 0, 0, 0, 0>>
      assert {:ok, zero} = submit(node, :echo, {-0.0})
      assert :erlang.term_to_binary(zero) == :erlang.term_to_binary({-0.0})
    end

    test "of a megabyte and more comes back equal", %{node: node} do
      term = for n <- 1..30_000, do: {n, "entry #{n}", %{n => [n, n * 1.5]}}
      assert {:ok, ^term} = submit(node, :echo, term)
    end

    test "keeps pids, references, ports and funs of the caller usable", %{node: node} do
      secret = make_ref()
      request = {self(), make_ref(), hd(Port.list()), fn -> secret end, &String.upcase/1}
      assert {:ok, {pid, _ref, _port, closure, capture}} = submit(node, :echo, request)
      send(pid, {:still_me, closure.(), capture.("ok")})
      assert_receive {:still_me, ^secret, "OK"}
    end
  end

  describe "a role" do
    test "is named by an atom or by a binary", %{node: node} do
      assert {:ok, "a"} = submit(node, :echo, "a")
      assert {:ok, "b"} = submit(node, "echo", "b")
    end
  end

  describe "a dispatcher" do
    test "answers under its Elixir and its Erlang name", %{node: node} do
      assert {:ok, "x"} = GenServer.call({Ringbridge.JobDispatcher, node}, {:submit, :echo, "x"})
      assert {:ok, "y"} = :gen_server.call({:job_dispatcher, node}, {:submit, :echo, "y"})
    end
  end

  describe "detail: true" do
    test "tells where the job ran and how long it took", %{node: node} do
      assert {:ok, _, detail} = submit(node, :sleep, "30", %{detail: true})
      assert %{job: job, worker: _, queue_us: queue_us, run_us: run_us} = detail
      assert is_integer(job) and queue_us >= 0
      assert run_us >= 30_000
    end

    test "is an option as a map's key and as a keyword", %{node: node} do
      assert {:ok, "x", %{run_us: _}} = submit(node, :echo, "x", %{detail: true})
      assert {:ok, "x", %{run_us: _}} = submit(node, :echo, "x", detail: true)
      assert {:ok, "x"} = submit(node, :echo, "x", detail: false)
      assert {:ok, "x"} = submit(node, :echo, "x", [])
    end
  end

  # DESIGN, "Registered names, requests and answers": atoms, pids, ports, references and funs may
  # come back because the request carried them.
  defp terms do
    atoms = [:an_atom, nil, true, false, :"", :"with space", :größe, String, :a@b]
    numbers = [0, 255, 256, -1, 2_147_483_647, -2_147_483_648, 2_147_483_648, 0.1, -1.0e300]
    bignums = [18_446_744_073_709_551_616, -(2 ** 2_100), 2 ** 2_048]
    lists = [[], [1], ~c"charlist", [1 | 2], [[], [[]]], Enum.to_list(1..300), [256, :b | "tail"]]
    maps = [%{}, %{1 => :a, 1.0 => :b, "k" => %{[] => {}}}, Map.new(1..40, &{&1, &1}), 1..3]
    tuples = [{}, {{}, {{}}}, List.to_tuple(Enum.to_list(1..300))]
    local = [self(), make_ref(), hd(Port.list()), &String.length/1, fn x -> x + 1 end]
    bits = [<<1::3>>, <<5, 3::7>>, {<<>>, "in a tuple", :binary.copy("x", 70_000)}]
    atoms ++ numbers ++ bignums ++ lists ++ maps ++ tuples ++ local ++ bits ++ [deep(200)]
  end

  defp deep(0), do: []
  defp deep(n), do: [deep(n - 1)]
end
