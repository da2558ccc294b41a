defmodule Ringbridge.Doctor do
  @moduledoc """
  Whether this VM can have work done by a bridge, step by step from its own name to an answer: `mix ringbridge.doctor`.

  It looks from the side of those who call. What the bridge needs on its own machine (kernel, programs, ports) is looked at by its own
  `ringbridge doctor`, there. A step whose ground is missing is not taken: the first that is bad is the one to mend.

  Each check is a function of what was found, `Ringbridge.Doctor.Judge`; this module finds it. Nothing is changed, but that the VM becomes a
  node, and one job of the role `echo` is run.
  """
  alias Ringbridge.{Cookie, LocalNode, Reach}
  alias Ringbridge.Doctor.{Finding, Judge}
  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Reach.Probe

  @echo_ms 5_000
  @round_trips 5

  @doc "All that can be found, in the order in which one would mend it. `where` says in words whence the cookie comes."
  @spec examine(node(), Cookie.source(), String.t()) :: [Finding.t()]
  def examine(node, source, where) do
    [Judge.versions(System.version(), System.otp_release()) | reached(node, source, where)]
  end

  defp reached(node, source, where) do
    case LocalNode.ensure([node], source) do
      {:error, why} ->
        [Judge.name_or_cookie(why)]

      :ok ->
        own = [Judge.own_name(Node.self()), Judge.cookie(where), Judge.carrier(carrier())]
        own ++ if(Node.connect(node) == true, do: connected(node), else: cut_off(node))
    end
  end

  defp carrier, do: :init.get_argument(:proto_dist)

  defp cut_off(node), do: Judge.unreachable(Probe.look(node), node)

  defp connected(node) do
    [
      Judge.connected(node, Judge.hidden?(node, Node.list(:hidden))),
      Judge.host(node, LocalNode.same_host?(node))
      | answers(node)
    ]
  end

  defp answers(node) do
    with {:ok, us} <- round_trip(node),
         {:ok, look} <- Look.look(node) do
      status = look.status

      [
        Judge.answers(us),
        Judge.version(status.version, to_string(Application.spec(:ringbridge, :vsn))),
        Judge.layout(status[:layout], Base.encode16(Ringbridge.Layout.digest(), case: :lower)),
        Judge.clock(clock(node)),
        Judge.admin(Reach.ask(node, Ringbridge.WorkerRegistry, :crash_reports))
      ] ++ Judge.roles(look) ++ [Judge.echo(echo(node))]
    else
      {:error, error} -> [Judge.silent(error)]
    end
  end

  # The relay's own answer: the way there and back.
  defp round_trip(node) do
    Enum.reduce_while(1..@round_trips, {:ok, []}, fn _, {:ok, times} ->
      {us, answer} = :timer.tc(fn -> Reach.ask(node, Ringbridge.JobDispatcher, :stats) end)

      case answer do
        {:ok, _stats} -> {:cont, {:ok, [us | times]}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
    |> case do
      {:ok, times} -> {:ok, times |> Enum.sort() |> Enum.at(div(@round_trips, 2))}
      {:error, error} -> {:error, error}
    end
  end

  # How far the bridge's clock is ahead, and how well that is known: half of the time of asking.
  defp clock(node) do
    before_ms = System.system_time(:millisecond)
    theirs = :rpc.call(node, :erlang, :system_time, [:millisecond], @echo_ms)
    after_ms = System.system_time(:millisecond)

    if is_integer(theirs),
      do: {:ok, theirs - div(before_ms + after_ms, 2), div(after_ms - before_ms, 2) + 1},
      else: :unknown
  end

  defp echo(node) do
    payload = :crypto.strong_rand_bytes(64)
    request = {:submit, :echo, payload, detail: true, timeout: @echo_ms}

    # The answer is a tuple of three.
    case GenServer.call({Ringbridge.JobDispatcher, node}, request, 2 * @echo_ms) do
      {:ok, ^payload, detail} -> {:ok, detail}
      {:ok, _other, _detail} -> :wrong
      {:error, reason} -> {:error, %Ringbridge.Error{reason: reason, role: :echo, node: node}}
    end
  catch
    :exit, _reason -> {:error, %Ringbridge.Error{reason: :timeout, role: :echo, node: node}}
  end
end
