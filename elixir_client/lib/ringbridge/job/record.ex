defmodule Ringbridge.Job.Record do
  @moduledoc """
  A struct whose fields have types and bounds, and the form that it has on the way.

  What `Ringbridge.Job` makes of `payload`, `result` and `part`; by itself for what lies in those, or is shared by several:

      defmodule MyApp.Body do
        use Ringbridge.Job.Record

        fields :packed do
          field :id, :u32
          pad 4
          field :gm, :f64, min: 0
          field :position, {:array, :f64, 3}
        end
      end

  Forms:

    * `:map` - a map from the names; what is nil in a field with `optional: true` is not in it
    * `:tuple` - the values in the order of the fields
    * `:value` - the value of the only field
    * `:packed` - bytes, one field behind the other without gaps: little endian, or `endian: :big`. A binary, which crosses raw

  A map has no other keys than the fields, unless the form says `open: true`.

  Options of a field, beside those of its type (`Ringbridge.Job.Type`):

    * `default:` - a field without one, and not `optional`, must be given when the struct is made
    * `optional: true` - nil is taken too (`:map` only)
    * `value:` - always this: written, and demanded when it is read. It is not in the struct
    * `key:` - what the key of a map is, if not the field's name: a binary, such as a Python worker's `"rows"`
    * `redact: true` - the value stands in no error and in no `inspect`

  `pad n` is n zero bytes, which nobody looks at when they are read. `count :bodies, :u16` is the number of elements of the list
  `bodies`, which is the last field.
  """

  alias Ringbridge.Job.{Bytes, Terms, Type, Violation}

  @enforce_keys [:module, :form, :endian, :open?, :fields, :bytes]
  defstruct [:module, :form, :endian, :open?, :fields, :bytes]

  @typedoc "A field as it was declared; `kind` tells what is in the struct: the values only."
  @type field :: %{
          name: atom(),
          key: atom() | binary(),
          kind: :value | :constant | :count | :pad,
          type: Type.t(),
          value: term(),
          optional: boolean(),
          redact: boolean()
        }

  @type form :: :map | :tuple | :value | :packed
  @type t :: %__MODULE__{
          module: module(),
          form: form(),
          endian: :little | :big,
          open?: boolean(),
          fields: [field()],
          bytes: non_neg_integer() | nil
        }

  @doc false
  defmacro __using__(_options) do
    quote do
      import Ringbridge.Job.Record, only: [fields: 1, fields: 2, fields: 3]
    end
  end

  @doc "The struct's fields, in the order in which they travel."
  defmacro fields(form \\ :map, options \\ [], block)

  defmacro fields(form, options, do: block) do
    quote do
      Module.register_attribute(__MODULE__, :ringbridge_field, accumulate: true)
      import Ringbridge.Job.Record, only: [field: 2, field: 3, pad: 1, count: 2]
      unquote(block)
      Ringbridge.Job.Record.__define__(unquote(form), unquote(options))
    end
  end

  @doc "A field: its name, its type, options of both."
  defmacro field(name, type, options \\ []) do
    quote do
      @ringbridge_field {:field, unquote(name), unquote(type), unquote(options)}
    end
  end

  @doc "That many zero bytes."
  defmacro pad(count) do
    quote do: @ringbridge_field({:pad, unquote(count)})
  end

  @doc "The number of elements of the list `name`."
  defmacro count(name, type) do
    quote do: @ringbridge_field({:count, unquote(name), unquote(type)})
  end

  @doc false
  defmacro __define__(form, options) do
    quote bind_quoted: [form: form, options: options] do
      record =
        Ringbridge.Job.Declaration.record!(
          __ENV__,
          form,
          options,
          Enum.reverse(@ringbridge_field)
        )

      @ringbridge_record record
      @enforce_keys Ringbridge.Job.Declaration.enforced(record)
      if Ringbridge.Job.Declaration.redacted(record) != [],
        do: @derive({Inspect, except: Ringbridge.Job.Declaration.redacted(record)})

      defstruct Ringbridge.Job.Declaration.defaults(record)
      @type t :: %__MODULE__{unquote_splicing(Ringbridge.Job.Declaration.types(record))}

      @doc false
      def __record__, do: @ringbridge_record
    end
  end

  @doc """
  The struct as it travels, or what breaks its declaration: of each field the first.

  A module may have `validate/1` for rules between fields: `:ok`, or `{:error, path, rule}`.
  """
  @spec write(struct()) :: {:ok, payload :: term()} | {:error, [Violation.t(), ...]}
  def write(%module{} = struct) do
    record = module.__record__()

    with {:ok, payload} <- caught(record, fn -> codec(record).write(record, struct, []) end),
         :ok <- validate(module, struct),
         do: {:ok, payload}
  end

  @doc "The struct of what has come, or what breaks its declaration."
  @spec read(module(), payload :: term()) :: {:ok, struct()} | {:error, [Violation.t(), ...]}
  def read(module, payload) do
    record = module.__record__()

    with {:ok, struct} <- caught(record, fn -> codec(record).read(record, payload, []) end),
         :ok <- validate(module, struct),
         do: {:ok, struct}
  end

  defp codec(%{form: :packed}), do: Bytes
  defp codec(_record), do: Terms

  # Both throw at what does not fit, for it may lie deep.
  defp caught(record, run) do
    {:ok, run.()}
  catch
    {__MODULE__, found} ->
      {:error, for(one <- found, do: %{whole(record, one) | record: record.module})}
  end

  # What has come for the whole has what has come for its secrets.
  defp whole(record, %{path: []} = found),
    do: if(Enum.any?(record.fields, & &1.redact), do: hide(found), else: found)

  defp whole(_record, found), do: found

  # Also from `inspect`, which shows an error in whole.
  defp hide(found), do: %{found | value: nil, redact: true}

  @doc false
  @spec broken([Violation.step()], term(), String.t()) :: no_return()
  def broken(path, value, rule) do
    found = %Violation{record: nil, path: Enum.reverse(path), value: value, rule: rule}
    throw({__MODULE__, [found]})
  end

  @doc false
  # Runs for each field, and tells of all that broke something: a form's user mends them at once.
  @spec each([field()], (field() -> result)) :: [result] when result: term()
  def each(fields, run) do
    {done, broken} =
      Enum.reduce(fields, {[], []}, fn field, {done, broken} ->
        try do
          {[run.(field) | done], broken}
        catch
          {__MODULE__, found} ->
            {done, broken ++ if(field.redact, do: Enum.map(found, &hide/1), else: found)}
        end
      end)

    if broken == [], do: Enum.reverse(done), else: throw({__MODULE__, broken})
  end

  defp validate(module, struct) do
    if function_exported?(module, :validate, 1) do
      case module.validate(struct) do
        :ok ->
          :ok

        {:error, path, rule} ->
          {value, secret?} = Enum.reduce(path, {struct, false}, &at/2)
          found = %Violation{record: module, path: path, value: value, rule: rule}
          {:error, [if(secret?, do: hide(found), else: found)]}
      end
    else
      :ok
    end
  end

  defp at(index, {list, secret?}) when is_list(list) and is_integer(index),
    do: {Enum.at(list, index), secret?}

  defp at(key, {%{} = map, secret?}), do: {Map.get(map, key), secret? or secret?(map, key)}
  defp at(_step, other), do: other

  defp secret?(%module{}, name) do
    function_exported?(module, :__record__, 0) and
      Enum.any?(module.__record__().fields, &(&1.name == name and &1.redact))
  end

  defp secret?(_map, _key), do: false
end
