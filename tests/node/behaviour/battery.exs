for file <- ~w(case calls watching inside remote), do: Code.require_file("#{file}.exs", __DIR__)

defmodule Behaviour.Battery do
  @moduledoc """
  What a BEAM sees of a process on another node: the cases of `calls.exs`, `watching.exs`, `inside.exs` and
  `remote.exs`, run one by one against the subject.

  A case runs in a process of its own, against a fresh server; what is in that process's mailbox at the end belongs to
  the transcript, and so does its death. Pids, references and the two nodes' names become labels, so that the
  transcripts of two subjects can be compared.
  """
  import Behaviour.Case

  @modules [Behaviour.Calls, Behaviour.Watching, Behaviour.Inside, Behaviour.Remote]
  @case_ms 30_000
  @at_once 6

  @doc "What was seen of each case, as `[{group, case, text}]`."
  @spec run(node()) :: [{String.t(), String.t(), String.t()}]
  def run(node) do
    # They mostly wait, so several run at once; but not those that take the connection down.
    cases = Enum.flat_map(@modules, & &1.cases())
    {alone, together} = Enum.split_with(cases, fn {_, _, name} -> alone?(name) end)
    options = [max_concurrency: @at_once, timeout: :infinity]
    all = Task.async_stream(together, &told_of(&1, node), options)
    for({:ok, each} <- all, do: each) ++ Enum.map(alone, &told_of(&1, node))
  end

  defp alone?(name), do: name =~ "disconnect"
  defp told_of({module, group, name}, node), do: {group, name, transcript(module, name, node)}

  defp transcript(module, name, node) do
    {pid, ref} =
      spawn_monitor(fn ->
        root = GenServer.call({:behaviour, node}, :pid)
        s = start(%Behaviour.Case{node: node, root: root}, [])

        saw =
          try do
            module.perform(name, s)
          catch
            kind, reason -> {kind, reason}
          end

        exit({:saw, saw, messages()})
      end)

    receive do
      {:DOWN, ^ref, _, _, {:saw, saw, []}} -> shown(saw, node)
      {:DOWN, ^ref, _, _, {:saw, saw, mailbox}} -> shown({saw, mailbox: mailbox}, node)
      {:DOWN, ^ref, _, _, reason} -> shown({:case_died, reason}, node)
    after
      @case_ms ->
        Process.exit(pid, :kill)
        Process.demonitor(ref, [:flush])
        "no end within #{@case_ms} ms"
    end
  end

  # ---- labels

  defp shown(term, node) do
    Process.put(:labels, %{})
    term |> labelled(node) |> inspect(limit: :infinity, printable_limit: :infinity, width: 100)
  end

  defp labelled(term, node) when is_pid(term), do: label(:pid, place(node(term), node), term)

  defp labelled(term, node) when is_reference(term),
    do: label(:ref, place(node(term), node), term)

  defp labelled(term, _node) when is_function(term), do: :a_fun
  defp labelled(node, node), do: :subject

  defp labelled(term, _node) when is_atom(term) do
    cond do
      term == node() -> :driver
      String.starts_with?(Atom.to_string(term), "behaviour") -> :a_name
      true -> term
    end
  end

  defp labelled(%_{} = struct, node) do
    struct |> Map.from_struct() |> labelled(node) |> Map.put(:struct, struct.__struct__)
  end

  defp labelled(term, node) when is_map(term) do
    Map.new(term, fn {k, v} -> {labelled(k, node), labelled(v, node)} end)
  end

  defp labelled(term, node) when is_tuple(term) do
    term |> Tuple.to_list() |> labelled(node) |> List.to_tuple()
  end

  defp labelled([head | tail], node), do: [labelled(head, node) | labelled(tail, node)]
  defp labelled(term, _node), do: term

  defp place(node, node), do: :subject
  defp place(_other, _node), do: :driver

  defp label(kind, place, term) do
    labels = Process.get(:labels)
    count = Enum.count(labels, fn {_, {k, p, _}} -> {k, p} == {kind, place} end)
    label = Map.get(labels, term, {kind, place, count + 1})
    Process.put(:labels, Map.put(labels, term, label))
    label
  end
end
