[
  inputs: [
    "{mix,.formatter}.exs",
    "csrc/nif/*.exs",
    "elixir_client/{lib,test}/**/*.{ex,exs}",
    "integration/**/*.{ex,exs}",
    "tests/**/*.exs",
    "workers/elixir/**/*.{ex,exs}"
  ],
  line_length: 98
]
