defmodule Ringbridge.Job.Declaration do
  @moduledoc false
  # What a record's declaration says, read once when its module is compiled. A mistake is a CompileError at its line.

  alias Ringbridge.Job.{Record, Type}

  @forms [:map, :tuple, :value, :packed]
  @options [:default, :optional, :value, :key, :redact]

  @spec record!(Macro.Env.t(), term(), keyword(), [tuple()]) :: Record.t()
  def record!(env, form, options, declared) do
    form in @forms || raise ArgumentError, "a form is one of #{inspect(@forms)}: #{inspect(form)}"
    kind = if form == :packed, do: :packed, else: :term
    fields = Enum.map(declared, &field!(&1, kind))
    whole!(form, fields)

    %Record{
      module: env.module,
      form: form,
      endian: endian!(form, Keyword.get(options, :endian, :little)),
      open?: form == :map and Keyword.get(options, :open, false) == true,
      fields: fields,
      bytes: if(form == :packed, do: bytes(fields))
    }
  rescue
    error in ArgumentError ->
      reraise CompileError,
              [file: env.file, line: env.line, description: Exception.message(error)],
              __STACKTRACE__
  end

  @spec enforced(Record.t()) :: [atom()]
  def enforced(record),
    do:
      for(%{kind: :value} = f <- record.fields, f.default == :none and not f.optional, do: f.name)

  @spec redacted(Record.t()) :: [atom()]
  def redacted(record), do: for(%{kind: :value, redact: true} = f <- record.fields, do: f.name)

  @spec defaults(Record.t()) :: keyword()
  def defaults(record) do
    for %{kind: :value} = field <- record.fields do
      {field.name, with(:none <- field.default, do: nil)}
    end
  end

  @spec types(Record.t()) :: keyword(Macro.t())
  def types(record) do
    for %{kind: :value} = field <- record.fields do
      type = spec(field.type)
      {field.name, if(field.optional, do: quote(do: unquote(type) | nil), else: type)}
    end
  end

  defp field!({:pad, count}, :packed) when is_integer(count) and count > 0,
    do: made(:pad, :pad, {:binary, {count, count}}, [])

  defp field!({:count, name, word}, :packed), do: made(name, :count, integer!(name, word), [])

  defp field!({:field, name, declared, options}, kind) when is_atom(name) do
    {ours, types} = Keyword.split(options, @options)
    type = read!(name, declared, types, kind)
    kind_of = if Keyword.has_key?(ours, :value), do: :constant, else: :value
    made(name, kind_of, type, ours)
  end

  defp field!(other, kind), do: raise(ArgumentError, "#{inspect(other)} is in no #{kind} form")

  defp integer!(name, word) do
    with {:int, _word, _bounds} = type <- read!(name, word, [], :packed) do
      type
    else
      _ -> raise ArgumentError, "count #{inspect(name)}: an integer type, not #{inspect(word)}"
    end
  end

  defp read!(name, declared, options, kind) do
    Type.read!(declared, options, kind)
  rescue
    error in ArgumentError ->
      reraise ArgumentError, "field #{inspect(name)}: #{Exception.message(error)}", __STACKTRACE__
  end

  defp made(name, kind, type, options) do
    %{
      name: name,
      key: Keyword.get(options, :key, name),
      kind: kind,
      type: type,
      value: options[:value],
      default: Keyword.get(options, :default, :none),
      optional: options[:optional] == true,
      redact: options[:redact] == true
    }
    |> sound!()
  end

  # A constant or a default that its own type refuses would be found at the first job, by somebody else.
  defp sound!(%{kind: :constant, type: type} = field) do
    field |> scalar!(type, field.value, "value:") |> arriving()
  end

  defp sound!(%{kind: :value, default: default} = field) when default not in [:none, nil],
    do: scalar!(field, field.type, default, "default:")

  defp sound!(field), do: field

  # Read back it is what its type has of it.
  defp arriving(%{type: {:ieee, word, _, _}, value: value} = field) when is_number(value),
    do: %{field | value: Type.sent(word, value)}

  defp arriving(field), do: field

  defp scalar!(field, {kind, _, _}, _value, _word) when kind in [:list, :array], do: field

  defp scalar!(field, {kind, _}, _value, _word) when kind in [:tuple, :map, :one_of, :record],
    do: field

  defp scalar!(field, type, value, word) do
    Type.scalar?(type, value) ||
      raise ArgumentError,
            "field #{inspect(field.name)}: #{word} must be #{Type.words(type)}, got: #{inspect(value)}"

    field
  end

  defp whole!(form, fields) do
    names = for %{kind: :value, name: name} <- fields, do: name
    twice = names -- Enum.uniq(names)
    twice == [] || raise ArgumentError, "field #{inspect(hd(twice))} is there twice"
    keys = for %{key: key} <- fields, form == :map, do: key
    keys = keys -- Enum.uniq(keys)
    keys == [] || raise ArgumentError, "key #{inspect(hd(keys))} is that of two fields"
    optional = Enum.find(fields, & &1.optional)

    cond do
      form == :value and length(fields) != 1 ->
        raise ArgumentError, "the form :value has one field, not #{length(fields)}"

      form != :map and optional != nil ->
        raise ArgumentError, "field #{inspect(optional.name)}: only a map may lack one"

      form == :packed ->
        packed!(fields)

      true ->
        :ok
    end
  end

  defp packed!(fields) do
    for field <- Enum.drop(fields, -1), Type.bytes(field.type) == nil do
      raise ArgumentError,
            "field #{inspect(field.name)}: #{Type.words(field.type)} has no certain size, " <>
              "so it has to be the last one"
    end

    for %{kind: :count, name: name} <- fields do
      match?(%{name: ^name, kind: :value, type: {:list, _, _}}, List.last(fields)) ||
        raise ArgumentError,
              "count #{inspect(name)}: the last field is to be the list of that name"
    end
  end

  defp bytes(fields) do
    sizes = Enum.map(fields, &Type.bytes(&1.type))
    if Enum.all?(sizes), do: Enum.sum(sizes)
  end

  defp endian!(_form, :little), do: :little
  defp endian!(:packed, :big), do: :big

  defp endian!(_form, other),
    do:
      raise(ArgumentError, "endian: is :little or :big, of a packed form; got: #{inspect(other)}")

  defp spec({kind, _bounds}) when kind == :integer, do: quote(do: integer())
  defp spec({:int, _word, _bounds}), do: quote(do: integer())
  defp spec({:float, _bounds}), do: quote(do: float())
  defp spec({:number, _bounds}), do: quote(do: number())
  defp spec({:ieee, _word, _bounds, false}), do: quote(do: number())
  defp spec({:ieee, _word, _bounds, true}), do: quote(do: number() | atom())
  defp spec({:binary, _size}), do: quote(do: binary())
  defp spec({:atom, _atoms}), do: quote(do: atom())
  defp spec({:list, of, _size}), do: quote(do: [unquote(spec(of))])
  defp spec({:array, of, _count}), do: quote(do: [unquote(spec(of))])
  defp spec({:tuple, types}), do: {:{}, [], Enum.map(types, &spec/1)}
  defp spec({:map, pairs}), do: {:%{}, [], for({key, type} <- pairs, do: {key, spec(type)})}
  defp spec({:record, module}), do: quote(do: unquote(module).t())

  defp spec({:one_of, types}),
    do: types |> Enum.map(&spec/1) |> Enum.reduce(&quote(do: unquote(&1) | unquote(&2)))

  defp spec(_any), do: quote(do: term())
end
