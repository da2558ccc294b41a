defmodule Mix.Ringbridge do
  @moduledoc false
  # What the tasks have in common: their options, how they reach a bridge, how they fail.

  alias Ringbridge.{Cookie, Reach}

  @target [node: :string, cookie: :string, cookie_file: :string]

  # As the `ringbridge` command: 1 for what an operator mends, 2 for what was typed wrongly.
  @failed 1
  @usage 2

  @doc "The options, those of a bridge's place among them, and what is left of the arguments."
  @spec parse!([String.t()], keyword()) :: {keyword(), [String.t()]}
  def parse!(argv, switches) do
    case OptionParser.parse(argv, strict: switches ++ @target) do
      {options, rest, []} -> {options, rest}
      {_options, _rest, [{name, nil} | _]} -> usage!("#{name}: no such option, or no value")
      {_options, _rest, [{name, value} | _]} -> usage!("#{name} cannot be #{inspect(value)}")
    end
  end

  @doc "None of the arguments may be left."
  @spec none!([String.t()]) :: :ok
  def none!([]), do: :ok
  def none!([argument | _]), do: usage!("#{inspect(argument)} is too much")

  @doc "The bridge that the options name, and where its cookie comes from."
  @spec target!(keyword()) :: {node(), Cookie.source()}
  def target!(options) do
    options[:cookie] && options[:cookie_file] &&
      usage!("give --cookie or --cookie-file, not both")

    case options[:node] && Reach.node_name(options[:node]) do
      nil -> {Reach.default_node(), Cookie.source(options)}
      {:ok, node} -> {node, Cookie.source(options)}
      {:error, why} -> usage!(why)
    end
  end

  @doc "Returns when this VM is connected to it."
  @spec connect!(keyword()) :: node()
  def connect!(options) do
    quiet()
    {node, source} = target!(options)

    case Reach.connect(node, source) do
      :ok -> node
      {:error, why} -> fail!(why)
    end
  end

  @doc "The VM's own reports of what the task tells in its own words are left out."
  @spec quiet() :: :ok
  def quiet, do: :logger.set_primary_config(:level, :critical)

  @doc "Whether people read what is printed, on a terminal that knows colours."
  @spec terminal?() :: boolean()
  def terminal?, do: IO.ANSI.enabled?() and System.get_env("TERM") != "dumb"

  @spec styled?() :: boolean()
  def styled?, do: terminal?() and System.get_env("NO_COLOR", "") == ""

  @spec print([Ringbridge.Inspect.Table.line()]) :: :ok
  def print(lines) do
    styled? = styled?()
    IO.write(Enum.map(lines, &[Ringbridge.Inspect.Table.render(&1, styled?), "\n"]))
  end

  @doc "Runs what prints again and again. That its reader has ended, as with `| head`, is its end, too, and no failure."
  @spec while_read((() -> result)) :: result | :ok when result: term()
  def while_read(print) do
    print.()
  rescue
    error in ErlangError ->
      if error.original in [:terminated, :epipe], do: :ok, else: reraise(error, __STACKTRACE__)
  end

  @spec fail!(String.t()) :: no_return()
  def fail!(why), do: Mix.raise(why, exit_status: @failed)

  @spec usage!(String.t()) :: no_return()
  def usage!(why), do: Mix.raise(why <> " (mix help shows the options)", exit_status: @usage)
end
