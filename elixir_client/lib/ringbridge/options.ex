defmodule Ringbridge.Options do
  @moduledoc """
  The options of an instance: one table, checked once, whose errors name the option, the value and the way out.

  `docs/0` makes the text of `Ringbridge.child_spec/1` of the same table.
  """

  import Ringbridge.Deadline, only: [is_wait: 1]

  alias Ringbridge.OptionTable

  @who "{Ringbridge, ..}"

  # A receive and a timer take no more; to find out there would be too late.
  @most_ms Ringbridge.Deadline.most_ms()

  @table [
    name: [
      required: true,
      type: {:name, "an atom, such as MyApp.Compute"},
      doc: "what calls name the instance by, and the registered name of its supervisor"
    ],
    nodes: [
      default: [],
      type: {:nodes, "a list of bridges' node names, such as [:\"bridge@127.0.0.1\"], each once"},
      doc:
        "the bridges, all with the same roles; the nearest one that takes jobs is asked. " <>
          "Required unless there is a `server` or `mode` is `:inline`"
    ],
    server: [
      default: nil,
      type: {:name, "the :name of a Ringbridge.Server, such as MyApp.Bridge"},
      doc:
        "the `Ringbridge.Server` of this tree whose bridge is asked, beside those of `nodes`: its node and cookie are known"
    ],
    cookie: [
      default: nil,
      type: {:cookie, "an atom, a binary, or a function without parameters that returns one"},
      doc: "the bridges' cookie, used for them only"
    ],
    cookie_file: [
      default: nil,
      type: {:path, "a path"},
      doc: "a file with that cookie, readable by its owner only"
    ],
    timeout: [
      default: 5_000,
      type:
        {:timeout,
         "milliseconds (0 to #{@most_ms}), :infinity, or :role for the role's own default"},
      doc:
        "of a job whose call names none: milliseconds, `:infinity` (the role's most) or `:role` " <>
          "(the role's default)"
    ],
    connect_timeout: [
      default: 5_000,
      type: {:milliseconds, "milliseconds, 0 to #{@most_ms}"},
      doc:
        "how long a call waits for a connection when there is none, within its own timeout; 0: not at all"
    ],
    backoff_min_ms: [
      default: 100,
      type: {:positive, "milliseconds, 1 to #{@most_ms}"},
      doc:
        "the first pause before a lost bridge is tried again; it doubles, with up to a half taken off at random"
    ],
    backoff_max_ms: [
      default: 10_000,
      type: {:positive, "milliseconds, 1 to #{@most_ms}, and not below backoff_min_ms"},
      doc: "the longest such pause"
    ],
    lane: [
      default: :auto,
      type: {:lane, ":auto, :dist or :nif"},
      doc:
        "the way to a bridge on this host: `:auto` takes shared memory where the NIF is built and the bridge allows it, " <>
          "`:nif` asks any bridge for it and warns when there is none, `:dist` is the distribution alone"
    ],
    correlate: [
      default: false,
      type: {:boolean, "true or false"},
      doc:
        "tell telemetry of every call's job, worker, queue and run time, by asking the bridge for the detail; " <>
          "the caller's answer stays as it is"
    ],
    mode: [
      default: :dist,
      type: {:mode, ":dist, :local or :inline"},
      doc:
        "`:dist` asks bridges; `:local` a `Ringbridge.LocalBridge` in this VM; `:inline` runs the functions of `roles` in " <>
          "the caller, for tests"
    ],
    bridge: [
      default: nil,
      type: {:bridge, "the pid or the name of a Ringbridge.LocalBridge"},
      doc: "with `mode: :local`: the pid or the name of the `Ringbridge.LocalBridge`"
    ],
    roles: [
      default: %{},
      type:
        {:roles,
         "a map of roles to functions of one (payload) or two (payload, options) parameters"},
      doc:
        "with `mode: :inline`: what each role does, by a function that returns `{:ok, result}` or `{:error, reason}`; " <>
          "a job's module (`Ringbridge.Job`) in the place of a role is given the struct, and gives its result's"
    ]
  ]

  @type t :: keyword()

  @doc """
  The options with their defaults filled in. Raises `ArgumentError` for what cannot be meant.

      iex> Ringbridge.Options.validate!(name: Compute, node: :"bridge@host")
      ** (ArgumentError) {Ringbridge, ..}: unknown option :node; did you mean :nodes?

      iex> Ringbridge.Options.validate!(name: Compute, nodes: [:bridge])
      ** (ArgumentError) {Ringbridge, ..}: option :nodes is a list of bridges' node names, such as [:"bridge@127.0.0.1"], each once; got: [:bridge]
  """
  @spec validate!(keyword()) :: t()
  def validate!(options) do
    @table |> OptionTable.validate!(options, @who, &valid?/2) |> together!()
  end

  @doc "The table as Markdown, for `@doc`."
  @spec docs() :: String.t()
  def docs, do: OptionTable.docs(@table)

  defp together!(options) do
    mode = options[:mode]

    cond do
      mode == :dist and options[:nodes] == [] and options[:server] == nil ->
        fail("option :nodes is required: #{elem(@table[:nodes][:type], 1)}")

      mode != :dist and options[:nodes] != [] ->
        fail(
          "mode: #{inspect(mode)} asks no node; leave out :nodes, got: #{inspect(options[:nodes])}"
        )

      mode != :dist and options[:server] != nil ->
        fail(
          "mode: #{inspect(mode)} asks no node; leave out :server, got: #{inspect(options[:server])}"
        )

      mode != :inline and options[:roles] != %{} ->
        fail("option :roles is for mode: :inline; bridges have roles of their own")

      mode == :local and options[:bridge] == nil ->
        fail("option :bridge is required with mode: :local: #{elem(@table[:bridge][:type], 1)}")

      mode != :local and options[:bridge] != nil ->
        fail("option :bridge is for mode: :local; got mode: #{inspect(mode)}")

      options[:cookie] != nil and options[:cookie_file] != nil ->
        fail("give :cookie or :cookie_file, not both")

      options[:backoff_max_ms] < options[:backoff_min_ms] ->
        fail(
          "option :backoff_max_ms is not below :backoff_min_ms (#{options[:backoff_min_ms]}); got: #{options[:backoff_max_ms]}"
        )

      true ->
        options
    end
  end

  defp valid?(:name, name), do: is_atom(name) and name not in [nil, true, false]
  defp valid?(:cookie, cookie), do: is_atom(cookie) or is_binary(cookie) or is_function(cookie, 0)
  defp valid?(:path, path), do: is_binary(path) and path != ""
  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:mode, mode), do: mode in [:dist, :local, :inline]

  defp valid?(:bridge, bridge),
    do: is_pid(bridge) or (is_atom(bridge) and bridge not in [true, false])

  defp valid?(:lane, lane), do: lane in [:auto, :dist, :nif]
  defp valid?(:milliseconds, ms), do: is_wait(ms)
  defp valid?(:positive, ms), do: is_wait(ms) and ms >= 1

  defp valid?(:timeout, timeout),
    do: timeout in [:infinity, :role] or valid?(:milliseconds, timeout)

  defp valid?(:nodes, nodes) do
    is_list(nodes) and nodes != [] and Enum.all?(nodes, &node_name?/1) and
      nodes == Enum.uniq(nodes)
  end

  defp valid?(:roles, roles) when is_function(roles, 3), do: true

  defp valid?(:roles, roles) do
    is_map(roles) and
      Enum.all?(roles, fn {role, run} ->
        (is_atom(role) or is_binary(role)) and (is_function(run, 1) or is_function(run, 2))
      end)
  end

  defp node_name?(name) do
    is_atom(name) and
      match?([_ | _] = [_name, _host], String.split(Atom.to_string(name), "@", trim: true))
  end

  @spec fail(String.t()) :: no_return()
  defp fail(why), do: OptionTable.fail(@who, why)
end
