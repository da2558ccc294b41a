defmodule Ringbridge.AbuseArguments do
  @moduledoc "Calls of the NIF's functions with what they should refuse: terms of every type, and the links of others."

  alias Ringbridge.Lane.Native

  import Bitwise

  # What would end the link, or take a job that nobody then answers, is not for a link that goes on: those get no reference.
  @functions (Native.__info__(:functions) -- [load: 0, status: 0]) -- [about: 0, worker_about: 0]
  @ends_it [:worker_close]

  @doc "Any function with anything; `link`, which is the caller's own or nil, among it. It is refused, or does no harm."
  @spec call_with_anything(reference() | nil) :: term()
  def call_with_anything(link) do
    {name, arity} = Enum.random(@functions)
    arguments = for _ <- 1..arity, do: anything()

    # In the first place it comes past the first look.
    arguments =
      if link != nil and name not in @ends_it and :rand.uniform(2) == 1,
        do: [link | Enum.map(tl(arguments), &if(is_reference(&1), do: :no_reference, else: &1))],
        else: arguments

    apply(Native, name, arguments)
  rescue
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> :refused
  end

  @doc "A call as the link's owner could make it. Raises for everybody else."
  @spec call_for(reference()) :: term()
  def call_for(link) do
    wake = make_ref()

    case :rand.uniform(9) do
      1 -> Native.worker_next(link, wake)
      2 -> Native.worker_watch(link, wake, 0)
      3 -> Native.worker_say(link, :rand.uniform(1_000), 0, 0, 0, 0, "")
      4 -> Native.worker_say(link, :rand.uniform(1_000), 0, 0, 0, 0, :binary.copy("x", 1 <<< 20))
      5 -> Native.worker_beat(link, 1)
      6 -> Native.worker_pulse(link)
      7 -> Native.worker_greet(link, "stranger", 1, "echo", "")
      8 -> Native.worker_bytes_max(link)
      9 -> Native.worker_close(link)
    end
  end

  defp anything do
    case :rand.uniform(22) do
      1 -> nil
      2 -> :atom
      3 -> 0
      4 -> -1
      5 -> :rand.uniform(70_000)
      6 -> 1 <<< 31
      7 -> (1 <<< 64) - 1
      8 -> 1 <<< 200
      9 -> -(1 <<< 63)
      10 -> 1.5
      11 -> ""
      12 -> :crypto.strong_rand_bytes(32)
      13 -> :binary.copy("x", :rand.uniform(100_000))
      14 -> <<5::3>>
      15 -> binary_part(:binary.copy("sub", 100), 7, 64)
      16 -> []
      17 -> ["x", "y" | "z"]
      18 -> List.duplicate("x", 100)
      19 -> {:tuple, %{}}
      20 -> self()
      21 -> make_ref()
      22 -> fn -> :ok end
    end
  end
end
