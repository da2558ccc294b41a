defmodule Ringbridge.Server.Options do
  @moduledoc """
  The options of a `Ringbridge.Server`: one table, checked once. `docs/0` makes the text of `Ringbridge.Server.child_spec/1` of it.
  """

  import Ringbridge.Deadline, only: [is_wait: 1]

  alias Ringbridge.{Cookie, OptionTable}

  @who "{Ringbridge.Server, ..}"
  @most_ms Ringbridge.Deadline.most_ms()
  @name_max 200
  @levels [:debug, :info, :warning, :error]

  # A name of the environment that the shepherd and the bridge are never given: it would be readable in /proc.
  @cookie_variable "RINGBRIDGE_COOKIE"

  @env_words "a map of names to texts, or nil for a name that is not passed on; or a function without parameters that returns one"

  @table [
    name: [
      required: true,
      type: {:name, "an atom of #{@name_max} characters at most, such as MyApp.Bridge"},
      doc: "the registered name of its supervisor; what `server:` of an instance names it by"
    ],
    config: [
      required: true,
      type: {:path, "a path"},
      doc: "the bridge's settings (docs/configuration.md)"
    ],
    node: [
      default: nil,
      type: {:node, "a node name, such as :\"bridge@127.0.0.1\""},
      doc:
        "the bridge's node name, in place of the settings' own. Without it one is made of `name` and the VM's process id, so that " <>
          "no two on a host have the same"
    ],
    cookie: [
      default: nil,
      type: {:cookie, "an atom, a binary, or a function without parameters that returns one"},
      doc:
        "the bridge's cookie. Without it and `cookie_file`: this VM's own if it has a name, else what a bridge finds by " <>
          "itself (`Ringbridge.Cookie`), else one that is made for this run"
    ],
    cookie_file: [
      default: nil,
      type: {:path, "a path"},
      doc: "a file with that cookie, readable by its owner only"
    ],
    command: [
      default: nil,
      type: {:command, "a program, or a list of it and its first arguments"},
      doc:
        "what starts the bridge. Without it: what `mix ringbridge.install` installed, else `ringbridge` of the PATH"
    ],
    shepherd: [
      default: nil,
      type: {:path, "a path"},
      doc:
        "the program `ringbridge-shepherd`. Without it: what `RINGBRIDGE_SHEPHERD` names, else looked for beside `command`"
    ],
    env: [
      default: %{},
      type: {:env, @env_words},
      doc:
        "what the bridge's environment has beside this VM's own. A function is asked at each start of the bridge"
    ],
    log_level: [
      default: :info,
      type: {:level, ":debug, :info, :warning or :error"},
      doc: "the least that the bridge says to this VM's Logger"
    ],
    ready_timeout: [
      default: 0,
      type: {:milliseconds, "milliseconds, 0 to #{@most_ms}"},
      doc:
        "how long the start waits for the bridge to be ready, and fails when it is not; 0: it does not wait, and calls do"
    ],
    shutdown: [
      default: 15_000,
      type: {:milliseconds, "milliseconds, 0 to #{@most_ms}"},
      doc:
        "how long the bridge may take to end in order; above `drain_ms` of its settings (10 s). Then it is killed"
    ],
    backoff_min_ms: [
      default: 200,
      type: {:positive, "milliseconds, 1 to #{@most_ms}"},
      doc:
        "the first pause before a bridge that ended is started again; it doubles, with up to a half taken off at random"
    ],
    backoff_max_ms: [
      default: 10_000,
      type: {:positive, "milliseconds, 1 to #{@most_ms}, and not below backoff_min_ms"},
      doc:
        "the longest such pause. A bridge that was ready for as long begins anew with the first"
    ],
    max_failures: [
      default: 10,
      type: {:count, "a number of 1 or more, or :infinity"},
      doc:
        "after how many such ends in a row the server gives up and ends, which its own supervisor then judges"
    ]
  ]

  @type t :: keyword()

  @doc """
  The options with their defaults filled in. Raises `ArgumentError` for what cannot be meant.

      iex> Ringbridge.Server.Options.validate!(name: Bridge, confg: "ringbridge.toml")
      ** (ArgumentError) {Ringbridge.Server, ..}: unknown option :confg; did you mean :config?

      iex> Ringbridge.Server.Options.validate!(name: Bridge, config: "ringbridge.toml", node: :bridge)
      ** (ArgumentError) {Ringbridge.Server, ..}: option :node is a node name, such as :"bridge@127.0.0.1"; got: :bridge
  """
  @spec validate!(keyword()) :: t()
  def validate!(options) do
    revealed = revealed(options)
    if Keyword.keyword?(revealed), do: environment!(revealed[:env])
    valid = @table |> OptionTable.validate!(revealed, @who, &valid?/2) |> together!()
    Keyword.replace!(valid, :env, concealed(options[:env] || %{}))
  end

  @doc """
  The options with their secrets, the cookie and the environment, wrapped in functions: for a child spec, which supervisors print.
  Whatever they are, and in whatever: wrong options are printed too.
  """
  @spec conceal(term()) :: term()
  def conceal(options) do
    case Cookie.conceal(options) do
      [_ | _] = options ->
        if List.improper?(options), do: options, else: Enum.map(options, &hide/1)

      options when is_map(options) and not is_struct(options) ->
        Map.new(options, &hide/1)

      other ->
        other
    end
  end

  defp hide({key, env}) when key in [:env, "env"], do: {key, concealed(env)}
  defp hide(option), do: option

  # No report of a crash and no :sys.get_state/1 looks into a function.
  defp concealed(env) when is_function(env), do: env
  defp concealed(env), do: fn -> env end

  @doc "What option `:env` is at this start of the bridge. No value of it is told, nor what its function raised with."
  @spec environment((() -> term())) ::
          {:ok, [{String.t(), String.t() | nil}]} | {:error, String.t()}
  def environment(source) do
    with {:ok, env} <- asked(source) do
      if valid?(:env, env) and not cookie_in?(env),
        do: {:ok, Enum.to_list(env)},
        else: {:error, "the function of option :env has not returned what the option may be"}
    end
  end

  defp asked(source) do
    {:ok, source.()}
  rescue
    error -> {:error, "the function of option :env raised #{inspect(error.__struct__)}"}
  catch
    kind, _value -> {:error, "the function of option :env ended by #{kind}"}
  end

  defp revealed(options) do
    with true <- Keyword.keyword?(options),
         {:ok, source} when is_function(source, 0) <- Keyword.fetch(options, :env) do
      case asked(source) do
        {:ok, env} -> Keyword.put(options, :env, env)
        {:error, why} -> OptionTable.fail(@who, why)
      end
    else
      _as_it_is -> options
    end
  end

  @doc "The table as Markdown, for `@doc`."
  @spec docs() :: String.t()
  def docs, do: OptionTable.docs(@table)

  @doc "The name of the variable that no process is given."
  @spec cookie_variable() :: String.t()
  def cookie_variable, do: @cookie_variable

  # By its name: the values may be secrets.
  defp environment!(env)
       when (is_map(env) and not is_struct(env)) or (is_list(env) and env != []) do
    entries = if is_list(env) and List.improper?(env), do: [], else: env

    if cookie_in?(entries),
      do:
        OptionTable.fail(
          @who,
          "option :env is no place for #{@cookie_variable}, which could be read in /proc; give option :cookie or :cookie_file"
        )

    case for {name, value} <- entries, not entry?(name, value), do: name do
      [] -> :ok
      names -> OptionTable.fail(@who, "option :env is #{@env_words}; not so: #{inspect(names)}")
    end
  end

  defp environment!(_none_or_nothing_that_can_be_meant), do: :ok

  defp cookie_in?(entries), do: Enum.any?(entries, &match?({@cookie_variable, _cookie}, &1))

  defp together!(options) do
    cond do
      options[:cookie] != nil and options[:cookie_file] != nil ->
        OptionTable.fail(@who, "give :cookie or :cookie_file, not both")

      options[:backoff_max_ms] < options[:backoff_min_ms] ->
        OptionTable.fail(
          @who,
          "option :backoff_max_ms is not below :backoff_min_ms (#{options[:backoff_min_ms]}); got: #{options[:backoff_max_ms]}"
        )

      true ->
        options
    end
  end

  # What cannot be registered, and what leaves no room or no text for the names of its processes, which are made of it: an atom has 255
  # characters at most.
  defp valid?(:name, name) do
    is_atom(name) and name not in [nil, true, false, :undefined, :""] and
      String.length(Atom.to_string(name)) <= @name_max
  end

  defp valid?(:path, path), do: text?(path) and path != ""
  defp valid?(:cookie, cookie), do: is_atom(cookie) or is_binary(cookie) or is_function(cookie, 0)
  defp valid?(:level, level), do: level in @levels
  defp valid?(:milliseconds, ms), do: is_wait(ms)
  defp valid?(:positive, ms), do: is_wait(ms) and ms >= 1
  defp valid?(:count, count), do: count == :infinity or (is_integer(count) and count >= 1)

  defp valid?(:command, [program | more]),
    do: valid?(:path, program) and is_list(more) and Enum.all?(more, &text?/1)

  defp valid?(:command, program), do: valid?(:path, program)

  defp valid?(:env, env) do
    ((is_map(env) and not is_struct(env)) or (is_list(env) and not List.improper?(env))) and
      Enum.all?(env, fn
        {name, value} -> entry?(name, value)
        _other -> false
      end)
  end

  defp valid?(:node, name) do
    is_atom(name) and
      match?([_, _], String.split(Atom.to_string(name), "@", trim: true))
  end

  defp entry?(name, value), do: name?(name) and (value == nil or text?(value))
  defp name?(name), do: text?(name) and name != "" and not String.contains?(name, "=")

  # What crosses to a program ends at the first NUL.
  defp text?(text), do: is_binary(text) and not String.contains?(text, <<0>>)
end
