defmodule Ringbridge.Lane.Inline do
  @moduledoc """
  The lane to nowhere: each role is a function, run in the caller's process, for tests of programs that use Ringbridge.

  What a function raises is what a worker's handler would have answered: `{:job_failed, 65282, "Type: text"}`, as the kits
  for Python and Zig do. Deadlines do not run: a function takes as long as it takes.
  """
  @behaviour Ringbridge.Lane

  # The tag of a call by alias is such a list (gen.erl).
  @dialyzer :no_improper_lists

  # The kits' code for a handler that raised.
  @raised 65_282

  @impl Ringbridge.Lane
  def call(roles, message, _timeout), do: {:answer, answer(roles, message)}

  @impl Ringbridge.Lane
  def submit(roles, message) do
    ref = make_ref()
    send(self(), {[:alias | ref], answer(roles, message)})
    ref
  end

  @impl Ringbridge.Lane
  def await(_roles, ref, timeout) do
    receive do
      {[:alias | ^ref], answer} -> {:answer, answer}
    after
      timeout -> :timeout
    end
  end

  @impl Ringbridge.Lane
  def cancel(roles, ref) do
    with :timeout <- await(roles, ref, 0), do: :ok
  end

  @impl Ringbridge.Lane
  def check(_roles, ref, {[:alias | ref], answer}), do: {:answer, answer}
  def check(_roles, _ref, _message), do: :other

  @impl Ringbridge.Lane
  def cast(roles, message) do
    _nobodys = answer(roles, message)
    :ok
  end

  @impl Ringbridge.Lane
  def parts(roles, {role, payload, options}, _demand) do
    case run(roles, role, payload, options) do
      {:ok, parts} -> Stream.concat(Stream.map(parts, &{:parts, [&1]}), [{:end, :normal}])
      {:error, reason} -> [{:end, reason}]
    end
  end

  defp answer(roles, {:submit, role, payload, options}) do
    case Keyword.pop(options, :stages, []) do
      {[], options} ->
        run(roles, role, payload, options)

      {stages, options} ->
        stages(roles, payload, [{role, options[:opcode] || 0} | stages], options, 1)
    end
  end

  defp answer(roles, {:submit_many, role, payloads, options}) do
    {:ok, Enum.map(payloads, &run(roles, role, &1, options))}
  end

  defp answer(_roles, message) do
    {:error, {:bad_request, "mode: :inline does not know #{inspect(elem(message, 0))}"}}
  end

  # What one role answers is the next one's payload; who fails is named, counted from 1 (docs/calling.md).
  defp stages(_roles, result, [], _options, _at), do: {:ok, result}

  defp stages(roles, payload, [stage | rest], options, at) do
    {role, opcode} = if is_tuple(stage), do: stage, else: {stage, 0}

    case run(roles, role, payload, Keyword.put(options, :opcode, opcode)) do
      {:ok, result} -> stages(roles, result, rest, options, at + 1)
      {:error, reason} -> {:error, {:stage, at, role, reason}}
    end
  end

  defp run(roles, role, payload, options) do
    answer = apply_role(roles, role, payload, options)

    case answer do
      {:ok, _result} ->
        answer

      {:error, _reason} ->
        answer

      other ->
        raise ArgumentError,
              "a role's function returns {:ok, _} or {:error, _}; got: #{inspect(other)}"
    end
  rescue
    error ->
      {:error,
       {:job_failed, @raised, "#{inspect(error.__struct__)}: #{Exception.message(error)}"}}
  catch
    kind, value -> {:error, {:job_failed, @raised, "#{kind}: #{inspect(value)}"}}
  end

  defp apply_role(roles, role, payload, options) when is_function(roles, 3),
    do: roles.(role, payload, options)

  defp apply_role(roles, role, payload, options) do
    case roles do
      %{^role => run} when is_function(run, 1) ->
        run.(payload)

      %{^role => run} ->
        run.(payload, options)

      _ ->
        {:error,
         {:bad_request, "no role #{inspect(role)}; there are #{inspect(Map.keys(roles))}"}}
    end
  end
end
