defmodule Ringbridge.JobTest do
  use ExUnit.Case, async: true

  import Bitwise
  import ExUnit.CaptureIO, only: [capture_io: 2]

  alias Ringbridge.{Error, Job, ResultIngestor}
  alias Ringbridge.Job.{Record, Type, Violation}

  doctest Ringbridge.Job
  doctest Ringbridge.Job.Type
  doctest Ringbridge.Job.Violation
  doctest Ringbridge.ResultIngestor

  defmodule Every do
    @moduledoc false
    use Ringbridge.Job.Record

    fields :packed do
      field :a, :u8
      field :b, :i8
      field :c, :u16
      field :d, :i16
      field :e, :u32
      field :f, :i32
      field :g, :u64
      field :h, :i64
      field :x, :f32
      field :y, :f64, non_finite: true
      field :tag, {:bytes, 3}
      pad 2
      field :pair, {:array, :i16, 2}
      count :rest, :u16
      field :rest, {:list, :u32}, size: 0..5
    end
  end

  defmodule Big do
    @moduledoc false
    use Ringbridge.Job.Record

    fields :packed, endian: :big do
      field :n, :u32
      field :x, :f64
      field :left, :bytes
    end
  end

  defmodule Rounded do
    @moduledoc false
    use Ringbridge.Job.Record

    fields :packed do
      field :scale, :f32, value: 0.1
      field :below, :f32, below: 1.0, default: 0.5
      field :most, :f32, max: 0.1, default: 0
      field :above, :f32, above: 0, default: 1
      field :whole, :f64, above: 9_007_199_254_740_992, default: 1.0e16
      field :all, {:list, {:f32, in: {-0.7, 0.7}}}, default: []
    end
  end

  alias Ringbridge.JobTest.Secret

  # Protocols are consolidated already when tests are compiled, and say so.
  capture_io(:stderr, fn ->
    defmodule Elixir.Ringbridge.JobTest.Secret do
      @moduledoc false
      use Ringbridge.Job, role: "vault", op: :open, version: 3

      payload do
        field :key, :binary, size: 32, redact: true
        field :how, {:atom, [:once, :twice]}, default: :once
        field :note, :binary, optional: true
      end

      def validate(%{note: "same"}), do: {:error, [:key], "another one than before"}
      def validate(_job), do: :ok
    end
  end)

  defp every do
    %Every{
      a: 255,
      b: -128,
      c: 65_535,
      d: -2,
      e: 7,
      f: -7,
      g: 0xFFFF_FFFF_FFFF_FFFF,
      h: -0x8000_0000_0000_0000,
      x: 1.5,
      y: -0.1,
      tag: "abc",
      pair: [-1, 2],
      rest: [1, 2]
    }
  end

  defp texts({:error, violations}), do: Enum.map(violations, &to_string/1)

  describe "a packed record" do
    test "is its fields one behind the other, little endian, as the page of a worker has them" do
      job = %RealJobs.Heights{octaves: 5, width: 500, height: 300, seed: 3, x: -7.3, y: 4.1}

      # Word for word the example of docs/worldgen.md.
      assert Job.write(job) ==
               {:ok,
                <<1::little-16, 5::little-16, 500::little-32, 300::little-32, 0::little-32,
                  3::little-64, -7.3::little-float, 4.1::little-float, 0.01::little-float,
                  2.0::little-float, 0.5::little-float>>}
    end

    test "has counts, gaps, arrays and lists of records" do
      body = %RealJobs.Body{id: 3, gm: 1, position: [1, 2.0, 3.0], velocity: [0.0, 0.0, -1.0]}
      job = %RealJobs.Orbits{span: -1.0, bodies: [body, %{body | id: 4}]}
      {:ok, payload} = Job.write(job)
      assert byte_size(payload) == 24 + 2 * 64

      assert <<1::little-16, 2::little-16, 0::32, _start::64, -1.0::little-float, 3::little-32,
               0::32, 1.0::little-float, 1.0::little-float, _::binary>> = payload

      assert {:ok, %RealJobs.Orbits{bodies: [_, %{id: 4, position: [1.0, 2.0, 3.0]}]}} =
               Job.read(RealJobs.Orbits, payload)
    end

    test "is read back as it was written, in either order of bytes" do
      {:ok, bytes} = Record.write(every())
      assert byte_size(bytes) == 1 + 1 + 2 + 2 + 4 + 4 + 8 + 8 + 4 + 8 + 3 + 2 + 4 + 2 + 8
      assert Record.read(Every, bytes) == {:ok, every()}
      big = %Big{n: 1, x: 1.0, left: "more"}
      assert Record.write(big) == {:ok, <<0, 0, 0, 1, 0x3FF0::16, 0::48, "more">>}
      assert Record.read(Big, <<0, 0, 0, 1, 0x3FF0::16, 0::48, "more">>) == {:ok, big}
    end

    test "has no number for nan and infinity unless its field says so" do
      for {value, bits} <- [
            nan: 0x7FF8 <<< 48,
            infinity: 0x7FF0 <<< 48,
            neg_infinity: 0xFFF0 <<< 48
          ] do
        {:ok, bytes} = Record.write(%{every() | y: value})
        assert <<_::binary-size(34), ^bits::little-64, _::binary>> = bytes
        assert {:ok, %{y: ^value}} = Record.read(Every, bytes)

        {:ok, <<head::binary-size(4), _::64, left::binary>>} =
          Record.write(%Big{n: 1, x: 0.0, left: ""})

        assert [text] = texts(Record.read(Big, head <> <<bits::64>> <> left))
        assert text =~ "Big.x must be a finite number (f64), got: #{inspect(value)}"
      end
    end

    test "of another length is told with both lengths, wherever it is cut" do
      {:ok, bytes} = Record.write(every())

      for length <- 0..(byte_size(bytes) - 1), length not in [53, 57] do
        assert {:error, [_ | _]} = Record.read(Every, binary_part(bytes, 0, length))
      end

      assert ["" <> text] = texts(Record.read(Every, "short"))
      assert text =~ "Every must be 53 bytes or more long; these are 5"
      {:ok, tile} = Job.write(%RealJobs.Heights{width: 1, height: 1})
      assert [text] = texts(Job.read(RealJobs.Heights, tile <> "x"))
      assert text =~ "must be 64 bytes long; these are 65"
      assert [text] = texts(Record.read(Every, {:a, :term}))
      assert text =~ "a packed binary, not a term"
    end

    test "holds constants and counts that it says" do
      {:ok, <<1::little-16, left::binary>>} = Job.write(%RealJobs.Heights{width: 1, height: 1})
      assert [text] = texts(Job.read(RealJobs.Heights, <<2::little-16, left::binary>>))
      assert text == "RealJobs.Heights.version must be 1, got: 2"
      {:ok, bytes} = Record.write(every())
      lying = binary_part(bytes, 0, 51) <> <<3::little-16>> <> binary_part(bytes, 53, 8)
      assert [text] = texts(Record.read(Every, lying))
      assert text =~ "Every.rest must be the 3 that are counted; there are 2"
    end
  end

  describe "what breaks a declaration" do
    test "is told of every field at once, with place, value and rule" do
      body = %RealJobs.Body{id: 1, gm: -1.0, position: [0, 0, 0], velocity: [0, 0, 300_000]}
      job = %RealJobs.Orbits{span: 400_000, flags: 2, bodies: [%{body | gm: 0}, body]}

      assert texts(Job.write(job)) == [
               "RealJobs.Orbits.flags must be an integer of 0 to 1 (u32), got: 2",
               "RealJobs.Orbits.span must be a finite number of -365250.0 to 365250.0 (f64), got: 400000",
               "RealJobs.Orbits.bodies[0].velocity[2] must be a finite number of -299792.458 to 299792.458 (f64), got: 300000"
             ]

      assert {:error, [%Violation{path: [:bodies, 1, :gm], value: -1.0}, _]} =
               Job.write(%{
                 job
                 | span: 1,
                   flags: 0,
                   bodies: [%{body | gm: 0, velocity: [0, 0, 0]}, body]
               })
    end

    test "shows no more of a value than a line takes, and nothing of a secret" do
      job = %RealJobs.Heights{width: :binary.copy("x", 1_000_000), height: 1}
      assert [text] = texts(Job.write(job))
      assert byte_size(text) < 250
      secret = struct!(Secret, key: "hunter2")
      assert [text] = texts(Job.write(secret))
      assert text =~ "Secret.key must be a binary of 32 bytes, got: (redacted)"
      inspected = Module.concat(Inspect, Secret).inspect(secret, %Inspect.Opts{})
      refute inspect(inspected) =~ "hunter2"
      error = %Error{reason: {:invalid_job, elem(Job.write(secret), 1)}}
      refute Exception.message(error) =~ "hunter2"
      refute inspect(error) =~ "hunter2"
    end

    test "shows nothing of a secret either that a rule between fields names, or that came in a whole of another form" do
      assert {:error, [%Violation{path: [:key], redact: true} = found]} =
               Job.write(struct!(Secret, key: String.duplicate("hunter2!", 4), note: "same"))

      refute inspect(found) =~ "hunter2" or to_string(found) =~ "hunter2"
      assert {:error, [found]} = Job.read(Secret, key: "hunter2")
      refute inspect(found) =~ "hunter2" or to_string(found) =~ "hunter2"
      assert to_string(found) =~ "Secret must be a map, got: (redacted)"
    end

    test "may lie between fields" do
      job = %RealJobs.Cluster{bodies: 10, returned: 11}

      assert texts(Job.write(job)) == [
               "RealJobs.Cluster.returned must be at most the number of bodies, got: 11"
             ]

      assert {:ok, _} = Job.write(%{job | returned: 10})
    end

    test "is found in every form of terms" do
      place = %RealJobs.Place{latitude: 51.92, longitude: 4.5}
      route = %RealJobs.Route{from: place, to: %RealJobs.Place{latitude: 1, longitude: 181}}
      assert [text] = texts(Job.write(route))
      assert text == "RealJobs.Route.to.longitude must be a number of -180 to 180, got: 181"
      assert {:ok, {{51.92, 4.5}, {51.92, 4.5}}} = Job.write(%{route | to: place})

      query = %RealJobs.Query{
        select: [:count, {:median, :dep_delay}],
        where: [{:origin, :in, ["JFK"]}]
      }

      assert {:ok, map} = Job.write(query)
      assert map == %{select: [:count, {:median, :dep_delay}], where: [{:origin, :in, ["JFK"]}]}
      assert [text] = texts(Job.write(%{query | where: [{:origin, :like, "J"}]}))
      assert text =~ ~r/^RealJobs.Query.where\[0\]\[1\] must be one of :==, .*, got: :like$/
      assert [text] = texts(Job.write(%{query | select: []}))
      assert text =~ "select must be a list of 1 or more, each an atom or a tuple"
      assert [text] = texts(Job.write(%{query | select: [:a | :b]}))
      assert text =~ "select must be a list"
    end

    test "of a map: a key that lacks, and one too many" do
      assert [text] = texts(Job.read(MyApp.Repeat, %{text: "a"}))
      assert text == "MyApp.Repeat.times must be there (an integer of 1 to 9), got: nil"
      assert [text] = texts(Job.read(MyApp.Repeat, %{text: "a", times: 1, more: 1}))
      assert text == "MyApp.Repeat must be a map with no keys but :text, :times, got: :more"
      assert [_] = texts(Job.read(MyApp.Repeat, [:a]))
    end
  end

  describe "a float of fewer bits" do
    test "is judged by what arrives, so that who reads it judges alike" do
      for {field, value} <- [
            below: 0.99999999,
            above: 1.0e-46,
            whole: 9_007_199_254_740_993,
            all: [0, 0.70000005]
          ] do
        struct = struct(Rounded, [{field, value}])
        assert {:error, [violation]} = Record.write(struct)
        assert hd(violation.path) == field
      end

      for {field, value} <- [
            below: 0.9999999,
            most: 0.1,
            most: 0.100000001,
            above: 1.0e-45,
            whole: 9_007_199_254_740_995,
            all: [-0.7, 0.7, 0.70000001]
          ] do
        assert {:ok, bytes} = Record.write(struct(Rounded, [{field, value}]))
        assert {:ok, read} = Record.read(Rounded, bytes)
        assert {:ok, ^bytes} = Record.write(read)
      end
    end

    test "has its bounds in words as they were declared" do
      {:error, [violation]} = Record.write(%Rounded{most: 0.2})
      assert to_string(violation) =~ "most must be a finite number of 0.1 or less (f32), got: 0.2"
      {:error, [violation]} = Record.write(%Rounded{all: [1]})
      assert to_string(violation) =~ "of -0.7 to 0.7 (f32), got: 1"
      {:error, [violation]} = Record.write(%Rounded{most: 1.0e39})
      assert to_string(violation) =~ "got: 1.0e39"
      bounds = [above: 0.1, below: 0.1000000001]
      assert_raise ArgumentError, ~r/no f32 is both/, fn -> Type.read!(:f32, bounds, :packed) end
    end
  end

  describe "bounds, at random" do
    @seeds 1..40

    test "a value is written if and only if it lies within them, and is read back the same" do
      for seed <- @seeds do
        :rand.seed(:exsss, {seed, 2, 3})
        {word, low, high} = random_integer()
        type = Type.read!(word, [in: low..high], :packed)

        for value <- [
              low,
              high,
              low - 1,
              high + 1,
              between(low, high),
              between(low - 9, high + 9)
            ] do
          assert Type.scalar?(type, value) == value in low..high,
                 "seed #{seed}: #{value} #{inspect(type)}"
        end
      end
    end

    test "a packed record is the same after the way there and back" do
      for seed <- @seeds do
        :rand.seed(:exsss, {seed, 3, 5})
        record = random_every()
        assert {:ok, bytes} = Record.write(record), "seed #{seed}"
        assert Record.read(Every, bytes) == {:ok, record}, "seed #{seed}"
      end
    end

    test "no bytes at all make reading raise; what is read is what was written" do
      for seed <- @seeds do
        :rand.seed(:exsss, {seed, 5, 7})
        bytes = :rand.bytes(:rand.uniform(90) - 1)

        case Record.read(Every, bytes) do
          {:ok, record} ->
            {:ok, again} = Record.write(record)
            # But for the gap, and for the many ways of saying nan.
            assert byte_size(again) == byte_size(bytes)

          {:error, [_ | _] = violations} ->
            for violation <- violations, do: assert(to_string(violation) =~ "must be")
        end
      end
    end

    test "no term at all makes writing or reading raise" do
      for seed <- 1..300 do
        :rand.seed(:exsss, {seed, 7, 9})
        term = random_term(3)

        for module <- [MyApp.Repeat, RealJobs.Query, RealJobs.Route, RealJobs.Orbits],
            do: sound(Job.read(module, term))

        sound(Job.write(%MyApp.Repeat{text: term, times: random_term(1)}))
        sound(Job.write(%RealJobs.Orbits{span: random_term(0), bodies: term}))
        sound(Job.write(%RealJobs.Query{select: term, where: random_term(2)}))
        sound(Record.write(%{every() | rest: term, pair: random_term(1), y: random_term(0)}))
      end
    end

    defp sound({:ok, _}), do: :ok

    defp sound({:error, [_ | _] = found}),
      do: Enum.each(found, &(to_string(&1) =~ "must be" || flunk("#{&1}")))

    defp random_integer do
      word = Enum.random([:u8, :u16, :u32, :u64, :i8, :i16, :i32, :i64])
      {bits, signed?} = Type.integer(word)
      least = if signed?, do: -(1 <<< (bits - 1)), else: 0
      most = least + (1 <<< bits) - 1
      [low, high] = Enum.sort([between(least, most), between(least, most)])
      {word, low, high}
    end

    defp between(low, high),
      do: low + rem(:binary.decode_unsigned(:rand.bytes(16)), high - low + 1)

    defp random_every do
      integer = fn word ->
        {bits, signed?} = Type.integer(word)
        least = if signed?, do: -(1 <<< (bits - 1)), else: 0
        between(least, least + (1 <<< bits) - 1)
      end

      %Every{
        a: integer.(:u8),
        b: integer.(:i8),
        c: integer.(:u16),
        d: integer.(:i16),
        e: integer.(:u32),
        f: integer.(:i32),
        g: integer.(:u64),
        h: integer.(:i64),
        # A number that 32 bits hold.
        x: between(-1000, 1000) / 8,
        y: Enum.random([:nan, :infinity, :neg_infinity, (:rand.uniform() - 0.5) * 1.0e300]),
        tag: :rand.bytes(3),
        pair: [integer.(:i16), integer.(:i16)],
        rest: for(_ <- 1..:rand.uniform(6), do: integer.(:u32)) |> tl()
      }
    end

    defp random_term(0),
      do:
        Enum.random([
          nil,
          :a,
          :<,
          0,
          -1,
          7,
          1.0e308,
          1 <<< 2000,
          "",
          "JFK",
          <<255>>,
          [],
          {},
          %{},
          self()
        ])

    defp random_term(depth) do
      inner = fn -> random_term(depth - 1) end

      case :rand.uniform(7) do
        1 -> for _ <- 1..:rand.uniform(3), do: inner.()
        2 -> [inner.() | inner.()]
        3 -> {inner.(), inner.()}
        4 -> {inner.(), inner.(), inner.()}
        5 -> Map.new([:text, :times, :select, "rows"], &{&1, inner.()})
        6 -> %RealJobs.Body{id: inner.(), gm: inner.(), position: inner.(), velocity: inner.()}
        7 -> random_term(0)
      end
    end
  end

  describe "a declaration that cannot be meant" do
    test "is an error of the compiler that says what to mend" do
      # {the body of a module, what its error says}
      wrong = [
        {"use Ringbridge.Job, role: :a", ~r/payload do/},
        {"use Ringbridge.Job, role: nil\npayload do\nfield :a, :any\nend",
         ~r/role: is an atom or a binary/},
        {"use Ringbridge.Job, rol: :a\npayload do\nfield :a, :any\nend", ~r/unknown option :rol/},
        {"use Ringbridge.Job, role: :a, opcode: 65_536\npayload do\nfield :a, :any\nend",
         ~r/opcode:/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, :u8\nend",
         ~r/field :a: :u8 is no type of a term field/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :u8, in: 1..256\nend",
         ~r/a u8 is 0 to 255/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :f32, max: 1.0e300\nend",
         ~r/field :a: a f32 is .* the bound 1.0e300 is not/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :f64, in: {0, nil}\nend",
         ~r/field :a: in: is low..high or/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, :float, min: 2, below: 2\nend",
         ~r/field :a: no number is both of 2 or more and below 2/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, {:list, {:bytes, 0}}\nend",
         ~r/field :a: the elements of a packed list have a byte or more/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, :any\nfield :b, :any, key: :a\nend",
         ~r/key :a is that of two fields/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :u8, size: 3\nend",
         ~r/has no option :size/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :bytes\nfield :b, :u8\nend",
         ~r/has to be the last/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, {:list, :bytes}\nend",
         ~r/have one size/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\ncount :b, :u8\nfield :a, {:list, :u8}\nend",
         ~r/the list of that name/},
        {"use Ringbridge.Job, role: :a\npayload :packed do\nfield :a, :u8, default: 300\nend",
         ~r/default: must be an integer of 0 to 255/},
        {"use Ringbridge.Job, role: :a\npayload :value do\nfield :a, :any\nfield :b, :any\nend",
         ~r/:value has one field/},
        {"use Ringbridge.Job, role: :a\npayload :tuple do\nfield :a, :any, optional: true\nend",
         ~r/only a map may lack one/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, :any\nfield :a, :any\nend",
         ~r/is there twice/},
        {"use Ringbridge.Job, role: :a\npayload :list do\nfield :a, :any\nend",
         ~r/a form is one of/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, RealJobs.Body\nend",
         ~r/RealJobs.Body is packed/},
        {"use Ringbridge.Job, role: :a\npayload do\nfield :a, :any\nend\nresult String",
         ~r/String has no `use/}
      ]

      for {body, why} <- wrong do
        name = "Wrong#{System.unique_integer([:positive])}"

        error =
          assert_raise CompileError, fn ->
            Code.eval_string("defmodule #{name} do\n#{body}\nend")
          end

        assert Exception.message(error) =~ why, "#{body}: #{Exception.message(error)}"
      end
    end
  end

  @page Path.expand("../../docs/jobs.md", __DIR__)

  test "the page's declaration is one, and its error is what the page says" do
    [code | _] =
      Regex.run(~r/```elixir\n(defmodule .*?)```/s, File.read!(@page), capture: :all_but_first)

    Code.eval_string(code)
    module = MyApp.Terrain
    {:error, found} = module |> struct!(width: 0, height: 300) |> Job.write()
    message = Exception.message(%Error{reason: {:invalid_job, found}, role: :worldgen})
    assert File.read!(@page) =~ inspect(message)

    assert File.read!(@page) =~
             [module]
             |> Ringbridge.SchemaGuard.toml()
             |> String.replace(~r/^/m, "    ")
             |> String.trim_trailing()
  end

  describe "a result" do
    test "is the declared struct, or an error that says whose it is" do
      answer = {:ok, {11_702.3, [{51.7, 4.4}, {1.2, 103.8}]}}

      assert {:ok, %RealJobs.Route.Result{} = route} =
               ResultIngestor.ingest(RealJobs.Route, answer)

      assert hd(route.points) == %RealJobs.Place{latitude: 51.7, longitude: 4.4}

      assert {:error, {:invalid_result, found}} =
               ResultIngestor.ingest(RealJobs.Route, {:ok, {-1.0, []}})

      message = Exception.message(%Error{reason: {:invalid_result, found}, role: :pathfinding})

      assert message =~
               "pathfinding: the worker's answer: RealJobs.Route.Result.nautical_miles must be"

      assert message =~ "; RealJobs.Route.Result.points must be a list of 2 or more"
    end

    test "keeps its detail, and a job without a declared one its answer" do
      detail = %{job: 1}

      assert {:ok, %RealJobs.Picture.Result{png: "12345678"}, ^detail} =
               ResultIngestor.ingest(RealJobs.Picture, {:ok, "12345678", detail})

      assert ResultIngestor.ingest(Secret, {:ok, 7}) == {:ok, 7}
    end

    test "of analytics is what its page says, and so is the question" do
      page = File.read!(Path.expand("../../docs/analytics.md", __DIR__))

      [query, columns, rows] =
        Regex.run(
          ~r/query = (%\{.*?\})\n.*?"columns" => (\[.*?\]),\s+"rows" => (\[\[.*?\]\])\}/s,
          page,
          capture: :all_but_first
        )

      {query, _} = Code.eval_string(query)
      assert {:ok, job} = Job.read(RealJobs.Query, query)
      assert job.limit == 3
      assert Job.write(job) == {:ok, query}
      answer = %{"columns" => eval(columns), "rows" => eval(rows)}

      assert {:ok, %RealJobs.Query.Result{rows: [["B6", 1367, 159.0] | _]}} =
               ResultIngestor.ingest(RealJobs.Query, {:ok, answer})
    end

    defp eval(text), do: text |> Code.eval_string() |> elem(0)

    test "with binaries for keys, as workers in Python answer" do
      rows = %{"columns" => ["a"], "rows" => [[1]]}

      assert ResultIngestor.ingest(RealJobs.Query, {:ok, rows}) ==
               {:ok, %RealJobs.Query.Result{columns: ["a"], rows: [[1]]}}
    end
  end
end
