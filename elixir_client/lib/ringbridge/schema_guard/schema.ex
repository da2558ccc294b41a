defmodule Ringbridge.SchemaGuard.Schema do
  @moduledoc """
  What an operation takes, in one form for both sides: a job's declaration, and a role's `[roles.x.ops.y]` (docs/ops.md).

  `within/2` tells whether everything that the one allows is taken by the other. A job may be narrower than its role, never wider.
  """
  alias Ringbridge.Job.{Bytes, Record, Type}

  @typedoc "As `Ringbridge.Job.Type`, but maps name the keys that may be missing, and atoms are texts."
  @type t ::
          :any
          | {:integer | :float | :number, Type.bounds()}
          | {:binary, Type.size()}
          | {:atom, [String.t()] | nil}
          | {:list, t(), Type.size()}
          | {:tuple, [t()]}
          | {:map, [{atom() | binary(), t(), optional :: boolean()}], open :: boolean()}
          | {:one_of, [t()]}

  @most 9_223_372_036_854_775_807

  # --- Of a job ------------------------------------------------------------------------------------------------

  @doc "What a record is on the way."
  @spec of(module()) :: t()
  def of(module), do: of_record(module.__record__())

  defp of_record(%Record{form: :packed} = record),
    do: {:binary, {Bytes.least_bytes(record), Bytes.most_bytes(record)}}

  defp of_record(%Record{form: :value, fields: [field]}), do: of_field(field)

  defp of_record(%Record{form: :tuple} = record),
    do: {:tuple, Enum.map(record.fields, &of_field/1)}

  defp of_record(%Record{form: :map} = record) do
    {:map, for(field <- record.fields, do: {field.key, of_field(field), field.optional}),
     record.open?}
  end

  defp of_field(%{kind: :constant, value: value}) when is_atom(value), do: {:atom, ["#{value}"]}

  defp of_field(%{kind: :constant, value: value, type: {kind, _bounds}}) when is_number(value),
    do: {kind, {{:min, value}, {:max, value}}}

  defp of_field(field), do: of_type(field.type)

  defp of_type({:atom, atoms}), do: {:atom, atoms && Enum.map(atoms, &to_string/1)}
  defp of_type({:list, of, size}), do: {:list, of_type(of), size}
  defp of_type({:tuple, types}), do: {:tuple, Enum.map(types, &of_type/1)}
  defp of_type({:one_of, types}), do: {:one_of, Enum.map(types, &of_type/1)}
  defp of_type({:record, module}), do: of(module)

  defp of_type({:map, pairs}),
    do: {:map, for({key, type} <- pairs, do: {key, of_type(type), false}), false}

  defp of_type(other), do: other

  # --- Of a role -----------------------------------------------------------------------------------------------

  @doc "A declaration as the bridge tells it; `:error` for what is newer than this."
  @spec parse(term()) :: {:ok, t()} | :error
  def parse(declared) do
    {:ok, parsed(declared)}
  catch
    :unknown -> :error
  end

  defp parsed("any"), do: :any
  defp parsed("integer"), do: {:integer, {nil, nil}}
  defp parsed("float"), do: {:float, {nil, nil}}
  defp parsed("number"), do: {:number, {nil, nil}}
  defp parsed("binary"), do: {:binary, {0, nil}}
  defp parsed("atom"), do: {:atom, nil}
  defp parsed("boolean"), do: {:atom, ["true", "false"]}
  defp parsed("list"), do: {:list, :any, {0, nil}}
  defp parsed("map"), do: {:map, [], true}
  defp parsed(%{"integer" => bounds}), do: {:integer, bounds(bounds)}
  defp parsed(%{"float" => bounds}), do: {:float, bounds(bounds)}
  defp parsed(%{"number" => bounds}), do: {:number, bounds(bounds)}
  defp parsed(%{"binary" => size}), do: {:binary, size(size)}
  defp parsed(%{"atom" => atoms}), do: {:atom, atoms}

  defp parsed(%{"list" => of} = list),
    do: {:list, parsed(of), size(Map.get(list, "size", [0]))}

  defp parsed(%{"tuple" => types}), do: {:tuple, Enum.map(types, &parsed/1)}
  defp parsed(%{"one_of" => types}), do: {:one_of, Enum.map(types, &parsed/1)}

  defp parsed(%{"map" => keys} = map) do
    keys =
      for {key, type} <- keys do
        {String.trim_trailing(key, "?"), parsed(type), String.ends_with?(key, "?")}
      end

    {:map, keys, Map.get(map, "open", false)}
  end

  defp parsed(_newer), do: throw(:unknown)

  defp bounds([low]), do: {{:min, low}, nil}
  defp bounds([low, high]), do: {{:min, low}, {:max, high}}
  defp bounds(_newer), do: throw(:unknown)
  defp size([low]), do: {low, nil}
  defp size([low, high]), do: {low, high}
  defp size(_newer), do: throw(:unknown)

  # --- Both ----------------------------------------------------------------------------------------------------

  @doc """
  Whether all that `ours` allows is taken by `theirs`; if not, where, and both in words.

      iex> alias Ringbridge.SchemaGuard.Schema
      iex> {:ok, theirs} = Schema.parse(%{"map" => %{"q" => %{"float" => [0.0, 1.0]}}})
      iex> Schema.within({:map, [{:q, {:float, {{:min, 0.0}, {:max, 0.5}}}, false}], false}, theirs)
      :ok
      iex> Schema.within({:map, [{:q, {:float, {nil, nil}}, false}], false}, theirs)
      {:error, [:q], "a float", "a float of 0.0 to 1.0"}
  """
  @spec within(t(), t()) ::
          :ok | {:error, path :: list(), ours :: String.t(), theirs :: String.t()}
  def within(ours, theirs), do: within(ours, theirs, [])

  defp within(_ours, :any, _path), do: :ok

  defp within({:one_of, ours}, theirs, path), do: all(ours, &within(&1, theirs, path))

  defp within(ours, {:one_of, theirs} = all, path) do
    if Enum.any?(theirs, &(within(ours, &1, path) == :ok)),
      do: :ok,
      else: differ(ours, all, path)
  end

  defp within({kind, ours}, {kind, theirs}, path) when kind in [:integer, :float, :number],
    do: ranges({kind, ours}, {kind, theirs}, path)

  defp within({kind, ours}, {:number, theirs}, path) when kind in [:integer, :float],
    do: ranges({kind, ours}, {:number, theirs}, path)

  defp within({:binary, ours} = a, {:binary, theirs} = b, path),
    do: if(sizes?(ours, theirs), do: :ok, else: differ(a, b, path))

  defp within({:atom, _}, {:atom, nil}, _path), do: :ok

  defp within({:atom, ours} = a, {:atom, theirs} = b, path),
    do: if(ours != nil and ours -- theirs == [], do: :ok, else: differ(a, b, path))

  defp within({:list, ours, size} = a, {:list, theirs, size_theirs} = b, path) do
    if sizes?(size, size_theirs),
      do: within(ours, theirs, [:each | path]),
      else: differ(a, b, path)
  end

  defp within({:tuple, ours}, {:tuple, theirs}, path) when length(ours) == length(theirs) do
    ours
    |> Enum.zip(theirs)
    |> Enum.with_index()
    |> all(fn {{a, b}, at} -> within(a, b, [at | path]) end)
  end

  defp within({:map, ours, open?} = a, {:map, theirs, theirs_open?} = b, path) do
    named = Map.new(theirs, fn {key, type, optional?} -> {"#{key}", {type, optional?}} end)
    text_key = Enum.find(ours, fn {key, _, _} -> is_binary(key) end)

    cond do
      theirs_open? == false and (open? or text_key != nil) ->
        differ(a, b, path)

      missing = missing(ours, theirs) ->
        {:error, Enum.reverse([missing | path]), "not there", words(elem(named["#{missing}"], 0))}

      true ->
        all(ours, &key(&1, named, theirs_open?, path))
    end
  end

  defp within(ours, theirs, path), do: differ(ours, theirs, path)

  defp key({key, type, optional?}, named, open?, path) do
    case Map.fetch(named, "#{key}") do
      :error ->
        if open?, do: :ok, else: {:error, Enum.reverse([key | path]), words(type), "unknown"}

      {:ok, {theirs, false}} when optional? ->
        {:error, Enum.reverse([key | path]), "optional", "always there: " <> words(theirs)}

      {:ok, {theirs, _}} ->
        within(type, theirs, [key | path])
    end
  end

  defp missing(ours, theirs) do
    there = for {key, _, _} <- ours, do: "#{key}"

    Enum.find_value(theirs, fn {key, _, optional?} ->
      not optional? and "#{key}" not in there and key
    end)
  end

  defp ranges({kind, {low, high}} = a, {_, {low_theirs, high_theirs}} = b, path) do
    if low?(reached(kind, low), low_theirs) and high?(reached(kind, high), high_theirs),
      do: :ok,
      else: differ(a, b, path)
  end

  # Of integers the next one is; between floats there is always another.
  defp reached(:integer, {:above, n}), do: {:min, n + 1}
  defp reached(:integer, {:below, n}), do: {:max, n - 1}
  defp reached(_kind, limit), do: limit

  defp low?(_ours, nil), do: true
  defp low?(nil, _theirs), do: false
  defp low?({_, n}, {_, m}), do: n >= m
  defp high?(_ours, nil), do: true
  # As much as the bridge's bounds can say.
  defp high?(_ours, {:max, @most}), do: true
  defp high?(nil, _theirs), do: false
  defp high?({_, n}, {_, m}), do: n <= m

  defp sizes?({low, high}, {low_theirs, high_theirs}) do
    low >= low_theirs and (high_theirs == nil or (high != nil and high <= high_theirs))
  end

  defp all(list, run), do: Enum.find_value(list, :ok, &with(:ok <- run.(&1), do: nil))

  defp differ(ours, theirs, path), do: {:error, Enum.reverse(path), words(ours), words(theirs)}

  @doc "A schema in words."
  @spec words(t()) :: String.t()
  def words({:atom, texts}) when is_list(texts), do: "one of :" <> Enum.join(texts, ", :")

  def words({:list, of, size}),
    do: Type.words({:list, :any, size}) |> String.replace("any term", words(of))

  def words({:tuple, types}), do: "a tuple of #{length(types)}"
  def words({:one_of, types}), do: Enum.map_join(types, " or ", &words/1)
  def words({:map, [], true}), do: "any map"

  def words({:map, keys, open?}) do
    names =
      Enum.map_join(keys, ", ", fn {key, _, optional?} -> "#{key}#{if optional?, do: "?"}" end)

    "#{if open?, do: "an open", else: "a"} map of #{names}"
  end

  def words(plain), do: Type.words(plain)

  # --- For ringbridge.toml -------------------------------------------------------------------------------------

  @doc """
  A schema as TOML. Bounds that are not reached themselves stand as bounds: the bridge is then a little wider than the job.

      iex> Ringbridge.SchemaGuard.Schema.toml(Ringbridge.SchemaGuard.Schema.of(MyApp.Repeat))
      ~s({ map = { "text" = { binary = [1, 64] }, "times" = { integer = [1, 9] } } })
  """
  @spec toml(t()) :: String.t()
  def toml(:any), do: ~s("any")
  def toml({kind, {nil, nil}}) when kind in [:integer, :float, :number], do: ~s("#{kind}")

  def toml({kind, {low, high}}) when kind in [:integer, :float, :number] do
    low = limit(low, kind) || if(kind == :integer, do: -@most - 1, else: "-inf")
    high = limit(high, kind)
    "{ #{kind} = [#{Enum.join([low | List.wrap(high)], ", ")}] }"
  end

  def toml({:binary, {0, nil}}), do: ~s("binary")
  def toml({:binary, size}), do: "{ binary = #{size_toml(size)} }"
  def toml({:atom, nil}), do: ~s("atom")
  def toml({:atom, texts}), do: "{ atom = [#{Enum.map_join(texts, ", ", &inspect/1)}] }"

  def toml({:list, of, {0, nil}}), do: "{ list = #{toml(of)} }"
  def toml({:list, of, size}), do: "{ list = #{toml(of)}, size = #{size_toml(size)} }"
  def toml({:tuple, types}), do: "{ tuple = [#{Enum.map_join(types, ", ", &toml/1)}] }"
  def toml({:one_of, types}), do: "{ one_of = [#{Enum.map_join(types, ", ", &toml/1)}] }"
  def toml({:map, [], true}), do: ~s("map")

  def toml({:map, keys, open?}) do
    # Keys that are binaries the language has no word for; an open map takes them.
    atoms = for {key, _, _} = each when is_atom(key) <- keys, do: each
    open = if open? or length(atoms) < length(keys), do: ", open = true", else: ""

    pairs =
      Enum.map_join(atoms, ", ", fn {key, type, optional?} ->
        ~s("#{key}#{if optional?, do: "?"}" = #{toml(type)})
      end)

    "{ map = { #{pairs} }#{open} }"
  end

  defp limit(nil, _kind), do: nil
  defp limit({:above, n}, :integer), do: n + 1
  defp limit({:below, n}, :integer), do: n - 1
  defp limit({_word, n}, _kind), do: n

  defp size_toml({low, nil}), do: "[#{low}]"
  defp size_toml({low, high}), do: "[#{low}, #{high}]"
end
