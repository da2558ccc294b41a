defmodule Ringbridge.Soak.Settings do
  @moduledoc "The settings of the soak's bridge: a role for each thing that jobs may be promised, small enough to be full."

  alias Ringbridge.Lab

  @workers %{echo: 3, sleep: 2, tight: 1, again: 2, ordered: 2, primes: 2}

  @doc "How many workers each role has at rest."
  @spec workers() :: %{atom() => pos_integer()}
  def workers, do: @workers

  # The killing goes on for as long as somebody wants; a job of a worker that hangs ends by its role's timeout; the
  # regions are small enough to have been used all over when the second quarter begins.
  @patient """
  max_restarts = 10_000
  backoff_max_ms = 100
  timeout_default_ms = 8_000
  cancel_term_ms = 200
  cancel_kill_ms = 200
  probation_ms = 100
  """

  # What an open breaker costs is told in tenths of a second here.
  @breaker """
  open_ms = 50
  open_max_ms = 200
  probes = 2
  reclose_ms = 200
  """

  @spec toml() :: String.t()
  def toml do
    """
    [node]
    drain_ms = 1_000
    admin_nodes = ["test*@127.0.0.1"]

    [link]
    result_bytes = 16_777_216

    [tenants.one]
    weight = 30

    [tenants.two]
    rate = {kind = "token_bucket", jobs = 500, per_ms = 1_000, burst = 50}

    """ <>
      role(:echo, "rb-echo", "pool_bytes = 67_108_864") <>
      role(:sleep, "rb-sleep", "") <>
      role(:tight, "rb-echo", """
      payload_bytes_max = 1_048_576
      pool_bytes = 2_097_152
      depth_max = 2
      """) <>
      role(:again, "rb-sleep", "idempotent = true") <>
      role(:ordered, "rb-sleep", "idempotent = true\n[roles.ordered.choice]\nordered = true") <>
      role(:primes, "rb-primes", "")
  end

  defp role(name, program, rest) do
    """
    [roles.#{name}]
    command = ["#{Lab.root()}/build/bin/#{program}"]
    workers = #{@workers[name]}
    #{@patient}
    #{rest}
    [roles.#{name}.breaker]
    #{@breaker}
    """
  end
end
