defmodule Ringbridge.ErrorTest do
  @moduledoc "docs/errors.md is the one table of reasons; the module and the table say the same."
  use ExUnit.Case, async: true

  alias Ringbridge.Error

  @page File.read!(Path.expand("../../docs/errors.md", __DIR__))

  @violation %Ringbridge.Job.Violation{
    record: MyApp.Repeat,
    path: [:times],
    value: 0,
    rule: "more"
  }

  # One of each; the message has to say the words.
  @samples [
    {{:overloaded, %{retry_after_ms: 7}}, "7 ms"},
    {{:circuit_open, %{retry_after_ms: 8}}, "8 ms"},
    {:deadline_exceeded, "timeout passed"},
    {:cancelled, "cancelled"},
    {:no_worker, "no worker"},
    {:draining, "draining"},
    {{:too_large, 65_536}, "65536"},
    {{:worker_crashed, %{signal: 11, status: nil, oom: false}}, "signal 11"},
    {{:worker_crashed, %{signal: 9, status: nil, oom: true}}, "out of memory"},
    {{:worker_crashed, %{signal: nil, status: 3, oom: false}}, "exit status 3"},
    {{:worker_broke, :no_heartbeat}, "no_heartbeat"},
    {{:job_failed, 42, "no such picture"}, "42: no such picture"},
    {{:bad_request, "unknown role"}, "unknown role"},
    {{:unauthorized, "not you"}, "not you"},
    {{:stage, 2, :scale, :draining}, "stage 2 (scale): "},
    {:timeout, "in time"},
    {:not_connected, "cookie"},
    {:not_started, "supervision tree"},
    {{:down, :noconnection}, "connection was lost"},
    {{:down, :noproc}, "no bridge"},
    {{:down, :shutdown}, "shutdown"},
    {{:invalid_job, [@violation]}, "MyApp.Repeat.times must be more, got: 0"},
    {{:invalid_result, [@violation]}, "the worker's answer: MyApp.Repeat.times"},
    {{:schema_mismatch, "the role has it a float"}, "a float"},
    {{:layout_mismatch, "majors do not mix"}, "majors"},
    {:unknown_job, "no such job"}
  ]

  # The rows of the tables under the title and under "In the Elixir client": name, and whether the job was run.
  defp rows do
    [whole | sections] = String.split(@page, "\n## ")
    client = Enum.find(sections, &String.starts_with?(&1, "In the Elixir client"))

    for text <- [whole, client],
        [_, reason, cells] <- Regex.scan(~r/^\| `([^`]+)` \|(.*)\|$/m, text),
        do: {name(reason), cells |> String.split(" | ") |> Enum.at(1) |> String.trim()}
  end

  defp name("{:" <> rest), do: rest |> String.split(~r/[,}]/) |> hd() |> String.to_atom()
  defp name(":" <> name), do: String.to_atom(name)

  test "every reason of the page is one of the module's, and the other way round" do
    documented = rows() |> Enum.map(&elem(&1, 0)) |> Enum.sort()

    known =
      for({reason, _words} <- @samples, do: Error.name(reason)) |> Enum.uniq() |> Enum.sort()

    assert length(documented) >= 17
    assert documented -- known == []
    assert known -- documented == []
  end

  test "what the page says was not run is what the module says" do
    for {name, run} <- rows(), name not in [:down, :unknown_job, :stage] do
      {reason, _words} = Enum.find(@samples, &(Error.name(elem(&1, 0)) == name))
      assert Error.not_run?(%Error{reason: reason}) == (run =~ ~r/^no($|;)/), "#{name}: #{run}"
      # "no; perhaps with `retry`": where the bridge may have begun it before.
      again? = Error.not_run?(%Error{reason: reason, again?: true})
      assert again? == (run == "no"), "#{name}: #{run}"
      refute Error.not_run?(%Error{reason: {:stage, 2, :echo, reason}})
      assert Error.not_run?(%Error{reason: {:stage, 1, :echo, reason}, again?: true}) == again?
    end
  end

  test "what another bridge may take was not run" do
    for {reason, _words} <- @samples, Error.elsewhere?(%Error{reason: reason}) do
      assert Error.not_run?(%Error{reason: reason}), inspect(reason)
    end
  end

  test "each has words of its own, with role and bridge before them" do
    for {reason, words} <- @samples do
      message = Exception.message(%Error{reason: reason, role: :echo, node: :b@h})
      assert message =~ words
      assert String.starts_with?(message, "echo at b@h: ")
      refute message =~ inspect(reason) and is_tuple(reason)
    end
  end

  test "any reason has a message, also one that a newer bridge gives" do
    for reason <- [
          :new,
          {:new, 1},
          {:job_failed, 1, <<255>>},
          {:bad_request, {:a, 1}},
          {:overloaded, nil}
        ] do
      assert is_binary(Exception.message(%Error{reason: reason}))
    end
  end
end
