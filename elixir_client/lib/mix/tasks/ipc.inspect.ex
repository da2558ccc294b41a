defmodule Mix.Tasks.Ipc.Inspect do
  @shortdoc "Shows a running bridge: roles, workers, rings, links, breakers, rates, errors"
  @moduledoc """
  Shows a running bridge: its roles with queues and breakers, its workers with rings and heartbeats, links, rates, what went wrong last.

      mix ipc.inspect
      mix ipc.inspect --node bridge@db.example.org --cookie-file /run/bridge.cookie --role echo
      mix ipc.inspect --json | jq .rates

  On a terminal the page is drawn anew every second, until Ctrl-C (twice, as for every mix task) or `q` and Enter. A bridge that
  restarts meanwhile interrupts nothing. Into a pipe it is one page, without colours.

    * `--node NAME` - the bridge; default `bridge@127.0.0.1`
    * `--cookie-file FILE` - its cookie. Else `RINGBRIDGE_COOKIE`, else `~/.erlang.cookie`
    * `--cookie COOKIE` - the same on the command line, which every user of the machine can read
    * `--role ROLE` - this role, its workers and its links only
    * `--once` - one page, also on a terminal
    * `--watch [MS]` - again and again, every MS (1000; at least 100), also into a pipe
    * `--interval MS` - of one page: how long rates are taken (500)
    * `--json` - for programs: one object, or with `--watch` one a line. `status` and `links` are what the bridge answered

  A VM without a name becomes a hidden node that listens nowhere (`Ringbridge.LocalNode`). The bridge is only looked at: any node that it
  lets in may. Exit status: 1 if it cannot be reached or asked, 2 if the arguments are wrong.
  """
  use Mix.Task

  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.{Json, Page, Screen, Watch}
  alias Ringbridge.Reach

  @requirements ["loadpaths"]
  @switches [role: :string, once: :boolean, watch: :integer, interval: :integer, json: :boolean]
  @watch_ms 1_000
  @interval_ms 500
  @least_ms 100

  @impl Mix.Task
  def run(argv) do
    {options, rest} = argv |> with_value() |> Mix.Ringbridge.parse!(@switches)
    Mix.Ringbridge.none!(rest)
    options = checked!(options)
    node = Mix.Ringbridge.connect!(options)
    if options[:watch], do: watch(node, options), else: once(node, options)
  end

  # --watch may stand alone.
  defp with_value(["--watch", next | rest]) do
    case Integer.parse(next) do
      {_ms, ""} -> ["--watch", next | with_value(rest)]
      _other -> ["--watch", "#{@watch_ms}" | with_value([next | rest])]
    end
  end

  defp with_value(["--watch"]), do: ["--watch", "#{@watch_ms}"]
  defp with_value([argument | rest]), do: [argument | with_value(rest)]
  defp with_value([]), do: []

  defp checked!(options) do
    if options[:once] && options[:watch],
      do: Mix.Ringbridge.usage!("give --once or --watch, not both")

    for key <- [:watch, :interval], ms = options[key], ms < @least_ms do
      Mix.Ringbridge.usage!("--#{key} is in milliseconds, at least #{@least_ms}")
    end

    live? = Mix.Ringbridge.terminal?() and not (options[:once] || options[:json] || false)
    if live?, do: Keyword.put_new(options, :watch, @watch_ms), else: options
  end

  # Two looks: without them there would be no rates.
  defp once(node, options) do
    then = look!(node, options[:role])
    Process.sleep(options[:interval] || @interval_ms)
    now = look!(node, options[:role])
    rates = Look.rates(then, now)

    if options[:json],
      do: IO.puts(Json.encode(Look.to_map(now, rates))),
      else: Mix.Ringbridge.print(Page.lines(now, rates))
  end

  defp look!(node, role) do
    whole =
      case Look.look(node) do
        {:ok, whole} -> whole
        {:error, error} -> Mix.Ringbridge.fail!(Reach.words(error))
      end

    case Look.only(whole, role) do
      {:ok, look} ->
        look

      :error ->
        Mix.Ringbridge.fail!(
          "#{node} has no role #{role}; `--role` wants one of: " <> roles(node)
        )
    end
  end

  defp roles(node) do
    case Look.look(node) do
      {:ok, look} -> Enum.map_join(look.status.roles, ", ", & &1.name)
      {:error, error} -> Reach.words(error)
    end
  end

  defp watch(node, options) do
    _first = look!(node, options[:role])
    quit = quit_by_key()
    state = Watch.new(node, options[:role])
    Mix.Ringbridge.while_read(fn -> turns(state, options[:watch], show(options), quit, true) end)
  end

  defp turns(state, every_ms, show, quit, first?) do
    state = Watch.turn(state, Look.look(state.node), now_us())
    show.(state, first?)

    receive do
      {^quit, :quit} -> :ok
    after
      every_ms -> turns(state, every_ms, show, quit, false)
    end
  end

  defp show(options) do
    styled? = Mix.Ringbridge.styled?()

    cond do
      options[:json] -> fn state, _first? -> tell(state) end
      Mix.Ringbridge.terminal?() -> fn state, first? -> draw(state, first?, styled?) end
      true -> fn state, _first? -> Mix.Ringbridge.print(Watch.lines(state, now_us()) ++ [[]]) end
    end
  end

  defp draw(state, first?, styled?),
    do: IO.write(Screen.frame(Watch.lines(state, now_us()), Screen.size(), first?, styled?))

  defp tell(%{error: nil} = state), do: IO.puts(Json.encode(Look.to_map(state.look, state.rates)))

  defp tell(%{error: :no_role} = state),
    do: IO.puts(Json.encode(%{node: state.node, error: :no_role}))

  defp tell(state),
    do: IO.puts(Json.encode(%{node: state.node, error: Reach.words(state.error)}))

  # The end of the input is no wish to end: it may be /dev/null.
  defp quit_by_key do
    ref = make_ref()
    owner = self()

    spawn(fn ->
      if Enum.any?(IO.stream(:stdio, :line), &(String.trim(&1) == "q")),
        do: send(owner, {ref, :quit})
    end)

    ref
  end

  defp now_us, do: System.monotonic_time(:microsecond)
end
