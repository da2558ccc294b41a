defmodule Ringbridge.LinkLoopback do
  @moduledoc """
  The relay's end of workers' links without a relay: the program of csrc/nif/tests/link_loopback.c, which says what each kind of link is.
  """
  use GenServer

  alias Ringbridge.Lane.Native

  @root Path.expand("../../..", __DIR__)
  @program Path.join(@root, "build/tests/link-loopback")
  @patience_ms 60_000

  @type t :: %{pid: pid(), socket: binary()}

  @doc "Why links cannot be tried here, or nil."
  @spec missing() :: String.t() | nil
  def missing do
    cond do
      Native.status() != :ok -> "the NIF is not built"
      not File.regular?(@program) -> "no #{@program} (make core)"
      true -> nil
    end
  end

  @spec start_link(integer()) :: GenServer.on_start()
  def start_link(seed), do: GenServer.start_link(__MODULE__, seed)

  @doc "Where its links are fetched."
  @spec socket(pid()) :: binary()
  def socket(pid), do: GenServer.call(pid, :socket, @patience_ms)

  @doc "The token of a link of that kind, one character."
  @spec token(char()) :: binary()
  def token(kind), do: <<kind, 7::size(31)-unit(8)>>

  @doc "A link of that kind, which has greeted; its one user is the caller."
  @spec open(pid(), char()) :: reference()
  def open(pid, kind \\ ?q) do
    {:ok, link} = Native.worker_open(socket(pid), token(kind), @patience_ms)
    :ok = Native.worker_greet(link, "test", 1, "echo", "")
    link
  end

  @doc "Its figures, by their names: `open` links, jobs `given` and `answered`, ..."
  @spec figures(pid()) :: %{atom() => non_neg_integer()}
  def figures(pid), do: GenServer.call(pid, :figures, @patience_ms)

  @doc "What it found wrong, each a text."
  @spec wrong(pid()) :: [String.t()]
  def wrong(pid), do: GenServer.call(pid, :wrong, @patience_ms)

  @impl GenServer
  def init(seed) do
    name = "ringbridge-links-#{System.pid()}-#{System.unique_integer([:positive])}"
    # It ends when its stdin is closed: with this process.
    options = [:binary, :exit_status, line: 1_000, args: [name, "#{seed}"]]
    port = Port.open({:spawn_executable, @program}, options)

    receive do
      {^port, {:data, {:eol, "ready"}}} ->
        {:ok, %{name: name, port: port, asking: :queue.new(), wrong: []}}
    end
  end

  @impl GenServer
  def handle_call(:socket, _from, s), do: {:reply, <<0, s.name::binary>>, s}
  def handle_call(:wrong, _from, s), do: {:reply, Enum.reverse(s.wrong), s}

  def handle_call(:figures, from, s) do
    Port.command(s.port, "?")
    {:noreply, %{s | asking: :queue.in(from, s.asking)}}
  end

  @impl GenServer
  def handle_info({_port, {:data, {:eol, "wrong: " <> what}}}, s),
    do: {:noreply, %{s | wrong: [what | s.wrong]}}

  def handle_info({_port, {:data, {:eol, "open " <> _ = line}}}, s) do
    {{:value, from}, asking} = :queue.out(s.asking)

    figures =
      for [name, count] <- line |> String.split() |> Enum.chunk_every(2),
          into: %{},
          do: {String.to_atom(name), String.to_integer(count)}

    GenServer.reply(from, figures)
    {:noreply, %{s | asking: asking}}
  end

  def handle_info({_port, {:exit_status, status}}, s), do: {:stop, {:shutdown, status}, s}
  def handle_info(_other, s), do: {:noreply, s}
end
