defmodule Ringbridge.ClientDocsTest do
  @moduledoc "docs/elixir.md: every line of iex on it has the answer that the page says."
  use Ringbridge.BridgeCase,
    roles: """
    [roles.primes]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-primes"]
    """

  @page File.read!(Path.join(Ringbridge.Lab.root(), "docs/elixir.md"))
  @steps Regex.scan(~r/^    iex> (.*)\n    (?!iex> )(.*)$/m, @page, capture: :all_but_first)

  test "the page is right from its first line to its last", %{node: node} do
    assert length(@steps) == length(String.split(@page, "    iex> ")) - 1
    assert length(@steps) >= 8

    Enum.reduce(@steps, [], fn [asked, answer], binding ->
      asked = String.replace(asked, "bridge@127.0.0.1", Atom.to_string(node))
      {value, binding} = Code.eval_string(asked, binding)
      assert inspect(value) == answer, asked
      binding
    end)

    Enum.each([MyApp.Compute, MyApp.Fake], &Supervisor.stop/1)
  end

  test "its options are those that there are" do
    for {key, _default} <- Ringbridge.Options.validate!(name: A, nodes: [:b@h]) do
      assert @page =~ "`#{key}`", "#{key} is not in docs/elixir.md"
    end
  end
end
