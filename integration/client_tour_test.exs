defmodule Ringbridge.ClientTourTest do
  @moduledoc "docs/guides/tour.livemd: its cells run in their order against a bridge, and give the outputs that stand there."
  use Ringbridge.BridgeCase,
    roles: """
    [roles.primes]
    command = ["#{Ringbridge.Lab.root()}/build/bin/rb-primes"]
    """

  @moduletag timeout: 240_000, capture_log: true

  @page File.read!(Path.join(Ringbridge.Lab.root(), "docs/guides/tour.livemd"))
  # {code, output or nil}
  defp cells do
    for part <- tl(String.split(@page, "```elixir\n")),
        [code, rest] = String.split(part, "\n```", parts: 2) do
      case Regex.run(~r/\A\n\n<!-- livebook:{"output":true} -->\n\n```\n(.*?)\n```/s, rest) do
        [_, output] -> {code, output}
        nil -> {code, nil}
      end
    end
  end

  test "the settings of docs/guides/first-settings.md are a bridge's" do
    page = File.read!(Path.join(Lab.root(), "docs/guides/first-settings.md"))
    [_, toml] = Regex.run(~r/```toml\n(.*?)```/s, page)
    echo = Path.join(Lab.root(), "build/bin/rb-echo")
    toml = toml |> String.replace("build/bin/rb-echo", echo) |> String.replace(":9568", ":0")
    bridge = Lab.start_bridge(config: toml, name: Lab.unique("guide"))
    assert submit(bridge.node, :echo, "hello", retry: 1) == {:ok, "hello"}
  end

  test "every cell does what the page says", %{node: node} do
    [{"Mix.install" <> _, nil} | cells] = cells()
    outputs = for {_code, output} when output != nil <- cells, do: output
    assert length(outputs) == length(String.split(@page, ~s("output":true))) - 1
    assert length(outputs) >= 12
    cookie = Path.join(Lab.home(), ".erlang.cookie")

    Enum.reduce(cells, [], fn {code, output}, binding ->
      here =
        code
        |> String.replace("bridge@127.0.0.1", Atom.to_string(node))
        |> String.replace("~/.erlang.cookie", cookie)

      {value, binding} = Code.eval_string(here, binding)
      if output, do: assert(inspect(value, pretty: true) == output, code)
      binding
    end)
  end
end
