defmodule Ringbridge.MapTest do
  @moduledoc """
  Map-reduce over roles, from a BEAM that has nothing of ours: pages are counted word by word, each by a worker of its
  own, and one worker adds the counts up. The workers are in Python (support/words.py); what they must find is counted here.
  """
  @words Path.expand("support/words.py", __DIR__)
  @worker_path Enum.map_join(["workers/python", ""], ":", &Path.join(Ringbridge.Lab.root(), &1))

  use Ringbridge.BridgeCase,
    roles: """
    [roles.pages]
    command = ["#{Ringbridge.Lab.python()}", "#{@words}", "pages"]
    env = { PYTHONPATH = "#{@worker_path}" }

    [roles.count]
    command = ["#{Ringbridge.Lab.python()}", "#{@words}", "count"]
    env = { PYTHONPATH = "#{@worker_path}" }
    workers = 2
    depth_max = 8
    backoff_min_ms = 1

    [roles.sum]
    command = ["#{Ringbridge.Lab.python()}", "#{@words}", "sum"]
    env = { PYTHONPATH = "#{@worker_path}" }
    """

  @answer_ms 30_000
  @text File.read!(Path.join(Ringbridge.Lab.root(), "docs/calling.md"))

  defp words(text) do
    ~r/[a-z]+/
    |> Regex.scan(String.downcase(text))
    |> Enum.frequencies_by(fn [word] -> word end)
  end

  defp run(node, role, payload, options), do: submit(node, role, payload, options, @answer_ms)

  test "counts the words of pages that the caller has, or that another role makes", %{node: node} do
    pages = @text |> String.split("\n") |> Enum.chunk_every(3) |> Enum.map(&Enum.join(&1, "\n"))
    expected = words(@text)
    assert length(pages) > 30
    before = stats(node)

    assert run(node, {:map, :count}, pages, stages: [:sum]) == {:ok, expected}
    assert run(node, :pages, @text, stages: [{:map, :count}, :sum]) == {:ok, expected}
    after_them = stats(node)
    assert after_them.accepted == before.accepted + 2
    assert after_them.answered.ok == before.answered.ok + 2
  end

  test "a page that kills its worker is named, and the next run finds a worker", %{node: node} do
    pages = ["one", "two", "die", "four"]

    assert {:error, {:stage, 1, {:map, :count, 2}, {:worker_crashed, %{status: 7}}}} =
             run(node, {:map, :count}, pages, stages: [:sum])

    assert run(node, {:map, :count}, List.delete(pages, "die"), stages: [:sum]) ==
             {:ok, %{"one" => 1, "two" => 1, "four" => 1}}

    await_idle(node)
  end
end
