defmodule Ringbridge.OptionTable do
  @moduledoc """
  A table of options: what a child spec may be given, checked once, with errors that name the option, the value and the way
  out, and the same rows as documentation.

  A table is a keyword list of rows: `:type` (`{kind, words}`), `:doc`, and `:default` or `required: true`.
  """

  @type table :: keyword(keyword())

  @doc """
  The options with their defaults filled in. `valid?` is asked whether a value is of a kind; `who` begins each message.
  Raises `ArgumentError`.
  """
  @spec validate!(table(), term(), String.t(), (atom(), term() -> boolean())) :: keyword()
  def validate!(table, options, who, valid?) do
    Keyword.keyword?(options) || fail(who, "options are a keyword list")
    for key <- Keyword.keys(options), do: known!(table, key, who)
    for {key, rule} <- table, do: {key, value!(key, rule, options, who, valid?)}
  end

  @doc "The table as Markdown, for `@doc`."
  @spec docs(table()) :: String.t()
  def docs(table) do
    Enum.map_join(table, "\n", fn {key, rule} ->
      "  * `#{inspect(key)}` - #{rule[:doc]}#{default(rule)}"
    end)
  end

  @doc "Raises `ArgumentError`: who was given what is wrong, and why."
  @spec fail(String.t(), String.t()) :: no_return()
  def fail(who, why), do: raise(ArgumentError, "#{who}: #{why}")

  defp default(rule) do
    cond do
      rule[:required] -> " (required)"
      rule[:default] in [nil, [], %{}] -> ""
      true -> " (default `#{inspect(rule[:default])}`)"
    end
  end

  defp known!(table, key, who) do
    keys = Keyword.keys(table)

    unless key in keys do
      near = Enum.max_by(keys, &String.jaro_distance(to_string(&1), to_string(key)))

      if String.jaro_distance(to_string(near), to_string(key)) > 0.77,
        do: fail(who, "unknown option #{inspect(key)}; did you mean #{inspect(near)}?"),
        else:
          fail(
            who,
            "unknown option #{inspect(key)}; there are #{Enum.map_join(keys, ", ", &inspect/1)}"
          )
    end
  end

  defp value!(key, rule, options, who, valid?) do
    {type, words} = rule[:type]

    case Keyword.fetch(options, key) do
      {:ok, value} ->
        (value == rule[:default] and not Keyword.get(rule, :required, false)) or
          valid?.(type, value) ||
          fail(who, "option #{inspect(key)} is #{words}; got: #{shown(key, value)}")

        value

      :error ->
        if rule[:required], do: fail(who, "option #{inspect(key)} is required: #{words}")
        rule[:default]
    end
  end

  # A cookie is in no message, nor is what an environment holds.
  defp shown(key, _value) when key in [:cookie, :env], do: "something else"
  defp shown(_key, value), do: inspect(value)
end
