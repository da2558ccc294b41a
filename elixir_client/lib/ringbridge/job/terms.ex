defmodule Ringbridge.Job.Terms do
  @moduledoc false
  # Records as maps, tuples and single values. `path` runs from the inside out.

  alias Ringbridge.Job.{Record, Type}

  import Record, only: [broken: 3, each: 2]

  @spec write(Record.t(), struct(), list()) :: term()
  def write(record, struct, path) do
    values =
      each(record.fields, fn
        %{kind: :constant} = field ->
          {field, field.value}

        field ->
          value = Map.fetch!(struct, field.name)

          if value == nil and field.optional,
            do: {field, :absent},
            else: {field, walk(:write, field.type, value, [field.name | path])}
      end)

    case record.form do
      :map -> for {field, value} <- values, value != :absent, into: %{}, do: {field.key, value}
      :tuple -> values |> Enum.map(&elem(&1, 1)) |> List.to_tuple()
      :value -> values |> hd() |> elem(1)
    end
  end

  @spec read(Record.t(), term(), list()) :: struct()
  def read(record, term, path) do
    fields = each(placed(record, term, path), fn field -> read_field(field, path) end)
    struct(record.module, for({name, value} <- fields, do: {name, value}))
  end

  # Each field with what stands in its place, as `wire`.
  defp placed(%{form: :value, fields: [field]}, term, _path),
    do: [Map.put(field, :wire, {:ok, term})]

  defp placed(%{form: :tuple} = record, term, path) do
    size = length(record.fields)
    (is_tuple(term) and tuple_size(term) == size) || broken(path, term, "a tuple of #{size}")

    record.fields
    |> Enum.zip(Tuple.to_list(term))
    |> Enum.map(fn {field, value} -> Map.put(field, :wire, {:ok, value}) end)
  end

  defp placed(%{form: :map} = record, term, path) do
    (is_map(term) and not is_struct(term)) || broken(path, term, "a map")
    keys = Enum.map(record.fields, & &1.key)
    others = Map.keys(term) -- keys

    if others != [] and not record.open?,
      do:
        broken(
          path,
          hd(others),
          "a map with no keys but #{Enum.map_join(keys, ", ", &inspect/1)}"
        )

    Enum.map(record.fields, &Map.put(&1, :wire, Map.fetch(term, &1.key)))
  end

  defp read_field(%{wire: :error, optional: true} = field, _path), do: {field.name, nil}

  defp read_field(%{wire: :error} = field, path),
    do: broken([field.name | path], nil, "there (#{Type.words(field.type)})")

  defp read_field(%{kind: :constant, wire: {:ok, value}} = field, path) do
    value === field.value || broken([field.name | path], value, inspect(field.value))
    {:__constant__, nil}
  end

  defp read_field(%{wire: {:ok, value}} = field, path),
    do: {field.name, walk(:read, field.type, value, [field.name | path])}

  @doc false
  # Writing and reading differ in records only: there it is a struct, here what it has become.
  @spec walk(:write | :read, Type.t(), term(), list()) :: term()
  def walk(way, {:list, of, size} = type, value, path) do
    proper? = is_list(value) and not List.improper?(value)
    (proper? and Type.fits?(length(value), size)) || broken(path, value, Type.words(type))

    value
    |> Enum.with_index()
    |> Enum.map(fn {element, at} -> walk(way, of, element, [at | path]) end)
  end

  def walk(way, {:tuple, types} = type, value, path) do
    (is_tuple(value) and tuple_size(value) == length(types)) ||
      broken(path, value, Type.words(type))

    types
    |> Enum.zip(Tuple.to_list(value))
    |> Enum.with_index()
    |> Enum.map(fn {{type, element}, at} -> walk(way, type, element, [at | path]) end)
    |> List.to_tuple()
  end

  def walk(way, {:map, pairs} = type, value, path) do
    (is_map(value) and Enum.sort(Map.keys(value)) == Enum.sort(Keyword.keys(pairs))) ||
      broken(path, value, Type.words(type))

    Map.new(pairs, fn {key, type} -> {key, walk(way, type, value[key], [key | path])} end)
  end

  def walk(way, {:one_of, types} = type, value, path) do
    Enum.find_value(types, fn alternative ->
      try do
        {:fits, walk(way, alternative, value, path)}
      catch
        {Record, _found} -> nil
      end
    end)
    |> case do
      {:fits, walked} -> walked
      nil -> broken(path, value, Type.words(type))
    end
  end

  def walk(:write, {:record, module} = type, value, path) do
    is_struct(value, module) || broken(path, value, Type.words(type))
    write(module.__record__(), value, path)
  end

  def walk(:read, {:record, module}, value, path), do: read(module.__record__(), value, path)

  def walk(_way, type, value, path) do
    Type.scalar?(type, value) || broken(path, value, Type.words(type))
    value
  end
end
