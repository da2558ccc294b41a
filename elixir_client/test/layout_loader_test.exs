defmodule Ringbridge.LayoutLoaderTest do
  use ExUnit.Case, async: true

  alias Ringbridge.LayoutLoader

  doctest Ringbridge.LayoutLoader

  @root Path.expand("../..", __DIR__)

  test "the layout is the generated one, in :persistent_term" do
    assert LayoutLoader.load() == :ok
    assert %{version: 0x0003_0001, digest: digest} = LayoutLoader.layout()
    assert Base.decode16!(digest, case: :lower) == Ringbridge.Layout.digest()
    assert :persistent_term.get({LayoutLoader, :layout}) == LayoutLoader.layout()
  end

  test "the older minors are those that the core knows" do
    core = File.read!(Path.join(@root, "csrc/core/version.c"))

    known =
      for [version, digest] <-
            Regex.scan(~r/\.version = (0x\w+),\s*\.digest = \{([^}]*)\}/, core,
              capture: :all_but_first
            ),
          into: %{} do
        bytes =
          for [byte] <- Regex.scan(~r/0x(\w\w)/, digest, capture: :all_but_first),
              into: "",
              do: byte

        {version |> String.trim_leading("0x") |> String.to_integer(16), bytes}
      end

    assert map_size(known) > 0
    assert known == LayoutLoader.older()
  end

  test "which layouts go together is the core's rule" do
    ours = LayoutLoader.layout()
    strange = String.duplicate("0", 64)
    [{older, digest}] = Map.to_list(LayoutLoader.older())

    for {theirs, verdict} <- [
          {ours, {:ok, :same}},
          {%{digest: ours.digest}, {:ok, :same}},
          {%{version: older, digest: digest}, {:ok, :older}},
          {%{version: ours.version + 1, digest: strange}, {:ok, :newer}},
          {%{ours | digest: strange}, :error},
          {%{digest: strange}, :error},
          {%{version: older, digest: strange}, :error},
          {%{version: 0x0004_0000, digest: ours.digest}, :error},
          {%{version: 0x0002_0001, digest: strange}, :error},
          {%{version: "3.1", digest: strange}, :error},
          {%{version: ours.version, digest: 7}, :error}
        ] do
      case LayoutLoader.compare(theirs) do
        {:error, why} -> assert {:error, true} == {verdict, is_binary(why)}, inspect(theirs)
        found -> assert found == verdict, inspect(theirs)
      end
    end
  end

  test "the check has a status for scripts and words for people" do
    ours = LayoutLoader.layout().digest

    assert {0, "same: the layouts go together\n" <> lines} =
             LayoutLoader.run(["--digest", String.upcase(ours)])

    assert lines =~ ours

    assert {1, "mismatch: the bridge's layout is unsaid (000000000000)" <> _} =
             LayoutLoader.run(["--digest", String.duplicate("0", 64)])

    assert {1, json} = LayoutLoader.run(["--json", "--digest", "00\""])
    assert json =~ ~r/"verdict": ?"mismatch"/
    assert json =~ ~S("00\"")
    assert json =~ ours
    refute json =~ "\n"

    for wrong <- [
          [],
          ["--node", "a@b", "--digest", "x"],
          ["--nod", "x"],
          ["x"],
          ["--node", "nohost"],
          ["--node", String.duplicate("a", 300) <> "@b"]
        ] do
      assert {2, why} = LayoutLoader.run(wrong)
      assert why =~ "Exit status"
    end

    assert {0, usage} = LayoutLoader.run(["--help"])
    assert usage =~ "Exit status"
  end
end
