defmodule Ringbridge.BeamWorkerLoop.Options do
  @moduledoc false
  # The loop's options, checked: an error names the option, what it is and what it should be.

  @known [
    :bridge,
    :role,
    :module,
    :init_arg,
    :slots,
    :credit,
    :cancel_ms,
    :drain_ms,
    :ops,
    :name,
    :connect,
    :connect_ms,
    :safe,
    :lane
  ]

  @spec check!(keyword()) :: map()
  def check!(options) do
    for {key, _} <- options,
        key not in @known,
        do: raise(ArgumentError, "BeamWorkerLoop has no option #{inspect(key)}")

    slots = min(System.schedulers_online(), 16)

    defaults = %{
      init_arg: nil,
      slots: slots,
      credit: 8,
      cancel_ms: 0,
      drain_ms: 5_000,
      ops: [],
      connect: &Node.connect/1,
      connect_ms: 15_000,
      safe: false,
      lane: :auto
    }

    options = Map.merge(defaults, Map.new(options))
    check(options, :bridge, &bridge?/1, "a node's name, or the pid of a LocalBridge")
    check(options, :role, &role?(&1), "an atom or a binary")
    check(options, :module, &module?/1, "a module with handle_job/2")
    check(options, :slots, &(&1 in 1..64), "an integer from 1 to 64")
    check(options, :credit, &(&1 in 1..256), "an integer from 1 to 256")
    check(options, :cancel_ms, &(is_integer(&1) and &1 >= 0), "milliseconds, 0 or more")
    check(options, :drain_ms, &(is_integer(&1) and &1 >= 0), "milliseconds, 0 or more")
    check(options, :ops, &is_list/1, "a list of maps")
    check(options, :connect, &is_function(&1, 1), "a function of a node")
    check(options, :safe, &is_boolean/1, "true or false")
    check(options, :connect_ms, &(is_integer(&1) and &1 > 0), "milliseconds, 1 or more")
    check(options, :lane, &(&1 in [:auto, :nif, :dist]), ":auto, :nif or :dist")
    options
  end

  defp check(options, key, fits, rule) do
    value = Map.get(options, key)

    unless fits.(value),
      do:
        raise(ArgumentError, "BeamWorkerLoop: #{inspect(key)} is #{rule}, not #{inspect(value)}")
  end

  defp bridge?(bridge),
    do: is_pid(bridge) or (is_atom(bridge) and bridge not in [nil, true, false])

  defp role?(role), do: is_binary(role) or (is_atom(role) and role not in [nil, true, false])

  defp module?(module),
    do:
      is_atom(module) and Code.ensure_loaded?(module) and
        function_exported?(module, :handle_job, 2)
end
