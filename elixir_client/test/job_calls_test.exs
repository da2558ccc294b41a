defmodule Ringbridge.JobCallsTest do
  # Calls with jobs that are structs, against fakes: what is sent, what comes back, what is refused before anything is sent.
  use ExUnit.Case, async: true

  alias MyApp.Repeat
  alias RealJobs.Heights
  alias Ringbridge.Error

  setup context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    start_supervised!({Ringbridge.Test, name: name})
    {:ok, name: name}
  end

  defp repeat(name), do: Ringbridge.Test.stub(name, Repeat, &repeated/1)

  defp repeated(job) do
    {:ok, %Repeat.Result{text: String.duplicate(job.text, job.times), times: job.times}}
  end

  @cat %Repeat{text: "cat", times: 2}
  @catcat %Repeat.Result{text: "catcat", times: 2}

  test "a struct's fake is given the struct, and gives the result's; the test sees the struct", %{
    name: name
  } do
    repeat(name)
    assert Ringbridge.call(name, @cat) == {:ok, @catcat}
    assert_received {Ringbridge.Test, Repeat, @cat, _options}
    assert Ringbridge.call!(name, @cat) == @catcat
    assert {:ok, @catcat, %{run_us: _}} = Ringbridge.call(name, @cat, detail: true)
    assert {@catcat, %{}} = Ringbridge.call!(name, @cat, %{detail: true})
    assert Ringbridge.cast(name, @cat) == :ok
    request = Ringbridge.async(name, @cat)
    assert Ringbridge.await(request) == {:ok, @catcat}
    request = Ringbridge.async(name, @cat, priority: :high)
    assert Ringbridge.yield(request) == {:ok, @catcat}
    request = Ringbridge.async(name, @cat)
    assert_received {[:alias | _], _} = message
    assert Ringbridge.check(request, message) == {:ok, @catcat}
  end

  test "a fake of the role is given what a worker would be", %{name: name} do
    Ringbridge.Test.stub(name, :echo, fn payload, options ->
      {:ok, Map.put(payload, :times, options[:opcode] || 7)}
    end)

    assert Ringbridge.call(name, @cat) == {:ok, %Repeat.Result{text: "cat", times: 7}}
    assert_received {Ringbridge.Test, :echo, %{text: "cat", times: 2}, _options}
  end

  test "what breaks its declaration is never sent", %{name: name} do
    repeat(name)
    bad = %{@cat | times: 10}

    for call <- [
          &Ringbridge.call/2,
          &(&1 |> Ringbridge.async(&2) |> Ringbridge.await()),
          &Ringbridge.cast/2
        ] do
      assert {:error, %Error{reason: {:invalid_job, [violation]}, role: :echo} = error} =
               call.(name, bad)

      assert violation.path == [:times]
      assert Error.not_run?(error)
    end

    assert_raise Error, ~r/MyApp.Repeat.times must be an integer of 1 to 9, got: 10/, fn ->
      Ringbridge.call!(name, bad)
    end

    assert_raise Error, ~r/MyApp.Repeat.times/, fn ->
      name |> Ringbridge.stream(bad) |> Enum.to_list()
    end

    refute_received _
  end

  test "a worker that answers something else is told apart from a failed job", %{name: name} do
    Ringbridge.Test.stub(name, :echo, fn _ -> {:ok, %{text: "x", times: 0}} end)
    assert {:error, %Error{reason: {:invalid_result, [_]}} = error} = Ringbridge.call(name, @cat)

    assert Exception.message(error) ==
             "echo: the worker's answer: MyApp.Repeat.Result.times must be an integer of 1 to 9, got: 0"

    refute Error.not_run?(error)
    # A fake of the struct is held to it where it is made.
    Ringbridge.Test.stub(name, Repeat, fn _ -> {:ok, %Repeat.Result{text: "x", times: 0}} end)
    assert {:error, %Error{reason: {:job_failed, 65_282, why}}} = Ringbridge.call(name, @cat)
    assert why =~ "Repeat.Result.times must be"
    Ringbridge.Test.stub(name, Repeat, fn _ -> {:ok, %{text: "x"}} end)
    assert {:error, %Error{reason: {:job_failed, 65_282, why}}} = Ringbridge.call(name, @cat)
    assert why =~ "must be a %MyApp.Repeat.Result{}"
  end

  test "many: those that break their declaration stand in their places", %{name: name} do
    repeat(name)
    bad = %{@cat | text: ""}
    assert {:ok, [a, b, c]} = Ringbridge.call_many(name, [bad, @cat, bad])
    assert {:error, %Error{reason: {:invalid_job, _}, role: :echo}} = a
    assert {^a, ^b} = {c, {:ok, @catcat}}
    assert {:error, %Error{reason: {:invalid_job, _}}} = Ringbridge.call_many(name, [bad, bad])

    assert {:error, %Error{reason: {:bad_request, why}}} =
             Ringbridge.call_many(name, [@cat, %Heights{width: 1, height: 1}])

    assert why =~ "structs of one module"
    assert {:error, %Error{reason: {:bad_request, _}}} = Ringbridge.call_many(name, [@cat, :cat])
    assert {:error, %Error{reason: {:bad_request, _}}} = Ringbridge.call_many(name, [@cat | :cat])
  end

  test "stages: modules for roles, a struct for the payload, the last one's result", %{name: name} do
    repeat(name)
    Ringbridge.Test.stub(name, :length, &{:ok, String.length(&1.text)})
    Ringbridge.Test.stub(name, :make, &{:ok, %{text: &1, times: 3}})
    assert Ringbridge.pipeline(name, [Repeat, :length], @cat) == {:ok, 6}

    assert Ringbridge.pipeline(name, [:make, Repeat], "a") ==
             {:ok, %Repeat.Result{text: "aaa", times: 3}}

    assert Ringbridge.pipeline(name, [{:map, Repeat}], [@cat, @cat]) == {:ok, [@catcat, @catcat]}

    assert Ringbridge.pipeline(name, [:make, [Repeat, :length]], "a") ==
             {:ok, [%Repeat.Result{text: "aaa", times: 3}, 1]}

    assert {:error, %Error{reason: {:invalid_job, [_]}}} =
             Ringbridge.pipeline(name, [Repeat, :length], %{@cat | times: 0})

    assert {:error, %Error{reason: {:bad_request, why}}} =
             Ringbridge.pipeline(name, [Repeat], "cat")

    assert why =~ "payload of MyApp.Repeat"

    assert {:error, %Error{reason: {:bad_request, _}}} =
             Ringbridge.pipeline(name, [Heights], @cat)

    Ringbridge.Test.stub(name, :odd, fn _ -> {:ok, %{text: "a", times: 0}} end)
    Ringbridge.Test.stub(name, Repeat, &{:ok, %Repeat.Result{text: &1.text, times: &1.times}})

    assert {:error, %Error{reason: {:stage, 2, :echo, {:job_failed, _, _}}}} =
             Ringbridge.pipeline(name, [:odd, Repeat], "x")
  end

  test "an element of a list that is not as declared is named by its place", %{name: name} do
    Ringbridge.Test.stub(name, :echo, fn
      %{text: "bad"} -> {:ok, 7}
      map -> {:ok, map}
    end)

    assert {:error, %Error{reason: {:invalid_result, [violation]}}} =
             Ringbridge.pipeline(name, [{:map, Repeat}], [@cat, %{@cat | text: "bad"}])

    assert violation.path == [1]
  end

  test "parts are the declared ones; a bad one ends the stream after the good ones", %{name: name} do
    part = %Heights.Part{first_row: 0, rows: 1, heights: [0.5]}
    tile = %Heights{width: 1, height: 2}
    Ringbridge.Test.stub(name, Heights, fn _ -> {:ok, [part, %{part | first_row: 1}]} end)
    assert name |> Ringbridge.stream(tile) |> Enum.map(& &1.first_row) == [0, 1]
    {:ok, raw} = Ringbridge.Job.Record.write(part)
    Ringbridge.Test.stub(name, :worldgen, fn _ -> {:ok, [raw, "no part"]} end)
    Ringbridge.Test.stub(name, Heights, fn _ -> {:ok, [part, :no_part]} end)
    stream = Ringbridge.stream(name, tile, max_demand: 1)
    assert_raise Error, ~r/a part is a %RealJobs.Heights.Part/, fn -> Enum.to_list(stream) end

    other = Module.concat(name, Other)

    start_supervised!(
      {Ringbridge,
       name: other, mode: :inline, roles: %{worldgen: fn _ -> {:ok, [raw, "no part"]} end}}
    )

    assert [%Heights.Part{}] = other |> Ringbridge.stream(tile) |> Enum.take(1)
    error = assert_raise Error, fn -> other |> Ringbridge.stream(tile) |> Enum.to_list() end
    assert {:invalid_result, [_]} = error.reason
  end

  test "inline roles may be modules, several of one role, beside the role itself", %{name: name} do
    roles = %{
      Repeat => &repeated/1,
      :worldgen => fn bytes -> {:ok, :binary.copy(<<0::64>>, byte_size(bytes))} end
    }

    name = Module.concat(name, Inline)
    start_supervised!({Ringbridge, name: name, mode: :inline, roles: roles})
    assert Ringbridge.call(name, @cat) == {:ok, @catcat}
    assert {:ok, %{heights: heights}} = Ringbridge.call(name, %Heights{width: 8, height: 8})
    assert length(heights) == 64

    assert {:error, %Error{reason: {:bad_request, why}}} =
             Ringbridge.call(name, :echo, "x", opcode: 3)

    assert why =~ "MyApp.Repeat"
  end

  test "options that a struct's job cannot have, and what is no job, are said in words", %{
    name: name
  } do
    for options <- [[opcode: 1], %{op: :x}, [accept: :zstd], [stages: [:a]], [:nonsense], 7] do
      assert {:error, %Error{reason: {:bad_request, why}}} = Ringbridge.call(name, @cat, options)
      assert is_binary(why)
    end

    assert {:error, %Error{reason: {:bad_request, why}}} = Ringbridge.call(name, %URI{})
    assert why =~ "%URI{} is no job"
    assert {:error, %Error{reason: :not_started}} = Ringbridge.call(Nowhere, @cat)
  end
end
