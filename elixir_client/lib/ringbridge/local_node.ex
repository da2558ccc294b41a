defmodule Ringbridge.LocalNode do
  @moduledoc """
  Makes this VM fit to speak to its bridges: gives it a name when it has none, and the bridges' cookie for them only.

  Facts it rests on (OTP 25 to 29, kernel's net_kernel.erl and auth.erl):

    * `:net_kernel.start/2` with `dist_listen: false` opens no port, registers with no epmd and implies a hidden node:
      nobody can find this VM or dial it; it dials its bridges.
    * A node starts with the cookie of `~/.erlang.cookie`, which is made when it is missing. It is replaced at once by one
      of this run's own, so that nothing but the bridges' cookies, set for each of them, opens a door.
    * Two nodes connect only when both have short names or both long ones (with a dot or a colon in the host).
  """

  @named_by_us {__MODULE__, :named_by_us}

  @doc """
  Returns when this VM is a node and knows the cookie of each bridge. Idempotent; blocks while net_kernel starts.
  """
  @spec ensure([node()], Ringbridge.Cookie.source()) :: :ok | {:error, String.t()}
  def ensure(nodes, source) do
    with {:ok, domain} <- domain(nodes),
         :ok <- alive(domain, nodes),
         :ok <- fits(domain, hd(nodes)),
         {:ok, cookie} <- cookie(source) do
      Enum.each(nodes, &set(&1, cookie))
    end
  end

  @doc """
  Returns when this VM knows the cookie of that bridge, which may have changed since. Names nobody: who has stopped
  distribution meant it.
  """
  @spec admit(node(), Ringbridge.Cookie.source()) :: :ok | {:error, String.t()}
  def admit(node, source) do
    with {:alive, true} <- {:alive, Node.alive?()},
         {:ok, cookie} <- cookie(source) do
      set(node, cookie)
    else
      {:alive, false} -> {:error, no_more()}
      {:error, why} -> {:error, why}
    end
  catch
    # Stopped between the two.
    :error, :distribution_not_started -> {:error, no_more()}
    :exit, :distribution_not_started -> {:error, no_more()}
  end

  @doc "How this VM is named: what others must be named as, too. `nil` when it has no name."
  @spec named() :: :longnames | :shortnames | nil
  def named, do: if(Node.alive?(), do: kind(Node.self()))

  @doc """
  The cookie for a bridge that this VM starts, when no option says one: its own if it was started with a name; else what a bridge
  finds by itself; else `made`.
  """
  @spec own_cookie(atom()) :: {:ok, atom()} | {:error, String.t()}
  def own_cookie(made) do
    if Node.alive?() and not named_by_us?() do
      {:ok, Node.get_cookie()}
    else
      if Ringbridge.Cookie.any?(), do: Ringbridge.Cookie.default(), else: {:ok, made}
    end
  end

  defp no_more, do: "this VM is a node no more; trying again"

  defp set(_node, nil), do: :ok

  defp set(node, cookie) do
    true = Node.set_cookie(node, cookie)
    :ok
  end

  @doc """
  Whether node names are long or short: what they have to agree in.

      iex> Ringbridge.LocalNode.domain([:"bridge@127.0.0.1", :"bridge@db.example.org"])
      {:ok, :longnames}
      iex> {:error, why} = Ringbridge.LocalNode.domain([:"bridge@laptop", :"bridge@127.0.0.1"])
      iex> why =~ "long"
      true
  """
  @spec domain([node()]) :: {:ok, :longnames | :shortnames} | {:error, String.t()}
  def domain(nodes) do
    case Enum.group_by(nodes, &kind/1) do
      kinds when map_size(kinds) == 1 -> {:ok, hd(Map.keys(kinds))}
      %{longnames: [long | _], shortnames: [short | _]} -> {:error, apart(long, short)}
    end
  end

  @doc "Whether the node runs on this host, as far as its name tells."
  @spec same_host?(node()) :: boolean()
  def same_host?(node) do
    {:ok, here} = :inet.gethostname()
    host(node) in ["127.0.0.1", "localhost", "::1", host(node()), List.to_string(here)]
  end

  defp alive(domain, nodes) do
    if Node.alive?(), do: :ok, else: start(name(domain, nodes), domain)
  end

  defp start(name, domain) do
    options = %{name_domain: domain, dist_listen: false, hidden: true}

    # Before the name is ours: another instance may look as soon as it is. Should that one be sooner, nobody has this name.
    :persistent_term.put({@named_by_us, name}, true)

    case :net_kernel.start(name, options) do
      {:ok, _pid} ->
        Node.set_cookie(Node.self(), private_cookie())
        :ok

      # Another instance was sooner.
      {:error, {:already_started, _pid}} ->
        :ok

      {:error, why} ->
        {:error,
         "this VM has no name and could not become a node (#{inspect(why)}): can ~/.erlang.cookie be read, or made? " <>
           "Else start it with --name or --sname and --cookie"}
    end
  end

  defp fits(domain, node) do
    if kind(Node.self()) == domain, do: :ok, else: {:error, apart(Node.self(), node)}
  end

  # A VM that had a name has a cookie: what it was started with, unless an option says otherwise.
  defp cookie(nil) do
    if named_by_us?(), do: Ringbridge.Cookie.default(), else: {:ok, nil}
  end

  defp cookie(source), do: source.()

  defp named_by_us?, do: :persistent_term.get({@named_by_us, Node.self()}, false)

  # What stands behind the @ needs to lead nowhere, since nobody dials us; it is for people who read a bridge's log.
  defp name(domain, nodes) do
    unique = Base.encode16(:crypto.strong_rand_bytes(4), case: :lower)
    :"ringbridge-#{System.pid()}-#{unique}@#{our_host(domain, nodes)}"
  end

  defp our_host(:shortnames, _nodes) do
    {:ok, host} = :inet.gethostname()
    host
  end

  defp our_host(:longnames, nodes) do
    full = List.to_string(:net_adm.localhost())

    cond do
      Enum.all?(nodes, &(host(&1) == "127.0.0.1")) -> "127.0.0.1"
      full =~ "." -> full
      true -> full <> ".local"
    end
  end

  defp private_cookie, do: :"#{Base.encode16(:crypto.strong_rand_bytes(16))}"

  defp kind(node), do: if(host(node) =~ ~r/[.:]/, do: :longnames, else: :shortnames)

  defp host(node), do: node |> Atom.to_string() |> String.split("@") |> List.last()

  defp apart(one, other) do
    {long, short} = if kind(one) == :longnames, do: {one, other}, else: {other, one}

    "#{inspect(long)} has a long name and #{inspect(short)} a short one; such nodes cannot connect. " <>
      "Give both the same kind (--name, or --sname)"
  end
end
