defmodule Ringbridge.DocsTest do
  @moduledoc "What ExDoc would make pages of: every public module and function says what it is for, and has its types."
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)
  @modules Mix.Project.config()[:app] |> Application.spec(:modules) |> Enum.sort()

  # {module, its text, what it exports with documentation of each}; modules with `@moduledoc false` are nobody's business.
  defp public do
    for module <- @modules,
        {:docs_v1, _, _, _, text, _, docs} = Code.fetch_docs(module),
        text != :hidden,
        # An implementation of a protocol has its pages.
        not (Code.ensure_loaded?(module) and function_exported?(module, :__impl__, 1)),
        do: {module, text, docs}
  end

  test "every public module has a text" do
    assert for({module, :none, _docs} <- public(), do: module) == []
    assert length(public()) > 20
  end

  test "every public function, macro, type and callback has one, or says that it has none" do
    silent =
      for {module, _text, docs} <- public(),
          {{kind, name, arity}, _, _, :none, metadata} <- docs,
          kind in [:function, :macro],
          not generated?(name, arity, metadata),
          do: {module, name, arity}

    assert silent == []
  end

  # A delegate's text is that of the function; structs, exceptions and `use` bring functions along that nobody has written.
  defp generated?(name, arity, metadata) do
    Map.has_key?(metadata, :delegate_to) or {name, arity} in [__struct__: 0, __struct__: 1] or
      {name, arity} in [exception: 1, message: 1, child_spec: 1]
  end

  test "every public function has its types" do
    bare =
      for {module, _text, docs} <- public(),
          {:ok, specs} = Code.Typespec.fetch_specs(module),
          {{:function, name, arity}, _, _, text, metadata} <- docs,
          text != :hidden,
          not generated?(name, arity, metadata),
          not callback?(module, name, arity),
          not List.keymember?(specs, {name, arity}, 0),
          do: {module, name, arity}

    assert bare == []
  end

  # Its types are the behaviour's.
  defp callback?(module, name, arity) do
    behaviours =
      module.module_info(:attributes) |> Keyword.get_values(:behaviour) |> Enum.concat()

    Enum.any?(behaviours, fn behaviour ->
      Code.ensure_loaded?(behaviour) and {name, arity} in behaviour.behaviour_info(:callbacks)
    end)
  end

  test "the links of the guides lead somewhere" do
    for page <- Path.wildcard(Path.join(@root, "docs/guides/*")),
        [_, link] <- Regex.scan(~r/\]\(([^)#]+)(?:#[^)]*)?\)/, File.read!(page)),
        do: assert(File.exists?(Path.expand(link, Path.dirname(page))), "#{page}: #{link}")
  end

  test "a newcomer's settings are ten at most, and there are such keys" do
    page = File.read!(Path.join(@root, "docs/guides/first-settings.md"))
    all = File.read!(Path.join(@root, "docs/configuration.md"))
    keys = Regex.scan(~r/^\| `\[.*?\]` `(\w+)` \|/m, page, capture: :all_but_first)
    assert length(keys) in 5..10
    for [key] <- keys, do: assert(all =~ "| `#{key}` |", key)
  end

  test "every page that ExDoc is told of is there" do
    docs = Mix.Project.config()[:docs]
    extras = Enum.map(docs[:extras], &if(is_tuple(&1), do: to_string(elem(&1, 0)), else: &1))
    assert for(page <- extras, not File.regular?(Path.join(@root, page)), do: page) == []
    guides = Path.wildcard("docs/guides/*", []) |> Enum.sort()
    assert guides -- extras == []
  end
end
