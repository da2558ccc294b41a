Code.require_file("csrc/nif/mix_compiler.exs", __DIR__)

defmodule Ringbridge.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :ringbridge,
      version: @version,
      elixir: "~> 1.14",
      description:
        "Calls native workers through a hidden node; a worker's crash never reaches the BEAM",
      # One Mix project at the root: the tests that need a bridge and workers are tests of the client too.
      elixirc_paths: ["elixir_client/lib"],
      compilers: Mix.compilers() ++ [:ringbridge_nif],
      test_paths: ["elixir_client/test", "integration"],
      test_pattern: "*_test.exs",
      test_load_filters: [&String.ends_with?(&1, "_test.exs")],
      test_ignore_filters: [fn _path -> true end],
      # A VM whose carrier is TLS (integration/tls_test.exs) loads ssl when it becomes a node, while mix would have
      # taken it from the path: no dependency names it.
      prune_code_paths: System.get_env("RINGBRIDGE_TEST_TLS") == nil,
      # Everything compiled lies in build/, whatever the language.
      build_path: "build/mix",
      # None, and none will come: calling the bridge must need nothing that is not in Elixir itself.
      deps: [],
      package: package(),
      docs: docs()
    ]
  end

  def application do
    [extra_applications: [:logger, :crypto]]
  end

  # For ExDoc, should somebody run it: no dependency names it.
  defp docs do
    [
      main: "elixir",
      source_ref: "v#{@version}",
      extras:
        ~w(docs/elixir.md docs/guides/tour.livemd docs/guides/first-settings.md docs/guides/cluster.md) ++
          ~w(docs/guides/pools.md docs/guides/upgrade.md docs/server.md docs/jobs.md docs/calling.md) ++
          ~w(docs/errors.md docs/nif-lane.md docs/cancel.md docs/streams.md docs/remote-workers.md docs/dispatch.md CHANGELOG.md),
      groups_for_extras: [Guides: ~r"docs/guides/"],
      groups_for_modules: [
        "Your own tests": [
          Ringbridge.Case,
          Ringbridge.Case.Bridge,
          Ringbridge.Loopback,
          Ringbridge.Test
        ],
        Workers: ~r"^Ringbridge.BeamWorkerLoop",
        Harness: ~r"^Ringbridge.Harness"
      ]
    ]
  end

  defp package do
    [
      licenses: ["Apache-2.0"],
      files:
        ~w(elixir_client/lib elixir_client/README.md mix.exs .formatter.exs README.md CHANGELOG.md LICENSE docs) ++
          ~w(csrc/nif csrc/core csrc/include workers/elixir/template)
    ]
  end
end
