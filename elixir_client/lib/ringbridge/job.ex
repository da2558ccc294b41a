defmodule Ringbridge.Job do
  @moduledoc """
  A kind of job as a struct: what it takes, where it goes, and what comes back.

      defmodule MyApp.Terrain do
        use Ringbridge.Job, role: :worldgen, op: :heights, opcode: 0

        payload :packed do
          field :version, :u16, value: 1
          field :octaves, :u16, in: 1..16, default: 4
          field :width, :u32, in: 1..8192
          field :height, :u32, in: 1..8192
          field :part_rows, :u32, default: 0
          field :seed, :i64, default: 0
          field :x, :f64, default: 0.0
          field :y, :f64, default: 0.0
          field :step, :f64, above: 0, default: 0.01
          field :lacunarity, :f64, in: {1.0, 8.0}, default: 2.0
          field :gain, :f64, above: 0, max: 1.0, default: 0.5
        end

        result :packed do
          field :heights, {:list, {:f64, in: {-1.0, 1.0}}}
        end
      end

      Ringbridge.call(MyApp.Compute, %MyApp.Terrain{width: 500, height: 300})
      #=> {:ok, %MyApp.Terrain.Result{heights: [0.12, ...]}}

  Before it is sent a struct is held against its declaration, and its declaration against what the bridge's role and its workers say that they
  take (`Ringbridge.SchemaGuard`). What comes back is held against `result` (`Ringbridge.ResultIngestor`). An error names field,
  value and rule:

      iex> {:error, error} = Ringbridge.call(MyApp.Compute, %MyApp.Repeat{text: "cat", times: 0})
      iex> Exception.message(error)
      "echo: MyApp.Repeat.times must be an integer of 1 to 9, got: 0"

  Options of `use`:

    * `:role` (required) - as in `Ringbridge.call/4`
    * `:opcode` - the operation's number; 0 if neither it nor `:op` is given
    * `:op` - the operation's name. With `:opcode` beside it the two are held against the bridge's table; alone it is sent as it is
    * `:version` - of the declaration, a number of yours. Where the role's `[roles.x.ops.y]` says one, it has to be the same

  `payload form do .. end` has the fields; forms and options are those of `Ringbridge.Job.Record`, types those of `Ringbridge.Job.Type`.
  `result form do .. end` declares the struct `Result` in the module, `part form do .. end` likewise `Part`, for jobs that answer in parts; or name a
  module with `use Ringbridge.Job.Record`: `result MyApp.Summary`. Without a `result` what comes back is given as it is.

  `validate/1`, if the module has it, says what fields must be to one another:

      def validate(%{returned: n, bodies: bodies}) when n > bodies,
        do: {:error, [:returned], "at most the number of bodies"}

      def validate(_job), do: :ok

  In Elixir workers and fakes `read/2` makes the struct of a payload, and `write_result/2` the answer of a result. The page is docs/jobs.md.
  """

  alias Ringbridge.Job.{Record, Violation}

  @enforce_keys [:module, :role, :op, :opcode, :version, :result, :part]
  defstruct [:module, :role, :op, :opcode, :version, :result, :part]

  @typedoc "What a module declares, beside its fields."
  @type t :: %__MODULE__{
          module: module(),
          role: Ringbridge.role(),
          op: atom() | nil,
          opcode: 0..65_535 | nil,
          version: non_neg_integer() | nil,
          result: module() | nil,
          part: module() | nil
        }

  @doc "Rules between fields; for jobs, results and records alike."
  @callback validate(struct()) :: :ok | {:error, path :: [Violation.step()], rule :: String.t()}
  @optional_callbacks validate: 1

  @doc false
  defmacro __using__(options) do
    quote do
      @behaviour Ringbridge.Job
      @before_compile Ringbridge.Job
      import Ringbridge.Job, only: :macros
      @ringbridge_job Ringbridge.Job.options!(__ENV__, unquote(options))
      @ringbridge_result nil
      @ringbridge_part nil
    end
  end

  @doc "What the job takes: the struct's own fields."
  defmacro payload(form \\ :map, options \\ [], block)

  defmacro payload(form, options, do: block) do
    quote do
      require Ringbridge.Job.Record
      Ringbridge.Job.Record.fields(unquote(form), unquote(options), do: unquote(block))
    end
  end

  @doc "What comes back: fields of the struct `Result`, or a module that has them."
  defmacro result(form \\ :map, options \\ [], block_or_module)
  defmacro result(form, options, what), do: nested(__CALLER__, :Result, form, options, what)

  @doc "What each part is, of a job that answers in parts."
  defmacro part(form \\ :map, options \\ [], block_or_module)
  defmacro part(form, options, what), do: nested(__CALLER__, :Part, form, options, what)

  defp nested(caller, name, form, options, do: block) do
    module = Module.concat(caller.module, name)
    doc = "The #{String.downcase(Atom.to_string(name))} of `#{inspect(caller.module)}`."

    quote do
      defmodule unquote(module) do
        @moduledoc unquote(doc)
        use Ringbridge.Job.Record
        fields(unquote(form), unquote(options), do: unquote(block))
      end

      Module.put_attribute(__MODULE__, unquote(attribute(name)), unquote(module))
    end
  end

  defp nested(_caller, name, _form, _options, module) do
    quote do
      Module.put_attribute(
        __MODULE__,
        unquote(attribute(name)),
        Ringbridge.Job.record!(__ENV__, unquote(module))
      )
    end
  end

  defp attribute(:Result), do: :ringbridge_result
  defp attribute(:Part), do: :ringbridge_part

  @doc false
  defmacro __before_compile__(env) do
    Module.defines?(env.module, {:__record__, 0}) ||
      wrong!(env, "a job says what it takes: payload do .. end")

    quote do
      @doc false
      def __job__ do
        %{@ringbridge_job | result: @ringbridge_result, part: @ringbridge_part}
      end
    end
  end

  @doc false
  @spec options!(Macro.Env.t(), term()) :: t()
  def options!(env, options) do
    known = [:role, :op, :opcode, :version]
    Keyword.keyword?(options) || wrong!(env, "the options of a job are a keyword list")
    unknown = Keyword.keys(options) -- known
    unknown == [] || wrong!(env, "unknown option #{inspect(hd(unknown))}; #{inspect(known)}")
    role = options[:role]
    named?(role) || wrong!(env, "role: is an atom or a binary; got: #{inspect(role)}")
    op = options[:op]
    is_atom(op) || wrong!(env, "op: is an atom; got: #{inspect(op)}")
    opcode = Keyword.get(options, :opcode, if(op == nil, do: 0))
    opcode == nil or opcode in 0..65_535 || wrong!(env, "opcode: is a number of 0 to 65535")
    version = options[:version]

    version == nil or (is_integer(version) and version >= 0) ||
      wrong!(env, "version: is a number; got: #{inspect(version)}")

    %__MODULE__{
      module: env.module,
      role: role,
      op: op,
      opcode: opcode,
      version: version,
      result: nil,
      part: nil
    }
  end

  defp named?(role), do: (is_atom(role) and role not in [nil, true, false]) or is_binary(role)

  @doc false
  @spec record!(Macro.Env.t(), term()) :: module()
  def record!(env, module) do
    (is_atom(module) and match?({:module, _}, Code.ensure_compiled(module)) and
       function_exported?(module, :__record__, 0)) ||
      wrong!(env, "#{inspect(module)} has no `use Ringbridge.Job.Record`")

    module
  end

  @spec wrong!(Macro.Env.t(), String.t()) :: no_return()
  defp wrong!(env, why),
    do: raise(CompileError, file: env.file, line: env.line, description: why)

  # --- For those who hold a struct or a payload -----------------------------------------------------------------

  @doc """
  What a module declares; nil if it is no job.

      iex> Ringbridge.Job.of(MyApp.Repeat).role
      :echo
      iex> Ringbridge.Job.of(:echo)
      nil
  """
  @spec of(term()) :: t() | nil
  def of(module) when is_atom(module) do
    # A role's name is an atom too, and most are not looked for in any file.
    with "Elixir." <> _ <- Atom.to_string(module),
         {:module, _} <- Code.ensure_loaded(module),
         true <- function_exported?(module, :__job__, 0) do
      module.__job__()
    else
      _ -> nil
    end
  end

  def of(_other), do: nil

  @doc """
  The payload of a job as it is sent, or what breaks its declaration: of each field the first.

      iex> Ringbridge.Job.write(%MyApp.Repeat{text: "cat", times: 2})
      {:ok, %{text: "cat", times: 2}}
      iex> {:error, [violation]} = Ringbridge.Job.write(%MyApp.Repeat{text: "", times: 2})
      iex> to_string(violation)
      ~s(MyApp.Repeat.text must be a binary of 1 to 64 bytes, got: "")
  """
  @spec write(struct()) :: {:ok, Ringbridge.payload()} | {:error, [Violation.t(), ...]}
  defdelegate write(job), to: Record

  @doc """
  The struct of a payload: what a worker in Elixir begins with.

      iex> Ringbridge.Job.read(MyApp.Repeat, %{text: "cat", times: 2})
      {:ok, %MyApp.Repeat{text: "cat", times: 2}}
  """
  @spec read(module(), Ringbridge.payload()) :: {:ok, struct()} | {:error, [Violation.t(), ...]}
  defdelegate read(module, payload), to: Record

  @doc """
  The answer of a result, as a worker gives it; what a job without a declared result is answered stays as it is.

      iex> Ringbridge.Job.write_result(MyApp.Repeat, %MyApp.Repeat.Result{text: "catcat", times: 2})
      {:ok, %{text: "catcat", times: 2}}
  """
  @spec write_result(module(), term()) :: {:ok, term()} | {:error, [Violation.t(), ...]}
  def write_result(module, result) do
    case module.__job__().result do
      nil -> {:ok, result}
      declared when is_struct(result, declared) -> Record.write(result)
      declared -> {:error, [no_struct(declared, result)]}
    end
  end

  defp no_struct(module, value),
    do: %Violation{record: module, path: [], value: value, rule: "a %#{inspect(module)}{}"}
end
