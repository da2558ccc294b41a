defmodule Ringbridge.Server.OptionsTest do
  use ExUnit.Case, async: true

  alias Ringbridge.Server
  alias Ringbridge.Server.Options

  doctest Ringbridge.Server.Options

  @least [name: Bridge, config: "ringbridge.toml"]

  defp wrong(more) do
    assert_raise ArgumentError, fn -> Options.validate!(Keyword.merge(@least, more)) end
  end

  test "what is left out has a default" do
    options = Options.validate!(@least)
    assert options[:shutdown] > 10_000
    assert options[:cookie] == nil
    assert options[:max_failures] == 10
  end

  for {option, bad} <- [
        name: "a text",
        name: :undefined,
        name: :"",
        config: "",
        node: :nohost,
        cookie: 7,
        cookie_file: :atom,
        command: [],
        command: [:atom],
        command: "nul\0",
        shepherd: 1,
        env: %{"A=B" => "c"},
        env: %{"A" => 1},
        env: %{"RINGBRIDGE_COOKIE" => "no"},
        log_level: :loud,
        ready_timeout: -1,
        shutdown: :infinity,
        backoff_min_ms: 0,
        backoff_max_ms: 1.5,
        max_failures: 0
      ] do
    test "#{inspect(option)} is not #{inspect(bad)}, and the error names it" do
      error = wrong([{unquote(option), unquote(Macro.escape(bad))}])

      assert Exception.message(error) =~
               "{Ringbridge.Server, ..}: option #{inspect(unquote(option))} is "
    end
  end

  test "what is required is asked for by its name" do
    assert_raise ArgumentError, ~r/option :config is required/, fn ->
      Options.validate!(name: B)
    end

    assert_raise ArgumentError, ~r/option :name is required/, fn ->
      Options.validate!(config: "x")
    end
  end

  test "a cookie is shown neither by an error nor by a child spec" do
    error = wrong(cookie: ["sesame"])
    refute Exception.message(error) =~ "sesame"
    refute inspect(Server.child_spec(@least ++ [cookie: "sesame"])) =~ "sesame"
  end

  test "what is in :env is shown by no child spec, no state and no options, and is there when it is asked for" do
    env = %{"PASSWORD" => "s3cret", "GONE" => nil}

    for given <- [env, Map.to_list(env), fn -> env end] do
      refute inspect(Server.child_spec(@least ++ [env: given]), limit: :infinity) =~ "s3cret"
      options = Options.validate!(@least ++ [env: given])
      refute inspect(options, limit: :infinity) =~ "s3cret"
      {:ok, asked} = Options.environment(options[:env])
      assert Map.new(asked) == env
    end

    for wrong <- [%{"env" => env}, [{"env", env}, :odd]],
        do: refute(inspect(Server.child_spec(wrong), limit: :infinity) =~ "s3cret")

    assert {:ok, []} = Options.environment(Options.validate!(@least)[:env])
  end

  test "a function of :env is judged when the server starts, and at each start of the bridge" do
    wrong = fn source ->
      Exception.message(
        assert_raise ArgumentError, fn -> Options.validate!(@least ++ [env: source]) end
      )
    end

    assert wrong.(fn -> raise "s3cret" end) =~ "option :env raised RuntimeError"
    assert wrong.(fn -> throw("s3cret") end) =~ "option :env ended by throw"
    assert wrong.(fn -> %{"PASSWORD" => :s3cret} end) =~ "PASSWORD"
    refute wrong.(fn -> %{"PASSWORD" => :s3cret} end) =~ "s3cret"
    assert wrong.(fn -> %{"RINGBRIDGE_COOKIE" => "s3cret"} end) =~ "is no place for"
    assert wrong.(fn -> "s3cret" end) =~ "option :env is"

    for source <- [
          fn -> raise "s3cret" end,
          fn -> exit("s3cret") end,
          fn -> "s3cret" end,
          fn -> %{"RINGBRIDGE_COOKIE" => "s3cret"} end
        ] do
      assert {:error, "the function of option :env" <> why} = Options.environment(source)
      refute why =~ "s3cret"
    end
  end

  test "two places for the cookie, or pauses the wrong way round, are one too many" do
    assert Exception.message(wrong(cookie: "a", cookie_file: "b")) =~ "not both"
    assert Exception.message(wrong(backoff_min_ms: 9, backoff_max_ms: 8)) =~ ":backoff_max_ms"
  end

  describe "what is not there is an error of the start" do
    setup do
      directory = Path.join(System.tmp_dir!(), "ringbridge-#{System.pid()}-options")
      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf!(directory) end)
      {:ok, directory: directory}
    end

    test "the settings", %{directory: directory} do
      path = Path.join(directory, "none.toml")

      assert {:error, {:shutdown, why}} =
               Server.start_link(name: Bridge, config: path, command: "/bin/true")

      assert why =~ "option :config: there is no file #{path}"
    end

    test "a name that another's table has", %{directory: directory} do
      path = Path.join(directory, "ringbridge.toml")
      File.write!(path, "")
      :ets.new(:ringbridge_taken, [:named_table])

      options = [
        name: :ringbridge_taken,
        config: path,
        command: "/bin/true",
        shepherd: "/bin/true"
      ]

      assert {:error, {:shutdown, why}} = Server.start_link(options)
      assert why =~ "option :name: there is a table of that name"
    end

    test "the program, and the shepherd", %{directory: directory} do
      path = Path.join(directory, "ringbridge.toml")
      File.write!(path, "")
      options = [name: Bridge, config: path]

      assert {:error, {:shutdown, why}} =
               Server.start_link(options ++ [command: "/no/ringbridge"])

      assert why =~ "option :command: there is no program \"/no/ringbridge\""

      assert {:error, {:shutdown, why}} =
               Server.start_link(options ++ [command: "/bin/true", shepherd: "/no/shepherd"])

      assert why =~ "option :shepherd: there is no program \"/no/shepherd\""
    end
  end

  test "what is wrong in :env is told by its name, and no value of it is shown" do
    raised = fn env ->
      options = [name: Bridge, config: "ringbridge.toml", env: env]
      Exception.message(assert_raise ArgumentError, fn -> Server.start_link(options) end)
    end

    for env <- [%{"RINGBRIDGE_COOKIE" => "s3cret"}, [{"RINGBRIDGE_COOKIE", "s3cret"}]] do
      why = raised.(env)
      assert why =~ "RINGBRIDGE_COOKIE" and why =~ ":cookie_file"
      refute why =~ "s3cret"
    end

    why = raised.(%{"PORT" => 4000, "PASSWORD" => "s3cret", :HOME => "/"})
    assert why =~ ~s(PORT) and why =~ ":HOME"
    refute why =~ "s3cret" or why =~ "PASSWORD"

    for env <- [["s3cret"], "s3cret", [{"A", "s3cret"} | "B"], %URI{host: "s3cret"}],
        do: refute(raised.(env) =~ "s3cret")
  end

  test "names that read alike, or are long or no words, have bridges of different names",
       _context do
    Process.flag(:trap_exit, true)
    directory = Path.join(System.tmp_dir!(), "ringbridge-#{System.pid()}-names")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    path = Path.join(directory, "ringbridge.toml")
    File.write!(path, "")
    long = String.duplicate("x", 199)

    names = [MyApp.Bridge, :myapp_bridge, :"MyApp.Bridge", :"Elixir.Elixir.MyApp.Bridge"]
    names = names ++ [:"#{long}1", :"#{long}2", :!, :橋, :a@b]

    nodes =
      for name <- names do
        options = [name: name, config: path, command: "/bin/true", shepherd: "/bin/true"]
        {:ok, server} = Server.start_link(options)
        {:ok, node} = Server.node(name)
        Supervisor.stop(server)
        # As the bridge's settings take one: bridge.dist.names, node_name_problem.
        assert "#{node}" =~ ~r/\A[a-z0-9_]{1,100}@127\.0\.0\.1\z/
        node
      end

    assert nodes == Enum.uniq(nodes)
    assert Exception.message(wrong(name: :"#{long}12")) =~ "option :name is an atom of 200"
    assert "#{hd(nodes)}" =~ ~r/\Amyapp_bridge_[0-9a-f]{1,4}_#{System.pid()}@/
  end

  test "an instance of a server that is not there says so" do
    Process.flag(:trap_exit, true)
    assert {:error, {:shutdown, why}} = Ringbridge.start_link(name: Lonely, server: NoSuchServer)
    assert why =~ "there is no server NoSuchServer (option :server)"
    assert Server.node(NoSuchServer) == {:error, :not_started}
    assert Server.status(NoSuchServer) == {:error, :not_started}
    assert Server.await(NoSuchServer, 50) == {:error, :not_started}
  end
end
