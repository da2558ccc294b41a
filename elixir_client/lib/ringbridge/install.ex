defmodule Ringbridge.Install do
  @moduledoc """
  Puts a bridge into an environment of its own: from a wheel that is there, or that somebody said to fetch. The work of
  `mix ringbridge.install`.

    1. The wheel is found, and fetched if that was asked for; its sha256 is held against what was said, before any of it runs.
    2. A virtual environment is made, and the wheel installed, only from wheels: nothing is compiled, and no code of a source package runs.
    3. What was installed is asked for its version, and its shepherd for a word.

  Nothing is fetched unless an address says from where; `pip` is kept from its index and from all of its configuration otherwise.
  """

  alias Ringbridge.Server.Programs

  # `--isolated` leaves out the user's file and the variables, but not /etc/pip.conf, which may name further indexes.
  @no_settings [{"PIP_CONFIG_FILE", "/dev/null"}]

  @type source ::
          {:file, Path.t()} | {:directory, Path.t()} | {:url, String.t()} | {:index, String.t()}

  @typedoc """
  `packages`: where the packages come from that the bridge needs: an index (`:pip` for the one of pip's configuration), or `:none` when they
  are there already. `sha256`: of the wheel, if no file beside it says it.
  """
  @type plan :: %{
          source: source(),
          packages: {:index, String.t() | :pip} | :directory | :none,
          sha256: String.t() | nil,
          venv: Path.t(),
          python: String.t(),
          version: String.t()
        }

  @doc """
  What is meant by the words of a command line, or what is wrong with them.

      iex> Ringbridge.Install.plan(from: "https://example.org/ringbridge-0.1.0-py3-none-any.whl", venv: "v")
      {:error, "what comes over the network is checked: give --sha256 of the wheel"}
  """
  @spec plan(keyword()) :: {:ok, plan()} | {:error, String.t()}
  def plan(options) do
    with {:ok, source} <- source(options[:from], options[:index]),
         {:ok, sha256} <- sha256(options[:sha256], source),
         {:ok, packages} <- packages(source, options[:index], options[:deps]) do
      {:ok,
       %{
         source: source,
         packages: packages,
         sha256: sha256,
         venv: Path.expand(options[:venv]),
         python: options[:python] || "python3",
         version: options[:version] || version()
       }}
    end
  end

  defp source(nil, nil) do
    {:error,
     "say from where: --from a folder or a wheel, --from the address of a wheel, or --index the address of an index"}
  end

  defp source(nil, "pip"),
    do: {:error, "--index pip is for the packages of a wheel that --from gives"}

  defp source(nil, index), do: {:ok, {:index, index}}

  defp source(from, _index) do
    cond do
      from =~ ~r"\Ahttps?://" ->
        {:ok, {:url, from}}

      File.dir?(from) ->
        {:ok, {:directory, Path.expand(from)}}

      File.regular?(from) ->
        {:ok, {:file, Path.expand(from)}}

      true ->
        {:error,
         "--from #{from}: there is no such file or folder, and an address begins with https://"}
    end
  end

  defp sha256(nil, {kind, _where}) when kind in [:url, :index],
    do: {:error, "what comes over the network is checked: give --sha256 of the wheel"}

  defp sha256(nil, _source), do: {:ok, nil}

  defp sha256(text, _source) do
    if text =~ ~r/\A[0-9a-fA-F]{64}\z/,
      do: {:ok, String.downcase(text)},
      else: {:error, "--sha256 is 64 hexadecimal digits; got: #{text}"}
  end

  defp packages(_source, _index, false), do: {:ok, :none}
  defp packages(_source, "pip", _deps), do: {:ok, {:index, :pip}}
  defp packages(_source, index, _deps) when is_binary(index), do: {:ok, {:index, index}}
  defp packages({:directory, _directory}, nil, _deps), do: {:ok, :directory}

  defp packages(_one_wheel, nil, _deps) do
    {:error,
     "the bridge needs packages that are not in its wheel: give a folder that has them all (--from, `make wheelhouse` makes one), --index the " <>
       "address of an index or --index pip for pip's own, or --no-deps if they are there already"}
  end

  @doc """
  Carries it out; `say` is told each step before it is taken. A step that fails leaves no environment that was not there before.

  One at a time into one environment: the next one is refused. Passwords in addresses are neither said nor in the error.
  """
  @spec run(plan(), (String.t() -> term())) :: {:ok, Path.t()} | {:error, String.t()}
  def run(plan, say) do
    say = fn text ->
      say.(without_password(text))
      :ok
    end

    with {:error, why} <- alone(plan.venv, fn -> carry_out(plan, say) end),
         do: {:error, without_password(why)}
  end

  defp without_password(text), do: String.replace(text, ~r"(https?://)[^/@\s]+@", "\\1***@")

  # A name of an abstract socket (unix(7)) is one process's, and free as soon as that has ended, however it has.
  defp alone(venv, run) do
    name = <<0, "ringbridge-install-", :crypto.hash(:sha256, venv)::binary>>

    case :gen_tcp.listen(0, ifaddr: {:local, name}) do
      {:ok, socket} ->
        try do
          run.()
        after
          :gen_tcp.close(socket)
        end

      {:error, :eaddrinuse} ->
        {:error, "another installation into #{venv} is under way"}

      {:error, why} ->
        {:error, "whether another installation is under way: #{:inet.format_error(why)}"}
    end
  end

  # Nobody else's, and new: what was checked there is what is installed.
  defp scratch! do
    random = Base.url_encode64(:crypto.strong_rand_bytes(12))
    path = Path.join(System.tmp_dir!(), "ringbridge-install-#{random}")
    File.mkdir!(path)
    File.chmod!(path, 0o700)
    path
  end

  defp carry_out(plan, say) do
    before? = File.exists?(plan.venv)
    scratch = scratch!()

    try do
      with {:ok, wheel} <- wheel(plan, scratch, say),
           :ok <- check(wheel, plan, say),
           :ok <- environment(plan, say),
           :ok <- install(wheel, plan, say),
           :ok <- ask(plan, say) do
        {:ok, plan.venv}
      else
        {:error, why} ->
          unless before?, do: File.rm_rf!(plan.venv)
          {:error, why}
      end
    after
      File.rm_rf!(scratch)
    end
  end

  # The wheel --------------------------------------------------------------------------------------

  defp wheel(%{source: {:file, path}}, _scratch, _say), do: {:ok, path}

  defp wheel(%{source: {:directory, directory}} = plan, _scratch, _say) do
    case Path.wildcard(Path.join(directory, "ringbridge-#{plan.version}-*.whl")) do
      [path] ->
        {:ok, path}

      [] ->
        {:error,
         "#{directory} has no wheel ringbridge-#{plan.version}-*.whl: library and bridge are of one version"}

      several ->
        names = Enum.map_join(several, ", ", &Path.basename/1)
        {:error, "#{directory} has several (#{names}): say which, by --from"}
    end
  end

  defp wheel(%{source: {:url, url}}, scratch, say) do
    path =
      Path.join(scratch, url |> URI.parse() |> Map.get(:path) |> Kernel.||("") |> Path.basename())

    if String.ends_with?(path, ".whl") do
      say.("fetching #{url}")
      fetch(url, path)
    else
      {:error, "#{url} is no address of a wheel: those end in .whl"}
    end
  end

  defp wheel(%{source: {:index, url}} = plan, scratch, say) do
    say.("fetching ringbridge #{plan.version} from the index #{url}")

    arguments =
      ["-m", "pip", "download", "--isolated", "--quiet", "--no-deps", "--only-binary", ":all:"] ++
        ["--index-url", url, "--dest", scratch, "ringbridge==#{plan.version}"]

    with {:ok, _said} <- command(plan.python, arguments, @no_settings),
         [path] <- Path.wildcard(Path.join(scratch, "*.whl")) do
      {:ok, path}
    else
      [] -> {:error, "the index #{url} gave no wheel"}
      {:error, why} -> {:error, why}
    end
  end

  defp fetch(url, path) do
    # In every OTP, though a minimal installation may lack them: then it is said which.
    with {:ok, _} <- Application.ensure_all_started(:inets),
         {:ok, _} <- Application.ensure_all_started(:ssl),
         {:ok, :saved_to_file} <- get(url, path) do
      {:ok, path}
    else
      {:ok, {{_http, status, reason}, _headers, _body}} -> {:error, "#{url}: #{status} #{reason}"}
      {:error, why} -> {:error, "#{url}: #{inspect(why)}"}
    end
  end

  # By apply/3: the application itself needs neither of the two, and a release of it shall not carry them for this.
  defp get(url, path) do
    tls = [
      verify: :verify_peer,
      cacerts: apply(:public_key, :cacerts_get, []),
      customize_hostname_check: [
        match_fun: apply(:public_key, :pkix_verify_hostname_match_fun, [:https])
      ]
    ]

    options = if String.starts_with?(url, "https"), do: [ssl: tls], else: []
    to_file = [stream: String.to_charlist(path)]
    apply(:httpc, :request, [:get, {String.to_charlist(url), []}, options, to_file])
  end

  # Its sha256, and that of all that is installed with it ------------------------------------------------------

  defp check(wheel, plan, say) do
    name = Path.basename(wheel)

    with :ok <- version_of(name, plan),
         {:ok, wanted} <- wanted(wheel, plan),
         :ok <- same(wheel, wanted),
         :ok <- check_packages(plan) do
      say.("#{name}: sha256 is #{wanted}, as it should be")
    end
  end

  defp version_of(name, plan) do
    if String.starts_with?(name, "ringbridge-#{plan.version}-"),
      do: :ok,
      else:
        {:error, "#{name} is not version #{plan.version}: library and bridge are of one version"}
  end

  defp wanted(_wheel, %{sha256: sha256}) when sha256 != nil, do: {:ok, sha256}

  defp wanted(wheel, _plan) do
    case sums(Path.dirname(wheel)) do
      %{} = sums when is_map_key(sums, :missing) ->
        {:error,
         "#{Path.basename(wheel)} cannot be checked: there is no file SHA256SUMS beside it; give --sha256"}

      sums ->
        listed(sums, Path.basename(wheel))
    end
  end

  defp listed(sums, name) do
    case sums do
      %{^name => sum} -> {:ok, sum}
      _none -> {:error, "#{name} is not in SHA256SUMS beside it"}
    end
  end

  # As sha256sum(1) writes it: the digits, a blank, a blank or a star, the name.
  defp sums(directory) do
    case File.read(Path.join(directory, "SHA256SUMS")) do
      {:ok, text} ->
        for line <- String.split(text, "\n"),
            [_, sum, name] <- [Regex.run(~r/\A([0-9a-f]{64}) [ *](.+)\z/, line)],
            into: %{},
            do: {name, sum}

      {:error, _none} ->
        %{missing: true}
    end
  end

  # pip takes what fits from the folder: so all of it has to be what it was meant to be.
  defp check_packages(%{packages: :directory, source: {:directory, directory}} = plan) do
    sums = sums(directory)

    directory
    |> Path.join("*.whl")
    |> Path.wildcard()
    |> Enum.reject(&String.starts_with?(Path.basename(&1), "ringbridge-#{plan.version}-"))
    |> Enum.find_value(:ok, fn path ->
      with {:ok, sum} <- listed(sums, Path.basename(path)), :ok <- same(path, sum), do: nil
    end)
  end

  defp check_packages(_plan), do: :ok

  defp same(path, wanted) do
    sum = :sha256 |> :crypto.hash(File.read!(path)) |> Base.encode16(case: :lower)

    if sum == wanted,
      do: :ok,
      else:
        {:error,
         "#{Path.basename(path)} is not what it should be: its sha256 is #{sum}, not #{wanted}"}
  end

  # The environment ----------------------------------------------------------------------------------------------

  defp environment(plan, say) do
    if whole?(plan) do
      say.("using the environment #{plan.venv}")
    else
      # Also one that was left half made: the interpreter comes first, and pip last.
      say.("making the environment #{plan.venv}")

      case command(plan.python, ["-m", "venv", plan.venv]) do
        {:ok, _said} -> :ok
        {:error, why} -> {:error, why <> "\n(Debian has this in the package python3-venv)"}
      end
    end
  end

  defp whole?(plan) do
    File.exists?(python(plan)) and
      match?({:ok, _version}, command(python(plan), ["-m", "pip", "--version"]))
  end

  defp install(wheel, plan, say) do
    from =
      case plan.packages do
        :none -> "its packages being there"
        :directory -> "its packages from #{elem(plan.source, 1)}"
        {:index, :pip} -> "its packages from the index of pip's configuration"
        {:index, url} -> "its packages from the index #{url}"
      end

    say.("installing #{Path.basename(wheel)}, #{from}")

    arguments =
      ["-m", "pip"] ++
        if(plan.packages == {:index, :pip}, do: [], else: ["--isolated"]) ++
        ["--disable-pip-version-check", "--no-input", "install", "--quiet", "--force-reinstall"] ++
        ["--only-binary", ":all:"] ++ packages_from(plan) ++ [wheel]

    settings = if plan.packages == {:index, :pip}, do: [], else: @no_settings
    with {:ok, _said} <- command(python(plan), arguments, settings), do: :ok
  end

  defp packages_from(%{packages: :none}), do: ["--no-index", "--no-deps"]
  defp packages_from(%{packages: {:index, :pip}}), do: []
  defp packages_from(%{packages: {:index, url}}), do: ["--index-url", url]

  defp packages_from(%{packages: :directory, source: {:directory, directory}}),
    do: ["--no-index", "--find-links", directory]

  # What is there --------------------------------------------------------------------------------------------------

  defp ask(plan, say) do
    with {:ok, version} <- installed_version(plan.venv),
         :ok <- same_version(version, plan) do
      say.("ringbridge #{version} is in #{plan.venv}")
    end
  end

  defp same_version(version, %{version: version}), do: :ok

  defp same_version(version, plan),
    do: {:error, "#{plan.venv} has ringbridge #{version} and not #{plan.version}"}

  @doc "The version of the bridge in an environment, which is asked for it, and whose shepherd is tried."
  @spec installed_version(Path.t()) :: {:ok, String.t()} | {:error, String.t()}
  def installed_version(venv) do
    [python | arguments] = Programs.in_environment(Path.join(venv, "bin/python"))

    with {:ok, "ringbridge " <> version} <- command(python, arguments ++ ["version"]),
         {:ok, programs} <- Programs.find([python | arguments], nil),
         # Without an owner it says what it is, and ends (sysexits.h, EX_USAGE).
         {_said, 64} <- System.cmd(programs.shepherd, [], stderr_to_stdout: true) do
      {:ok, String.trim(version)}
    else
      {:ok, said} -> {:error, "#{venv}: `version` of its bridge says #{inspect(said)}"}
      {:error, why} -> {:error, why}
      {said, status} -> {:error, "#{venv}: its shepherd ends with #{status}: #{said}"}
    end
  end

  @doc "The version of this library."
  @spec version() :: String.t()
  def version do
    _loaded = Application.load(:ringbridge)
    :ringbridge |> Application.spec(:vsn) |> to_string()
  end

  defp python(plan), do: Path.join(plan.venv, "bin/python")

  defp command(program, arguments, more \\ []) do
    case System.find_executable(program) do
      nil ->
        {:error, "there is no program #{program} (--python)"}

      path ->
        # A cookie is nobody's business here; and Python's own variables would lead it to other modules.
        env = [{"RINGBRIDGE_COOKIE", nil}, {"PYTHONPATH", nil}, {"PYTHONHOME", nil} | more]

        case System.cmd(path, arguments, stderr_to_stdout: true, env: env) do
          {said, 0} ->
            {:ok, said}

          {said, status} ->
            {:error,
             "#{program} #{Enum.join(arguments, " ")}\nends with status #{status}: #{said}"}
        end
    end
  end
end
