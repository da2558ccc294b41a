defmodule Mix.Tasks.Ringbridge.Gen.Worker do
  @shortdoc "Makes a worker, its job as a struct, its role and a test"
  @moduledoc """
  Makes what an application needs to have work done by a worker of its own: the worker, the job as a struct, the role, a test.

      mix ringbridge.gen.worker thumbnails --lang c

  | written | what it is |
  |---|---|
  | `workers/thumbnails/` | the worker; of `--lang elixir` it is `lib/my_app/workers/thumbnails.ex` |
  | `lib/my_app/jobs/thumbnails.ex` | the job (`Ringbridge.Job`): what it takes, what comes back |
  | `test/my_app/jobs/thumbnails_test.exs` | a test that runs without a bridge, and with the worker where `RINGBRIDGE_BRIDGE` names one |
  | `ringbridge.toml` | the role, appended, with the operation that the job asks for |

    * `--lang` - `c`, `rust`, `zig`, `python` or `elixir`
    * `--config FILE` - another file for the role than `ringbridge.toml`
    * `--ringbridge PATH` - the command `ringbridge`, if it is neither in the path nor in the checkout that this client is from

  Workers of kits are written by the command `ringbridge new worker`, which has their templates and comes with the bridge
  (`pip install ringbridge`); `--lang elixir` needs nothing of it. A file that is there is left alone, and nothing is written then.
  Exit status: 1 if something is in the way, 2 if the arguments are wrong.
  """
  use Mix.Task

  # One set of templates: the kits' are the command's, those for Elixir lie beside them and are taken in here, since an application
  # that calls a bridge may have nothing else of Ringbridge. Plain Elixir, whose words are replaced.
  @templates Path.expand("../../../../workers/elixir/template", __DIR__)
  @files ~w(worker.ex worker_test.exs job.ex job_test.exs)
  for file <- @files, do: @external_resource(Path.join(@templates, file))
  @texts Map.new(@files, &{&1, File.read!(Path.join(@templates, &1))})

  @languages ~w(c rust zig python elixir)
  @switches [lang: :string, config: :string, ringbridge: :string]
  @checkout Path.expand("../../../..", __DIR__)

  @impl Mix.Task
  def run(argv) do
    {options, names, wrong} = OptionParser.parse(argv, strict: @switches)

    with [{word, _} | _] <- wrong,
         do: Mix.Ringbridge.usage!("no such option: #{word}")

    role =
      case names do
        [role] ->
          role

        _ ->
          Mix.Ringbridge.usage!(
            "one name of a role is needed: mix ringbridge.gen.worker thumbnails --lang c"
          )
      end

    # The rule of `ringbridge new worker`: files, crates and C programs at once.
    role =~ ~r/\A[a-z][a-z0-9_]{0,62}\z/ ||
      Mix.Ringbridge.usage!(
        "#{inspect(role)} is no name for a worker: a to z, 0 to 9 and _, 63 at most"
      )

    language = options[:lang]

    language in @languages ||
      Mix.Ringbridge.usage!(
        "--lang is one of #{Enum.join(@languages, ", ")}; got: #{inspect(language)}"
      )

    app =
      Mix.Project.config()[:app] ||
        Mix.Ringbridge.fail!("there is no Mix project here: mix new, then cd")

    make(language, role, "#{app}", Keyword.get(options, :config, "ringbridge.toml"), options)
  end

  defp make(language, role, app, config, options) do
    files = files(language, role, app)
    there = Enum.find(Map.keys(files), &File.exists?/1)
    there == nil || Mix.Ringbridge.fail!("#{there} is there already; nothing was written")

    taken?(config, role) &&
      Mix.Ringbridge.fail!("#{config} has [roles.#{role}] already; nothing was written")

    {settings, build} = worker(language, role, app, options)
    for {path, text} <- files, do: write(path, text)
    append(config, settings <> operation(role))
    Mix.shell().info(next(language, role, app, config, build))
  end

  defp files("elixir", role, app) do
    %{
      "lib/#{app}/workers/#{role}.ex" => filled("worker.ex", role, app),
      "test/#{app}/workers/#{role}_test.exs" => filled("worker_test.exs", role, app),
      "lib/#{app}/jobs/#{role}.ex" => filled("job.ex", role, app)
    }
  end

  defp files(_language, role, app) do
    %{
      "lib/#{app}/jobs/#{role}.ex" => filled("job.ex", role, app),
      "test/#{app}/jobs/#{role}_test.exs" => filled("job_test.exs", role, app)
    }
  end

  # In one pass: a role may be named as a word is.
  defp filled(file, role, app) do
    name = Macro.camelize(role)
    module = Macro.camelize(app)

    words = %{
      "MyApp.Worker" => "#{module}.Workers.#{name}",
      "MyApp" => module,
      "MyRole" => name,
      "my_app" => app,
      "my_role" => role
    }

    ~r/MyApp\.Worker|MyApp|MyRole|my_app|my_role/
    |> Regex.replace(@texts[file], &Map.fetch!(words, &1))
    |> Code.format_string!(locals_without_parens: [field: 2, field: 3])
    |> then(&[&1, "\n"])
  end

  # --- The worker ----------------------------------------------------------------------------------------------

  # It is a process of the application, under its supervisor; the role only lets its node in.
  defp worker("elixir", role, app, _options) do
    settings = """
    [roles.#{role}]
    workers = 0
    [roles.#{role}.remote]
    nodes = ["#{app}*@127.0.0.1", "ringbridge-*@127.0.0.1"]
    """

    {settings, nil}
  end

  defp worker(language, role, _app, options) do
    {command, arguments} = command(options[:ringbridge])
    folder = Path.join("workers", role)
    argv = arguments ++ ["new", "worker", "--lang", language, "--role", role, "--into", folder]

    case System.cmd(command, argv ++ ["--settings-only"], stderr_to_stdout: true) do
      {settings, 0} ->
        {settings, folder}

      {said, status} ->
        Mix.Ringbridge.fail!(
          "#{command} new worker ended with status #{status}, and nothing else was written: #{said}"
        )
    end
  end

  defp command(nil) do
    checkout = Path.join(@checkout, ".venv/bin/ringbridge")

    case System.find_executable("ringbridge") || (File.exists?(checkout) && checkout) do
      path when is_binary(path) ->
        {path, []}

      _none ->
        Mix.Ringbridge.fail!(
          "the command `ringbridge`, which has the templates of this language, is not there: pip install ringbridge, " <>
            "or --ringbridge PATH; --lang elixir needs none"
        )
    end
  end

  defp command(path) do
    found = System.find_executable(path) || System.find_executable(Path.expand(path))
    {found || Mix.Ringbridge.usage!("--ringbridge: #{path} is no program"), []}
  end

  # --- The role ------------------------------------------------------------------------------------------------

  # What the job declares: Ringbridge.SchemaGuard.toml/1 says the same of it, and a test holds them together.
  defp operation(role) do
    """
    [roles.#{role}.ops.capitals]
    opcode = 0
    payload = { binary = [1, 65536] }
    """
  end

  defp taken?(config, role) do
    case File.read(config) do
      {:ok, text} -> text =~ ~r/^\[roles\.#{role}[\].]/m
      {:error, _} -> false
    end
  end

  defp append(config, settings) do
    if File.exists?(config) do
      File.write!(config, "\n" <> settings, [:append])
      Mix.shell().info([:green, "* appending to ", :reset, config])
    else
      write(config, "[node]\nname = \"bridge@127.0.0.1\"\n\n" <> settings)
    end
  end

  defp write(path, text), do: Mix.Generator.create_file(path, text)

  defp next("elixir", role, app, config, _build) do
    worker = "#{Macro.camelize(app)}.Workers.#{Macro.camelize(role)}"

    """

    Its test runs without a bridge: mix test test/#{app}/workers/#{role}_test.exs

    Behind a bridge: `ringbridge serve --config #{config}`, and in your supervision tree

        {Ringbridge.BeamWorkerLoop, bridge: :"bridge@127.0.0.1", role: "#{role}", module: #{worker}}
    """
  end

  defp next(_language, role, app, config, folder) do
    build =
      if File.exists?(Path.join(folder, "Makefile")),
        do: "make -C #{folder}",
        else: "see #{folder}/README.md"

    """

    Build the worker: #{build}
    Its job's test: mix test test/#{app}/jobs/#{role}_test.exs
    With the worker: ringbridge serve --config #{config}, then RINGBRIDGE_BRIDGE=bridge@127.0.0.1 mix test
    """
  end
end
