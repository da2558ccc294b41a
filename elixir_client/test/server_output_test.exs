defmodule Ringbridge.Server.OutputTest do
  use ExUnit.Case, async: true

  alias Ringbridge.Server.{Json, OsProcess, Output}

  doctest Ringbridge.Server.Json
  doctest Ringbridge.Server.Wire

  @ready ~S({"node": "b@h", "port": 1, "event": "ready", "level": "info", "timestamp": "2026-01-01"})

  test "a line of the log has its level and its fields, in the order of their names" do
    assert {[{:info, "ready node=b@h port=1"}], _output} = Output.feed(%Output{}, @ready <> "\n")
  end

  test "any split of the bytes gives the same lines" do
    text =
      @ready <>
        "\nplain words\n" <> ~S({"event": "é \"x\"", "level": "warning", "why": "a b"}) <> "\n"

    {whole, _output} = Output.feed(%Output{}, text)
    assert [{:info, _}, {:error, "plain words"}, {:warning, "é \"x\" why=\"a b\""}] = whole

    for at <- 0..byte_size(text) do
      {first, output} = Output.feed(%Output{}, binary_part(text, 0, at))
      {second, _output} = Output.feed(output, binary_part(text, at, byte_size(text) - at))
      assert first ++ second == whole
    end
  end

  test "what is missing is told, and what was begun before it is not put together with what comes after" do
    {[], output} = Output.feed(%Output{}, "the beginning of ")
    {[{:warning, told}], output} = Output.lost(output, 512)
    assert told =~ "512 bytes"
    assert {[{:error, "the end"}], _output} = Output.feed(output, "the end\n")
  end

  test "a line without end is passed on in pieces, and what is no text is shown" do
    {[{:error, long}], output} = Output.feed(%Output{}, String.duplicate("x", 70_000))
    assert byte_size(long) == 70_000
    assert {[{:error, "<<255>>"}], _output} = Output.feed(output, <<255, ?\n>>)
  end

  test "nothing that was said moves the cursor of the terminal that a log is read on" do
    for code <- ["\e[2J", "\r", "\b", "\u009b2J"] do
      line = ~s({"event": "hello", "kit": "a#{escaped(code)}b"})
      {[{_level, from_json}], _output} = Output.feed(%Output{}, line <> "\n")
      {[{:error, plain}], _output} = Output.feed(%Output{}, "Traceback#{code}\n")
      for said <- [from_json, plain], do: refute(said =~ code)
      assert plain =~ "Traceback"
    end

    assert {[{:error, "\tin line 1"}], _output} = Output.feed(%Output{}, "\tin line 1\n")
  end

  defp escaped(text) do
    for <<c::utf8 <- text>>,
      into: "",
      do: "\\u" <> String.pad_leading(Integer.to_string(c, 16), 4, "0")
  end

  test "the last errors are remembered, and not all" do
    {_lines, output} =
      Output.feed(%Output{}, @ready <> "\n" <> Enum.map_join(1..30, &"error #{&1}\n"))

    assert Output.said(output) == Enum.map_join(21..30, "\n", &"error #{&1}")
    {_told, output} = Output.close(%{output | part: "ringbridge: the last word"})
    assert String.ends_with?(Output.said(output), "\nringbridge: the last word")
  end

  test "json: what the standard has, and nothing else" do
    for {text, value} <- [
          {~S([1, -2, 3.5, 1e3, true, false, null, "a\n\u00e9\ud83d\ude00"]),
           [1, -2, 3.5, 1.0e3, true, false, nil, "a\né😀"]},
          {~S( {"a": {"b": []}, "c": {} } ), %{"a" => %{"b" => []}, "c" => %{}}}
        ] do
      assert Json.decode(text) == {:ok, value}
    end

    for text <- [
          "",
          "{",
          "[1,]",
          "{\"a\"}",
          "\"\\ud800\"",
          "\"\\u12\"",
          "\"\\q\"",
          "nul",
          "1 2",
          "\"\xff\"",
          String.duplicate("[", 40)
        ] do
      assert Json.decode(text) == :error
    end
  end

  test "json: bytes at random are a value or an error" do
    :rand.seed(:exsss, 7)

    for _n <- 1..2_000 do
      text =
        for _c <- 1..:rand.uniform(30), into: "", do: <<Enum.random(~c({}[]":,\\u019aetn.- ))>>

      assert match?({:ok, _}, Json.decode(text)) or Json.decode(text) == :error
    end
  end

  test "a process is known by its id and its start" do
    us = OsProcess.identify(String.to_integer(System.pid()))
    assert OsProcess.alive?(us)
    refute OsProcess.alive?(%{us | started: us.started + 1})
    assert OsProcess.identify(999_999_999) == nil
    # Not sent: nobody with this start has that id.
    assert OsProcess.signal(%{us | started: us.started + 1}, "KILL") == :ok
  end
end
