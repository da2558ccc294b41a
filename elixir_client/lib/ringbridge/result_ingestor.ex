defmodule Ringbridge.ResultIngestor do
  @moduledoc """
  Makes the declared struct of what came back, or says where it differs: `{:invalid_result, violations}`.

  The functions of `Ringbridge` do it for jobs that are structs. For an answer of a plain `GenServer.call`, or a message of
  `:submit_async`, there is `ingest/2`:

      iex> alias Ringbridge.ResultIngestor
      iex> ResultIngestor.ingest(MyApp.Repeat, {:ok, %{text: "catcat", times: 2}})
      {:ok, %MyApp.Repeat.Result{text: "catcat", times: 2}}
      iex> {:error, {:invalid_result, [violation]}} = ResultIngestor.ingest(MyApp.Repeat, {:ok, %{text: "catcat"}})
      iex> to_string(violation)
      "MyApp.Repeat.Result.times must be there (an integer of 1 to 9), got: nil"
      iex> ResultIngestor.ingest(MyApp.Repeat, {:error, :draining})
      {:error, :draining}

  A result that differs is the worker's mistake, or a declaration of another version. The job was run: sending it again brings the same.
  """
  alias Ringbridge.Job.{Record, Violation}

  @typedoc "How an answer is read: by a job's result, each element so, each by its own, or not at all."
  @type plan :: nil | {:result, module()} | {:each, plan()} | {:fan_out, [plan()]}

  @type invalid :: {:invalid_result, [Violation.t(), ...]}

  @doc "An answer of the bridge with the declared result of a job in it."
  @spec ingest(module(), answer :: tuple()) ::
          {:ok, term()} | {:ok, term(), map()} | {:error, invalid() | term()}
  def ingest(module, answer), do: answer({:result, module}, answer)

  @doc false
  @spec answer(plan(), tuple()) :: tuple()
  def answer(nil, answer), do: answer
  def answer(plan, {:ok, value}), do: read(plan, value)

  def answer(plan, {:ok, value, detail}) do
    with {:ok, value} <- read(plan, value), do: {:ok, value, detail}
  end

  def answer(_plan, error), do: error

  @doc false
  @spec parts(plan(), [term()]) :: {good :: [term()], :ok | {:error, invalid()}}
  def parts({:result, module}, parts) do
    case module.__job__().part do
      nil -> {parts, :ok}
      declared -> parts(parts, declared, [])
    end
  end

  def parts(_plan, parts), do: {parts, :ok}

  defp parts([], _declared, good), do: {Enum.reverse(good), :ok}

  defp parts([part | rest], declared, good) do
    case Record.read(declared, part) do
      {:ok, struct} -> parts(rest, declared, [struct | good])
      {:error, found} -> {Enum.reverse(good), {:error, {:invalid_result, found}}}
    end
  end

  defp read(nil, value), do: {:ok, value}

  defp read({:result, module}, value) do
    case module.__job__().result do
      nil ->
        {:ok, value}

      declared ->
        with {:error, found} <- Record.read(declared, value),
             do: {:error, {:invalid_result, found}}
    end
  end

  # The bridge makes these lists itself: as long as the roles, or as the payload was.
  defp read({:each, plan}, values) when is_list(values),
    do: each(Enum.map(values, &{plan, &1}))

  defp read({:fan_out, plans}, values) when is_list(values) and length(values) == length(plans),
    do: each(Enum.zip(plans, values))

  defp read(_plan, value), do: {:ok, value}

  defp each(pairs) do
    read =
      pairs
      |> Enum.with_index()
      |> Enum.map(fn {{plan, value}, at} ->
        with {:error, {:invalid_result, found}} <- read(plan, value),
             do: {:error, Enum.map(found, &%{&1 | path: [at | &1.path]})}
      end)

    case for {:error, found} <- read, violation <- found, do: violation do
      [] -> {:ok, for({:ok, value} <- read, do: value)}
      found -> {:error, {:invalid_result, found}}
    end
  end
end
