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
  def parts(roles, {role, payload, options}, _demand, _until_ms) do
    case run(roles, role, payload, options) do
      {:ok, parts} -> Stream.resource(fn -> one_by_one(parts) end, &part/1, &left/1)
      {:error, reason} -> [{:end, reason}]
    end
  end

  # A lazy one raises only when it is asked: while a part is made, and not where the consumer has it.
  defp one_by_one(parts),
    do: &Enumerable.reduce(parts, &1, fn part, _last -> {:suspend, part} end)

  defp part(:ended), do: {:halt, :ended}

  defp part(rest) do
    case caught(fn -> {:ok, rest.({:cont, nil})} end) do
      {:ok, {:suspended, part, rest}} -> {[{:parts, [part]}], rest}
      {:ok, _done} -> {[{:end, :normal}], :ended}
      {:error, reason} -> {[{:end, reason}], :ended}
    end
  end

  defp left(:ended), do: :ok
  defp left(rest), do: caught(fn -> rest.({:halt, nil}) end)

  defp answer(roles, {:submit, role, payload, options}) do
    case Keyword.pop(options, :stages, []) do
      {[], options} when is_atom(role) or is_binary(role) ->
        detailed(options, fn -> run(roles, role, payload, options) end)

      {stages, options} ->
        stages = [first(role, options[:opcode]) | stages]

        if proper?(stages),
          do: detailed(options, fn -> stages(roles, payload, stages, options, 1) end),
          else: {:error, {:bad_request, "stages are a proper list"}}
    end
  end

  defp answer(roles, {:submit_many, role, payloads, options}) do
    {:ok, Enum.map(payloads, &detailed(options, fn -> run(roles, role, &1, options) end))}
  end

  defp answer(_roles, message) do
    {:error, {:bad_request, "mode: :inline does not know #{inspect(elem(message, 0))}"}}
  end

  # As a bridge's, but that nothing waits in a queue, and the worker is this process.
  defp detailed(options, job) do
    began = System.monotonic_time()
    answer = job.()

    with true <- Keyword.get(options, :detail) == true, {:ok, result} <- answer do
      run = System.convert_time_unit(System.monotonic_time() - began, :native, :microsecond)
      {:ok, result, %{job: make_ref(), worker: self(), queue_us: 0, run_us: run}}
    else
      _ -> answer
    end
  end

  defp proper?(term), do: is_list(term) and not List.improper?(term)

  # The options' opcode is the first step's.
  defp first(step, nil), do: step
  defp first({:map, role}, opcode) when not is_integer(role), do: {:map, {role, opcode}}
  defp first(role, opcode), do: {role, opcode}

  # What one step answers is the next one's payload; who fails is named, counted from 1 (docs/calling.md).
  defp stages(_roles, result, [], _options, _at), do: {:ok, result}

  defp stages(roles, payload, [stage | rest], options, at) do
    case step(roles, stage, payload, options) do
      {:ok, result} -> stages(roles, result, rest, options, at + 1)
      {:error, {who, reason}} -> {:error, {:stage, at, who, reason}}
    end
  end

  defp step(roles, {:map, role}, payload, options) when not is_integer(role) do
    if proper?(payload) do
      branches(roles, :map, Enum.map(payload, &{role, &1}), options)
    else
      why = "the payload of a map must be a proper list, got #{inspect(payload)}"
      {:error, {elem(one(role), 0), {:bad_request, why}}}
    end
  end

  defp step(roles, several, payload, options) when is_list(several),
    do: branches(roles, :fan_out, Enum.map(several, &{&1, payload}), options)

  defp step(roles, one, payload, options) do
    {role, opcode} = one(one)

    with {:error, reason} <- run(roles, role, payload, Keyword.put(options, :opcode, opcode)),
         do: {:error, {role, reason}}
  end

  defp one({role, opcode}), do: {role, opcode}
  defp one(role), do: {role, 0}

  # One after the other, to the first that fails.
  defp branches(roles, kind, jobs, options) do
    jobs
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {{role, payload}, index}, {:ok, values} ->
      case step(roles, role, payload, options) do
        {:ok, value} -> {:cont, {:ok, [value | values]}}
        {:error, {name, reason}} -> {:halt, {:error, {{kind, name, index}, reason}}}
      end
    end)
    |> case do
      {:ok, values} -> {:ok, Enum.reverse(values)}
      error -> error
    end
  end

  defp run(roles, role, payload, options) do
    caught(fn ->
      case apply_role(roles, role, payload, options) do
        {ok_or_error, _} = answer when ok_or_error in [:ok, :error] ->
          answer

        other ->
          raise ArgumentError,
                "a role's function returns {:ok, _} or {:error, _}; got: #{inspect(other)}"
      end
    end)
  end

  defp caught(fun) do
    fun.()
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
