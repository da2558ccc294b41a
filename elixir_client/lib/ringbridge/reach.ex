defmodule Ringbridge.Reach do
  @moduledoc """
  Reaches a bridge by its node's name, for whoever has no instance: mix tasks, iex, a check.

  The VM becomes a node as an instance makes it one (`Ringbridge.LocalNode`); what fails is told in words, with the way out.
  """
  alias Ringbridge.{Cookie, Error, LocalNode}
  alias Ringbridge.Reach.Probe

  @ask_ms 5_000

  @doc "The bridge that is meant where none is named, as by the `ringbridge` command."
  @spec default_node() :: node()
  def default_node, do: :"bridge@127.0.0.1"

  @doc """
  A node's name out of a text. It becomes an atom, so it is what an operator wrote, and nobody else.

      iex> Ringbridge.Reach.node_name("bridge@127.0.0.1")
      {:ok, :"bridge@127.0.0.1"}
      iex> {:error, why} = Ringbridge.Reach.node_name("bridge")
      iex> why
      "\\"bridge\\" is no node's name; write it like bridge@127.0.0.1"
  """
  @spec node_name(String.t()) :: {:ok, node()} | {:error, String.t()}
  def node_name(text) do
    if text =~ ~r/\A[^@\s]+@[^@\s]+\z/ and String.length(text) <= 255,
      do: {:ok, String.to_atom(text)},
      else: {:error, "#{inspect(text)} is no node's name; write it like bridge@127.0.0.1"}
  end

  @doc """
  Returns when this VM is a node that is connected to the bridge's. Blocks as long as `Node.connect/1` does, seven
  seconds by default; why it failed takes some more, and is for people.
  """
  @spec connect(node(), Cookie.source()) :: :ok | {:error, String.t()}
  def connect(node, source) do
    with :ok <- LocalNode.ensure([node], source) do
      if Node.connect(node) == true, do: :ok, else: {:error, Probe.why(node)}
    end
  end

  @doc """
  Asks one of the bridge's services, such as `Ringbridge.Diagnostics`. Never exits: a timeout and a bridge that is gone are
  errors like its refusals.
  """
  @spec ask(node(), module(), term(), timeout()) :: :ok | {:ok, term()} | {:error, Error.t()}
  def ask(node, service, request, timeout \\ @ask_ms) do
    case GenServer.call({service, node}, request, timeout) do
      :ok -> :ok
      {:ok, answer} -> {:ok, answer}
      {:error, reason} -> {:error, %Error{reason: reason, node: node}}
      other -> {:error, %Error{reason: {:down, {:no_bridge, other}}, node: node}}
    end
  catch
    :exit, {reason, {GenServer, :call, _arguments}} ->
      {:error, %Error{reason: lost(reason), node: node}}
  end

  # No job was asked for: what is lost is an answer.
  defp lost(:timeout), do: :timeout
  defp lost({:nodedown, _node}), do: {:down, :noconnection}
  defp lost(reason) when reason in [:noconnection, :noproc], do: {:down, reason}
  defp lost(reason), do: {:down, reason}

  @doc "What to say of an error of `ask/4`, where no job was asked for."
  @spec words(Error.t()) :: String.t()
  def words(%Error{reason: :timeout, node: node}),
    do: "#{node} did not answer in time: it is stopped, or very busy"

  def words(%Error{reason: {:down, :noconnection}, node: node}),
    do: "#{node} cannot be reached any more"

  # A VM that was named by us has another name each time, which no list can hold.
  def words(%Error{reason: {:unauthorized, why}, node: node}) do
    case Atom.to_string(Node.self()) do
      "ringbridge-" <> rest ->
        pattern = "ringbridge-*@" <> (rest |> String.split("@") |> List.last())

        "#{node}: #{why}. This VM has a new name each time: #{inspect(pattern)} is for all of them"

      _named ->
        "#{node}: #{why}"
    end
  end

  # What is wrong is the question, and `bad request` no news.
  def words(%Error{reason: {:bad_request, why}, node: node}) when is_binary(why),
    do: "#{node}: #{why}"

  def words(error), do: Exception.message(error)
end
