defmodule Ringbridge.TelemetryTest do
  @moduledoc "What is told to telemetry and OpenTelemetry, which are found at run time: here by stand-ins of their names."
  use ExUnit.Case

  import ExUnit.CaptureLog
  alias Ringbridge.{Error, Telemetry, Trace}

  @traceparent "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
  @name __MODULE__.Compute
  @roles %{echo: &__MODULE__.echo/2, refuse: &__MODULE__.refuse/1}

  def echo(_payload, options), do: {:ok, options[:trace]}
  def refuse(reason), do: {:error, reason}

  # As much of the package as the client calls. Handlers are kept with whoever attached them: the test.
  @telemetry (quote do
                @table :ringbridge_fake_telemetry

                def attach_many(id, events, handler, config) do
                  if :ets.insert_new(@table, {id, events, handler, config}),
                    do: :ok,
                    else: {:error, :already_exists}
                end

                def detach(id) do
                  if :ets.take(@table, id) == [], do: {:error, :not_found}, else: :ok
                end

                def execute(event, measurements, metadata) do
                  for {_id, events, handler, config} <- :ets.tab2list(@table), event in events do
                    handler.(event, measurements, metadata, config)
                  end

                  :ok
                end
              end)

  @opentelemetry (quote do
                    def inject(headers) do
                      case Process.get(:current_span) do
                        nil ->
                          headers

                        :fails ->
                          raise "a propagator of the application's"

                        :exits ->
                          exit(:propagator)

                        :no_pairs ->
                          [:traceparent]

                        traceparent ->
                          [{"tracestate", "x"}, {"traceparent", traceparent} | headers]
                      end
                    end
                  end)

  defp stand_in(module, quoted) do
    Module.create(module, quoted, Macro.Env.location(__ENV__))

    on_exit(fn ->
      :code.purge(module)
      :code.delete(module)
    end)
  end

  # Every event of the page, sent to the test.
  defp attach(_context) do
    :ets.new(:ringbridge_fake_telemetry, [:named_table, :public])
    stand_in(:telemetry, @telemetry)
    test = self()

    tell = fn event, measurements, metadata, _ -> send(test, {event, measurements, metadata}) end
    # By apply: when this is compiled there is no such module.
    :ok = apply(:telemetry, :attach_many, ["test", documented(), tell, nil])

    start_supervised!({Ringbridge, name: @name, mode: :inline, roles: @roles})
    :ok
  end

  defp documented do
    {:docs_v1, _, _, _, %{"en" => page}, _, _} = Code.fetch_docs(Telemetry)

    for [row] <- Regex.scan(~r/^\| `(\[:ringbridge[^`]+)`/m, page, capture: :all_but_first),
        do: event(row)
  end

  defp event(row), do: row |> Code.eval_string() |> elem(0)

  describe "without the packages" do
    test "calls are the same, and the logger says that there is none" do
      refute Telemetry.available?()
      start_supervised!({Ringbridge, name: @name, mode: :inline, roles: @roles})
      assert Ringbridge.call(@name, :echo, 1) == {:ok, nil}
      assert Telemetry.attach_default_logger() == {:error, :no_telemetry}
      assert Telemetry.detach_default_logger() == {:error, :no_telemetry}
      assert_raise UndefinedFunctionError, fn -> Telemetry.telemetry_metrics() end
      assert Telemetry.definitions() == Telemetry.metrics()
    end
  end

  describe "events" do
    setup :attach

    test "the page has twenty-two" do
      assert length(documented()) == 22
    end

    test "of a job: start, then stop with its outcome" do
      assert Ringbridge.call(@name, :echo, 1, trace: @traceparent) == {:ok, @traceparent}
      assert_received {[:ringbridge, :job, :start], %{system_time: _}, start}
      assert %{id: id} = start

      assert start == %{
               id: id,
               instance: @name,
               verb: :submit,
               role: :echo,
               trace: @traceparent
             }

      assert_received {[:ringbridge, :job, :stop], %{duration: duration}, stop}
      assert duration >= 0
      rest = %{node: nil, outcome: :ok, error: nil, job: nil, worker: nil}
      assert stop == Map.merge(start, rest)
      refute_received _
    end

    test "of two jobs each pair has an id of its own" do
      for _ <- 1..2, do: Ringbridge.call(@name, :echo, 1)
      assert_received {[:ringbridge, :job, :start], _, %{id: first}}
      assert_received {[:ringbridge, :job, :stop], _, %{id: ^first}}
      assert_received {[:ringbridge, :job, :start], _, %{id: second}}
      assert_received {[:ringbridge, :job, :stop], _, %{id: ^second}}
      assert first != second
    end

    test "an answer's detail names job and worker; a dead worker's too" do
      assert {:ok, _, %{job: job}} = Ringbridge.call(@name, :echo, 1, detail: true)
      assert_received {[:ringbridge, :job, :stop], %{queue_us: 0, run_us: _}, stop}
      assert stop.job == job and stop.worker == self()

      crashed = {:worker_crashed, %{worker: 3, job: 5}}
      assert {:error, _} = Ringbridge.call(@name, :refuse, {:stage, 1, :echo, crashed})
      assert_received {[:ringbridge, :job, :stop], _, %{job: 5, worker: 3, outcome: :error}}
    end

    test "with correlate: every call's, whose answer stays as it is" do
      name = __MODULE__.Correlated
      start_supervised!({Ringbridge, name: name, mode: :inline, roles: @roles, correlate: true})

      for ask <- [
            fn options -> Ringbridge.call(name, :echo, 1, options) end,
            fn options -> Ringbridge.await(Ringbridge.async(name, :echo, 1, options)) end
          ] do
        assert ask.([]) == {:ok, nil}
        assert_received {[:ringbridge, :job, :stop], %{run_us: _}, %{job: job}} when job != nil
        assert {:ok, nil, %{job: job}} = ask.(detail: true)
        assert_received {[:ringbridge, :job, :stop], %{run_us: _}, %{job: ^job}}
        assert {:ok, nil} = ask.(detail: false)
      end

      assert {:ok, [ok: nil]} = Ringbridge.call_many(name, :echo, [1])
    end

    test "a refusal is a stop, too: the bridge has answered" do
      assert {:error, error} = Ringbridge.call(@name, :refuse, :draining)
      assert_received {[:ringbridge, :job, :stop], _, %{outcome: :error, error: ^error}}
      refute_received {[:ringbridge, :job, :exception], _, _}
    end

    test "of every way to ask, one start and one end" do
      ways = [
        submit: fn -> Ringbridge.await(Ringbridge.async(@name, :echo, 1)) end,
        submit: fn -> Ringbridge.shutdown(Ringbridge.async(@name, :echo, 1)) end,
        submit_many: fn -> Ringbridge.call_many(@name, :echo, [1, 2]) end,
        cast: fn -> Ringbridge.cast(@name, :echo, 1) end,
        stream: fn -> catch_error(Enum.to_list(Ringbridge.stream(@name, :refuse, :draining))) end
      ]

      for {verb, ask} <- ways do
        ask.()
        assert_received {[:ringbridge, :job, :start], _, %{verb: ^verb}}
        assert_received {[:ringbridge, :job, :stop], %{duration: _}, %{verb: ^verb}}
        refute_received _
      end
    end

    test "of a job that no bridge can take: an exception" do
      nowhere = nowhere()
      assert {:error, error} = Ringbridge.call(nowhere, :echo, 1)
      assert %Error{reason: :not_connected} = error
      assert_received {[:ringbridge, :job, :exception], %{duration: _}, metadata}
      assert %{reason: ^error, kind: :error, stacktrace: [], instance: ^nowhere} = metadata
      refute_received {[:ringbridge, :job, :stop], _, _}
    end
  end

  describe "of a server" do
    setup :attach

    # In the shepherd's place a script that says what a shepherd would (Ringbridge.Server.Wire).
    defp server(script, more) do
      directory = Path.join(System.tmp_dir!(), "ringbridge-#{System.pid()}-told")
      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf!(directory) end)

      [shepherd, config] =
        for name <- ["shepherd", "ringbridge.toml"], do: Path.join(directory, name)

      File.write!(
        shepherd,
        "#!/bin/sh\nread_once() { dd bs=1M count=1 >/dev/null 2>&1; }\nread_once\n" <> script
      )

      File.chmod!(shepherd, 0o700)
      File.write!(config, "")
      name = __MODULE__.Bridge
      programs = [command: "/bin/true", shepherd: shepherd, config: config, cookie: "any"]
      {Keyword.merge([name: name, backoff_min_ms: 1] ++ programs, more), name}
    end

    @ready ~S(printf '\000\000\000\001R') <> "\n"
    @status_3 ~S(printf '\000\000\000\011X\000\000\000\003\000\000\000\000') <> "\n"
    @status_0 ~S(printf '\000\000\000\011X\000\000\000\000\000\000\000\000') <> "\n"
    @patience_ms 60_000

    test "that fails: each life's start, readiness and end, what follows, and that it gives up" do
      Process.flag(:trap_exit, true)
      {options, name} = server(@ready <> @status_3, max_failures: 2)

      capture_log(fn ->
        {:ok, server} = Ringbridge.Server.start_link(options)
        assert_receive {:EXIT, ^server, :shutdown}, @patience_ms
      end)

      how = {:status, 3}

      for life <- 1..2 do
        assert_received {[:ringbridge, :server, :start], %{system_time: _, starts: ^life}, start}
        assert %{server: ^name, node: node} = start
        assert map_size(start) == 2
        assert_received {[:ringbridge, :server, :ready], %{start_us: us}, ready}
        assert us >= 0 and ready == Map.put(start, :os_pid, nil)
        assert_received {[:ringbridge, :server, :exit], %{up_us: us}, exit}
        assert us >= 0
        assert exit == %{server: name, node: node, how: how, stopped: false}
        next = if life == 1, do: :restart, else: :give_up
        assert_received {[:ringbridge, :server, ^next], %{failures: ^life}, what}
        assert what == Map.put(start, :how, how)
      end

      refute_received {[:ringbridge | _], _, _}
    end

    test "that is stopped: its end was asked for; that could not start: it was never up" do
      {options, name} = server(@ready <> "read_once\n" <> @status_0, [])

      capture_log(fn ->
        start_supervised!({Ringbridge.Server, options})
        :ok = Ringbridge.Server.await(name, @patience_ms)
        stop_supervised!({Ringbridge.Server, name})
      end)

      assert_received {[:ringbridge, :server, :exit], %{up_us: _}, exit}
      assert %{how: {:status, 0}, stopped: true} = exit
      refute_received {[:ringbridge, :server, :restart], _, _}

      {options, name} = server("exit 1\n", backoff_min_ms: 10_000)

      capture_log(fn ->
        start_supervised!({Ringbridge.Server, options})

        assert_receive {[:ringbridge, :server, :restart], %{pause_ms: pause_ms}, restart},
                       @patience_ms

        assert pause_ms in 5_000..10_000
        assert %{server: ^name, how: :shepherd_killed} = restart
        assert_received {[:ringbridge, :server, :exit], %{up_us: 0}, %{stopped: false}}
        stop_supervised!({Ringbridge.Server, name})
      end)
    end
  end

  # An instance as its table shows it, whose connections have found nothing.
  defp nowhere do
    name = __MODULE__.Nowhere

    instance = %Ringbridge.Instance{
      name: name,
      nodes: [:nobody@nowhere],
      mode: :dist,
      timeout: 0,
      connect_timeout: 0,
      telemetry?: true
    }

    Process.register(self(), name)
    :ets.new(name, [:named_table, :public])
    :ets.insert(name, {:instance, instance})
    name
  end

  describe "the default logger" do
    setup :attach

    test "writes a line for what has no answer, and for lanes; for nothing else" do
      assert Telemetry.attach_default_logger(level: :warning) == :ok
      assert Telemetry.attach_default_logger() == {:error, :already_exists}
      instance = %{name: @name, telemetry?: true}

      log =
        capture_log(fn ->
          Ringbridge.call(@name, :echo, 1)
          Ringbridge.call(@name, :refuse, :draining)
          error = %Error{reason: :timeout, role: :echo}
          duration = System.convert_time_unit(70, :millisecond, :native)
          Telemetry.job(instance, :exception, %{duration: duration}, %{reason: error})
          Telemetry.job(instance, :failover, %{count: 1}, %{to: :c@h, error: error})
          Telemetry.lane(instance, :up, %{round_trip_us: 80}, %{node: :b@h})

          Telemetry.lane(instance, :down, %{up_us: 3_000_000}, %{
            node: :b@h,
            reason: :noconnection
          })
        end)

      for words <- [
            "after 70 ms: echo: no answer",
            "again to c@h",
            "80 us",
            ":noconnection) after 3 s"
          ] do
        assert log =~ words
      end

      assert length(String.split(log, "[warning]")) == 5
      assert Telemetry.detach_default_logger() == :ok
    end
  end

  describe "metrics" do
    test "are of events and measurements that the page has" do
      for {kind, name, options} <- Telemetry.metrics() do
        assert kind in [:counter, :distribution, :last_value, :sum, :summary]

        {event, [_measurement]} =
          name |> String.split(".") |> Enum.map(&String.to_atom/1) |> Enum.split(-1)

        assert event in documented()
        assert is_binary(options[:description])
      end
    end

    test "become Telemetry.Metrics' structs where that is" do
      stand_in(
        Elixir.Telemetry.Metrics,
        quote do
          def counter(name, options), do: {:counter, name, options}
          def distribution(name, options), do: {:distribution, name, options}
          def last_value(name, options), do: {:last_value, name, options}
        end
      )

      assert Telemetry.telemetry_metrics() == Telemetry.metrics()
      assert Telemetry.definitions() == Telemetry.metrics()
    end
  end

  describe "a traceparent" do
    setup do
      start_supervised!({Ringbridge, name: @name, mode: :inline, roles: @roles})
      stand_in(:otel_propagator_text_map, @opentelemetry)
      :ok
    end

    test "is the call's own before the process's before OpenTelemetry's" do
      [other, third] = for flags <- ["00", "02"], do: binary_part(@traceparent, 0, 53) <> flags
      Process.put(:current_span, @traceparent)
      assert Ringbridge.call(@name, :echo, 1) == {:ok, @traceparent}
      Trace.put(other)
      assert Ringbridge.call(@name, :echo, 1) == {:ok, other}
      assert Ringbridge.call(@name, :echo, 1, trace: third) == {:ok, third}
      # Said to be none.
      assert Ringbridge.call(@name, :echo, 1, trace: nil) == {:ok, nil}
      assert Trace.put(nil) == other
      assert Ringbridge.call(@name, :echo, 1) == {:ok, @traceparent}
    end

    test "that is none is left out, so that no call fails for it" do
      for wrong <- [
            :fails,
            :exits,
            :no_pairs,
            "",
            "00-x",
            String.upcase(@traceparent),
            "ff" <> binary_part(@traceparent, 2, 53),
            :atom
          ] do
        Process.put(:current_span, wrong)
        assert Ringbridge.call(@name, :echo, 1) == {:ok, nil}
      end
    end
  end
end
