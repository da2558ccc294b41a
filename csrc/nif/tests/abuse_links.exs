# Abuse of workers' links at random: processes that have links and die at any step of a job, answer twice, too much, nothing or for others,
# close amid a job, are called by strangers, while relays end links, die or lie, and the library's code is loaded anew and purged under
# them. A relay's end that is played stands for the bridge (link_loopback.c): it holds each answer against its job.
#
#     elixir -pa EBIN csrc/nif/tests/abuse_links.exs [SECONDS [SEED]]
#
# At the end no link, descriptor or mapping is left. The last line says so; the exit status is 1 if it is not so, or if anything was wrong:
# an answer out of its turn, twice, or of other bytes, a job that nobody answered, a wake-up that did not come, a call that should have been
# refused. A crash is a crash.
root = Path.expand("../../..", __DIR__)
Code.require_file("elixir_client/test/support/link_loopback.exs", root)
Code.require_file("abuse_arguments.exs", __DIR__)
Code.require_file("abuse_link_owner.exs", __DIR__)

defmodule Ringbridge.AbuseLinks do
  alias Ringbridge.{AbuseLinkOwner, LinkLoopback}
  alias Ringbridge.Lane.Native

  @patience_ms 60_000
  @counts [:links, :jobs, :answers, :parked, :over, :killed, :refused, :wrong]
  # How many processes have links of each kind (link_loopback.c says what they are), and how many call for others' links.
  @actors [{?h, 14}, {?l, 6}, {?w, 2}, {?s, 1}, {:stranger, 3}]

  def run(seconds, seed) do
    IO.puts("abuse of links for #{seconds} s, seed #{seed}")
    if why = LinkLoopback.missing(), do: fail(why)
    Logger.configure(level: :error)
    Process.flag(:trap_exit, true)
    :persistent_term.put(__MODULE__, :counters.new(length(@counts), []))
    :ets.new(__MODULE__, [:named_table, :public])
    :ets.insert(__MODULE__, {:library, 0})
    :rand.seed(:exsss, {seed, 0, 0})
    begin_relay()
    before = left_here()
    until_ms = now_ms() + seconds * 1000

    actors =
      for {kind, count} <- @actors, n <- 1..count, into: %{} do
        {spawn_actor(kind, {seed, n, 0}, until_ms), {kind, n, 0}}
      end

    stand_by(actors, until_ms, seed)
    settle(before, now_ms() + @patience_ms)
  end

  # --- What stands around them ----------------------------------------------------------------------------------

  defp begin_relay do
    {:ok, pid} = LinkLoopback.start_link(:rand.uniform(1_000_000))
    Process.put(:relay, pid)
    :ets.insert(__MODULE__, {:socket, LinkLoopback.socket(pid)})
  end

  # Actors that have died are there again; every now and then something breaks.
  defp stand_by(actors, until_ms, seed) do
    receive do
      {:EXIT, pid, reason} when is_map_key(actors, pid) ->
        {{kind, n, life}, actors} = Map.pop(actors, pid)
        :ets.delete(__MODULE__, pid)
        unless reason in [:normal, :killed], do: wrong("an actor ends: #{inspect(reason)}")

        if now_ms() < until_ms do
          again = spawn_actor(kind, {seed, n, life + 1}, until_ms)
          stand_by(Map.put(actors, again, {kind, n, life + 1}), until_ms, seed)
        else
          if map_size(actors) > 0, do: stand_by(actors, until_ms, seed)
        end

      {:EXIT, pid, _reason} ->
        if Process.get(:relay) == pid, do: begin_relay()
        if map_size(actors) > 0, do: stand_by(actors, until_ms, seed)
    after
      50 ->
        # Anybody, whatever it is about: in a copy on a dirty scheduler, at its bell, between two calls.
        if now_ms() < until_ms do
          actors |> Map.keys() |> Enum.random() |> Process.exit(:kill)
          count(:killed)
          break(:rand.uniform(100))
        end

        if map_size(actors) > 0, do: stand_by(actors, until_ms, seed)
    end
  end

  defp break(n) when n <= 3 do
    replace(fn ->
      :code.load_file(Native)
      :code.purge(Native)
    end)
  end

  defp break(n) when n <= 6 do
    replace(fn ->
      :code.purge(Native)
      :code.delete(Native)
      :code.purge(Native)
    end)
  end

  # The relay's process dies under all links, as it stands.
  defp break(n) when n <= 9 do
    judged(Process.get(:relay))
    spawn(fn -> Native.worker_open(socket(), LinkLoopback.token(?k), @patience_ms) end)
  end

  defp break(_nothing), do: :ok

  defp replace(work) do
    :ets.update_counter(__MODULE__, :library, 1)
    work.()
    :ets.update_counter(__MODULE__, :library, 1)
  end

  # What it found wrong is told before it dies. The one before may have killed it.
  defp judged(relay) do
    for what <- LinkLoopback.wrong(relay), do: wrong("relay: " <> what)
  catch
    :exit, _reason -> :ok
  end

  # --- What is left ---------------------------------------------------------------------------------------------

  # Mappings and descriptors of links in this process, and its descriptors in all.
  defp left_here do
    fds = Path.wildcard("/proc/self/fd/*") |> Enum.map(&File.read_link/1)
    maps = File.read!("/proc/self/maps") |> String.split("\n")

    %{
      mappings: Enum.count(maps, &(&1 =~ "memfd:ringbridge")),
      memory: Enum.count(fds, &match?({:ok, "/memfd:ringbridge" <> _}, &1)),
      sockets: Enum.count(fds, &match?({:ok, "socket:" <> _}, &1)),
      eventfds: Enum.count(fds, &match?({:ok, "anon_inode:[eventfd]"}, &1))
    }
  end

  defp settle(before, until_ms) do
    :erlang.garbage_collect()
    nothing_left(before, until_ms)
    judged(Process.get(:relay))
    told = for {name, i} <- Enum.with_index(@counts, 1), do: {name, :counters.get(counts(), i)}
    IO.puts(Enum.map_join(told, ", ", fn {name, count} -> "#{count} #{name}" end))

    for {name, count} <- told,
        name != :wrong,
        count == 0,
        do: fail("nothing #{name}: it was not tried")

    if told[:wrong] > 0, do: System.halt(1)
    IO.puts("nothing is left")
  end

  defp nothing_left(before, until_ms) do
    figures = figures()
    here = left_here()

    unless here == before and figures.open == 0 and figures.pool == 0 do
      if now_ms() > until_ms, do: fail("left: #{inspect(here)} of #{inspect(figures)}")
      nothing_left(before, until_ms)
    end
  end

  # Of a relay that lives: the last one may have been killed just now.
  defp figures do
    receive do
      {:EXIT, _pid, _reason} -> begin_relay()
    after
      200 -> :ok
    end

    LinkLoopback.figures(Process.get(:relay))
  catch
    :exit, _reason -> %{open: nil, pool: nil}
  end

  defp fail(why) do
    IO.puts("failed: #{why}")
    System.halt(1)
  end

  # --- Those who have links, and strangers (abuse_link_owner.exs) ------------------------------------------------

  defp spawn_actor(kind, seed, until_ms) do
    spawn_link(fn ->
      :rand.seed(:exsss, seed)
      AbuseLinkOwner.run(kind, until_ms)
    end)
  end

  @doc "Where links are fetched."
  @spec socket() :: binary()
  def socket, do: :ets.lookup_element(__MODULE__, :socket, 2)

  @doc "The caller has this link, or none."
  @spec has(reference() | nil) :: true
  def has(link), do: :ets.insert(__MODULE__, {self(), link})

  @doc "Somebody's link, if anybody has one."
  @spec some_link() :: reference() | nil
  def some_link do
    links =
      for {pid, link} when is_pid(pid) and link != nil <- :ets.tab2list(__MODULE__), do: link

    if links != [], do: Enum.random(links)
  end

  @doc "Which library it is; odd while it is being replaced."
  @spec library() :: non_neg_integer()
  def library, do: :ets.lookup_element(__MODULE__, :library, 2)

  @doc "Something was not as it has to be."
  @spec wrong(String.t()) :: :ok
  def wrong(what) do
    count(:wrong)
    IO.puts("wrong: #{what}")
  end

  @doc "One more of these."
  @spec count(atom()) :: :ok
  def count(name) do
    i = Enum.find_index(@counts, &(&1 == name))
    :counters.add(counts(), i + 1, 1)
  end

  defp counts, do: :persistent_term.get(__MODULE__)
  defp now_ms, do: System.monotonic_time(:millisecond)
end

[seconds, seed] =
  case Enum.map(System.argv(), &String.to_integer/1) do
    [] -> [10, :rand.uniform(1_000_000)]
    [seconds] -> [seconds, :rand.uniform(1_000_000)]
    both -> both
  end

Ringbridge.AbuseLinks.run(seconds, seed)
