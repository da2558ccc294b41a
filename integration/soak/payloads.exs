defmodule Ringbridge.Soak.Payloads do
  @moduledoc "What is sent: no two payloads are alike, but for the very small. Each names its caller and its call."

  alias Ringbridge.Soak.{Calls, Payloads}

  @mib 1_048_576
  @primes_limit 20_000

  @doc "The bytes that payloads are cut out of, and the primes that streams are held against; once in a VM."
  @spec prepare() :: :ok
  def prepare do
    if :persistent_term.get(Payloads, nil) == nil do
      :persistent_term.put(Payloads, :rand.bytes(9 * @mib))
      :persistent_term.put({Payloads, :primes}, Enum.filter(2..(@primes_limit - 1), &prime?/1))
    end

    :ok
  end

  defp prime?(n) do
    Enum.all?(2..max(2, floor(:math.sqrt(n)))//1, &(n == &1 or rem(n, &1) != 0))
  end

  @doc "What `rb-primes` streams for the payload \"20000\"."
  @spec primes() :: [pos_integer()]
  def primes, do: :persistent_term.get({Payloads, :primes})

  @spec primes_limit() :: pos_integer()
  def primes_limit, do: @primes_limit

  @spec bytes(Calls.t(), non_neg_integer()) :: binary()
  def bytes(calls, size) do
    bytes = :persistent_term.get(Payloads)
    part = binary_part(bytes, :rand.uniform(byte_size(bytes) - size + 1) - 1, size)
    mark = <<calls.id::32, calls.number::32>>
    if size < 8, do: part, else: mark <> binary_part(part, 8, size - 8)
  end

  @doc "Around the sizes at which something changes: nothing, one block, one fragment of the wire, many."
  @spec size() :: non_neg_integer()
  def size do
    case :rand.uniform(8) do
      1 -> :rand.uniform(4) - 1
      n when n in 2..3 -> :rand.uniform(64)
      n when n in 4..5 -> :rand.uniform(4_200)
      n when n in 6..7 -> 63_000 + :rand.uniform(5_000)
      8 -> :rand.uniform(@mib)
    end
  end

  @spec small_size() :: pos_integer()
  def small_size, do: 8 + :rand.uniform(2_000)

  @doc "For rb-sleep: so many milliseconds at most. What it answers is this text, and its zeros tell calls apart."
  @spec nap(Calls.t(), pos_integer()) :: String.t()
  def nap(calls, ms_max), do: zeros(calls.number, "#{:rand.uniform(ms_max)}")

  @spec zeros(non_neg_integer(), String.t()) :: String.t()
  def zeros(number, text), do: String.duplicate("0", rem(number, 100)) <> text

  @spec term(Calls.t()) :: tuple()
  def term(calls) do
    {:soak, calls.id, self(), make_ref(), -1.5, 123_456_789_012_345_678_901,
     %{"bytes" => bytes(calls, size()), list: Enum.to_list(1..:rand.uniform(300))}}
  end

  @doc "Options that change nothing of what is answered."
  @spec options(Calls.t()) :: map()
  def options(calls) do
    all = [
      priority: Enum.random([:critical, :high, :normal, :low]),
      tenant: Enum.random(["one", :two, "three of #{calls.id}"]),
      key: Enum.random([calls.id, :hot, "key #{:rand.uniform(50)}"]),
      meta: %{id: calls.id, number: calls.number},
      timeout: 10_000 + :rand.uniform(10_000)
    ]

    Map.new(Enum.take_random(all, :rand.uniform(6) - 1))
  end
end
