defmodule Mix.Tasks.Ringbridge.Bench do
  @shortdoc "Measures how fast a running bridge answers, from this machine"
  @moduledoc """
  Measures how fast a role of a running bridge answers, from this machine: rate, median, 99th percentile, the slowest, errors.

      mix ringbridge.bench
      mix ringbridge.bench --role echo --callers 1,16,128 --size 16,65536 --seconds 5

  A closed loop (`Ringbridge.Bench`): each caller makes its next call when the last is answered. The bridge does real work meanwhile: on one that others use, they
  notice.

    * `--node NAME`, `--cookie-file FILE`, `--cookie COOKIE` - as of `mix ipc.inspect`
    * `--role ROLE` - default `echo`, whose answers are compared with what was sent
    * `--callers N,..` - processes that call at once (1,16,128); at most 10,000
    * `--size BYTES,..` - of the payload, random bytes (16,65536)
    * `--payload TEXT` - the payload itself, for roles that want one; instead of `--size`
    * `--seconds S` - of each row (2; 1 to 60), after 300 ms of warming up
    * `--lane auto|dist|nif` - the way to the bridge, as the instance's option (`auto`)
    * `--plain` - by `GenServer.call`, without the client
    * `--json` - for programs

  Exit status: 1 if the bridge cannot be reached, a row has no answer at all or a wrong one; 2 if the arguments are wrong.

  `make bench` in this repository measures more, beside others and with their spreads; this is for a look at a bridge where it stands.
  """
  use Mix.Task

  alias Ringbridge.{Bench, Error, Instance, LocalNode, Reach}
  alias Ringbridge.Bench.{Histogram, Report}
  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.Json

  @requirements ["loadpaths"]
  @switches [
    role: :string,
    callers: :string,
    size: :string,
    payload: :string,
    seconds: :integer,
    lane: :string,
    plain: :boolean,
    json: :boolean
  ]
  @warm_up_ms 300
  @callers_max 10_000
  @bytes_max 1_073_741_824
  @call_ms 60_000
  @lanes %{"auto" => :auto, "dist" => :dist, "nif" => :nif}

  @impl Mix.Task
  def run(argv) do
    {options, rest} = Mix.Ringbridge.parse!(argv, @switches)
    Mix.Ringbridge.none!(rest)
    plan = plan!(options)
    node = Mix.Ringbridge.connect!(options)
    about = about!(node, plan)
    {instance, call} = way(node, plan, options)
    options[:json] || Mix.Ringbridge.print(Report.head(about) ++ [[]])

    rows =
      for payload <- plan.payloads, callers <- plan.callers do
        cell = %{
          callers: callers,
          payload: payload,
          warm_up_ms: @warm_up_ms,
          window_ms: plan.window_ms,
          echo?: plan.role == "echo",
          call: call
        }

        {Bench.run(cell), lane(instance, plan.role)}
      end

    if options[:json],
      do: IO.puts(Json.encode(Report.to_map(about, rows))),
      else: Mix.Ringbridge.print(Report.table(rows) ++ [[]] ++ Report.foot())

    if Enum.any?(rows, &failed?/1), do: exit({:shutdown, 1})
  end

  defp failed?({outcome, _lane}), do: Histogram.count(outcome.times) == 0 or outcome.wrong > 0

  defp plan!(options) do
    seconds = options[:seconds] || 2
    seconds in 1..60 || Mix.Ringbridge.usage!("--seconds is 1 to 60")
    lane = options[:lane] || "auto"
    is_map_key(@lanes, lane) || Mix.Ringbridge.usage!("--lane is auto, dist or nif")

    options[:payload] && options[:size] &&
      Mix.Ringbridge.usage!("give --size or --payload, not both")

    payloads =
      if options[:payload],
        do: [options[:payload]],
        else:
          for(
            size <- numbers!(options, :size, "16,65536", 0..@bytes_max),
            do: :crypto.strong_rand_bytes(size)
          )

    %{
      role: options[:role] || "echo",
      callers: numbers!(options, :callers, "1,16,128", 1..@callers_max),
      payloads: payloads,
      window_ms: seconds * 1_000,
      lane: @lanes[lane],
      plain?: options[:plain] || false
    }
  end

  defp numbers!(options, key, default, range) do
    for part <- String.split(options[key] || default, ",") do
      case Integer.parse(part) do
        {number, ""} when number >= range.first and number <= range.last ->
          number

        _other ->
          Mix.Ringbridge.usage!(
            "--#{key} is a list such as #{default}, of #{range.first} to #{range.last}"
          )
      end
    end
  end

  defp about!(node, plan) do
    {role, status} = role!(node, plan.role)

    %{
      node: node,
      version: status.version,
      same_host?: LocalNode.same_host?(node),
      role: plan.role,
      workers: role.workers_ready,
      elixir: System.version(),
      otp: System.otp_release(),
      schedulers: System.schedulers_online(),
      load: load(),
      window_ms: plan.window_ms,
      warm_up_ms: @warm_up_ms,
      how: if(plan.plain?, do: "GenServer.call", else: "Ringbridge.call")
    }
  end

  defp role!(node, role) do
    case Look.look(node) do
      {:ok, %{status: status}} ->
        found = Enum.find(status.roles, &(&1.name == role))
        {found || Mix.Ringbridge.fail!("#{node} has no role #{role}"), status}

      {:error, error} ->
        Mix.Ringbridge.fail!(Reach.words(error))
    end
  end

  defp load do
    case File.read("/proc/loadavg") do
      {:ok, text} -> text |> String.split() |> hd()
      {:error, _no_linux} -> nil
    end
  end

  defp way(node, %{plain?: true} = plan, _options) do
    {nil, &plain(node, plan.role, &1)}
  end

  defp way(node, plan, options) do
    name = __MODULE__.Instance
    {_node, _source} = Mix.Ringbridge.target!(options)
    given = Keyword.take(options, [:cookie, :cookie_file])
    {:ok, _pid} = Ringbridge.start_link([name: name, nodes: [node], lane: plan.lane] ++ given)
    {:ok, instance} = Instance.fetch(name)
    # Connected, and its lane open where there is one, before anything is measured.
    _first = Ringbridge.call(name, plan.role, hd(plan.payloads), timeout: @call_ms)
    {instance, &Ringbridge.call(name, plan.role, &1, timeout: @call_ms)}
  end

  defp plain(node, role, payload) do
    case GenServer.call({Ringbridge.JobDispatcher, node}, {:submit, role, payload}, @call_ms) do
      {:ok, result} -> {:ok, result}
      {:error, reason} -> {:error, %Error{reason: reason}}
    end
  catch
    :exit, _reason -> {:error, %Error{reason: :timeout}}
  end

  defp lane(nil, _role), do: "dist"
  defp lane(instance, role), do: Bench.lane(instance, role)
end
