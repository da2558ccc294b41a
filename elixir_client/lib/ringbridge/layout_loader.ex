defmodule Ringbridge.LayoutLoader do
  @moduledoc """
  The layout that this client was built for (`Ringbridge.Layout`, generated from `csrc/layout.toml`), and whether a bridge goes with it.

  It is put into `:persistent_term` once, when the first instance starts, so that reading it costs nothing and copies nothing.

  The rule is the core's own (`csrc/include/ringbridge/version.h`): one version is one layout, so equal versions need equal digests; minors of one
  major go together, and of two the newer side judges, since it alone can know the other; another major is refused.

  Before a release starts for good, `mix ringbridge.layout.check`, or where there is no mix:

      bin/my_app eval 'Ringbridge.LayoutLoader.main(["--node", "bridge@127.0.0.1"])'
  """
  import Bitwise

  alias Ringbridge.Inspect.Json
  alias Ringbridge.Lane.Dist
  alias Ringbridge.{Layout, LocalNode, Reach}

  @key {__MODULE__, :layout}

  # The minors of this major that came before, each as it was released: as csrc/core/version.c has them.
  @older %{0x0003_0000 => "f31850dd340a41a1f12e09f7f9907c4ed21a733b4b27add55ad2c91cd02f11bb"}

  @ask_ms 5_000

  @type layout :: %{version: non_neg_integer(), digest: String.t()}
  @type kin :: :same | :older | :newer

  @doc "Puts the layout where `layout/0` finds it. Harmless to repeat."
  @spec load() :: :ok
  def load do
    layout = %{
      version: Layout.layout_version(),
      digest: Base.encode16(Layout.digest(), case: :lower)
    }

    # An equal term is no write, and so no pass over all processes (persistent_term's page).
    :persistent_term.put(@key, layout)
  end

  @doc "The layout of this client: version (major << 16 | minor), and digest (SHA-256 in hexadecimal)."
  @spec layout() :: layout()
  def layout do
    with nil <- :persistent_term.get(@key, nil) do
      load()
      :persistent_term.get(@key)
    end
  end

  @doc "The older minors that this client knows, with their digests."
  @spec older() :: %{non_neg_integer() => String.t()}
  def older, do: @older

  @doc """
  Whether a layout goes with ours, or why not. A digest alone has to be ours.

      iex> Ringbridge.LayoutLoader.compare(Ringbridge.LayoutLoader.layout())
      {:ok, :same}
      iex> {:error, why} = Ringbridge.LayoutLoader.compare(%{version: 0x0004_0000, digest: String.duplicate("0", 64)})
      iex> why =~ "majors do not mix"
      true
  """
  @spec compare(%{optional(:version) => term(), required(:digest) => term()}) ::
          {:ok, kin()} | {:error, String.t()}
  def compare(theirs) do
    ours = layout()
    version = Map.get(theirs, :version)

    cond do
      theirs.digest == ours.digest and version in [nil, ours.version] ->
        {:ok, :same}

      version in [nil, ours.version] ->
        refuse(ours, theirs, "one of the two was built from another csrc/layout.toml")

      not is_integer(version) or major(version) != major(ours.version) ->
        refuse(ours, theirs, "majors do not mix: take client and bridge of one release")

      version > ours.version ->
        {:ok, :newer}

      @older[version] == theirs.digest ->
        {:ok, :older}

      true ->
        refuse(ours, theirs, "no layout of that version was released with this digest")
    end
  end

  defp refuse(ours, theirs, why) do
    {:error, "the bridge's layout is #{words(theirs)}, this client's is #{words(ours)}; #{why}"}
  end

  @doc ~S"""
  A version as people write it.

      iex> Ringbridge.LayoutLoader.text(0x0003_0001)
      "3.1"
  """
  @spec text(term()) :: String.t()
  def text(version) when is_integer(version), do: "#{major(version)}.#{version &&& 0xFFFF}"
  def text(nil), do: "unsaid"
  def text(other), do: inspect(other)

  defp words(layout), do: "#{text(Map.get(layout, :version))} (#{short(layout.digest)})"

  defp short(digest) when is_binary(digest), do: String.slice(digest, 0, 12)
  defp short(digest), do: inspect(digest)

  defp major(version), do: version >>> 16

  # --- Before a release starts ---------------------------------------------------------------------------------

  @doc "The layout of a bridge, which has to be connected or connectable."
  @spec fetch(node()) :: {:ok, layout()} | {:error, String.t()}
  def fetch(node) do
    # Lanes never connect by themselves.
    connected = Node.connect(node)

    case connected == true && Dist.ask({Ringbridge.WorkerRegistry, node}, :layout, @ask_ms) do
      {:answer, {:ok, %{version: _, digest: _} = layout}} ->
        {:ok, layout}

      {:answer, {:error, _}} ->
        {:error, "#{node} does not say its layout: it is older than this client"}

      {:down, :noproc} ->
        {:error, "#{node} is a node, but no bridge"}

      _ ->
        {:error,
         "#{node} cannot be reached: is the name right, is the cookie the same, does `epmd -names` show it?"}
    end
  end

  @switches [
    node: :string,
    digest: :string,
    cookie_file: :string,
    json: :boolean,
    help: :boolean
  ]

  @usage """
  --node NAME           the bridge to ask; --cookie-file FILE: its cookie, if not the VM's own
  --digest HEX          or the digest that a bridge is known to have
  --json                one object for programs
  Exit status: 0 they go together, 1 they do not or nobody could tell, 2 the arguments are wrong.
  """

  @doc """
  `mix ringbridge.layout.check` for a release, where there is no mix: prints, and ends the VM with the status. Without a mismatch it
  returns, so that what comes next in an `eval` runs.
  """
  @spec main([String.t()]) :: :ok
  def main(argv) do
    {status, text} = run(argv)
    IO.puts(text)
    if status != 0, do: System.halt(status)
    :ok
  end

  @doc "The check as exit status and text."
  @spec run([String.t()]) :: {0 | 1 | 2, String.t()}
  def run(argv) do
    {options, rest, wrong} = OptionParser.parse(argv, strict: @switches)

    cond do
      options[:help] -> {0, @usage}
      wrong != [] or rest != [] -> usage("no such argument: #{wrong(wrong, rest)}")
      true -> options |> found() |> told(options)
    end
  end

  defp usage(why), do: {2, "#{why}\n" <> @usage}

  defp wrong([{word, _} | _], _rest), do: word
  defp wrong([], [word | _]), do: word

  defp found(options) do
    case {options[:node], options[:digest]} do
      {nil, nil} -> {:wrong, "give --node or --digest"}
      {nil, digest} -> judged(%{digest: String.downcase(digest)})
      {_node, digest} when digest != nil -> {:wrong, "give --node or --digest, not both"}
      {text, nil} -> named(Reach.node_name(text), options)
    end
  end

  defp named({:error, why}, _options), do: {:wrong, why}

  defp named({:ok, node}, options) do
    cookie = if path = options[:cookie_file], do: Ringbridge.Cookie.source(cookie_file: path)

    with :ok <- LocalNode.ensure([node], cookie),
         {:ok, layout} <- fetch(node) do
      judged(layout)
    else
      {:error, why} -> {:unsure, nil, why}
    end
  end

  defp judged(theirs) do
    case compare(theirs) do
      {:ok, kin} -> {kin, theirs, "the layouts go together"}
      {:error, why} -> {:mismatch, theirs, why}
    end
  end

  defp told({:wrong, why}, _options), do: usage(why)

  defp told({verdict, theirs, why}, options) do
    status = if verdict in [:mismatch, :unsure], do: 1, else: 0

    {status,
     if(options[:json], do: json(verdict, theirs, why), else: plain(verdict, theirs, why))}
  end

  defp plain(verdict, nil, why), do: "#{verdict}: #{why}"

  defp plain(verdict, theirs, why),
    do: "#{verdict}: #{why}\n  client  #{whole(layout())}\n  bridge  #{whole(theirs)}"

  defp whole(layout), do: "#{text(Map.get(layout, :version))}  #{layout.digest}"

  defp json(verdict, theirs, why) do
    bridge = theirs && Map.put_new(theirs, :version, nil)

    %{verdict: verdict, why: why, client: layout(), bridge: bridge}
    |> Json.encode()
    |> IO.iodata_to_binary()
  end
end
