# The declarations of Ringbridge.Job read as such; `import_deps: [:ringbridge]` has them in an application's own formatter.
declarations = [field: 2, field: 3, pad: 1, count: 2, result: 1, part: 1]

[
  inputs: [
    "{mix,.formatter}.exs",
    "csrc/nif/**/*.exs",
    "elixir_client/{lib,test}/**/*.{ex,exs}",
    "integration/**/*.{ex,exs}",
    "tests/**/*.exs",
    "workers/elixir/**/*.{ex,exs}"
  ],
  line_length: 98,
  locals_without_parens: declarations,
  export: [locals_without_parens: declarations]
]
