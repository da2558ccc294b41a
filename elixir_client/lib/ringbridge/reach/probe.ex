defmodule Ringbridge.Reach.Probe do
  @moduledoc """
  Why a node cannot be reached: the steps of `Node.connect/1`, taken one by one, each with what it found.

  `Node.connect/1` says `false` and no more. This asks the epmd of the node's host, opens the port that it names, and goes through the
  distribution's handshake (OTP's "Distribution Protocol", "Distribution Handshake") as far as both sides have
  shown that they know one cookie. Then it closes: a connection is never made of it.
  """
  alias Ringbridge.Reach.Handshake

  @wait_ms 3_000

  @typedoc "How far it came; `:open` says that the handshake went well."
  @type found ::
          {:host, term()}
          | {:epmd, term()}
          | {:name, [String.t()]}
          | {:port, :inet.port_number(), term()}
          | {:handshake, Handshake.outcome()}
          | :tls
          | :open

  @doc "Takes the steps; the one that failed. Ten seconds at most."
  @spec look(node()) :: found()
  def look(node) do
    [alive, host] = node |> Atom.to_string() |> String.split("@")

    with {:ok, address} <- address(host),
         {:ok, names} <- names(address),
         {:ok, port} <- listed(names, alive),
         {:ok, socket} <- open(address, port) do
      try do
        shake(socket, node)
      after
        :gen_tcp.close(socket)
      end
    end
  end

  @doc "The same as a sentence with the way out."
  @spec why(node()) :: String.t()
  def why(node), do: "cannot reach #{node}: " <> words(look(node), node)

  defp address(host) do
    case :inet.getaddr(String.to_charlist(host), :inet) do
      {:ok, address} -> {:ok, address}
      {:error, why} -> {:host, why}
    end
  end

  # erl_epmd goes to the port of ERL_EPMD_PORT, as the VM itself does.
  defp names(address) do
    case :erl_epmd.names(address) do
      {:ok, names} -> {:ok, Map.new(names, fn {name, port} -> {List.to_string(name), port} end)}
      {:error, why} -> {:epmd, why}
    end
  end

  defp listed(names, alive) do
    case names do
      %{^alive => port} -> {:ok, port}
      %{} -> {:name, Map.keys(names)}
    end
  end

  defp open(address, port) do
    case :gen_tcp.connect(address, port, [:binary, active: false, packet: 2], @wait_ms) do
      {:ok, socket} -> {:ok, socket}
      {:error, why} -> {:port, port, why}
    end
  end

  # A carrier that is TLS would take our first message for an attack.
  defp shake(socket, node) do
    if :init.get_argument(:proto_dist) == :error do
      case Handshake.shake(socket, Node.self(), :auth.get_cookie(node), @wait_ms) do
        {:ok, _flags} -> :open
        outcome -> {:handshake, outcome}
      end
    else
      :tls
    end
  end

  @doc false
  @spec words(found(), node()) :: String.t()
  def words({:host, why}, node),
    do: "its host #{host(node)} has no address (#{why}). Is the name right?"

  def words({:epmd, _why}, node) do
    "no epmd answers on #{host(node)}#{epmd_port()}, so no node can be found there. Start the bridge " <>
      "(`ringbridge serve` starts an epmd too), or mend the name"
  end

  def words({:name, []}, node),
    do:
      "the epmd of #{host(node)} knows no node at all. Start the bridge with `ringbridge serve`, or mend the name"

  def words({:name, names}, node) do
    "the epmd of #{host(node)} does not know that name; it knows #{names |> Enum.sort() |> Enum.join(", ")}. " <>
      "Start the bridge with `ringbridge serve`, or name the one that runs"
  end

  def words({:port, port, why}, node) do
    "epmd says port #{port}, and nobody there lets us in (#{why}). Does the bridge listen for this machine ([node] listen), " <>
      "is a firewall between, has #{node} just ended?"
  end

  def words({:handshake, {:status, "not_allowed"}}, _node) do
    "it does not let #{Node.self()} in: [node] allow of the bridge names who may come"
  end

  def words({:handshake, {:status, "alive"}}, _node),
    do: "it is connected to another #{Node.self()} still; try again in a moment"

  def words({:handshake, {:status, status}}, _node), do: "it refused with #{inspect(status)}"

  def words({:handshake, :cookie}, node) do
    "its cookie is another one than ours. Give the bridge's: --cookie-file, RINGBRIDGE_COOKIE, or " <>
      "Node.set_cookie(#{inspect(node)}, ..) in iex"
  end

  def words({:handshake, {:closed, at}}, _node) do
    "it closed the connection #{at}: the bridge's log says why (a node that it does not allow, or a carrier with TLS)"
  end

  def words(:tls, _node),
    do:
      "this VM's distribution runs over TLS; the logs of both sides tell what its handshake says"

  # It was refused a moment ago.
  def words(:open, _node),
    do: "it can be reached now; try again"

  defp host(node), do: node |> Atom.to_string() |> String.split("@") |> List.last()

  defp epmd_port do
    case System.get_env("ERL_EPMD_PORT") do
      nil -> ""
      port -> " (port #{port}, by ERL_EPMD_PORT)"
    end
  end
end
