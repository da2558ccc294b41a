defmodule Ringbridge.WorkerRegistry do
  @moduledoc """
  The workers of the bridges: listed, looked up by role, watched. The Elixir view of the service of this name on each bridge.

      {:ok, workers} = Ringbridge.WorkerRegistry.list(MyApp.Compute)
      for worker <- workers, worker.state == :ready, do: {worker.role, worker.in_flight}

  `where` is an instance, all of whose connected bridges are asked, or the node of one bridge that this VM is connected with. Nothing exits: a
  bridge that does not answer is an error that names it. Changing what runs (`:drain`, `:restart`, ..) is for administrators and stays a plain
  `GenServer.call` (docs/operations.md).

  Watching needs no process in between: the bridge sends to the one who watches, who makes structs of the messages, as with
  `Ringbridge.check/2`:

      {:ok, watch, workers} = Ringbridge.WorkerRegistry.watch(:"bridge@127.0.0.1")

      def handle_info(message, state) do
        case Ringbridge.WorkerRegistry.change(state.watch, message) do
          {:changed, workers} -> ...        # each as it is now; one whose state is :stopped comes no more
          :missed -> ...                    # too much changed to be told: list/1 has it all
          {:down, reason} -> ...            # the bridge, or the connection; watch again
          :other -> ...
        end
      end
  """
  alias Ringbridge.{Error, Instance, Worker}
  alias Ringbridge.Lane.Dist

  @ask_ms 5_000

  @typedoc "A role: what runs for it, and the operations that the bridge's settings give it (docs/ops.md)."
  @type role :: %{
          required(:role) => atom(),
          required(:state) => atom(),
          required(:workers) => [Worker.t()],
          optional(atom()) => term()
        }

  @typedoc "A watch of one bridge; its fields are nobody else's business."
  @opaque watch :: {node(), told :: reference(), monitor :: reference()}

  @doc "All workers: of each bridge in the order of its configuration."
  @spec list(Ringbridge.name() | node()) :: {:ok, [Worker.t()]} | {:error, Error.t()}
  def list(where) do
    with {:ok, nodes} <- nodes(where) do
      Enum.reduce_while(nodes, {:ok, []}, fn node, {:ok, found} ->
        case ask(node, :list) do
          {:ok, workers} -> {:cont, {:ok, found ++ Enum.map(workers, &Worker.new(node, &1))}}
          {:error, error} -> {:halt, {:error, error}}
        end
      end)
    end
  end

  @doc "A role and its workers, as the first connected bridge has them."
  @spec lookup(Ringbridge.name() | node(), Ringbridge.role()) ::
          {:ok, role()} | {:error, Error.t()}
  def lookup(where, role) do
    with {:ok, [node | _]} <- nodes(where),
         {:ok, found} <- ask(node, {:lookup, role}) do
      {:ok, Map.update!(found, :workers, fn all -> Enum.map(all, &Worker.new(node, &1)) end)}
    end
  end

  @doc """
  Has the changes of one bridge's workers come to this process, and gives all as they are now. Of an instance: its first connected bridge.

  A process has one watch of a bridge: a second one is the same. The bridge watches this process, so that its end ends the watch.
  """
  @spec watch(Ringbridge.name() | node()) :: {:ok, watch(), [Worker.t()]} | {:error, Error.t()}
  def watch(where) do
    with {:ok, [node | _]} <- nodes(where) do
      # Before it is asked, so that no end is missed.
      monitor = Process.monitor({__MODULE__, node})

      case Dist.ask({__MODULE__, node}, :watch, @ask_ms) do
        {:answer, {:ok, ref, workers}} ->
          {:ok, {node, ref, monitor}, Enum.map(workers, &Worker.new(node, &1))}

        other ->
          Process.demonitor(monitor, [:flush])
          error(node, other)
      end
    end
  end

  @doc "What a message says, if it is one of the watch; else `:other`."
  @spec change(watch(), message :: term()) ::
          {:changed, [Worker.t()]} | :missed | {:down, term()} | :other
  def change({_node, ref, _monitor}, {:ringbridge_workers, ref, :missed}), do: :missed

  def change({node, ref, _monitor}, {:ringbridge_workers, ref, workers}),
    do: {:changed, Enum.map(workers, &Worker.new(node, &1))}

  def change({_node, _ref, monitor}, {:DOWN, monitor, :process, _, reason}), do: {:down, reason}
  def change(_watch, _message), do: :other

  @doc "Ends the watch; no message of it is left or will come."
  @spec unwatch(watch()) :: :ok
  def unwatch({node, ref, monitor}) do
    Process.demonitor(monitor, [:flush])
    # Its answer comes behind all that was told, from one node.
    _ended = Dist.ask({__MODULE__, node}, :unwatch, @ask_ms)
    flush(ref)
  end

  defp flush(ref) do
    receive do
      {:ringbridge_workers, ^ref, _} -> flush(ref)
    after
      0 -> :ok
    end
  end

  # A node's name has an @ in it, an instance's has not.
  defp nodes(where) when is_atom(where) do
    if where |> Atom.to_string() |> String.contains?("@"),
      do: {:ok, [where]},
      else: connected(where)
  end

  defp connected(name) do
    with {:ok, instance} <- Instance.fetch(name) do
      case Instance.connected(instance) do
        [] -> {:error, %Error{reason: :not_connected}}
        nodes -> {:ok, nodes}
      end
    end
  end

  defp ask(node, request) do
    case Dist.ask({__MODULE__, node}, request, @ask_ms) do
      {:answer, {:ok, found}} -> {:ok, found}
      other -> error(node, other)
    end
  end

  defp error(node, {:answer, {:error, reason}}), do: {:error, %Error{reason: reason, node: node}}
  defp error(node, {:down, reason}), do: {:error, %Error{reason: {:down, reason}, node: node}}
  defp error(node, :timeout), do: {:error, %Error{reason: :timeout, node: node}}
end
