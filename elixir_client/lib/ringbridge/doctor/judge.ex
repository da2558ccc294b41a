defmodule Ringbridge.Doctor.Judge do
  @moduledoc "What was found, as findings (`Ringbridge.Doctor.Finding`): one function a check, of facts alone."

  import Ringbridge.Doctor.Finding, only: [ok: 2, hm: 4, bad: 4]

  alias Ringbridge.{Error, Reach}
  alias Ringbridge.Doctor.Finding
  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.Units
  alias Ringbridge.Reach.Probe

  @elixir_min "1.14.0"
  @otp_min 25

  # Above it the log lines of two machines are hard to lay side by side.
  @clock_ms 1_000

  @doc "Of Elixir and OTP."
  @spec versions(String.t(), String.t()) :: Finding.t()
  def versions(elixir, otp) do
    found = "Elixir #{elixir} on OTP #{otp}"

    if Version.compare(elixir, @elixir_min) != :lt and String.to_integer(otp) >= @otp_min,
      do: ok("versions", found),
      else:
        bad(
          "versions",
          found,
          "the client is written for Elixir 1.14 and OTP 25, or later",
          "Install a newer Erlang and Elixir"
        )
  end

  @doc "Names that do not fit each other, and cookies that cannot be had, are told by one function of the client."
  @spec name_or_cookie(String.t()) :: Finding.t()
  def name_or_cookie(why),
    do:
      bad(
        "this VM",
        why,
        "a call goes from one node to another",
        "Mend what it says, and look again"
      )

  @doc "Of this VM, which may have none."
  @spec own_name(node()) :: Finding.t()
  def own_name(node) do
    made? = String.starts_with?(Atom.to_string(node), "ringbridge-")

    ok(
      "this VM",
      if(made?, do: "#{node}, hidden, made for this run; listens nowhere", else: "#{node}")
    )
  end

  @doc "Where the cookie was found."
  @spec cookie(String.t()) :: Finding.t()
  def cookie(where), do: ok("cookie", where)

  @doc "What carries the distribution: TCP, or what `-proto_dist` says."
  @spec carrier(:error | {:ok, term()}) :: Finding.t()
  def carrier(:error), do: ok("carrier", "plain TCP")
  def carrier({:ok, [[name]]}), do: ok("carrier", "#{name}")
  def carrier({:ok, other}), do: ok("carrier", inspect(other))

  # The steps of a probe, in order, with what each is called here.
  @steps [:host, :epmd, :name, :port, :handshake]

  @doc "The steps that went well before the one that did not, and that one."
  @spec unreachable(Probe.found(), node()) :: [Finding.t()]
  def unreachable(found, node) do
    failed = if is_tuple(found), do: elem(found, 0), else: found

    fine =
      for step <- Enum.take_while(@steps, &(&1 != failed)), failed in @steps do
        ok(Atom.to_string(step), went_well(step, node))
      end

    fine ++
      [
        bad(
          "#{failed}",
          "cannot reach #{node}",
          "without a connection no call is answered",
          capital(Probe.words(found, node))
        )
      ]
  end

  defp went_well(:host, node), do: "#{host(node)} has an address"
  defp went_well(:epmd, node), do: "answers on #{host(node)}"
  defp went_well(:name, node), do: "#{node} is registered"
  defp went_well(:port, node), do: "#{node} lets a connection in"

  @doc "Whether the node is among the hidden ones."
  @spec hidden?(node(), [node()]) :: boolean()
  def hidden?(node, hidden), do: node in hidden

  @doc "The connection; a node that is not hidden is no bridge."
  @spec connected(node(), boolean()) :: Finding.t()
  def connected(node, true), do: ok("connection", "#{node}, a hidden node, as bridges are")

  def connected(node, false) do
    hm(
      "connection",
      "#{node}, a visible node",
      "a bridge is hidden: this may be another BEAM that has its name",
      "Look at --node"
    )
  end

  @doc "Whether the bridge is on this host."
  @spec host(node(), boolean()) :: Finding.t()
  def host(_node, true), do: ok("host", "the same: a lane over shared memory would be possible")
  def host(node, false), do: ok("host", "#{host(node)}, another one: calls go over the network")

  @doc "How soon it answers, in microseconds."
  @spec answers(non_neg_integer()) :: Finding.t()
  def answers(us), do: ok("answers", "#{Units.microseconds(us)} there and back (median of 5)")

  @doc "It is connected, and does not answer."
  @spec silent(Error.t()) :: Finding.t()
  def silent(error) do
    bad(
      "answers",
      Reach.words(error),
      "the node is there, and what should take jobs does not speak",
      "Is it a bridge, and has it just begun or ended? Its log says; `ringbridge doctor` on its machine looks at the rest"
    )
  end

  @doc "The bridge's version beside the client's."
  @spec version(String.t(), String.t()) :: Finding.t()
  def version(same, same), do: ok("version", same)

  def version(theirs, ours) do
    hm(
      "version",
      "the bridge has #{theirs}, the client #{ours}",
      "plain calls work across versions; what one of them does not know yet is answered :bad_request",
      "Take both from one release"
    )
  end

  @doc "The bridge's layout beside the client's."
  @spec layout(%{version: String.t(), digest: String.t()} | nil, String.t()) :: Finding.t()
  def layout(nil, _ours) do
    hm(
      "layout",
      "the bridge does not tell its own",
      "it is older than this client",
      "Take both from one release"
    )
  end

  def layout(%{digest: same} = layout, same),
    do: ok("layout", "#{layout.version}, the same on both sides (#{String.slice(same, 0, 12)})")

  def layout(layout, ours) do
    hm(
      "layout",
      "the bridge has #{layout.version} (#{String.slice(layout.digest, 0, 12)}), the client another (#{String.slice(ours, 0, 12)})",
      "calls over the distribution do not depend on it; memory shared with the bridge does, and is not shared then",
      "Take both from one release, and build them anew"
    )
  end

  @doc "How far the two clocks are apart."
  @spec clock({:ok, integer(), pos_integer()} | :unknown) :: Finding.t()
  def clock(:unknown) do
    hm(
      "clock",
      "the bridge does not tell the time",
      "the lines of both logs may be of other hours",
      "Look at its log"
    )
  end

  def clock({:ok, ahead_ms, _give_or_take_ms}) when abs(ahead_ms) <= @clock_ms,
    do: ok("clock", "the bridge's is within a second of ours (#{ahead_ms} ms)")

  def clock({:ok, ahead_ms, give_or_take_ms}) do
    hm(
      "clock",
      "the bridge's is #{ahead_ms} ms ahead of ours, give or take #{give_or_take_ms}",
      "no deadline depends on it, they are sent as what is left; log lines and traces of both sides do",
      "Have both machines keep time (chrony, systemd-timesyncd)"
    )
  end

  @doc "Whether this node may change the bridge."
  @spec admin(:ok | {:ok, term()} | {:error, Error.t()}) :: Finding.t()
  def admin({:error, %Error{reason: {:unauthorized, _why}} = error}) do
    hm(
      "admin",
      "this node may look and call, and change nothing",
      "drain, restart, reload and crash reports are for [node] admin_nodes",
      capital(Reach.words(error))
    )
  end

  def admin({:error, error}), do: silent(error)
  def admin(_reports), do: ok("admin", "this node may drain, restart, reload and configure")

  @doc "A finding for each role, and one for each thing that is not as usual."
  @spec roles(Look.t()) :: [Finding.t()]
  def roles(look) do
    for role <- look.status.roles do
      all = Enum.count(look.status.workers, &(Atom.to_string(&1.role) == role.name))

      found =
        "#{role.state}, #{role.workers_ready} of #{all} workers ready, breaker #{role.breaker}"

      name = "role #{role.name}"
      mine = prefixed(look, role.name)

      cond do
        mine != [] ->
          hm(name, found, "jobs of it may be refused, or wait", Enum.join(mine, "; "))

        role.workers_ready == 0 ->
          hm(
            name,
            found,
            "its jobs wait until a worker is ready",
            "mix ipc.inspect --role #{role.name} shows the last errors"
          )

        true ->
          ok(name, found)
      end
    end
  end

  defp prefixed(look, name),
    do: look |> Look.noteworthy() |> Enum.filter(&String.starts_with?(&1, name <> ": "))

  @doc "A job there and back."
  @spec echo({:ok, map()} | :wrong | {:error, Error.t()}) :: Finding.t()
  def echo({:ok, detail}) do
    queued = Units.microseconds(detail.queue_us)
    ran = Units.microseconds(detail.run_us)

    ok(
      "a job",
      "echo answered what it was sent, by worker #{detail.worker} (queued #{queued}, ran #{ran})"
    )
  end

  def echo(:wrong) do
    bad(
      "a job",
      "echo answered something else than it was sent",
      "that is a bug of ours",
      "Please report it, with what `mix ipc.inspect --json` prints"
    )
  end

  def echo({:error, %Error{reason: {:bad_request, _why}} = error}) do
    hm(
      "a job",
      Exception.message(error),
      "the role echo is for such checks; your own roles may well work",
      "Add [roles.echo] to ringbridge.toml, as docs/configuration.md has it"
    )
  end

  def echo({:error, error}) do
    bad(
      "a job",
      Exception.message(error),
      "docs/errors.md says what this reason means",
      "mix ipc.inspect --role echo"
    )
  end

  defp host(node), do: node |> Atom.to_string() |> String.split("@") |> List.last()

  defp capital(<<first::utf8, rest::binary>>), do: String.upcase(<<first::utf8>>) <> rest
  defp capital(""), do: ""
end
