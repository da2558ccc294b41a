defmodule Behaviour.Case do
  @moduledoc """
  What the cases of the battery are written with: `scenario "a name", s do ... end`, and what to wait with.

  `s` is a fresh server of the subject (subject.exs, subject.py); a case gives what it saw of it.
  """

  defstruct [:node, :root, :pid, :name]

  defmacro __using__(_) do
    quote do
      import Behaviour.Case
      @before_compile Behaviour.Case
      @late_ms 60
      Module.register_attribute(__MODULE__, :cases, accumulate: true)
    end
  end

  defmacro __before_compile__(_) do
    quote do
      @doc "`[{module, group, case}]`"
      def cases, do: for({group, name} <- Enum.reverse(@cases), do: {__MODULE__, group, name})
    end
  end

  @doc "One case: `perform(name, s)`, as ExUnit's test."
  defmacro scenario(name, subject, do: body) do
    body = Macro.escape(body, unquote: true)

    quote bind_quoted: [name: name, subject: Macro.escape(subject), body: body] do
      def perform(unquote(name), unquote(subject)), do: unquote(body)
      @cases {@group, name}
    end
  end

  def start(s, options) do
    name = :"behaviour#{System.unique_integer([:positive])}"
    {:ok, pid} = GenServer.call(s.root, {:start, [{:name, name} | options]})
    %{s | pid: pid, name: name}
  end

  # A process of ours that is linked with the subject's, which knows of it; and our monitor of it.
  def linked_with(s) do
    me = self()

    {pid, ref} =
      spawn_monitor(fn ->
        Process.link(s.pid)
        send(me, :linked)
        receive do: ({:end, reason} -> exit(reason))
      end)

    receive do: (:linked -> :ok)
    settle(s)
    {pid, ref}
  end

  # Returns when the subject has handled all that we sent it, and what it sent us is here.
  def settle(s) do
    GenServer.call(s.root, {:echo, :settled})
    Process.sleep(20)
    :settled
  end

  # The messages that the subject got, as soon as there are any.
  def told(s, tries \\ 100) do
    case GenServer.call(s.pid, :messages) do
      [] when tries > 0 ->
        Process.sleep(20)
        told(s, tries - 1)

      some ->
        settle(s)
        some ++ GenServer.call(s.pid, :messages)
    end
  end

  def reason(fun) do
    {:answered, fun.()}
  catch
    :exit, {reason, {module, function, _arguments}} -> {:exit, reason, module, function}
    kind, reason -> {kind, reason}
  end

  # What a remote function did to its caller; stack traces name files and lines, so only the first place stays.
  def seen(fun) do
    {:returned, without_stack(fun.())}
  catch
    kind, reason -> {kind, without_stack(reason)}
  end

  defp without_stack([{module, function, a, extra} | _])
       when is_atom(module) and is_list(extra) do
    if is_list(a), do: {:undefined, module, function, a}, else: :stack
  end

  defp without_stack(tuple) when is_tuple(tuple) do
    tuple |> Tuple.to_list() |> Enum.map(&without_stack/1) |> List.to_tuple()
  end

  defp without_stack([head | tail]), do: [without_stack(head) | without_stack(tail)]
  defp without_stack(term), do: term

  def down(ref) do
    receive do
      {:DOWN, ^ref, :process, who, why} -> {:down, who, why}
    after
      20_000 -> :no_down
    end
  end

  def expect do
    receive do
      message -> message
    after
      20_000 -> :nothing
    end
  end

  def answer_of(tag) do
    receive do
      {^tag, answer} -> answer
    after
      20_000 -> :nothing
    end
  end

  def messages do
    receive do
      message -> [message | messages()]
    after
      0 -> []
    end
  end

  def last(tuple), do: elem(tuple, tuple_size(tuple) - 1)
end
