defmodule Ringbridge.Cookie do
  @moduledoc """
  Where the bridges' cookie comes from.

  In this order: option `:cookie`, option `:cookie_file`; and for a VM that was started without a name also what a
  bridge itself looks for: `RINGBRIDGE_COOKIE`, `~/.erlang.cookie`, `$XDG_CONFIG_HOME/erlang/.erlang.cookie`. A VM with
  a name has a cookie of its own, which holds unless an option says otherwise.

  A cookie is kept in a function, so that no report of a crash and no `:sys.get_state/1` shows it.
  """

  @typedoc "Gives the cookie when it is asked; `nil` when no option says any."
  @type source :: (() -> {:ok, atom()} | {:error, String.t()}) | nil

  @doc """
  The options with the cookie wrapped, for a child spec, which supervisors print. Whatever it is, and in whatever they are: wrong
  options are printed too.
  """
  @spec conceal(term()) :: term()
  def conceal(options) when is_list(options) do
    if List.improper?(options), do: options, else: Enum.map(options, &hide/1)
  end

  def conceal(options) when is_map(options) and not is_struct(options),
    do: Map.new(options, &hide/1)

  def conceal(options), do: options

  defp hide({key, cookie})
       when key in [:cookie, "cookie"] and cookie != nil and not is_function(cookie),
       do: {key, fn -> cookie end}

  defp hide(option), do: option

  @doc "Where the cookie comes from, by an instance's `:cookie` or `:cookie_file`; nil when it names neither."
  @spec source(keyword()) :: source()
  def source(options) do
    case {options[:cookie], options[:cookie_file]} do
      {nil, nil} -> nil
      {nil, path} -> fn -> read(path) end
      {given, nil} when is_function(given) -> fn -> asked(given) end
      {given, nil} -> fn -> checked(given, "option :cookie") end
    end
  end

  @doc "What a bridge of this user finds without being told."
  @spec default() :: {:ok, atom()} | {:error, String.t()}
  def default do
    with nil <- System.get_env("RINGBRIDGE_COOKIE"),
         nil <- Enum.find(files(), &File.exists?/1) do
      {:error,
       "there is no cookie: give :cookie_file, or set RINGBRIDGE_COOKIE, or make #{hd(files())}"}
    else
      "/" <> _ = path ->
        if path in files(), do: read(path), else: checked(path, "RINGBRIDGE_COOKIE")

      cookie ->
        checked(cookie, "RINGBRIDGE_COOKIE")
    end
  end

  @doc "Whether there is one that a bridge would find, good or bad."
  @spec any?() :: boolean()
  def any?, do: System.get_env("RINGBRIDGE_COOKIE") != nil or Enum.any?(files(), &File.exists?/1)

  defp files do
    home = System.user_home() || "/"
    xdg = :filename.basedir(:user_config, "erlang")
    [Path.join(home, ".erlang.cookie"), Path.join(xdg, ".erlang.cookie")]
  end

  # OTP demands it of its own file, and so does the bridge.
  defp read(path) do
    with {:ok, %File.Stat{mode: mode}} <- File.stat(path),
         {:mode, 0} <- {:mode, Bitwise.band(mode, 0o077)},
         {:ok, text} <- File.read(path) do
      checked(trimmed(text), path)
    else
      {:mode, _others} ->
        {:error, "cookie file #{path} is open to others; mend it by chmod 400 #{path}"}

      {:error, why} ->
        {:error, "cookie file #{path}: #{:file.format_error(why)}"}
    end
  end

  defp trimmed(text), do: if(String.valid?(text), do: String.trim(text), else: text)

  # It runs in the connection, at each attempt: what it raises is one failure more, not the end of the instance. Neither
  # value nor message is told: both may hold the cookie ("no match of right hand side value").
  defp asked(given) do
    checked(given.(), "option :cookie")
  rescue
    error -> {:error, "the function of option :cookie raised #{inspect(error.__struct__)}"}
  catch
    kind, _value -> {:error, "the function of option :cookie ended by #{kind}"}
  end

  defp checked(cookie, where) do
    text = if is_atom(cookie) and cookie != nil, do: Atom.to_string(cookie), else: cookie

    if is_binary(text) and text != "" and String.valid?(text) and String.length(text) <= 255,
      do: {:ok, String.to_atom(text)},
      else: {:error, "#{where} holds no cookie: 1 to 255 characters of UTF-8"}
  end
end
